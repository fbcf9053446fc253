//! Characters that nobody sees in a pattern, which may name some of them to refuse them.
//!
//! Always holds: they pass within brackets only, and only few of them: what is spelled with them is found.

use crate::unicode;

/// Such characters that a pattern names: more than there are classes of them, fewer than an order has letters.
const NAMED_MAX: usize = 16;
/// Tags among them: both ends of their range.
const TAGS_MAX: usize = 2;

/// Says what of a pattern nobody sees.
pub(super) fn hidden(pattern: &str) -> Option<&'static str> {
    let mut others = String::with_capacity(pattern.len());
    let (mut is_inside, mut is_escaped) = (false, false);
    let (mut named, mut tags) = (0, 0);
    for letter in pattern.chars() {
        if is_inside && unicode::is_unseen(letter) {
            named += 1;
            tags += usize::from(matches!(letter, '\u{e0000}'..='\u{e007f}'));
            continue;
        }
        others.push(letter);
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '[' => is_inside = true,
            ']' => is_inside = false,
            _ => {}
        }
    }
    if named > NAMED_MAX || tags > TAGS_MAX {
        return Some(unicode::INVISIBLE);
    }
    unicode::hidden(&others)
}
