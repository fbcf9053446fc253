//! What a path says: where it leads, and whether it says so openly.
//!
//! Always holds: `/` and `\` both separate, as a tool on some system takes them; escapes (`%2e`) are undone at most
//! [`ROUNDS_MAX`] times, so that what was escaped twice is seen; nothing is looked up on a disk, so that links are not
//! followed.

use std::borrow::Cow;

/// How often escapes are undone: once by a server, once by what it calls, and once more.
const ROUNDS_MAX: usize = 3;

const CLIMBS: &str = "climbs above its start";
const ENCODED: &str = "encoded climb";
const ALIKE: &str = "look-alike of a climb";
const NUL: &str = "zero byte";

/// Says how a text that is said to be a path leaves where it begins.
pub(crate) fn traversal(text: &str) -> Option<&'static str> {
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Some(NUL);
    }
    if climbs(text) {
        return Some(CLIMBS);
    }
    if !text.is_ascii() && climbs(&plain_forms(text)) {
        return Some(ALIKE);
    }
    undone(text, |decoded| match decoded {
        _ if decoded.contains('\0') => Some(NUL),
        _ if climbs(decoded) || climbs(&plain_forms(decoded)) => Some(ENCODED),
        _ => None,
    })
    // A `..` that is escaped has no other purpose, even where it stays below its start.
    .or_else(|| hidden_traversal(text))
}

/// The same for a text of which nothing is said: only what nobody writes who has nothing to hide.
pub(crate) fn hidden_traversal(text: &str) -> Option<&'static str> {
    memchr::memchr(b'%', text.as_bytes())?;
    let has_escape = |text: &str| {
        text.as_bytes().windows(3).any(|part| {
            let digits = [part[1].to_ascii_lowercase(), part[2].to_ascii_lowercase()];
            part[0] == b'%'
                && matches!(&digits, b"2e" | b"2f" | b"5c" | b"25" | b"c0" | b"c1" | b"e0" | b"u0")
        })
    };
    if !has_escape(text) {
        return None;
    }
    let before = count_climbs(text);
    undone(text, |decoded| (count_climbs(decoded) > before).then_some(ENCODED))
}

/// What policies may know of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Without `.`, `..` and doubled separators, and with `/` between its parts; escapes stay as they are.
    pub normalised: String,
    /// Whether it begins at a root, a drive or a share.
    pub is_absolute: bool,
    /// Whether it leads above where it begins.
    pub escapes: bool,
    /// Whether it leads elsewhere once escapes are undone, or what looks like a dot is one.
    pub is_disguised: bool,
}

