//! One place that breaks a rule, and the message of the test that found it.

use std::fmt;

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The file, seen from the root of the repository.
    pub(crate) path: String,
    /// The line, counted from one.
    pub(crate) line: usize,
    /// What is there.
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Passes if nothing was found.
///
/// # Panics
/// With every place, and how to mend it, if something was.
pub(crate) fn expect_none(mut findings: Vec<Finding>, mend: &str) {
    if findings.is_empty() {
        return;
    }
    findings.sort();
    let list: String = findings.iter().map(|finding| format!("  {finding}\n")).collect();
    panic!("{} found\n{list}to mend: {mend}", findings.len());
}

#[test]
#[should_panic(expected = "2 found\n  a.rs:2: one\n  b.rs:1: two\nto mend: do so")]
fn the_message_lists_every_place_in_order_and_says_how_to_mend_it() {
    expect_none(vec![Finding::new("b.rs", 1, "two"), Finding::new("a.rs", 2, "one")], "do so");
}
