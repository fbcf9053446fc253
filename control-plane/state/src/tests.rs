//! The state machine against the rules that it promises, and against random histories.

use std::sync::Arc;

use gantry_model::key::KeyId;
use gantry_model::record::{SealedSecret, TenantKey};
use gantry_model::{AgentKey, Catalog, Definition, Resource, ResourceId, Revision, document};
use proptest::prelude::*;
use serde_json::json;

use crate::{Applied, ChangeKind, Command, Outcome, Refusal, State};

fn resource(kind: &str, name: &str, spec: serde_json::Value) -> Resource {
    let mut fields = json!({"kind": kind, "name": name, "spec": spec});
    if kind != "Tenant" {
        fields["tenant"] = json!("acme");
    }
    document::parse(fields).expect("a valid document")
}

fn acme() -> Vec<Resource> {
    vec![
        resource("Endpoint", "main", json!({"servers": ["files"]})),
        resource("Server", "files", json!({"url": "http://127.0.0.1:1/mcp", "credential": "token"})),
        resource("Credential", "token", json!({})),
        resource("Agent", "bot", json!({})),
        resource("Tenant", "acme", json!({})),
    ]
}

fn ready() -> State {
    let mut state = State::default();
    let applied = state.apply(Revision(1), &Command::Apply(acme()));
    assert!(matches!(applied.outcome, Outcome::Done(_)), "{applied:?}");
    state
}

fn refusals(applied: Applied) -> Vec<Refusal> {
    assert_eq!(applied.changes, []);
    match applied.outcome {
        Outcome::Refused(refusals) => refusals,
        Outcome::Done(done) => panic!("done: {done:?}"),
    }
}

fn key(id: u8) -> AgentKey {
    AgentKey {
        tenant: "acme".parse().expect("a name"),
        agent: "bot".parse().expect("a name"),
        id: KeyId([id; 8]),
        hash: [id; 32],
        created_at_ms: 5,
        expires_at_ms: None,
    }
}

#[test]
fn a_set_may_name_its_own_documents_in_any_order() {
    let state = ready();
    assert_eq!(state.len(), 5);
    let again = state.clone().apply(Revision(2), &Command::Apply(acme()));
    assert_eq!(again.changes, []);
    let Outcome::Done(done) = again.outcome else { panic!("refused") };
    assert!(done.iter().all(|(_, kind)| *kind == ChangeKind::Unchanged));
}

#[test]
fn one_bad_document_among_good_ones_refuses_them_all() {
    let mut state = ready();
    let mut set: Vec<Resource> =
        (0..10).map(|index| resource("Agent", &format!("a{index}"), json!({}))).collect();
    set.push(resource("Endpoint", "other", json!({"servers": ["flies"]})));
    let before = state.digest();
    assert_eq!(
        refusals(state.apply(Revision(2), &Command::Apply(set))),
        [Refusal {
            index: 10,
            path: "spec.servers[0]".to_owned(),
            message: "there is no Server acme/flies".to_owned(),
            nearest: Some("files".to_owned()),
        }]
    );
    assert_eq!((state.len(), state.digest()), (5, before));
}

#[test]
fn what_is_still_named_is_not_deleted() -> Result<(), Box<dyn std::error::Error>> {
    let mut state = ready();
    let files = ResourceId::server(&"acme".parse()?, &"files".parse()?);
    let main = ResourceId::endpoint(&"acme".parse()?, &"main".parse()?);
    let refused = refusals(state.apply(Revision(2), &Command::Delete(vec![files.clone()])));
    assert_eq!(refused[0].message, "Server acme/files is still named by Endpoint acme/main");
    let both = state.apply(Revision(3), &Command::Delete(vec![files.clone(), main.clone()]));
    assert_eq!(both.outcome, Outcome::Done(vec![(files, ChangeKind::Deleted), (main, ChangeKind::Deleted)]));
    Ok(())
}

#[test]
fn an_agent_takes_its_keys_along() -> Result<(), Box<dyn std::error::Error>> {
    let mut state = ready();
    state.apply(Revision(2), &Command::PutKey(key(1)));
    assert_eq!(state.agent_keys(&"acme".parse()?, &"bot".parse()?).count(), 1);
    assert_eq!(
        refusals(state.apply(Revision(3), &Command::PutKey(key(1))))[0].message,
        "a key of this id exists already"
    );
    let bot = ResourceId::agent(&"acme".parse()?, &"bot".parse()?);
    let applied = state.apply(Revision(4), &Command::Delete(vec![bot]));
    assert_eq!(applied.changes.len(), 2);
    assert_eq!(state.agent_keys(&"acme".parse()?, &"bot".parse()?).count(), 0);
    Ok(())
}

