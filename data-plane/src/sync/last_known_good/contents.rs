//! What stands in a last-known-good file: its head, then records, secrets and keys, each an item of its own.
//!
//! Always holds: what is written is read back as it was; an item is at most [`ITEM_BYTES_MAX`] bytes, and one that
//! says more is refused before memory is taken for it. Secrets are copied from guarded memory to the sealing buffer
//! and back, and stand nowhere else.

use std::io::{self, BufRead, Write};

use gantry_model::{CredentialName, Revision, Secret, TenantName};
use gantry_wire::sync_v1 as wire;
use prost::Message;

use super::sealed::{OpenError, SealedReader, SealedWriter};
use crate::config::image::{Image, Kept};

/// Most bytes of an item: more than the longest message that brings one to a node.
const ITEM_BYTES_MAX: usize = 2 * gantry_wire::MESSAGE_BYTES_MAX;

/// What an item is. The numbers are the file's.
const HEAD: u8 = 1;
const RECORD: u8 = 2;
/// Whose the next item is.
const SECRET_ID: u8 = 3;
const SECRET: u8 = 4;
const NODE_KEYS: u8 = 5;

/// Why the contents of a file are of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was sealed by this node and is still not well formed: another build wrote it.
    #[error("{0} in it is not well formed")]
    Form(&'static str),
}

/// What a file says, and when its writer had last heard from a control plane, in milliseconds since 1970.
pub(super) struct Read {
    pub(super) kept: Kept,
    pub(super) heard_at_ms: u64,
}

/// Writes everything.
pub(super) fn write<W: Write>(into: &mut SealedWriter<W>, image: &Image, heard_at_ms: u64) -> io::Result<()> {
    let head = wire::Kept {
        cluster_id: image.cluster_id.clone(),
        revision: image.revision.0,
        digest: image.digest.to_bytes().to_vec(),
        heard_at_ms,
    };
    item(into, HEAD, &head.encode_to_vec())?;
    item(into, NODE_KEYS, image.node_keys.expose())?;
    for record in image.records() {
        item(into, RECORD, record)?;
    }
    for (tenant, credential, secret) in image.secrets() {
        let id = wire::SecretId { tenant: tenant.to_string(), credential: credential.to_string() };
        item(into, SECRET_ID, &id.encode_to_vec())?;
        item(into, SECRET, secret.expose())?;
    }
    Ok(())
}

/// Reads everything, to the end.
pub(super) fn read<R: BufRead>(from: &mut SealedReader<R>) -> Result<Read, ReadError> {
    let (HEAD, head) = next(from)? else { return Err(ReadError::Form("the head")) };
    let head = wire::Kept::decode(head.expose().as_slice()).map_err(|_| ReadError::Form("the head"))?;
    let (NODE_KEYS, node_keys) = next(from)? else { return Err(ReadError::Form("the node keys")) };
    let mut kept = Kept {
        cluster_id: head.cluster_id,
        revision: Revision(head.revision),
        digest: head.digest,
        records: Vec::new(),
        secrets: Vec::new(),
        node_keys,
    };
    while !from.is_at_end()? {
        match next(from)? {
            (RECORD, record) => kept.records.push(record.expose().clone().into()),
            (SECRET_ID, id) => {
                let (tenant, credential) = secret_id(id.expose())?;
                let (SECRET, secret) = next(from)? else { return Err(ReadError::Form("a secret")) };
                kept.secrets.push((tenant, credential, secret));
            }
            _ => return Err(ReadError::Form("an item")),
        }
    }
    Ok(Read { kept, heard_at_ms: head.heard_at_ms })
}

fn item<W: Write>(into: &mut SealedWriter<W>, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= ITEM_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
    into.write_all(&[kind])?;
    into.write_all(&length.to_be_bytes())?;
    into.write_all(bytes)
}

fn next<R: BufRead>(from: &mut SealedReader<R>) -> Result<(u8, Secret<Vec<u8>>), ReadError> {
    let (mut kind, mut length) = ([0], [0; 4]);
    from.read_exact(&mut kind)?;
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok().filter(|length| *length <= ITEM_BYTES_MAX);
    let mut bytes = vec![0; length.ok_or(ReadError::Form("the length of an item"))?];
    let read = from.read_exact(&mut bytes);
    // Under guard before anything can go wrong with it.
    let bytes = Secret::new(bytes);
    read?;
    Ok((kind[0], bytes))
}

fn secret_id(encoded: &[u8]) -> Result<(TenantName, CredentialName), ReadError> {
    let bad = || ReadError::Form("a secret's id");
    let id = wire::SecretId::decode(encoded).map_err(|_| bad())?;
    Ok((id.tenant.parse().map_err(|_| bad())?, id.credential.parse().map_err(|_| bad())?))
}
