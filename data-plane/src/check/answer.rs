//! The answer to a request, asked about before it is handed on.
//!
//! Always holds: nothing of an answer, or of one event of a stream, is handed on before every service that is asked of
//! answers has let it pass, or has failed and lets pass what it says nothing of; what passes is what was shown, byte for
//! byte, or what was put in its place. Held is at most as much as the largest bound of these services says, and what came
//! with it. The first event that is refused ends the answer. Who drops the answer ends the questions.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gantry_model::resource::CheckPhase;
use gantry_wire::check_v1 as wire;

use super::{Checker, Failure, Notes, Verdict};
use crate::mcp::json;
use crate::mcp::message::Id;
use crate::mcp::{Era, sse::EventScanner};
use crate::rejection::{Checked, Context, Rejection};
use crate::reply::event;

/// What is asked of the answer to one request.
pub(crate) struct AnswerChecks {
    checkers: Vec<Arc<Checker>>,
    subject: wire::Subject,
    id: Option<Id>,
    era: Era,
    notes: Notes,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It goes on as it came.
    AsItIs,
    /// This goes on in its place.
    Replaced(String),
    /// It does not go on.
    Refused(Checked),
}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// As a JSON-RPC message.
    Json,
    /// As a text that is none.
    Text,
}

impl AnswerChecks {
    /// `None`: nobody is asked of answers.
    pub(crate) fn of<'c>(
        checkers: impl Iterator<Item = &'c Arc<Checker>>,
        subject: impl FnOnce() -> wire::Subject,
        (id, era): (Option<&Id>, Era),
        notes: &Notes,
    ) -> Option<AnswerChecks> {
        let asked = checkers.filter(|checker| checker.is_asked(CheckPhase::Answer));
        let checkers: Vec<Arc<Checker>> = asked.cloned().collect();
        (!checkers.is_empty()).then(|| AnswerChecks {
            checkers,
            subject: subject(),
            id: id.cloned(),
            era,
            notes: notes.clone(),
        })
    }

    /// Most bytes of one message that anybody is shown.
    pub(crate) fn bytes_max(&self) -> usize {
        let bounds = self.checkers.iter().map(|checker| bound(checker));
        bounds.max().unwrap_or_default()
    }

    /// Of a message that is larger than anybody is shown, whether it passes.
    pub(crate) fn too_large(&self) -> Passed {
        for checker in &self.checkers {
            let failed = Err(Failure::TooLarge);
            self.notes.note(checker, CheckPhase::Answer, &failed, std::time::Duration::ZERO);
            if !checker.is_open() {
                return Passed::Refused(Checked::Failed);
            }
        }
        Passed::AsItIs
    }

    /// Asks about one message.
    pub(crate) async fn ask(&self, message: &[u8], written: Written, index: u32) -> Passed {
        let mut replaced: Option<String> = None;
        for checker in &self.checkers {
            let began = Instant::now();
            let shown = replaced.as_deref().map_or(message, str::as_bytes);
            let said = match std::str::from_utf8(shown) {
                _ if shown.len() > bound(checker) => Err(Failure::TooLarge),
                Err(_) => Err(Failure::Unreadable),
                Ok(text) => {
                    checker.answer(self.subject.clone(), text, index).await.and_then(|said| match &said {
                        Verdict::Replace(other) if written == Written::Json && !is_alike(text, other) => {
                            Err(Failure::Unreadable)
                        }
                        _ => Ok(said),
                    })
                }
            };
            self.notes.note(checker, CheckPhase::Answer, &said, began.elapsed());
            match said {
                Ok(Verdict::Allow) => {}
                Ok(Verdict::Replace(text)) => replaced = Some(text),
                Ok(Verdict::Deny(reason)) => return Passed::Refused(Checked::Denied { reason }),
                Err(_) if checker.is_open() => {}
                Err(_) => return Passed::Refused(Checked::Failed),
            }
        }
        replaced.map_or(Passed::AsItIs, Passed::Replaced)
    }

    /// What the agent is told in place of an answer; `None`: nobody waits for one.
    pub(crate) fn refusal(&self, why: Checked) -> Option<Bytes> {
        let id = self.id.as_ref()?;
        let context = Context { id: Some(id), era: self.era, decision_id: &self.subject.decision_id };
        let what = self.subject.target.clone();
        Some(Rejection::Checked { what, why, is_answer: true }.message_for(context))
    }
}

