//! Text that is there and not to be read: behind base64 or hexadecimal digits, or far from where one looks.
//!
//! Always holds: what decodes to no text (a picture, a key, a hash) passes.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shortest run that is decoded: some words, and longer than most identifiers.
const RUN_BYTES_MIN: usize = 40;
/// Longest part of a run that is decoded: enough to tell text from what is none.
const DECODED_BYTES_MAX: usize = 1024;
/// Spaces, or ends of lines, beyond which a text is out of sight.
const SPACES_MAX: usize = 120;
const LINES_MAX: usize = 24;

/// Where a text is pushed out of sight.
pub(super) fn padding(text: &str) -> Option<Range<usize>> {
    let (mut start, mut spaces, mut lines) = (0, 0, 0);
    for (at, letter) in text.char_indices() {
        if !letter.is_whitespace() {
            if spaces > SPACES_MAX || lines > LINES_MAX {
                return Some(start..text.len());
            }
            (start, spaces, lines) = (at + letter.len_utf8(), 0, 0);
        } else if letter == '\n' {
            (spaces, lines) = (0, lines + 1);
        } else {
            spaces += 1;
        }
    }
    None
}

/// Where a text stands that is encoded.
pub(super) fn hidden_text(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| is_letter(**byte)).count();
        if length >= RUN_BYTES_MIN && is_text(&bytes[at..at + length]) {
            return Some(at..at + length);
        }
        at += length.max(1);
    }
    None
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

fn is_text(run: &[u8]) -> bool {
    let part = &run[..run.len().min(DECODED_BYTES_MAX)];
    if part.iter().all(u8::is_ascii_hexdigit) {
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        return part
            .chunks_exact(2)
            .map(pair)
            .collect::<Option<Vec<u8>>>()
            .is_some_and(|bytes| is_prose(&bytes));
    }
    let whole = &part[..part.len() / 4 * 4];
    let decoded = STANDARD_NO_PAD.decode(whole).or_else(|_| URL_SAFE_NO_PAD.decode(whole));
    decoded.is_ok_and(|bytes| is_prose(&bytes))
}

/// Letters with spaces between them, or of a script that has none: bytes that mean something else are none of these.
fn is_prose(bytes: &[u8]) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // Cut within a letter.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let letters = text.chars().filter(|letter| letter.is_alphanumeric()).count();
    let spaces = text.chars().filter(|letter| *letter == ' ').count();
    let others = text.chars().filter(|letter| *letter > '\u{7ff}' && letter.is_alphanumeric()).count();
    let count = text.chars().count();
    letters * 10 >= count * 6
        && (spaces >= 2 || others >= 8)
        && !text.chars().any(|letter| letter.is_control() && letter != '\n')
}
