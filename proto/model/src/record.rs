//! Records: the entries of the replicated state, and their keys.
//!
//! Always holds: a key is `TENANT/KIND/NAME` (or `@cluster`, `@proposer/ID`, `@admin/NAME`, `@deletions`), so the records
//! of a tenant are one range, and a record's key can be told from its value.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::admin::Admin;
use crate::approval::{ApprovalId, ApprovalRequest};
use crate::ban::{Ban, BanTarget};
use crate::catalog::Catalog;
use crate::deletions::Deletions;
use crate::enrolment::Enrolment;
use crate::key::AgentKey;
use crate::name::{CredentialName, Name, TenantName};
use crate::resource::{Kind, Resource, ResourceId};
use crate::revision::Revision;
use crate::rollout::Rollout;

/// One entry of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The change that wrote it.
    pub revision: Revision,
    /// What it holds.
    pub value: RecordValue,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented at its type")]
pub enum RecordValue {
    Resource(Arc<Resource>),
    AgentKey(Arc<AgentKey>),
    Catalog(Arc<Catalog>),
    SealedSecret(Arc<SealedSecret>),
    TenantKey(Arc<TenantKey>),
    Cluster(Arc<Cluster>),
    Proposer(Arc<Proposer>),
    Admin(Arc<Admin>),
    Deletions(Arc<Deletions>),
    Ban(Arc<Ban>),
    Rollout(Arc<Rollout>),
    ApprovalRequest(Arc<ApprovalRequest>),
}

/// What a control-plane process proposed of late, so that proposing it again does not apply it twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposer {
    /// Random; new at each start of a process.
    pub id: [u8; 16],
    /// Commands below this one were answered to it and are forgotten.
    pub answered_below: u64,
    /// What became of the others.
    pub answered: BTreeMap<u64, Answered>,
}

/// What became of one command of a proposer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The revision that it was applied at.
    pub revision: Revision,
    /// The outcome, encoded.
    pub outcome: Vec<u8>,
}

/// A credential's secret, sealed before it was proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// The tenant of the credential.
    pub tenant: TenantName,
    /// The credential.
    pub credential: CredentialName,
    /// Counts from 1; part of what the seal binds.
    pub version: u64,
    /// The data key that it is sealed under.
    pub tenant_key_version: u32,
    /// AES-256-GCM nonce.
    pub nonce: [u8; 12],
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// A tenant's data key, wrapped by the cluster's root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantKey {
    /// The tenant.
    pub tenant: TenantName,
    /// Counts from 1.
    pub version: u32,
    /// AES-256-GCM nonce.
    pub nonce: [u8; 12],
    /// Ciphertext and tag.
    pub wrapped: Vec<u8>,
}

/// Facts of the cluster, written when it is made. The node keys are replaced by rotation, the enrolment changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Random; a node that met another cluster under this one's address finds out by it.
    pub id: String,
    /// Which key-encryption key wraps the root key.
    pub kek_id: String,
    /// AES-256-GCM nonce of `root_wrapped`.
    pub root_nonce: [u8; 12],
    /// The root key, wrapped by the key-encryption key.
    pub root_wrapped: Vec<u8>,
    /// AES-256-GCM nonce of `node_keys_wrapped`.
    pub node_keys_nonce: [u8; 12],
    /// The keys that all nodes share, sealed under the root key.
    pub node_keys_wrapped: Vec<u8>,
    /// Generation of the newest seal key among them; counts from 1.
    pub node_keys_generation: u32,
    /// When they were last rotated, in milliseconds since 1970.
    pub node_keys_rotated_at_ms: Option<u64>,
    /// Who may be part of it.
    pub enrolment: Enrolment,
}

/// What sort of record a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is documented at its type")]
pub enum RecordKind {
    Resource(Kind),
    AgentKey,
    Catalog,
    SealedSecret,
    TenantKey,
    Cluster,
    Proposer,
    Admin,
    Deletions,
    Ban,
    Rollout,
    ApprovalRequest,
}

const CLUSTER_KEY: &str = "@cluster";
/// Begins the keys of proposers. No tenant's name begins so.
const PROPOSER_PREFIX: &str = "@proposer/";
/// Begins the keys of admins.
const ADMIN_PREFIX: &str = "@admin/";
/// The key of [`Deletions`] that are no tenant's.
const DELETIONS_KEY: &str = "@deletions";
/// Stands between tenant and target in the keys of bans.
const BAN_SEGMENT: &str = "ban";
/// Stands between tenant and id in the keys of approvals.
const APPROVAL_SEGMENT: &str = "approval";
/// The name of a tenant's only rollout.
const ROLLOUT_NAME: &str = "latest";

