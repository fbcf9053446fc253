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
    let mut redactor = Redactor::new(detectors(), &fields, Written::Json);
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
        "\"not closed \\",
        "",
    ] {
        assert_eq!(in_all_parts(answer, &["secret"]), (answer.to_owned(), 0), "{answer}");
    }
}

#[test]
fn events_are_redacted_as_answers_are_and_never_held_beyond_their_line() {
    let stream = "event: message\nid: \"5\ndata: {\"a\":\"b\"}\n\n: a \"comment\n\n";
    assert_eq!(of_events(stream, &["a b"]), (stream.to_owned(), 0));
    let mut redactor = Redactor::new(detectors(), &[], Written::Events);
    let mut out = Vec::new();
    redactor.push(b": it's \"odd\nevent: message\ndata: {\"t\":\"ann@example.com\"}\n\n", &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        ": it's \"odd\nevent: message\ndata: {\"t\":\"[redacted: e-mail]\"}\n\n"
    );
}

/// The same of events.
fn of_events(stream: &str, fields: &[&str]) -> (String, u64) {
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    let in_parts = |part: usize| {
        let mut redactor = Redactor::new(detectors(), &fields, Written::Events);
        let mut out = Vec::new();
        stream.as_bytes().chunks(part).for_each(|bytes| redactor.push(bytes, &mut out));
        redactor.finish(&mut out);
        (String::from_utf8_lossy(&out).into_owned(), redactor.taken())
    };
    let whole = in_parts(stream.len().max(1));
    for part in [1, 2, 3, 7, 64] {
        assert_eq!(in_parts(part), whole, "in parts of {part}");
    }
    whole
}

#[test]
fn a_message_may_have_several_lines_of_an_event() {
    for end in ["\n", "\r", "\r\n"] {
        let lines = |lines: &[&str]| lines.join(end) + end + end;
        let stream = lines(&[
            "event: message",
            "data: {\"secret\":",
            "data: {\"a\":",
            "data:[1,",
            "data:\"b\"],",
            "data",
            "data: \"c\": true}, \"name\"",
            "data: : \"x\"}",
        ]);
        let expected = lines(&[
            "event: message",
            "data: {\"secret\":",
            "data: {\"[redacted]\":",
            "data:[null,",
            "data:\"[redacted]\"],",
            "data",
            "data: \"[redacted]\": null}, \"name\"",
            "data: : \"[redacted]\"}",
        ]);
        assert_eq!(of_events(&stream, &["secret", "name"]), (expected, 6), "{end:?}");
    }
}

#[test]
fn an_event_that_is_cut_leaves_nothing_to_the_next() {
    for end in ["\n\n", "\r\r", "\r\n\r\n"] {
        let next = "id: \"7\ndata: {\"id\":\"ann@example.com\",\"a\":5}\n\n";
        for cut in ["data: {\"a\":{\"secret\":{\"b\":1", "data: {\"a\":[\"not closed", "data: [[[["] {
            let (out, _) = of_events(&format!("{cut}{end}{next}"), &["secret"]);
            assert!(out.ends_with(next), "{out:?}");
        }
    }
    let marked = "\u{feff}data: {\"t\":\"ann@example.com\"}\n\n";
    assert_eq!(of_events(marked, &[]).1, 1);
}

#[test]
fn a_text_that_is_no_json_is_searched_as_a_whole() {
    let text = "<p>mail \"ann@example.com\n or bob@example.com";
    let mut redactor = Redactor::new(detectors(), &[], Written::Text);
    let mut out = Vec::new();
    text.as_bytes().chunks(5).for_each(|bytes| redactor.push(bytes, &mut out));
    redactor.finish(&mut out);
    let expected = "<p>mail \"[redacted: e-mail]\n or [redacted: e-mail]";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn a_name_is_the_same_however_it_is_written_and_however_long() {
    let long = "x".repeat(256);
    let escaped: String = long.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let answer = format!(
        r#"{{"p\u0061ssword":"a","sch\u00dcssel":"b","SCHÜSSEL":"c","{long}":"d","{escaped}":"e","pass\u005fword"
        : "f"}}"#
    );
    let expected = ["a", "b", "c", "d", "e", "f"]
        .iter()
        .fold(answer.clone(), |answer, value| answer.replace(&format!("\"{value}\""), "\"[redacted]\""));
    assert_eq!(in_all_parts(&answer, &["password", "schüssel", &long]), (expected, 6));
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
    let mut redactor = Redactor::new(detectors(), &[], Written::Json);
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
    let mut redactor = Redactor::new(detectors(), &[], Written::Json);
    let mut out = Vec::new();
    redactor.push(answer, &mut out);
    assert_eq!(out, b"{\"t\":\"\xff [redacted: e-mail] \xc3\"}");
}

