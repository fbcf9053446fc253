//! The form of a last-known-good file: a header that can be read, and chunks that only the key opens.
//!
//! Always holds: nothing of the contents stands in the file unencrypted; each file has a key of its own, derived from
//! the node's key and the file's salt, so that a chunk's number is nonce enough. Header, number and whether a chunk is
//! the last are authenticated with each chunk (as in STREAM): a file that was cut, put together from others, or
//! changed anywhere does not open. The version stands before everything that may ever change. A reader hands out no
//! byte before it was authenticated, but hands out chunks before it saw the last: whoever reads to the end knows that
//! the file is whole.

use std::io::{self, BufRead, Write};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use zeroize::Zeroizing;

use super::key::Key;

/// What every such file begins with.
const MAGIC: [u8; 8] = *b"gantrykg";
/// The form that this build writes, and the newest that it reads.
const VERSION: u16 = 1;
const SALT_BYTES: usize = 32;
/// What comes before the salt: magic, version, content, a zero.
const PREFIX_BYTES: usize = MAGIC.len() + 4;
const HEADER_BYTES: usize = PREFIX_BYTES + SALT_BYTES;
/// Contents of a chunk in bytes: large enough that tags and calls cost nothing, small enough to stay in a cache. Every
/// chunk but the last is full.
const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;
/// Separates these keys from any other use of the node's key.
const INFO: &[u8] = b"gantry last-known-good v1";

/// What a file holds. One content does not open as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Content {
    /// What the node serves.
    Configuration = 1,
    /// When it last heard from a control plane.
    Heard = 2,
    /// Bans that came ahead of the configuration.
    Urgent = 3,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The disk.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// It begins otherwise.
    #[error("it is no last-known-good file")]
    Foreign,
    /// Of a later build.
    #[error("it is of version {0}, and this build reads up to {VERSION}")]
    Newer(u16),
    /// A chunk is not what was written.
    #[error("it is damaged, or was sealed with another key")]
    Damaged,
}

/// No file can be sealed.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no randomness")]
pub(super) struct NoSalt;

struct Cipher {
    key: LessSafeKey,
    header: [u8; HEADER_BYTES],
    /// The number of the next chunk.
    next: u32,
}

/// Seals what is written. Call [`SealedWriter::finish`]: without its last chunk, a file does not open.
pub(super) struct SealedWriter<W> {
    inner: W,
    cipher: Cipher,
    chunk: Zeroizing<Vec<u8>>,
}

/// Opens a file from its first byte to its last.
pub(super) struct SealedReader<R> {
    inner: R,
    cipher: Cipher,
    chunk: Zeroizing<Vec<u8>>,
    position: usize,
    ended: bool,
}

impl Cipher {
    fn new(key: &Key, header: [u8; HEADER_BYTES]) -> Option<Cipher> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &header[PREFIX_BYTES..]);
        let derived = salt.extract(key.expose());
        let derived = derived.expand(&[INFO], &AES_256_GCM).ok()?;
        Some(Cipher { key: LessSafeKey::new(UnboundKey::from(derived)), header, next: 0 })
    }

    /// Nonce and associated data of the next chunk. `None`: a file has no more of them.
    fn turn(&mut self, is_last: bool) -> Option<(Nonce, [u8; HEADER_BYTES + 5])> {
        let (number, last) = (self.next.to_be_bytes(), [u8::from(is_last)]);
        self.next = self.next.checked_add(1)?;
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 5..NONCE_LEN - 1].copy_from_slice(&number);
        nonce[NONCE_LEN - 1..].copy_from_slice(&last);
        let mut associated = [0; HEADER_BYTES + 5];
        associated[..HEADER_BYTES].copy_from_slice(&self.header);
        associated[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&number);
        associated[HEADER_BYTES + 4..].copy_from_slice(&last);
        Some((Nonce::assume_unique_for_key(nonce), associated))
    }
}

