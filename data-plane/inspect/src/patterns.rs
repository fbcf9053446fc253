//! What an admin has taken out of answers by patterns of his own.
//!
//! Always holds: a search takes time by the length of the text, whatever the pattern (`regex`), and memory within
//! [`COMPILED_BYTES_MAX`]; no pattern finds nothing, so that a search always goes on. `^` and `$` are the beginning and the
//! end of a whole text of an answer, in however many parts that comes.

use std::ops::Range;
use std::sync::Arc;

use gantry_model::resource::PATTERN_BYTES_MAX;
use regex::{Regex, RegexBuilder};

/// Most memory of a compiled pattern, and of what it keeps while it searches. Each node has one per pattern and processor.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// How deep groups stand within groups.
const NESTING_MAX: u32 = 64;

/// Patterns by their names.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// What stands in place of what it finds.
    mark: Arc<str>,
    regex: Regex,
}

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It cannot be read.
    #[error("line {line}, column {column}: {message}")]
    Unreadable {
        /// Its line, from 1.
        line: usize,
        /// Where in the line, in characters from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// It may match nothing at all.
    #[error("it matches the empty text, and so everywhere")]
    Empty,
    /// It is too long, or becomes so.
    #[error("it is too large: at most {PATTERN_BYTES_MAX} bytes, and {COMPILED_BYTES_MAX} once compiled")]
    TooLarge,
}

impl Patterns {
    /// With one more. A name has no sign that JSON escapes, which the model sees to.
    pub fn with(mut self, name: &str, pattern: &str) -> Result<Patterns, PatternError> {
        let regex = compile(pattern)?;
        self.patterns.push(Pattern { mark: format!("[redacted: {name}]").into(), regex });
        Ok(self)
    }

    /// With all of another.
    #[must_use]
    pub fn and(mut self, other: &Patterns) -> Patterns {
        for pattern in &other.patterns {
            let is_known = |known: &Pattern| {
                known.mark == pattern.mark && known.regex.as_str() == pattern.regex.as_str()
            };
            if !self.patterns.iter().any(is_known) {
                self.patterns.push(pattern.clone());
            }
        }
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What is found behind a place of a text, with what is to stand there; what is before it was given out already.
    pub(crate) fn find(&self, text: &str, from: usize, found: &mut impl FnMut(Range<usize>, &Arc<str>)) {
        for Pattern { mark, regex } in &self.patterns {
            let mut at = from;
            while let Some(one) = regex.find_at(text, at) {
                found(one.range(), mark);
                // It is not empty, so that this goes on.
                at = one.end();
            }
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, PatternError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(PatternError::TooLarge);
    }
    let parsed = regex_syntax::ParserBuilder::new().nest_limit(NESTING_MAX).build().parse(pattern);
    let form = parsed.map_err(|error| unreadable(pattern, &error))?;
    if form.properties().minimum_len().is_none_or(|length| length == 0) {
        return Err(PatternError::Empty);
    }
    let built = RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build();
    // What can be read is refused for its size only.
    built.map_err(|_| PatternError::TooLarge)
}

fn unreadable(pattern: &str, error: &regex_syntax::Error) -> PatternError {
    let (at, message) = match error {
        regex_syntax::Error::Parse(error) => (error.span().start, error.kind().to_string()),
        regex_syntax::Error::Translate(error) => (error.span().start, error.kind().to_string()),
        other => {
            let message = other.to_string();
            let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            return PatternError::Unreadable { line: 1, column: 1, message: last };
        }
    };
    // Columns of one line only are told by its parser without fail.
    debug_assert!(at.offset <= pattern.len(), "a place of the pattern");
    PatternError::Unreadable { line: at.line, column: at.column, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pattern_is_told_by_its_place() {
        let refused =
            |pattern: &str| Patterns::default().with("x", pattern).err().map(|error| error.to_string());
        assert_eq!(refused("EMP-[0-9]{6}"), None);
        assert_eq!(refused("a(b"), Some("line 1, column 2: unclosed group".to_owned()));
        assert_eq!(
            refused("(?x) a # one\n b[z-a]"),
            Some("line 2, column 4: invalid character class range, the start must be <= the end".to_owned())
        );
        for empty in ["", "a*", "\\b", "^", "(a|)", "$"] {
            assert_eq!(
                refused(empty),
                Some("it matches the empty text, and so everywhere".to_owned()),
                "{empty}"
            );
        }
        for large in ["(a{1000}){1000}", &"a".repeat(1_025)] {
            assert!(refused(large).is_some_and(|told| told.starts_with("it is too large")), "{large}");
        }
        assert!(
            refused(&("(".repeat(100) + "a" + &")".repeat(100))).is_some_and(|told| told.contains("column"))
        );
        // No look-around and no back references, which would make a search take longer than the text is.
        assert!(refused("(?=a)a").is_some() && refused(r"(a)\1").is_some());
    }
}
