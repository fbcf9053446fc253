//! Which parts of a file are compiled for tests only.

use std::ops::Range;

use crate::functions::{closing, end_of_item};

/// The parts of masked source behind a `#[cfg(test)]`, attribute included. All of it behind a `#![cfg(test)]`.
pub(crate) fn test_regions(code: &str) -> Vec<Range<usize>> {
    let mut regions: Vec<Range<usize>> = Vec::new();
    for attribute in attributes(code).filter(|attribute| is_cfg_test(&code[attribute.clone()])) {
        if code[attribute.clone()].starts_with("#!") {
            return std::iter::once(0..code.len()).collect();
        }
        if regions.last().is_none_or(|last| last.end <= attribute.start) {
            regions.push(attribute.start..end_of_attributed(code, attribute.end));
        }
    }
    regions
}

/// The names of the modules that masked source takes from files of their own for tests only.
pub(crate) fn test_modules(code: &str) -> Vec<String> {
    let module = |region: Range<usize>| {
        let item = code[region].trim_end().strip_suffix(';')?.trim_end();
        let (before, name) = item.rsplit_once(' ')?;
        before.ends_with("mod").then(|| name.to_owned())
    };
    test_regions(code).into_iter().filter_map(module).collect()
}

/// The attributes of masked source, from `#` to `]`.
pub(crate) fn attributes(code: &str) -> impl Iterator<Item = Range<usize>> {
    code.match_indices('#').filter_map(|(start, _)| {
        let rest = &code[start + 1..];
        let open = start + 1 + usize::from(rest.starts_with('!'));
        code[open..].starts_with('[').then(|| start..closing(code, open))
    })
}

fn is_cfg_test(attribute: &str) -> bool {
    let inside = attribute.trim_start_matches(['#', '!', '[']);
    inside.starts_with("cfg(test)") || inside.starts_with("cfg(all(test,")
}

/// The offset past what an attribute stands before.
fn end_of_attributed(code: &str, from: usize) -> usize {
    let mut at = from;
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if !code[at..].starts_with("#[") {
            break;
        }
        at = closing(code, at + 1);
    }
    let first = code[at..].split(|c: char| !c.is_alphanumeric() && c != '_').find(|word| !word.is_empty());
    match first.unwrap_or_default() {
        // A list in braces does not end an import.
        "use" | "let" | "static" | "type" => code[at..].find(';').map_or(code.len(), |end| at + end + 1),
        "pub" | "mod" | "fn" | "async" | "const" | "impl" | "struct" | "enum" | "trait" | "unsafe" => {
            end_of_item(code, at)
        }
        _ => end_of_field(code, at),
    }
}

/// The offset past a field, a variant, a match arm or a statement.
fn end_of_field(code: &str, from: usize) -> usize {
    let bytes = code.as_bytes();
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b',' | b';' => return at + 1,
            b')' | b']' | b'}' => return at,
            b'(' | b'[' | b'{' => at = closing(code, at),
            _ => at += 1,
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::{test_modules, test_regions};
    use crate::mask::mask;

    /// The source with `-` for every character of a region.
    fn shown(text: &str) -> String {
        let regions = test_regions(&mask(text));
        text.char_indices()
            .map(|(at, c)| if regions.iter().any(|region| region.contains(&at)) { '-' } else { c })
            .collect()
    }

    #[test]
    fn a_region_is_the_item_behind_the_attribute() {
        assert_eq!(shown("a;#[cfg(test)] mod tests { { } }b;"), "a;------------------------------b;");
        assert_eq!(
            shown("#[cfg(test)] #[x] pub fn f() -> [u8; 2] { }b;"),
            "-------------------------------------------b;"
        );
        assert_eq!(shown("#[cfg(test)] mod faults;b;"), "------------------------b;");
        assert_eq!(shown("#[cfg(test)] use a::{b, c};d;"), "---------------------------d;");
        assert_eq!(shown("S { #[cfg(test)] a: B<C>, d }"), "S { --------------------- d }");
        assert_eq!(shown("S { #[cfg(test)] a: B }"), "S { ------------------}");
    }

    #[test]
    fn other_conditions_are_no_regions() {
        for text in ["#[cfg(unix)] fn f() {}", "#[cfg(not(test))] fn f() {}", "\"#[cfg(test)]\" f() {}"] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown("#[cfg(all(test, unix))] fn f() {}"), "-".repeat(33));
        assert_eq!(shown("#![cfg(test)]\nfn f() {}"), "-".repeat(23));
    }

    #[test]
    fn modules_in_files_of_their_own_are_named() {
        let text = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod faults;\n#[cfg(test)] mod t { mod u; }\nmod v;";
        assert_eq!(test_modules(&mask(text)), ["tests", "faults"]);
    }
}
