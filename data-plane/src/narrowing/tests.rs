//! Narrowings over the configurations that come before the one that has them.

use gantry_model::document;
use gantry_model::record::{Record, RecordValue};
use gantry_policy::{Hints, Shape};
use serde_json::{Value, json};

use super::*;
use crate::config::site::Site;
use crate::config::tenant::{Secrets, Tenant};

const PERMIT: &str = "permit(principal, action, resource);";

fn acme() -> TenantName {
    "acme".parse().expect("a name")
}

fn record(kind: &str, name: &str, spec: Value) -> Record {
    let document = json!({"kind": kind, "tenant": "acme", "name": name, "spec": spec});
    let resource = document::parse(document).expect("a document");
    Record { revision: Revision(1), value: RecordValue::Resource(Arc::new(resource)) }
}

/// Of its policies those that are called `shadow` are not enforced, and `ask` and more may be approved.
fn config(cluster_id: &str, revision: u64, policies: &[(&str, &str)]) -> Config {
    let agents = ["bot", "eve"].map(|name| record("Agent", name, json!({})));
    let spec = |name: &str, cedar: &str| match name.starts_with("ask") {
        true => json!({"cedar": cedar, "approval": {}}),
        false => json!({"cedar": cedar, "shadow": name == "shadow"}),
    };
    let policies = policies.iter().map(|(name, cedar)| record("Policy", name, spec(name, cedar)));
    let mut records: Vec<_> = agents.into_iter().chain(policies).collect();
    records.push(record("Server", "files", json!({"url": "http://127.0.0.1:9"})));
    records.push(record("Endpoint", "all", json!({"servers": ["files"]})));
    let tenant =
        Tenant::build(&acme(), records.iter(), &Secrets::new(), None, &Site::default()).expect("a tenant");
    let mut config = Config::empty(Arc::default()).at((cluster_id, Revision(revision)), None);
    config.put(tenant);
    config
}

fn narrowing(revision: u64, agents: &[&str], policies: &[(&str, &str)]) -> wire::Narrowing {
    let policy = |(name, cedar): &(&str, &str)| wire::NarrowingPolicy {
        name: (*name).to_owned(),
        cedar: (*cedar).to_owned(),
        needs_approval: name.starts_with("ask"),
    };
    let agent = |name: &&str| wire::NarrowingAgent { name: (*name).to_owned(), groups: Vec::new() };
    wire::Narrowing {
        tenant: "acme".to_owned(),
        revision,
        policies: policies.iter().map(policy).collect(),
        agents: agents.iter().map(agent).collect(),
        servers: vec!["files".to_owned()],
        endpoints: vec!["all".to_owned()],
    }
}

/// Takes what came ahead, all of it.
fn take_all(narrowings: &Narrowings, cluster: &str, came: Vec<wire::Narrowing>, served: &ArcSwap<Config>) {
    let refused = narrowings.take(cluster, came, served);
    assert!(refused.is_empty(), "{refused:?}");
}

/// The agents that may have a tool of the server.
fn allowed(config: &ArcSwap<Config>) -> Vec<&'static str> {
    let config = config.load();
    let tenant = &config.tenants[&acme()];
    let server = "files".parse().expect("a name");
    let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
    let is_allowed = |name: &&str| {
        let agent = tenant.agents.get(*name);
        agent.is_some_and(|agent| tenant.standing(agent, &target).is_shown())
    };
    ["bot", "eve"].into_iter().filter(is_allowed).collect()
}

/// Narrowings over a configuration of revision 5 that allows everything.
fn open() -> (Narrowings, ArcSwap<Config>) {
    (Narrowings::default(), ArcSwap::from_pointee(config("c", 5, &[("open", PERMIT)])))
}

