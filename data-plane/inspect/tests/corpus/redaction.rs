//! An answer that is redacted as it comes says what its texts say that are redacted one by one.
//!
//! A failing case prints its seed; it is the same every time.

use gantry_inspect::{Detectors, Redactor, Written, redact};
use gantry_model::inspection::Detector;
use serde_json::{Map, Value};

use crate::corpus::{self, rng::Rng};

const CASES: u64 = 400;

fn detectors() -> Detectors {
    let all = [Detector::Keys, Detector::Emails, Detector::Cards, Detector::Ibans];
    all.into_iter().fold(Detectors::default(), Detectors::with)
}

fn text(rng: &mut Rng) -> String {
    let index = rng.below(1_000);
    match rng.below(3) {
        0 => corpus::answers::telling(index, rng).text,
        1 => corpus::answers::plain(index, rng).text,
        _ => format!("{}\\\"\u{1}😀", corpus::innocent::prose(rng)),
    }
}

fn value(rng: &mut Rng, depth: usize) -> Value {
    match rng.below(if depth == 0 { 3 } else { 5 }) {
        0 | 1 => Value::String(text(rng)),
        2 => Value::from(rng.below(1_000_000)),
        3 => (0..rng.below(4)).map(|_| value(rng, depth - 1)).collect(),
        _ => {
            let fields =
                (0..rng.below(4)).map(|index| (format!("{index} {}", text(rng)), value(rng, depth - 1)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

fn redacted(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact(text, &detectors()).into_owned()),
        Value::Array(elements) => elements.iter().map(redacted).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields =
                fields.map(|(name, value)| (redact(name, &detectors()).into_owned(), redacted(value)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

/// With every letter that is not plain as an escape, or as it is.
fn written(value: &Value, escapes: bool) -> String {
    let plain = value.to_string();
    if !escapes {
        return plain;
    }
    let mut units = [0; 2];
    let escape =
        |letter: char| letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    let mut escape = escape;
    plain.chars().map(|letter| if letter.is_ascii() { letter.to_string() } else { escape(letter) }).collect()
}

#[test]
fn an_answer_in_parts_is_redacted_as_its_texts_are_one_by_one() {
    let mut changed = 0;
    for seed in 0..CASES {
        let mut rng = Rng::new(seed);
        let answer = value(&mut rng, 4);
        let text = written(&answer, seed % 2 == 1);
        let (mut redactor, mut out, mut at) = (Redactor::new(detectors(), &[], Written::Json), Vec::new(), 0);
        while at < text.len() {
            let end = text.len().min(at + 1 + rng.below(40));
            redactor.push(&text.as_bytes()[at..end], &mut out);
            at = end;
        }
        redactor.finish(&mut out);
        let said: Value = serde_json::from_slice(&out).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(said, redacted(&answer), "seed {seed}");
        if redactor.taken() == 0 {
            assert_eq!(out, text.as_bytes(), "seed {seed}");
        } else {
            changed += 1;
        }
    }
    assert!(changed > 50, "{changed}");
}
