//! How an answer is written, and the lines of events.
//!
//! Always holds: only the lines of a message are read, and they are one text of JSON, in which a line ends nothing but a
//! text; what an event leaves open ends with it.

use super::{Redactor, State};

/// Of the name of a line of an event: more than the one that counts has, behind the mark that a stream may begin with.
const LINE_NAME_BYTES_MAX: usize = 8;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// As one message.
    Json,
    /// As events, each with one.
    Events,
    /// In any other way: as one text, without fields.
    Text,
}

impl Written {
    /// By the media type of the answer.
    pub fn of(content_type: &str) -> Written {
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match &*media {
            "text/event-stream" => Written::Events,
            media if media.ends_with("/json") || media.ends_with("+json") => Written::Json,
            _ => Written::Text,
        }
    }

    pub(super) fn begin(self) -> State {
        match self {
            Written::Json => State::Outside,
            Written::Events => State::LineName,
            Written::Text => State::Held,
        }
    }
}

impl Redactor {
    /// Reads the name of a line; says how far.
    pub(super) fn line_name(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        if std::mem::take(&mut self.after_return) && rest.first() == Some(&b'\n') {
            out.push(b'\n');
            return 1;
        }
        let end = memchr::memchr3(b':', b'\n', b'\r', rest);
        let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        out.extend_from_slice(part);
        let room = LINE_NAME_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(part.get(..room).unwrap_or(part));
        let Some(end) = end else { return rest.len() };
        out.push(rest[end]);
        if rest[end] == b':' {
            let name = self.line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&self.line);
            self.state = if name == b"data" { State::Outside } else { State::LinePassing };
        } else {
            if self.line.is_empty() {
                // The event has ended, whatever its message still wanted.
                (self.depth, self.name, self.within, self.passes) = (0, None, None, false);
            }
            self.end_line(rest[end]);
        }
        self.line.clear();
        end + 1
    }

    pub(super) fn line_passing(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        let end = memchr::memchr2(b'\n', b'\r', rest);
        if let Some(end) = end {
            self.end_line(rest[end]);
        }
        let step = end.map_or(rest.len(), |end| end + 1);
        out.extend_from_slice(rest.get(..step).unwrap_or_default());
        step
    }

    pub(super) fn end_line(&mut self, end: u8) {
        self.state = State::LineName;
        self.after_return = end == b'\r';
    }

    /// Whether a line of an event ends here.
    pub(super) fn is_line_end(&self, byte: u8) -> bool {
        self.written == Written::Events && matches!(byte, b'\n' | b'\r')
    }
}
