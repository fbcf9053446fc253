//! Whom tokens mean, and how many callers policies can tell apart.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::PolicyName;
use serde_json::json;

use super::*;

fn identity(client: &str, user: &str, groups: &[&str]) -> Identity {
    Identity {
        provider: "corp".parse().expect("a name"),
        client: client.to_owned(),
        user: Some(format!("corp/{user}").parse().expect("a user")),
        actors: Vec::new(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        scopes: BTreeSet::new(),
        tags: BTreeMap::new(),
        ends_at: 0,
        told: Default::default(),
    }
}

fn callers() -> Callers {
    let spec =
        |identities| serde_json::from_value::<AgentSpec>(json!({"identities": identities})).expect("a spec");
    let named = spec(json!([{"provider": "corp", "client": "bot-1"}]));
    let others = spec(json!([{"provider": "corp"}]));
    let agents = [("bot", named), ("desktop", others)];
    Callers::of(&agents.map(|(name, spec)| (name.parse().expect("a name"), spec)).into())
}

fn policies(text: &str) -> PolicySet {
    let name: PolicyName = "main".parse().expect("a name");
    PolicySet::compile([(&name, text)]).expect("policies")
}

#[test]
fn a_client_is_the_agent_that_names_it_or_else_the_one_for_all_others() {
    let (callers, policies) = (callers(), PolicySet::default());
    let agent = |client| {
        callers.agent(&[&policies], &identity(client, "ann", &[])).map(|agent| agent.name.to_string())
    };
    assert_eq!((agent("bot-1").as_deref(), agent("x").as_deref()), (Some("bot"), Some("desktop")));
    let elsewhere = Identity { provider: "other".parse().expect("a name"), ..identity("bot-1", "ann", &[]) };
    assert!(
        callers.agent(&[&policies], &elsewhere).is_none(),
        "what one provider calls a client is nothing to another"
    );
}

#[test]
fn callers_whom_no_policy_tells_apart_are_one_and_others_are_not() {
    let callers = callers();
    let policies = policies(
        r#"permit(principal, action, resource) when { principal has user && principal.user in Group::"ops" };
           forbid(principal, action, resource) when { principal has user && principal.user == User::"corp/eve" };"#,
    );
    let agent =
        |user, groups: &[&str]| callers.agent(&[&policies], &identity("x", user, groups)).expect("an agent");
    let ann = agent("ann", &["ops", "staff"]);
    assert!(Arc::ptr_eq(&ann, &agent("bob", &["ops", "guests"])));
    assert!(!Arc::ptr_eq(&ann, &agent("bob", &["staff"])));
    assert!(!Arc::ptr_eq(&ann, &agent("eve", &["ops"])));
    let scoped = Identity { scopes: BTreeSet::from(["x".to_owned()]), ..identity("x", "ann", &["ops"]) };
    assert!(!Arc::ptr_eq(&ann, &callers.agent(&[&policies], &scoped).expect("an agent")));
    assert_eq!(callers.classes.read().expect("unpoisoned").len(), 4);
}

#[test]
fn callers_beyond_the_bound_make_room() {
    let (callers, policies) = (callers(), PolicySet::default());
    for number in 0..=CLASSES_MAX {
        let scopes = BTreeSet::from([number.to_string()]);
        let shown = Identity { scopes, ..identity("x", "ann", &[]) };
        callers.agent(&[&policies], &shown).expect("an agent");
    }
    assert_eq!(callers.classes.read().expect("unpoisoned").len(), 1);
}
