//! Whether an answer is right. The first answer of a connection is parsed and proved; a later one
//! that equals a proved one byte for byte, but for the id, needs no parsing.
//!
//! What always holds: every byte of every answer is looked at, so a wrong answer among a million
//! right ones is found. An answer that differs in form is parsed again, never refused for that.

use memchr::memmem;
use serde_json::Value;

use super::call::{Era, ID_DIGITS, Proof, id_digits};

/// How much of a wrong answer is shown.
const EXCERPT_CHARS: usize = 240;

/// A proved answer with its ids left open.
#[derive(Debug)]
pub(super) struct Template {
    body: Vec<u8>,
    id_offsets: Vec<usize>,
}

impl Template {
    /// Remembers a proved answer to the call with `id`.
    pub(super) fn of(body: &[u8], id: u64) -> Self {
        let id_offsets = memmem::find_iter(body, &id_digits(id)).collect();
        Self { body: body.to_vec(), id_offsets }
    }

    /// Whether `body` is the remembered answer, with `id` in the place of the id.
    pub(super) fn matches(&self, body: &[u8], id: u64) -> bool {
        if body.len() != self.body.len() {
            return false;
        }
        let digits = id_digits(id);
        let mut checked = 0;
        for offset in &self.id_offsets {
            let end = offset + ID_DIGITS;
            if body[checked..*offset] != self.body[checked..*offset] || body[*offset..end] != digits {
                return false;
            }
            checked = end;
        }
        body[checked..] == self.body[checked..]
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
        let template = Template::of(&body(ID, "hello"), ID);
        assert!(template.matches(&body(ID + 1, "hello"), ID + 1));
        assert!(!template.matches(&body(ID, "hello"), ID + 1), "a stale id");
        assert!(!template.matches(&body(ID + 1, "jello"), ID + 1), "another text");
        assert!(!template.matches(&body(ID + 1, "hello "), ID + 1), "another length");
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
