//! Telling the control plane how many calls tenants with a rollout had.
//!
//! Always holds: while no rollout runs nothing is sent; a tenant is told of again only when it had calls since, and at most
//! [`COUNTED_MAX`] are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_wire::sync_v1 as wire;

use crate::config::Config;
use crate::config::tally::Counts;

/// Tenants that are counted at one time: as many as may have a rollout.
const COUNTED_MAX: usize = 64;

/// Of which tenants is to be told.
#[derive(Debug, Default)]
pub(crate) struct Counting(Mutex<BTreeSet<String>>);

/// What one stream told.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<String, Counts>);

impl Counting {
    /// The control plane asks.
    pub(super) fn ask(&self, asked: wire::Counting) {
        *self.lock() = asked.tenants.into_iter().take(COUNTED_MAX).collect();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// What is to be told now, if anything.
    pub(super) fn news(&mut self, counting: &Counting, config: &Config) -> Option<wire::CallCounts> {
        let asked = counting.lock().clone();
        self.0.retain(|tenant, _| asked.contains(tenant));
        let mut tenants = Vec::new();
        for name in asked {
            let Some(tenant) = config.tenants.get(name.as_str()) else { continue };
            let counts = tenant.tally.read();
            if self.0.get(&name) == Some(&counts) {
                continue;
            }
            let Counts { calls, rejected, refused } = counts;
            tenants.push(wire::TenantCalls { tenant: name.clone(), calls, rejected, refused });
            self.0.insert(name, counts);
        }
        (!tenants.is_empty()).then_some(wire::CallCounts { tenants })
    }
}
