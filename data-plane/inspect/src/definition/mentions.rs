//! Names of tools in sentences that steer: where another server has a tool of that name, one server says how another is
//! to be used.
//!
//! Always holds: only what cannot be a plain word, or is quoted, counts as a name; where there are more of them than are
//! looked up, that is told.

use std::collections::HashSet;
use std::ops::Range;

use super::Oddity;
use super::fold::{Folded, Word};

/// What it is told as.
pub(super) const ELSEWHERE: &str = "another server's tool";
/// Shortest name that counts.
const NAME_BYTES_MIN: usize = 5;
/// Longest name that is looked up.
const NAME_BYTES_MAX: usize = 128;

/// Names in one text that are looked up, and in one definition: more than one that is meant well speaks of.
const NAMES_MAX: usize = 64;
pub(super) const MENTIONS_MAX: usize = 64;
/// What it is told as when there are more.
pub(super) const UNREAD: &str = "more names of tools than are looked up";

/// A name, and what it is told as where another server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    /// In lower case.
    pub(super) name: String,
    pub(super) oddity: Oddity,
}

/// Words that tell a model what to do with a tool.
const STEERING: [&str; 22] = [
    "after",
    "always",
    "avoid",
    "before",
    "bevor",
    "deprecated",
    "don't",
    "forbidden",
    "immer",
    "instead",
    "must",
    "never",
    "not",
    "prior",
    "rather",
    "replaces",
    "supersedes",
    "toujours",
    "unless",
    "when",
    "whenever",
    "while",
];

/// Names in steering sentences, in lower case, each once; and whether there are more.
pub(super) fn find(folded: &Folded) -> (Vec<(String, Range<usize>)>, bool) {
    let words = folded.words();
    let is_steering = |word: &&Word| STEERING.binary_search(&&folded.text[word.start..word.end]).is_ok();
    let steering: HashSet<u32> = words.iter().filter(is_steering).map(|word| word.sentence).collect();
    if steering.is_empty() {
        return (Vec::new(), false);
    }
    let mut found: Vec<(String, Range<usize>)> = Vec::new();
    let mut index = 0;
    while index < words.len() {
        let first = words[index];
        let mut last = index;
        // `resolve-library-id` is one name.
        while words.get(last + 1).is_some_and(|next| {
            folded.text.get(words[last].end..next.start) == Some("-") && next.sentence == first.sentence
        }) {
            last += 1;
        }
        let range = first.start..words[last].end;
        let name = &folded.text[range.clone()];
        let is_name = (NAME_BYTES_MIN..=NAME_BYTES_MAX).contains(&name.len())
            && (name.contains(['_', '-']) || is_quoted(&folded.text, &range));
        if is_name && steering.contains(&first.sentence) && !found.iter().any(|(known, _)| known == name) {
            if found.len() == NAMES_MAX {
                return (found, true);
            }
            found.push((name.to_owned(), range));
        }
        index = last + 1;
    }
    (found, false)
}

fn is_quoted(text: &str, range: &Range<usize>) -> bool {
    let before = text[..range.start].chars().next_back();
    let after = text[range.end..].chars().next();
    matches!((before, after), (Some('`'), Some('`')) | (Some('"'), Some('"')) | (Some('\''), Some('\'')))
}
