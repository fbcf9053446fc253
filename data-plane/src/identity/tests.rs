//! Tokens of a provider that signs here: what is read of them, what is remembered, and who waits for its keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use gantry_model::resource::IssuerSpec;
use gantry_token::KeySet;
use http::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::keepers::{Keepers, WAITING_MAX};
use super::provider::{IdentifyError, Provider};
use super::seen::{Seen, TOKENS_MAX, TokenHash};
use super::*;
use crate::upstream::peer::{self, Peer};

const ISSUER: &str = "https://id.example.com";
const URL: &str = "https://mcp.example.com/acme/main/mcp";

/// Verifications that are timed.
const COLD: u32 = 500;
/// Look-ups that are timed.
const WARM: u32 = 20_000;

/// Somebody who signs, and shows his keys.
struct Issuer {
    key: EcdsaKeyPair,
    peer: Peer,
    asked: Arc<AtomicUsize>,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs()
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": URL, "sub": "ann", "client_id": "laptop", "exp": now() + 300})
}

/// The same with others.
fn claims_with(others: Value) -> Value {
    let mut claims = claims();
    for (name, value) in others.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn jwks(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y}]})
}

impl Issuer {
    async fn start() -> Issuer {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let (keys, asked) = (jwks(&key), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        let peer = Peer::start(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            peer::json(StatusCode::OK, &keys)
        });
        Issuer { key, peer: peer.await, asked }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": "one"});
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", encode(signature))
    }

    fn provider(&self, keepers: &Keepers, mut spec: Value) -> Arc<Provider> {
        spec["jwks_url"] = json!(format!("{}/keys", self.peer.origin));
        provider(keepers, spec)
    }
}

fn provider(keepers: &Keepers, mut spec: Value) -> Arc<Provider> {
    spec["issuer"] = json!(ISSUER);
    spec["algorithms"] = json!(["ES256", "RS256"]);
    let spec: IssuerSpec = serde_json::from_value(spec).expect("a specification");
    Arc::new(Provider::compile("corp".parse().expect("a name"), spec, keepers))
}

async fn identify(provider: &Provider, token: &str) -> Result<Identity, IdentifyError> {
    provider.identify(token, Some(URL), SystemTime::now()).await.map(|(identity, _)| identity)
}

#[tokio::test]
async fn claims_say_who_calls_and_for_whom_as_the_provider_says_that_they_do() {
    let (issuer, keepers) = (Issuer::start().await, Keepers::default());
    let plain = issuer.provider(&keepers, json!({}));
    let shown = claims_with(
        json!({"scope": "mcp admin", "groups": ["staff", 7], "act": {"sub": "a", "act": {"client_id": "b"}}}),
    );
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
    let expected = Identity {
        provider: "corp".parse().expect("a name"),
        client: "laptop".to_owned(),
        user: Some("corp/ann".parse().expect("a user")),
        actors: vec!["a".to_owned(), "b".to_owned()],
        groups: texts(&["staff"]),
        scopes: texts(&["admin", "mcp"]),
        tags: BTreeMap::new(),
        ends_at: shown["exp"].as_u64().expect("a time") + 60,
        bound_to: None,
        told: Told::default(),
    };
    assert_eq!(identify(&plain, &issuer.sign(&shown)).await, Ok(expected.clone()));
    let told = serde_json::to_string(&expected).expect("JSON");
    assert_eq!(serde_json::from_str::<Identity>(&told).ok(), Some(expected), "as another node is told");

    let user = async |provider: &Provider, others: Value| {
        let identity = identify(provider, &issuer.sign(&claims_with(others))).await;
        identity.map(|identity| (identity.client, identity.user.map(|user| user.to_string())))
    };
    let one = |client: &str, user: Option<&str>| Ok((client.to_owned(), user.map(str::to_owned)));
    assert_eq!(user(&plain, json!({"sub": "laptop"})).await, one("laptop", None), "client credentials");
    assert_eq!(user(&plain, json!({"client_id": null, "azp": "web"})).await, one("web", Some("corp/ann")));
    assert_eq!(user(&plain, json!({"client_id": ""})).await, Err(IdentifyError::NoClient));
    assert_eq!(user(&plain, json!({"client_id": "x".repeat(256)})).await, Err(IdentifyError::NoClient));
    assert_eq!(user(&plain, json!({"sub": "a\nb"})).await, Err(IdentifyError::User));

    let claims = json!({"agent": ["/act/sub"], "user": ["oid"], "groups": ["/realm/roles"], "scopes": ["scp"],
        "tags": {"department": "/org/department", "absent": "nothing"}});
    let other = issuer.provider(&keepers, json!({"claims": claims}));
    let shown = claims_with(json!({"act": {"sub": "assistant"}, "oid": "7", "scp": ["a", "b c"],
        "realm": {"roles": ["r"]}, "org": {"department": "it"}}));
    let identity = identify(&other, &issuer.sign(&shown)).await.expect("an identity");
    assert_eq!((identity.client.as_str(), identity.user), ("assistant", "corp/7".parse().ok()));
    assert_eq!((identity.groups, identity.scopes), (texts(&["r"]), texts(&["a", "b", "c"])));
    assert_eq!(identity.tags, BTreeMap::from([("department".to_owned(), texts(&["it"]))]));
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1, "both have the same keys");
}