#[test]
fn what_is_no_utf_8_costs_no_more_than_its_length() {
    let mut redactor = Redactor::new(detectors(), &[], Written::Json);
    let (mut out, began) = (Vec::new(), std::time::Instant::now());
    let answer = [b"{\"t\":\"".as_slice(), &[0xff].repeat(2 * 1024 * 1024), b"\\n\"}"].concat();
    redactor.push(&answer, &mut out);
    assert_eq!(out, answer);
    assert!(began.elapsed().as_secs() < 30);
}

#[test]
fn how_an_answer_is_written_is_told_by_its_media_type() {
    for (content_type, written) in [
        ("application/json", Written::Json),
        ("Application/JSON; charset=utf-8", Written::Json),
        ("application/problem+json", Written::Json),
        ("text/event-stream;charset=utf-8", Written::Events),
        ("text/html", Written::Text),
        ("application/jsonx", Written::Text),
        ("", Written::Text),
    ] {
        assert_eq!(Written::of(content_type), written, "{content_type}");
    }
}

/// The same with patterns.
fn by_patterns(answer: &str, part: usize, patterns: &[(&str, &str)]) -> (String, u64) {
    let compiled =
        patterns.iter().try_fold(Patterns::default(), |all, (name, pattern)| all.with(name, pattern));
    let mut redactor =
        Redactor::new(Detectors::default(), &[], Written::Json).with_patterns(compiled.expect("patterns"));
    let mut out = Vec::new();
    answer.as_bytes().chunks(part).for_each(|bytes| redactor.push(bytes, &mut out));
    redactor.finish(&mut out);
    (String::from_utf8_lossy(&out).into_owned(), redactor.taken())
}

#[test]
fn an_admins_own_patterns_are_taken_out_by_name_in_whatever_parts_the_answer_comes() {
    let patterns =
        [("employee", "EMP-[0-9]{6}"), ("whole", "^top secret$"), ("place", r"(?i)\bz\u00fcrich\b")];
    let answer = r#"{"a":"EMP-123456 and EMP-12345","b":"top secret","c":"not top secret","d":"Z\u00fcrich, Zürichs, EMP-00\u0030001"}"#;
    let expected = r#"{"a":"[redacted: employee] and EMP-12345","b":"[redacted: whole]","c":"not top secret","d":"[redacted: place], Zürichs, [redacted: employee]"}"#;
    for part in [1, 2, 7, answer.len()] {
        assert_eq!(by_patterns(answer, part, &patterns), (expected.to_owned(), 4), "in parts of {part}");
    }
}

#[test]
fn a_pattern_sees_the_ends_of_a_whole_text_however_long_it_is() {
    let patterns = [("start", "^ab"), ("end", "cd$"), ("word", r"\bef\b")];
    // Wherever a long text is cut, what stands there is no beginning of it.
    for shift in 0..5 {
        let answer = format!("{{\"t\":\"ab{}{}cd\"}}", "x".repeat(shift), "abefcd".repeat(50_000));
        let expected = format!(
            "{{\"t\":\"[redacted: start]{}{}ab[redacted: nothing]\"}}",
            "x".repeat(shift),
            "abefcd".repeat(50_000)
        );
        let expected = expected.replace("ab[redacted: nothing]", "[redacted: end]");
        assert_eq!(by_patterns(&answer, 16 * 1024, &patterns), (expected, 2), "{shift}");
    }
    // What goes on for longer than is held is taken out in parts, and costs no more than its length.
    let long = format!("{{\"t\":\"a begin {}\"}}", "y".repeat(4 * 1024 * 1024));
    let began = std::time::Instant::now();
    let (out, taken) = by_patterns(&long, 16 * 1024, &[("rest", "begin .*")]);
    assert!(out.starts_with("{\"t\":\"a [redacted: rest]") && taken >= 1);
    assert!(began.elapsed().as_secs() < 20);
}
