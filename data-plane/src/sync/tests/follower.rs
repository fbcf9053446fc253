//! A node that follows, without a listener; and what tests wait for on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_model::{Revision, Secret};
use gantry_node::seal::NodeSealKey;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::config::site::Site;
use crate::mesh::Mesh;
use crate::node::Node;
use crate::start::Proof;
use crate::sync::choice::Choice;
use crate::sync::last_known_good::{self, KeepError, LastKnownGood};
use crate::sync::{Channels, Follower, Identity};
use crate::upstream::Upstreams;
use crate::upstream::discovery::{Discovery, Wakeup};

/// How long anything may take before a test gives up on it.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A running node.
pub(super) struct Following {
    pub(super) node: Arc<Node>,
    applied: watch::Receiver<Revision>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Following {
    /// Starts a node in a directory of its own; it serves what it keeps when this returns.
    pub(super) async fn start(
        data_dir: &Path,
        how: &LastKnownGood,
        control_plane: &str,
    ) -> Result<Following, KeepError> {
        Following::start_with(data_dir, how, vec![control_plane.to_owned()]).await
    }

    /// As [`Following::start`], with several control planes.
    pub(super) async fn start_with(
        data_dir: &Path,
        how: &LastKnownGood,
        control_planes: Vec<String>,
    ) -> Result<Following, KeepError> {
        let (follower, applied) = follower(data_dir, how, control_planes).await?;
        let (node, stop) = (follower.node.clone(), CancellationToken::new());
        let task = tokio::spawn(follower.run(stop.clone()));
        Ok(Following { node, applied, stop, task })
    }

    /// What it serves.
    pub(super) fn revision(&self) -> Revision {
        self.node.config().revision
    }

    /// Waits until it serves a revision.
    pub(super) async fn reaches(&mut self, revision: Revision) {
        let reached = timeout(DEADLINE, self.applied.wait_for(|applied| *applied == revision)).await;
        let reached = reached.map(|reached| reached.map(|revision| *revision));
        assert!(matches!(reached, Ok(Ok(_))), "it serves {}, not {revision}", self.revision());
    }

    /// Ends it in order.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("it ends without a panic");
    }

    /// Ends it as SIGKILL does: what was not done by now is not done.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A node that does not run yet, and where it says how far it is.
pub(super) async fn follower(
    data_dir: &Path,
    how: &LastKnownGood,
    control_planes: Vec<String>,
) -> Result<(Follower, watch::Receiver<Revision>), KeepError> {
    let seal = Arc::new(NodeSealKey::generate().expect("a key"));
    let beginning = last_known_good::begin(how, data_dir, seal.clone()).await?;
    let (record_sender, records) = mpsc::channel(64);
    let audit = Audit::start(data_dir, "node", "incarnation", record_sender).expect("an audit file");
    let (mesh, _) = Mesh::alone("node");
    let node = Arc::new(Node::new(
        audit,
        Upstreams::new(false),
        Wakeup::default(),
        mesh,
        Site::of(([127, 0, 0, 1], 0).into(), false),
    ));
    let (report_sender, catalogs) = mpsc::channel(64);
    let (applied_sender, applied) = watch::channel(Revision::NONE);
    let identity = Identity {
        node_id: "node".to_owned(),
        incarnation: "incarnation".to_owned(),
        control_planes: Choice::of(control_planes).expect("there is one"),
        proof: Proof::Token(Secret::new("token".to_owned())),
        distrust: None,
    };
    let discovery = Discovery::new(node.clone(), report_sender);
    let channels = Channels { catalogs, records, applied: applied_sender };
    Ok((Follower::new(identity, node, seal, discovery, channels, beginning), applied))
}
