//! What services said of one request, for its record.
//!
//! Always holds: there is one line for each service, phase and verdict, however many messages an answer had, so that there
//! are as many as these may differ in and no more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_model::resource::CheckPhase;
use serde::Serialize;

use super::{Checker, Failure, Verdict};

/// Shared by the stages of a request and its answer under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<Noted>>>);

/// What one service said, once or several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Noted {
    /// Whose word it was that it is asked.
    by: &'static str,
    phase: &'static str,
    verdict: &'static str,
    /// Its own reason, or how it failed; the first, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// How often.
    count: u32,
    /// How long it took in all.
    us: u64,
}

impl Notes {
    pub(crate) fn note(
        &self,
        checker: &Checker,
        phase: CheckPhase,
        said: &Result<Verdict, Failure>,
        took: Duration,
    ) {
        let (verdict, reason) = match said {
            Ok(Verdict::Allow) => ("allow", None),
            Ok(Verdict::Deny(reason)) => ("deny", (!reason.is_empty()).then(|| reason.clone())),
            Ok(Verdict::Replace(_)) => ("replace", None),
            Err(failure) if checker.is_open() => ("passed unchecked", Some(failure.as_str().to_owned())),
            Err(failure) => ("refused unchecked", Some(failure.as_str().to_owned())),
        };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (by, phase) = (checker.origin.as_str(), phase.as_str());
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |noted: &&mut Noted| (noted.by, noted.phase, noted.verdict) == (by, phase, verdict);
        match notes.iter_mut().find(is_it) {
            Some(noted) => {
                noted.count = noted.count.saturating_add(1);
                noted.us = noted.us.saturating_add(us);
            }
            None => notes.push(Noted { by, phase, verdict, reason, count: 1, us }),
        }
    }

    /// All of it so far.
    pub(crate) fn all(&self) -> Vec<Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
