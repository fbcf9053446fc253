//! What the wire itself cannot carry from one era to the other, check by check, with the reason.
//!
//! A row is not for what the gateway could do and does not.

use super::{CheckName, Suite};
use crate::fixture::Era;

/// Checks that cannot pass, and why.
#[derive(Debug)]
pub(super) struct Exception {
    /// The suite that asks for it.
    suite: Suite,
    /// What the server behind the gateway speaks.
    upstream: Era,
    /// How the scenario's name begins.
    scenario: &'static str,
    /// The check's id; every check of the scenario when empty.
    check: &'static str,
    /// Why the wire cannot carry it.
    pub(super) reason: &'static str,
}

const EXCEPTIONS: [Exception; 1] = [Exception {
    suite: Suite::Requirements20260728,
    upstream: Era::Legacy,
    scenario: "tasks-",
    check: "",
    reason: "the tasks of 2026-07-28 are an extension that a server of 2025-11-25 cannot know (unscored)",
}];

/// The row that covers a check.
pub(super) fn find(suite: Suite, upstream: Era, name: &CheckName) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|row| {
        row.suite == suite
            && row.upstream == upstream
            && name.scenario.starts_with(row.scenario)
            && (row.check.is_empty() || row.check == name.id)
    })
}
