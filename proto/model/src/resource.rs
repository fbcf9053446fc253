//! Resources: what an admin applies. Kinds, ids and the specification of each kind.
//!
//! Always holds: a value of these types is valid by itself (bounds kept, exactly one transport, a header name that
//! is one). Whether it is valid beside other resources is [`crate::reference`]'s question. The serde form of a
//! `...Spec` is the `spec` of a document; unknown fields are refused.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{
    AgentName, CredentialName, EndpointName, GroupName, LimitName, Name, PolicyName, ProviderName,
    RegionName, ServerName, TenantName, ToolName,
};

mod approval;
mod authentication;
mod authority;
mod breaker;
mod check;
mod endpoint;
mod external;
mod inspection;
mod provider;
mod server;

pub use approval::{
    APPROVAL_EXPIRES_SECONDS_DEFAULT, APPROVAL_HOLD_SECONDS_DEFAULT, APPROVAL_HOLD_SECONDS_MAX,
    APPROVALS_MAX, APPROVERS_MAX, ApprovalSpec,
};
pub use authentication::{Authentication, SCOPES_MAX};
pub(crate) use authority::CLIENT_AUTHORITIES;
pub use authority::{AuthoritySpec, BUNDLE_BYTES_MAX, ClientName, TRUST_DOMAIN_BYTES_MAX};
pub use breaker::{Breaker, Failures, Repeats};
pub use endpoint::{
    ALIAS_NAME_BYTES_MAX, ALIASES_MAX, Alias, AliasTarget, ENDPOINT_SERVERS_MAX, EndpointSpec, Naming,
};
pub use external::{
    CHECK_ANSWER_BYTES_DEFAULT, CHECK_ANSWER_BYTES_MAX, CHECK_CONCURRENCY_DEFAULT, CHECK_CONCURRENCY_MAX,
    CHECK_TIMEOUT_MS_DEFAULT, CHECK_TIMEOUT_MS_MAX, CheckPhase, ExternalCheck, OnFailure, ShownArguments,
};
pub use inspection::{
    ARGUMENT_PLACES_MAX, Inspection, InspectionLimits, PATTERN_BYTES_MAX, PATTERNS_MAX, PLACE_BYTES_MAX,
    PLACE_STEPS_MAX,
};
pub use provider::{
    AgentIdentity, CLAIM_PATHS_MAX, CLAIM_TAGS_MAX, CLOCK_SKEW_SECONDS_DEFAULT, CLOCK_SKEW_SECONDS_MAX,
    IssuerSpec, PROVIDER_TEXT_BYTES_MAX, PROVIDERS_MAX, ProviderClaims, ProviderSpec, SIGNATURE_ALGORITHMS,
    SUBJECT_BYTES_MAX, UserId, UserIdError,
};
pub(crate) use server::ServerDocument;
pub use server::{
    CONCURRENCY_DEFAULT, CONCURRENCY_MAX, MEMORY_MB_MAX, MEMORY_MB_MIN, PROCESSES_DEFAULT, PROCESSES_MAX,
    Pin, ServerSpec, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX, Transport,
};

/// Most bytes of a policy's text: Cedar's parser is quick, a reader is not.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;
/// Longest window of a limit that a single node counts, in seconds: a day. Longer ones need to survive a restart.
pub const WINDOW_SECONDS_MAX: u32 = 86_400;
/// Least silence after which a tenant may be refused, in seconds: a node that changes from one control plane to another
/// may take 8 s to notice that the first is gone.
pub const FAIL_CLOSED_AFTER_SECONDS_MIN: u32 = 30;
/// Most such silence, in seconds: 30 days, beyond which serving for ever is what is meant.
pub const FAIL_CLOSED_AFTER_SECONDS_MAX: u32 = 2_592_000;
/// Most regions of a tenant: more than any provider has.
pub const REGIONS_MAX: usize = 64;
/// Most elements of any list in a specification.
pub const LIST_MAX: usize = 256;

/// What sort of thing a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A hard boundary.
    Tenant,
    /// An upstream MCP server.
    Server,
    /// A URL handed to agents.
    Endpoint,
    /// A program that calls.
    Agent,
    /// Cedar text.
    Policy,
    /// A budget per key.
    Limit,
    /// Where a vaulted secret is used.
    Credential,
    /// Whose word counts for who calls: an issuer of tokens, or authorities of certificates.
    Provider,
}

impl Kind {
    /// Every kind, in the order in which they refer to each other.
    pub const ALL: [Kind; 8] = [
        Kind::Tenant,
        Kind::Credential,
        Kind::Provider,
        Kind::Server,
        Kind::Endpoint,
        Kind::Agent,
        Kind::Policy,
        Kind::Limit,
    ];

    /// The kind as it stands in a document.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Tenant => "Tenant",
            Kind::Server => "Server",
            Kind::Endpoint => "Endpoint",
            Kind::Agent => "Agent",
            Kind::Policy => "Policy",
            Kind::Limit => "Limit",
            Kind::Credential => "Credential",
            Kind::Provider => "Provider",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that is no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {0:?}")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    /// Reads a kind in any case, singular or plural, so that `gantry get servers` works.
    fn from_str(text: &str) -> Result<Kind, UnknownKind> {
        let lower = text.to_ascii_lowercase();
        Kind::ALL
            .into_iter()
            .find(|kind| {
                let singular = kind.as_str().to_ascii_lowercase();
                let plural = match singular.strip_suffix('y') {
                    Some(stem) => format!("{stem}ies"),
                    None => format!("{singular}s"),
                };
                lower == singular || lower == plural
            })
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// What names one resource. For a tenant, `tenant` and `name` are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// What it is.
    pub kind: Kind,
    /// Its name within tenant and kind.
    pub name: Name,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Tenant => write!(formatter, "Tenant {}", self.name),
            kind => write!(formatter, "{kind} {}/{}", self.tenant, self.name),
        }
    }
}