#[test]
fn a_narrowing_holds_over_every_configuration_before_its_revision() {
    let (narrowings, served) = open();
    assert_eq!(allowed(&served), ["bot", "eve"]);
    let no_bot = [("open", PERMIT), ("no-bot", r#"forbid(principal == Agent::"bot", action, resource);"#)];
    take_all(&narrowings, "c", vec![narrowing(9, &["bot", "eve"], &no_bot)], &served);
    assert_eq!((allowed(&served), served.load().revision), (vec!["eve"], Revision(5)));
    // A large update that was under way already.
    narrowings.put_in_force(config("c", 7, &[("open", PERMIT)]), &served);
    assert_eq!((allowed(&served), served.load().revision), (vec!["eve"], Revision(7)));
    assert_eq!(narrowings.ahead().len(), 1);
    // The one that has it, and what came after it.
    narrowings.put_in_force(config("c", 10, &[("open", PERMIT)]), &served);
    assert_eq!((allowed(&served), narrowings.ahead()), (vec!["bot", "eve"], vec![]));
    // What is late is not put over what is later.
    take_all(&narrowings, "c", vec![narrowing(9, &["bot", "eve"], &no_bot)], &served);
    assert_eq!((allowed(&served), narrowings.ahead()), (vec!["bot", "eve"], vec![]));
}

#[test]
fn a_narrowing_takes_away_permits_agents_endpoints_and_servers_and_gives_nothing() {
    let take = |narrowing| {
        let (narrowings, served) = open();
        take_all(&narrowings, "c", vec![narrowing], &served);
        served
    };
    assert_eq!(allowed(&take(narrowing(9, &["bot", "eve"], &[]))), [""; 0]);
    assert_eq!(allowed(&take(narrowing(9, &["eve"], &[("open", PERMIT)]))), ["eve"]);
    let mut without_server = narrowing(9, &["bot", "eve"], &[("open", PERMIT)]);
    without_server.servers.clear();
    assert_eq!(allowed(&take(without_server)), [""; 0]);
    let mut without_endpoint = narrowing(9, &["bot", "eve"], &[("open", PERMIT)]);
    without_endpoint.endpoints.clear();
    assert!(take(without_endpoint).load().tenants[&acme()].endpoints.is_empty());
    // A tenant that is gone.
    let gone = wire::Narrowing { tenant: "acme".to_owned(), revision: 9, ..wire::Narrowing::default() };
    assert_eq!(allowed(&take(gone)), [""; 0]);

    let (narrowings, served) = (Narrowings::default(), ArcSwap::from_pointee(config("c", 5, &[])));
    take_all(&narrowings, "c", vec![narrowing(9, &["bot", "eve"], &[("open", PERMIT)])], &served);
    assert_eq!(allowed(&served), [""; 0], "what is not allowed yet waits for its update");
}

#[test]
fn the_later_of_two_counts_and_another_cluster_does_not() {
    let (narrowings, served) = open();
    let both = ["bot", "eve"];
    take_all(&narrowings, "c", vec![narrowing(9, &both, &[])], &served);
    take_all(&narrowings, "c", vec![narrowing(8, &both, &[("open", PERMIT)])], &served);
    assert_eq!(allowed(&served), [""; 0]);
    take_all(&narrowings, "c", vec![narrowing(10, &both, &[("open", PERMIT)])], &served);
    assert_eq!(allowed(&served), both);
    take_all(&narrowings, "c", vec![narrowing(11, &both, &[])], &served);
    // The node follows another cluster, whose revisions are below.
    narrowings.put_in_force(config("d", 2, &[("open", PERMIT)]), &served);
    assert_eq!((allowed(&served), narrowings.ahead()), (both.to_vec(), vec![]));
}

#[test]
fn a_narrowing_ends_with_its_revision_also_where_the_update_touched_another_tenant() {
    let (narrowings, served) = open();
    let forbid = r#"forbid(principal == Agent::"bot", action, resource);"#;
    let no_bot = narrowing(9, &["bot", "eve"], &[("open", PERMIT), ("no-bot", forbid)]);
    take_all(&narrowings, "c", vec![no_bot], &served);
    // It was taken back meanwhile, so that the tenant is in the update what it was before.
    let untouched = |revision| served.load().at(("c", Revision(revision)), None);
    narrowings.put_in_force(untouched(8), &served);
    assert_eq!((allowed(&served), narrowings.ahead().len()), (vec!["eve"], 1));
    // A later denial does not stand on this one.
    take_all(&narrowings, "c", vec![narrowing(10, &["bot"], &[("open", PERMIT)])], &served);
    assert_eq!(allowed(&served), ["bot"]);
    narrowings.put_in_force(untouched(10), &served);
    assert_eq!((allowed(&served), narrowings.ahead()), (vec!["bot", "eve"], vec![]));
}

#[test]
fn a_narrowing_goes_on_over_a_tenant_that_is_served_in_an_older_form() {
    let (narrowings, served) = open();
    let came = || vec![narrowing(9, &["eve"], &[("open", PERMIT)])];
    take_all(&narrowings, "c", came(), &served);
    let next = |revision, older: &[TenantName]| {
        let older = Arc::new(older.iter().cloned().collect());
        Config { older, ..served.load().at(("c", Revision(revision)), None) }
    };
    narrowings.put_in_force(next(10, &[acme()]), &served);
    assert_eq!((allowed(&served), narrowings.ahead().len()), (vec!["eve"], 1));
    // As after a restart from what was kept.
    let restarted = ArcSwap::from_pointee(next(10, &[acme()]));
    restarted
        .store(Arc::new(Config { older: Arc::new([acme()].into()), ..config("c", 10, &[("open", PERMIT)]) }));
    take_all(&Narrowings::default(), "c", came(), &restarted);
    assert_eq!(allowed(&restarted), ["eve"]);
    narrowings.put_in_force(next(11, &[]), &served);
    assert_eq!((allowed(&served), narrowings.ahead()), (vec!["bot", "eve"], vec![]));
}

#[test]
fn what_cannot_be_compiled_is_refused_and_leaves_what_was_in_force() {
    let (narrowings, served) = open();
    let unformed = wire::Narrowing { tenant: "A!".to_owned(), revision: 9, ..wire::Narrowing::default() };
    let bad = narrowing(9, &["bot"], &[("bad", "permit(")]);
    let refused = narrowings.take("c", vec![unformed.clone(), bad], &served);
    let refused: Vec<_> = refused.iter().map(ToString::to_string).collect();
    let [form, policy] =
        ["what is denied in tenant \"A!\" is not well formed", "a policy of tenant acme does not compile"];
    assert_eq!(refused, [form, policy]);
    assert_eq!((allowed(&served), narrowings.ahead()), (vec!["bot", "eve"], vec![]));
    // It does not stand in the way of what another tenant is denied.
    let refused = narrowings.take("c", vec![unformed, narrowing(9, &["eve"], &[("open", PERMIT)])], &served);
    assert_eq!((refused.len(), allowed(&served)), (1, vec!["eve"]));
}

#[test]
fn what_comes_ahead_knows_for_whom_an_agent_acts() {
    let agents = [record("Agent", "bot", json!({"identities": [{"provider": "corp"}]}))];
    let policy = record("Policy", "open", json!({"cedar": PERMIT}));
    let mut records: Vec<_> = agents.into_iter().chain([policy]).collect();
    records.push(record("Server", "files", json!({"url": "http://127.0.0.1:9"})));
    records.push(record("Endpoint", "all", json!({"servers": ["files"]})));
    let tenant =
        Tenant::build(&acme(), records.iter(), &Secrets::new(), None, &Site::default()).expect("a tenant");
    let mut before = Config::empty(Arc::default()).at(("c", Revision(1)), None);
    before.put(tenant);
    let config = ArcSwap::from_pointee(before);
    let forbid = r#"forbid(principal, action, resource) when { principal has user && principal.user == User::"corp/eve" };"#;
    let came = narrowing(2, &["bot"], &[("open", PERMIT), ("not-eve", forbid)]);
    take_all(&Narrowings::default(), "c", vec![came], &config);
    let config = config.load();
    let (tenant, server) = (&config.tenants[&acme()], "files".parse().expect("a name"));
    let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
    let may = |user: &str| {
        let identity = serde_json::from_value(json!({
            "provider": "corp", "client": "x", "user": user, "actors": [], "groups": [], "scopes": [], "tags": {},
            "ends_at": 0,
        }));
        let agent = tenant.agent_of(&identity.expect("an identity")).expect("an agent");
        tenant.standing(&agent, &target).is_shown()
    };
    assert_eq!((may("corp/ann"), may("corp/eve")), (true, false));
}

#[test]
fn what_comes_ahead_may_read_the_call_and_is_not_what_a_policy_says_that_is_not_enforced() {
    let shadow = r#"forbid(principal == Agent::"bot", action, resource)
        when { context has arguments && context.arguments.path like "/data/*" };"#;
    let narrowings = Narrowings::default();
    let served = ArcSwap::from_pointee(config("c", 5, &[("open", PERMIT), ("shadow", shadow)]));
    let forbid = r#"forbid(principal == Agent::"bot", action, resource)
        when { context has arguments && context.arguments.path like "/etc/*" };"#;
    let came = narrowing(9, &["bot", "eve"], &[("open", PERMIT), ("not-etc", forbid)]);
    let refused = narrowings.take("c", vec![came], &served);
    assert!(refused.is_empty(), "{refused:?}");
    let (config, server) = (served.load(), "files".parse().expect("a name"));
    let tenant = &config.tenants[&acme()];
    let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
    let shape = Shape::from_schema(&json!({"type": "object", "properties": {"path": {"type": "string"}}}));
    let decide = |agent: &str, path: &str| {
        let (agent, given) = (&tenant.agents[agent], json!({"path": path}));
        let call = Call {
            at_seconds: 0,
            era: "modern",
            revision: "",
            arguments: Some((&shape, &given)),
            facts: None,
        };
        let decision = tenant.decide(agent, &target, &call);
        let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
        let is_open = matches!(tenant.standing(agent, &target), Standing::Open);
        let shadow = tenant.shadow(&decision, agent, &target, &call).map(|would| would.is_allow());
        (is_open, decision.is_allow(), reasons.join(" "), shadow)
    };
    assert_eq!(decide("bot", "/data/x"), (true, true, "open[0]".to_owned(), Some(false)));
    assert_eq!(decide("bot", "/etc/x"), (true, false, "not-etc[0]".to_owned(), None));
    assert_eq!(decide("eve", "/etc/x"), (false, true, "open[0]".to_owned(), None));
}

#[test]
fn an_approval_is_needed_where_either_wants_it_and_one_that_came_ahead_is_none_yet() {
    const ASK: &str = r#"forbid(principal, action == Action::"tools/call", resource);"#;
    let (open, one, other) = (("open", PERMIT), ("ask-one", ASK), ("ask-other", ASK));
    for (served, ahead, expected) in [
        (&[open][..], &[open, one][..], "require approval: ask-one[0]"),
        (&[open, one], &[open], "require approval: ask-one[0]"),
        (&[open, one], &[open, one, other], "require approval: ask-one[0] ask-other[0]"),
        (&[open, one], &[open, one, ("never", ASK)], "deny: never[0]"),
        (&[open], &[open], "allow: open[0]"),
    ] {
        let config = ArcSwap::from_pointee(config("c", 1, served));
        take_all(&Narrowings::default(), "c", vec![narrowing(2, &["bot"], ahead)], &config);
        let config = config.load();
        let (tenant, server) = (&config.tenants[&acme()], "files".parse().expect("a name"));
        let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
        let call = Call { at_seconds: 0, era: "modern", revision: "", arguments: None, facts: None };
        let agent = &tenant.agents["bot"];
        let decision = tenant.decide(agent, &target, &call);
        let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
        assert_eq!(format!("{}: {}", decision.verdict, reasons.join(" ")), expected);
        assert_eq!(tenant.standing(agent, &target).is_shown(), !decision.is_deny());
        // It can be asked for once the node has the change that wants it.
        assert_eq!(tenant.approving.revision(&"ask-other".parse().expect("a name")), None);
    }
}
