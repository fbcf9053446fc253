//! What must hold of every token and every key set that a stranger may send, as a function of its bytes.
//!
//! A fuzzer (`tests/fuzz`) calls it with inputs that it makes up, and the test below with those that are kept. Always holds: it
//! panics where its properties do not hold, and with the same input always or never. No part of the product: it is compiled
//! for tests, and by `tests/fuzz`, which takes these modules as they stand.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::algorithm::Algorithm;
use crate::binding::Binding;
use crate::compact::Compact;
use crate::json;
use crate::key_set::{KEYS_MAX, KeySet};
use crate::rules::{Rules, Trusted};

/// RFC 7515, A.3, whose private half the fuzzer does not know how to use, and RFC 8037, A.2.
const KEYS: &str = concat!(
    r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","#,
    r#""y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},"#,
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
);

/// A token, a key set, or claims.
pub(crate) fn token(input: &[u8]) {
    if let Some(object) = json::object(input) {
        // What is read strictly is read by others in the same way.
        assert_eq!(serde_json::from_slice::<Value>(input).ok(), Some(Value::Object(object)));
    }
    let read = KeySet::parse(input);
    if let Ok(keys) = &read {
        assert!((1..=KEYS_MAX).contains(&keys.len()) && keys.len() + keys.left_out() <= KEYS_MAX);
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(token) = Compact::parse(text) else { return };
    // One token has one spelling.
    let signature = URL_SAFE_NO_PAD.encode(&token.signature);
    let payload = URL_SAFE_NO_PAD.encode(&token.payload);
    let signed = std::str::from_utf8(token.signed).expect("it is part of a text");
    assert_eq!(format!("{signed}.{signature}"), text);
    assert_eq!(signed.split_once('.').map(|(_, payload)| payload), Some(payload.as_str()));
    let rules = Rules::new(Trusted {
        issuer: "https://id.example.com".to_owned(),
        audiences: ["gantry".to_owned()].into(),
        algorithms: Algorithm::ALL.into(),
        authorized_party: None,
        skew: Duration::from_secs(60),
        age_max: None,
        binding: Binding::Certificate,
    });
    let rules = rules.expect("rules");
    let keys = KeySet::parse(KEYS.as_bytes()).expect("keys");
    assert!(rules.check(&token, &keys, UNIX_EPOCH + Duration::from_secs(1_800_000_000)).is_err());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_token_and_key_set_that_is_kept_is_refused_or_has_one_spelling() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/token");
        let mut files: Vec<_> = fs::read_dir(&folder)
            .expect("the corpus is there")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            // Shown when it panics.
            println!("{}", file.display());
            super::token(&fs::read(&file).expect("an input"));
        }
    }
}
