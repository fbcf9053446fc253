//! What is taken out, in whatever parts the answer comes.

use gantry_model::inspection::Detector;

use super::*;

fn detectors() -> Detectors {
    [Detector::Keys, Detector::Emails, Detector::Cards, Detector::Ibans]
        .into_iter()
        .fold(Detectors::default(), Detectors::with)
}

/// The answer in parts of a size, and how much was taken out.
fn redacted(answer: &[u8], part: usize, fields: &[&str]) -> (String, u64) {
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    let mut redactor = Redactor::new(detectors(), &fields);
    let mut out = Vec::new();
    for bytes in answer.chunks(part) {
        redactor.push(bytes, &mut out);
    }
    redactor.finish(&mut out);
    (String::from_utf8_lossy(&out).into_owned(), redactor.taken())
}

fn in_all_parts(answer: &str, fields: &[&str]) -> (String, u64) {
    let whole = redacted(answer.as_bytes(), answer.len().max(1), fields);
    for part in [1, 2, 3, 7, 64] {
        assert_eq!(redacted(answer.as_bytes(), part, fields), whole, "in parts of {part}");
    }
    whole
}

#[test]
fn a_plain_text_loses_what_is_found_and_nothing_else() {
    let text = "mail ann@example.com or pay 4111111111111111 to DE89370400440532013000";
    let expected = "mail [redacted: e-mail] or pay [redacted: card] to [redacted: account]";
    assert_eq!(redact(text, &detectors()), expected);
    assert!(matches!(redact("nothing to see", &detectors()), Cow::Borrowed("nothing to see")));
}

#[test]
fn an_answer_loses_what_is_found_in_its_texts_in_whatever_parts_it_comes() {
    let answer = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"a\nAKIAIOSFODNN7EXAMPLE\t\u0061nn@example.com"}],"n":4111111111111111}}"#;
    let expected = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"a\n[redacted: key]\t[redacted: e-mail]"}],"n":4111111111111111}}"#;
    assert_eq!(in_all_parts(answer, &[]), (expected.to_owned(), 2));
}

#[test]
fn what_has_nothing_in_it_passes_byte_for_byte() {
    for answer in [
        r#"{"a":"\u00e9\ud83d\ude00\\\"","b":[1,2.5e3,true,null],"c":{}}"#,
        "{ \"a\" : \"b\" ,\n \"c\\\\\" : \"\" }",
        "event: message\nid: \"5\ndata: {\"a\":\"b\"}\n\n: a \"comment\n\n",
        "\"not closed \\",
        "",
    ] {
        assert_eq!(in_all_parts(answer, &["secret"]), (answer.to_owned(), 0), "{answer}");
    }
}

#[test]
fn events_are_redacted_as_answers_are_and_never_held_beyond_their_line() {
    let mut redactor = Redactor::new(detectors(), &[]);
    let mut out = Vec::new();
    redactor.push(b": it's \"odd\nevent: message\ndata: {\"t\":\"ann@example.com\"}\n\n", &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        ": it's \"odd\nevent: message\ndata: {\"t\":\"[redacted: e-mail]\"}\n\n"
    );
}

#[test]
fn what_the_client_said_passes_as_it_is() {
    let answer =
        r#"{"id":"ann@example.com","params":{"progressToken":"bob@example.com","id":"eve@example.com"}}"#;
    let expected =
        r#"{"id":"ann@example.com","params":{"progressToken":"bob@example.com","id":"[redacted: e-mail]"}}"#;
    assert_eq!(in_all_parts(answer, &[]), (expected.to_owned(), 1));
}

#[test]
fn a_named_field_loses_its_value_whatever_it_is() {
    let answer = r#"{"a":{"Pass_Word":"x\"y\\","ssn":123456789,"flag" : true, "deep":{"list":["p",2,{"k":"v"}]},"after":"z"},"ssn2":5}"#;
    let expected = r#"{"a":{"Pass_Word":"[redacted]","ssn":null,"flag" : null, "deep":{"[redacted]":["[redacted]",null,{"[redacted]":"[redacted]"}]},"after":"z"},"ssn2":5}"#;
    let fields = ["password", "ssn", "flag", "deep"];
    assert_eq!(in_all_parts(answer, &fields), (expected.to_owned(), 8));
}

#[test]
fn a_long_text_is_not_held_whole_and_what_is_where_it_is_cut_is_found() {
    let card = "4111 1111 1111 1111";
    for before in (HELD_BYTES_MAX - OVERLAP_BYTES - 30..HELD_BYTES_MAX - OVERLAP_BYTES + 5)
        .chain(HELD_BYTES_MAX - 30..HELD_BYTES_MAX + 5)
    {
        let filler = "x ".repeat(before / 2) + if before % 2 == 1 { " " } else { "" };
        let answer = format!("{{\"t\":\"{filler}{card} {}\"}}", "é\\n".repeat(20_000));
        let (out, taken) = redacted(answer.as_bytes(), 16 * 1024, &[]);
        assert_eq!(taken, 1, "{before}");
        assert_eq!(out, answer.replace(card, "[redacted: card]"), "{before}");
    }
    let mut redactor = Redactor::new(detectors(), &[]);
    let (mut out, mut given) = (Vec::new(), 0);
    redactor.push(b"{\"t\":\"", &mut out);
    for _ in 0..1_000 {
        redactor.push("words and words ".repeat(256).as_bytes(), &mut out);
        given += out.len();
        out.clear();
        assert!(redactor.held.len() <= HELD_BYTES_MAX);
    }
    assert!(given > 1_000 * 4_096 - HELD_BYTES_MAX);
}

#[test]
fn what_is_no_utf_8_passes_and_hides_nothing() {
    let answer = b"{\"t\":\"\xff ann@example.com \xc3\"}";
    let mut redactor = Redactor::new(detectors(), &[]);
    let mut out = Vec::new();
    redactor.push(answer, &mut out);
    assert_eq!(out, b"{\"t\":\"\xff [redacted: e-mail] \xc3\"}");
}
