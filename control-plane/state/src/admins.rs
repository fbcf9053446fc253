//! Changing the admins: the rules, without the records.
//!
//! Always holds: a name is one admin's, and `root` nobody's; every role of an admin that names a tenant names one that is
//! there; admins, their roles and their tokens stay within [`ADMINS_MAX`], [`ROLES_MAX`] and [`ADMIN_TOKENS_MAX`]; a
//! token of an admin's own making counts no longer than the one that it was asked for with. The clock is the proposer's.

use std::sync::Arc;

use gantry_model::admin::{Admin, AdminChange, AdminToken, ROOT};
use gantry_model::key::KeyId;
use gantry_model::nearest::nearest;
use gantry_model::record::RecordKey;
use gantry_model::{Kind, Name, ResourceId, TenantName};

use crate::outcome::Refusal;
use crate::state::State;

/// Admins of a cluster: persons and pipelines, a few for each of some hundred tenants.
pub const ADMINS_MAX: usize = 4_096;
/// Roles of an admin: who serves more tenants than these is an admin of the cluster.
pub const ROLES_MAX: usize = 64;
/// Tokens of an admin that count at one time: rotation needs two, a few machines more.
pub const ADMIN_TOKENS_MAX: usize = 8;

/// What becomes of an admin.
pub(crate) enum Changed {
    Put(Admin),
    Gone(RecordKey),
}

/// What a change makes of the admins.
pub(crate) fn change(state: &State, change: &AdminChange) -> Result<Changed, Refusal> {
    match change {
        AdminChange::Create(admin) => create(state, admin).map(Changed::Put),
        AdminChange::Rotate { name, token, older_end_at_ms, now_ms, asked_with } => {
            let admin = state.admin(name).ok_or_else(|| unknown(state, name))?;
            let token = match asked_with {
                None => token.clone(),
                Some(own) => at_most(token, admin, *own)?,
            };
            rotate(admin, token, *older_end_at_ms, *now_ms).map(Changed::Put)
        }
        AdminChange::Delete(name) => match state.admin(name) {
            Some(_) => Ok(Changed::Gone(RecordKey::admin(name))),
            None => Err(unknown(state, name)),
        },
    }
}

/// The admins without what they may do in a tenant that is gone.
pub(crate) fn without(state: &State, tenant: &TenantName) -> Vec<Admin> {
    let bound = |admin: &&Arc<Admin>| admin.roles.iter().any(|role| role.tenant() == Some(tenant));
    let freed = |admin: &Arc<Admin>| {
        let mut admin = admin.as_ref().clone();
        admin.roles.retain(|role| role.tenant() != Some(tenant));
        admin
    };
    state.admins().filter(bound).map(freed).collect()
}

fn create(state: &State, admin: &Admin) -> Result<Admin, Refusal> {
    let name = &admin.name;
    if name.as_str() == ROOT || state.admin(name).is_some() {
        return Err(Refusal::of(0, format!("there is an admin {name} already")));
    }
    if state.admins().count() >= ADMINS_MAX {
        return Err(Refusal::of(0, format!("there are {ADMINS_MAX} admins already; delete one")));
    }
    if admin.roles.is_empty() || admin.roles.len() > ROLES_MAX {
        return Err(Refusal::of(0, format!("an admin has 1 to {ROLES_MAX} roles")));
    }
    for tenant in admin.roles.iter().filter_map(|role| role.tenant()) {
        let id = ResourceId::of_tenant(tenant);
        if state.resource(&id).is_none() {
            let names = state.names(tenant, Kind::Tenant);
            let near = nearest(tenant.as_str(), names.iter().map(String::as_str)).map(str::to_owned);
            return Err(Refusal { nearest: near, ..Refusal::of(0, format!("there is no {id}")) });
        }
    }
    if admin.tokens.len() > ADMIN_TOKENS_MAX {
        return Err(Refusal::of(0, format!("an admin has at most {ADMIN_TOKENS_MAX} tokens")));
    }
    Ok(admin.clone())
}

/// The token that an admin gets who asks with one of his own. Who holds a lost one must not outlast its end, nor the
/// rotation that is to end it.
fn at_most(token: &AdminToken, admin: &Admin, own: KeyId) -> Result<AdminToken, Refusal> {
    // The newest stands last, and no other is without an end that a rotation has set.
    let newest = admin.tokens.last().filter(|newest| newest.id == own);
    let Some(newest) = newest else {
        let name = &admin.name;
        let told = format!("the token that asks was rotated out; ask with the newest one of {name}");
        return Err(Refusal::of(0, told));
    };
    let ends = [token.expires_at_ms, newest.expires_at_ms];
    Ok(AdminToken { expires_at_ms: ends.into_iter().flatten().min(), ..token.clone() })
}

fn rotate(admin: &Admin, token: AdminToken, older_end_at_ms: u64, now_ms: u64) -> Result<Admin, Refusal> {
    let mut admin = admin.clone();
    for older in &mut admin.tokens {
        older.expires_at_ms =
            Some(older.expires_at_ms.map_or(older_end_at_ms, |end| end.min(older_end_at_ms)));
    }
    admin.tokens.retain(|older| older.expires_at_ms.is_none_or(|end| end > now_ms));
    if admin.tokens.len() >= ADMIN_TOKENS_MAX {
        let name = &admin.name;
        let told =
            format!("admin {name} has {ADMIN_TOKENS_MAX} tokens that count; let the older ones end sooner");
        return Err(Refusal::of(0, told));
    }
    if admin.tokens.iter().any(|known| known.id == token.id) {
        return Err(Refusal::of(0, "a token of this id exists already"));
    }
    admin.tokens.push(token);
    Ok(admin)
}

fn unknown(state: &State, name: &Name) -> Refusal {
    let names: Vec<&str> = state.admins().map(|admin| admin.name.as_str()).collect();
    let near = nearest(name.as_str(), names).map(str::to_owned);
    Refusal { nearest: near, ..Refusal::of(0, format!("there is no admin {name}")) }
}

#[cfg(test)]
mod tests;
