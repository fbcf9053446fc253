//! Which servers could not be asked for their catalog, and why.
//!
//! Always holds: at most [`FAILURES_MAX`] entries, one per server; a server that a node could ask has none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_model::{ServerName, TenantName};

/// Most entries. Beyond this many sick servers a list of them helps nobody.
const FAILURES_MAX: usize = 10_000;
/// Longest message in characters: it is one cell of a table.
const MESSAGE_CHARS_MAX: usize = 512;

/// The failures.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<(TenantName, ServerName), String>>);

impl Failures {
    /// Notes why a server could not be asked. A failure that finds no room is not noted; the log has it.
    pub(crate) fn set(&self, tenant: &TenantName, server: &ServerName, message: &str) {
        let mut failures = self.lock();
        let key = (tenant.clone(), server.clone());
        if failures.len() < FAILURES_MAX || failures.contains_key(&key) {
            failures.insert(key, message.chars().take(MESSAGE_CHARS_MAX).collect());
        }
    }

    /// Forgets servers that are gone.
    pub(crate) fn retain(&self, is_there: impl Fn(&TenantName, &ServerName) -> bool) {
        self.lock().retain(|(tenant, server), _| is_there(tenant, server));
    }

    /// The server was asked.
    pub(crate) fn clear(&self, tenant: &TenantName, server: &ServerName) {
        self.lock().remove(&(tenant.clone(), server.clone()));
    }

    /// Why a server could not be asked, when that is so.
    pub(crate) fn get(&self, tenant: &TenantName, server: &ServerName) -> Option<String> {
        self.lock().get(&(tenant.clone(), server.clone())).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(TenantName, ServerName), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stays_until_the_server_is_asked_and_their_number_is_bounded()
    -> Result<(), gantry_model::name::NameError> {
        let failures = Failures::default();
        let tenant: TenantName = "acme".parse()?;
        for index in 0..FAILURES_MAX + 1 {
            failures.set(&tenant, &format!("s{index}").parse()?, &"x".repeat(MESSAGE_CHARS_MAX + 1));
        }
        assert_eq!(failures.get(&tenant, &"s0".parse()?), Some("x".repeat(MESSAGE_CHARS_MAX)));
        assert_eq!(failures.get(&tenant, &format!("s{FAILURES_MAX}").parse()?), None);
        failures.clear(&tenant, &"s0".parse()?);
        assert_eq!(failures.get(&tenant, &"s0".parse()?), None);
        failures.retain(|_, server| server.as_str() == "s1");
        assert_eq!(failures.lock().len(), 1);
        Ok(())
    }
}
