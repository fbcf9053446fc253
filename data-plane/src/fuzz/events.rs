//! Event streams: where the bytes are cut makes no difference, and the limit holds.
//!
//! The other reader follows the specification line by line over the whole stream (HTML, "Interpreting an event
//! stream"), and knows the limit. Both leave out empty lines at the beginning of an event's data, and events that are
//! nothing else: no JSON begins in them.

use super::digest;
use super::mcp::sse::EventScanner;

/// Limits to try; the first byte of an input takes one.
const LIMITS: [usize; 4] = [9, 32, 256, 64 * 1024];

/// Most bytes of an event's name that are kept.
const NAME_BYTES_MAX: usize = 32;

/// Name and data of an event.
type Event = (Vec<u8>, Vec<u8>);

/// A byte that takes the limit, and a stream.
pub fn events(input: &[u8]) {
    let Some((choice, stream)) = input.split_first() else { return };
    let bytes_max = LIMITS[usize::from(*choice) % LIMITS.len()];
    let whole = scan([stream], bytes_max);
    assert_eq!(whole, reference(stream, bytes_max), "limit {bytes_max}");
    assert!(whole.iter().all(|(name, data)| name.len() <= NAME_BYTES_MAX && data.len() <= bytes_max));
    assert_eq!(scan(stream.chunks(1), bytes_max), whole, "byte by byte");
    let mut state = digest(input);
    let (mut pieces, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        // Constants of a linear congruential generator; short pieces, and empty ones, find more than long ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, behind) = rest.split_at(rest.len().min((state >> 16) % 9));
        pieces.push(piece);
        rest = behind;
    }
    assert_eq!(scan(pieces.iter().copied(), bytes_max), whole, "cut as {pieces:?}");
}

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, bytes_max: usize) -> Vec<Event> {
    let mut scanner = EventScanner::with_limit(bytes_max);
    let mut found = Vec::new();
    for piece in pieces {
        scanner.scan_named(piece, |name, data| found.push((name.to_vec(), data.to_vec())));
    }
    found
}

fn reference(stream: &[u8], bytes_max: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut name: &[u8] = b"";
    let mut data: Vec<&[u8]> = Vec::new();
    let mut is_overlong = false;
    for (number, whole) in lines(stream).into_iter().enumerate() {
        let mark = if number == 0 { "\u{feff}".as_bytes() } else { b"" };
        let line = whole.strip_prefix(mark).unwrap_or(whole);
        let cut = whole.len().saturating_sub(bytes_max);
        if line.is_empty() {
            let joined = data.join(&b"\n"[..]);
            if !joined.is_empty() && !is_overlong {
                events.push((name.to_vec(), joined));
            }
            name = b"";
            data.clear();
            is_overlong = false;
        } else if let Some(value) = value_of("data", line) {
            if !(data.is_empty() && value.is_empty()) {
                data.push(value);
            }
            is_overlong |= cut > 0 || data.join(&b"\n"[..]).len() > bytes_max;
        } else if let Some(value) = value_of("event", &line[..line.len() - cut]) {
            name = &value[..value.len().min(NAME_BYTES_MAX)];
        }
    }
    events
}

fn value_of<'a>(field: &str, line: &'a [u8]) -> Option<&'a [u8]> {
    if line == field.as_bytes() {
        return Some(b"");
    }
    let value = line.strip_prefix(format!("{field}:").as_bytes())?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// The lines that have ended.
fn lines(stream: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut begin = 0;
    for (at, byte) in stream.iter().enumerate() {
        let is_second_half = *byte == b'\n' && at > 0 && stream[at - 1] == b'\r';
        if is_second_half {
            begin = at + 1;
        } else if matches!(byte, b'\r' | b'\n') {
            lines.push(&stream[begin..at]);
            begin = at + 1;
        }
    }
    lines
}
