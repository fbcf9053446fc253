//! The state machine against the rules that it promises, and against random histories.

use std::sync::Arc;

use gantry_model::enrolment::Enrolment;
use gantry_model::key::KeyId;
use gantry_model::record::{Cluster, SealedSecret, TenantKey};
use gantry_model::resource::PROVIDERS_MAX;
use gantry_model::{
    AgentKey, Approval, Catalog, Definition, DefinitionKind, QuarantineReason, Quarantined, Resource,
    ResourceId, Revision, document,
};
use proptest::prelude::*;
use serde_json::json;

use crate::{Applied, ChangeKind, Command, Outcome, Proposal, Refusal, State};

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
fn a_token_picks_one_provider_and_one_agent() {
    let mut state = ready();
    let provider = |name: &str, issuer: &str| resource("Provider", name, json!({"issuer": issuer}));
    let agent = |name: &str, client: serde_json::Value| {
        let mut identity = json!({"provider": "corp"});
        if !client.is_null() {
            identity["client"] = client;
        }
        resource("Agent", name, json!({"identities": [identity]}))
    };
    let set =
        vec![provider("corp", "https://id.example.com"), agent("one", json!("x")), agent("all", json!(null))];
    assert!(matches!(state.apply(Revision(5), &Command::Apply(set.clone())).outcome, Outcome::Done(_)));
    assert!(
        matches!(state.apply(Revision(6), &Command::Apply(set)).outcome, Outcome::Done(_)),
        "the same again"
    );
    for (wrong, path, message) in [
        (
            provider("other", "https://id.example.com"),
            "spec.issuer",
            "is that of provider corp already; a token picks its provider by it",
        ),
        (agent("two", json!("x")), "spec.identities[0]", "is Agent acme/one already"),
        (agent("two", json!(null)), "spec.identities[0]", "is Agent acme/all already"),
    ] {
        let refused = refusals(state.apply(Revision(7), &Command::Apply(vec![wrong])));
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].path.as_str(), refused[0].message.as_str()), (path, message));
    }
    let many = (0..PROVIDERS_MAX)
        .map(|number| provider(&format!("p{number}"), &format!("https://{number}.example.com")));
    let refused = refusals(state.apply(Revision(7), &Command::Apply(many.collect())));
    assert_eq!(refused[0].message, "tenant acme would have more than 16 providers");
    let deleted = Command::Delete(vec![ResourceId::provider(
        &"acme".parse().expect("a name"),
        &"corp".parse().expect("a name"),
    )]);
    assert!(!refusals(state.apply(Revision(7), &deleted)).is_empty(), "agents name it");
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
    assert_eq!(applied.changes.len(), 3, "the agent, its key, and what is remembered of both");
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

fn tool(name: &str, description: &str) -> Definition {
    Definition::new(name, json!({"name": name, "description": description}).to_string())
}

fn offers(tools: &[Definition]) -> Catalog {
    let mut catalog = Catalog::empty("acme".parse().expect("a name"), "files".parse().expect("a name"));
    catalog.tools = tools.to_vec();
    catalog
}

fn pinned(pin: &str) -> Command {
    let spec = json!({"url": "http://127.0.0.1:1/mcp", "credential": "token", "pin": pin});
    Command::Apply(vec![resource("Server", "files", spec)])
}

fn approve(tools: &[Definition]) -> Command {
    let approval =
        |tool: &Definition| Approval { kind: DefinitionKind::Tool, name: tool.name.clone(), hash: tool.hash };
    Command::ApproveCatalog {
        tenant: "acme".parse().expect("a name"),
        server: "files".parse().expect("a name"),
        approvals: tools.iter().map(approval).collect(),
    }
}