impl<W: Write> SealedWriter<W> {
    /// Begins a file.
    pub(super) fn new(mut inner: W, key: &Key, content: Content) -> io::Result<SealedWriter<W>> {
        let mut header = [0; HEADER_BYTES];
        header[..MAGIC.len()].copy_from_slice(&MAGIC);
        header[MAGIC.len()..MAGIC.len() + 2].copy_from_slice(&VERSION.to_be_bytes());
        header[MAGIC.len() + 2] = content as u8;
        rand::fill(&mut header[PREFIX_BYTES..]).map_err(|_| io::Error::other(NoSalt))?;
        let cipher = Cipher::new(key, header).ok_or_else(|| io::Error::other(NoSalt))?;
        inner.write_all(&header)?;
        let chunk = Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + TAG_BYTES));
        Ok(SealedWriter { inner, cipher, chunk })
    }

    /// Adds to the contents.
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // A full chunk is sealed only when something follows: the last one has to say that it is.
            if self.chunk.len() == CHUNK_BYTES {
                self.seal(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Ends the contents, and gives back what was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.inner)
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let sealed = self.cipher.turn(is_last).and_then(|(nonce, associated)| {
            self.cipher.key.seal_in_place_append_tag(nonce, Aad::from(associated), &mut *self.chunk).ok()
        });
        sealed.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.inner.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

impl<R: BufRead> SealedReader<R> {
    /// Reads the header.
    pub(super) fn new(mut inner: R, key: &Key, content: Content) -> Result<SealedReader<R>, OpenError> {
        let mut header = [0; HEADER_BYTES];
        let (prefix, rest) = header.split_at_mut(MAGIC.len() + 2);
        read_exact(&mut inner, prefix, OpenError::Foreign)?;
        if prefix[..MAGIC.len()] != MAGIC {
            return Err(OpenError::Foreign);
        }
        let version = u16::from_be_bytes([prefix[MAGIC.len()], prefix[MAGIC.len() + 1]]);
        match version {
            VERSION => {}
            0 => return Err(OpenError::Foreign),
            newer => return Err(OpenError::Newer(newer)),
        }
        read_exact(&mut inner, rest, OpenError::Damaged)?;
        if header[MAGIC.len() + 2] != content as u8 {
            return Err(OpenError::Foreign);
        }
        let cipher = Cipher::new(key, header).ok_or(OpenError::Damaged)?;
        let chunk = Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + TAG_BYTES));
        Ok(SealedReader { inner, cipher, chunk, position: 0, ended: false })
    }

    /// Whether all was read, and the file is whole.
    pub(super) fn is_at_end(&mut self) -> Result<bool, OpenError> {
        while self.position == self.chunk.len() && !self.ended {
            self.open()?;
        }
        Ok(self.position == self.chunk.len())
    }

    /// Reads so many bytes; that there are fewer means that the file is not what it says.
    pub(super) fn read_exact(&mut self, mut into: &mut [u8]) -> Result<(), OpenError> {
        while !into.is_empty() {
            if self.is_at_end()? {
                return Err(OpenError::Damaged);
            }
            let there = &self.chunk[self.position..];
            let count = there.len().min(into.len());
            let (now, later) = into.split_at_mut(count);
            now.copy_from_slice(&there[..count]);
            self.position += count;
            into = later;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), OpenError> {
        self.chunk.clear();
        self.position = 0;
        let mut missing = CHUNK_BYTES + TAG_BYTES;
        while missing > 0 {
            let there = self.inner.fill_buf().map_err(OpenError::Io)?;
            let count = there.len().min(missing);
            if count == 0 {
                break;
            }
            self.chunk.extend_from_slice(&there[..count]);
            self.inner.consume(count);
            missing -= count;
        }
        self.ended = self.inner.fill_buf().map_err(OpenError::Io)?.is_empty();
        let (nonce, associated) = self.cipher.turn(self.ended).ok_or(OpenError::Damaged)?;
        let opened = self.cipher.key.open_in_place(nonce, Aad::from(associated), &mut self.chunk);
        let length = opened.map_err(|_| OpenError::Damaged)?.len();
        self.chunk.truncate(length);
        Ok(())
    }
}

