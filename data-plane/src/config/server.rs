//! A server as a tenant has it: where it is, what it offers, and by which credential it is asked.
//!
//! Always holds: a [`Server`] never changes but for its health; one with the same specification as before keeps that.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_inspect::definition::Scan;
use gantry_model::catalog::{DefinitionKind, SessionCarrier};
use gantry_model::resource::{CredentialSpec, ServerSpec};
use gantry_model::{Catalog, CredentialName, Secret, ServerName, TenantName};
use http::{HeaderName, HeaderValue, Uri};

use crate::check::Checker;
use crate::config::definitions::Oddities;
use crate::config::inspection::Inspections;
use crate::config::tenant::{Secrets, TenantError};
use crate::config::tool::Tool;
use crate::mcp::Era;
use crate::upstream::health::Health;

/// An upstream server with what it offers.
pub(crate) struct Server {
    pub(crate) tenant: TenantName,
    pub(crate) name: ServerName,
    pub(crate) spec: ServerSpec,
    /// Tells the specification from any other; made once, because every call within a session asks for it.
    pub(crate) spec_digest: [u8; 32],
    /// Where requests go, when the server is reached over HTTP.
    pub(crate) uri: Option<Uri>,
    /// `None` until a node reported it.
    pub(crate) offer: Option<Arc<Offer>>,
    /// How the credential is sent, and the credential itself once its secret was put.
    pub(crate) credential: Option<Credential>,
    /// The same as long as the server is where it was, and has as many places.
    pub(crate) health: Arc<Health>,
    /// What is looked for in its calls, and taken out of its answers.
    pub(crate) inspections: Inspections,
    /// Who is asked about its calls, after its tenant's.
    pub(crate) check: Option<Arc<Checker>>,
    /// What is odd about what it offers.
    pub(crate) oddities: Arc<Oddities>,
}

/// Why a definition is neither listed nor callable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// It changed, and waits for an admin's approval.
    Waits,
    /// It says to models what does not pass: what sort of thing, in words of a fixed set. Where it stands is not told: names of
    /// fields are the server's to choose, and whoever reads the refusal is a model.
    Odd(Vec<&'static str>),
}

/// A credential towards a server.
pub(crate) struct Credential {
    pub(crate) name: CredentialName,
    pub(crate) header: HeaderName,
    /// The header's whole value.
    pub(crate) value: Option<Arc<Secret<Vec<u8>>>>,
}

impl Credential {
    /// The credential of a name, of those of its tenant.
    pub(crate) fn build(
        name: &CredentialName,
        specs: &HashMap<CredentialName, CredentialSpec>,
        secrets: &Secrets,
    ) -> Result<Credential, TenantError> {
        let dangling = || TenantError::Dangling(format!("credential {name}"));
        let spec = specs.get(name).ok_or_else(dangling)?;
        let value = match secrets.get(name) {
            None => None,
            Some(secret) => {
                let mut value = spec.prefix.clone().into_bytes();
                value.extend_from_slice(secret.expose());
                let value = Secret::new(value);
                HeaderValue::from_bytes(value.expose()).map_err(|_| TenantError::Unsendable(name.clone()))?;
                Some(Arc::new(value))
            }
        };
        let header = HeaderName::try_from(spec.header.as_str()).map_err(|_| dangling())?;
        Ok(Credential { name: name.clone(), header, value })
    }
}

/// A catalog, compiled.
pub(crate) struct Offer {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tools: Vec<Arc<Tool>>,
    /// What it says to models alone.
    pub(crate) scan: Scan,
}

impl Server {
    /// Whether it speaks an era. One that was not found out yet is taken to speak any, and says itself what is wrong.
    pub(crate) fn speaks(&self, era: Era) -> bool {
        let Some(offer) = &self.offer else { return true };
        offer.catalog.revisions.iter().any(|version| Era::of_version(version) == era)
    }

    /// Whether an era of it is carried by Streamable HTTP, so that bytes can pass.
    pub(crate) fn streams(&self, era: Era) -> bool {
        let carrier = self.offer.as_ref().map(|offer| offer.catalog.carrier).unwrap_or_default();
        self.uri.is_some() && (era == Era::Modern || carrier == SessionCarrier::StreamableHttp)
    }

    /// Why a definition of it is withheld, by the server's own name for it; `None`: it is not.
    pub(crate) fn withheld(&self, kind: DefinitionKind, name: &str) -> Option<Withheld> {
        let waits = self.offer.as_ref().is_some_and(|offer| offer.catalog.quarantined(kind, name).is_some());
        if waits {
            return Some(Withheld::Waits);
        }
        self.oddities.withheld(kind, name).map(Withheld::Odd)
    }

    /// The era in which it is asked for a client of an era: the same where it can be, because nothing is lost then.
    pub(crate) fn era_for(&self, client: Era) -> Option<Era> {
        let other = if client == Era::Legacy { Era::Modern } else { Era::Legacy };
        [client, other].into_iter().find(|era| self.speaks(*era))
    }
}

/// What tells a specification from any other.
pub(crate) fn digest_of(spec: &ServerSpec) -> [u8; 32] {
    blake3::hash(format!("{spec:?}").as_bytes()).into()
}

impl Offer {
    /// What a catalog has; a tool that cannot be compiled is not offered.
    pub(crate) fn compile(catalog: Arc<Catalog>) -> Offer {
        let compile = |definition| match Tool::compile(definition) {
            Ok(tool) => Some(Arc::new(tool)),
            Err(error) => {
                tracing::warn!(server = %catalog.server, tool = %definition.name, %error, "tool is not offered");
                None
            }
        };
        let tools = catalog.tools.iter().filter_map(compile).collect();
        let scan = Scan::of(&catalog);
        Offer { catalog, tools, scan }
    }
}
