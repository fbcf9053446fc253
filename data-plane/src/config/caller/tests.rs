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
        bound_to: None,
        told: Default::default(),
    }
}

fn callers() -> Callers {
    let spec =
        |identities| serde_json::from_value::<AgentSpec>(json!({"identities": identities})).expect("a spec");
    let named = spec(json!([{"provider": "corp", "client": "bot-1"}]));
    let others = spec(json!([{"provider": "corp"}]));
    let agents = [("bot", named), ("desktop", others)];
    Callers::of(&agents.map(|(name, spec)| (name.parse().expect("a name"), spec)).into(), &[])
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
fn of_what_several_authorities_say_a_name_counts_before_all_others_and_two_agents_are_none() {
    let spec =
        |identities| serde_json::from_value::<AgentSpec>(json!({"identities": identities})).expect("a spec");
    let agents = [
        ("anybody", spec(json!([{"provider": "a"}, {"provider": "b"}]))),
        ("bot", spec(json!([{"provider": "b", "client": "bot"}, {"provider": "c", "client": "bot"}]))),
        ("other", spec(json!([{"provider": "d", "client": "bot"}, {"provider": "d"}]))),
    ];
    let callers = Callers::of(&agents.map(|(name, spec)| (name.parse().expect("a name"), spec)).into(), &[]);
    let said = |provider: &str, client: &str| {
        Arc::new(Identity { provider: provider.parse().expect("a name"), ..identity(client, "ann", &[]) })
    };
    let chosen = |said: &[Arc<Identity>]| {
        callers.choose(said).map(|identity| identity.map(|identity| identity.provider.to_string()))
    };
    let one = |provider: &str| Ok(Some(provider.to_owned()));
    assert_eq!(chosen(&[said("a", "bot"), said("b", "bot")]), one("b"), "the first authority does not win");
    assert_eq!(chosen(&[said("b", "bot"), said("c", "bot")]), one("b"), "both say the same agent");
    assert_eq!(chosen(&[said("a", "x"), said("b", "x")]), one("a"));
    assert_eq!(chosen(&[said("b", "bot"), said("d", "bot")]), Err(SeveralAgents));
    assert_eq!(chosen(&[said("a", "x"), said("d", "x")]), Err(SeveralAgents));
    assert_eq!((chosen(&[said("c", "x")]), chosen(&[])), (Ok(None), Ok(None)));
}

#[test]
fn names_of_hosts_have_no_case_and_other_names_do() {
    let spec = |client: &str| {
        let identities = ["hosts", "uris"].map(|provider| json!({"provider": provider, "client": client}));
        serde_json::from_value::<AgentSpec>(json!({"identities": identities})).expect("a spec")
    };
    let provider = |name: &str, kind: &str| {
        let spec = json!({"client_authorities": "", "client_name": kind});
        let spec = serde_json::from_value(spec).expect("a specification");
        (name.parse().expect("a name"), ProviderSpec::Authority(spec))
    };
    let providers = [provider("hosts", "dns"), provider("uris", "uri")];
    let agents = [("bot", spec("Bot.example")), ("one", spec("x.example")), ("two", spec("X.example"))];
    let callers =
        Callers::of(&agents.map(|(name, spec)| (name.parse().expect("a name"), spec)).into(), &providers);
    let agent = |provider: &str, client: &str| {
        let identity =
            Identity { provider: provider.parse().expect("a name"), ..identity(client, "ann", &[]) };
        callers.agent(&[&PolicySet::default()], &identity).map(|agent| agent.name.to_string())
    };
    assert_eq!(agent("hosts", "bot.example").as_deref(), Some("bot"));
    assert_eq!((agent("uris", "bot.example"), agent("uris", "Bot.example").as_deref()), (None, Some("bot")));
    assert_eq!(agent("hosts", "x.example"), None, "two agents are one host");
    assert_eq!(agent("uris", "X.example").as_deref(), Some("two"));
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
