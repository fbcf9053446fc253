//! That lists and calls agree: random policies of a tenant, random callers, every call of everything that every endpoint
//! offers.
//!
//! What holds of each cell (a caller, an endpoint, what it offers, a call of that):
//! - what a list does not show is denied, whatever the call;
//! - what a list shows is allowed, at once or once it is approved, unless a statement says otherwise that reads of the call;
//! - the call is decided as it is without any list, and the same through every endpoint and by every name;
//! - policies that are not enforced change neither, and what they are told to come to is what enforcing them does.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use gantry_model::record::{Record, RecordValue};
use gantry_model::{Catalog, Definition, Kind, Revision, TenantName, document};
use gantry_policy::Verdict;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::json;

use super::*;
use crate::config::endpoint::Endpoint;
use crate::config::site::Site;
use crate::config::view::View;
use crate::identity::Identity;
use crate::mcp::message::Method;

/// Tenants where `PROPTEST_CASES` does not say otherwise: 100,800 cells, in 11 s without optimisation.
const TENANTS: u32 = 100;
/// Callers of each.
const CALLERS: usize = 6;
/// Cells that there are with as many tenants.
const CELLS_MIN: usize = 100_000;

const PRINCIPALS: [&str; 6] = [
    "principal",
    "principal",
    "principal == Agent::\"a\"",
    "principal in Group::\"g\"",
    "principal is Agent in Group::\"h\"",
    "principal == Agent::\"nobody\"",
];
const CALLS: &str = "action == Action::\"tools/call\"";
const ACTIONS: [&str; 5] = [
    "action",
    "action",
    CALLS,
    "action == Action::\"prompts/get\"",
    "action in [Action::\"tools/call\", Action::\"resources/read\"]",
];
const RESOURCES: [&str; 7] = [
    "resource",
    "resource in Server::\"s\"",
    "resource == Tool::\"s/read\"",
    "resource in Tool::\"t/run\"",
    "resource is Prompt",
    "resource is Tool in Server::\"t\"",
    "resource == Resource::\"s/mem://x\"",
];
/// What does not read of a call; some of it cannot be evaluated.
const OF_WHO_AND_WHAT: [&str; 10] = [
    "",
    "",
    "when { resource has destructive && !resource.destructive }",
    "when { resource has readOnly && resource.readOnly }",
    "when { principal has user && principal.user in Group::\"staff\" }",
    "unless { principal has user && principal.user == User::\"corp/eve\" }",
    "when { principal.scopes.contains(\"mcp\") }",
    "when { principal.hasTag(\"team\") && principal.getTag(\"team\").contains(\"it\") }",
    "when { resource.absent }",
    "unless { 9223372036854775807 + 1 == 0 }",
];
/// What does.
const OF_THE_CALL: [&str; 13] = [
    "when { context.time.hour < 12 }",
    "when { context.era == \"modern\" }",
    "unless { context.revision == \"2025-11-25\" && resource.absent }",
    "when { context has arguments && context.arguments has path && context.arguments.path like \"/data/*\" }",
    "when { context.arguments.n > 2 }",
    "unless { context.arguments has o && context.arguments.o has b && context.arguments.o.b }",
    "when { context.arguments.tags.contains(\"x\") }",
    "unless { context has arguments && context.arguments has open }",
    "when { context has facts && context.facts.path.escapes }",
    "unless { context has facts && context.facts.path.normalised.contains(\"/data/x\") }",
    "when { context.facts.sql.kinds == [\"select\"] }",
    "unless { context has facts && context.facts.shell.metacharacters.isEmpty() }",
    "when { context has facts && context.facts.size.bytes > 20 }",
];

/// A policy of one statement.
#[derive(Debug, Clone)]
struct Policy {
    cedar: String,
    permits: bool,
    reads: bool,
    shadow: bool,
    /// Whether what it forbids may be approved.
    approval: bool,
}

