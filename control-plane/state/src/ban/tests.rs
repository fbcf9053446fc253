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
    // Key and ban go, and the new one comes.
    assert_eq!(apply(&mut state, Command::PutBan(ban(session(2), 100, Some(500)))), Ok(3));
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

fn servers(tenant: &str, count: usize) -> Vec<gantry_model::Resource> {
    let server = |number| {
        let spec = json!({"url": "http://127.0.0.1:1/mcp"});
        json!({"kind": "Server", "tenant": tenant, "name": format!("s{number}"), "spec": spec})
    };
    (0..count).map(|number| document::parse(server(number)).expect("a server")).collect()
}

fn server(tenant: &TenantName, number: usize) -> Ban {
    let target = BanTarget::Server(format!("s{number}").parse().expect("a name"));
    Ban { tenant: tenant.clone(), ..ban(target, 1, None) }
}

#[test]
fn the_bans_of_a_tenant_are_bounded_and_its_keys_and_sessions_leave_room_for_the_rest() {
    let mut state = ready();
    let others = BANS_OF_TENANT_MAX - PASSING_BANS_OF_TENANT_MAX;
    apply(&mut state, Command::Apply(servers("acme", others))).expect("applied");
    for number in 0..PASSING_BANS_OF_TENANT_MAX as u64 {
        apply(&mut state, Command::PutBan(ban(session(number), 1, Some(10)))).expect("room");
    }
    let told = "tenant acme has 768 revocations of keys and sessions already; revoke the agent instead, or lift some";
    for target in [key(1), session(9_999)] {
        assert_eq!(apply(&mut state, Command::PutBan(ban(target, 9, None))), Err(told.to_owned()));
    }
    for number in 0..others {
        assert_eq!(apply(&mut state, Command::PutBan(server(&tenant(), number))), Ok(1));
    }
    let full = apply(&mut state, Command::PutBan(ban(agent(), 9, None)));
    let told = "tenant acme has 1024 revocations already; lift some, or revoke the tenant";
    assert_eq!(full, Err(told.to_owned()));
    assert_eq!(apply(&mut state, Command::PutBan(ban(BanTarget::Tenant, 9, None))), Ok(1));
    let later = apply(&mut state, Command::PutBan(ban(agent(), 10, None)));
    assert_eq!((later, state.ban_count()), (Ok(PASSING_BANS_OF_TENANT_MAX + 1), others + 2));
}

/// Tenants with as many servers as one may ban, `others` of them banned, and `sessions` until 10.
fn crowd(state: &mut State, tenants: std::ops::Range<usize>, others: usize, sessions: usize) {
    for number in tenants {
        let name = format!("t{number}");
        let tenant: TenantName = name.parse().expect("a name");
        let document = document::parse(json!({"kind": "Tenant", "name": name})).expect("a tenant");
        let mut set = vec![document];
        set.extend(servers(&name, others));
        apply(state, Command::Apply(set)).expect("applied");
        for number in 0..others {
            apply(state, Command::PutBan(server(&tenant, number))).expect("room");
        }
        for number in 0..sessions {
            let ban = Ban { tenant: tenant.clone(), ..ban(session(number as u64), 1, Some(10)) };
            apply(state, Command::PutBan(ban)).expect("room");
        }
    }
}

#[test]
fn when_there_is_no_more_room_what_is_past_in_any_tenant_makes_some() {
    let mut state = ready();
    let tenants = PASSING_BANS_MAX / 512;
    crowd(&mut state, 0..tenants, 0, 512);
    assert_eq!(state.ban_count(), PASSING_BANS_MAX);
    let told = "there are 8192 revocations already; revoke the agent instead, or lift some";
    assert_eq!(apply(&mut state, Command::PutBan(ban(key(1), 9, None))), Err(told.to_owned()));
    assert_eq!(apply(&mut state, Command::PutBan(ban(agent(), 9, None))), Ok(1), "an agent finds room");
    // No more go at once than make a small change.
    assert_eq!(apply(&mut state, Command::PutBan(ban(key(1), 10, None))), Ok(FORGOTTEN_MAX + 1));
    assert_eq!(state.ban_count(), PASSING_BANS_MAX - FORGOTTEN_MAX + 2);
}

#[test]
fn others_leave_room_for_the_ban_of_a_tenant() {
    let mut state = ready();
    crowd(&mut state, 0..15, BANS_OF_TENANT_MAX, 0);
    assert_eq!(state.ban_count(), BANS_WITHIN_TENANTS_MAX);
    for target in [agent(), key(1)] {
        let refused = apply(&mut state, Command::PutBan(ban(target, 9, None)));
        assert!(refused.is_err_and(|told| told.starts_with("there are 15360 revocations already; ")));
    }
    assert_eq!(apply(&mut state, Command::PutBan(ban(BanTarget::Tenant, 9, None))), Ok(1));
}
