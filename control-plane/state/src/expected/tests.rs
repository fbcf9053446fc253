//! Lost updates, through the state machine.

use gantry_model::admin::{Admin, AdminChange, AdminToken};
use gantry_model::key::KeyId;
use gantry_model::rollout::{Stage, Thresholds};
use gantry_model::{AgentKey, Ban, BanTarget, Resource, ResourceId, Revision, Rollout, RolloutId, document};
use serde_json::json;

use super::DELETIONS_MAX;
use crate::{Command, Outcome, Proposal, State};

fn resource(kind: &str, name: &str, spec: serde_json::Value) -> Resource {
    let tenant = if kind == "Tenant" { name } else { "acme" };
    let fields = json!({"kind": kind, "tenant": tenant, "name": name, "spec": spec});
    document::parse(fields).expect("a valid document")
}

fn agent(name: &str) -> Resource {
    resource("Agent", name, json!({}))
}

fn bot() -> ResourceId {
    ResourceId::agent(&"acme".parse().expect("a name"), &"bot".parse().expect("a name"))
}

fn expecting(revision: u64, command: Command) -> Command {
    Command::Expecting { revision: Revision(revision), command: Box::new(command) }
}

fn apply(state: &mut State, revision: u64, command: Command) -> Result<(), Vec<String>> {
    // As it stands in the log.
    let command = Proposal::decode(&Proposal::from(command).encode()).expect("a command").command;
    let before = state.clone();
    match state.apply(Revision(revision), &command).outcome {
        Outcome::Done(_) => Ok(()),
        Outcome::Refused(refusals) => {
            assert_eq!(state.digest(), before.digest());
            Err(refusals
                .into_iter()
                .map(|refusal| format!("{}: {}", refusal.index, refusal.message))
                .collect())
        }
    }
}

fn ready() -> State {
    let mut state = State::default();
    let set = vec![resource("Tenant", "acme", json!({})), agent("bot"), agent("other")];
    apply(&mut state, 5, Command::Apply(set)).expect("applied");
    state
}

#[test]
fn a_set_is_refused_when_one_of_its_documents_was_changed_since() {
    let mut state = ready();
    let changed = resource("Agent", "bot", json!({"groups": ["ops"]}));
    apply(&mut state, 7, Command::Apply(vec![changed])).expect("applied");
    let set = || Command::Apply(vec![agent("other"), agent("bot"), agent("new")]);
    let told = "1: Agent acme/bot was changed at revision 7, after the expected revision 6";
    assert_eq!(apply(&mut state, 8, expecting(6, set())), Err(vec![told.to_owned()]));
    assert_eq!(apply(&mut state, 8, expecting(7, set())), Ok(()));
}

#[test]
fn what_was_deleted_since_is_told_and_what_never_was_is_not() {
    let mut state = ready();
    apply(&mut state, 7, Command::Delete(vec![bot()])).expect("deleted");
    let told = "0: Agent acme/bot was deleted at revision 7, after the expected revision 6";
    let set = |name: &str| Command::Apply(vec![agent(name)]);
    assert_eq!(apply(&mut state, 8, expecting(6, set("bot"))), Err(vec![told.to_owned()]));
    assert_eq!(apply(&mut state, 8, expecting(6, set("new"))), Ok(()));
    assert_eq!(apply(&mut state, 9, expecting(7, set("bot"))), Ok(()));
    let told = "0: Agent acme/bot was changed at revision 9, after the expected revision 8";
    let delete = || Command::Delete(vec![bot()]);
    assert_eq!(apply(&mut state, 10, expecting(8, delete())), Err(vec![told.to_owned()]));
    assert_eq!(apply(&mut state, 10, expecting(9, delete())), Ok(()));
}

#[test]
fn a_tenant_that_was_deleted_since_is_told_with_all_that_it_had() {
    let mut state = ready();
    let tenant = ResourceId::of_tenant(&"acme".parse().expect("a name"));
    let ids = state.names(&tenant.tenant, gantry_model::Kind::Agent);
    let mut all: Vec<ResourceId> =
        ids.iter().map(|name| ResourceId::agent(&tenant.tenant, &name.parse().expect("a name"))).collect();
    all.push(tenant);
    apply(&mut state, 7, Command::Delete(all)).expect("deleted");
    let kept: Vec<String> = state.entries().map(|(key, _)| key.to_owned()).collect();
    assert_eq!(kept, ["@deletions"], "nothing of the tenant is left");
    let told = "Tenant acme was deleted at revision 7, after the expected revision 6";
    let set = || Command::Apply(vec![resource("Tenant", "acme", json!({})), agent("bot")]);
    let both = vec![format!("0: {told}"), format!("1: {told}")];
    assert_eq!(apply(&mut state, 8, expecting(6, set())), Err(both));
    assert_eq!(apply(&mut state, 8, expecting(7, set())), Ok(()));
}

