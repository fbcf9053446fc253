//! Answers in gzip, of texts that are compressed once: one member (RFC 1952) whose middle is the same in all answers.
//!
//! Always holds: an answer is one member of one stream, because common clients stop after the first member. What is an
//! answer's own, such as the id that the client chose, stands in stored blocks and is never compressed together with
//! the text; so the length of an answer says nothing of what both have in common (BREACH). For the same reason nothing
//! else is compressed here: the result of a call holds what its caller chose beside what it may not know. It does not
//! decompress.

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};
use http::header::{ACCEPT_ENCODING, HeaderMap};

/// Most bytes of a text that is compressed. It takes some 15 us a KiB, for which whoever asks first keeps a thread.
const TEXT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How hard to try, of 9: the bytes that more would save are not worth the time after every change.
const LEVEL: u32 = 4;
/// Most bytes of one stored block (RFC 1951, section 3.2.4).
const STORED_BYTES_MAX: usize = u16::MAX as usize;
/// Deflate, no name, no time, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// How a flush ends: an empty stored block, so what follows begins at a byte.
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];
/// A weight of 1, in thousandths.
const WEIGHT_MAX: u16 = 1_000;

/// A compressed text, which has no end yet.
pub(crate) struct Packed {
    /// None of them is the stream's last.
    blocks: Bytes,
    check: Hasher,
}

impl Packed {
    /// Compresses a text; `None` where that is not worth it.
    pub(crate) fn of(text: &[u8]) -> Option<Packed> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        // One that does not fit in its own length did not become smaller.
        let mut blocks = Vec::with_capacity(text.len());
        let mut compress = Compress::new(Compression::new(LEVEL), false);
        let status = compress.compress_vec(text, &mut blocks, FlushCompress::Sync).ok()?;
        let is_whole = status == Status::Ok
            && compress.total_in() == text.len() as u64
            && blocks.len() < blocks.capacity()
            && blocks.ends_with(&FLUSHED);
        if !is_whole {
            return None;
        }
        blocks.shrink_to_fit();
        let mut check = Hasher::new();
        check.update(text);
        Some(Packed { blocks: blocks.into(), check })
    }

    /// The text between two others, in gzip.
    pub(crate) fn between(&self, head: &[u8], tail: &[u8]) -> Vec<Bytes> {
        let mut check = Hasher::new();
        check.update(head);
        check.combine(&self.check);
        check.update(tail);
        let mut before = HEADER.to_vec();
        store(&mut before, head, false);
        let mut after = Vec::new();
        store(&mut after, tail, true);
        // By RFC 1952 the length is one modulo 2^32.
        let length = check.total_len() as u32;
        after.extend_from_slice(&check.finalize().to_le_bytes());
        after.extend_from_slice(&length.to_le_bytes());
        vec![before.into(), self.blocks.clone(), after.into()]
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }
}

/// Whether a client takes gzip, and likes it no less than the text as it is (RFC 9110, section 12.5.3).
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut others) = (None, None, None);
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for element in values.flat_map(|value| value.split(',')) {
        let (coding, parameters) = element.split_once(';').unwrap_or((element, ""));
        let coding = coding.trim();
        let weight = Some(weight(parameters));
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            gzip = weight;
        } else if coding.eq_ignore_ascii_case("identity") {
            identity = weight;
        } else if coding == "*" {
            others = weight;
        }
    }
    let gzip = gzip.or(others).unwrap_or(0);
    gzip > 0 && identity.is_none_or(|identity| gzip >= identity)
}

/// The weight among the parameters of a coding, in thousandths; one that cannot be read refuses.
fn weight(parameters: &str) -> u16 {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return WEIGHT_MAX;
    }
    let value = parameters.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
    let Some((_, value)) = value else { return 0 };
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().unwrap_or(0);
    match (whole, thousandths) {
        ("0", thousandths) => thousandths,
        ("1", 0) => WEIGHT_MAX,
        _ => 0,
    }
}

