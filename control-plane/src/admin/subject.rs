//! What each request is about, for its audit record.
//!
//! Always holds: a secret is no part of it, nor any text that could be one: only kinds and names.

use gantry_wire::admin_v1::*;

use crate::audit::Subject;

/// A request of the admin service.
pub(super) trait Asked {
    /// What it is about.
    fn subject(&self) -> Subject;
}

fn of(tenant: &str, names: &[(&'static str, &str)]) -> Subject {
    let is_said = |text: &&str| !text.is_empty();
    let names = names.iter().filter(|(_, name)| is_said(name));
    Subject {
        tenants: Some(tenant).filter(is_said).map(str::to_owned).into_iter().collect(),
        names: names.map(|(kind, name)| (*kind, (*name).to_owned())).collect(),
        ..Subject::default()
    }
}

/// A kind that is known, else none: what was sent may be anything.
fn kind(text: &str) -> &'static str {
    text.parse::<gantry_model::Kind>().map_or("(no kind)", gantry_model::Kind::as_str)
}

fn kind_of(resource: &gantry_wire::resource_v1::Resource) -> &'static str {
    use gantry_wire::resource_v1::resource::Spec;
    match resource.spec {
        Some(Spec::TenantSpec(_)) => "Tenant",
        Some(Spec::ServerSpec(_)) => "Server",
        Some(Spec::EndpointSpec(_)) => "Endpoint",
        Some(Spec::AgentSpec(_)) => "Agent",
        Some(Spec::PolicySpec(_)) => "Policy",
        Some(Spec::LimitSpec(_)) => "Limit",
        Some(Spec::CredentialSpec(_)) => "Credential",
        Some(Spec::ProviderSpec(_)) => "Provider",
        None => "(no kind)",
    }
}

impl Asked for ApplyRequest {
    fn subject(&self) -> Subject {
        Subject {
            tenants: self.resources.iter().map(|resource| resource.tenant.clone()).collect(),
            names: self.resources.iter().map(|resource| (kind_of(resource), resource.name.clone())).collect(),
            expected: self.expected_revision,
            dry_run: self.dry_run,
        }
    }
}

impl Asked for DeleteRequest {
    fn subject(&self) -> Subject {
        Subject {
            tenants: self.ids.iter().map(|id| id.tenant.clone()).collect(),
            names: self.ids.iter().map(|id| (kind(&id.kind), id.name.clone())).collect(),
            expected: self.expected_revision,
            dry_run: false,
        }
    }
}

impl Asked for BeginRolloutRequest {
    fn subject(&self) -> Subject {
        let applied = self.resources.iter();
        let deleted = self.deletes.iter();
        let tenants = applied.clone().map(|resource| &resource.tenant);
        let names = applied.map(|resource| (kind_of(resource), resource.name.clone()));
        Subject {
            tenants: tenants.chain(deleted.clone().map(|id| &id.tenant)).cloned().collect(),
            names: names.chain(deleted.map(|id| (kind(&id.kind), id.name.clone()))).collect(),
            expected: self.expected_revision,
            dry_run: false,
        }
    }
}

impl Asked for ListRolloutsRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[])
    }
}

impl Asked for ChangeRolloutRequest {
    fn subject(&self) -> Subject {
        use change_rollout_request::Change;
        // What is written as the reason is free text.
        let act = match &self.change {
            Some(Change::Promote(step)) if *step == i32::from(RolloutStep::All) => "promote-to-all",
            Some(Change::Promote(_)) => "promote",
            Some(Change::Abort(_)) => "abort",
            None => "",
        };
        of(&self.tenant, &[("rollout", act)])
    }
}

impl Asked for GetRequest {
    fn subject(&self) -> Subject {
        let kind = if self.kind.is_empty() { "any" } else { kind(&self.kind) };
        of(&self.tenant, &[(kind, &self.name)])
    }
}

impl Asked for CreateKeyRequest {
    fn subject(&self) -> Subject {
        Subject { expected: self.expected_revision, ..of(&self.tenant, &[("Agent", &self.agent)]) }
    }
}

impl Asked for ListKeysRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[("Agent", &self.agent)])
    }
}

impl Asked for RevokeKeyRequest {
    fn subject(&self) -> Subject {
        // Somebody may have written the whole key.
        let id = self.id.parse::<gantry_model::key::KeyId>().map(|id| id.to_string()).unwrap_or_default();
        Subject { expected: self.expected_revision, ..of(&self.tenant, &[("key", &id)]) }
    }
}

impl Asked for RevokeRequest {
    fn subject(&self) -> Subject {
        of_ban(&self.tenant, self.target.as_ref())
    }
}

impl Asked for LiftRevocationRequest {
    fn subject(&self) -> Subject {
        of_ban(&self.tenant, self.target.as_ref())
    }
}

impl Asked for ListRevocationsRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[])
    }
}

