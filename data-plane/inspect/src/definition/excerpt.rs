//! A part of a text that is safe to print.
//!
//! Always holds: at most [`CHARS_MAX`] characters; none that nobody sees, that turns the direction of others, that ends a
//! line or that a terminal acts on; no key of a well-known format.

use std::ops::Range;

use gantry_model::inspection::Detector;

use crate::detect::Detectors;
use crate::redact::redact;

/// Longest excerpt: a line of a table.
const CHARS_MAX: usize = 80;
/// How much of a text before it is shown with what was found.
const BEFORE_CHARS: usize = 8;
/// Longest part that is looked through for keys.
const WINDOW_BYTES: usize = 2 * 1024;

/// What stands at a place of a text, and a little before it.
pub(super) fn around(text: &str, range: Range<usize>) -> String {
    let before = text.get(..range.start).unwrap_or_default();
    let start = before.char_indices().rev().nth(BEFORE_CHARS - 1).map_or(0, |(at, _)| at);
    // A key that begins before what is shown is one still.
    let window_start = floor(text, start.saturating_sub(WINDOW_BYTES));
    let window_end = floor(text, start.saturating_add(WINDOW_BYTES));
    let window = text.get(window_start..window_end).unwrap_or_default();
    let found = Detectors::default().with(Detector::Keys).find(window);
    let has_key = found.iter().any(|found| window_start + found.range.end > start);
    let shown = text.get(start..window_end).unwrap_or_default();
    if has_key {
        // What stands before the first key may be shown, and nothing behind it.
        let first = found.iter().map(|found| (window_start + found.range.start).max(start)).min();
        let end = first.unwrap_or(start);
        return safe(&format!("{}[redacted: key]", text.get(start..end).unwrap_or_default()));
    }
    safe(&redact(shown, &Detectors::default().with(Detector::Keys)))
}

/// A text of visible characters, cut; others are told by their numbers.
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::new();
    let mut room = CHARS_MAX;
    for letter in text.chars() {
        let shown = match letter {
            '\n' | '\r' | '\t' => " ".to_owned(),
            letter if is_printable(letter) => letter.to_string(),
            letter => format!("<U+{:04X}>", u32::from(letter)),
        };
        let length = shown.chars().count();
        if length > room {
            safe.push('…');
            break;
        }
        room -= length;
        safe.push_str(&shown);
    }
    safe
}

/// Letters, digits, signs and marks that every terminal shows, and none from right to left, which would turn the line.
fn is_printable(letter: char) -> bool {
    matches!(letter, ' '..='~')
        || (letter.is_alphanumeric()
            && !crate::unicode::is_right_to_left(letter)
            // Some letters are there to be blank, such as the fillers of Hangul.
            && !crate::unicode::is_unseen(letter))
        || matches!(letter, '\u{2010}'..='\u{2027}' | '\u{3001}'..='\u{3011}' | '\u{ff01}'..='\u{ff0f}')
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
