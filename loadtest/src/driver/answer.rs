//! Whether an answer is right. The first answer of a connection is parsed and proved; a later one
//! that equals a proved one byte for byte, but for the id, needs no parsing. An answer in gzip is unpacked to be proved;
//! of a later one the check sum has to be that of the proved text with the new id.
//!
//! What always holds: every byte of every answer is looked at, so a wrong answer among a million
//! right ones is found. An answer that differs in form is parsed again, never refused for that.

use std::io::Read;

use flate2::{Crc, bufread::GzDecoder};
use memchr::memmem;
use serde_json::Value;

use super::call::{Era, ID_DIGITS, Proof, id_digits};

/// How much of a wrong answer is shown.
const EXCERPT_CHARS: usize = 240;

/// Check sum and length at the end of a gzip member.
const TRAILER_BYTES: usize = 8;

/// A proved answer.
#[derive(Debug)]
pub(super) struct Template {
    /// As it was sent; without its trailer if it was in gzip.
    body: Masked,
    /// What it held, if it was in gzip.
    text: Option<Masked>,
}

/// Bytes with their ids left open.
#[derive(Debug)]
struct Masked {
    bytes: Vec<u8>,
    id_offsets: Vec<usize>,
}

impl Template {
    /// Remembers a proved answer to the call with `id`.
    pub(super) fn of(body: &[u8], id: u64) -> Self {
        Self { body: Masked::of(body, id), text: None }
    }

    /// Remembers a proved answer that held `text` in gzip.
    pub(super) fn of_packed(body: &[u8], text: &[u8], id: u64) -> Self {
        let kept = body.len().saturating_sub(TRAILER_BYTES);
        Self { body: Masked::of(&body[..kept], id), text: Some(Masked::of(text, id)) }
    }

    /// Whether `body` is the remembered answer, with `id` in the place of the id.
    pub(super) fn matches(&mut self, body: &[u8], id: u64) -> bool {
        let Some(text) = &mut self.text else { return self.body.matches(body, id) };
        let Some((body, trailer)) = body.split_last_chunk::<TRAILER_BYTES>() else { return false };
        self.body.matches(body, id) && *trailer == text.trailer(id)
    }
}

impl Masked {
    fn of(bytes: &[u8], id: u64) -> Self {
        let id_offsets = memmem::find_iter(bytes, &id_digits(id)).collect();
        Self { bytes: bytes.to_vec(), id_offsets }
    }

    fn matches(&self, bytes: &[u8], id: u64) -> bool {
        if bytes.len() != self.bytes.len() {
            return false;
        }
        let digits = id_digits(id);
        let mut checked = 0;
        for offset in &self.id_offsets {
            let end = offset + ID_DIGITS;
            if bytes[checked..*offset] != self.bytes[checked..*offset] || bytes[*offset..end] != digits {
                return false;
            }
            checked = end;
        }
        bytes[checked..] == self.bytes[checked..]
    }

    /// What a gzip member of these bytes ends with, with `id` in the place of the id.
    fn trailer(&mut self, id: u64) -> [u8; TRAILER_BYTES] {
        for offset in &self.id_offsets {
            self.bytes[*offset..offset + ID_DIGITS].copy_from_slice(&id_digits(id));
        }
        let mut check = Crc::new();
        check.update(&self.bytes);
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..4].copy_from_slice(&check.sum().to_le_bytes());
        trailer[4..].copy_from_slice(&check.amount().to_le_bytes());
        trailer
    }
}

/// The text of an answer in gzip, at most `bytes_max` of it; an error when it is not one member and no more.
pub(super) fn unpack(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
    let (mut decoder, mut text) = (GzDecoder::new(body), Vec::new());
    let bounded = decoder.by_ref().take(bytes_max as u64).read_to_end(&mut text);
    bounded.map_err(|error| format!("not gzip: {error}"))?;
    match decoder.into_inner() {
        [] => Ok(text),
        rest => Err(format!("{} bytes after the first member of gzip", rest.len())),
    }
}

/// Proves one answer by parsing it.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn prove(proof: &Proof, era: Era, id: u64, body: &[u8]) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {}", excerpt(body)));
    let Some(mut messages) = messages(body) else {
        return wrong("not JSON and not events of JSON");
    };
    let Some(answer) = messages.pop() else {
        return wrong("no message");
    };
    if answer["jsonrpc"] != "2.0" || answer["id"] != id {
        return wrong("not the answer to this call");
    }
    let Some(result) = answer.get("result") else {
        return wrong("not a result");
    };
    if era == Era::Modern && result["resultType"] != "complete" {
        return wrong("not a complete result");
    }
    match proof {
        Proof::Anything => Ok(()),
        Proof::Text { text, progress_count } => {
            if messages.len() != *progress_count || !messages.iter().all(|m| is_progress(m, id)) {
                return wrong("not the expected progress notifications");
            }
            if !is_text(result, text) {
                return wrong("not the expected content");
            }
            Ok(())
        }
        Proof::Tools { names } => {
            if tool_names(result).as_ref() != Some(names) {
                return wrong("not the expected tools");
            }
            Ok(())
        }
    }
}

/// The names of the tools in a list result, sorted; `None` if it is no such result, or a page of one.
pub(super) fn tool_names(result: &Value) -> Option<Vec<String>> {
    if result.get("nextCursor").is_some() {
        return None;
    }
    let tools = result["tools"].as_array()?.iter();
    let names: Option<Vec<String>> = tools.map(|tool| Some(tool["name"].as_str()?.to_owned())).collect();
    let mut names = names?;
    names.sort_unstable();
    Some(names)
}