#[tokio::test]
async fn a_token_is_for_the_endpoint_that_is_asked_or_for_the_audience_of_its_provider() {
    let (issuer, keepers) = (Issuer::start().await, Keepers::default());
    let (plain, named) =
        (issuer.provider(&keepers, json!({})), issuer.provider(&keepers, json!({"audiences": ["mcp"]})));
    let token = issuer.sign(&claims());
    let asked = async |provider: &Provider, audience: Option<&str>| {
        provider.identify(&token, audience, SystemTime::now()).await.is_ok()
    };
    assert!(asked(&plain, Some(URL)).await);
    assert!(!asked(&plain, Some("https://mcp.example.com/acme/other/mcp")).await);
    let nowhere = plain.identify(&token, None, SystemTime::now()).await.map(|_| ());
    assert_eq!(nowhere, Err(IdentifyError::NoAudience));
    assert!(!asked(&named, Some(URL)).await, "its own audience counts alone");
}

#[tokio::test]
async fn a_token_is_remembered_until_it_ends_or_its_provider_or_keys_are_others() {
    let (issuer, keepers, seen) = (Issuer::start().await, Keepers::default(), Seen::default());
    let provider = issuer.provider(&keepers, json!({}));
    let token = issuer.sign(&claims());
    let first = provider.identify(&token, Some(URL), SystemTime::now()).await.expect("an identity");
    assert!(first.1.is_none(), "its keys were not known before");
    let (identity, keys) =
        provider.identify(&token, Some(URL), SystemTime::now()).await.expect("an identity");
    let (identity, keys) = (Arc::new(identity), keys.expect("the newest keys"));
    let hash = TokenHash::of(&token, Some(URL));
    seen.put(hash, &provider, keys, &identity, now());
    let is_same = |known: &Arc<Provider>| Arc::ptr_eq(known, &provider);
    let known = seen.get(&hash, now(), is_same).expect("it is known");
    assert!(Arc::ptr_eq(&known, &identity));
    assert!(seen.get(&TokenHash::of(&token, Some("https://other")), now(), is_same).is_none());
    assert!(seen.get(&hash, identity.ends_at - 1, is_same).is_some());
    assert!(seen.get(&hash, identity.ends_at, is_same).is_none(), "it has ended");
    assert!(seen.get(&hash, now(), |_| false).is_none(), "its provider is another");
    let others = KeySet::parse(jwks(&issuer.key).to_string().as_bytes()).expect("keys");
    seen.put(hash, &provider, Arc::new(others), &identity, now());
    assert!(seen.get(&hash, now(), is_same).is_none(), "the keys are others by now");
}

#[tokio::test]
async fn tokens_that_are_remembered_are_bounded() {
    let (issuer, keepers, seen) = (Issuer::start().await, Keepers::default(), Seen::default());
    let provider = issuer.provider(&keepers, json!({}));
    let identity = Arc::new(identify(&provider, &issuer.sign(&claims())).await.expect("an identity"));
    let keys = provider.keys_at_hand().expect("keys");
    let hash = |number: usize| TokenHash::of(&number.to_string(), None);
    for number in 0..=TOKENS_MAX {
        seen.put(hash(number), &provider, keys.clone(), &identity, now());
    }
    let known = |number| seen.get(&hash(number), now(), |_| true).is_some();
    assert_eq!((known(0), known(TOKENS_MAX)), (false, true));
}

