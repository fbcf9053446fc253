//! What was said of a caller that policies may ask for, as records tell it.
//!
//! Always holds: known forms of secrets are taken out of it. Groups and scopes are read from the claims `groups`, `scope` and
//! `scp` where no admin named others, so nobody here chose what stands in them. It is made once for a token that was verified
//! and not at every call by it; tokens of which no record tells it cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Identity;
use crate::audit::redaction::redact_text;

/// What records tell of an identity, made when the first of them is written. It is no part of what the identity is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(OnceLock<Box<RawValue>>);

#[derive(Serialize)]
struct Line<'a> {
    groups: BTreeSet<String>,
    scopes: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, BTreeSet<String>>,
}

impl PartialEq for Told {
    fn eq(&self, _: &Told) -> bool {
        true
    }
}

impl Eq for Told {}

impl Identity {
    /// What records tell of it, as JSON.
    pub(crate) fn told(&self) -> &RawValue {
        self.told.0.get_or_init(|| {
            let redacted = |words: &BTreeSet<String>| words.iter().map(|word| redact_text(word)).collect();
            let tags = self.tags.iter().map(|(tag, words)| (tag.as_str(), redacted(words))).collect();
            let line = Line { groups: redacted(&self.groups), scopes: redacted(&self.scopes), tags };
            // Texts by texts have a JSON form; were that lost, the record would tell nothing of the token.
            to_raw_value(&line).unwrap_or_else(|_| RawValue::NULL.to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_tell_what_a_token_said_without_secrets_and_without_making_it_another() {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        let identity = Identity {
            provider: "corp".parse().expect("a name"),
            client: "bot".to_owned(),
            user: None,
            actors: Vec::new(),
            groups: set(&["AKIAIOSFODNN7EXAMPLE", "staff"]),
            scopes: set(&["repo", "sk-0123456789abcdefghij"]),
            tags: BTreeMap::from([("team".to_owned(), set(&["postgres://bob:hunter2@db/x"]))]),
            ends_at: 0,
            bound_to: None,
            told: Told::default(),
        };
        let untold = identity.clone();
        let expected = r#"{"groups":["[redacted]","staff"],"scopes":["[redacted]","repo"],"tags":{"team":["[redacted]db/x"]}}"#;
        assert_eq!(identity.told().get(), expected);
        assert!(std::ptr::eq(identity.told(), identity.told()), "it is made once");
        assert_eq!(identity, untold);
        let sent = serde_json::to_string(&identity).expect("JSON");
        assert!(!sent.contains("told"), "nodes do not send it to each other: {sent}");
        assert_eq!(serde_json::from_str::<Identity>(&sent).expect("an identity"), identity);
    }
}
