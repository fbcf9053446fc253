//! A checkpoint's file on its way between members: a head, then its bytes in order, each part with its checksum.
//!
//! Always holds: what [`receive`] has written is, byte for byte, what [`send`] read, or it is an error. What the bytes
//! mean is checked where they are installed, by the file's own digest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use gantry_wire::raft_v1::{CheckpointData, CheckpointHead, CheckpointPart, checkpoint_part};
use thiserror::Error;
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// Bytes of the file in one part.
const PART_BYTES: usize = 256 * 1024;
/// Longest checkpoint that is taken. The state of 10,000 tenants is a tenth of it.
const CHECKPOINT_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// Why a checkpoint did not come over.
#[derive(Debug, Error)]
pub(super) enum TransferError {
    /// The file system refused.
    #[error("a checkpoint cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// The other side went away.
    #[error("the other side ended the transfer")]
    Gone,
    /// What came is not what was announced.
    #[error("the checkpoint did not come as it was sent: {0}")]
    Damaged(&'static str),
}

/// Sends the file; blocks.
pub(super) fn send(
    file: &Path,
    head: CheckpointHead,
    parts: &mpsc::Sender<CheckpointPart>,
) -> Result<(), TransferError> {
    let mut file = File::open(file)?;
    let bytes = file.metadata()?.len();
    let put = |part| {
        let part = CheckpointPart { part: Some(part) };
        parts.blocking_send(part).map_err(|_| TransferError::Gone)
    };
    put(checkpoint_part::Part::Head(CheckpointHead { bytes, ..head }))?;
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(PART_BYTES, |left| left.min(PART_BYTES));
        let mut part = vec![0; length];
        file.read_exact(&mut part)?;
        let crc32c = crc32c::crc32c(&part);
        put(checkpoint_part::Part::Data(CheckpointData { bytes: Bytes::from(part), crc32c }))?;
        left -= length as u64;
    }
    Ok(())
}

/// Writes what comes to the file, and gives the head.
pub(super) async fn receive(
    mut parts: impl Stream<Item = Result<CheckpointPart, Status>> + Unpin,
    file: &Path,
) -> Result<CheckpointHead, TransferError> {
    use checkpoint_part::Part;
    let first = parts.next().await.ok_or(TransferError::Gone)?.map_err(|_| TransferError::Gone)?;
    let Some(Part::Head(head)) = first.part else {
        return Err(TransferError::Damaged("it does not begin with a head"));
    };
    if head.bytes > CHECKPOINT_BYTES_MAX {
        return Err(TransferError::Damaged("it is longer than any checkpoint may be"));
    }
    let mut file = fs::File::create(file).await?;
    let mut left = head.bytes;
    while let Some(part) = parts.next().await {
        let Some(Part::Data(data)) = part.map_err(|_| TransferError::Gone)?.part else {
            return Err(TransferError::Damaged("a part of it is no data"));
        };
        if crc32c::crc32c(&data.bytes) != data.crc32c {
            return Err(TransferError::Damaged("a part's checksum does not match"));
        }
        left = left.checked_sub(data.bytes.len() as u64).ok_or(TransferError::Damaged("it is too long"))?;
        file.write_all(&data.bytes).await?;
    }
    if left > 0 {
        return Err(TransferError::Damaged("its end is missing"));
    }
    file.flush().await?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(bytes: &[u8]) -> Vec<CheckpointPart> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("sent");
        std::fs::write(&file, bytes).expect("write");
        let (parts, mut receiver) = mpsc::channel(1);
        let head = CheckpointHead { from: 1, to: 2, ..CheckpointHead::default() };
        let sending = tokio::task::spawn_blocking(move || send(&file, head, &parts));
        let mut all = Vec::new();
        while let Some(part) = receiver.recv().await {
            all.push(part);
        }
        sending.await.expect("task").expect("sent");
        all
    }

    async fn received(parts: Vec<CheckpointPart>) -> Result<Vec<u8>, String> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("received");
        let parts = tokio_stream::iter(parts.into_iter().map(Ok));
        let head = receive(parts, &file).await.map_err(|error| error.to_string())?;
        assert_eq!((head.from, head.to), (1, 2));
        Ok(std::fs::read(file).expect("read"))
    }

    #[tokio::test]
    async fn a_file_of_any_length_comes_over_whole() {
        for length in [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            assert_eq!(received(sent(&bytes).await).await, Ok(bytes), "{length}");
        }
    }

    #[tokio::test]
    async fn what_did_not_come_as_it_was_sent_is_refused() {
        let bytes = vec![7; 2 * PART_BYTES];
        let whole = sent(&bytes).await;
        let refused = |reason: &str| Err(format!("the checkpoint did not come as it was sent: {reason}"));
        let mut flipped = whole.clone();
        if let Some(checkpoint_part::Part::Data(data)) = &mut flipped[1].part {
            data.bytes = vec![8; data.bytes.len()].into();
        }
        assert_eq!(received(flipped).await, refused("a part's checksum does not match"));
        assert_eq!(received(whole[..2].to_vec()).await, refused("its end is missing"));
        let longer = [whole.clone(), vec![whole[1].clone()]].concat();
        assert_eq!(received(longer).await, refused("it is too long"));
        assert_eq!(received(whole[1..].to_vec()).await, refused("it does not begin with a head"));
    }
}
