//! What of a text is to be taken out, by detectors and by patterns together.
//!
//! Always holds: what overlaps is one, from where the first begins to where the last ends, by the first one's mark.

use std::ops::Range;
use std::sync::Arc;

use super::mark;
use crate::detect::{Detectors, Match};
use crate::patterns::Patterns;

/// What was found, and what is to stand there.
pub(super) struct Found {
    pub(super) range: Range<usize>,
    pub(super) mark: Mark,
}

pub(super) enum Mark {
    Known(&'static str),
    Named(Arc<str>),
}

impl Mark {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Mark::Known(mark) => mark.as_bytes(),
            Mark::Named(mark) => mark.as_bytes(),
        }
    }
}

/// What is in a text, in order, without overlap. `before` stands before it, and was given out already.
pub(super) fn find(
    detectors: &Detectors,
    patterns: &Patterns,
    before: Option<char>,
    text: &str,
) -> Vec<Found> {
    let found = detectors.find(text).into_iter();
    let mut found: Vec<Found> = found
        .map(|Match { range, detector }| Found { range, mark: Mark::Known(mark(Some(detector))) })
        .collect();
    if patterns.is_empty() {
        return found;
    }
    let mut add = |range, mark: &Arc<str>| found.push(Found { range, mark: Mark::Named(mark.clone()) });
    match before {
        None => patterns.find(text, 0, &mut add),
        Some(before) => {
            let text = format!("{before}{text}");
            let shift = before.len_utf8();
            patterns.find(&text, shift, &mut |range: Range<usize>, mark| {
                add(range.start - shift..range.end - shift, mark);
            });
        }
    }
    found.sort_by_key(|found| (found.range.start, std::cmp::Reverse(found.range.end)));
    // As with detectors: what is left of the second is a part of a secret as well.
    found.dedup_by(|next, kept| {
        let overlaps = next.range.start < kept.range.end;
        if overlaps {
            kept.range.end = kept.range.end.max(next.range.end);
        }
        overlaps
    });
    found
}
