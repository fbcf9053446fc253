//! Arguments as they stand in records: without what looks like a secret, and not at full length.
//!
//! Always holds: the value of a field whose name says that it is secret is never written, whatever its type; a text
//! in which a known form of secret is found is written without it. Redaction is a net, not a proof: a secret
//! without a telling name or form passes.

use std::borrow::Cow;
use std::sync::LazyLock;

use gantry_inspect::Detectors;
use gantry_model::inspection::Detector;
use regex::Regex;
use serde_json::{Map, Value};

/// What stands in place of a secret.
const MARK: &str = "[redacted]";
/// Most bytes of all arguments of one record; beyond, their size is written instead.
pub(crate) const ARGUMENTS_BYTES_MAX: usize = 8 * 1024;
/// Most characters of one text.
const TEXT_CHARS_MAX: usize = 1_024;
/// Most elements of one array or object.
const ELEMENTS_MAX: usize = 64;

/// A field whose name has one of these in it, without regard to case, `_` and `-`, is secret.
const TELLING_NAMES: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "credential",
    "cookie",
    "bearer",
    "signature",
    "sessionid",
    "clientkey",
    "pincode",
];

/// Forms of secrets that are known by sight.
static KNOWN_FORMS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"gantry_[0-9a-f]{16}_[0-9a-f]{64}",                         // our own keys
        r"|(?:AKIA|ASIA)[0-9A-Z]{16}",                               // AWS access key ids
        r"|gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{22,}", // GitHub
        r"|glpat-[0-9A-Za-z_\-]{20,}",                               // GitLab
        r"|xox[abposr]-[0-9A-Za-z\-]{10,}",                          // Slack
        r"|sk-[0-9A-Za-z_\-]{20,}",                                  // OpenAI, Anthropic
        r"|(?:sk|rk)_live_[0-9A-Za-z]{16,}",                         // Stripe
        r"|AIza[0-9A-Za-z_\-]{35}",                                  // Google
        r"|eyJ[0-9A-Za-z_\-]{8,}\.[0-9A-Za-z_\-]{8,}\.[0-9A-Za-z_\-]*", // JWT
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*",               // PEM
        r"|(?i:bearer|basic)\s+[0-9A-Za-z._~+/\-]{16,}=*",           // Authorization values
        r"|[a-zA-Z][a-zA-Z0-9+.\-]*://[^\s/:@]+:[^\s/@]+@",          // URL with a password
    ))
    .ok()
});

/// The forms that are taken out of answers and stopped in arguments, too: what is a secret there is one in a record.
static KEYS: LazyLock<Detectors> = LazyLock::new(|| Detectors::default().with(Detector::Keys));

/// The arguments as JSON, redacted.
pub(crate) fn redact(arguments: &Value) -> String {
    let json = redact_value(arguments, Length::Cut).to_string();
    if json.len() <= ARGUMENTS_BYTES_MAX {
        return json;
    }
    format!("\"[{} bytes]\"", json.len())
}

/// The same for whoever has to judge all of it: nothing is cut. `None`: it would be longer than [`ARGUMENTS_BYTES_MAX`].
pub(crate) fn redact_whole(arguments: &Value) -> Option<String> {
    let json = redact_value(arguments, Length::Whole).to_string();
    (json.len() <= ARGUMENTS_BYTES_MAX).then_some(json)
}

/// Whether long texts, arrays and objects are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Cut,
    Whole,
}

fn redact_value(value: &Value, length: Length) -> Value {
    let elements_max = match length {
        Length::Cut => ELEMENTS_MAX,
        Length::Whole => usize::MAX,
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => Value::String(redact_at(text, length)),
        Value::Array(elements) => {
            let kept = elements.iter().take(elements_max).map(|element| redact_value(element, length));
            let mut kept: Vec<Value> = kept.collect();
            if elements.len() > elements_max {
                kept.push(Value::String(format!("[{} more]", elements.len() - elements_max)));
            }
            Value::Array(kept)
        }
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (name, value) in fields.iter().take(elements_max) {
                let value = if is_telling(name) {
                    Value::String(MARK.to_owned())
                } else {
                    redact_value(value, length)
                };
                // A secret may also stand where a name should.
                put(&mut kept, redact_at(name, length), value);
            }
            if fields.len() > elements_max {
                let more = format!("[{} more]", fields.len() - elements_max);
                put(&mut kept, "...".to_owned(), Value::String(more));
            }
            Value::Object(kept)
        }
    }
}