/// Who calls: an agent, and what its token says where it shows one.
#[derive(Debug, Clone)]
struct Who {
    agent: &'static str,
    token: Option<(Option<&'static str>, Vec<&'static str>, Vec<&'static str>)>,
}

/// What is asked for by its server's own word, and by which call and arguments.
type Place = ((u8, String), usize, usize);

/// Something of an endpoint that a caller may ask for.
enum Asked {
    Tool(ToolAccess),
    Prompt(Named),
    Resource(Named),
}

fn policy() -> impl Strategy<Value = Policy> {
    let condition = prop_oneof![
        2 => select(&OF_WHO_AND_WHAT).prop_map(|condition| (condition, false)),
        1 => select(&OF_THE_CALL).prop_map(|condition| (condition, true)),
    ];
    let permits = prop::bool::weighted(0.7);
    let scope = (select(&PRINCIPALS), select(&ACTIONS), select(&RESOURCES));
    let weighted = prop::bool::weighted;
    (permits, scope, condition, (weighted(0.15), weighted(0.3))).prop_map(
        |(permits, (principal, action, resource), (condition, reads), (shadow, approval))| {
            let (effect, approval) = if permits { ("permit", false) } else { ("forbid", approval) };
            // Only calls of tools can be approved.
            let action = if approval { CALLS } else { action };
            let cedar = format!("{effect}({principal}, {action}, {resource}) {condition};");
            Policy { cedar, permits, reads, shadow, approval }
        },
    )
}

fn who() -> impl Strategy<Value = Who> {
    let some = |words: &'static [&'static str]| subsequence(words, 0..=words.len());
    let user = prop::option::of(select(&["ann", "eve", "joe"]));
    let token = (user, some(&["staff", "g", "guests"]), some(&["mcp", "admin"]));
    (select(&["a", "b", "c"]), prop::option::of(token)).prop_map(|(agent, token)| Who { agent, token })
}

/// The tools of both servers; `open` has no type that policies can read.
fn tools(server: &str) -> Vec<Definition> {
    let schema = json!({"type": "object", "properties": {
        "path": {"type": "string"}, "text": {"type": "string"}, "n": {"type": "integer"}, "open": {},
        "tags": {"type": "array", "items": {"type": "string"}},
        "o": {"type": "object", "properties": {"b": {"type": "boolean"}}}}});
    let names = if server == "s" { ["read", "write"] } else { ["query", "run"] };
    let tool = |name: &str| {
        let annotations = json!({"readOnlyHint": name == "read", "destructiveHint": name == "run"});
        let tool = json!({"name": name, "inputSchema": schema, "annotations": annotations});
        Definition::new(name, tool.to_string())
    };
    names.iter().map(|name| tool(name)).collect()
}

/// What the tenant is besides its policies.
fn documents() -> Vec<(Kind, &'static str, Value)> {
    let server = |forms: Value| json!({"url": "http://127.0.0.1:9/mcp", "inspection": {"tools": forms}});
    let alias = |server: &str, target: &str, name: &str| json!({"server": server, target: name});
    let aliases = json!({"fetch": alias("s", "tool", "read"), "again": alias("s", "tool", "read"),
        "ask": alias("t", "prompt", "p")});
    vec![
        (Kind::Tenant, "acme", json!({})),
        (Kind::Provider, "corp", json!({"issuer": "https://id.example.com"})),
        (Kind::Agent, "a", json!({"groups": [], "identities": [{"provider": "corp", "client": "a"}]})),
        (Kind::Agent, "b", json!({"groups": ["g"], "identities": [{"provider": "corp", "client": "b"}]})),
        (Kind::Agent, "c", json!({"groups": ["g", "h"], "identities": [{"provider": "corp"}]})),
        (Kind::Server, "s", server(json!({"read": {"arguments": {"path": "path"}}}))),
        (
            Kind::Server,
            "t",
            server(json!({"query": {"arguments": {"text": "sql"}}, "run": {"arguments": {"text": "shell"}}})),
        ),
        (Kind::Endpoint, "one", json!({"servers": ["s"]})),
        (Kind::Endpoint, "both", json!({"servers": ["s", "t"], "naming": "prefixed"})),
        (Kind::Endpoint, "mixed", json!({"servers": ["t", "s"], "naming": "prefixed", "aliases": aliases})),
        (Kind::Endpoint, "few", json!({"servers": ["s", "t"], "naming": "aliased", "aliases": aliases})),
    ]
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is no name"))
}

fn catalog(server: &str) -> Catalog {
    let mut catalog = Catalog::empty(name("acme"), name(server));
    let define = |member: &str, named: &str| {
        let definition = json!({member: named, "name": "x"});
        Definition::new(named, definition.to_string())
    };
    catalog.tools = tools(server);
    catalog.prompts =
        ["p", "q"].map(|prompt| Definition::new(prompt, json!({"name": prompt}).to_string())).into();
    catalog.resources = ["mem://x", "mem://y"].map(|uri| define("uri", uri)).into();
    catalog.resource_templates = vec![define("uriTemplate", "mem://{id}")];
    catalog
}

