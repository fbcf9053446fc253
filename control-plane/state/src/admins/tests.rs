//! The rules of admins, through the state machine.

use gantry_model::admin::{Admin, AdminChange, AdminToken, Role};
use gantry_model::key::KeyId;
use gantry_model::{Resource, ResourceId, Revision, document};
use serde_json::json;

use super::{ADMIN_TOKENS_MAX, ROLES_MAX};
use crate::{Command, Outcome, Refusal, State};

fn tenant(name: &str) -> Resource {
    document::parse(json!({"kind": "Tenant", "name": name})).expect("a tenant")
}

fn token(id: u8, expires_at_ms: Option<u64>) -> AdminToken {
    AdminToken { id: KeyId([id; 8]), hash: [id; 32], created_at_ms: 1, expires_at_ms }
}

fn admin(name: &str, roles: &[&str]) -> Admin {
    let role = |text: &&str| text.parse::<Role>().expect("a role");
    Admin {
        name: name.parse().expect("a name"),
        roles: roles.iter().map(role).collect(),
        tokens: vec![token(1, None)],
        created_at_ms: 1,
    }
}

fn create(name: &str, roles: &[&str]) -> Command {
    Command::ChangeAdmin(AdminChange::Create(admin(name, roles)))
}

fn rotate(id: u8, older_end_at_ms: u64, now_ms: u64) -> Command {
    let name = "alice".parse().expect("a name");
    let (token, asked_with) = (token(id, None), None);
    Command::ChangeAdmin(AdminChange::Rotate { name, token, older_end_at_ms, now_ms, asked_with })
}

/// Alice gives herself a token at 50, asking with another of hers.
fn rotate_own(id: u8, expires_at_ms: Option<u64>, asked_with: u8) -> Command {
    Command::ChangeAdmin(AdminChange::Rotate {
        name: "alice".parse().expect("a name"),
        token: token(id, expires_at_ms),
        older_end_at_ms: 70,
        now_ms: 50,
        asked_with: Some(KeyId([asked_with; 8])),
    })
}

fn ends(state: &State) -> Vec<(u8, Option<u64>)> {
    let alice = state.admin(&"alice".parse().expect("a name")).expect("alice");
    alice.tokens.iter().map(|token| (token.id.0[0], token.expires_at_ms)).collect()
}

fn ready() -> State {
    let mut state = State::default();
    done(&mut state, 1, Command::Apply(vec![tenant("acme"), tenant("globex")]));
    done(&mut state, 2, create("alice", &["tenant-admin:acme", "auditor"]));
    state
}

fn done(state: &mut State, revision: u64, command: Command) {
    let outcome = state.apply(Revision(revision), &command).outcome;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

fn refused(state: &State, command: Command) -> (String, Option<String>) {
    match state.clone().apply(Revision(50), &command).outcome {
        Outcome::Refused(mut refusals) => match refusals.pop() {
            Some(Refusal { message, nearest, .. }) => (message, nearest),
            None => panic!("refused without a word"),
        },
        Outcome::Done(_) => panic!("done"),
    }
}

#[test]
fn a_name_is_one_admins_and_root_is_nobodys() {
    let state = ready();
    let told = |name: &str| (format!("there is an admin {name} already"), None);
    assert_eq!(refused(&state, create("alice", &["auditor"])), told("alice"));
    assert_eq!(refused(&state, create("root", &["auditor"])), told("root"));
}

#[test]
fn a_role_names_a_tenant_that_is_there() {
    let state = ready();
    let told = ("there is no Tenant acmee".to_owned(), Some("acme".to_owned()));
    assert_eq!(refused(&state, create("bob", &["auditor", "read-only:acmee"])), told);
    let bounds = (format!("an admin has 1 to {ROLES_MAX} roles"), None);
    assert_eq!(refused(&state, create("bob", &[])), bounds);
    assert_eq!(refused(&state, create("bob", &vec!["auditor"; ROLES_MAX + 1])), bounds);
}

#[test]
fn a_rotation_lets_older_tokens_end_and_forgets_those_that_have() {
    let mut state = ready();
    done(&mut state, 3, rotate(2, 100, 50));
    assert_eq!(ends(&state), [(1, Some(100)), (2, None)]);
    done(&mut state, 4, rotate(3, 150, 60));
    assert_eq!(ends(&state), [(1, Some(100)), (2, Some(150)), (3, None)], "none is lengthened");
    done(&mut state, 5, rotate(4, 100, 100));
    assert_eq!(ends(&state), [(4, None)]);
    for id in 5..4 + ADMIN_TOKENS_MAX as u8 {
        done(&mut state, u64::from(id) + 1, rotate(id, 500, 200));
    }
    let told = format!("admin alice has {ADMIN_TOKENS_MAX} tokens that count; let the older ones end sooner");
    assert_eq!(refused(&state, rotate(99, 500, 200)), (told, None));
}

#[test]
fn an_admin_gives_himself_no_token_that_outlasts_the_one_that_he_shows() {
    let mut state = ready();
    done(&mut state, 3, rotate_own(2, Some(900), 1));
    assert_eq!(ends(&state), [(1, Some(70)), (2, Some(900))], "one without an end gives any");
    let told = ("the token that asks was rotated out; ask with the newest one of alice".to_owned(), None);
    for gone in [1, 9] {
        assert_eq!(refused(&state, rotate_own(3, None, gone)), told);
    }
    let with = |id, end| {
        let mut state = state.clone();
        done(&mut state, 4, rotate_own(id, end, 2));
        ends(&state).pop()
    };
    assert_eq!(with(3, None), Some((3, Some(900))));
    assert_eq!(with(4, Some(901)), Some((4, Some(900))));
    assert_eq!(with(5, Some(800)), Some((5, Some(800))));
}

#[test]
fn a_tenant_that_goes_takes_what_admins_may_do_in_it() {
    let mut state = ready();
    done(&mut state, 3, Command::Delete(vec![ResourceId::of_tenant(&"acme".parse().expect("a name"))]));
    let alice = state.admin(&"alice".parse().expect("a name")).expect("alice");
    assert_eq!(alice.roles, [Role::Auditor(None)]);
    done(&mut state, 4, Command::Apply(vec![tenant("acme")]));
    let alice = state.admin(&"alice".parse().expect("a name")).expect("alice");
    assert_eq!(alice.roles, [Role::Auditor(None)], "another tenant of the name is not his");
}

#[test]
fn an_admin_that_is_deleted_is_gone_and_what_is_stored_is_what_is_in_memory() {
    let mut state = ready();
    let stored = state.entries().map(|(key, bytes)| (key.to_owned(), bytes.to_vec()));
    let read = State::load(stored).expect("a state");
    assert_eq!(read.admins().collect::<Vec<_>>(), state.admins().collect::<Vec<_>>());
    let delete = |name: &str| Command::ChangeAdmin(AdminChange::Delete(name.parse().expect("a name")));
    assert_eq!(
        refused(&state, delete("alcie")),
        ("there is no admin alcie".to_owned(), Some("alice".to_owned()))
    );
    done(&mut state, 3, delete("alice"));
    assert_eq!(state.admins().count(), 0);
}
