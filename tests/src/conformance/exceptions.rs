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

const fn modern(scenario: &'static str, check: &'static str, reason: &'static str) -> Exception {
    Exception { suite: Suite::Requirements20260728, upstream: Era::Legacy, scenario, check, reason }
}

const fn legacy(suite: Suite, check: &'static str) -> Exception {
    Exception { suite, upstream: Era::Modern, scenario: "server-sse-polling", check, reason: RESUMPTION }
}

const TASKS: &str = "the tasks of 2026-07-28 are an extension that no server of 2025-11-25 knows (unscored)";
const KEY: &str = "the suite wants the key `user_name`, and a request of 2025-11-25 has an id but no key";
const CAPABILITY: &str =
    "a server of 2025-11-25 says in words of its own that a capability is missing: -32021 came later";
const RESUMPTION: &str =
    "streams are resumed by event ids, which 2026-07-28 has none of; resumption is optional (unscored)";

const EXCEPTIONS: [Exception; 10] = [
    modern("tasks-", "", TASKS),
    modern("input-required-result-basic-elicitation", "sep-2322-elicitation-complete", KEY),
    modern("input-required-result-basic-elicitation", "sep-2322-elicitation-incomplete", KEY),
    modern("input-required-result-ignore-extra-params", "sep-2322-ignore-unexpected-params", KEY),
    modern("server-stateless", "sep-2575-missing-capability-http-400", CAPABILITY),
    modern("server-stateless", "sep-2575-server-rejects-undeclared-capability", CAPABILITY),
    legacy(Suite::Released, "server-sse-priming-event"),
    legacy(Suite::Released, "server-sse-retry-field"),
    legacy(Suite::Requirements20251125, "server-sse-priming-event"),
    legacy(Suite::Requirements20251125, "server-sse-retry-field"),
];

/// The row that covers a check.
pub(super) fn find(suite: Suite, upstream: Era, name: &CheckName) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|row| {
        row.suite == suite
            && row.upstream == upstream
            && name.scenario.starts_with(row.scenario)
            && (row.check.is_empty() || row.check == name.id)
    })
}
