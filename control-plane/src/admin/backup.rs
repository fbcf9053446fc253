//! A backup of the whole cluster, sealed for who asks, as a stream.

use gantry_wire::admin_v1::{BackupRequest, BackupResponse};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::BackupStream;
use super::call::Call;
use crate::backup::{self, BackupFacts};
use crate::plane::{BACKUPS_MAX, now_ms};
use crate::vault::BackupRecipient;

/// Of what this member has applied, which is whatever was acknowledged before the call, and more.
pub(super) fn backup(call: &Call, request: &BackupRequest) -> Result<BackupStream, Status> {
    let plane = &call.plane;
    let recipient: BackupRecipient = request
        .recipient
        .parse()
        .map_err(|error: crate::vault::BackupKeyError| Status::invalid_argument(error.to_string()))?;
    let room: OwnedSemaphorePermit = plane.backups.clone().try_acquire_owned().map_err(|_| {
        Status::resource_exhausted(format!("{BACKUPS_MAX} backups are being made already; wait for one"))
    })?;
    let view = call.view();
    let facts = BackupFacts {
        cluster: plane.vault.cluster_id().to_owned(),
        revision: view.revision.0,
        made_at_ms: now_ms(),
        recipient: recipient.to_string(),
    };
    let root = plane.vault.root_for_backup();
    let (parts, receiver) = mpsc::channel(backup::PARTS_MAX);
    plane.tasks.spawn_blocking(move || {
        let _room = room;
        // The reader sees that the digest did not come.
        if let Err(error) = backup::write(&view.state, &root, &recipient, facts, &parts) {
            tracing::warn!(%error, "a backup was not made");
        }
    });
    let parts = ReceiverStream::new(receiver);
    Ok(Box::pin(parts.map(|bytes| Ok(BackupResponse { bytes }))))
}