/// Appends stored blocks.
fn store(stream: &mut Vec<u8>, text: &[u8], is_last: bool) {
    let mut blocks = text.chunks(STORED_BYTES_MAX).peekable();
    if blocks.peek().is_none() && is_last {
        stream.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    stream.reserve(text.len() + 16);
    while let Some(block) = blocks.next() {
        let is_end = is_last && blocks.peek().is_none();
        // INVARIANT: a block has at most u16::MAX bytes.
        let length = block.len() as u16;
        stream.push(u8::from(is_end));
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(block);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};
    use std::io::Read;

    use flate2::bufread::GzDecoder;
    use http::HeaderValue;

    use super::*;

    /// What one member holds; an error where anything follows it.
    fn unpack(pieces: &[Bytes]) -> Result<Vec<u8>, String> {
        let stream = pieces.concat();
        let mut decoder = GzDecoder::new(stream.as_slice());
        let mut text = Vec::new();
        decoder.read_to_end(&mut text).map_err(|error| error.to_string())?;
        match decoder.into_inner() {
            [] => Ok(text),
            rest => Err(format!("{} bytes follow", rest.len())),
        }
    }

    fn definitions(count: usize) -> String {
        (0..count)
            .map(|number| format!(r#"{{"name":"tool_{number}","description":"does {number}"}},"#))
            .collect()
    }

    #[test]
    fn an_answer_is_the_text_between_what_is_its_own_whatever_its_size() {
        let text = definitions(2_000);
        let packed = Packed::of(text.as_bytes()).expect("it becomes smaller");
        assert!(packed.len() * 4 < text.len(), "{} of {}", packed.len(), text.len());
        let seed = RandomState::new().hash_one(0);
        println!("seed {seed}");
        let mut state = seed | 1;
        let mut next = move |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap_or(0) % bound
        };
        let edges = [0, 1, 2, 65_534, 65_535, 65_536, 131_070, 131_071, 4 << 20];
        let random: Vec<usize> =
            (0..40).map(|turn| next(if turn % 2 == 0 { 300 } else { 300_000 })).collect();
        for length in edges.into_iter().chain(random) {
            let own: Vec<u8> = (0..length).map(|_| next(256) as u8).collect();
            for (head, tail) in
                [(own.as_slice(), &b"}"[..]), (&b"{"[..], own.as_slice()), (own.as_slice(), own.as_slice())]
            {
                let expected = [head, text.as_bytes(), tail].concat();
                let unpacked = unpack(&packed.between(head, tail));
                assert!(
                    unpacked.as_ref() == Ok(&expected),
                    "seed {seed}, {length} bytes: {:?}",
                    unpacked.err()
                );
            }
        }
    }

    #[test]
    fn the_length_of_an_answer_says_nothing_of_what_its_own_part_shares_with_the_text() {
        let text = definitions(100);
        let packed = Packed::of(text.as_bytes()).expect("it becomes smaller");
        let length = |head: &str| packed.between(head.as_bytes(), b"}").concat().len();
        assert_eq!(length(r#""tool_17","does 17""#), length(r#""zqvx_fj","wkbp ju""#));
    }

    #[test]
    fn a_text_that_does_not_become_smaller_is_left_as_it_is() {
        assert!(Packed::of(b"").is_none());
        assert!(Packed::of(b"{}").is_none());
        assert!(Packed::of(&vec![b' '; TEXT_BYTES_MAX + 1]).is_none());
        assert!(Packed::of(&vec![b' '; TEXT_BYTES_MAX]).is_some());
    }

    #[test]
    fn gzip_is_for_clients_that_say_so() {
        for (said, expected) in [
            (&["gzip, deflate"][..], true),
            (&["gzip, deflate, br, zstd"], true),
            (&["br, gzip;q=0.5"], true),
            (&["deflate", "GZIP"], true),
            (&["x-gzip"], true),
            (&["*"], true),
            (&["identity;q=0.5, *;q=0.6"], true),
            (&["gzip;q=1.000, identity"], true),
            (&["gzip ; Q=0.001"], true),
            (&[], false),
            (&[""], false),
            (&["identity"], false),
            (&["br, deflate"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000, *"], false),
            (&["*;q=0"], false),
            (&["gzip;q=0.5, identity"], false),
            (&["gzip;q=x"], false),
            (&["gzip;q=0.0001"], false),
            (&["gzip;q=1.1"], false),
            (&["gzip;q=+1"], false),
            (&["gzip;level=1"], false),
            (&["gzipped"], false),
        ] {
            let headers = said.iter().map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value)));
            assert_eq!(is_accepted(&headers.collect()), expected, "{said:?}");
        }
    }
}