/// Reads a path.
pub fn read(text: &str) -> Path {
    let is_absolute = is_absolute(text);
    let (mut parts, mut above) = (Vec::new(), 0_usize);
    for part in components(text) {
        match part {
            ".." if parts.pop().is_none() => above += 1,
            ".." => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    let normalised = match is_absolute {
        // A root has nothing above it.
        true => format!("/{joined}"),
        false => format!("{}{joined}", "../".repeat(above)),
    };
    let is_disguised = matches!(traversal(text), Some(ENCODED | ALIKE | NUL));
    Path { normalised, is_absolute, escapes: climbs(text), is_disguised }
}

fn is_absolute(text: &str) -> bool {
    let text = text.strip_prefix("file:").unwrap_or(text);
    let has_drive =
        text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && text.as_bytes().get(1) == Some(&b':');
    text.starts_with(['/', '\\', '~']) || has_drive
}

/// The parts that lead somewhere. `..;x` is `..` to some servers, and so is `.. ` to some systems.
fn components(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix("file:").unwrap_or(text);
    text.split(['/', '\\']).filter_map(|part| match part {
        "" | "." => None,
        part if part.starts_with("..") && is_parent(part) => Some(".."),
        part => Some(part),
    })
}

fn is_parent(part: &str) -> bool {
    let part = part.split(';').next().unwrap_or(part);
    part.trim_end_matches([' ', '\t']) == ".."
}

/// Whether a path leads above where it begins: for a relative one its directory, for an absolute one the first directory
/// that it names.
fn climbs(text: &str) -> bool {
    if memchr::memmem::find(text.as_bytes(), b"..").is_none() {
        return false;
    }
    let least = usize::from(is_absolute(text));
    let mut depth = 0_usize;
    for part in components(text) {
        match part {
            ".." if depth <= least => return true,
            ".." => depth -= 1,
            // What is left of it where somebody takes `../` out of it.
            "...." => return true,
            _ => depth += 1,
        }
    }
    false
}

/// How many parts of a text, of whatever kind, are `..` before a separator.
fn count_climbs(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_climb = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let is_begin = before.is_none_or(|byte| b"/\\=:\"' \n(,".contains(byte));
        is_begin && matches!(bytes.get(at + 2), Some(b'/' | b'\\'))
    };
    memchr::memmem::find_iter(bytes, b"..").filter(|at| is_climb(*at)).count()
}

/// Undoes escapes round by round, and hands each to `judge` until it says something.
fn undone(text: &str, judge: impl Fn(&str) -> Option<&'static str>) -> Option<&'static str> {
    let mut current = Cow::Borrowed(text);
    for _ in 0..ROUNDS_MAX {
        let decoded = decode(&current)?;
        if let Some(what) = judge(&decoded) {
            return Some(what);
        }
        current = Cow::Owned(decoded);
    }
    None
}

/// Undoes escapes once; `None` where there are none. What is no UTF-8 then is taken for the ASCII that lenient readers make
/// of it.
fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut at = memchr::memchr(b'%', bytes)?;
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..at]);
    let mut has_any = false;
    while let Some(&byte) = bytes.get(at) {
        let digit = |ahead: usize| bytes.get(at + ahead).and_then(|byte| (*byte as char).to_digit(16));
        // IIS takes `%u002e` too.
        let wide = matches!(bytes.get(at + 1), Some(b'u' | b'U'));
        let low = match (byte, wide) {
            (b'%', true) => digit(4).zip(digit(5)).filter(|_| bytes.get(at + 2..at + 4) == Some(b"00")),
            (b'%', false) => digit(1).zip(digit(2)),
            _ => None,
        };
        match low {
            Some((high, low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += if wide { 6 } else { 3 };
                has_any = true;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    has_any.then(|| lenient(decoded))
}

/// Text of bytes. Overlong forms (`C0 AE` for `.`) are what they are meant to be.
fn lenient(bytes: Vec<u8>) -> String {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return text,
        Err(error) => error.into_bytes(),
    };
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let (byte, length) = match (*first, after) {
            (0xc0 | 0xc1, [second, ..]) => (((first & 1) << 6) | (second & 0x3f), 2),
            (0xe0, [second, third, ..]) if *second < 0xa0 => (((second & 1) << 6) | (third & 0x3f), 3),
            (first, _) => (first, 1),
        };
        plain.push(byte);
        rest = rest.get(length..).unwrap_or_default();
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Dots and slashes of other widths and scripts as the plain ones, which is what some systems make of them.
fn plain_forms(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\u{ff0e}' | '\u{2024}' | '\u{fe52}' => plain.push('.'),
            '\u{2025}' => plain.push_str(".."),
            '\u{ff0f}' | '\u{2215}' | '\u{2044}' | '\u{29f8}' => plain.push('/'),
            '\u{ff3c}' | '\u{2216}' | '\u{fe68}' | '\u{29f9}' => plain.push('\\'),
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_stays_where_it_begins_passes() {
        for text in [
            "src/lib.rs",
            "./a/../b",
            "/home/ann/project/../other",
            "C:\\Users\\ann\\x\\..\\y",
            "a..b/..c/...",
            "./...",
            "100%25.txt",
            "caf%C3%A9/r%C3%A9sum%C3%A9.pdf",
            "/",
            "",
        ] {
            assert_eq!(traversal(text), None, "{text}");
        }
    }

    #[test]
    fn a_path_that_leaves_is_found_however_it_is_written() {
        for (text, what) in [
            ("../x", CLIMBS),
            ("a/../../x", CLIMBS),
            ("a\\..\\..\\x", CLIMBS),
            ("/var/www/../../etc/passwd", CLIMBS),
            ("~/../x", CLIMBS),
            ("file:///data/../etc/passwd", CLIMBS),
            ("..;/x", CLIMBS),
            (".. /x", CLIMBS),
            ("....//....//x", CLIMBS),
            ("%2e%2e/x", ENCODED),
            ("%2e%2e%2fx", ENCODED),
            ("..%2fx", ENCODED),
            ("..%5cx", ENCODED),
            ("%252e%252e%252fx", ENCODED),
            ("%25252e%25252e/x", ENCODED),
            ("..%c0%afx", ENCODED),
            ("%c0%ae%c0%ae/x", ENCODED),
            ("%e0%80%ae%e0%80%ae/x", ENCODED),
            ("%u002e%u002e/x", ENCODED),
            ("\u{ff0e}\u{ff0e}/x", ALIKE),
            ("..\u{2215}x", ALIKE),
            ("a.txt\0.png", NUL),
            ("a.txt%00.png", NUL),
        ] {
            // `..` alone is a part of its own, so these climb without a decoder as well.
            let found = traversal(text);
            let is_told = found == Some(what) || (text.starts_with("..") && found.is_some());
            assert!(is_told, "{text}: {found:?}");
        }
    }

    #[test]
    fn any_text_may_have_climbs_but_not_hidden_ones() {
        for text in
            ["use ../lib", "import x from '../../lib'", "100%", "50%2f", "a%20b", "%2e%2e", "5%25..10%25"]
        {
            assert_eq!(hidden_traversal(text), None, "{text}");
        }
        for text in ["x=%2e%2e%2fetc", "/a/..%252f..%252fb", "..%c0%afetc", "%2e%2e/%2e%2e/etc/passwd"] {
            assert_eq!(hidden_traversal(text), Some(ENCODED), "{text}");
        }
    }

    #[test]
    fn a_path_is_read_for_policies() {
        let path = |normalised: &str, is_absolute, escapes, is_disguised| Path {
            normalised: normalised.to_owned(),
            is_absolute,
            escapes,
            is_disguised,
        };
        assert_eq!(read("a//./b/../c"), path("a/c", false, false, false));
        assert_eq!(read("a/../../c"), path("../c", false, true, false));
        assert_eq!(read("/a/../../c"), path("/c", true, true, false));
        assert_eq!(read("\\\\share\\x"), path("/share/x", true, false, false));
        assert_eq!(read("a/%2e%2e/%2e%2e/c"), path("a/%2e%2e/%2e%2e/c", false, false, true));
    }
}
