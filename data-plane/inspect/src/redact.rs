//! Taking out of texts and answers what detectors and an admin's own patterns find.
//!
//! Always holds: what is not taken out passes byte for byte. An answer is read as it comes: of it at most one text of
//! JSON is held, up to [`HELD_BYTES_MAX`]; of a longer one, its last part. A text is given out once it ends, so that an
//! event of a stream is never held beyond its line. An event is read as clients read it, whose message may have several
//! lines; one that is cut leaves nothing to the next. What is neither JSON nor events is one text.

mod escapes;
mod events;
mod found;

use std::borrow::Cow;

use escapes::Unescaped;
pub use events::Written;
use found::Found;
use gantry_model::inspection::Detector;
use gantry_model::resource::PLACE_BYTES_MAX;

use crate::detect::{Detectors, Match};
use crate::patterns::Patterns;

/// Most of one text of JSON that is held: a number of an account on the page of a document is found in any part of it.
pub const HELD_BYTES_MAX: usize = 64 * 1024;
/// How much of a longer text is held back for what may begin in it: more than any key but the longest private ones.
const OVERLAP_BYTES: usize = 8 * 1024;
/// Longest name of a field that is known by its name, where each of its letters is an escape.
const NAME_BYTES_MAX: usize = PLACE_BYTES_MAX * 6;

/// A text without what the detectors find.
pub fn redact<'t>(text: &'t str, detectors: &Detectors) -> Cow<'t, str> {
    let found = detectors.find(text);
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut redacted = String::with_capacity(text.len());
    let mut at = 0;
    for Match { range, detector } in found {
        redacted.push_str(text.get(at..range.start).unwrap_or_default());
        redacted.push_str(mark(Some(detector)));
        at = range.end;
    }
    redacted.push_str(text.get(at..).unwrap_or_default());
    Cow::Owned(redacted)
}

/// What stands in place of what was taken out. Nothing in it needs an escape.
fn mark(detector: Option<Detector>) -> &'static str {
    match detector {
        Some(Detector::Keys) => "[redacted: key]",
        Some(Detector::Emails) => "[redacted: e-mail]",
        Some(Detector::Cards) => "[redacted: card]",
        Some(Detector::Ibans) => "[redacted: account]",
        None => "[redacted]",
    }
}

/// Takes out of JSON, or of events that carry JSON, what detectors find in its texts, and the values of named fields.
///
/// Of an event, only the lines of its message are read. The id of a message and a progress token pass as they are: they are what the client said. Numbers outside of texts pass
/// too, except as values of named fields.
#[derive(Debug)]
pub struct Redactor {
    detectors: Detectors,
    patterns: Patterns,
    /// The end of what was given out of the text under way, for what patterns say of the character before.
    before: Option<char>,
    /// Names of fields, without what [`plain_name`] leaves out.
    fields: Vec<String>,
    written: Written,
    state: State,
    /// What is known of the name of a line under way.
    line: Vec<u8>,
    /// The last line ended at a `\r`, of which a `\n` may be the other half.
    after_return: bool,
    depth: u32,
    /// The text under way, without its quotes, as it came.
    held: Vec<u8>,
    /// The last text, while it may be the name of a field.
    name: Option<Vec<u8>>,
    /// The depth of the named field whose value is under way.
    within: Option<u32>,
    /// The value that follows passes as it is.
    passes: bool,
    taken: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the name of a line of an event.
    LineName,
    /// In a line that passes.
    LinePassing,
    /// Between texts.
    Outside,
    /// In a text that is held.
    Held,
    /// In a text that passes.
    Passing,
    /// In a text that was taken out as a whole.
    Dropped,
    /// In a number or a word that was.
    DroppedWord,
}