fn bound(checker: &Checker) -> usize {
    usize::try_from(checker.spec.max_answer_bytes).unwrap_or(usize::MAX)
}

/// Whether a message may stand in place of another: of the same id, and of the same kind.
fn is_alike(message: &str, other: &str) -> bool {
    let kind = |text| {
        let [id, method, result, error] = json::fields(text, &["id", "method", "result", "error"]).ok()?;
        let id = id.map(|id| id.get().to_owned());
        Some((id, method.map(|method| method.get().to_owned()), result.is_some() || error.is_some()))
    };
    kind(message).is_some_and(|kind_of_message| kind(other) == Some(kind_of_message))
}

/// Divides a stream into its events, byte for byte.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    held: Vec<u8>,
    /// Where the line begins that was not read to its end.
    line: usize,
}

impl Splitter {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// How much is held of an event that has not ended.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// The next event with the empty line that ends it.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let rest = self.held.get(self.line..).unwrap_or_default();
            let end = self.line + memchr::memchr2(b'\n', b'\r', rest)?;
            let after = match (self.held[end], self.held.get(end + 1)) {
                (b'\r', Some(b'\n')) => end + 2,
                // Its other half may come yet, and would else be taken for an empty line.
                (b'\r', None) => return None,
                _ => end + 1,
            };
            let is_empty = end == self.line;
            self.line = after;
            if is_empty {
                let next = self.held.split_off(after);
                self.line = 0;
                return Some(std::mem::replace(&mut self.held, next));
            }
        }
    }

    /// What came without an end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.line = 0;
        std::mem::take(&mut self.held)
    }
}

/// The data of an event, as a client reads it; `None`: it has none.
pub(crate) fn data_of(event: &[u8]) -> Option<Vec<u8>> {
    let mut scanner = EventScanner::with_limit(event.len());
    let mut data = None;
    scanner.scan(event, |found| data = Some(found.to_vec()));
    // It may have come without its end.
    scanner.scan(b"\n\n", |found| data = Some(found.to_vec()));
    data
}

/// The same event with other data.
pub(crate) fn with_data(raw: &[u8], data: &str) -> Vec<u8> {
    let lines = raw.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty());
    let others = lines.filter(|line| !line.starts_with(b"data") && !line.starts_with(b"event"));
    let mut made: Vec<u8> = others.flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
    made.extend_from_slice(&event(data.as_bytes()));
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_divided_into_events_byte_for_byte_in_whatever_parts_it_comes() {
        for end in ["\n", "\r\n", "\r"] {
            let first = format!(": x{end}id: 5{end}data: a{end}data: b{end}{end}");
            let second = format!("data: c{end}{end}");
            let stream = format!("{first}{second}data: d");
            for part in [1, 2, 3, stream.len()] {
                let (mut splitter, mut events) = (Splitter::default(), Vec::new());
                for bytes in stream.as_bytes().chunks(part) {
                    splitter.push(bytes);
                    events.extend(std::iter::from_fn(|| splitter.next()));
                }
                events.push(splitter.rest());
                let events: Vec<_> =
                    events.iter().map(|event| String::from_utf8_lossy(event).into_owned()).collect();
                assert_eq!(events, [first.as_str(), second.as_str(), "data: d"], "{end:?} {part}");
            }
        }
    }

    #[test]
    fn the_data_of_an_event_is_what_a_client_reads() {
        let data =
            |event: &str| data_of(event.as_bytes()).map(|data| String::from_utf8_lossy(&data).into_owned());
        assert_eq!(data("id: 5\ndata: a\ndata:b\n\n").as_deref(), Some("a\nb"));
        assert_eq!(data("data: cut").as_deref(), Some("cut"));
        assert_eq!(data(": comment\n\n"), None);
        let changed = with_data(b"event: message\nid: 5\ndata: a\ndata: b\n\n", "{\"x\":\n1}");
        assert_eq!(String::from_utf8_lossy(&changed), "id: 5\nevent: message\ndata: {\"x\":\ndata: 1}\n\n");
    }

    #[test]
    fn only_a_message_of_the_same_id_and_kind_stands_in_place_of_one() {
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
        assert!(is_alike(answer, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
        assert!(is_alike(answer, r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#));
        for other in [
            r#"{"jsonrpc":"2.0","id":2,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            "no message",
        ] {
            assert!(!is_alike(answer, other), "{other}");
        }
    }
}
