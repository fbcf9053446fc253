//! Problems of a policy's text, each at its place.
//!
//! Always holds: a place is counted from 1 in lines and characters, as editors count; 0 is "unknown". It only words
//! what others found.

use std::fmt;

use cedar_policy::ffi::DetailedError;

/// Most characters of a message or of a quoted id in it. Ids may have the length of the whole text, and nobody reads on.
const QUOTE_CHARS_MAX: usize = 240;

/// Why a policy's text is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, from 1; 0 when unknown.
    pub line: u32,
    /// Character in the line, from 1; 0 when unknown.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What may help, such as the nearest known name.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(formatter, "line {}, column {}: ", self.line, self.column)?;
        }
        formatter.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(formatter, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// A problem of the text as a whole.
    pub(crate) fn of_text(message: impl Into<String>, help: Option<&str>) -> Problem {
        Problem { line: 0, column: 0, message: message.into(), help: help.map(str::to_owned) }
    }

    /// A problem at an offset in bytes.
    pub(crate) fn at(
        text: &str,
        offset: usize,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) -> Problem {
        let (line, column) = place(text, offset);
        Problem { line, column, message: message.into(), help: help.into() }
    }

    /// What Cedar found.
    pub(crate) fn from_cedar(text: &str, found: &DetailedError) -> Problem {
        let label = found.source_locations.first();
        let (line, column) = label.map_or((0, 0), |label| place(text, label.loc.start));
        let help = found.help.as_deref().or(label.and_then(|label| label.label.as_deref()));
        let help = help.map(|help| shorten(without_policy(help)));
        Problem { line, column, message: shorten(without_policy(&found.message)), help }
    }
}

/// Line and column of an offset in bytes.
pub(crate) fn place(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    let column = 1 + before[line_start..].chars().count();
    // A text is bounded far below these types' range.
    (u32::try_from(line).unwrap_or(0), u32::try_from(column).unwrap_or(0))
}

/// Cuts a long text.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Cedar opens with "for policy `policy0`, "; that id is internal, and the place says more.
fn without_policy(message: &str) -> &str {
    let rest = message.strip_prefix("for policy `").and_then(|rest| rest.split_once('`'));
    match rest {
        Some((_, rest)) => rest.trim_start_matches([',', ':', ' ']),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_lines_and_characters() {
        let text = "añb\n\r\n  x";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, 3), (1, 3));
        assert_eq!(place(text, text.len() - 1), (3, 3));
        assert_eq!(place(text, text.len()), (3, 4));
        assert_eq!(place("", 9), (1, 1));
    }

    #[test]
    fn a_problem_reads_as_one_line() {
        let problem = Problem::at("permit", 2, "wrong", "right".to_owned());
        assert_eq!(problem.to_string(), "line 1, column 3: wrong (right)");
        assert_eq!(Problem::of_text("wrong", None).to_string(), "wrong");
        assert_eq!(shorten(&"é".repeat(300)).chars().count(), QUOTE_CHARS_MAX + 3);
    }
}
