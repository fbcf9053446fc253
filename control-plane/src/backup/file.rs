//! The file of a backup: writing it part by part, reading it back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Take};
use std::path::Path;
use std::time::Duration;

use gantry_control_state::State;
use gantry_model::Secret;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::vault::{BackupKey, BackupRecipient, BackupSeal, CryptoError, SealedBackupKey};

const MAGIC: &str = "gantry backup 1\n";
/// Content of one part.
const PART_BYTES: usize = 64 * 1024;
/// A sealed part: nonce and tag besides.
const SEALED_PART_BYTES_MAX: usize = PART_BYTES + 64;
/// The head names a cluster and two keys.
const HEAD_BYTES_MAX: u64 = 4096;
const ROOT_BYTES: usize = 32;
const DIGEST_BYTES: u64 = 32;
/// How long a reader may take for the next part: one that takes longer has gone, and its room is another's.
const READER_TIMEOUT: Duration = Duration::from_secs(60);
/// No entry is longer; see `store/record.rs`.
const ENTRY_BYTES_MAX: u32 = 16 * 1024 * 1024;
const END: u32 = u32::MAX;
/// Parts on their way to one reader.
pub(crate) const PARTS_MAX: usize = 4;

/// A piece of the file.
type Part = Vec<u8>;

/// What anybody can read of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupFacts {
    /// The cluster.
    pub cluster: String,
    /// The newest revision in it.
    pub revision: u64,
    /// When it was made, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// Whose key opens it.
    pub recipient: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    facts: BackupFacts,
    encapsulated_key: String,
    sealed_key: String,
}

/// What a backup holds.
pub(super) struct Content {
    pub(super) facts: BackupFacts,
    pub(super) root: Secret<Vec<u8>>,
    pub(super) entries: Vec<(String, Vec<u8>)>,
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is no backup that this build knows")]
    Format,
    /// It is not what was written.
    #[error("it is damaged or cut short: {0}")]
    Damaged(&'static str),
    /// It is for another key.
    #[error("it was made for {recipient}, and this is the key of {given}")]
    OtherKey {
        /// Whom it was made for.
        recipient: String,
        /// Whose key was given.
        given: String,
    },
}

/// Why a backup cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// No randomness.
    #[error("the backup cannot be sealed")]
    Crypto(#[from] CryptoError),
    /// The reader went away.
    #[error("its reader has left, or took nothing for {} s", READER_TIMEOUT.as_secs())]
    Gone,
}

/// Writes a backup as parts of a file. Blocks, for a thread of the runtime's that may.
pub(crate) fn write(
    state: &State,
    root: &Secret<Vec<u8>>,
    recipient: &BackupRecipient,
    facts: BackupFacts,
    parts: &mpsc::Sender<Part>,
) -> Result<(), WriteError> {
    let (seal, key) = BackupSeal::new(recipient, binding(&facts))?;
    let head = Head {
        facts,
        encapsulated_key: hex::encode(&key.encapsulated),
        sealed_key: hex::encode(&key.sealed),
    };
    let head = serde_json::to_string(&head).map_err(|_| CryptoError)?;
    let (runtime, hasher) = (Handle::current(), blake3::Hasher::new());
    let mut writer = Writer { seal, parts, runtime, hasher, number: 0, content: Vec::new() };
    writer.send(format!("{MAGIC}{head}\n").into_bytes())?;
    writer.put(root.expose())?;
    let mut count = 0_u64;
    for (key, value) in state.entries() {
        writer.put(&(key.len() as u32).to_le_bytes())?;
        writer.put(&(value.len() as u32).to_le_bytes())?;
        writer.put(key.as_bytes())?;
        writer.put(&value)?;
        count += 1;
    }
    writer.put(&END.to_le_bytes())?;
    writer.put(&count.to_le_bytes())?;
    writer.end()
}

struct Writer<'a> {
    seal: BackupSeal,
    parts: &'a mpsc::Sender<Part>,
    runtime: Handle,
    hasher: blake3::Hasher,
    number: u64,
    content: Vec<u8>,
}

impl Writer<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            if self.content.len() == PART_BYTES {
                self.seal(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.content.len()));
            self.content.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn seal(&mut self, is_last: bool) -> Result<(), WriteError> {
        // The first one holds the root key.
        let content = Secret::new(std::mem::take(&mut self.content));
        let sealed = self.seal.seal(self.number, is_last, &content)?;
        self.number += 1;
        self.send([&(sealed.len() as u32).to_le_bytes(), &sealed[..]].concat())
    }

    fn end(mut self) -> Result<(), WriteError> {
        self.seal(true)?;
        self.send(0_u32.to_le_bytes().to_vec())?;
        let digest = self.hasher.finalize().as_bytes().to_vec();
        self.hand_over(digest)
    }

    fn send(&mut self, bytes: Vec<u8>) -> Result<(), WriteError> {
        self.hasher.update(&bytes);
        self.hand_over(bytes)
    }

    fn hand_over(&self, bytes: Vec<u8>) -> Result<(), WriteError> {
        self.runtime.block_on(self.parts.send_timeout(bytes, READER_TIMEOUT)).map_err(|_| WriteError::Gone)
    }
}

