//! What tenants are compiled with that is the node's own, and outlives every change of the configuration.

use std::net::SocketAddr;

use crate::identity::keepers::Keepers;

/// Where a node is, and whose keys it fetches.
#[derive(Debug, Default)]
pub(crate) struct Site {
    /// Where agents of this machine reach it, while none of another can: what tokens are for where a tenant says nothing.
    /// What a request says of its host is never believed.
    pub(crate) loopback_url: Option<String>,
    pub(crate) keepers: Keepers,
}

impl Site {
    /// A node that listens there.
    pub(crate) fn of(address: SocketAddr, has_tls: bool) -> Site {
        let scheme = if has_tls { "https" } else { "http" };
        let loopback_url = address.ip().is_loopback().then(|| format!("{scheme}://{address}"));
        Site { loopback_url, keepers: Keepers::default() }
    }
}