impl RecordKind {
    const ALL: [RecordKind; 16] = [
        RecordKind::Resource(Kind::Tenant),
        RecordKind::Resource(Kind::Server),
        RecordKind::Resource(Kind::Endpoint),
        RecordKind::Resource(Kind::Agent),
        RecordKind::Resource(Kind::Policy),
        RecordKind::Resource(Kind::Limit),
        RecordKind::Resource(Kind::Credential),
        RecordKind::Resource(Kind::Provider),
        RecordKind::AgentKey,
        RecordKind::Catalog,
        RecordKind::SealedSecret,
        RecordKind::TenantKey,
        RecordKind::Deletions,
        RecordKind::Ban,
        RecordKind::Rollout,
        RecordKind::ApprovalRequest,
    ];

    fn segment(self) -> &'static str {
        match self {
            RecordKind::Resource(Kind::Tenant) => "tenant",
            RecordKind::Resource(Kind::Server) => "server",
            RecordKind::Resource(Kind::Endpoint) => "endpoint",
            RecordKind::Resource(Kind::Agent) => "agent",
            RecordKind::Resource(Kind::Policy) => "policy",
            RecordKind::Resource(Kind::Limit) => "limit",
            RecordKind::Resource(Kind::Credential) => "credential",
            RecordKind::Resource(Kind::Provider) => "provider",
            RecordKind::AgentKey => "key",
            RecordKind::Catalog => "catalog",
            RecordKind::SealedSecret => "secret",
            RecordKind::TenantKey => "tenant-key",
            RecordKind::Cluster => CLUSTER_KEY,
            RecordKind::Proposer => PROPOSER_PREFIX,
            RecordKind::Admin => ADMIN_PREFIX,
            RecordKind::Deletions => "deletions",
            RecordKind::Ban => BAN_SEGMENT,
            RecordKind::Rollout => "rollout",
            RecordKind::ApprovalRequest => APPROVAL_SEGMENT,
        }
    }

    /// Whether nodes receive records of this kind. The others never leave the control plane in this form.
    pub fn is_for_nodes(self) -> bool {
        match self {
            RecordKind::Resource(_) | RecordKind::AgentKey | RecordKind::Catalog | RecordKind::Ban => true,
            RecordKind::SealedSecret
            | RecordKind::TenantKey
            | RecordKind::Cluster
            | RecordKind::Proposer
            | RecordKind::Admin
            | RecordKind::Deletions
            | RecordKind::Rollout
            | RecordKind::ApprovalRequest => false,
        }
    }
}

/// The key of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    tenant: Option<TenantName>,
    kind: RecordKind,
    name: String,
}

impl RecordKey {
    /// The key of the cluster's facts.
    pub fn cluster() -> RecordKey {
        RecordKey { tenant: None, kind: RecordKind::Cluster, name: String::new() }
    }

    /// The key of what a control-plane process proposed of late.
    pub fn proposer(id: &[u8; 16]) -> RecordKey {
        let name = format!("{:032x}", u128::from_be_bytes(*id));
        RecordKey { tenant: None, kind: RecordKind::Proposer, name }
    }

    /// What the key of every proposer begins with.
    pub const PROPOSERS: &str = PROPOSER_PREFIX;

    /// What the key of every admin begins with.
    pub const ADMINS: &str = ADMIN_PREFIX;

    /// The key of an admin.
    pub fn admin(name: &Name) -> RecordKey {
        RecordKey { tenant: None, kind: RecordKind::Admin, name: name.to_string() }
    }

    /// The key of what was deleted of late, of a tenant's or of the cluster's.
    pub fn deletions(tenant: Option<&TenantName>) -> RecordKey {
        RecordKey { tenant: tenant.cloned(), kind: RecordKind::Deletions, name: String::new() }
    }

    /// The key of a record of a tenant; not for what is the cluster's.
    pub fn of(tenant: &TenantName, kind: RecordKind, name: impl fmt::Display) -> RecordKey {
        debug_assert!(
            !matches!(kind, RecordKind::Cluster | RecordKind::Proposer | RecordKind::Admin),
            "what is the cluster's belongs to no tenant"
        );
        RecordKey { tenant: Some(tenant.clone()), kind, name: name.to_string() }
    }

    /// The key of a ban.
    pub fn ban(tenant: &TenantName, target: &BanTarget) -> RecordKey {
        RecordKey::of(tenant, RecordKind::Ban, target.key_name())
    }

    /// The key of a tenant's rollout.
    pub fn rollout(tenant: &TenantName) -> RecordKey {
        RecordKey::of(tenant, RecordKind::Rollout, ROLLOUT_NAME)
    }

    /// The key of a call that needs an approval.
    pub fn approval(tenant: &TenantName, id: ApprovalId) -> RecordKey {
        RecordKey::of(tenant, RecordKind::ApprovalRequest, id)
    }

    /// What the key of every approval of a tenant begins with.
    pub fn approvals_prefix(tenant: &TenantName) -> String {
        format!("{tenant}/{APPROVAL_SEGMENT}/")
    }

    /// What the key of every ban of a tenant begins with.
    pub fn bans_prefix(tenant: &TenantName) -> String {
        format!("{tenant}/{BAN_SEGMENT}/")
    }

    /// Whether a key, as text, is that of a ban; cheaper than to read it.
    pub fn is_of_ban(text: &str) -> bool {
        let mut parts = text.split('/').skip(1);
        // The cluster's own records have no third part.
        parts.next() == Some(BAN_SEGMENT) && parts.next().is_some()
    }