/// What cannot be read may be a whole key that somebody wrote.
fn of_ban(tenant: &str, target: Option<&gantry_wire::resource_v1::BanTarget>) -> Subject {
    use gantry_model::BanTarget;
    match target.map(BanTarget::try_from) {
        Some(Ok(BanTarget::Agent(agent))) => of(tenant, &[("Agent", agent.as_str())]),
        Some(Ok(BanTarget::User(user))) => of(tenant, &[("user", &user.to_string())]),
        Some(Ok(BanTarget::Key(key))) => of(tenant, &[("key", &key.to_string())]),
        Some(Ok(BanTarget::Session(session))) => of(tenant, &[("session", &session.to_string())]),
        Some(Ok(BanTarget::Server(server))) => of(tenant, &[("Server", server.as_str())]),
        Some(Ok(BanTarget::Tenant)) => of(tenant, &[("Tenant", tenant)]),
        Some(Err(_)) | None => of(tenant, &[]),
    }
}

impl Asked for ListApprovalsRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[("approval", &approval(&self.id))])
    }
}

impl Asked for VoteOnApprovalRequest {
    fn subject(&self) -> Subject {
        let act = if self.approves { "approve" } else { "deny" };
        of(&self.tenant, &[(act, &approval(&self.id))])
    }
}

/// An approval's id, if it is one.
fn approval(id: &str) -> String {
    id.parse::<gantry_model::ApprovalId>().map(|id| id.to_string()).unwrap_or_default()
}

impl Asked for PutCredentialRequest {
    fn subject(&self) -> Subject {
        Subject { expected: self.expected_revision, ..of(&self.tenant, &[("Credential", &self.name)]) }
    }
}

impl Asked for CheckPolicyRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[("Policy", &self.name)])
    }
}

impl Asked for ListToolsRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[("Server", &self.server), ("Agent", &self.agent)])
    }
}

impl Asked for ListQuarantineRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[("Server", &self.server)])
    }
}

impl Asked for ScanCatalogsRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[("Server", &self.server)])
    }
}

impl Asked for ApproveCatalogRequest {
    fn subject(&self) -> Subject {
        Subject { expected: self.expected_revision, ..of(&self.tenant, &[("Server", &self.server)]) }
    }
}

impl Asked for TailRecordsRequest {
    fn subject(&self) -> Subject {
        of(&self.tenant, &[])
    }
}

impl Asked for CreateJoinTokenRequest {
    fn subject(&self) -> Subject {
        use create_join_token_request::Role;
        match &self.role {
            Some(Role::Node(node)) if node.name.is_empty() => of("", &[("role", "node")]),
            Some(Role::Node(node)) => of("", &[("node", &node.name)]),
            Some(Role::ControlPlane(_)) => of("", &[("role", "control-plane")]),
            None => Subject::default(),
        }
    }
}

impl Asked for RevokeCertificateRequest {
    fn subject(&self) -> Subject {
        use gantry_model::identity::{Party, PeerName};
        use revoke_certificate_request::Subject as Which;
        let Some(Which::Name(name)) = &self.subject else { return Subject::default() };
        match name.parse::<PeerName>().map(|name| name.party) {
            Ok(Party::Node(node)) => of("", &[("node", node.as_str())]),
            Ok(Party::Admin(admin)) => of("", &[("admin", admin.as_str())]),
            Ok(Party::ControlPlane(member)) => of("", &[("member", &member.to_string())]),
            Err(_) => Subject::default(),
        }
    }
}

impl Asked for ChangeMembersRequest {
    fn subject(&self) -> Subject {
        use change_members_request::Change;
        match &self.change {
            Some(Change::Promote(id)) => of("", &[("promote", &id.to_string())]),
            Some(Change::Remove(id)) => of("", &[("remove", &id.to_string())]),
            Some(Change::Transfer(id)) => of("", &[("transfer", &id.to_string())]),
            None => Subject::default(),
        }
    }
}

impl Asked for CreateAdminRequest {
    fn subject(&self) -> Subject {
        Subject { expected: self.expected_revision, ..of("", &[("admin", &self.name)]) }
    }
}

impl Asked for RotateAdminTokenRequest {
    fn subject(&self) -> Subject {
        Subject { expected: self.expected_revision, ..of("", &[("admin", &self.name)]) }
    }
}

impl Asked for DeleteAdminRequest {
    fn subject(&self) -> Subject {
        Subject { expected: self.expected_revision, ..of("", &[("admin", &self.name)]) }
    }
}

impl Asked for ListAdminsRequest {
    fn subject(&self) -> Subject {
        of("", &[("admin", &self.name)])
    }
}

impl Asked for BackupRequest {
    fn subject(&self) -> Subject {
        // Whoever has the key of this one can read everything.
        let recipient = self.recipient.parse::<crate::vault::BackupRecipient>();
        of("", &[("recipient", &recipient.map(|recipient| recipient.short()).unwrap_or_default())])
    }
}

impl Asked for PutAdminIssuerRequest {
    fn subject(&self) -> Subject {
        of("", &[("issuer", self.issuer.as_ref().map_or("", |issuer| &issuer.name))])
    }
}

impl Asked for DeleteAdminIssuerRequest {
    fn subject(&self) -> Subject {
        of("", &[("issuer", &self.name)])
    }
}

macro_rules! about_nothing {
    ($($request:ty),*) => {
        $(impl Asked for $request {
            fn subject(&self) -> Subject {
                Subject::default()
            }
        })*
    };
}

about_nothing!(
    CertifyAdminRequest,
    ExplainRequest,
    ListAdminIssuersRequest,
    ListMembersRequest,
    RotateNodeKeysRequest,
    StatusRequest,
    WaitAppliedRequest,
    WhoAmIRequest
);
