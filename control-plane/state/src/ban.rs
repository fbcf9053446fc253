//! Banning, and lifting a ban.
//!
//! Always holds: what is banned is there, or was when it was banned (of a user his provider), if only for the nodes that a
//! rollout has come to: a ban of an agent, user or server outlives it, so that nothing but
//! [`Command::LiftBan`](crate::Command) lifts it, and making the resource anew does not. Only the end of its tenant takes
//! it along. What is past is forgotten with the next ban of its tenant, or of any when there is no more
//! room, and a key with its ban. The clock is the proposer's.
//!
//! There is room for what matters more: at most [`BANS_MAX`], the last of it for tenants; of keys and sessions at most
//! half of that. Likewise [`BANS_OF_TENANT_MAX`] of one tenant; its own ban always finds room there.

use std::sync::Arc;

use gantry_model::record::{RecordKey, RecordKind, RecordValue};
use gantry_model::{Ban, BanTarget, ResourceId, TenantName};

use crate::apply::{Done, Draft, refused};
use crate::outcome::Refusal;

/// Bans of a tenant at one time: each is an act of a person in an incident, or a key that was rotated out within the
/// month. Beyond, its agents or the tenant as a whole are to be banned, not their keys and sessions one by one.
pub const BANS_OF_TENANT_MAX: usize = 1_024;
/// Of those, bans of keys and sessions: three quarters, so that rotating keys takes no room from agents and servers.
pub const PASSING_BANS_OF_TENANT_MAX: usize = 768;
/// Bans at one time: all of them fit one message to a node.
pub const BANS_MAX: usize = 16_384;
/// Of those, bans of keys and sessions, which come to thousands where keys are rotated: half.
pub const PASSING_BANS_MAX: usize = 8_192;
/// Of those, bans of anything but tenants: no tenant's admins can leave a cluster-admin without room.
const BANS_WITHIN_TENANTS_MAX: usize = BANS_MAX - 1_024;
/// Bans of other tenants that are forgotten at once, so that one ban stays a small change.
const FORGOTTEN_MAX: usize = 1_024;

impl Draft {
    pub(crate) fn put_ban(&mut self, ban: &Ban) -> Done {
        self.require(&ResourceId::of_tenant(&ban.tenant))?;
        self.forget_past(&ban.tenant, ban.at_ms);
        if self.state.ban(&ban.tenant, &ban.target).is_some() {
            return Ok(Vec::new());
        }
        match &ban.target {
            BanTarget::Agent(agent) => self.require_somewhere(&ResourceId::agent(&ban.tenant, agent))?,
            BanTarget::User(user) => {
                self.require_somewhere(&ResourceId::provider(&ban.tenant, user.provider()))?;
            }
            BanTarget::Server(server) => self.require_somewhere(&ResourceId::server(&ban.tenant, server))?,
            BanTarget::Key(id) => {
                let (tenant, key) = (&ban.tenant, RecordKey::of(&ban.tenant, RecordKind::AgentKey, id));
                if self.state.record(&key).is_none() {
                    return refused(format!("tenant {tenant} has no key {id}"));
                }
            }
            BanTarget::Session(_) | BanTarget::Tenant => {}
        }
        self.require_room_of_tenant(ban)?;
        if !self.has_room(&ban.target) {
            self.forget_past_of_all(ban.at_ms);
        }
        if !self.has_room(&ban.target) {
            let count = self.state.ban_count();
            let next = match is_passing(&ban.target) {
                true => "revoke the agent instead, or lift some",
                false => "lift some",
            };
            return refused(format!("there are {count} revocations already; {next}"));
        }
        self.put(RecordValue::Ban(Arc::new(ban.clone())));
        Ok(Vec::new())
    }

    pub(crate) fn lift_ban(&mut self, tenant: &TenantName, target: &BanTarget) -> Done {
        if self.delete_named(&RecordKey::ban(tenant, target)) {
            return Ok(Vec::new());
        }
        refused(format!("{} of tenant {tenant} is not revoked", target.key_name()))
    }

    fn require_somewhere(&self, id: &ResourceId) -> Result<(), Vec<Refusal>> {
        if self.state.is_staged(id) { Ok(()) } else { self.require(id) }
    }

    fn require_room_of_tenant(&self, ban: &Ban) -> Result<(), Vec<Refusal>> {
        let (tenant, bans) = (&ban.tenant, self.state.bans_of(&ban.tenant));
        let (count, bound, next) = match &ban.target {
            BanTarget::Tenant => return Ok(()),
            BanTarget::Agent(_) | BanTarget::User(_) | BanTarget::Server(_) => {
                (bans.len(), BANS_OF_TENANT_MAX, "lift some, or revoke the tenant")
            }
            BanTarget::Key(_) | BanTarget::Session(_) => {
                let passing = bans.filter(|ban| is_passing(&ban.target)).count();
                (passing, PASSING_BANS_OF_TENANT_MAX, "revoke the agent instead, or lift some")
            }
        };
        if count < bound {
            return Ok(());
        }
        let of = if is_passing(&ban.target) { " of keys and sessions" } else { "" };
        let told = format!("tenant {tenant} has {count} revocations{of} already; {next}");
        Err(vec![Refusal::of(0, told)])
    }

    fn has_room(&self, target: &BanTarget) -> bool {
        let count = self.state.ban_count();
        match target {
            BanTarget::Tenant => count < BANS_MAX,
            BanTarget::Agent(_) | BanTarget::User(_) | BanTarget::Server(_) => {
                count < BANS_WITHIN_TENANTS_MAX
            }
            BanTarget::Key(_) | BanTarget::Session(_) => {
                let passing = || self.state.bans().filter(|ban| is_passing(&ban.target)).count();
                // Counted only where it can matter: it takes a look at every ban.
                count < PASSING_BANS_MAX || (count < BANS_WITHIN_TENANTS_MAX && passing() < PASSING_BANS_MAX)
            }
        }
    }

    fn forget_past(&mut self, tenant: &TenantName, now_ms: u64) {
        let past = self.state.bans_of(tenant).filter(|ban| ban.is_past(now_ms)).cloned().collect();
        self.forget(past);
    }

    fn forget_past_of_all(&mut self, now_ms: u64) {
        let past = self.state.bans().filter(|ban| ban.is_past(now_ms)).take(FORGOTTEN_MAX).cloned();
        let past = past.collect();
        self.forget(past);
    }

    fn forget(&mut self, past: Vec<Arc<Ban>>) {
        for ban in past {
            // A key that was banned is good for nothing without its ban either.
            if let BanTarget::Key(id) = &ban.target {
                self.remove(&RecordKey::of(&ban.tenant, RecordKind::AgentKey, id));
            }
            self.remove(&RecordKey::ban(&ban.tenant, &ban.target));
        }
    }
}

/// Whether a ban of this is one of many that pass by themselves.
fn is_passing(target: &BanTarget) -> bool {
    match target {
        BanTarget::Key(_) | BanTarget::Session(_) => true,
        BanTarget::Agent(_) | BanTarget::User(_) | BanTarget::Server(_) | BanTarget::Tenant => false,
    }
}

#[cfg(test)]
mod tests;
