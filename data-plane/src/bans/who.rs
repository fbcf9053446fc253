//! Whom a ban may stop: what is known of a request, or of what the node does by itself.

use crate::identity::Principal;
use gantry_model::key::KeyId;
use gantry_model::{AgentName, ServerName, SessionId, TenantName, UserId};

/// Who asks for what, as far as bans are concerned. What is not known is not stopped by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) tenant: TenantName,
    pub(crate) agent: Option<AgentName>,
    /// For whom it acts.
    pub(crate) user: Option<UserId>,
    pub(crate) key: Option<KeyId>,
    pub(crate) session: Option<SessionId>,
    /// Servers that it concerns.
    pub(crate) servers: Vec<ServerName>,
}

impl Who {
    /// An agent and for whom it acts, by one of its keys where it shows one.
    pub(crate) fn agent(tenant: &TenantName, principal: &Principal, key: Option<KeyId>) -> Who {
        let Principal { agent, user } = principal.clone();
        Who { tenant: tenant.clone(), agent: Some(agent), user, key, session: None, servers: Vec::new() }
    }

    /// The gateway itself, which has to do with a server.
    pub(crate) fn server(tenant: &TenantName, server: &ServerName) -> Who {
        let servers = vec![server.clone()];
        Who { tenant: tenant.clone(), agent: None, user: None, key: None, session: None, servers }
    }
}