#[test]
fn a_pinned_catalog_changes_by_approval_only() -> Result<(), Box<dyn std::error::Error>> {
    let mut state = ready();
    let stored = |state: &State| -> Result<Catalog, Box<dyn std::error::Error>> {
        Ok(state.catalog(&"acme".parse()?, &"files".parse()?).ok_or("a catalog")?.as_ref().clone())
    };
    state.apply(Revision(2), &pinned("review"));
    assert_eq!(
        refusals(state.apply(Revision(3), &approve(&[tool("read", "a")])))[0].message,
        "nothing is recorded of server acme/files yet"
    );
    let first = offers(&[tool("read", "a"), tool("write", "a")]);
    assert_eq!(state.apply(Revision(4), &Command::PutCatalog(first.clone())).changes.len(), 1);
    assert_eq!(stored(&state)?, first, "the first one is taken as it is");

    let evil = offers(&[tool("read", "evil"), tool("write", "a")]);
    assert_eq!(state.apply(Revision(5), &Command::PutCatalog(evil.clone())).changes.len(), 1);
    let held = stored(&state)?;
    assert_eq!((held.tools, held.quarantined.len()), (vec![tool("write", "a")], 1));
    assert_eq!(state.apply(Revision(6), &Command::PutCatalog(evil.clone())).changes, []);

    // Another build answers, and then the first again: nobody was asked, nothing new is in force.
    state.apply(Revision(7), &Command::PutCatalog(first.clone()));
    assert_eq!(stored(&state)?, first);
    state.apply(Revision(8), &Command::PutCatalog(evil.clone()));

    assert_eq!(
        refusals(state.apply(Revision(9), &approve(&[tool("read", "what was seen before")])))[0].message,
        "tool \"read\" changed again after it was looked at"
    );
    assert_eq!(
        refusals(state.apply(Revision(9), &approve(&[tool("reed", "")])))[0],
        Refusal {
            index: 0,
            path: String::new(),
            message: "no tool \"reed\" is in quarantine".to_owned(),
            nearest: Some("read".to_owned()),
        }
    );
    assert_eq!(
        refusals(state.apply(Revision(9), &approve(&[])))[0].message,
        "the approval names no definition"
    );
    assert_eq!(state.apply(Revision(10), &approve(&[tool("read", "evil")])).changes.len(), 1);
    assert_eq!(stored(&state)?, offers(&[tool("write", "a"), tool("read", "evil")]));
    assert_eq!(state.apply(Revision(11), &Command::PutCatalog(evil)).changes, []);

    // Without the pin, what waits is released by the next report.
    let third = offers(&[tool("read", "b"), tool("write", "a")]);
    state.apply(Revision(12), &Command::PutCatalog(third.clone()));
    assert_eq!(stored(&state)?.quarantined.len(), 1);
    state.apply(Revision(13), &pinned("auto"));
    assert_eq!(stored(&state)?.quarantined.len(), 1);
    state.apply(Revision(14), &Command::PutCatalog(third.clone()));
    assert_eq!(stored(&state)?, third);
    Ok(())
}

#[test]
fn a_node_cannot_put_anything_into_quarantine() -> Result<(), Box<dyn std::error::Error>> {
    let mut state = ready();
    let mut report = offers(&[tool("read", "a")]);
    state.apply(Revision(2), &Command::PutCatalog(report.clone()));
    let held = Quarantined {
        kind: DefinitionKind::Tool,
        definition: tool("write", "a"),
        reason: QuarantineReason::New,
    };
    report.quarantined.push(held);
    assert_eq!(state.apply(Revision(3), &Command::PutCatalog(report)).changes, []);
    Ok(())
}

#[test]
fn keys_of_nodes_are_rotated_one_generation_at_a_time() {
    let mut state = State::default();
    let rotate = |generation| Command::RotateNodeKeys {
        generation,
        nonce: [generation as u8; 12],
        wrapped: vec![generation as u8],
        rotated_at_ms: u64::from(generation),
    };
    assert_eq!(refusals(state.apply(Revision(1), &rotate(2)))[0].message, "there is no cluster yet");
    let cluster = Cluster {
        id: "c".to_owned(),
        kek_id: "k".to_owned(),
        root_nonce: [9; 12],
        root_wrapped: vec![9],
        node_keys_nonce: [1; 12],
        node_keys_wrapped: vec![1],
        node_keys_generation: 1,
        node_keys_rotated_at_ms: None,
        enrolment: Enrolment::default(),
    };
    state.apply(Revision(2), &Command::Bootstrap(cluster.clone()));
    for generation in [1, 3] {
        let message = "the keys of the nodes were rotated meanwhile";
        assert_eq!(refusals(state.apply(Revision(3), &rotate(generation)))[0].message, message);
    }
    let digest = state.digest();
    assert_eq!(state.apply(Revision(4), &rotate(2)).changes.len(), 1);
    let expected = Cluster {
        node_keys_nonce: [2; 12],
        node_keys_wrapped: vec![2],
        node_keys_generation: 2,
        node_keys_rotated_at_ms: Some(2),
        ..cluster
    };
    assert_eq!(state.cluster().map(AsRef::as_ref), Some(&expected));
    assert_eq!(state.digest(), digest, "nodes receive no record of it");
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
        prop::sample::select(vec!["auto", "review"]).prop_map(pinned),
        any_tools().prop_map(|tools| Command::PutCatalog(offers(&tools))),
        any_tools().prop_map(|tools| approve(&tools)),
    ]
}

fn any_tools() -> impl Strategy<Value = Vec<Definition>> {
    let description = prop::sample::select(vec!["a", "b"]);
    prop::collection::btree_map(prop::sample::select(vec!["read", "write", "list"]), description, 0..3)
        .prop_map(|tools| tools.into_iter().map(|(name, description)| tool(name, description)).collect())
}

proptest! {
    #[test]
    fn a_history_gives_one_state_and_no_dangling_reference(history in prop::collection::vec(any_command(), 0..40)) {
        let mut first = State::default();
        let mut second = State::default();
        for (index, command) in history.iter().enumerate() {
            let revision = Revision(index as u64 + 1);
            let read = Proposal::decode(&Proposal::from(command.clone()).encode());
            let read = read.expect("a command reads back").command;
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