    /// What every key of a tenant begins with.
    pub fn tenant_prefix(tenant: &TenantName) -> String {
        format!("{tenant}/")
    }

    /// The tenant, unless the record is the cluster's.
    pub fn tenant(&self) -> Option<&TenantName> {
        self.tenant.as_ref()
    }

    /// What sort of record it names.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// The last part.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<&ResourceId> for RecordKey {
    fn from(id: &ResourceId) -> RecordKey {
        RecordKey::of(&id.tenant, RecordKind::Resource(id.kind), &id.name)
    }
}

impl RecordValue {
    /// The key under which the value stands.
    pub fn key(&self) -> RecordKey {
        match self {
            RecordValue::Resource(resource) => RecordKey::from(&resource.id()),
            RecordValue::AgentKey(key) => RecordKey::of(&key.tenant, RecordKind::AgentKey, key.id),
            RecordValue::Catalog(catalog) => {
                RecordKey::of(&catalog.tenant, RecordKind::Catalog, &catalog.server)
            }
            RecordValue::SealedSecret(secret) => {
                RecordKey::of(&secret.tenant, RecordKind::SealedSecret, &secret.credential)
            }
            RecordValue::TenantKey(key) => RecordKey::of(&key.tenant, RecordKind::TenantKey, key.version),
            RecordValue::Cluster(_) => RecordKey::cluster(),
            RecordValue::Proposer(proposer) => RecordKey::proposer(&proposer.id),
            RecordValue::Admin(admin) => RecordKey::admin(&admin.name),
            RecordValue::Deletions(deletions) => RecordKey::deletions(deletions.tenant.as_ref()),
            RecordValue::Ban(ban) => RecordKey::ban(&ban.tenant, &ban.target),
            RecordValue::Rollout(rollout) => RecordKey::rollout(&rollout.tenant),
            RecordValue::ApprovalRequest(request) => RecordKey::approval(&request.call.tenant, request.id),
        }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            None if self.kind == RecordKind::Deletions => formatter.write_str(DELETIONS_KEY),
            None => write!(formatter, "{}{}", self.kind.segment(), self.name),
            Some(tenant) => write!(formatter, "{tenant}/{}/{}", self.kind.segment(), self.name),
        }
    }
}

/// The text is no record's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a record's key")]
pub struct RecordKeyError(String);

impl FromStr for RecordKey {
    type Err = RecordKeyError;

    fn from_str(text: &str) -> Result<RecordKey, RecordKeyError> {
        if text == CLUSTER_KEY {
            return Ok(RecordKey::cluster());
        }
        let refused = || RecordKeyError(text.to_owned());
        if let Some(id) = text.strip_prefix(PROPOSER_PREFIX) {
            let id = u128::from_str_radix(id, 16).map_err(|_| refused())?;
            return Ok(RecordKey::proposer(&id.to_be_bytes()));
        }
        if let Some(name) = text.strip_prefix(ADMIN_PREFIX) {
            return Ok(RecordKey::admin(&name.parse().map_err(|_| refused())?));
        }
        if text == DELETIONS_KEY {
            return Ok(RecordKey::deletions(None));
        }
        let mut parts = text.splitn(3, '/');
        let (Some(tenant), Some(segment), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused());
        };
        let tenant: TenantName = tenant.parse().map_err(|_| refused())?;
        let kind = RecordKind::ALL.into_iter().find(|kind| kind.segment() == segment).ok_or_else(refused)?;
        Ok(RecordKey { tenant: Some(tenant), kind, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_form() -> Result<(), Box<dyn std::error::Error>> {
        let tenant: TenantName = "acme".parse()?;
        for kind in RecordKind::ALL {
            let key = RecordKey::of(&tenant, kind, "x");
            assert_eq!(key.to_string().parse::<RecordKey>()?, key);
        }
        let ban = RecordKey::ban(&tenant, &BanTarget::Agent("bot".parse()?));
        assert_eq!((ban.to_string().as_str(), ban.to_string().parse()), ("acme/ban/agent/bot", Ok(ban)));
        let is_ban = |text: &str| RecordKey::is_of_ban(text);
        assert!(is_ban("acme/ban/tenant") && !is_ban("acme/agent/ban") && !is_ban("ban/agent/ban/x"));
        assert!(
            !is_ban("@admin/ban") && !is_ban("@proposer/ban"),
            "what is the cluster's never goes to nodes"
        );
        assert_eq!("@cluster".parse::<RecordKey>()?, RecordKey::cluster());
        for key in [
            RecordKey::proposer(&[7; 16]),
            RecordKey::admin(&"alice".parse()?),
            RecordKey::deletions(None),
            RecordKey::deletions(Some(&tenant)),
        ] {
            assert_eq!(key.to_string().parse::<RecordKey>()?, key);
        }
        assert!("acme/nothing/x".parse::<RecordKey>().is_err());
        Ok(())
    }
}