/// One applied document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its tenant; for a tenant, itself.
    pub tenant: TenantName,
    /// Its name.
    pub name: Name,
    /// What it says.
    pub spec: Spec,
}

/// What a resource says, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented at its type")]
pub enum Spec {
    Tenant(TenantSpec),
    Server(ServerSpec),
    Endpoint(EndpointSpec),
    Agent(AgentSpec),
    Policy(PolicySpec),
    Limit(LimitSpec),
    Credential(CredentialSpec),
    Provider(ProviderSpec),
}

impl Resource {
    /// What names it.
    pub fn id(&self) -> ResourceId {
        ResourceId { tenant: self.tenant.clone(), kind: self.spec.kind(), name: self.name.clone() }
    }
}

impl Spec {
    /// The kind that the specification is of.
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Tenant(_) => Kind::Tenant,
            Spec::Server(_) => Kind::Server,
            Spec::Endpoint(_) => Kind::Endpoint,
            Spec::Agent(_) => Kind::Agent,
            Spec::Policy(_) => Kind::Policy,
            Spec::Limit(_) => Kind::Limit,
            Spec::Credential(_) => Kind::Credential,
            Spec::Provider(_) => Kind::Provider,
        }
    }
}

/// A hard boundary: everything else belongs to one tenant and refers to nothing outside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSpec {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What becomes of it on a node that hears from no control plane.
    #[serde(skip_serializing_if = "Staleness::is_default")]
    pub staleness: Staleness,
    /// The regions whose nodes may hold it, at most [`REGIONS_MAX`]; empty: nodes of every region, and of none.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub regions: BTreeSet<RegionName>,
    /// Where agents reach its endpoints, such as `https://mcp.example.com`: what tokens are issued for. `None`: tokens are
    /// taken on loopback only, and from providers with `audiences` of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// What stops an agent for a while; `None`: nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// What is looked for in all its calls, and taken out of all its answers.
    #[serde(skip_serializing_if = "Inspection::is_default")]
    pub inspection: Inspection,
    /// A service that is asked about all its calls; `None`: nobody is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<ExternalCheck>,
    /// For how long a call that needs an approval is held until there is one, at most [`APPROVAL_HOLD_SECONDS_MAX`]; `None`:
    /// [`APPROVAL_HOLD_SECONDS_DEFAULT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_hold_seconds: Option<u32>,
}

/// What becomes of a tenant on a node that hears from no control plane, and so neither of revocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Staleness {
    /// Seconds of silence after which its calls are refused until the node hears again:
    /// [`FAIL_CLOSED_AFTER_SECONDS_MIN`] to [`FAIL_CLOSED_AFTER_SECONDS_MAX`]. `None`: it is served for ever with what
    /// the node has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_closed_after_seconds: Option<u32>,
}

impl Staleness {
    fn is_default(&self) -> bool {
        *self == Staleness::default()
    }
}

/// A program that calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSpec {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Groups that policies may name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
    /// What providers call it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<AgentIdentity>,
}

/// Cedar text: one or more policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// The text.
    pub cedar: String,
    /// Whether it is evaluated and recorded, and decides nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
    /// What lets a call through that the text forbids; `None`: nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalSpec>,
}

impl PolicySpec {
    /// A policy that is enforced, and that nobody's approval has a say in.
    pub fn enforced(cedar: impl Into<String>) -> PolicySpec {
        PolicySpec { cedar: cedar.into(), shadow: false, approval: None }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What a limit counts separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LimitKeyPart {
    Agent,
    Server,
    Tool,
    User,
}

/// A budget of calls per key, one for all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// What is counted separately; empty: one budget for the tenant.
    #[serde(default)]
    pub per: Vec<LimitKeyPart>,
    /// Calls allowed in a window, on average.
    pub calls: u32,
    /// The window in seconds.
    pub window_seconds: u32,
    /// Calls that may come at once; as many as `calls` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Only calls of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Only calls to this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// Only calls of this tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
}

/// Where a vaulted secret is used: as a header of requests to the servers that name the credential. The secret
/// itself is put with `gantry credential put` and is no part of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSpec {
    /// The header's name, in lower case.
    #[serde(default = "authorization")]
    pub header: String,
    /// Stands before the secret in the header's value, such as `Bearer `.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

fn authorization() -> String {
    "authorization".to_owned()
}

/// A specification that breaks a bound or a rule of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SpecError {
    /// The field, below `spec`, such as `aliases.read`.
    pub path: Cow<'static, str>,
    /// What is wrong with it.
    pub message: String,
}

macro_rules! name_of_id {
    ($function:ident, $type:ident, $kind:ident) => {
        /// The id of such a resource in a tenant.
        pub fn $function(tenant: &TenantName, name: &$type) -> ResourceId {
            ResourceId { tenant: tenant.clone(), kind: Kind::$kind, name: name.as_name().clone() }
        }
    };
}

impl ResourceId {
    /// The id of a tenant.
    pub fn of_tenant(tenant: &TenantName) -> ResourceId {
        ResourceId { tenant: tenant.clone(), kind: Kind::Tenant, name: tenant.as_name().clone() }
    }
    name_of_id!(server, ServerName, Server);
    name_of_id!(endpoint, EndpointName, Endpoint);
    name_of_id!(agent, AgentName, Agent);
    name_of_id!(policy, PolicyName, Policy);
    name_of_id!(limit, LimitName, Limit);
    name_of_id!(credential, CredentialName, Credential);
    name_of_id!(provider, ProviderName, Provider);
}
