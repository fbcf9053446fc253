//! Records of which there may be many, and which are found without looking at everything: bans, and calls that need an
//! approval.
//!
//! Always holds: nothing is judged here; what may become of them is in `crate::ban` and `crate::approval`.

use std::sync::Arc;

use gantry_model::record::{Record, RecordKey, RecordValue};
use gantry_model::{ApprovalId, ApprovalRequest, Ban, BanTarget, TenantName};

use super::State;

impl State {
    /// What is banned, of every tenant.
    pub fn bans(&self) -> impl Iterator<Item = &Arc<Ban>> {
        self.bans.iter().filter_map(|key| match &self.entries.get(key)?.record.value {
            RecordValue::Ban(ban) => Some(ban),
            _ => None,
        })
    }

    /// How many bans there are.
    pub fn ban_count(&self) -> usize {
        self.bans.size()
    }

    /// The ban of a target, when there is one.
    pub fn ban(&self, tenant: &TenantName, target: &BanTarget) -> Option<&Arc<Ban>> {
        match &self.record(&RecordKey::ban(tenant, target))?.value {
            RecordValue::Ban(ban) => Some(ban),
            _ => None,
        }
    }

    /// The bans of a tenant.
    pub fn bans_of<'a>(
        &'a self,
        tenant: &TenantName,
    ) -> impl ExactSizeIterator<Item = &'a Arc<Ban>> + use<'a> {
        let bans =
            self.range(&RecordKey::bans_prefix(tenant)).filter_map(|(_, entry)| match &entry.record.value {
                RecordValue::Ban(ban) => Some(ban),
                _ => None,
            });
        bans.collect::<Vec<_>>().into_iter()
    }

    /// The calls that need an approval, of every tenant.
    pub fn approvals(&self) -> impl Iterator<Item = &Arc<ApprovalRequest>> {
        self.approvals.iter().filter_map(|key| of_approval(&self.entries.get(key)?.record))
    }

    /// Those of one tenant.
    pub fn approvals_of<'a>(
        &'a self,
        tenant: &TenantName,
    ) -> impl Iterator<Item = &'a Arc<ApprovalRequest>> + use<'a> {
        let of_tenant = self.range(&RecordKey::approvals_prefix(tenant));
        of_tenant.filter_map(|(_, entry)| of_approval(&entry.record))
    }

    /// One of them.
    pub fn approval(&self, tenant: &TenantName, id: ApprovalId) -> Option<&Arc<ApprovalRequest>> {
        of_approval(self.record(&RecordKey::approval(tenant, id))?)
    }

    /// How many there are.
    pub fn approval_count(&self) -> usize {
        self.approvals.size()
    }
}

fn of_approval(record: &Record) -> Option<&Arc<ApprovalRequest>> {
    match &record.value {
        RecordValue::ApprovalRequest(request) => Some(request),
        _ => None,
    }
}
