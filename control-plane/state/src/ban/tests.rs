//! Bans against the rules that they promise.

use gantry_model::key::KeyId;
use gantry_model::{AgentKey, Revision, SessionId, document};
use serde_json::json;

use super::*;
use crate::{Command, Outcome, State};

fn tenant() -> TenantName {
    "acme".parse().expect("a name")
}

fn ban(target: BanTarget, at_ms: u64, until_ms: Option<u64>) -> Ban {
    Ban { tenant: tenant(), target, by: "ann".to_owned(), reason: "leaked".to_owned(), at_ms, until_ms }
}

fn agent() -> BanTarget {
    BanTarget::Agent("bot".parse().expect("a name"))
}

fn key(id: u8) -> BanTarget {
    BanTarget::Key(KeyId([id; 8]))
}

fn session(number: u64) -> BanTarget {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&number.to_be_bytes());
    BanTarget::Session(SessionId(id))
}

fn put_key(id: u8) -> Command {
    Command::PutKey(AgentKey {
        tenant: tenant(),
        agent: "bot".parse().expect("a name"),
        id: KeyId([id; 8]),
        hash: [id; 32],
        created_at_ms: 1,
        expires_at_ms: None,
    })
}

fn apply(state: &mut State, command: Command) -> Result<usize, String> {
    let applied = state.apply(Revision(9), &command);
    match applied.outcome {
        Outcome::Done(_) => Ok(applied.changes.len()),
        Outcome::Refused(refusals) => Err(refusals[0].message.clone()),
    }
}

fn ready() -> State {
    let mut state = State::default();
    let document = |kind: &str, name: &str, spec| {
        let mut fields = json!({"kind": kind, "name": name, "spec": spec});
        if kind != "Tenant" {
            fields["tenant"] = json!("acme");
        }
        document::parse(fields).expect("a valid document")
    };
    let set = vec![
        document("Tenant", "acme", json!({})),
        document("Agent", "bot", json!({})),
        document("Server", "files", json!({"url": "http://127.0.0.1:1/mcp"})),
    ];
    apply(&mut state, Command::Apply(set)).expect("applied");
    apply(&mut state, put_key(1)).expect("put");
    state
}

fn targets(state: &State) -> Vec<String> {
    state.bans().map(|ban| ban.target.key_name()).collect()
}

#[test]
fn what_is_there_is_banned_once_and_what_is_not_is_refused() {
    let mut state = ready();
    let server = BanTarget::Server("files".parse().expect("a name"));
    for target in [agent(), key(1), session(1), server.clone(), BanTarget::Tenant] {
        assert_eq!(apply(&mut state, Command::PutBan(ban(target.clone(), 1, None))), Ok(1), "{target:?}");
        let again = Ban { by: "bob".to_owned(), ..ban(target, 2, None) };
        assert_eq!(apply(&mut state, Command::PutBan(again)), Ok(0));
    }
    let session = session(1).key_name();
    let expected = ["agent/bot", "key/0101010101010101", "server/files", &session, "tenant"];
    assert_eq!(targets(&state), expected);
    assert_eq!(state.bans_of(&tenant()).map(|ban| ban.by.as_str()).collect::<Vec<_>>(), ["ann"; 5]);

    let nobody = BanTarget::Agent("boot".parse().expect("a name"));
    let refused = |state: &mut State, target| apply(state, Command::PutBan(ban(target, 1, None)));
    assert_eq!(refused(&mut state, nobody), Err("there is no Agent acme/boot".to_owned()));
    let none = "tenant acme has no key 0202020202020202";
    assert_eq!(refused(&mut state, key(2)), Err(none.to_owned()));
    let elsewhere = Ban { tenant: "globex".parse().expect("a name"), ..ban(BanTarget::Tenant, 1, None) };
    assert_eq!(apply(&mut state, Command::PutBan(elsewhere)), Err("there is no Tenant globex".to_owned()));
}

#[test]
fn only_lifting_ends_a_ban_and_deleting_what_is_banned_does_not() {
    let mut state = ready();
    apply(&mut state, Command::PutBan(ban(agent(), 1, None))).expect("banned");
    let id = ResourceId::agent(&tenant(), &"bot".parse().expect("a name"));
    apply(&mut state, Command::Delete(vec![id])).expect("deleted");
    assert_eq!(targets(&state), ["agent/bot"]);
    let lift = Command::LiftBan { tenant: tenant(), target: agent() };
    // The ban, and that it was removed.
    assert_eq!(apply(&mut state, lift.clone()), Ok(2));
    assert_eq!(targets(&state), [""; 0]);
    assert_eq!(apply(&mut state, lift), Err("agent/bot of tenant acme is not revoked".to_owned()));
}

#[test]
fn a_tenant_takes_its_bans_along() {
    let mut state = ready();
    apply(&mut state, Command::PutBan(ban(BanTarget::Tenant, 1, None))).expect("banned");
    let agent = ResourceId::agent(&tenant(), &"bot".parse().expect("a name"));
    let server = ResourceId::server(&tenant(), &"files".parse().expect("a name"));
    let all = vec![agent, server, ResourceId::of_tenant(&tenant())];
    apply(&mut state, Command::Delete(all)).expect("deleted");
    // That they were deleted is all that is left.
    assert_eq!((state.ban_count(), state.len()), (0, 1));
}

#[test]
fn what_is_past_is_forgotten_with_the_next_ban_and_a_key_with_its_ban() {
    let mut state = ready();
    apply(&mut state, Command::PutBan(ban(key(1), 1, Some(100)))).expect("banned");
    apply(&mut state, Command::PutBan(ban(session(1), 99, Some(500)))).expect("banned");
    assert_eq!(state.ban_count(), 2);
    // Key and ban go, which is remembered, and the new one comes.
    assert_eq!(apply(&mut state, Command::PutBan(ban(session(2), 100, Some(500)))), Ok(4));
    assert_eq!(targets(&state), [session(1).key_name(), session(2).key_name()]);
    let again = apply(&mut state, Command::PutBan(ban(key(1), 101, None)));
    assert_eq!(again, Err("tenant acme has no key 0101010101010101".to_owned()));
}

#[test]
fn a_banned_key_takes_no_place_from_a_new_one() {
    let mut state = ready();
    let keys = u8::try_from(crate::AGENT_KEYS_MAX).expect("few");
    for id in 2..=keys {
        apply(&mut state, put_key(id)).expect("put");
    }
    assert!(apply(&mut state, put_key(keys + 1)).is_err());
    apply(&mut state, Command::PutBan(ban(key(1), 1, None))).expect("banned");
    assert_eq!(apply(&mut state, put_key(keys + 1)), Ok(1));
}

#[test]
fn the_bans_of_a_tenant_are_bounded() {
    let mut state = ready();
    for number in 0..BANS_OF_TENANT_MAX as u64 {
        apply(&mut state, Command::PutBan(ban(session(number), 1, Some(10)))).expect("room");
    }
    let full = apply(&mut state, Command::PutBan(ban(agent(), 9, None)));
    let message = "tenant acme has 1024 revocations already; lift some, or revoke the tenant";
    assert_eq!(full, Err(message.to_owned()));
    let later = apply(&mut state, Command::PutBan(ban(agent(), 10, None)));
    assert_eq!((later, targets(&state)), (Ok(BANS_OF_TENANT_MAX + 2), vec!["agent/bot".to_owned()]));
}
