//! What was found, and where.
//!
//! Always holds: a finding has none of the text in which it was made; of the names of fields above it, printable
//! characters only; at most [`FINDINGS_MAX`] are kept of one call.

use std::fmt::{self, Write};

use gantry_model::inspection::{Filter, Mode};

/// Findings of one call that are kept: enough to mend it, few enough for a record.
pub const FINDINGS_MAX: usize = 8;
/// Most bytes of a place: names of fields are the caller's to choose.
const PLACE_BYTES_MAX: usize = 128;

/// Something that a filter looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Who found it.
    pub filter: Filter,
    /// What is to become of it: never [`Mode::Off`].
    pub mode: Mode,
    /// One word, or a few, that say what; of a fixed set.
    pub what: &'static str,
    /// Where: a JSON pointer below the arguments, shortened.
    pub place: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "/" } else { &self.place };
        write!(formatter, "{}: {} at {place}", self.filter.as_str(), self.what)
    }
}

/// What was found in one call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    kept: Vec<Finding>,
}

impl Findings {
    /// In the order of the arguments, what blocks before what does not where there was no room for both.
    pub fn as_slice(&self) -> &[Finding] {
        &self.kept
    }

    /// What stops the call, if anything does.
    pub fn blocking(&self) -> impl Iterator<Item = &Finding> {
        self.kept.iter().filter(|finding| finding.mode == Mode::Block)
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        } else if finding.mode == Mode::Block && self.blocking().next().is_none() {
            // A call must not pass because it has so much in it that is only reported.
            self.kept.pop();
            self.kept.push(finding);
        }
    }
}

/// A place in the arguments, as far as the walk has come. It costs nothing until something is found there.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    above: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Element(usize),
}

impl<'a> Place<'a> {
    pub(crate) const ROOT: Place<'static> = Place { above: None, step: Step::Root };

    pub(crate) fn field(&'a self, name: &'a str) -> Place<'a> {
        Place { above: Some(self), step: Step::Field(name) }
    }

    pub(crate) fn element(&'a self, index: usize) -> Place<'a> {
        Place { above: Some(self), step: Step::Element(index) }
    }

    /// As a JSON pointer, cut at [`PLACE_BYTES_MAX`].
    pub(crate) fn pointer(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        if let Some(above) = self.above {
            above.write(text);
        }
        if text.len() >= PLACE_BYTES_MAX {
            return;
        }
        match self.step {
            Step::Root => {}
            Step::Element(index) => {
                // A String takes whatever is written.
                let _ = write!(text, "/{index}");
            }
            Step::Field(name) => {
                text.push('/');
                for letter in name.chars() {
                    match letter {
                        _ if text.len() >= PLACE_BYTES_MAX => return,
                        '~' => text.push_str("~0"),
                        '/' => text.push_str("~1"),
                        letter if letter.is_alphanumeric() || letter.is_ascii_graphic() || letter == ' ' => {
                            text.push(letter);
                        }
                        _ => text.push('?'),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(mode: Mode, place: &str) -> Finding {
        Finding { filter: Filter::Sql, mode, what: "x", place: place.to_owned() }
    }

    #[test]
    fn what_blocks_is_kept_when_there_is_too_much_that_is_reported() {
        let mut findings = Findings::default();
        for _ in 0..FINDINGS_MAX + 3 {
            findings.add(finding(Mode::Report, "/a"));
        }
        assert_eq!(findings.blocking().count(), 0);
        findings.add(finding(Mode::Block, "/b"));
        findings.add(finding(Mode::Block, "/c"));
        assert_eq!(findings.as_slice().len(), FINDINGS_MAX);
        assert_eq!(findings.blocking().collect::<Vec<_>>(), [&finding(Mode::Block, "/b")]);
    }

    #[test]
    fn a_place_is_a_pointer_without_what_nobody_sees_and_of_bounded_length() {
        let (outer, inner) = (Place::ROOT.field("a/b~c\u{202e}\n"), "x".repeat(500));
        let element = outer.element(3);
        assert_eq!(element.pointer(), "/a~1b~0c??/3");
        assert_eq!(element.field(&inner).pointer().len(), PLACE_BYTES_MAX);
        assert_eq!(Place::ROOT.pointer(), "");
    }
}