#[test]
fn a_tenant_that_was_made_again_is_not_the_one_that_was_expected() {
    let mut state = ready();
    let tenant = ResourceId::of_tenant(&"acme".parse().expect("a name"));
    let other = ResourceId { name: "other".parse().expect("a name"), ..bot() };
    apply(&mut state, 7, Command::Delete(vec![bot(), other, tenant])).expect("deleted");
    let again = || Command::Apply(vec![resource("Tenant", "acme", json!({}))]);
    apply(&mut state, 8, again()).expect("made again");
    let told = "0: Tenant acme was deleted at revision 7, after the expected revision 6";
    let set = |name: &str| Command::Apply(vec![agent(name)]);
    for name in ["bot", "never-there"] {
        assert_eq!(apply(&mut state, 9, expecting(6, set(name))), Err(vec![told.to_owned()]));
    }
    // Who has seen the new one may go on, also after a change of it.
    assert_eq!(apply(&mut state, 9, expecting(8, set("bot"))), Ok(()));
    let changed = resource("Tenant", "acme", json!({"description": "ours"}));
    apply(&mut state, 10, Command::Apply(vec![changed])).expect("changed");
    assert_eq!(apply(&mut state, 11, expecting(9, set("other"))), Ok(()));

    // Where the tenant's end is forgotten it is refused, and not told when others were deleted.
    for at in 0..=DELETIONS_MAX as u64 {
        let name: gantry_model::TenantName = format!("t{at}").parse().expect("a name");
        let made = resource("Tenant", name.as_str(), json!({}));
        apply(&mut state, 20 + 2 * at, Command::Apply(vec![made])).expect("made");
        apply(&mut state, 21 + 2 * at, Command::Delete(vec![ResourceId::of_tenant(&name)])).expect("deleted");
    }
    let told = "0: Tenant acme may have been deleted, after the expected revision 6";
    assert_eq!(apply(&mut state, 900, expecting(6, set("third"))), Err(vec![told.to_owned()]));
    assert_eq!(apply(&mut state, 900, expecting(10, set("third"))), Ok(()), "it stands as it was seen");
}

fn put_key(id: u8, agent: &str) -> Command {
    Command::PutKey(AgentKey {
        tenant: "acme".parse().expect("a name"),
        agent: agent.parse().expect("a name"),
        id: KeyId([id; 8]),
        hash: [id; 32],
        created_at_ms: 1,
        expires_at_ms: None,
    })
}

fn ban(target: BanTarget, at_ms: u64, until_ms: Option<u64>) -> Command {
    let (by, reason) = ("ann".to_owned(), String::new());
    Command::PutBan(Ban { tenant: "acme".parse().expect("a name"), target, by, reason, at_ms, until_ms })
}

#[test]
fn what_would_be_deleted_along_is_looked_at_too() {
    let mut state = ready();
    apply(&mut state, 7, put_key(1, "bot")).expect("put");
    let delete = || Command::Delete(vec![bot()]);
    let key = "0: key acme/0101010101010101 was changed at revision 7, after the expected revision 6";
    assert_eq!(apply(&mut state.clone(), 9, expecting(6, delete())), Err(vec![key.to_owned()]));
    assert_eq!(apply(&mut state.clone(), 9, expecting(7, delete())), Ok(()));

    let admin = Admin {
        name: "ann".parse().expect("a name"),
        roles: vec!["auditor:acme".parse().expect("a role")],
        tokens: vec![AdminToken { id: KeyId([1; 8]), hash: [1; 32], created_at_ms: 1, expires_at_ms: None }],
        created_at_ms: 1,
    };
    apply(&mut state, 8, Command::ChangeAdmin(AdminChange::Create(admin))).expect("made");
    apply(&mut state, 9, ban(BanTarget::Tenant, 1, None)).expect("banned");
    let tenant = ResourceId::of_tenant(&bot().tenant);
    let other = ResourceId { name: "other".parse().expect("a name"), ..bot() };
    let end = || Command::Delete(vec![other.clone(), bot(), tenant.clone()]);
    let told = [
        "1: key acme/0101010101010101 was changed at revision 7, after the expected revision 6",
        "2: the revocation of acme/tenant was changed at revision 9, after the expected revision 6",
        "2: admin ann was changed at revision 8, after the expected revision 6",
    ];
    assert_eq!(apply(&mut state, 10, expecting(6, end())), Err(told.map(str::to_owned).to_vec()));
    assert_eq!(apply(&mut state, 10, expecting(9, end())), Ok(()));
}