#[test]
fn a_secret_needs_the_version_after_the_stored_one() -> Result<(), Box<dyn std::error::Error>> {
    let mut state = ready();
    let secret = |version| SealedSecret {
        tenant: "acme".parse().expect("a name"),
        credential: "token".parse().expect("a name"),
        version,
        tenant_key_version: 1,
        nonce: [0; 12],
        ciphertext: vec![1, 2, 3],
    };
    let tenant_key = TenantKey { tenant: "acme".parse()?, version: 1, nonce: [0; 12], wrapped: vec![9] };
    let first = Command::PutSecret { secret: secret(1), tenant_key: Some(tenant_key) };
    assert_eq!(state.apply(Revision(2), &first).changes.len(), 2);
    assert_eq!(
        refusals(state.apply(Revision(3), &first))[0].message,
        "the tenant's data key changed meanwhile; try again"
    );
    let skipping = Command::PutSecret { secret: secret(3), tenant_key: None };
    assert_eq!(
        refusals(state.apply(Revision(4), &skipping))[0].message,
        "the credential's secret changed meanwhile; try again"
    );
    let digest = state.digest();
    let second = Command::PutSecret { secret: secret(2), tenant_key: None };
    assert_eq!(state.apply(Revision(5), &second).changes.len(), 1);
    assert_eq!(state.digest(), digest, "nodes never receive a sealed secret as a record");
    Ok(())
}

#[test]
fn a_catalog_that_says_the_same_changes_nothing() -> Result<(), Box<dyn std::error::Error>> {
    let mut state = ready();
    let mut catalog = Catalog::empty("acme".parse()?, "files".parse()?);
    catalog.tools.push(Definition::new("read", r#"{"name":"read"}"#));
    assert_eq!(state.apply(Revision(2), &Command::PutCatalog(catalog.clone())).changes.len(), 1);
    assert_eq!(state.apply(Revision(3), &Command::PutCatalog(catalog)).changes, []);
    Ok(())
}

fn any_command() -> impl Strategy<Value = Command> {
    let name = prop::sample::select(vec!["files", "time", "mail"]);
    let agent = prop::sample::select(vec!["bot", "eve"]);
    prop_oneof![
        Just(Command::Apply(acme())),
        name.clone().prop_map(|name| Command::Apply(vec![resource(
            "Server",
            name,
            json!({"url": "http://h/"})
        )])),
        (name.clone(), name.clone()).prop_map(|(endpoint, server)| {
            Command::Apply(vec![resource("Endpoint", endpoint, json!({"servers": [server]}))])
        }),
        agent.clone().prop_map(|agent| Command::Apply(vec![resource("Agent", agent, json!({}))])),
        any::<u8>().prop_map(|id| Command::PutKey(key(id % 4))),
        any::<u8>().prop_map(|id| Command::RevokeKey {
            tenant: "acme".parse().expect("a name"),
            id: KeyId([id % 4; 8])
        }),
        (name, prop::sample::select(vec!["Server", "Endpoint"])).prop_map(|(name, kind)| {
            let spec = if kind == "Server" { json!({"url": "http://h/"}) } else { json!({"servers": ["x"]}) };
            Command::Delete(vec![resource(kind, name, spec).id()])
        }),
        agent.prop_map(|agent| Command::Delete(vec![resource("Agent", agent, json!({})).id()])),
    ]
}

proptest! {
    #[test]
    fn a_history_gives_one_state_and_no_dangling_reference(history in prop::collection::vec(any_command(), 0..40)) {
        let mut first = State::default();
        let mut second = State::default();
        for (index, command) in history.iter().enumerate() {
            let revision = Revision(index as u64 + 1);
            let read = Command::decode(&command.encode()).expect("a command reads back");
            prop_assert_eq!(&read, command);
            prop_assert_eq!(first.apply(revision, command), second.apply(revision, &read));
        }
        let stored: Vec<(String, Arc<[u8]>)> = first.entries().map(|(key, bytes)| (key.to_owned(), bytes)).collect();
        let again: Vec<(String, Arc<[u8]>)> = second.entries().map(|(key, bytes)| (key.to_owned(), bytes)).collect();
        prop_assert_eq!(&stored, &again);
        let loaded = State::load(stored.into_iter().map(|(key, bytes)| (key, bytes.to_vec()))).expect("loads");
        prop_assert_eq!(loaded.digest(), first.digest());
        for record in first.records() {
            if let gantry_model::record::RecordValue::Resource(resource) = &record.value {
                for reference in gantry_model::reference::references(resource) {
                    prop_assert!(first.resource(&reference.target).is_some(), "{reference:?} dangles");
                }
            }
        }
    }
}