fn spec(policy: &Policy, shadow: bool) -> Value {
    let mut spec = json!({"cedar": policy.cedar, "shadow": shadow});
    if policy.approval {
        spec["approval"] = json!({});
    }
    spec
}

/// The tenant with these policies, enforced or not as `shadow` says of each.
fn tenant<'p>(policies: impl Iterator<Item = (usize, &'p Policy, bool)>) -> Tenant {
    let acme: TenantName = name("acme");
    let policies =
        policies.map(|(number, policy, shadow)| (Kind::Policy, format!("p{number}"), spec(policy, shadow)));
    let documents = documents().into_iter().map(|(kind, named, spec)| (kind, named.to_owned(), spec));
    let resource = |(kind, named, spec): (Kind, String, Value)| {
        let document = match kind {
            Kind::Tenant => json!({"kind": kind, "name": named, "spec": spec}),
            _ => json!({"kind": kind, "tenant": "acme", "name": named, "spec": spec}),
        };
        RecordValue::Resource(Arc::new(document::parse(document).expect("a document")))
    };
    let catalogs = ["s", "t"].map(|server| RecordValue::Catalog(Arc::new(catalog(server))));
    let values = documents.chain(policies).map(resource).chain(catalogs);
    let records: Vec<Record> = values.map(|value| Record { revision: Revision(1), value }).collect();
    let built = Tenant::build(&acme, records.iter(), &Default::default(), None, &Site::default());
    built.expect("the tenant compiles")
}

