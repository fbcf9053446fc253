//! Tenants that are to be refused once no control plane was heard for so long: their streams are ended, and it is said.
//!
//! Always holds: whether a call is refused is decided when it comes ([`Node::is_stale`]), not here, so that nothing
//! depends on when this task runs; it ends what was let in before, and says in the log when a tenant begins to be
//! refused and when it no longer is. A tenant without a say in this is served for ever with what the node has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_model::TenantName;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

/// Runs until `stop`.
pub(super) async fn watch(node: Arc<Node>, stop: CancellationToken) {
    let (mut swaps, mut heard) = (node.swaps(), node.contact.changes());
    let mut refused = BTreeSet::new();
    loop {
        swaps.borrow_and_update();
        heard.borrow_and_update();
        let next = look(&node, &mut refused);
        let due = async {
            match next {
                Some(next) => tokio::time::sleep(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = due => {}
            changed = swaps.changed() => if changed.is_err() { return },
            changed = heard.changed() => if changed.is_err() { return },
        }
    }
}

/// Ends the streams of tenants that are stale now; returns when the next will be.
fn look(node: &Node, refused: &mut BTreeSet<TenantName>) -> Option<Duration> {
    let (config, silence) = (node.config(), node.contact.silence());
    let mut next = None;
    let mut now = BTreeSet::new();
    for (after, name) in &config.fail_closed {
        if silence < *after {
            next = Some(after.saturating_sub(silence));
            break;
        }
        if let Some(tenant) = config.tenants.get(name) {
            tenant.live.cut();
        }
        if !refused.contains(name) {
            tracing::warn!(tenant = %name, ?after, "no control plane is heard for longer than the tenant allows: its calls are refused, its streams are ended");
        }
        now.insert(name.clone());
    }
    for tenant in refused.difference(&now) {
        tracing::info!(%tenant, "the tenant is served again");
    }
    *refused = now;
    next
}