/// Keeps a field, with the number of its place where another has come to the same name.
fn put(kept: &mut Map<String, Value>, name: String, value: Value) {
    let mut own = name.clone();
    let mut number = kept.len() + 1;
    while kept.contains_key(&own) {
        own = format!("{name} ({number})");
        number += 1;
    }
    kept.insert(own, value);
}

/// A text without known forms of secrets, and not at full length.
pub(crate) fn redact_text(text: &str) -> String {
    redact_at(text, Length::Cut)
}

fn redact_at(text: &str, length: Length) -> String {
    let redacted = match KNOWN_FORMS.as_ref() {
        Some(forms) => forms.replace_all(text, MARK),
        // Without the patterns nothing can be told apart, so nothing is shown.
        None => Cow::Borrowed(MARK),
    };
    let redacted = gantry_inspect::redact(&redacted, &KEYS);
    if length == Length::Whole {
        return redacted.into_owned();
    }
    match redacted.char_indices().nth(TEXT_CHARS_MAX) {
        None => redacted.into_owned(),
        Some((end, _)) => format!("{}[{} bytes]", &redacted[..end], redacted.len()),
    }
}

fn is_telling(name: &str) -> bool {
    let plain: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    TELLING_NAMES.iter().any(|telling| plain.contains(telling))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_with_telling_names_are_not_written() {
        let arguments = json!({
            "user": "ann", "Pass_Word": "x", "api-key": {"a": 1}, "nested": [{"access_token": "t"}], "count": 3
        });
        let expected = json!({
            "user": "ann", "Pass_Word": MARK, "api-key": MARK, "nested": [{"access_token": MARK}], "count": 3
        });
        assert_eq!(redact(&arguments), expected.to_string());
    }

    #[test]
    fn secrets_known_by_sight_are_cut_out_of_texts() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc";
        for (text, expected) in [
            ("key AKIAIOSFODNN7EXAMPLE here".to_owned(), format!("key {MARK} here")),
            (format!("jwt {jwt}"), format!("jwt {MARK}")),
            (format!("gantry_{}_{}", "0".repeat(16), "a".repeat(64)), MARK.to_owned()),
            ("Authorization: Bearer abcdefghijklmnop123".to_owned(), format!("Authorization: {MARK}")),
            ("postgres://bob:hunter2@db/x".to_owned(), format!("{MARK}db/x")),
            // A form that the filters know.
            (format!("npm_{}", "a1B2c3D4e5F6".repeat(3)), "[redacted: key]".to_owned()),
            ("nothing to see".to_owned(), "nothing to see".to_owned()),
        ] {
            assert_eq!(redact_text(&text), expected);
        }
    }

    #[test]
    fn names_that_come_to_the_same_hide_nothing() {
        let [one, other] = ["AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLF"];
        let redacted = redact(&json!({one: 1, other: 2, "[redacted] (2)": 3}));
        assert_eq!(redacted, json!({MARK: 1, "[redacted] (2)": 2, "[redacted] (2) (3)": 3}).to_string());
    }

    #[test]
    fn who_judges_sees_the_whole_or_nothing() {
        let text = "x".repeat(TEXT_CHARS_MAX + 10);
        let many: Vec<usize> = (0..ELEMENTS_MAX + 1).collect();
        let arguments = json!({"text": text, "many": many, "password": "p"});
        let expected = json!({"text": text, "many": many, "password": MARK});
        assert_eq!(redact_whole(&arguments), Some(expected.to_string()));
        assert_eq!(redact_whole(&json!({"text": "x".repeat(ARGUMENTS_BYTES_MAX)})), None);
    }

    #[test]
    fn long_arguments_are_cut() {
        let redacted = redact(&json!({"text": "x".repeat(TEXT_CHARS_MAX + 10)}));
        assert!(redacted.ends_with(&format!("x[{} bytes]\"}}", TEXT_CHARS_MAX + 10)), "{redacted}");
        let many: Vec<String> = (0..40).map(|_| "y".repeat(1_000)).collect();
        assert_eq!(redact(&json!({"many": many})), "\"[40130 bytes]\"");
    }
}