impl Redactor {
    /// Looks with `detectors`, and takes out the values of `fields`, whatever they are; their names count without regard
    /// to case, `_` and `-`.
    pub fn new(detectors: Detectors, fields: &[String], written: Written) -> Redactor {
        Redactor {
            detectors,
            patterns: Patterns::default(),
            before: None,
            fields: fields.iter().map(|name| plain_name(name)).collect(),
            written,
            state: written.begin(),
            line: Vec::new(),
            after_return: false,
            depth: 0,
            held: Vec::new(),
            name: None,
            within: None,
            passes: false,
            taken: 0,
        }
    }

    /// Looks for patterns as well.
    #[must_use]
    pub fn with_patterns(self, patterns: Patterns) -> Redactor {
        Redactor { patterns, ..self }
    }

    /// How much was taken out.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Reads the next part of the answer, and gives out what of it is settled.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let step = match self.state {
                State::LineName => self.line_name(rest, out),
                State::LinePassing => self.line_passing(rest, out),
                State::Outside => self.outside(rest, out),
                State::Held | State::Passing | State::Dropped => self.text(rest, out),
                State::DroppedWord => self.word(rest),
            };
            rest = rest.get(step..).unwrap_or_default();
        }
    }

    /// The answer has ended, within a text perhaps.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Held {
            self.release(out);
        }
        self.state = self.written.begin();
    }

    /// Reads what is between texts; says how far.
    fn outside(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        for (index, &byte) in rest.iter().enumerate() {
            match byte {
                b'"' => {
                    out.extend_from_slice(rest.get(..=index).unwrap_or_default());
                    self.begin_text(out);
                    return index + 1;
                }
                b'{' | b'[' => {
                    self.depth = self.depth.saturating_add(1);
                    (self.name, self.passes) = (None, false);
                }
                b'}' | b']' => {
                    self.end_value();
                    self.depth = self.depth.saturating_sub(1);
                }
                b',' => self.end_value(),
                b':' => self.begin_value(),
                b'\n' | b'\r' if self.is_line_end(byte) => {
                    self.end_line(byte);
                    out.extend_from_slice(rest.get(..=index).unwrap_or_default());
                    return index + 1;
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.within.is_some() => {
                    out.extend_from_slice(rest.get(..index).unwrap_or_default());
                    out.extend_from_slice(b"null");
                    self.taken += 1;
                    self.state = State::DroppedWord;
                    return index;
                }
                _ => {}
            }
        }
        out.extend_from_slice(rest);
        rest.len()
    }

    fn begin_text(&mut self, out: &mut Vec<u8>) {
        self.held.clear();
        self.before = None;
        self.state = match (self.within, self.passes) {
            (Some(_), _) => {
                out.extend_from_slice(mark(None).as_bytes());
                self.taken += 1;
                State::Dropped
            }
            (None, true) => State::Passing,
            (None, false) => State::Held,
        };
    }

    /// A `:` makes the text before it the name of a field.
    fn begin_value(&mut self) {
        let Some(name) = self.name.take() else { return };
        let name = Unescaped::new(&name);
        let name = name.as_str();
        self.passes = (name == "id" && self.depth == 1) || name == "progressToken";
        if self.within.is_none() && !self.fields.is_empty() && self.fields.contains(&plain_name(name)) {
            self.within = Some(self.depth);
        }
    }

    fn end_value(&mut self) {
        (self.name, self.passes) = (None, false);
        // The names beside the field belong to its object, and those in its value are deeper.
        if self.within.is_some_and(|depth| self.depth <= depth) {
            self.within = None;
        }
    }

    /// Reads on in a text; says how far.
    fn text(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        let room = HELD_BYTES_MAX.saturating_sub(self.held.len()).max(1);
        let part = rest.get(..room.min(rest.len())).unwrap_or_default();
        let mut at = 0;
        let end = loop {
            let rest = part.get(at..).unwrap_or_default();
            let offset = match self.written {
                Written::Json => memchr::memchr2(b'"', b'\n', rest),
                Written::Events => memchr::memchr3(b'"', b'\n', b'\r', rest),
                Written::Text => None,
            };
            match offset.map(|offset| at + offset) {
                // An escaped quote has an odd number of `\` before it.
                Some(found) if part[found] == b'"' && self.is_escaped(part, found) => at = found + 1,
                found => break found,
            }
        };
        let body = part.get(..end.unwrap_or(part.len())).unwrap_or_default();
        match self.state {
            State::Passing => out.extend_from_slice(body),
            State::Held => self.held.extend_from_slice(body),
            // Enough to know whether its end is escaped.
            _ => self.keep_escapes(body),
        }
        if self.state == State::Passing {
            self.keep_escapes(body);
        }
        match end {
            Some(end) => {
                self.end_text(part[end], out);
                end + 1
            }
            None => {
                if self.state == State::Held && self.held.len() >= HELD_BYTES_MAX {
                    self.release_part(out);
                }
                part.len()
            }
        }
    }

    /// Whether a quote stands behind an odd number of `\`, some of which may have come before.
    fn is_escaped(&self, part: &[u8], quote: usize) -> bool {
        let is_backslash = |byte: &&u8| **byte == b'\\';
        let here = part.iter().take(quote).rev().take_while(is_backslash).count();
        let before = if here == quote { self.held.iter().rev().take_while(is_backslash).count() } else { 0 };
        (here + before) % 2 == 1
    }

    /// Of a text that is not held, only the `\` at its end count.
    fn keep_escapes(&mut self, body: &[u8]) {
        let count = body.iter().rev().take_while(|byte| **byte == b'\\').count();
        let before = if count == body.len() { self.held.len() } else { 0 };
        self.held.clear();
        self.held.resize((count + before) % 2, b'\\');
    }

    /// A line does not end within a text of JSON; what was taken for one was none.
    fn end_text(&mut self, end: u8, out: &mut Vec<u8>) {
        if self.state == State::Held {
            self.name = (end == b'"' && self.held.len() <= NAME_BYTES_MAX).then(|| self.held.clone());
            self.release(out);
        }
        out.push(end);
        self.state = State::Outside;
        if self.is_line_end(end) {
            self.end_line(end);
        }
    }

    fn word(&mut self, rest: &[u8]) -> usize {
        let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | b'"');
        let end = rest.iter().position(is_end);
        if end.is_some() {
            self.state = State::Outside;
        }
        end.unwrap_or(rest.len())
    }

    /// Gives out all that is held.
    fn release(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let length = held.len();
        self.give(&held, length, out);
        self.held = held;
        self.held.clear();
    }

    /// Gives out what is held but for its last part.
    fn release_part(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let given = self.give(&held, held.len().saturating_sub(OVERLAP_BYTES), out);
        self.held.extend_from_slice(held.get(given..).unwrap_or_default());
    }

    /// Gives out about so many bytes of a text; says how many. It ends between letters, and not within what was found.
    fn give(&mut self, raw: &[u8], wanted: usize, out: &mut Vec<u8>) -> usize {
        let text = Unescaped::new(raw);
        let found = found::find(&self.detectors, &self.patterns, self.before, text.as_str());
        let mut cut = text.cut(wanted);
        for Found { range, .. } in &found {
            let (start, end) = (text.raw(range.start), text.raw(range.end));
            if (start..end).contains(&cut) {
                // It may go on behind what is held, unless it fills all of it.
                cut = if start > 0 { start } else { end };
            }
        }
        let mut at = 0;
        for Found { range, mark } in &found {
            let (start, end) = (text.raw(range.start), text.raw(range.end));
            if end > cut {
                break;
            }
            out.extend_from_slice(raw.get(at..start).unwrap_or_default());
            out.extend_from_slice(mark.as_bytes());
            self.taken += 1;
            at = end;
        }
        out.extend_from_slice(raw.get(at..cut).unwrap_or_default());
        if !self.patterns.is_empty() {
            let said = text.as_str();
            let given = said.char_indices().take_while(|(at, _)| text.raw(*at) < cut).last();
            self.before = given.map(|(_, letter)| letter).or(self.before);
        }
        cut
    }
}

/// A name without regard to case, `_` and `-`.
fn plain_name(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '_' | '-')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests;
