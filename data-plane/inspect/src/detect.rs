//! What answers are searched for: keys, addresses of mail, numbers of cards and of bank accounts.
//!
//! Always holds: each detector reads a text once, in linear time, and a text in which nothing is found costs no
//! allocation. Numbers count by their check digits and by who may have issued them, not by their length alone; a number of
//! an order that happens to fit is one all the same (one in ten of the right length and beginning).

mod card;
mod email;
mod iban;

use std::ops::Range;

use gantry_model::inspection::Detector;

use crate::secrets;

/// Which are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detectors {
    keys: bool,
    emails: bool,
    cards: bool,
    ibans: bool,
}

/// What a detector found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Where it stands, in bytes.
    pub range: Range<usize>,
    /// Who found it.
    pub detector: Detector,
}

impl Detectors {
    /// With one more.
    #[must_use]
    pub fn with(mut self, detector: Detector) -> Detectors {
        match detector {
            Detector::Keys => self.keys = true,
            Detector::Emails => self.emails = true,
            Detector::Cards => self.cards = true,
            Detector::Ibans => self.ibans = true,
        }
        self
    }

    /// With all that are on in another.
    #[must_use]
    pub fn and(self, other: Detectors) -> Detectors {
        Detectors {
            keys: self.keys || other.keys,
            emails: self.emails || other.emails,
            cards: self.cards || other.cards,
            ibans: self.ibans || other.ibans,
        }
    }

    /// Whether none is on.
    pub fn is_empty(&self) -> bool {
        *self == Detectors::default()
    }

    /// What is in a text, in order, without overlap.
    pub fn find(&self, text: &str) -> Vec<Match> {
        let mut found = Vec::new();
        let mut add = |range, detector| found.push(Match { range, detector });
        if self.keys {
            secrets::all(text, &mut |secret| add(secret.range, Detector::Keys));
        }
        if self.emails {
            email::find(text.as_bytes(), &mut |range| add(range, Detector::Emails));
        }
        if self.cards {
            card::find(text.as_bytes(), &mut |range| add(range, Detector::Cards));
        }
        if self.ibans {
            iban::find(text.as_bytes(), &mut |range| add(range, Detector::Ibans));
        }
        found.sort_by_key(|found| (found.range.start, std::cmp::Reverse(found.range.end)));
        // Of two that overlap, what is left of the second is a part of a secret as well.
        found.dedup_by(|next, kept| {
            let overlaps = next.range.start < kept.range.end;
            if overlaps {
                kept.range.end = kept.range.end.max(next.range.end);
            }
            overlaps
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_told_in_order_and_once() {
        let detectors = Detectors::default()
            .with(Detector::Keys)
            .with(Detector::Emails)
            .with(Detector::Cards)
            .with(Detector::Ibans);
        let text = "DE89370400440532013000 ann@example.com 4111 1111 1111 1111 postgres://a:b4@example.com/";
        let found: Vec<_> =
            detectors.find(text).into_iter().map(|found| (&text[found.range], found.detector)).collect();
        assert_eq!(
            found,
            [
                ("DE89370400440532013000", Detector::Ibans),
                ("ann@example.com", Detector::Emails),
                ("4111 1111 1111 1111", Detector::Cards),
                ("postgres://a:b4@example.com", Detector::Keys),
            ]
        );
        assert_eq!(Detectors::default().find(text), []);
    }
}
