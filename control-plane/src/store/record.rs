//! How a byte string becomes values that sled may hold, and how it is read back.
//!
//! A record is cut into parts, so that no value is longer than [`VALUE_BYTES_MAX`]:
//!
//! ```text
//! key of a part     prefix | part u16 BE
//! value of a part   version u8 | crc32c u32 LE of (version, key, payload) | payload
//! payload of part 0 length of the record u32 LE | crc32c u32 LE of the record | its first bytes
//! later payloads    the next bytes
//! ```
//!
//! What always holds: every part but the last is full; a record reads back whole and unchanged, or as [`Damage`].
//! The checksum covers the key, so a value under the wrong key is damage too. [`Damage::Torn`] alone can be
//! the work of a crash: the first parts are sound and the rest was never written.
//!
//! This file knows no tree and no sled.

use thiserror::Error;

/// The longest value, framing included. Larger values make sled write a file of its own that it never syncs.
pub(super) const VALUE_BYTES_MAX: usize = 4096;

/// The longest record. A command is at most 5 MiB and a state entry 4 MiB; the rest is room for their framing.
pub(super) const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that follow the prefix in the key of a part.
pub(super) const PART_KEY_BYTES: usize = 2;

const FRAME_VERSION: u8 = 1;
const FRAME_BYTES: usize = 5;
const HEAD_BYTES: usize = 8;
const PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX - FRAME_BYTES;

const _: () = assert!(RECORD_BYTES_MAX / (PAYLOAD_BYTES_MAX - HEAD_BYTES) < u16::MAX as usize);

/// What is wrong with a value or a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Damage {
    /// The value is shorter than its own framing.
    #[error("{0} bytes are too few for a value")]
    Short(usize),
    /// A newer build wrote it, or it is not ours.
    #[error("value has version {0}, this build reads {FRAME_VERSION}")]
    Version(u8),
    /// The bytes are not the ones that were written.
    #[error("checksum does not match")]
    Checksum,
    /// A part in the middle is not there.
    #[error("part {expected} is missing, part {found} is there")]
    Missing {
        /// The part that should come next.
        expected: u16,
        /// The part that does.
        found: u16,
    },
    /// The first parts are sound, the last ones are not there.
    #[error("{have} of {want} bytes are there")]
    Torn {
        /// Bytes found.
        have: usize,
        /// Bytes that the record had.
        want: usize,
    },
    /// More bytes than the record had.
    #[error("{have} bytes are there, the record has {want}")]
    Long {
        /// Bytes found.
        have: usize,
        /// Bytes that the record had.
        want: usize,
    },
    /// The content does not follow the layout of its tree.
    #[error("layout is not known")]
    Layout,
}

/// What part 0 says of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) checksum: u32,
}

impl Head {
    /// The head that `content` gets.
    pub(super) fn of(content: &[u8]) -> Self {
        debug_assert!(content.len() <= RECORD_BYTES_MAX, "callers check the length of a record");
        Self { length: content.len() as u32, checksum: crc32c::crc32c(content) }
    }
}

/// Puts one short payload into the frame of a value that belongs under `key`.
pub(super) fn frame(key: &[u8], payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX, "callers check the length of a payload");
    let mut value = Vec::with_capacity(FRAME_BYTES + payload.len());
    value.push(FRAME_VERSION);
    value.extend_from_slice(&checksum(key, payload).to_le_bytes());
    value.extend_from_slice(payload);
    value
}

/// Whether [`frame`] may be given a payload of this length.
pub(super) fn fits_one_value(payload: &[u8]) -> bool {
    payload.len() <= PAYLOAD_BYTES_MAX
}

/// Checks the frame of the value found under `key` and returns its payload.
pub(super) fn unframe<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Damage> {
    let Some((frame, payload)) = value.split_first_chunk::<FRAME_BYTES>() else {
        return Err(Damage::Short(value.len()));
    };
    let [version, a, b, c, d] = *frame;
    if version != FRAME_VERSION {
        return Err(Damage::Version(version));
    }
    if u32::from_le_bytes([a, b, c, d]) != checksum(key, payload) {
        return Err(Damage::Checksum);
    }
    Ok(payload)
}

/// Cuts `content` into the keys and values of its parts, first part first.
pub(super) fn parts(prefix: &[u8], content: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let head = Head::of(content);
    let mut first = Vec::with_capacity(PAYLOAD_BYTES_MAX.min(HEAD_BYTES + content.len()));
    first.extend_from_slice(&head.length.to_le_bytes());
    first.extend_from_slice(&head.checksum.to_le_bytes());
    let (begin, rest) = content.split_at(content.len().min(PAYLOAD_BYTES_MAX - HEAD_BYTES));
    first.extend_from_slice(begin);
    std::iter::once(first.as_slice())
        .chain(rest.chunks(PAYLOAD_BYTES_MAX))
        .zip(0u16..)
        .map(|(payload, part)| {
            let key = part_key(prefix, part);
            let value = frame(&key, payload);
            (key, value)
        })
        .collect()
}

