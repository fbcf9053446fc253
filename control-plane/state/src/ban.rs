//! Banning, and lifting a ban.
//!
//! Always holds: what is banned is there, or was when it was banned: a ban of an agent or server outlives it, so that
//! nothing but [`Command::LiftBan`](crate::Command) lifts it, and making the resource anew does not. Only the end of
//! its tenant takes it along. At most [`BANS_MAX`], of a tenant [`BANS_OF_TENANT_MAX`]; what is past is forgotten with
//! the next ban of its tenant, and a key with its ban. The clock is the proposer's.

use std::sync::Arc;

use gantry_model::record::{RecordKey, RecordKind, RecordValue};
use gantry_model::{Ban, BanTarget, ResourceId, TenantName};

use crate::apply::{Done, Draft, refused};

/// Bans of a tenant at one time: each is an act of a person in an incident. Beyond, its agents or the tenant as a whole
/// are to be banned, not their keys and sessions one by one.
pub const BANS_OF_TENANT_MAX: usize = 1_024;
/// Bans at one time: all of them fit one message to a node.
pub const BANS_MAX: usize = 16_384;

impl Draft {
    pub(crate) fn put_ban(&mut self, ban: &Ban) -> Done {
        self.require(&ResourceId::of_tenant(&ban.tenant))?;
        self.forget_past(&ban.tenant, ban.at_ms);
        if self.state.ban(&ban.tenant, &ban.target).is_some() {
            return Ok(Vec::new());
        }
        match &ban.target {
            BanTarget::Agent(agent) => self.require(&ResourceId::agent(&ban.tenant, agent))?,
            BanTarget::Server(server) => self.require(&ResourceId::server(&ban.tenant, server))?,
            BanTarget::Key(id) => {
                let (tenant, key) = (&ban.tenant, RecordKey::of(&ban.tenant, RecordKind::AgentKey, id));
                if self.state.record(&key).is_none() {
                    return refused(format!("tenant {tenant} has no key {id}"));
                }
            }
            BanTarget::Session(_) | BanTarget::Tenant => {}
        }
        if self.state.bans_of(&ban.tenant).len() >= BANS_OF_TENANT_MAX {
            let tenant = &ban.tenant;
            return refused(format!(
                "tenant {tenant} has {BANS_OF_TENANT_MAX} revocations already; lift some, or revoke the tenant"
            ));
        }
        if self.state.ban_count() >= BANS_MAX {
            return refused(format!("there are {BANS_MAX} revocations already; lift some"));
        }
        self.put(RecordValue::Ban(Arc::new(ban.clone())));
        Ok(Vec::new())
    }

    pub(crate) fn lift_ban(&mut self, tenant: &TenantName, target: &BanTarget) -> Done {
        if self.remove(&RecordKey::ban(tenant, target)) {
            return Ok(Vec::new());
        }
        refused(format!("{} of tenant {tenant} is not revoked", target.key_name()))
    }

    fn forget_past(&mut self, tenant: &TenantName, now_ms: u64) {
        let is_past = |ban: &&Arc<Ban>| ban.until_ms.is_some_and(|until| until <= now_ms);
        let past: Vec<_> = self.state.bans_of(tenant).filter(is_past).cloned().collect();
        for ban in past {
            // A key that was banned is good for nothing without its ban either.
            if let BanTarget::Key(id) = &ban.target {
                self.remove(&RecordKey::of(tenant, RecordKind::AgentKey, id));
            }
            self.remove(&RecordKey::ban(tenant, &ban.target));
        }
    }
}

#[cfg(test)]
mod tests;