fn read_exact(from: &mut impl BufRead, into: &mut [u8], short: OpenError) -> Result<(), OpenError> {
    from.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => short,
        _ => OpenError::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &Key, contents: &[u8]) -> Vec<u8> {
        let mut writer = SealedWriter::new(Vec::new(), key, Content::Configuration).expect("a header");
        // In pieces that do not fit the chunks.
        for piece in contents.chunks(1_000) {
            writer.write_all(piece).expect("memory");
        }
        writer.finish().expect("memory")
    }

    fn opened(key: &Key, file: &[u8]) -> Result<Vec<u8>, String> {
        let open = || {
            let mut reader = SealedReader::new(file, key, Content::Configuration)?;
            let mut contents = Vec::new();
            while !reader.is_at_end()? {
                let mut byte = [0];
                reader.read_exact(&mut byte)?;
                contents.push(byte[0]);
            }
            Ok::<_, OpenError>(contents)
        };
        open().map_err(|error| error.to_string())
    }

    const DAMAGED: &str = "it is damaged, or was sealed with another key";

    #[test]
    fn contents_of_any_length_are_read_back() -> Result<(), Box<dyn std::error::Error>> {
        let key = Key::random()?;
        for length in
            [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]
        {
            let contents: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let file = sealed(&key, &contents);
            let tags = length.div_ceil(CHUNK_BYTES).max(1) * TAG_BYTES;
            assert_eq!(file.len(), HEADER_BYTES + length + tags, "of {length} bytes");
            assert_eq!(opened(&key, &file).as_deref(), Ok(contents.as_slice()), "of {length} bytes");
        }
        Ok(())
    }

    #[test]
    fn two_files_of_the_same_contents_have_nothing_in_common() -> Result<(), Box<dyn std::error::Error>> {
        let key = Key::random()?;
        let (first, second) = (sealed(&key, &[7; 64]), sealed(&key, &[7; 64]));
        let same = first[PREFIX_BYTES..]
            .windows(8)
            .filter(|window| second[PREFIX_BYTES..].windows(8).any(|other| other == *window));
        assert_eq!(same.count(), 0);
        Ok(())
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() -> Result<(), Box<dyn std::error::Error>> {
        let key = Key::random()?;
        let file = sealed(&key, &[7; CHUNK_BYTES + 100]);
        let last_chunk = HEADER_BYTES + CHUNK_BYTES + TAG_BYTES;
        let places = (0..HEADER_BYTES + 64).chain(last_chunk - 64..file.len());
        for at in places.chain((HEADER_BYTES..last_chunk).step_by(4_001)) {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            let expected = match at {
                // The version's high byte: 257. Its low byte: 0, which never was.
                8 => "it is of version 257, and this build reads up to 1",
                0..=7 | 9 | 10 => "it is no last-known-good file",
                _ => DAMAGED,
            };
            assert_eq!(opened(&key, &damaged), Err(expected.to_owned()), "at byte {at}");
        }
        Ok(())
    }

    #[test]
    fn a_file_that_was_cut_lengthened_or_put_together_anew_does_not_open()
    -> Result<(), Box<dyn std::error::Error>> {
        let key = Key::random()?;
        let file = sealed(&key, &[7; 3 * CHUNK_BYTES]);
        let chunk = CHUNK_BYTES + TAG_BYTES;
        let (header, chunks) = file.split_at(HEADER_BYTES);
        let parts: Vec<&[u8]> = chunks.chunks(chunk).collect();
        assert_eq!(parts.len(), 3);
        let other = sealed(&key, &[7; 3 * CHUNK_BYTES]);
        let of_other = &other[HEADER_BYTES..][..chunk];
        for (what, pieces) in [
            ("cut between chunks", vec![header, parts[0], parts[1]]),
            ("cut within a chunk", vec![header, parts[0], &parts[1][..100]]),
            ("cut after the header", vec![header]),
            ("lengthened", vec![header, parts[0], parts[1], parts[2], b"x"]),
            ("in another order", vec![header, parts[1], parts[0], parts[2]]),
            ("a chunk twice", vec![header, parts[0], parts[0], parts[1], parts[2]]),
            ("a chunk of another file", vec![header, of_other, parts[1], parts[2]]),
        ] {
            assert_eq!(opened(&key, &pieces.concat()), Err(DAMAGED.to_owned()), "{what}");
        }
        assert_eq!(opened(&key, &header[..5]), Err("it is no last-known-good file".to_owned()));
        assert_eq!(opened(&key, &header[..20]), Err(DAMAGED.to_owned()));
        Ok(())
    }

    #[test]
    fn another_key_opens_nothing() -> Result<(), Box<dyn std::error::Error>> {
        let file = sealed(&Key::random()?, b"hunter2");
        assert_eq!(opened(&Key::random()?, &file), Err(DAMAGED.to_owned()));
        Ok(())
    }
}
