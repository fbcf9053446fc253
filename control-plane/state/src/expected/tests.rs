//! Lost updates, through the state machine.

use gantry_model::{Resource, ResourceId, Revision, document};
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