/// The messages of a body that is either one JSON document or a stream of events.
pub(super) fn messages(body: &[u8]) -> Option<Vec<Value>> {
    if body.first() == Some(&b'{') {
        return serde_json::from_slice(body).ok().map(|message| vec![message]);
    }
    let text = str::from_utf8(body).ok()?.replace("\r\n", "\n");
    let events = text.split("\n\n").map(|event| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    });
    // An event without data is a comment or a priming event, and carries no message.
    events.filter(|data| !data.is_empty()).map(|data| serde_json::from_str(&data).ok()).collect()
}

/// The start of a body, for people.
pub(super) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut excerpt: String = text.chars().take(EXCERPT_CHARS).collect();
    if excerpt.len() < text.len() {
        excerpt.push_str(" ...");
    }
    excerpt.replace(['\n', '\r'], " ")
}

fn is_progress(message: &Value, token: u64) -> bool {
    message["method"] == "notifications/progress" && message["params"]["progressToken"] == token
}

fn is_text(result: &Value, text: &str) -> bool {
    let content = result["content"].as_array().map(Vec::as_slice);
    let Some([item]) = content else {
        return false;
    };
    item["type"] == "text" && item["text"] == text && result["isError"] != true
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u64 = 1_000_000_007;

    fn text_proof(progress_count: usize) -> Proof {
        Proof::Text { text: "hello".to_owned(), progress_count }
    }

    fn body(id: u64, text: &str) -> Vec<u8> {
        let content = serde_json::json!([{ "type": "text", "text": text }]);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":{content}}}}}"#).into_bytes()
    }

    #[test]
    fn a_template_takes_the_same_answer_with_the_new_id_and_nothing_else() {
        let mut template = Template::of(&body(ID, "hello"), ID);
        assert!(template.matches(&body(ID + 1, "hello"), ID + 1));
        assert!(!template.matches(&body(ID, "hello"), ID + 1), "a stale id");
        assert!(!template.matches(&body(ID + 1, "jello"), ID + 1), "another text");
        assert!(!template.matches(&body(ID + 1, "hello "), ID + 1), "another length");
    }

    /// As a server does that keeps the id apart from what it compresses.
    fn packed(text: &[u8], check_of: &[u8]) -> Vec<u8> {
        let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1];
        let length = u16::try_from(text.len()).expect("the test is right");
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(text);
        let trailer = Masked::of(check_of, ID).trailer(ID);
        stream.extend_from_slice(&trailer);
        stream
    }

    #[test]
    fn a_packed_answer_is_unpacked_once_and_then_known_by_its_bytes_and_its_check_sum() {
        let (first, later) = (body(ID, "hello"), body(ID + 1, "hello"));
        assert_eq!(unpack(&packed(&first, &first), 1 << 20), Ok(first.clone()));
        assert!(unpack(&packed(&first, &later), 1 << 20).is_err(), "a wrong check sum");
        let twice = [packed(&first, &first), packed(&first, &first)].concat();
        assert!(unpack(&twice, 1 << 20).is_err(), "a second member");
        let mut template = Template::of_packed(&packed(&first, &first), &first, ID);
        let check = Masked::of(&later, ID + 1).trailer(ID + 1);
        let mut right = packed(&later, &later);
        let end = right.len();
        right[end - TRAILER_BYTES..].copy_from_slice(&check);
        assert!(template.matches(&right, ID + 1));
        assert!(!template.matches(&right, ID + 2), "a stale id");
        right[end - 1] ^= 1;
        assert!(!template.matches(&right, ID + 1), "a wrong length");
        right[end - 1] ^= 1;
        right[end - TRAILER_BYTES] ^= 1;
        assert!(!template.matches(&right, ID + 1), "a wrong check sum");
        assert!(!template.matches(&[], ID + 1), "nothing");
    }

    #[test]
    fn wrong_answers_are_named() {
        let prove = |body: &[u8]| prove(&text_proof(0), Era::Legacy, ID, body);
        assert_eq!(prove(&body(ID, "hello")), Ok(()));
        let cases: [(Vec<u8>, &str); 6] = [
            (body(ID, "jello"), "not the expected content"),
            (body(ID + 1, "hello"), "not the answer to this call"),
            (format!(r#"{{"jsonrpc":"2.0","id":{ID},"error":{{"code":-32602}}}}"#).into(), "not a result"),
            (b"<html>".to_vec(), "no message"),
            (b"{\"jsonrpc\"".to_vec(), "not JSON and not events of JSON"),
            (Vec::new(), "no message"),
        ];
        for (body, what) in cases {
            assert_eq!(prove(&body), Err(format!("{what}: {}", excerpt(&body))));
        }
    }

    #[test]
    fn a_modern_result_has_to_be_complete() {
        let proved = prove(&text_proof(0), Era::Modern, ID, &body(ID, "hello"));
        assert!(proved.is_err_and(|what| what.starts_with("not a complete result")));
    }

    #[test]
    fn the_answer_is_the_last_event_and_all_progress_is_counted() {
        let progress = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{ID}}}}}"#
        );
        let answer = String::from_utf8(body(ID, "hello")).expect("the test is right");
        let stream = format!(
            "id: 1\ndata: \nretry: 100\n\nevent: message\ndata: {progress}\n\n: comment\n\ndata: {answer}\n\n"
        );
        let prove = |count| prove(&text_proof(count), Era::Legacy, ID, stream.as_bytes());
        assert_eq!(prove(1), Ok(()));
        assert!(prove(3).is_err_and(|what| what.starts_with("not the expected progress")));
    }
}
