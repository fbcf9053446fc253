//! Who is let in.

use gantry_control_state::Command;
use gantry_model::Revision;
use gantry_model::admin::{Admin, AdminChange, AdminToken};
use gantry_model::identity::PeerName;
use gantry_node::tls::Peer;
use tonic::Code;

use super::*;

const ROOT_TOKEN: &str = "root-token-root-token-root-token-root";

fn token(id: u8) -> PresentedToken {
    PresentedToken {
        name: "alice".parse().expect("a name"),
        id: KeyId([id; 8]),
        secret: Secret::new([id; 32]),
    }
}

/// Alice, made a little after 10 minutes, with token 1, and token 2, which ends at 20 minutes.
fn state() -> State {
    let stored = |id: u8, expires_at_ms| AdminToken {
        id: KeyId([id; 8]),
        hash: sha256(&[id; 32]),
        created_at_ms: 600_000,
        expires_at_ms,
    };
    let alice = Admin {
        name: "alice".parse().expect("a name"),
        roles: vec![Role::Auditor(None)],
        tokens: vec![stored(1, None), stored(2, Some(1_200_000))],
        created_at_ms: 600_999,
    };
    let mut state = State::default();
    state.apply(Revision(1), &Command::ChangeAdmin(AdminChange::Create(alice)));
    state
}

fn ask(
    authorization: Option<&str>,
    caller: Option<&Caller>,
    now_ms: u64,
) -> Result<Identity, (Code, String)> {
    let mut headers = HeaderMap::new();
    if let Some(authorization) = authorization {
        headers.insert("authorization", format!("Bearer {authorization}").parse().expect("a header"));
    }
    let keeper = Doorkeeper::new(&Secret::new(ROOT_TOKEN.to_owned()), Federation::default());
    keeper
        .identify(&headers, caller, &state(), now_ms)
        .map_err(|status| (status.code(), status.message().to_owned()))
}

fn wrong() -> Result<Identity, (Code, String)> {
    ask(Some("wrong"), None, 0)
}

fn identity(name: &str, proof: Proof) -> Result<Identity, (Code, String)> {
    Ok(Identity { name: name.parse().expect("a name"), proof })
}

#[test]
fn an_admin_is_known_by_each_of_his_tokens_until_it_ends() {
    assert_eq!(ask(Some(ROOT_TOKEN), None, 0), identity("root", Proof::Root));
    for id in [1, 2] {
        let known = ask(Some(token(id).to_text().expose()), None, 1_199_999);
        assert_eq!(known, identity("alice", Proof::Token(KeyId([id; 8]))));
    }
    let ended = ask(Some(token(2).to_text().expose()), None, 1_200_000).map_err(|(code, _)| code);
    assert_eq!(ended, Err(Code::Unauthenticated));
}

#[test]
fn what_proves_nobody_is_refused_in_the_same_words() {
    assert_eq!(wrong().map_err(|(code, _)| code), Err(Code::Unauthenticated));
    let other_name = PresentedToken { name: "bob".parse().expect("a name"), ..token(1) };
    let other_secret = PresentedToken { secret: Secret::new([9; 32]), ..token(1) };
    for other in [token(3), other_name, other_secret] {
        assert_eq!(ask(Some(other.to_text().expose()), None, 0), wrong());
    }
}

#[test]
fn a_certificate_is_an_admins_when_it_was_made_for_him_and_a_token_beside_it_counts_instead() {
    let hanging = |name: &str, begins_at_ms: u64, token: Option<KeyId>| Caller {
        address: ([127, 0, 0, 1], 9).into(),
        peer: Some(Peer {
            name: format!("gantry://c/{name}").parse::<PeerName>().expect("a name"),
            labels: Default::default(),
            token,
            serial: Serial::new(&[5]),
            begins_at_ms,
            expires_at_ms: 90_000_000,
        }),
    };
    let caller = |name: &str, begins_at_ms: u64| hanging(name, begins_at_ms, None);
    let certificate = |token| Proof::Certificate {
        serial: Serial::new(&[5]),
        begins_at_ms: 300_000,
        expires_at_ms: 90_000_000,
        token,
    };
    // A certificate begins five minutes before it is made.
    let alice = caller("admin/alice", 300_000);
    assert_eq!(ask(None, Some(&alice), 0), identity("alice", certificate(None)));
    assert_eq!(ask(Some(ROOT_TOKEN), Some(&alice), 0), identity("root", Proof::Root));
    assert_eq!(ask(Some("wrong"), Some(&alice), 0), wrong(), "who shows a token is taken at it");
    for other in [caller("admin/alice", 299_999), caller("admin/bob", 300_000), caller("node/alice", 300_000)]
    {
        let refused = ask(None, Some(&other), 0).map_err(|(code, _)| code);
        assert_eq!(refused, Err(Code::Unauthenticated));
    }
    // It counts as long as the token does that it hangs on.
    let (second, gone) = (Some(KeyId([2; 8])), Some(KeyId([3; 8])));
    let by_second = hanging("admin/alice", 300_000, second);
    assert_eq!(ask(None, Some(&by_second), 1_199_999), identity("alice", certificate(second)));
    for (caller, now_ms) in [(by_second, 1_200_000), (hanging("admin/alice", 300_000, gone), 0)] {
        let ended = "the token that the certificate hangs on has ended; have another one made".to_owned();
        assert_eq!(ask(None, Some(&caller), now_ms), Err((Code::Unauthenticated, ended)));
    }
}