/// Splits the key of a part into its prefix and the part's number; `None` when it is too short to be one.
pub(super) fn split_part_key(key: &[u8]) -> Option<(&[u8], u16)> {
    let (prefix, part) = key.split_last_chunk::<PART_KEY_BYTES>()?;
    Some((prefix, u16::from_be_bytes(*part)))
}

/// Puts a record together again from all the keys and values under its prefix, in the order of their keys.
pub(super) fn assemble<Bytes: AsRef<[u8]>>(found: &[(Bytes, Bytes)]) -> Result<Vec<u8>, Damage> {
    let mut head = Head { length: 0, checksum: 0 };
    let mut content = Vec::new();
    for ((key, value), expected) in found.iter().zip(0u16..) {
        let (_, part) = split_part_key(key.as_ref()).ok_or(Damage::Layout)?;
        if part != expected {
            return Err(Damage::Missing { expected, found: part });
        }
        let payload = unframe(key.as_ref(), value.as_ref())?;
        if part == 0 {
            let (read, begin) = split_head(payload)?;
            head = read;
            content.reserve(head.length as usize);
            content.extend_from_slice(begin);
        } else {
            content.extend_from_slice(payload);
        }
    }
    let (have, want) = (content.len(), head.length as usize);
    match have.cmp(&want) {
        std::cmp::Ordering::Less => Err(Damage::Torn { have, want }),
        std::cmp::Ordering::Greater => Err(Damage::Long { have, want }),
        std::cmp::Ordering::Equal if crc32c::crc32c(&content) != head.checksum => Err(Damage::Checksum),
        std::cmp::Ordering::Equal => Ok(content),
    }
}

fn split_head(payload: &[u8]) -> Result<(Head, &[u8]), Damage> {
    let Some((head, begin)) = payload.split_first_chunk::<HEAD_BYTES>() else {
        return Err(Damage::Short(payload.len()));
    };
    let [a, b, c, d, e, f, g, h] = *head;
    let head = Head { length: u32::from_le_bytes([a, b, c, d]), checksum: u32::from_le_bytes([e, f, g, h]) };
    if head.length as usize > RECORD_BYTES_MAX {
        return Err(Damage::Layout);
    }
    Ok((head, begin))
}

fn part_key(prefix: &[u8], part: u16) -> Vec<u8> {
    [prefix, &part.to_be_bytes()].concat()
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(u32::from(FRAME_VERSION), key);
    crc32c::crc32c_append(crc, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    #[test]
    fn records_of_every_awkward_length_read_back_unchanged() {
        let first = PAYLOAD_BYTES_MAX - HEAD_BYTES;
        for length in
            [0, 1, first - 1, first, first + 1, first + PAYLOAD_BYTES_MAX, 1_000_000, RECORD_BYTES_MAX]
        {
            let content = record(length);
            let found = parts(b"prefix", &content);
            assert!(found.iter().all(|(_, value)| value.len() <= VALUE_BYTES_MAX));
            assert_eq!(assemble(&found), Ok(content));
        }
    }

    #[test]
    fn a_record_without_its_last_parts_is_torn_and_without_another_part_is_damaged() {
        let found = parts(b"p", &record(20_000));
        assert_eq!(found.len(), 5);
        for kept in 1..found.len() {
            assert!(matches!(assemble(&found[..kept]), Err(Damage::Torn { want: 20_000, .. })));
        }
        let mut hole = found.clone();
        hole.remove(2);
        assert_eq!(assemble(&hole), Err(Damage::Missing { expected: 2, found: 3 }));
        assert_eq!(assemble(&found[1..]), Err(Damage::Missing { expected: 0, found: 1 }));
    }

    #[test]
    fn a_value_under_another_key_is_damage() {
        let value = frame(b"one", b"payload");
        assert_eq!(unframe(b"one", &value), Ok(&b"payload"[..]));
        assert_eq!(unframe(b"two", &value), Err(Damage::Checksum));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_reads_as_content(length in 0usize..10_000, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let content = record(length);
            let mut found = parts(b"prefix", &content);
            let bytes: usize = found.iter().map(|(_, value)| value.len()).sum();
            let mut at = at.index(bytes);
            for (_, value) in &mut found {
                if at < value.len() {
                    value[at] ^= 1 << bit;
                    break;
                }
                at -= value.len();
            }
            prop_assert!(assemble(&found).is_err());
        }
    }
}
