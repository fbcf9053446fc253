//! What each call of the admin service takes, and what each role gives: the one table of who may do what.
//!
//! Always holds: a call that is not in the table is refused; a role gives nothing that it does not name. The table of
//! README.md is this one, and a test compares them.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_control_state::State;
use gantry_model::admin::Role;
use gantry_model::{Revision, TenantName};

use crate::feed::View;
use crate::rollout::Overlays;

/// What a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// To look at what is configured in a tenant.
    Look,
    /// To change what is configured in a tenant.
    Change,
    /// To decide calls that wait for approval in a tenant, and to look at them.
    Approve,
    /// To read audit records, with what decided them.
    Audit,
    /// To look at the cluster itself.
    LookAtCluster,
    /// To change the cluster itself.
    Operate,
    /// To change who may do what.
    Administer,
    /// Nothing, for what concerns the caller himself; the call asks for more where it concerns others.
    Own,
}

/// How long a call may take: to be sent whole, and to be worked on. What a write waits for gives up far before.
const CALL_DEADLINE: Duration = Duration::from_secs(120);
/// Longest wait for nodes; whoever wants to wait longer asks again.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(600);

/// A call of the admin service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The call, as `admin.proto` names it.
    pub(crate) call: &'static str,
    /// What it takes.
    pub(crate) permission: Permission,
    /// What it does, in words for who may not.
    pub(crate) act: &'static str,
}

const fn rule(call: &'static str, permission: Permission, act: &'static str) -> Rule {
    Rule { call, permission, act }
}

/// Every call that there is.
pub(crate) const RULES: &[Rule] = &[
    rule("Apply", Permission::Change, "change what is configured"),
    rule("Delete", Permission::Change, "delete what is configured"),
    rule("Get", Permission::Look, "read what is configured"),
    rule("CreateKey", Permission::Change, "make keys of agents"),
    rule("ListKeys", Permission::Look, "list keys of agents"),
    rule("RevokeKey", Permission::Change, "revoke keys of agents"),
    rule("Revoke", Permission::Change, "revoke anything"),
    rule("ListRevocations", Permission::Look, "see what is revoked"),
    rule("LiftRevocation", Permission::Change, "lift what was revoked"),
    rule("PutCredential", Permission::Change, "put secrets"),
    rule("CheckPolicy", Permission::Look, "check policies"),
    rule("ListTools", Permission::Look, "list tools"),
    rule("ListQuarantine", Permission::Look, "see what waits for approval"),
    rule("ScanCatalogs", Permission::Look, "see what is odd about what servers offer"),
    rule("ApproveCatalog", Permission::Change, "approve what servers offer"),
    rule("RotateNodeKeys", Permission::Operate, "rotate the keys of the nodes"),
    rule("CreateJoinToken", Permission::Operate, "let processes join"),
    rule("RevokeCertificate", Permission::Operate, "take certificates back"),
    rule("TailRecords", Permission::Audit, "read audit records"),
    rule("Explain", Permission::Audit, "read audit records"),
    rule("Status", Permission::Look, "see the status"),
    rule("WaitApplied", Permission::Look, "see which nodes have a change"),
    rule("ListMembers", Permission::LookAtCluster, "see the members of the cluster"),
    rule("ChangeMembers", Permission::Operate, "change the members of the cluster"),
    rule("WhoAmI", Permission::Own, "see who they are"),
    rule("CreateAdmin", Permission::Administer, "make admins"),
    rule("ListAdmins", Permission::Administer, "list admins"),
    rule("RotateAdminToken", Permission::Own, "rotate tokens"),
    rule("DeleteAdmin", Permission::Administer, "delete admins"),
    rule("Backup", Permission::Operate, "back the cluster up"),
    rule("CertifyAdmin", Permission::Own, "have certificates"),
    rule("PutAdminIssuer", Permission::Administer, "say whose tokens prove admins"),
    rule("ListAdminIssuers", Permission::Administer, "list whose tokens prove admins"),
    rule("DeleteAdminIssuer", Permission::Administer, "say whose tokens prove admins"),
    rule("BeginRollout", Permission::Change, "begin rollouts"),
    rule("ListRollouts", Permission::Look, "see rollouts"),
    rule("ChangeRollout", Permission::Change, "promote or abort rollouts"),
    rule("ListApprovals", Permission::Approve, "see calls that wait for approval"),
    rule("VoteOnApproval", Permission::Approve, "approve or deny calls"),
];

impl Permission {
    /// Whether it is to change something, and so is asked of a state that is not behind.
    pub(crate) fn is_to_change(self) -> bool {
        match self {
            Permission::Change | Permission::Approve | Permission::Operate | Permission::Administer => true,
            Permission::Look | Permission::Audit | Permission::LookAtCluster | Permission::Own => false,
        }
    }
}

impl Rule {
    /// How long the call may take until the head of its answer.
    pub(crate) fn deadline(&self) -> Duration {
        if self.call == "WaitApplied" { CALL_DEADLINE + WAIT_MAX } else { CALL_DEADLINE }
    }
}

/// The rule of a call; `None`: nobody may.
pub(crate) fn rule_of(call: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.call == call)
}

/// How far a permission goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The cluster and every tenant.
    Everything,
    /// These tenants, as if there were no others.
    Tenants(BTreeSet<TenantName>),
}

/// How far `roles` let their bearer go with a permission; `None`: nowhere.
pub(crate) fn reach(roles: &[Role], permission: Permission) -> Option<Reach> {
    let mut tenants = BTreeSet::new();
    for role in roles.iter().filter(|role| gives(role, permission)) {
        match role.tenant() {
            None => return Some(Reach::Everything),
            Some(tenant) => {
                tenants.insert(tenant.clone());
            }
        }
    }
    // Whoever may do nothing else still may see that.
    let is_enough = permission == Permission::Own || !tenants.is_empty();
    is_enough.then_some(Reach::Tenants(tenants))
}

fn gives(role: &Role, permission: Permission) -> bool {
    match (role, permission) {
        (Role::ClusterAdmin, _) => true,
        (
            Role::TenantAdmin(_),
            Permission::Look | Permission::Change | Permission::Approve | Permission::Audit,
        ) => true,
        (Role::Approver(_), Permission::Approve) => true,
        (Role::ReadOnly(_), Permission::Look) | (Role::ReadOnly(None), Permission::LookAtCluster) => true,
        (Role::Auditor(_), Permission::Audit) => true,
        (Role::TenantAdmin(_) | Role::ReadOnly(_) | Role::Auditor(_) | Role::Approver(_), _) => false,
    }
}

impl Reach {
    /// Whether what a tenant has is within reach.
    pub(crate) fn has(&self, tenant: &TenantName) -> bool {
        match self {
            Reach::Everything => true,
            Reach::Tenants(tenants) => tenants.contains(tenant),
        }
    }

    /// Whether the cluster itself is.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self, Reach::Everything)
    }

    /// What there is within reach: to whoever reads this, other tenants do not exist, nor do their revisions.
    pub(crate) fn narrow(&self, view: View) -> View {
        let Reach::Tenants(tenants) = self else { return view };
        let state: State = view.state.only(tenants);
        let revision = state.tenant_revisions().last().copied().unwrap_or(Revision::NONE);
        // Admins read what is stored, not what nodes are served.
        View { revision, state, overlays: Overlays::default() }
    }
}

#[cfg(test)]
mod tests;
