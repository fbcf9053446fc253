//! One Rust file: its text, its code without comments and literals, and what is where in it.

use std::ops::Range;

use crate::finding::Finding;
use crate::functions::{Function, functions, words};
use crate::mask::mask;
use crate::test_regions::{test_modules, test_regions};

/// What the code of a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Code that others call.
    Library,
    /// A program that people run and that may print: the CLI, the yardstick, examples, build scripts.
    Program,
    /// Tests, and what they stand on.
    Test,
}

/// A Rust file.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file, seen from the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the insides of literals blanked out.
    pub(crate) code: String,
    pub(crate) role: Role,
    pub(crate) functions: Vec<Function>,
    test_regions: Vec<Range<usize>>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = mask(text);
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            role: role(path),
            functions: functions(&code),
            test_regions: test_regions(&code),
            code,
        }
    }

    /// The line of an offset, counted from one.
    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Whether the code at an offset runs in tests only.
    pub(crate) fn is_test(&self, offset: usize) -> bool {
        self.role == Role::Test || self.test_regions.iter().any(|region| region.contains(&offset))
    }

    /// The innermost function around an offset.
    pub(crate) fn function_at(&self, offset: usize) -> Option<&Function> {
        self.functions.iter().rev().find(|function| (function.start..function.end).contains(&offset))
    }

    pub(crate) fn finding(&self, offset: usize, what: impl Into<String>) -> Finding {
        Finding::new(&self.path, self.line(offset), what)
    }

    /// The offsets of a word that stands between `before` and `after` without blanks.
    pub(crate) fn places<'a>(
        &'a self,
        before: &'a [&'a str],
        word: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = usize> + 'a {
        words(&self.code).filter(move |(_, found)| *found == word).map(|(at, _)| at).filter(move |at| {
            let (head, tail) = (&self.code[..*at], &self.code[at + word.len()..]);
            tail.starts_with(after)
                && (before.is_empty() || before.iter().any(|before| head.ends_with(before)))
        })
    }

    /// How many lines it has without a module `tests` at its end.
    pub(crate) fn line_count(&self) -> usize {
        let end = self.code.trim_end().len();
        let is_tests = |region: &&Range<usize>| {
            region.end == end && words(&self.code[(*region).clone()]).any(|(_, word)| word == "tests")
        };
        let trailing = self.test_regions.last().filter(is_tests);
        let counted = trailing.map_or(self.text.len(), |region| region.start);
        self.text[..counted].trim_end().lines().count()
    }

    /// The paths, without their ending, of the modules that it takes from other files for tests only.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let base = if matches!(name, "lib" | "main") { folder } else { stem };
        test_modules(&self.code).into_iter().map(|module| format!("{base}/{module}")).collect()
    }
}

/// What a file is for, as far as its path tells.
fn role(path: &str) -> Role {
    let mut folders: Vec<_> = path.split('/').collect();
    let file = folders.pop().unwrap_or_default();
    if folders.contains(&"tests") || file == "tests.rs" {
        Role::Test
    } else if matches!(folders.first(), Some(&"cli" | &"loadtest"))
        || folders.contains(&"examples")
        || folders.contains(&"benches")
        || file == "build.rs"
    {
        Role::Program
    } else {
        Role::Library
    }
}

#[cfg(test)]
mod tests {
    use super::{Role, Source, role};

    #[test]
    fn the_role_follows_from_the_path() {
        for (path, expected) in [
            ("control-plane/src/store.rs", Role::Library),
            ("control-plane/src/store/tests.rs", Role::Test),
            ("control-plane/src/store/tests/damage.rs", Role::Test),
            ("control-plane/tests/kill.rs", Role::Test),
            ("control-plane/examples/commits.rs", Role::Program),
            ("proto/wire/build.rs", Role::Program),
            ("cli/src/main.rs", Role::Program),
            ("tests/src/dev.rs", Role::Test),
        ] {
            assert_eq!(role(path), expected, "{path}");
        }
    }

    #[test]
    fn a_file_is_measured_without_the_tests_at_its_end() {
        let body = "//! A file.\n\nfn f() {}\n";
        let tests = "\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
        assert_eq!(Source::new("a.rs", body).line_count(), 3);
        assert_eq!(Source::new("a.rs", &format!("{body}{tests}")).line_count(), 3);
        assert_eq!(Source::new("a.rs", &format!("{body}{tests}fn h() {{}}\n")).line_count(), 9);
    }

    #[test]
    fn a_place_is_found_by_its_neighbours_and_knows_its_function() {
        let source = Source::new(
            "a.rs",
            "fn a() {\n x.open() // x.open()\n}\nfn b() {\n reopen(); X::open(y); open }\n",
        );
        let places = |before: &[&str], after: &str| -> Vec<(usize, String)> {
            source
                .places(before, "open", after)
                .map(|at| (source.line(at), source.function_at(at).map_or(String::new(), |f| f.name.clone())))
                .collect()
        };
        assert_eq!(places(&["."], "("), [(2, "a".to_owned())]);
        assert_eq!(places(&[".", "::"], ""), [(2, "a".to_owned()), (5, "b".to_owned())]);
        assert_eq!(places(&[], "").len(), 3);
    }

    #[test]
    fn modules_for_tests_only_are_found_where_rust_looks_for_them() {
        let text = "#[cfg(test)]\nmod faults;\n";
        assert_eq!(Source::new("a/src/store.rs", text).test_modules(), ["a/src/store/faults"]);
        assert_eq!(Source::new("a/src/lib.rs", text).test_modules(), ["a/src/faults"]);
    }
}