#[test]
fn what_a_rollout_deletes_along_is_told_of_the_document_that_names_it() {
    let mut state = ready();
    apply(&mut state, 7, put_key(1, "bot")).expect("put");
    apply(&mut state, 7, put_key(2, "bot")).expect("put");
    apply(&mut state, 8, Command::Apply(vec![resource("Agent", "other", json!({"groups": ["ops"]}))]))
        .expect("applied");
    let other = ResourceId { name: "other".parse().expect("a name"), ..bot() };
    let begin = Command::BeginRollout(Box::new(Rollout {
        tenant: bot().tenant,
        id: RolloutId([1; 8]),
        applied: vec![agent("new")],
        deleted: vec![bot(), other],
        resource_count: 3,
        checked: Revision(8),
        begun: Revision::NONE,
        stages: vec![Stage::Share(50)],
        stage: 0,
        pause_seconds: None,
        thresholds: Thresholds { rise_percent: 5, calls_min: 50 },
        by: "ann".to_owned(),
        begun_at_ms: 1,
        ended: None,
    }));
    let told = [
        "1: key acme/0101010101010101 was changed at revision 7, after the expected revision 6",
        "1: key acme/0202020202020202 was changed at revision 7, after the expected revision 6",
        "2: Agent acme/other was changed at revision 8, after the expected revision 6",
    ];
    let refused = apply(&mut state, 9, expecting(6, begin.clone()));
    assert_eq!(refused, Err(told.map(str::to_owned).to_vec()));
    assert_eq!(apply(&mut state, 9, expecting(8, begin)), Ok(()));
}

#[test]
fn only_what_was_deleted_by_its_name_is_remembered() {
    let mut state = ready();
    for id in 1..=60 {
        apply(&mut state, 6, put_key(id, "bot")).expect("put");
    }
    for id in 1..=9 {
        apply(&mut state, 6, put_key(100 + id, "other")).expect("put");
        apply(&mut state, 6, ban(BanTarget::Key(KeyId([100 + id; 8])), 1, Some(10))).expect("banned");
    }
    apply(&mut state, 7, Command::Delete(vec![bot()])).expect("deleted, with its keys");
    // What is past is forgotten with this one.
    let other = BanTarget::Agent("other".parse().expect("a name"));
    apply(&mut state, 8, ban(other.clone(), 20, None)).expect("banned");
    let lift = Command::LiftBan { tenant: bot().tenant, target: other.clone() };
    apply(&mut state, 9, lift).expect("lifted");
    let remembered = state.deletions(Some(&bot().tenant)).expect("some").as_ref().clone();
    let keys: Vec<&str> = remembered.latest.iter().map(|deletion| deletion.key.as_str()).collect();
    assert_eq!(
        (remembered.forgotten, keys),
        (Revision::NONE, vec!["acme/agent/bot", "acme/ban/agent/other"])
    );
    let told =
        "0: the revocation of acme/agent/other was deleted at revision 9, after the expected revision 8";
    assert_eq!(apply(&mut state, 10, expecting(8, ban(other, 30, None))), Err(vec![told.to_owned()]));
}

#[test]
fn what_is_not_remembered_any_more_is_refused_too() {
    let mut state = ready();
    for at in 0..=DELETIONS_MAX as u64 {
        let name = format!("a{at}");
        let id = ResourceId { name: name.parse().expect("a name"), ..bot() };
        apply(&mut state, 10 + 2 * at, Command::Apply(vec![agent(&name)])).expect("applied");
        apply(&mut state, 11 + 2 * at, Command::Delete(vec![id])).expect("deleted");
    }
    let told = "0: Agent acme/a0 may have been deleted by revision 11, after the expected revision 10";
    let set = || Command::Apply(vec![agent("a0")]);
    assert_eq!(apply(&mut state, 900, expecting(10, set())), Err(vec![told.to_owned()]));
    assert_eq!(apply(&mut state, 900, expecting(11, set())), Ok(()));
}

#[test]
fn a_revision_that_is_not_there_yet_is_refused() {
    let mut state = ready();
    let told = vec!["0: there is no revision 6 yet".to_owned()];
    assert_eq!(apply(&mut state, 6, expecting(6, Command::Delete(vec![bot()]))), Err(told));
}
