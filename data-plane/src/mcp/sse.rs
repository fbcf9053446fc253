//! Events of a stream (`text/event-stream`), found while the bytes pass.
//!
//! Always holds: nothing is held back; the scanner keeps a copy of the data of the event under way, at most
//! [`EVENT_BYTES_MAX`] bytes of it.

use bytes::Bytes;

/// Most bytes of one event's data that are kept for inspection. Larger events pass, and are not looked into.
pub(crate) const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of an event's name that are kept; longer ones are cut, and none that means something is so long.
const NAME_BYTES_MAX: usize = 32;

/// What a stream may begin with, and what is no part of its first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The fields that are looked at.
const DATA: &[u8] = b"data";
const NAME: &[u8] = b"event";

/// Finds events in a stream of bytes.
#[derive(Debug)]
pub(crate) struct EventScanner {
    bytes_max: usize,
    line: Vec<u8>,
    /// More of the line came than is kept.
    line_is_cut: bool,
    is_first_line: bool,
    name: Vec<u8>,
    data: Vec<u8>,
    overlong: bool,
    after_return: bool,
}

impl Default for EventScanner {
    fn default() -> EventScanner {
        EventScanner::with_limit(EVENT_BYTES_MAX)
    }
}

impl EventScanner {
    /// A scanner that keeps up to `bytes_max` bytes of an event; at least so many that a field's name is known.
    pub(crate) fn with_limit(bytes_max: usize) -> EventScanner {
        EventScanner {
            bytes_max: bytes_max.max(BYTE_ORDER_MARK.len() + NAME.len() + 1),
            line: Vec::new(),
            line_is_cut: false,
            is_first_line: true,
            name: Vec::new(),
            data: Vec::new(),
            overlong: false,
            after_return: false,
        }
    }

    /// Looks at the next bytes; calls `event` with the data of each event that they complete.
    pub(crate) fn scan(&mut self, bytes: &[u8], mut event: impl FnMut(&[u8])) {
        self.scan_named(bytes, |_, data| event(data));
    }

    /// As [`EventScanner::scan`], with the event's name before its data; empty when it has none.
    pub(crate) fn scan_named(&mut self, mut bytes: &[u8], mut event: impl FnMut(&[u8], &[u8])) {
        if !bytes.is_empty() && std::mem::take(&mut self.after_return) {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            self.keep(&bytes[..end]);
            self.end_line(&mut event);
            let is_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_return {
                // The other half of a line end may come with the next bytes.
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.keep(bytes);
    }

    fn keep(&mut self, part: &[u8]) {
        let room = self.bytes_max - self.line.len();
        let kept = part.get(..room).unwrap_or(part);
        self.line.extend_from_slice(kept);
        self.line_is_cut |= kept.len() < part.len();
    }

    fn end_line(&mut self, event: &mut impl FnMut(&[u8], &[u8])) {
        let is_first = std::mem::take(&mut self.is_first_line);
        let line = match self.line.strip_prefix(BYTE_ORDER_MARK) {
            Some(line) if is_first => line,
            _ => &self.line,
        };
        if line.is_empty() {
            if !self.data.is_empty() && !self.overlong {
                event(&self.name, &self.data);
            }
            self.name.clear();
            self.data.clear();
            self.overlong = false;
        } else if let Some(value) = value_of(DATA, line) {
            let separator: &[u8] = if self.data.is_empty() { b"" } else { b"\n" };
            if self.line_is_cut || self.data.len() + separator.len() + value.len() > self.bytes_max {
                self.overlong = true;
            } else {
                self.data.extend_from_slice(separator);
                self.data.extend_from_slice(value);
            }
        } else if let Some(name) = value_of(NAME, line) {
            self.name.clear();
            self.name.extend_from_slice(name.get(..NAME_BYTES_MAX).unwrap_or(name));
        }
        self.line.clear();
        self.line_is_cut = false;
        debug_assert!(self.data.len() <= self.bytes_max, "what is kept is bounded");
    }
}

/// The value of a line that begins with a field. A field without a colon has an empty value.
fn value_of<'a>(field: &[u8], line: &'a [u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(field)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// A message as an event. JSON may have line ends between its parts; each line is one of the event's.
pub(crate) fn event(message: &[u8]) -> Bytes {
    let mut event = b"event: message\n".to_vec();
    for line in message.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line);
        event.push(b'\n');
    }
    event.push(b'\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> Vec<String> {
        let mut scanner = EventScanner::default();
        let mut found = Vec::new();
        for chunk in chunks {
            scanner.scan(chunk.as_bytes(), |data| found.push(String::from_utf8_lossy(data).into_owned()));
        }
        found
    }

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let stream = "id: 1\r\ndata: \r\nretry: 5\r\n\r\nevent: message\ndata: {\"a\":1}\n\n: comment\n\ndata:x\ndata: y\n\n";
        let expected = vec!["{\"a\":1}".to_owned(), "x\ny".to_owned()];
        assert_eq!(events(&[stream]), expected);
        let bytes: Vec<String> = stream.chars().map(String::from).collect();
        let single: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(events(&single), expected);
        assert_eq!(events(&["data: x\r", "", "\n\r", "\n"]), vec!["x".to_owned()]);
        assert_eq!(events(&["data: unfinished"]), Vec::<String>::new());
    }

    #[test]
    fn an_event_has_the_last_name_that_it_was_given_and_leaves_none_to_the_next() {
        let mut scanner = EventScanner::default();
        let mut found = Vec::new();
        let long = "n".repeat(2 * NAME_BYTES_MAX);
        let stream = format!(
            "event: a\nevent:endpoint\ndata: x\n\ndata: y\n\nevent: lost\n\ndata: z\nevent: {long}\n\n"
        );
        for byte in stream.as_bytes() {
            scanner.scan_named(&[*byte], |name, data| {
                found.push(String::from_utf8_lossy(&[name, b"=", data].concat()).into_owned());
            });
        }
        let cut = format!("{}=z", "n".repeat(NAME_BYTES_MAX));
        assert_eq!(found, ["endpoint=x", "=y", &cut]);
    }

    #[test]
    fn an_event_beyond_the_limit_is_passed_over_and_the_next_is_found() {
        let long = format!("data: {}\n\ndata: next\n\n", "x".repeat(2 * EVENT_BYTES_MAX));
        assert_eq!(events(&[&long]), vec!["next".to_owned()]);
    }

    #[test]
    fn a_line_beyond_the_limit_does_not_end_its_event() {
        let found = |stream: &str| {
            let mut scanner = EventScanner::with_limit(32);
            let mut found = Vec::new();
            scanner.scan(stream.as_bytes(), |data| found.push(String::from_utf8_lossy(data).into_owned()));
            found
        };
        let long = "x".repeat(40);
        assert_eq!(found(&format!("data: a\ndata: {long}\ndata: b\n\ndata: c\n\n")), ["c"]);
        // What is not data has no part in it.
        assert_eq!(found(&format!("data: a\n: {long}\ndata: b\n\n")), ["a\nb"]);
    }

    #[test]
    fn a_byte_order_mark_hides_no_event() {
        assert_eq!(events(&["\u{feff}data: a\n\n\u{feff}data: b\n\n"]), ["a"]);
        assert_eq!(events(&["\u{feff}\n", "data: a\n\n"]), ["a"]);
    }
}
