//! Server-sent events, read piece by piece.
//!
//! Always holds: line ends may be CR, LF or both, also when a piece ends between them; what is kept of an unfinished
//! event is bounded by the caller's bound on the answer.

/// Collects pieces and gives the data of finished events.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
}

impl Events {
    /// Takes a piece of the stream and returns the data of the events that it finished.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut finished = Vec::new();
        for byte in piece {
            let follows_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if follows_cr => {}
                b'\r' | b'\n' => finished.extend(self.end_line()),
                byte => self.line.push(*byte),
            }
        }
        finished
    }

    /// How many bytes of an unfinished event are kept.
    pub(super) fn kept(&self) -> usize {
        self.line.len() + self.data.len()
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return std::mem::take(&mut self.has_data).then_some(data);
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_in_any_pieces_and_with_any_line_end() {
        let stream =
            "id: 1\ndata: \nretry: 5\n\n: note\nevent: message\ndata: {\"a\":\ndata:1}\n\ndata: x\n\n";
        let expected = vec![b"".to_vec(), b"{\"a\":\n1}".to_vec(), b"x".to_vec()];
        for end in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', end);
            for size in 1..=stream.len() {
                let mut events = Events::default();
                let mut found: Vec<_> =
                    stream.as_bytes().chunks(size).flat_map(|piece| events.push(piece)).collect();
                // A last CR cannot tell yet whether an LF follows, and ends the line all the same.
                found.extend(events.push(b""));
                assert_eq!(found, expected, "{end:?} in pieces of {size}");
            }
        }
    }
}
