//! Somebody who signs tokens.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_token::{Algorithm, Binding, KeySet, Rules, Trusted};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://id.example.com";
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key with its id.
pub(crate) struct Signer {
    id: String,
    key: Key,
}

enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn p256(id: &str) -> Signer {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Signer { id: id.to_owned(), key: Key::P256(key) }
    }

    pub(crate) fn p384(id: &str) -> Signer {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
        Signer { id: id.to_owned(), key: Key::P384(key) }
    }

    pub(crate) fn ed25519(id: &str) -> Signer {
        Signer { id: id.to_owned(), key: Key::Ed25519(Ed25519KeyPair::generate().expect("a key")) }
    }

    pub(crate) fn rsa(id: &str) -> Signer {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        Signer { id: id.to_owned(), key: Key::Rsa(key) }
    }

    pub(crate) fn jwk(&self) -> Value {
        match &self.key {
            Key::Rsa(key) => {
                // A sequence of two integers, with a zero before the first.
                let der = key.public_key().as_ref();
                json!({"kty": "RSA", "kid": self.id, "n": encode(&der[9..265]), "e": "AQAB", "use": "sig"})
            }
            Key::P256(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": x, "y": y})
            }
            Key::P384(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (encode(&point[1..49]), encode(&point[49..]));
                json!({"kty": "EC", "crv": "P-384", "kid": self.id, "x": x, "y": y})
            }
            Key::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": encode(key.public_key())})
            }
        }
    }

    /// Signs whatever it is.
    pub(crate) fn sign(&self, header: &Value, payload: &[u8]) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(payload));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Rsa(key) => {
                let how = if header["alg"] == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(how, &random, signed.as_bytes(), &mut signature).expect("a signature");
                signature
            }
            Key::P256(key) | Key::P384(key) => {
                key.sign(&random, signed.as_bytes()).expect("a signature").as_ref().to_vec()
            }
            Key::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(signature))
    }

    /// Signs claims by its own algorithm.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let algorithm = match self.key {
            Key::Rsa(_) => "RS256",
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::Ed25519(_) => "EdDSA",
        };
        self.sign(&json!({"alg": algorithm, "kid": self.id}), claims.to_string().as_bytes())
    }
}

/// Claims that count.
pub(crate) fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "gantry", "sub": "alice", "exp": NOW + 600, "iat": NOW, "groups": ["ops"]})
}

/// The same with one of them another; `Value::Null`: without it.
pub(crate) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => {
            claims.as_object_mut().expect("an object").remove(name);
        }
        value => claims[name] = value,
    }
    claims
}

pub(crate) fn jwks(signers: &[&Signer]) -> Vec<u8> {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({"keys": keys}).to_string().into_bytes()
}

pub(crate) fn keys(signers: &[&Signer]) -> KeySet {
    KeySet::parse(&jwks(signers)).expect("keys")
}

pub(crate) fn trusted(algorithms: &[Algorithm]) -> Trusted {
    Trusted {
        issuer: ISSUER.to_owned(),
        audiences: BTreeSet::from(["gantry".to_owned()]),
        algorithms: algorithms.iter().copied().collect(),
        authorized_party: None,
        skew: Duration::from_secs(60),
        age_max: None,
        binding: Binding::Refused,
    }
}

pub(crate) fn rules(algorithms: &[Algorithm]) -> Rules {
    Rules::new(trusted(algorithms)).expect("rules")
}
