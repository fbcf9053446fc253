//! Who is an admin by what his token says, and what he may do.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_control_state::Command;
use gantry_model::Revision;
use gantry_model::Secret;
use gantry_model::admin_issuer::AdminRule;
use gantry_model::enrolment::{Enrolment, EnrolmentChange};
use gantry_model::record::Cluster;
use gantry_token::KeySet;
use serde_json::{Value, json};
use tonic::Code;
use tonic::codegen::http::HeaderMap;

use super::*;
use crate::access::identity::Doorkeeper;

const NOW: u64 = 1_800_000_000;

fn issuer(rules: &[(&str, &str, &str)]) -> AdminIssuer {
    let rule = |(claim, value, role): &(&str, &str, &str)| AdminRule {
        claim: (*claim).to_owned(),
        value: (*value).to_owned(),
        role: role.parse().expect("a role"),
    };
    AdminIssuer {
        name: "corp".parse().expect("a name"),
        issuer: "https://id.example.com".to_owned(),
        audiences: vec!["cli".to_owned()],
        algorithms: vec!["EdDSA".to_owned()],
        authorities: Vec::new(),
        is_plain_on_loopback: false,
        rules: rules.iter().map(rule).collect(),
    }
}

/// What the issuer says, as it is believed.
fn claims(said: Value) -> Claims {
    let key = Ed25519KeyPair::generate().expect("a key");
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut whole = json!({"iss": "https://id.example.com", "aud": "cli", "iat": NOW, "exp": NOW + 300});
    whole.as_object_mut().expect("an object").extend(said.as_object().expect("an object").clone());
    let signed = format!("{}.{}", encode(br#"{"alg":"EdDSA"}"#), encode(whole.to_string().as_bytes()));
    let token = format!("{signed}.{}", encode(key.sign(signed.as_bytes()).as_ref()));
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref())});
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).expect("keys");
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let token = Compact::parse(&token).expect("a token");
    rules(&issuer(&[])).expect("rules").check(&token, &keys, now).expect("a token that counts")
}

fn federated(said: Value) -> Federated {
    let (issuer, claims) = (issuer(&[]), claims(said));
    let subject = claims.subject().unwrap_or_default().to_owned();
    Federated { issuer: issuer.name, url: issuer.issuer, subject, claims }
}

fn state(issuer: Option<AdminIssuer>) -> State {
    let mut state = State::default();
    let cluster = Cluster {
        id: "c1".to_owned(),
        kek_id: "k".to_owned(),
        root_nonce: [0; 12],
        root_wrapped: Vec::new(),
        node_keys_nonce: [0; 12],
        node_keys_wrapped: Vec::new(),
        node_keys_generation: 1,
        node_keys_rotated_at_ms: None,
        enrolment: Enrolment::default(),
    };
    state.apply(Revision(1), &Command::Bootstrap(cluster));
    if let Some(issuer) = issuer {
        let put = Command::ChangeEnrolment(EnrolmentChange::PutAdminIssuer(issuer));
        state.apply(Revision(2), &put);
    }
    state
}

fn roles(who: &Federated, issuer: Option<AdminIssuer>, now: u64) -> Result<Vec<String>, Code> {
    let roles = who.roles(&state(issuer), now).map_err(|status| status.code())?;
    Ok(roles.iter().map(ToString::to_string).collect())
}