fn agent(tenant: &Tenant, who: &Who) -> Arc<Agent> {
    let Some((user, groups, scopes)) = &who.token else {
        return tenant.caller(&name(who.agent), None).expect("an agent");
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let identity = Identity {
        provider: name("corp"),
        client: who.agent.to_owned(),
        user: user.map(|user| name(&format!("corp/{user}"))),
        actors: Vec::new(),
        groups: owned(groups),
        scopes: owned(scopes),
        tags: BTreeMap::from([("team".to_owned(), owned(if groups.len() > 1 { &["it"] } else { &[] }))]),
        ends_at: u64::MAX,
        bound_to: None,
        told: Default::default(),
    };
    tenant.agent_of(&identity).expect("an agent")
}

/// What calls are given; not all of it is of its type.
fn given() -> Vec<Value> {
    vec![
        json!({}),
        json!({"path": "/data/x", "n": 5, "tags": ["x"], "o": {"b": true}, "text": "SELECT 1"}),
        json!({"path": "/data/../../etc", "n": 1, "tags": [], "o": {}, "text": "DROP TABLE t; ls"}),
        json!({"path": 7, "open": {"a": 1}}),
    ]
}

fn calls() -> [Call<'static>; 2] {
    [(3_600, "legacy", "2025-11-25"), (80_000, "modern", "2026-07-28")]
        .map(|(at_seconds, era, revision)| Call { at_seconds, era, revision, arguments: None, facts: None })
}

/// Everything that an endpoint offers: what agents call it, whether a list of the view shows it, and how it is asked for.
fn offered(endpoint: &Endpoint, view: &View) -> Vec<(String, bool, Asked)> {
    let listed = |method, member: &str| -> Vec<String> {
        let (page, more) = view.list(&method).and_then(|list| list.page(0)).expect("a page");
        assert!(!more, "one page has all of it");
        let page: Value = serde_json::from_slice(&[&page.text, &b"}"[..]].concat()).expect("JSON");
        let list = page.as_object().and_then(|page| page.values().next()?.as_array()).expect("a list");
        list.iter().map(|entry| entry[member].as_str().expect("a name").to_owned()).collect()
    };
    let tools = listed(Method::ToolsList, "name");
    let prompts = listed(Method::PromptsList, "name");
    let resources = listed(Method::ResourcesList, "uri");
    let templates = listed(Method::ResourceTemplatesList, "uriTemplate");
    let told = |json: &str, member: &str| -> String {
        let definition: Value = serde_json::from_str(json).expect("JSON");
        definition[member].as_str().expect("a name").to_owned()
    };
    let mut found = Vec::new();
    for tool in &endpoint.tools {
        let access = view.tool(&tool.name).expect("what is offered is found").clone();
        found.push((tool.name.to_string(), tools.contains(&tool.name.to_string()), Asked::Tool(access)));
    }
    for prompt in &endpoint.prompts {
        let called = told(&prompt.json, "name");
        let named = endpoint.prompt(&called).expect("what is offered is found");
        found.push((called.clone(), prompts.contains(&called), Asked::Prompt(named)));
    }
    for (exposed, list, member) in
        [(&endpoint.resources, &resources, "uri"), (&endpoint.templates, &templates, "uriTemplate")]
    {
        for resource in exposed {
            let called = told(&resource.json, member);
            let named = endpoint.resource(&called).expect("what is offered is found");
            found.push((called.clone(), list.contains(&called), Asked::Resource(named)));
        }
    }
    let shown = tools.len() + prompts.len() + resources.len() + templates.len();
    assert_eq!(shown, found.iter().filter(|(_, shown, _)| *shown).count(), "no list has more than there is");
    found
}

/// What a call comes to, as its stage decides it, and with what is not enforced.
fn decided(
    tenant: &Tenant,
    agent: &Agent,
    asked: &Asked,
    call: &Call<'_>,
    arguments: &Value,
) -> (Decision, Option<Decision>) {
    let both = |decision: &Decision, (target, call): (&Target<'_>, &Call<'_>)| {
        (decision.clone(), tenant.shadow(decision, agent, target, call))
    };
    let plain = |target: Target<'_>| both(&tenant.decide(agent, &target, call), (&target, call));
    match asked {
        Asked::Tool(access) => decide_tool(tenant, agent, access, (call, arguments), both),
        Asked::Prompt(Named { server, name }) => plain(Target::Prompt { server: &server.name, name }),
        Asked::Resource(Named { server, name }) => {
            plain(Target::Resource { server: &server.name, uri: name })
        }
    }
}

/// The same without any list.
fn unlisted(tenant: &Tenant, agent: &Agent, asked: &Asked, call: &Call<'_>, arguments: &Value) -> Decision {
    let Asked::Tool(access) = asked else { return decided(tenant, agent, asked, call, arguments).0 };
    let access = ToolAccess { standing: Arc::new(Standing::Open), ..access.clone() };
    decided(tenant, agent, &Asked::Tool(access), call, arguments).0
}

/// What is asked for, by its server's own word for it.
fn inner(asked: &Asked) -> (u8, String) {
    let of = |kind, named: &Named| (kind, format!("{}/{}", named.server.name, named.name));
    match asked {
        Asked::Tool(access) => (0, format!("{}/{}", access.server.name, access.tool.name)),
        Asked::Prompt(named) => of(1, named),
        Asked::Resource(named) => of(2, named),
    }
}

/// Whether a statement that reads of the call may be why what is shown is denied.
fn may_deny(decision: &Decision, policies: &[Policy]) -> bool {
    let of = |reason: &gantry_policy::Reason| {
        let number: usize = reason.policy.as_str()[1..].parse().expect("a number");
        policies[number].reads
    };
    let failed = |failure: &gantry_policy::Failure| failure.statement.as_ref().is_none_or(of);
    let is_denied_by_none = decision.reasons.is_empty() && decision.failures.is_empty();
    decision.reasons.iter().any(of)
        || decision.failures.iter().any(failed)
        || is_denied_by_none && policies.iter().any(|policy| policy.permits && policy.reads)
}

/// Checks every cell of a tenant; how many there were.
fn check(policies: &[Policy], callers: &[Who]) -> Result<usize, TestCaseError> {
    let numbered = || policies.iter().enumerate();
    let own = tenant(numbered().map(|(number, policy)| (number, policy, policy.shadow)));
    let without = tenant(
        numbered().filter(|(_, policy)| !policy.shadow).map(|(number, policy)| (number, policy, false)),
    );
    let enforcing = tenant(numbered().map(|(number, policy)| (number, policy, false)));
    let (given, calls, none) = (given(), calls(), Arc::default());
    let mut cells = 0;
    for who in callers {
        let (agent, plain, enforced) = (agent(&own, who), agent(&without, who), agent(&enforcing, who));
        let mut before: BTreeMap<Place, (bool, Decision)> = BTreeMap::new();
        for (endpoint_name, endpoint) in &own.endpoints {
            let view = own.view(&agent, endpoint, &none).expect("a view");
            let plain_view = without.view(&plain, &without.endpoints[endpoint_name], &none).expect("a view");
            prop_assert_eq!(view.fingerprints(), plain_view.fingerprints(), "shadows change no list");
            for (called, is_shown, asked) in offered(endpoint, &view) {
                let arguments = if matches!(asked, Asked::Tool(_)) { given.as_slice() } else { &given[..1] };
                for (at, call) in calls.iter().enumerate() {
                    for (number, arguments) in arguments.iter().enumerate() {
                        let place =
                            format!("{who:?} at {endpoint_name}: {called} with {arguments}, {}", call.era);
                        let (decision, told) = decided(&own, &agent, &asked, call, arguments);
                        prop_assert!(is_shown || decision.is_deny(), "hidden, and allowed: {}", place);
                        let is_explained = !decision.is_deny() || !is_shown || may_deny(&decision, policies);
                        prop_assert!(is_explained, "shown, and denied by {:?}: {}", decision, place);
                        let alone = unlisted(&without, &plain, &asked, call, arguments);
                        prop_assert_eq!(&decision, &alone, "otherwise than without a list: {}", place);
                        let would = unlisted(&enforcing, &enforced, &asked, call, arguments);
                        match told {
                            Some(told) => prop_assert_eq!(told, would, "a shadow: {}", place),
                            None => prop_assert_eq!(would.verdict, decision.verdict, "no shadow: {}", place),
                        }
                        let same =
                            before.entry((inner(&asked), at, number)).or_insert((is_shown, decision.clone()));
                        prop_assert_eq!(&*same, &(is_shown, decision), "by another way: {}", place);
                        cells += 1;
                    }
                }
            }
        }
    }
    Ok(cells)
}

#[test]
fn what_a_list_shows_is_what_calls_get_whatever_the_policies_and_callers() {
    let tenants =
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(TENANTS);
    let seed = match Config::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    println!("{tenants} tenants of {CALLERS} callers, PROPTEST_RNG_SEED={seed}");
    let config = Config {
        cases: tenants,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let scenes = (prop::collection::vec(policy(), 1..16), prop::collection::vec(who(), CALLERS));
    let cells = std::cell::Cell::new(0);
    let run = TestRunner::new(config).run(&scenes, |(policies, callers)| {
        cells.set(cells.get() + check(&policies, &callers)?);
        Ok(())
    });
    run.expect("lists and calls agree");
    println!("{} cells", cells.get());
    assert!(tenants < TENANTS || cells.get() >= CELLS_MIN, "only {} cells", cells.get());
}

#[test]
fn the_tenants_of_this_test_show_hide_allow_and_deny() {
    let policy = |cedar: &str, reads| Policy {
        cedar: cedar.to_owned(),
        permits: true,
        reads,
        shadow: false,
        approval: false,
    };
    let policies = [
        policy(r#"permit(principal in Group::"g", action, resource in Server::"s");"#, false),
        policy(
            r#"permit(principal, action, resource == Tool::"t/query") when { context.facts.sql.kinds == ["select"] };"#,
            true,
        ),
    ];
    let own = tenant(policies.iter().enumerate().map(|(number, policy)| (number, policy, false)));
    let none = Arc::default();
    let seen = |who: &str| {
        let agent = agent(&own, &Who { agent: if who == "b" { "b" } else { "a" }, token: None });
        let endpoint = &own.endpoints[&name::<gantry_model::EndpointName>("both")];
        let view = own.view(&agent, endpoint, &none).expect("a view");
        let cell = |(called, is_shown, asked): (String, bool, Asked)| {
            let verdicts =
                given().into_iter().map(|given| decided(&own, &agent, &asked, &calls()[1], &given).0.verdict);
            let allowed = verdicts.filter(|verdict| *verdict == Verdict::Allow).count();
            (is_shown || allowed > 0).then(|| format!("{called}: {is_shown}, {allowed}"))
        };
        offered(endpoint, &view).into_iter().filter_map(cell).collect::<Vec<_>>()
    };
    assert_eq!(seen("a"), ["t__query: true, 1"]);
    assert_eq!(
        seen("b"),
        [
            "s__read: true, 4",
            "s__write: true, 4",
            "t__query: true, 1",
            "s__p: true, 4",
            "s__q: true, 4",
            "s+mem://x: true, 4",
            "s+mem://y: true, 4",
            "s+mem://{id}: true, 4",
        ]
    );
}
