//! One entry: opened by the gate, filled by the call, closed after the answer.
//!
//! Always holds: it is closed once; one that is dropped unclosed was left by its caller and says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use gantry_model::{Name, Revision};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::Instant;
use tonic::Code;

use super::{Audit, Nobody};
use crate::access::identity::Identity;
use crate::journal::Journal;

/// Names that a record lists; of a larger set it says how many more there were.
const NAMES_MAX: usize = 32;
/// What records of this service have as `kind`; those of agents' calls have another or none.
pub(crate) const ADMIN_KIND: &str = "admin";
/// Stands for a text that is no name, and may be anything.
const NO_NAME: &str = "(no name)";

/// The entry of one call.
#[derive(Debug)]
pub(crate) struct Entry {
    permit: Option<OwnedPermit<Vec<u8>>>,
    nobody: Arc<Mutex<Nobody>>,
    journal: Arc<Journal>,
    notes: Notes,
}

/// What is noted of a call while it runs. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Notes(Arc<Mutex<Facts>>);

/// What a call is about, as its request says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The tenants that it names.
    pub(crate) tenants: Vec<String>,
    /// What it names in them: a kind of thing and its name.
    pub(crate) names: Vec<(&'static str, String)>,
    /// The revision that it expects.
    pub(crate) expected: Option<u64>,
    /// Nothing is to be written.
    pub(crate) dry_run: bool,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Somebody who proved nothing.
    Nobody,
    /// With this answer.
    Answered(Code),
    /// The caller left.
    Cancelled,
}

#[derive(Debug)]
struct Facts {
    decision_id: String,
    member: Arc<str>,
    method: &'static str,
    address: String,
    started: Instant,
    who: Option<Identity>,
    tenant: Option<String>,
    resources: Vec<String>,
    more: usize,
    expected: Option<u64>,
    dry_run: bool,
    problems: usize,
    revision: Option<Revision>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    decision_id: &'a str,
    kind: &'static str,
    node: &'a str,
    tenant: Option<&'a str>,
    admin: Option<&'a str>,
    proof: Option<String>,
    address: &'a str,
    method: &'a str,
    resources: &'a [String],
    #[serde(skip_serializing_if = "is_zero")]
    more: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_revision: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    outcome: &'a str,
    code: String,
    #[serde(skip_serializing_if = "is_zero")]
    problems: usize,
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
    duration_us: u64,
}

impl Entry {
    pub(super) fn new(
        permit: OwnedPermit<Vec<u8>>,
        decision_id: String,
        (method, address): (&'static str, String),
        audit: &Audit,
    ) -> Entry {
        let facts = Facts {
            decision_id,
            member: audit.member.clone(),
            method,
            address,
            started: Instant::now(),
            who: None,
            tenant: None,
            resources: Vec::new(),
            more: 0,
            expected: None,
            dry_run: false,
            problems: 0,
            revision: None,
        };
        let notes = Notes(Arc::new(Mutex::new(facts)));
        Entry { permit: Some(permit), nobody: audit.nobody.clone(), journal: audit.journal.clone(), notes }
    }

    /// What is known of the call.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Closes the entry.
    pub(crate) fn close(mut self, ended: Ended) {
        self.write(ended);
    }

    fn write(&mut self, ended: Ended) {
        let Some(permit) = self.permit.take() else { return };
        let mut left_out = None;
        if ended == Ended::Nobody {
            let mut nobody = self.nobody.lock().unwrap_or_else(PoisonError::into_inner);
            match nobody.admit(Instant::now()) {
                None => return,
                Some(count) => left_out = (count > 0).then_some(count),
            }
        }
        let line = self.notes.facts().to_line(ended, left_out);
        if let Err(error) = self.journal.push(Bytes::copy_from_slice(&line)) {
            tracing::error!(%error, "an audit record of this process is none");
        }
        permit.send(line);
    }
}

impl Drop for Entry {
    /// The one case that nobody else sees: the call was dropped because its caller left.
    fn drop(&mut self) {
        self.write(Ended::Cancelled);
    }
}

impl Notes {
    /// Who calls.
    pub(crate) fn who(&self, identity: &Identity) {
        self.facts().who = Some(identity.clone());
    }

    /// What the call is about; `tenant` is whose it is, as far as its caller may know of it.
    pub(crate) fn subject(&self, subject: &Subject, tenant: Option<String>) {
        let mut facts = self.facts();
        facts.tenant = tenant;
        let title = |(kind, name): &(&'static str, String)| match name.parse::<Name>() {
            Ok(name) => format!("{kind} {name}"),
            Err(_) => format!("{kind} {NO_NAME}"),
        };
        facts.resources = subject.names.iter().take(NAMES_MAX).map(title).collect();
        facts.more = subject.names.len().saturating_sub(NAMES_MAX);
        (facts.expected, facts.dry_run) = (subject.expected, subject.dry_run);
    }

    /// The revision that the call made.
    pub(crate) fn revision(&self, revision: Revision) {
        self.facts().revision = Some(revision);
    }

    /// How many problems the call is answered with, so far: with any, nothing was changed.
    pub(crate) fn problems(&self, count: usize) {
        self.facts().problems = count;
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    fn to_line(&self, ended: Ended, left_out: Option<u64>) -> Vec<u8> {
        let (outcome, code) = match ended {
            Ended::Nobody => ("unauthenticated", Code::Unauthenticated),
            Ended::Cancelled => ("cancelled", Code::Cancelled),
            Ended::Answered(Code::Ok) if self.problems > 0 => ("refused", Code::Ok),
            Ended::Answered(code) => (outcome(code), code),
        };
        let line = Line {
            time: OffsetDateTime::from(SystemTime::now()).format(&Rfc3339).unwrap_or_default(),
            decision_id: &self.decision_id,
            kind: ADMIN_KIND,
            node: &self.member,
            tenant: self.tenant.as_deref(),
            admin: self.who.as_ref().map(|who| who.name.as_str()),
            proof: self.who.as_ref().map(|who| who.proof.to_string()),
            address: &self.address,
            method: self.method,
            resources: &self.resources,
            more: self.more,
            expected_revision: self.expected,
            dry_run: self.dry_run,
            outcome,
            code: format!("{code:?}"),
            problems: self.problems,
            revision: self.revision.map(|revision| revision.0),
            left_out,
            duration_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        };
        // Every field has a JSON form; were one to lose it, an empty line would tell that a record was here.
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// An answer in one word. What is not known to have happened is never called an error.
fn outcome(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::PermissionDenied => "denied",
        Code::Unauthenticated => "unauthenticated",
        Code::DeadlineExceeded => "unknown",
        Code::Cancelled => "cancelled",
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange => "refused",
        Code::Unknown | Code::Unimplemented | Code::Internal | Code::Unavailable | Code::DataLoss => "error",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
