//! Addresses of mail.
//!
//! Always holds: an address has a name and a domain with a dot whose last label is letters; what names a user of a host
//! (`git@host:path`, `ssh://git@host`) is none.

use std::ops::Range;

/// Longest name before the `@`, and longest domain (RFC 5321).
const NAME_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 255;

pub(super) fn find(bytes: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let mut from = 0;
    for at in memchr::memchr_iter(b'@', bytes) {
        let Some(range) = address(bytes, at).filter(|range| range.start >= from) else { continue };
        from = range.end;
        found(range);
    }
}

fn address(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let before = bytes.get(..at)?;
    let name = before.iter().rev().take(NAME_BYTES_MAX + 1).take_while(|byte| is_name(**byte)).count();
    let mut start = at - name;
    // A dot does not begin a name; it ends a sentence.
    while bytes.get(start) == Some(&b'.') {
        start += 1;
    }
    (start < at && at - start <= NAME_BYTES_MAX && bytes.get(at - 1) != Some(&b'.')).then_some(())?;
    let after = bytes.get(at + 1..)?;
    let mut length = after.iter().take(DOMAIN_BYTES_MAX).take_while(|byte| is_domain(**byte)).count();
    while length > 0 && matches!(after[length - 1], b'.' | b'-') {
        length -= 1;
    }
    let domain = after.get(..length)?;
    let labels = || domain.split(|byte| *byte == b'.');
    let last = labels().next_back()?;
    let is_domain = labels().count() > 1
        && labels().all(|label| !label.is_empty() && !label.starts_with(b"-"))
        && last.len() > 1
        && last.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80)
        // `icon@2x.png`
        && !matches!(domain, [b'1'..=b'4', b'x', b'.', ..]);
    let is_user_of_host = before.get(..start)?.ends_with(b"//") || is_path(after.get(length..)?);
    (is_domain && !is_user_of_host).then(|| start..at + 1 + length)
}

/// Whether `:` and a path follow, without a space.
fn is_path(rest: &[u8]) -> bool {
    matches!(rest, [b':', next, ..] if next.is_ascii_alphanumeric() || matches!(next, b'/' | b'~'))
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || b".!#$%&'*+/=?^_`{|}~-".contains(&byte) && !b"/=?'`{|}".contains(&byte)
        || byte >= 0x80
}

fn is_domain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        find(text.as_bytes(), &mut |range| found.push(&text[range]));
        found
    }

    #[test]
    fn addresses_are_found_in_prose_and_in_markup() {
        for (text, expected) in [
            ("write to ann@example.com.", vec!["ann@example.com"]),
            ("<ann.b+tag@mail.example.co.uk>", vec!["ann.b+tag@mail.example.co.uk"]),
            ("a=ann@example.org&b=1", vec!["ann@example.org"]),
            ("mailto:ann@example.com,bob@example.com", vec!["ann@example.com", "bob@example.com"]),
            ("'ann@example.com'", vec!["ann@example.com"]),
            ("jörg@bücher.example", vec!["jörg@bücher.example"]),
        ] {
            assert_eq!(all(text), expected, "{text}");
        }
    }

    #[test]
    fn what_has_an_at_for_other_reasons_is_none() {
        for text in [
            "git@github.com:org/repo.git",
            "ssh://git@github.com/org/repo",
            "@ann and @bob",
            "npm i @scope/name@1.2.3",
            "python@3.11",
            "icon@2x.png",
            "user@host",
            "a @ b.com",
            "x@.com",
            "@Override",
            "meet @ 5 p.m.",
        ] {
            assert_eq!(all(text), Vec::<&str>::new(), "{text}");
        }
    }
}