#[tokio::test]
async fn those_who_wait_for_the_keys_of_a_silent_provider_are_bounded() {
    let (until, keepers) = (CancellationToken::new(), Keepers::default());
    let held = until.clone();
    let silent = Peer::start(move |_| peer::held(held.clone(), peer::json(StatusCode::OK, &json!({})))).await;
    let provider = provider(&keepers, json!({"jwks_url": silent.origin}));
    let issuer = Issuer::start().await;
    let token: Arc<str> = issuer.sign(&claims()).into();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..WAITING_MAX {
        let (provider, token) = (provider.clone(), token.clone());
        waiting.spawn(async move { identify(&provider, &token).await });
    }
    while provider.waiting() < WAITING_MAX {
        tokio::task::yield_now().await;
    }
    let one_more = identify(&provider, &token).now_or_never();
    assert_eq!(one_more, Some(Err(IdentifyError::Keys)), "one more does not wait");
    // What is answered then are no keys.
    until.cancel();
    while let Some(ended) = waiting.join_next().await {
        assert_eq!(ended.expect("it ends"), Err(IdentifyError::Keys));
    }
}

#[tokio::test]
async fn whose_key_is_known_waits_for_nobody_however_many_do() {
    let (issuer, keepers) = (Issuer::start().await, Keepers::default());
    let provider = issuer.provider(&keepers, json!({}));
    let token = issuer.sign(&claims());
    identify(&provider, &token).await.expect("an identity");
    let places = provider.take_places();
    identify(&provider, &token).now_or_never().expect("at once").expect("an identity");
    drop(places);
}

#[tokio::test]
async fn a_provider_that_is_gone_is_asked_no_more_though_its_tokens_are_remembered() {
    let (issuer, keepers, seen) = (Issuer::start().await, Keepers::default(), Seen::default());
    let provider = issuer.provider(&keepers, json!({}));
    let identity = Arc::new(identify(&provider, &issuer.sign(&claims())).await.expect("an identity"));
    let (hash, keys) = (TokenHash::of("token", None), provider.keys_at_hand().expect("keys"));
    seen.put(hash, &provider, keys, &identity, now());
    assert!(seen.get(&hash, now(), |_| true).is_some());
    drop(provider);
    assert_eq!((seen.get(&hash, now(), |_| true).is_some(), keepers.count()), (false, 0));
}

#[tokio::test]
async fn a_person_who_chose_the_clients_name_is_a_person() {
    let (issuer, keepers) = (Issuer::start().await, Keepers::default());
    let provider = issuer.provider(&keepers, json!({"claims": {"user": ["preferred_username", "sub"]}}));
    let user = async |claims: Value| {
        let identity = identify(&provider, &issuer.sign(&claims)).await.expect("an identity");
        identity.user.map(|user| user.to_string())
    };
    let chosen = user(claims_with(json!({"preferred_username": "laptop"}))).await;
    assert_eq!(chosen.as_deref(), Some("corp/laptop"));
    assert_eq!(user(claims_with(json!({"sub": "laptop"}))).await, None, "the client acts for itself");
}

/// With figures that mean something: `cargo test --release --workspace --lib a_known_token -- --nocapture`.
#[tokio::test]
async fn a_known_token_is_found_without_its_signature_and_both_are_timed() {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der = key.public_key().as_ref();
    let keys = json!({"keys": [{"kty": "RSA", "kid": "one", "n": encode(&der[9..265]), "e": "AQAB"}]});
    let peer = Peer::start(move |_| peer::json(StatusCode::OK, &keys)).await;
    let (keepers, seen) = (Keepers::default(), Seen::default());
    let rsa = provider(&keepers, json!({"jwks_url": format!("{}/rsa", peer.origin)}));
    let issuer = Issuer::start().await;
    let ecdsa = issuer.provider(&keepers, json!({}));
    let claims = claims_with(json!({"scope": "mcp", "groups": ["staff", "others"], "jti": "x".repeat(36)}));
    let signed = format!("{}.{}", encode(r#"{"alg":"RS256","kid":"one"}"#), encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .expect("a signature");
    let tokens =
        [("RS256", rsa, format!("{signed}.{}", encode(signature))), ("ES256", ecdsa, issuer.sign(&claims))];
    for (name, provider, token) in tokens {
        identify(&provider, &token).await.expect("an identity");
        let began = Instant::now();
        for _ in 0..COLD {
            identify(&provider, &token).await.expect("an identity");
        }
        let cold = began.elapsed() / COLD;
        let (identity, keys) =
            provider.identify(&token, Some(URL), SystemTime::now()).await.expect("an identity");
        let hash = TokenHash::of(&token, Some(URL));
        seen.put(hash, &provider, keys.expect("keys"), &Arc::new(identity), now());
        let began = Instant::now();
        for _ in 0..WARM {
            let hash = TokenHash::of(&token, Some(URL));
            seen.get(&hash, now(), |known| Arc::ptr_eq(known, &provider)).expect("it is known");
        }
        println!("{name}, {} bytes: {cold:?} verified, {:?} known", token.len(), began.elapsed() / WARM);
    }
}