/// Checks that a backup is whole, as far as that shows without its key; what anybody can read of it. Blocks.
pub fn check(path: &Path) -> Result<BackupFacts, FileError> {
    Ok(open(path)?.0.facts)
}

/// Reads a whole backup, checked to the last byte. Blocks.
pub(super) fn read(path: &Path, key: &BackupKey) -> Result<Content, FileError> {
    let (Head { facts, encapsulated_key, sealed_key }, mut file) = open(path)?;
    let given = key.recipient().to_string();
    if given != facts.recipient {
        return Err(FileError::OtherKey { recipient: facts.recipient, given });
    }
    let damaged = |what| move || FileError::Damaged(what);
    let (encapsulated, sealed) =
        hex::decode(&encapsulated_key).ok().zip(hex::decode(&sealed_key).ok()).ok_or(FileError::Format)?;
    let sealed = SealedBackupKey { encapsulated, sealed };
    let seal =
        key.open(binding(&facts), &sealed).map_err(|_| FileError::Damaged("its head is not its own"))?;
    let content = read_parts(&mut file, &seal)?;
    let (root, rest) = content.expose().split_at_checked(ROOT_BYTES).ok_or_else(damaged("it is empty"))?;
    let entries = entries(rest).ok_or_else(damaged("its entries do not add up"))?;
    Ok(Content { facts, root: Secret::new(root.to_vec()), entries })
}

/// The head of a file whose digest fits, and the rest of it.
fn open(path: &Path) -> Result<(Head, Take<BufReader<File>>), FileError> {
    let mut file = File::open(path)?;
    let length = check_digest(&mut file)?;
    file.rewind()?;
    let mut file = BufReader::new(file).take(length - DIGEST_BYTES);
    let head = read_head(&mut file)?;
    Ok((head, file))
}

/// Checks that the file ends with the digest of the rest; its length.
fn check_digest(file: &mut File) -> Result<u64, FileError> {
    let length = file.metadata()?.len();
    let mut magic = Vec::new();
    (&mut *file).take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    if magic != MAGIC.as_bytes() {
        return Err(FileError::Format);
    }
    file.rewind()?;
    let covered = length.checked_sub(DIGEST_BYTES).ok_or(FileError::Damaged("it is too short"))?;
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut (&mut *file).take(covered), &mut hasher)?;
    let mut stored = Vec::new();
    file.take(DIGEST_BYTES).read_to_end(&mut stored)?;
    if stored != hasher.finalize().as_bytes() {
        return Err(FileError::Damaged("its digest does not match"));
    }
    Ok(length)
}

fn read_head(file: &mut impl BufRead) -> Result<Head, FileError> {
    let mut line = Vec::new();
    file.read_exact(&mut [0; MAGIC.len()])?;
    file.take(HEAD_BYTES_MAX).read_until(b'\n', &mut line)?;
    serde_json::from_slice(&line).map_err(|_| FileError::Format)
}

fn read_parts(file: &mut impl Read, seal: &BackupSeal) -> Result<Secret<Vec<u8>>, FileError> {
    const SHORT: FileError = FileError::Damaged("its end is missing");
    let mut content = Vec::new();
    let mut number = 0;
    let mut length = read_number(file)?;
    while length != 0 {
        if length as usize > SEALED_PART_BYTES_MAX {
            return Err(FileError::Damaged("a part is longer than any may be"));
        }
        let mut part = vec![0; length as usize];
        file.read_exact(&mut part).map_err(|_| SHORT)?;
        length = read_number(file)?;
        let opened = seal.open(number, length == 0, &part);
        content.extend_from_slice(opened.map_err(|_| FileError::Damaged("a part does not open"))?.expose());
        number += 1;
    }
    if file.read(&mut [0])? > 0 {
        return Err(FileError::Damaged("it goes on after its end"));
    }
    Ok(Secret::new(content))
}

fn read_number(file: &mut impl Read) -> Result<u32, FileError> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes).map_err(|_| FileError::Damaged("its end is missing"))?;
    Ok(u32::from_le_bytes(bytes))
}

fn entries(mut rest: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut entries = Vec::new();
    loop {
        let key_length = take_number(&mut rest)?;
        if key_length == END {
            break;
        }
        let value_length = take_number(&mut rest)?;
        if key_length.max(value_length) > ENTRY_BYTES_MAX {
            return None;
        }
        let (key, after) = rest.split_at_checked(key_length as usize)?;
        let (value, after) = after.split_at_checked(value_length as usize)?;
        entries.push((std::str::from_utf8(key).ok()?.to_owned(), value.to_vec()));
        rest = after;
    }
    (rest == (entries.len() as u64).to_le_bytes()).then_some(entries)
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*number))
}

/// What a backup's key and parts are bound to.
fn binding(facts: &BackupFacts) -> String {
    let BackupFacts { cluster, revision, made_at_ms, recipient } = facts;
    format!("{cluster}|{revision}|{made_at_ms}|{recipient}")
}