#[test]
fn a_role_is_given_for_a_claim_that_has_exactly_the_value() {
    let alice = federated(json!({"sub": "alice", "groups": ["ops", "Dev"], "realm": {"roles": ["watch"]}}));
    let given = |rules: &[(&str, &str, &str)]| roles(&alice, Some(issuer(rules)), NOW);
    let watches = ("/realm/roles", "watch", "auditor");
    let (ops, all) = (("groups", "ops", "read-only"), ("sub", "alice", "cluster-admin"));
    assert_eq!(given(&[ops]), Ok(vec!["read-only".to_owned()]));
    assert_eq!(given(&[watches, ops, ops]), Ok(vec!["read-only".to_owned(), "auditor".to_owned()]));
    assert_eq!(given(&[all]), Ok(vec!["cluster-admin".to_owned()]));
    for none in [("groups", "dev", "auditor"), ("groups", "op", "auditor"), ("group", "ops", "auditor")] {
        assert_eq!(given(&[none]), Err(Code::Unauthenticated), "{none:?}");
    }
    assert_eq!(roles(&alice, None, NOW), Err(Code::Unauthenticated), "the issuer is gone");
    let elsewhere = AdminIssuer { issuer: "https://other.example.com".to_owned(), ..issuer(&[ops]) };
    assert_eq!(roles(&alice, Some(elsewhere), NOW), Err(Code::Unauthenticated), "another has its name");
}

#[tokio::test]
async fn a_token_of_our_own_is_not_taken_for_an_issuers() {
    let root = "root.token.root.token.root.token.root.token";
    let keeper = Doorkeeper::new(&Secret::new(root.to_owned()), Federation::default());
    let admit = async |token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        let admitted = keeper.admit(&headers, None, &state(None)).await;
        admitted.map(|identity| identity.proof).map_err(|status| status.message().to_owned())
    };
    assert_eq!(admit(root).await, Ok(Proof::Root));
    let unknown = "the token is of no issuer that is believed here; `gantry login` has another token made";
    let token =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA"}"#), URL_SAFE_NO_PAD.encode("{}"));
    assert_eq!(admit(&token).await, Err(unknown.to_owned()));
    let wrong = admit("gantry_admin_alice_0102030405060708_00").await;
    assert!(wrong.is_err_and(|told| told.contains("is not the right one")));
}

#[test]
fn a_token_counts_until_it_ends_and_a_minute_for_the_clocks() {
    let alice = federated(json!({"sub": "alice", "groups": "ops"}));
    let by = || Some(issuer(&[("groups", "ops", "auditor")]));
    assert_eq!(roles(&alice, by(), NOW + 359), Ok(vec!["auditor".to_owned()]));
    assert_eq!(roles(&alice, by(), NOW + 360), Err(Code::Unauthenticated));
    assert_eq!(alice.expires_at_ms(), (NOW + 300) * 1_000);
}

#[test]
fn an_issuer_that_cannot_be_believed_everywhere_is_refused() {
    let with = |change: fn(&mut AdminIssuer)| {
        let mut issuer = issuer(&[("groups", "ops", "auditor")]);
        change(&mut issuer);
        check(&issuer).map_err(|error| error.to_string())
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|issuer| issuer.audiences.clear()), Err("the provider has no audience".to_owned()));
    assert_eq!(with(|issuer| issuer.algorithms.clear()), Err("the provider has no algorithm".to_owned()));
    let http = |issuer: &mut AdminIssuer| issuer.issuer = "http://127.0.0.1:1".to_owned();
    let plain = "its URL is not https, and only plain http on loopback may be allowed instead";
    assert_eq!(with(http), Err(plain.to_owned()));
    let allowed = |issuer: &mut AdminIssuer| {
        issuer.issuer = "http://127.0.0.1:1".to_owned();
        issuer.is_plain_on_loopback = true;
    };
    assert_eq!(with(allowed), Ok(()));
    for algorithm in ["none", "HS256", "rs256", ""] {
        let mut issuer = issuer(&[("groups", "ops", "auditor")]);
        issuer.algorithms = vec![algorithm.to_owned()];
        assert!(matches!(check(&issuer), Err(IssuerError::Algorithm(_))), "{algorithm}");
    }
    assert_eq!(with(|issuer| issuer.rules[0].value.clear()), Err("a rule has no value".to_owned()));
    assert!(with(|issuer| issuer.rules[0].claim.clear()).is_err());
    assert!(with(|issuer| issuer.name = "a".repeat(41).parse().expect("a name")).is_err());
    assert!(with(|issuer| issuer.authorities = vec![vec![1, 2, 3]]).is_err());
}
