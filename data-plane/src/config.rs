//! The compiled configuration: what a node holds of the control plane's state, ready for requests.
//!
//! Always holds: a [`Config`] never changes; a new one replaces it by one pointer swap, so a request sees one
//! revision from its first stage to its last. A tenant that cannot be compiled keeps its last good form. Two that
//! follow each other share what did not change, so one changed tenant costs the same however many there are.

pub(crate) mod access;
pub(crate) mod approving;
pub(crate) mod asking;
pub(crate) mod caller;
pub(crate) mod definitions;
pub(crate) mod endpoint;
pub(crate) mod greeting;
pub(crate) mod holdings;
pub(crate) mod image;
pub(crate) mod inspection;
pub(crate) mod live;
pub(crate) mod server;
pub(crate) mod shadow;
pub(crate) mod site;
pub(crate) mod tally;
pub(crate) mod tenant;
pub(crate) mod tool;
pub(crate) mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use gantry_model::{Revision, TenantName};
use rpds::{HashTrieMapSync, RedBlackTreeSetSync};

use crate::config::asking::Asking;
use crate::config::site::Site;
use crate::config::tenant::Tenant;
use crate::mcp::seal::Keyring;

/// Everything that a request can ask of the configuration.
pub(crate) struct Config {
    /// Whose it is; empty before the first.
    pub(crate) cluster_id: String,
    /// The change up to which it is complete.
    pub(crate) revision: Revision,
    /// The tenants by name.
    pub(crate) tenants: HashTrieMapSync<TenantName, Arc<Tenant>>,
    /// Those that are refused after a silence of all control planes, by how long it may be.
    pub(crate) fail_closed: RedBlackTreeSetSync<(Duration, TenantName)>,
    /// Whose clients are asked for certificates.
    pub(crate) asking: Asking,
    /// Those that are served in an older form than the revision's, because that cannot be compiled.
    pub(crate) older: Arc<BTreeSet<TenantName>>,
    /// Keys that all nodes share; absent until the first snapshot came.
    pub(crate) keys: Option<Arc<NodeKeys>>,
    /// What is the node's own, whatever it holds.
    pub(crate) site: Arc<Site>,
}

/// The tenants that are not what they were in the configuration before.
pub(crate) type Changed = BTreeSet<TenantName>;

/// Keys that all nodes of a cluster share.
pub(crate) struct NodeKeys {
    /// Under which agents' secrets are hashed.
    pub(crate) key_hash: hmac::Key,
    /// Under which tokens are sealed.
    pub(crate) seal: Keyring,
}

impl Config {
    /// What a node serves before it heard from the control plane: nobody.
    pub(crate) fn empty(site: Arc<Site>) -> Config {
        Config {
            cluster_id: String::new(),
            revision: Revision::NONE,
            tenants: HashTrieMapSync::new_sync(),
            fail_closed: RedBlackTreeSetSync::new_sync(),
            asking: Asking::default(),
            older: Arc::default(),
            keys: None,
            site,
        }
    }

    /// The same at another revision of a cluster, to be changed. Costs the same however much there is.
    pub(crate) fn at(&self, (cluster_id, revision): (&str, Revision), keys: Option<Arc<NodeKeys>>) -> Config {
        let (tenants, fail_closed) = (self.tenants.clone(), self.fail_closed.clone());
        Config {
            cluster_id: cluster_id.to_owned(),
            revision,
            tenants,
            fail_closed,
            asking: self.asking.clone(),
            older: self.older.clone(),
            keys,
            site: self.site.clone(),
        }
    }

    /// Puts a tenant in place of what has its name.
    pub(crate) fn put(&mut self, tenant: impl Into<Arc<Tenant>>) {
        let tenant = tenant.into();
        self.remove(&tenant.name);
        if let Some(after) = tenant.fail_closed_after {
            self.fail_closed.insert_mut((after, tenant.name.clone()));
        }
        self.asking.put(&tenant);
        self.tenants.insert_mut(tenant.name.clone(), tenant);
    }

    /// Takes a tenant out.
    pub(crate) fn remove(&mut self, name: &TenantName) {
        let Some(tenant) = self.tenants.get(name) else { return };
        if let Some(after) = tenant.fail_closed_after {
            self.fail_closed.remove_mut(&(after, name.clone()));
        }
        self.asking.remove(tenant);
        self.tenants.remove_mut(name);
    }
}
