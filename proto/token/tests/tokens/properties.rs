//! What holds of every token.

use std::sync::LazyLock;

use gantry_token::{Algorithm, Compact, KeySet};
use proptest::prelude::*;

use crate::signer::{Signer, claims, jwks, keys, now, rules};

static TOKENS: LazyLock<(KeySet, Vec<String>)> = LazyLock::new(|| {
    let signers = [Signer::rsa("r"), Signer::p256("p"), Signer::p384("q"), Signer::ed25519("e")];
    let all: Vec<&Signer> = signers.iter().collect();
    (keys(&all), signers.iter().map(|signer| signer.token(&claims())).collect())
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_token_with_another_byte_never_counts(which in 0..4_usize, at in any::<prop::sample::Index>(), other: u8) {
        let (keys, tokens) = &*TOKENS;
        let mut bytes = tokens[which].clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != other);
        bytes[at] = other;
        if let Ok(text) = String::from_utf8(bytes) {
            let checked = Compact::parse(&text).and_then(|token| rules(&Algorithm::ALL).check(&token, keys, now()));
            prop_assert!(checked.is_err());
        }
    }

    #[test]
    fn whatever_is_read_is_refused_or_read_and_never_panics(text in "[a-zA-Z0-9_.-]{0,200}", bytes: Vec<u8>) {
        let (keys, _) = &*TOKENS;
        let checked = Compact::parse(&text).and_then(|token| rules(&Algorithm::ALL).check(&token, keys, now()));
        prop_assert!(checked.is_err());
        prop_assert!(KeySet::parse(&bytes).is_err());
    }

    #[test]
    fn a_damaged_key_set_is_refused_or_has_no_other_keys(at in any::<prop::sample::Index>(), other: u8) {
        static SET: LazyLock<Vec<u8>> = LazyLock::new(|| jwks(&[&Signer::p256("p"), &Signer::ed25519("e")]));
        let mut bytes = SET.clone();
        let at = at.index(bytes.len());
        bytes[at] = other;
        if let Ok(set) = KeySet::parse(&bytes) {
            prop_assert!(set.len() <= 2);
        }
    }
}
