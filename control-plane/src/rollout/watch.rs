//! Watching rollouts, and, on the leader, doing what is to be done.
//!
//! Always holds: every member watches, so that whoever leads next has seen what went before; the leader alone proposes,
//! and names the stage that it saw, so that what somebody decided meanwhile is not decided again. What could not be
//! proposed is tried again with the next look.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_control_state::{Command, Outcome};
use gantry_model::rollout::{END_REASON_BYTES_MAX, End, Ended};
use gantry_model::{Revision, Rollout, TenantName};
use tokio::time::{Instant, sleep};

use super::watched::{Advice, Look};
use crate::feed::View;
use crate::fleet::NodeView;
use crate::plane::{Plane, now_ms};

/// Between two looks: a nack is acted on within this, and members tell each other of nodes every second.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Watches until the process is to end.
pub(crate) async fn watch(plane: Arc<Plane>) {
    let mut news = plane.consensus.feed().subscribe_to_rollouts();
    loop {
        news.borrow_and_update();
        let view = plane.consensus.feed().latest();
        let is_any = view.state.running_rollouts().len() > 0;
        tokio::select! {
            () = plane.stop.cancelled() => return,
            () = look(&plane, &view), if is_any => sleep(LOOK_INTERVAL).await,
            changed = news.changed(), if !is_any => if changed.is_err() { return },
        }
        if !is_any {
            plane.fleet.rollouts.keep(&BTreeSet::new());
        }
    }
}

async fn look(plane: &Plane, view: &View) {
    let running: Vec<(Arc<Rollout>, Revision)> =
        view.state.running_rollouts().map(|(rollout, at)| (rollout.clone(), at)).collect();
    let tenants: BTreeSet<TenantName> = running.iter().map(|(rollout, _)| rollout.tenant.clone()).collect();
    plane.fleet.rollouts.keep(&tenants);
    let now = Instant::now();
    let nodes = plane.fleet.nodes.list(now);
    let consensus = plane.consensus.status().await;
    let leads = consensus.stopped.is_none() && consensus.leader == Some(consensus.voter);
    for (rollout, at) in &running {
        let nodes = holders(view, &nodes, &rollout.tenant);
        // What is remembered goes back to before the stage: this process does, too.
        let saw_begin = plane.consensus.feed().past_at(Revision(at.0.saturating_sub(1))).is_some();
        let seen = Look { nodes: &nodes, now, now_ms: now_ms(), saw_begin };
        let advice = match view.overlays.has(&rollout.tenant) {
            true => plane.fleet.rollouts.look((rollout, *at), seen),
            false => Advice::Stop("the change does not fit what is stored any more".to_owned()),
        };
        if leads {
            follow(plane, rollout, advice).await;
        }
    }
}

/// The nodes that hold a tenant.
pub(crate) fn holders<'a>(view: &View, nodes: &'a [NodeView], tenant: &TenantName) -> Vec<&'a NodeView> {
    let digests = view.state.digests();
    nodes.iter().filter(|node| digests.has(&node.seen.scope, tenant)).collect()
}

async fn follow(plane: &Plane, rollout: &Rollout, advice: Advice) {
    let Rollout { tenant, id, .. } = rollout;
    let at = rollout.at();
    let end = |how, reason| Ended { how, reason, by: String::new(), at_ms: now_ms() };
    let command = match advice {
        Advice::Wait => return,
        Advice::GoOn if rollout.is_in_last_stage() => {
            let reason = "every stage was healthy for long enough".to_owned();
            tracing::info!(%tenant, %id, "a rollout goes on to all nodes");
            Command::EndRollout { at, end: end(End::Promoted, reason) }
        }
        Advice::GoOn => {
            tracing::info!(%tenant, %id, "a rollout goes on to its next stage");
            Command::AdvanceRollout(at)
        }
        Advice::Stop(reason) => {
            tracing::warn!(%tenant, %id, %reason, "a rollout is stopped");
            Command::EndRollout { at, end: end(End::Stopped, cut(reason)) }
        }
    };
    match plane.consensus.propose(command).await {
        Ok(committed) => {
            if let Outcome::Refused(refusals) = committed.outcome {
                // Somebody was faster.
                tracing::debug!(%tenant, %id, ?refusals, "a decision about a rollout was refused");
            }
        }
        Err(error) => tracing::warn!(%tenant, %id, %error, "a decision about a rollout is tried again"),
    }
}

fn cut(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(END_REASON_BYTES_MAX));
    reason
}
