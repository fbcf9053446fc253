//! How a command ends: its exit code, and the failure that a person reads.
//!
//! Always holds: a failure names what happened and the next command; it is printed once, by `main`, on standard
//! error. Operations have error types of their own and become a failure here or beside the command.

use std::process::ExitCode;

use crate::output::Paint;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// It failed.
    Error = 1,
    /// The command line was wrong.
    Usage = 2,
    /// `diff` found a difference.
    Differs = 3,
    /// A policy or the server refused.
    Denied = 4,
    /// Somebody who was needed did not answer.
    Unavailable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Told to the person.
    Told {
        /// The exit code.
        exit: Exit,
        /// What happened, in one line.
        message: String,
        /// More lines about it.
        details: Vec<String>,
        /// What to do next; a command where there is one.
        next: String,
    },
    /// Whoever read standard output has left: nobody is there to be told.
    ReaderLeft,
}

impl Failure {
    /// A failure that is told.
    pub(crate) fn new(exit: Exit, message: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure::Told { exit, message: message.into(), details: Vec::new(), next: next.into() }
    }

    /// A failure with exit code 1.
    pub(crate) fn error(message: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure::new(Exit::Error, message, next)
    }

    /// A command line that says something impossible.
    pub(crate) fn usage(message: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message, next)
    }

    /// The same failure with more lines about it.
    pub(crate) fn with_details(self, lines: Vec<String>) -> Failure {
        match self {
            Failure::Told { exit, message, next, .. } => {
                Failure::Told { exit, message, details: lines, next }
            }
            Failure::ReaderLeft => Failure::ReaderLeft,
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Told { exit, .. } => *exit,
            Failure::ReaderLeft => Exit::Done,
        }
    }

    /// What standard error shows.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let Failure::Told { message, details, next, .. } = self else {
            return String::new();
        };
        let mut text = format!("{} {message}\n", paint.red("error:"));
        for detail in details {
            text.push_str("  ");
            text.push_str(detail);
            text.push('\n');
        }
        text.push_str(&format!("{} {next}\n", paint.bold("next:")));
        text
    }
}

/// An error with its causes, outermost first, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_happened_and_what_to_do_next() {
        let failure = Failure::error("it broke", "`gantry status`").with_details(vec!["here".to_owned()]);
        assert_eq!(failure.render(Paint::PLAIN), "error: it broke\n  here\nnext: `gantry status`\n");
        assert_eq!(failure.exit(), Exit::Error);
    }

    #[test]
    fn nobody_is_told_when_the_reader_left() {
        assert_eq!(Failure::ReaderLeft.render(Paint::PLAIN), "");
        assert_eq!(Failure::ReaderLeft.exit(), Exit::Done);
    }
}
