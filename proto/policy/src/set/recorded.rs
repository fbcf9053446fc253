//! Deciding anew on a call of which not all is known, such as one from a record, whose arguments are redacted.
//!
//! Always holds: a verdict that is given is the one that the whole call would get, whatever stands in the gaps; where it may
//! be another, none is given. A gap is never taken for something that is absent. What a denial follows from may be more than
//! is told.

use std::collections::BTreeSet;

use cedar_policy_core::ast::Context;

use super::{Asked, PolicySet, unasked, untyped};
use crate::call::Call;
use crate::decision::{Decision, REASONS_MAX, Reason};
use crate::reads::{Path, Reads};
use crate::set::rule::{Effect, Rule};
use crate::target::{Principal, Target};

/// What is not known of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    places: BTreeSet<Path>,
    /// Whether an argument that is not known may be of another type than its tool takes, which denies.
    may_be_untyped: bool,
}

/// It cannot be told what the whole call would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsure {
    /// The statements that read what is not known; none where it may only be of another type than its tool takes. At most
    /// [`REASONS_MAX`].
    pub statements: Vec<Reason>,
}

impl Gaps {
    /// Adds a place below `context`, such as `["arguments", "path"]`: it and all that is in it is not known. In the call that
    /// is decided it has to be left out, and what it is in has to be there.
    pub fn add(&mut self, place: impl IntoIterator<Item = impl Into<String>>) {
        self.places.insert(place.into_iter().map(Into::into).collect());
    }

    /// What is not known may be of another type than its tool takes.
    pub fn may_be_untyped(&mut self) {
        self.may_be_untyped = true;
    }

    /// Whether all is known.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && !self.may_be_untyped
    }

    fn touches(&self, rule: &Rule) -> bool {
        let of_one_line = |one: &Path, other: &Path| one.iter().zip(other).all(|(one, other)| one == other);
        let is_read = |gap: &Path| {
            rule.reads.values.iter().any(|place| of_one_line(gap, place))
                // What has a gap in it is there.
                || rule.reads.presences.iter().any(|place| place.starts_with(gap))
        };
        self.places.iter().any(is_read)
    }
}

impl PolicySet {
    /// The same as [`PolicySet::decide_call`], of a call that has gaps.
    pub fn decide_recorded(
        &self,
        principal: &Principal,
        target: &Target<'_>,
        call: &Call<'_>,
        gaps: &Gaps,
    ) -> Result<Decision, Unsure> {
        if gaps.is_empty() {
            return Ok(self.decide_call(principal, target, call));
        }
        let asked = match Asked::of(principal, target) {
            Ok(asked) => asked,
            Err(message) => return Ok(unasked(&message)),
        };
        let slice = self.slice(&asked);
        if !slice.iter().any(|rule| rule.reads.is_any) {
            return Ok(asked.decide(&slice, Context::empty()));
        }
        let (unsure, sure): (Vec<&Rule>, Vec<&Rule>) = slice.into_iter().partition(|rule| gaps.touches(rule));
        // What is known and wrong denies, be the rest what it may.
        if let Some(message) = untyped(&sure, call) {
            return Ok(unasked(&message));
        }
        let reads = |read: fn(&Reads) -> bool| sure.iter().any(|rule| read(&rule.reads));
        let said = match call.context(reads(|reads| reads.time), reads(|reads| reads.facts)) {
            Ok(context) => asked.ask(&sure, context),
            Err(message) => return Ok(unasked(&message)),
        };
        let is_denied = !said.forbids.is_empty() || !said.failures.is_empty();
        let may_be_permitted =
            !said.permits.is_empty() || unsure.iter().any(|rule| rule.effect == Effect::Permits);
        let is_certain = unsure.is_empty() && !gaps.may_be_untyped;
        if is_denied || !may_be_permitted || is_certain {
            return Ok(said.decision());
        }
        let mut statements: Vec<Reason> = unsure.iter().map(|rule| rule.reason.clone()).collect();
        statements.sort_unstable();
        statements.truncate(REASONS_MAX);
        Err(Unsure { statements })
    }
}
