//! Every reason for which a token is refused, and every key that is left out.

use std::time::Duration;

use aws_lc_rs::hmac;
use gantry_token::{
    Algorithm, Compact, KEYS_MAX, KeySet, KeySetError, Rules, RulesError, TOKEN_BYTES_MAX, TokenError,
    Trusted,
};
use serde_json::{Value, json};

use crate::signer::{ISSUER, NOW, Signer, claims, claims_with, encode, jwks, keys, now, rules, trusted};

/// What the rules say to a token, by the keys of these.
fn check(signers: &[&Signer], token: &str) -> Result<String, TokenError> {
    let claims = rules(&Algorithm::ALL).check(&Compact::parse(token)?, &keys(signers), now())?;
    Ok(claims.subject().unwrap_or_default().to_owned())
}

#[test]
fn a_token_of_each_kind_of_key_counts() {
    let signers = [Signer::rsa("r"), Signer::p256("p"), Signer::p384("q"), Signer::ed25519("e")];
    let all: Vec<&Signer> = signers.iter().collect();
    for signer in &signers {
        assert_eq!(check(&all, &signer.token(&claims())), Ok("alice".to_owned()));
    }
    let pss = signers[0].sign(&json!({"alg": "PS256", "kid": "r"}), claims().to_string().as_bytes());
    assert_eq!(check(&all, &pss), Ok("alice".to_owned()));
    // One key of the kind needs no id.
    let nameless = signers[1].sign(&json!({"alg": "ES256"}), claims().to_string().as_bytes());
    assert_eq!(check(&all, &nameless), Ok("alice".to_owned()));
}

#[test]
fn what_is_wrong_with_the_form_or_the_header_is_named() {
    let signer = Signer::p256("p");
    let good = signer.token(&claims());
    let of_header = |header: Value| signer.sign(&header, claims().to_string().as_bytes());
    let parts: Vec<&str> = good.split('.').collect();
    let twice = r#"{"alg":"none","alg":"ES256","kid":"p"}"#;
    let cases = [
        (format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)), TokenError::TooLong),
        (String::new(), TokenError::Form),
        (parts[..2].join("."), TokenError::Form),
        (format!("{good}.x"), TokenError::Form),
        (format!("{good}="), TokenError::Form),
        (good.replace('.', "\u{e9}."), TokenError::Form),
        ("a.b.c.d.e".to_owned(), TokenError::Encrypted),
        (format!("{}.{}.{}", encode("[]"), parts[1], parts[2]), TokenError::Header),
        (format!("{}.{}.{}", encode(twice), parts[1], parts[2]), TokenError::Header),
        (of_header(json!({"kid": "p"})), TokenError::Header),
        (of_header(json!({"alg": 1})), TokenError::Header),
        (of_header(json!({"alg": "ES256", "kid": 1})), TokenError::Header),
        (of_header(json!({"alg": "ES256", "kid": "x".repeat(257)})), TokenError::Header),
        (of_header(json!({"alg": "ES256", "kid": "p", "crit": ["exp"]})), TokenError::Critical),
        (of_header(json!({"alg": "none", "kid": "p"})), TokenError::Algorithm),
        (of_header(json!({"alg": "HS256", "kid": "p"})), TokenError::Algorithm),
        (of_header(json!({"alg": "es256", "kid": "p"})), TokenError::Algorithm),
        (of_header(json!({"alg": "ES256", "kid": "p", "typ": "logout+jwt"})), TokenError::Kind),
        (of_header(json!({"alg": "ES256", "kid": "q"})), TokenError::UnknownKey),
        (of_header(json!({"alg": "RS256", "kid": "p"})), TokenError::OtherKey),
        (format!("{}.{}.", parts[0], parts[1]), TokenError::Signature),
        (format!("{}.{}.{}", parts[0], encode("{}"), parts[2]), TokenError::Signature),
        (signer.sign(&json!({"alg": "ES256", "kid": "p"}), b"[]"), TokenError::Claims),
    ];
    for (token, reason) in cases {
        assert_eq!(check(&[&signer], &token), Err(reason), "{token}");
    }
    for kind in ["JWT", "at+jwt", "application/at+jwt", "AT+JWT"] {
        let token = of_header(json!({"alg": "ES256", "kid": "p", "typ": kind}));
        assert_eq!(check(&[&signer], &token), Ok("alice".to_owned()), "{kind}");
    }
    let nameless = of_header(json!({"alg": "ES256"}));
    assert_eq!(check(&[&signer, &Signer::p256("q")], &nameless), Err(TokenError::NoKeyId));
    // The key that a token brings along is nobody's.
    let stranger = Signer::p256("p");
    let header = json!({"alg": "ES256", "kid": "p", "jwk": stranger.jwk()});
    let brought = stranger.sign(&header, claims().to_string().as_bytes());
    assert_eq!(check(&[&signer], &brought), Err(TokenError::Signature));
}

