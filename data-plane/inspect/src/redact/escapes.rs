//! A text of JSON as it is meant, and where each letter of it stands as it is written.
//!
//! Always holds: a place of the text that was found is a place between escapes, never within one. What is no UTF-8, or
//! an escape of nothing, is taken for the sign of what cannot be read.

use std::borrow::Cow;

pub(super) struct Unescaped<'r> {
    raw: &'r [u8],
    text: Cow<'r, str>,
    /// Where runs begin in the text, and as they are written. Within a run, both go on alike.
    runs: Vec<(usize, usize)>,
}

impl<'r> Unescaped<'r> {
    pub(super) fn new(raw: &'r [u8]) -> Unescaped<'r> {
        match std::str::from_utf8(raw) {
            Ok(text) if memchr::memchr(b'\\', raw).is_none() => {
                Unescaped { raw, text: Cow::Borrowed(text), runs: Vec::new() }
            }
            _ => Unescaped::decode(raw),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Where a place of the text stands as it is written.
    pub(super) fn raw(&self, place: usize) -> usize {
        let index = self.runs.partition_point(|(text, _)| *text <= place);
        let (text, raw) =
            index.checked_sub(1).and_then(|index| self.runs.get(index)).copied().unwrap_or_default();
        raw + (place - text)
    }

    /// The place between two letters that is nearest to `wanted`, as it is written: before it, or behind the escape that
    /// it is within.
    pub(super) fn cut(&self, wanted: usize) -> usize {
        if wanted >= self.raw.len() {
            return self.raw.len();
        }
        let index = self.runs.partition_point(|(_, raw)| *raw <= wanted);
        let run = index.checked_sub(1).and_then(|index| self.runs.get(index)).copied().unwrap_or_default();
        let next = self.runs.get(index).map_or(self.text.len(), |(text, _)| *text);
        let mut place = (run.0 + (wanted - run.1)).min(next);
        while !self.text.is_char_boundary(place) {
            place -= 1;
        }
        self.raw(place)
    }

    fn decode(raw: &'r [u8]) -> Unescaped<'r> {
        let (mut text, mut runs, mut at) = (String::with_capacity(raw.len()), Vec::new(), 0);
        while at < raw.len() {
            let escaped = memchr::memchr(b'\\', &raw[at..]).map_or(raw.len(), |offset| at + offset);
            // Searched for once, however often it is no UTF-8 up to there.
            while at < escaped {
                at += push_plain(&mut text, &mut runs, &raw[at..escaped], at);
            }
            if at == raw.len() {
                break;
            }
            let (letter, length) = escape(&raw[at..]);
            runs.push((text.len(), at));
            text.push(letter);
            at += length;
        }
        runs.push((text.len(), raw.len()));
        Unescaped { raw, text: Cow::Owned(text), runs }
    }
}

/// Adds what has no escapes, up to what is no UTF-8, and that as one sign.
fn push_plain(text: &mut String, runs: &mut Vec<(usize, usize)>, plain: &[u8], at: usize) -> usize {
    runs.push((text.len(), at));
    match std::str::from_utf8(plain) {
        Ok(good) => {
            text.push_str(good);
            plain.len()
        }
        Err(error) => {
            let good = error.valid_up_to();
            text.push_str(std::str::from_utf8(plain.get(..good).unwrap_or_default()).unwrap_or_default());
            runs.push((text.len(), at + good));
            text.push(char::REPLACEMENT_CHARACTER);
            good + error.error_len().unwrap_or(plain.len() - good)
        }
    }
}

/// The letter that an escape stands for, and how long it is.
fn escape(rest: &[u8]) -> (char, usize) {
    let letter = match rest.get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'u') => return unicode(rest),
        Some(byte) if byte.is_ascii() => char::from(*byte),
        Some(_) | None => return (char::REPLACEMENT_CHARACTER, 1),
    };
    (letter, 2)
}

fn unicode(rest: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 2.min(rest.len())) };
    if let (0xd800..=0xdbff, Some(second @ 0xdc00..=0xdfff)) = (first, unit(6)) {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}
