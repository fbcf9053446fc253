//! How large files and functions may become, and how a file begins.

use crate::finding::{Finding, expect_none};
use crate::source::Source;
use crate::tree::tree;

/// The length of a file without the tests at its end. A longer one has more than one subject.
const FILE_LINES_MAX: usize = 400;

/// The length of a function. A longer one does not fit on a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// The arguments of a function without `self`. More of them are a structure without a name.
const ARGUMENTS_MAX: usize = 6;

#[test]
fn files_open_with_what_they_are_for() {
    let findings = tree().sources.iter().filter_map(missing_opening).collect();
    expect_none(findings, "open the file with `//!`: its purpose, what always holds, what it does not do");
}

#[test]
fn files_are_short() {
    expect_none(
        tree().sources.iter().filter_map(too_long).collect(),
        "give one of its subjects a file of its own",
    );
}

#[test]
fn functions_are_short() {
    let findings = tree().sources.iter().flat_map(long_functions).collect();
    expect_none(findings, "let one function own the control flow, and move what computes into others");
}

#[test]
fn functions_take_few_arguments() {
    let findings = tree().sources.iter().flat_map(functions_with_many_arguments).collect();
    expect_none(findings, "give arguments that go together a type");
}

fn missing_opening(source: &Source) -> Option<Finding> {
    let opens_well = source.text.starts_with("//!") || source.text.starts_with("#![doc = include_str!(");
    (!opens_well).then(|| Finding::new(&source.path, 1, "does not open with its purpose"))
}

fn too_long(source: &Source) -> Option<Finding> {
    // The package of the tests is measured like others, but for its own folder of tests.
    let path = source.path.strip_prefix("tests/").unwrap_or(&source.path);
    if path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests") {
        return None;
    }
    let lines = source.line_count();
    let what = format!("{lines} lines without tests, {FILE_LINES_MAX} are the most");
    (lines > FILE_LINES_MAX).then(|| Finding::new(&source.path, lines, what))
}

fn long_functions(source: &Source) -> Vec<Finding> {
    let measured = source.functions.iter().map(|function| {
        let lines = source.line(function.end) - source.line(function.start) + 1;
        let what = format!("fn {} has {lines} lines, {FUNCTION_LINES_MAX} are the most", function.name);
        (lines, source.finding(function.start, what))
    });
    measured.filter(|(lines, _)| *lines > FUNCTION_LINES_MAX).map(|(_, finding)| finding).collect()
}

fn functions_with_many_arguments(source: &Source) -> Vec<Finding> {
    let many = source.functions.iter().filter(|function| function.argument_count > ARGUMENTS_MAX);
    many.map(|function| {
        let count = function.argument_count;
        let what = format!("fn {} takes {count} arguments, {ARGUMENTS_MAX} are the most", function.name);
        source.finding(function.start, what)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{functions_with_many_arguments, long_functions, missing_opening, too_long};
    use crate::finding::Finding;
    use crate::source::Source;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path, text)
    }

    #[test]
    fn a_function_of_71_lines_is_found_and_one_of_70_is_not() {
        let function = |lines: usize| format!("//! A.\n\nfn f() {{\n{}}}\n", "    // }\n".repeat(lines - 2));
        assert_eq!(long_functions(&source("a.rs", &function(70))), []);
        let expected = [Finding::new("a.rs", 3, "fn f has 71 lines, 70 are the most")];
        assert_eq!(long_functions(&source("a.rs", &function(71))), expected);
    }

    #[test]
    fn a_file_of_401_lines_is_found_unless_it_is_a_test() {
        let file =
            |lines: usize| format!("{}#[cfg(test)]\nmod tests {{\n}}\n", "const A: u8 = 1;\n".repeat(lines));
        assert_eq!(too_long(&source("a/src/b.rs", &file(400))), None);
        let expected = Some(Finding::new("a/src/b.rs", 401, "401 lines without tests, 400 are the most"));
        assert_eq!(too_long(&source("a/src/b.rs", &file(401))), expected);
        assert!(too_long(&source("tests/src/b.rs", &file(401))).is_some());
        for path in ["a/src/b/tests.rs", "a/src/b/tests/c.rs", "a/tests/b.rs", "tests/tests/b.rs"] {
            assert_eq!(too_long(&source(path, &file(401))), None, "{path}");
        }
    }

    #[test]
    fn a_seventh_argument_is_found_and_self_does_not_count() {
        let six = "fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8, g: HashMap<u8, u8>) {}";
        assert_eq!(functions_with_many_arguments(&source("a.rs", six)), []);
        let expected = [Finding::new("a.rs", 1, "fn f takes 7 arguments, 6 are the most")];
        assert_eq!(functions_with_many_arguments(&source("a.rs", &six.replace("&self", "x: &u8"))), expected);
    }

    #[test]
    fn a_file_opens_with_its_purpose_or_its_readme() {
        for text in ["//! A.\nfn f() {}\n", "#![doc = include_str!(\"../README.md\")]\n"] {
            assert_eq!(missing_opening(&source("a.rs", text)), None, "{text}");
        }
        for text in ["", "// A.\n", "use a;\n//! A.\n", "/// A.\nfn f() {}\n"] {
            assert!(missing_opening(&source("a.rs", text)).is_some(), "{text}");
        }
    }
}