#[test]
fn an_algorithm_is_the_providers_choice_and_no_public_key_is_a_secret() {
    let (rsa, p256) = (Signer::rsa("r"), Signer::p256("p"));
    let only_rsa = rules(&[Algorithm::Rs256]);
    let both = keys(&[&rsa, &p256]);
    let token = p256.token(&claims());
    let checked = only_rsa.check(&Compact::parse(&token).expect("a token"), &both, now());
    assert_eq!(checked, Err(TokenError::Algorithm));
    // HMAC with what everybody can read: the modulus, or the set itself.
    let jwk = rsa.jwk();
    for secret in [jwk["n"].as_str().unwrap_or_default().as_bytes().to_vec(), jwks(&[&rsa])] {
        for algorithm in ["HS256", "RS256"] {
            let header = json!({"alg": algorithm, "kid": "r"});
            let signed = format!("{}.{}", encode(header.to_string()), encode(claims().to_string()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
            let refused = check(&[&rsa], &format!("{signed}.{}", encode(tag)));
            let reason = if algorithm == "HS256" { TokenError::Algorithm } else { TokenError::Signature };
            assert_eq!(refused, Err(reason));
        }
    }
}

#[test]
fn what_is_wrong_with_the_claims_is_named() {
    let signer = Signer::ed25519("e");
    let cases = [
        ("iss", Value::Null, TokenError::Issuer),
        ("iss", json!("https://id.example.com/"), TokenError::Issuer),
        ("iss", json!([ISSUER]), TokenError::Issuer),
        ("aud", Value::Null, TokenError::Audience),
        ("aud", json!("Gantry"), TokenError::Audience),
        ("aud", json!(["a", 1, ["gantry"]]), TokenError::Audience),
        ("exp", Value::Null, TokenError::Endless),
        ("exp", json!("1900000000"), TokenError::Claims),
        ("exp", json!(-1), TokenError::Claims),
        ("exp", json!(NOW - 60), TokenError::Expired),
        ("nbf", json!(NOW + 61), TokenError::Early),
        ("nbf", json!("soon"), TokenError::Claims),
        ("iat", json!(NOW + 61), TokenError::Future),
        ("cnf", json!({"jkt": "x"}), TokenError::Binding),
        ("cnf", json!({"x5t#S256": encode([7; 32])}), TokenError::Binding),
    ];
    for (name, value, reason) in cases {
        let token = signer.token(&claims_with(name, value.clone()));
        assert_eq!(check(&[&signer], &token), Err(reason), "{name} {value}");
    }
    let counts = [
        ("aud", json!(["other", "gantry"])),
        ("exp", json!(NOW - 59)),
        ("exp", json!(1_800_000_000.5)),
        ("nbf", json!(NOW + 60)),
        ("iat", json!(NOW + 60)),
        ("iat", Value::Null),
    ];
    for (name, value) in counts {
        let token = signer.token(&claims_with(name, value.clone()));
        assert_eq!(check(&[&signer], &token), Ok("alice".to_owned()), "{name} {value}");
    }
    // What only some providers are asked for.
    let strict = Trusted {
        authorized_party: Some("cli".to_owned()),
        age_max: Some(Duration::from_secs(600)),
        ..trusted(&[Algorithm::EdDsa])
    };
    let strict = Rules::new(strict).expect("rules");
    let ask = |claims: &Value| {
        let token = signer.token(claims);
        let checked = strict.check(&Compact::parse(&token).expect("a token"), &keys(&[&signer]), now());
        checked.map(|claims| claims.expires_at())
    };
    assert_eq!(ask(&claims()), Ok(NOW + 600));
    assert_eq!(ask(&claims_with("azp", json!("cli"))), Ok(NOW + 600));
    assert_eq!(ask(&claims_with("azp", json!("other"))), Err(TokenError::AuthorizedParty));
    assert_eq!(ask(&claims_with("iat", json!(NOW - 660))), Ok(NOW + 600));
    assert_eq!(ask(&claims_with("iat", json!(NOW - 661))), Err(TokenError::Old));
    assert_eq!(ask(&claims_with("iat", Value::Null)), Err(TokenError::Old));
}

#[test]
fn rules_that_would_let_anybody_in_are_none() {
    let refused = |change: fn(&mut Trusted)| {
        let mut all = trusted(&[Algorithm::EdDsa]);
        change(&mut all);
        Rules::new(all).map(|_| ())
    };
    assert_eq!(refused(|_| ()), Ok(()));
    assert_eq!(refused(|all| all.issuer.clear()), Err(RulesError::NoIssuer));
    assert_eq!(refused(|all| all.audiences.clear()), Err(RulesError::NoAudience));
    assert_eq!(refused(|all| all.audiences = [String::new()].into()), Err(RulesError::NoAudience));
    assert_eq!(refused(|all| all.algorithms.clear()), Err(RulesError::NoAlgorithm));
    assert_eq!(refused(|all| all.skew = Duration::from_secs(301)), Err(RulesError::Skew));
}

#[test]
fn keys_that_cannot_be_used_are_left_out_and_the_rest_counts() {
    let (rsa, p256, ed25519) = (Signer::rsa("r"), Signer::p256("p"), Signer::ed25519("e"));
    let changed = |signer: &Signer, name: &str, value: Value| {
        let mut jwk = signer.jwk();
        jwk[name] = value;
        jwk
    };
    let useless = [
        json!({"kty": "oct", "kid": "o", "k": "c2VjcmV0"}),
        json!(1),
        changed(&rsa, "use", json!("enc")),
        changed(&rsa, "key_ops", json!(["encrypt"])),
        changed(&rsa, "alg", json!("RSA-OAEP")),
        changed(&rsa, "alg", json!("ES256")),
        changed(&rsa, "d", json!("AQAB")),
        changed(&rsa, "e", json!(encode([2]))),
        changed(&rsa, "e", json!(encode([1]))),
        changed(&rsa, "e", json!(encode([1, 0, 0, 0, 1]))),
        // 2,047 bits.
        changed(&rsa, "n", json!(encode([&[0x7f][..], &[0xff; 255]].concat()))),
        changed(&p256, "crv", json!("P-384")),
        changed(&p256, "x", json!(encode([1; 32]))),
        changed(&ed25519, "x", json!(encode([1; 31]))),
        changed(&ed25519, "kid", json!(7)),
    ];
    let set = |keys: &[Value]| KeySet::parse(json!({"keys": keys}).to_string().as_bytes());
    for key in &useless {
        assert_eq!(set(std::slice::from_ref(key)).map(|_| ()), Err(KeySetError::Unusable(1)), "{key}");
    }
    let all = set(&[&useless[..], &[rsa.jwk()]].concat()).expect("keys");
    assert_eq!((all.len(), all.left_out()), (1, useless.len()));
    let only_pss = set(&[changed(&rsa, "alg", json!("PS256"))]).expect("keys");
    let by_pkcs1 = rsa.token(&claims());
    assert_eq!(only_pss.verify(&Compact::parse(&by_pkcs1).expect("a token")), Err(TokenError::OtherKey));

    let many = vec![p256.jwk(); KEYS_MAX + 1];
    assert_eq!(set(&many).map(|_| ()), Err(KeySetError::TooMany));
    assert_eq!(set(&[]).map(|_| ()), Err(KeySetError::Unusable(0)));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(KeySet::parse(text.as_bytes()).map(|_| ()), Err(KeySetError::Form), "{text}");
    }
    assert_eq!(KeySet::parse(&vec![b' '; 512 * 1024 + 1]).map(|_| ()), Err(KeySetError::TooLong));
}
