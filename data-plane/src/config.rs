//! The compiled configuration: what a node holds of the control plane's state, ready for requests.
//!
//! Always holds: a [`Config`] never changes; a new one replaces it by one pointer swap, so a request sees one
//! revision from its first stage to its last. A tenant that cannot be compiled keeps its last good form.

pub(crate) mod endpoint;
pub(crate) mod greeting;
pub(crate) mod holdings;
pub(crate) mod image;
pub(crate) mod live;
pub(crate) mod tenant;
pub(crate) mod tool;
pub(crate) mod view;

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use gantry_model::{Revision, TenantName};

use crate::config::tenant::Tenant;
use crate::mcp::seal::Keyring;

/// Everything that a request can ask of the configuration.
pub(crate) struct Config {
    /// The change up to which it is complete.
    pub(crate) revision: Revision,
    /// The tenants by name.
    pub(crate) tenants: HashMap<TenantName, Arc<Tenant>>,
    /// Keys that all nodes share; absent until the first snapshot came.
    pub(crate) keys: Option<Arc<NodeKeys>>,
}

/// Keys that all nodes of a cluster share.
pub(crate) struct NodeKeys {
    /// Under which agents' secrets are hashed.
    pub(crate) key_hash: hmac::Key,
    /// Under which tokens are sealed.
    pub(crate) seal: Keyring,
}

impl Config {
    /// What a node serves before it heard from the control plane: nobody.
    pub(crate) fn empty() -> Config {
        Config { revision: Revision::NONE, tenants: HashMap::new(), keys: None }
    }
}
