//! What is said to a model behind the back of whom it works for: forget what you were told, tell nobody, use this before
//! all else, hand over what you know.
//!
//! Always holds: a phrase is found within one sentence; each kind once in a text; time grows with the length of the text.
//! Languages with letters from left to right and spaces are read word by word, others by whole phrases.

use std::collections::HashMap;
use std::ops::Range;

use super::fold::{Folded, Word};
use super::{english, languages};

pub(super) const OVERRIDE: &str = "overriding of instructions";
pub(super) const SECRECY: &str = "secrecy towards the user";
pub(super) const PRECEDENCE: &str = "precedence over other tools";
/// Also of names of arguments.
pub(super) const CONTEXT: &str = "handing over of context";
pub(super) const EXFILTRATION: &str = "handing over of secrets";

/// Words in their order, each part within `0` words behind the part before it. Words of one part are divided by `|`.
pub(super) struct Phrase {
    what: &'static str,
    parts: &'static [(usize, &'static str)],
    /// With one of these words among them it is another phrase.
    unless: &'static str,
    /// So many parts stand between two commas.
    within: usize,
    /// Nothing follows that it is about.
    ends: bool,
}

pub(super) const fn phrase(what: &'static str, parts: &'static [(usize, &'static str)]) -> Phrase {
    Phrase { what, parts, unless: "", within: 0, ends: false }
}

pub(super) const fn unless(
    what: &'static str,
    parts: &'static [(usize, &'static str)],
    unless: &'static str,
) -> Phrase {
    Phrase { what, parts, unless, within: 0, ends: false }
}

/// All phrases, by the word that they begin with.
pub(super) struct Phrases {
    by_first: HashMap<&'static str, Vec<&'static Phrase>>,
    whole: Vec<(&'static str, String)>,
}

impl Phrases {
    pub(super) fn new() -> Phrases {
        static ENGLISH: &[Phrase] = &english::PHRASES;
        static OTHERS: &[Phrase] = &languages::PHRASES;
        let mut by_first: HashMap<&str, Vec<&Phrase>> = HashMap::new();
        for phrase in ENGLISH.iter().chain(OTHERS) {
            for word in phrase.parts.first().map(|(_, words)| words.split('|')).into_iter().flatten() {
                by_first.entry(word).or_default().push(phrase);
            }
        }
        Phrases {
            by_first,
            whole: languages::WHOLE.map(|(what, text)| (what, Folded::new(text).text)).into(),
        }
    }

    /// What is said, and where.
    pub(super) fn find(&self, folded: &Folded) -> Vec<(&'static str, Range<usize>)> {
        let words = folded.words();
        let mut found: Vec<(&'static str, Range<usize>)> = Vec::new();
        for (index, word) in words.iter().enumerate() {
            for phrase in self.by_first.get(&folded.text[word.start..word.end]).into_iter().flatten() {
                if found.iter().any(|(what, _)| *what == phrase.what) {
                    continue;
                }
                if let Some(end) = phrase.end(&folded.text, &words, index) {
                    found.push((phrase.what, word.start..end));
                }
            }
        }
        if !folded.text.is_ascii() {
            for (what, text) in &self.whole {
                let is_known = found.iter().any(|(known, _)| known == what);
                if let Some(at) = folded.text.find(text).filter(|_| !is_known) {
                    found.push((what, at..at + text.len()));
                }
            }
        }
        found
    }
}

/// Words that begin another order.
const GOES_ON: &str = "and|then|but|so|just|only|you|instead|now";

impl Phrase {
    /// The first parts stand between two commas.
    pub(super) const fn within(self, parts: usize) -> Phrase {
        Phrase { within: parts, ..self }
    }

    /// The part of the sentence ends with it.
    pub(super) const fn ends(self) -> Phrase {
        Phrase { ends: true, ..self }
    }

    /// Where the phrase ends that begins with a word; `None`: it is another.
    fn end(&self, text: &str, words: &[Word], first: usize) -> Option<usize> {
        let said = |word: &Word| &text[word.start..word.end];
        let is_one_of = |word: &Word, others: &str| others.split('|').any(|other| other == said(word));
        let Word { sentence, clause, .. } = words[first];
        let mut at = first;
        for (index, (gap, wanted)) in self.parts.iter().enumerate().skip(1) {
            let window = words.get(at + 1..words.len().min(at + 2 + gap))?;
            let is_wanted = |word: &Word| {
                word.sentence == sentence
                    && (index >= self.within || word.clause == clause)
                    && is_one_of(word, wanted)
            };
            at += 1 + window.iter().position(is_wanted)?;
        }
        let behind = words.len().min(at + 2);
        let differs =
            !self.unless.is_empty() && words[first..behind].iter().any(|word| is_one_of(word, self.unless));
        let next = words.get(at + 1);
        let goes_on = self.ends
            && next.is_some_and(|next| next.clause == words[at].clause && !is_one_of(next, GOES_ON));
        (!differs && !goes_on).then_some(words[at].end)
    }
}
