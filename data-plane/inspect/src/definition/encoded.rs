//! Text that is there and not to be read: behind base64 or hexadecimal digits, or far from where one looks.
//!
//! Always holds: a run of digits is decoded as a whole, from each place where a group of them may begin, so that nothing
//! before a text keeps it from being found; what decodes to no text (a picture, a key, a hash) passes. A text in many
//! short runs passes too.

use std::ops::Range;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// Shortest run that is decoded: some words, and longer than most identifiers.
const RUN_BYTES_MIN: usize = 40;
/// Shortest piece of text between bytes that are none. That so many bytes are letters and spaces by chance is out of
/// the question: fewer than two in five bytes are.
const TEXT_BYTES_MIN: usize = 24;
/// Characters that a group of base64 has.
const GROUP: usize = 4;
/// Spaces, or ends of lines, beyond which a text is out of sight.
const SPACES_MAX: usize = 120;
const LINES_MAX: usize = 24;

/// The last bits of a run that is cut mean nothing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
    let of_base64 = runs(bytes, is_letter).find(|run| is_base64(&bytes[run.clone()]));
    of_base64.or_else(|| {
        let is_digit = |byte: u8| byte.is_ascii_hexdigit();
        runs(bytes, is_digit).find(|run| is_hexadecimal(&bytes[run.clone()]))
    })
}

/// Runs that are long enough to say something.
fn runs(bytes: &[u8], is_of_run: impl Fn(u8) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        while from < bytes.len() {
            let length = bytes[from..].iter().take_while(|byte| is_of_run(**byte)).count();
            let at = from;
            from += length.max(1);
            if length >= RUN_BYTES_MIN {
                return Some(at..at + length);
            }
        }
        None
    })
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

fn is_base64(run: &[u8]) -> bool {
    // Both alphabets are one but for two letters.
    let plain = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    let run: Vec<u8> = run.iter().map(plain).collect();
    (0..GROUP).any(|from| {
        let part = &run[from..];
        let decoded = BASE64.decode(&part[..part.len() / GROUP * GROUP]);
        decoded.is_ok_and(|bytes| has_prose(&bytes))
    })
}

fn is_hexadecimal(run: &[u8]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    (0..2).any(|from| {
        let pair = |pair: &[u8]| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap_or(0);
        let bytes: Vec<u8> = run[from..].chunks_exact(2).map(pair).collect();
        has_prose(&bytes)
    })
}

/// Whether there is a text among bytes.
fn has_prose(bytes: &[u8]) -> bool {
    let pieces = bytes.utf8_chunks().flat_map(|chunk| {
        chunk.valid().split(|letter: char| letter.is_control() && letter != '\n' && letter != '\t')
    });
    pieces.filter(|piece| piece.len() >= TEXT_BYTES_MIN).any(is_prose)
}

/// Letters with spaces between them, or of a script that has none.
fn is_prose(text: &str) -> bool {
    let (mut letters, mut spaces, mut others, mut count) = (0, 0, 0, 0);
    for letter in text.chars() {
        count += 1;
        spaces += usize::from(letter == ' ');
        letters += usize::from(letter.is_alphanumeric());
        others += usize::from(letter > '\u{7ff}' && letter.is_alphanumeric());
    }
    letters * 10 >= count * 6 && (spaces >= 2 || others >= 8)
}
