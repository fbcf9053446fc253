//! Reading a stream as it comes, so that what is urgent waits for nothing that the node is at work on.
//!
//! Always holds: bans are in force, and peers are known, when their message was read; an update is handed on as a
//! whole. Whoever applies updates is never waited for but with the next update, which comes only after its answer.

use std::sync::Arc;

use gantry_wire::sync_v1 as wire;
use gantry_wire::sync_v1::node_message::Message as ToServer;
use gantry_wire::sync_v1::server_message::Message as FromServer;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use super::connection::{FollowError, Outbox, send};
use super::distrust::Distrust;
use super::last_known_good::UrgentKeeper;
use crate::mesh::Telling;
use crate::node::Node;

/// Most bytes of all parts of one update: a snapshot larger than this does not fit this release.
const UPDATE_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// What reads one stream.
pub(super) struct Reader {
    pub(super) node: Arc<Node>,
    pub(super) stream: Streaming<wire::ServerMessage>,
    pub(super) outbox: Outbox,
    pub(super) keeper: UrgentKeeper,
    pub(super) distrust: Option<Distrust>,
    /// Where the control plane is.
    pub(super) address: String,
}

/// Updates as they came, and last why no more come.
pub(super) type Updates = mpsc::Receiver<Result<wire::Update, FollowError>>;

impl Reader {
    /// Reads aside until the handle is dropped.
    pub(super) fn start(mut self) -> (Updates, AbortOnDropHandle<()>) {
        let (updates, receiver) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let Err(error) = self.run(&updates).await;
            // Whoever applies may be gone.
            let _ = updates.send(Err(error)).await;
        });
        (receiver, AbortOnDropHandle::new(task))
    }

    async fn run(
        &mut self,
        updates: &mpsc::Sender<Result<wire::Update, FollowError>>,
    ) -> Result<std::convert::Infallible, FollowError> {
        let mut parts: Option<wire::Update> = None;
        let mut size = 0;
        let mut telling = Telling::default();
        loop {
            let message = self.stream.message().await?.ok_or(FollowError::Closed)?.message;
            self.node.contact.hears();
            let part = match message {
                Some(FromServer::Update(part)) => part,
                Some(FromServer::Members(members)) => {
                    self.node.mesh.take_members(&mut telling, members);
                    continue;
                }
                Some(FromServer::Urgent(urgent)) => {
                    self.take_urgent(urgent).await?;
                    continue;
                }
                Some(FromServer::Counting(asked)) => {
                    self.node.counting.ask(asked);
                    continue;
                }
                Some(FromServer::Distrusted(told)) => {
                    // Where it is about this very member, the connection is cut now.
                    if let Some(distrust) = &self.distrust {
                        distrust.take(&self.address, told).await;
                    }
                    continue;
                }
                // A message of a newer build.
                None => continue,
            };
            size += part.upserts.iter().map(|entry| entry.record.len() + entry.key.len()).sum::<usize>();
            if size > UPDATE_BYTES_MAX {
                return Err(FollowError::TooLarge);
            }
            let last = part.last;
            match &mut parts {
                None => parts = Some(part),
                Some(update) => merge(update, part),
            }
            if last && let Some(update) = parts.take() {
                size = 0;
                updates.send(Ok(update)).await.map_err(|_| FollowError::Closed)?;
            }
        }
    }

    /// One that cannot be read is not answered, and shown as missing: the update that brings it says more.
    async fn take_urgent(&self, mut urgent: wire::Urgent) -> Result<(), FollowError> {
        let (revision, count) = (urgent.revision, urgent.upserts.len() + urgent.deletes.len());
        let (narrowings, cluster_id) = (std::mem::take(&mut urgent.narrowings), urgent.cluster_id.clone());
        if let Err(error) = self.node.bans.take(urgent) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(revision, error, "a revocation cannot be read");
            return Ok(());
        }
        let (node, tenants) = (self.node.clone(), narrowings.len());
        // Policies take a while to compile, and requests do not wait for that.
        let narrowed = tokio::task::spawn_blocking(move || node.narrow(&cluster_id, narrowings)).await;
        let errors = narrowed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        for error in &errors {
            let error: &dyn std::error::Error = error;
            tracing::error!(revision, error, "a denial cannot be put in force before its update");
        }
        // Before the answer, which may find nobody there any more.
        self.keeper.keep(self.node.ahead());
        if !errors.is_empty() {
            return Ok(());
        }
        tracing::info!(revision, count, tenants, "revocations and denials are in force");
        send(&self.outbox, ToServer::Urgent(wire::UrgentAck { revision })).await
    }
}

fn merge(update: &mut wire::Update, part: wire::Update) {
    update.upserts.extend(part.upserts);
    update.tenant_deletes.extend(part.tenant_deletes);
    update.deletes.extend(part.deletes);
    update.secrets.extend(part.secrets);
    update.secret_deletes.extend(part.secret_deletes);
    update.node_keys = update.node_keys.take().or(part.node_keys);
    update.digest_after = part.digest_after;
    update.cluster_id = part.cluster_id;
    update.revision = part.revision;
    update.last = part.last;
}
