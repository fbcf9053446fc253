//! That a slice leaves nothing out: sliced decisions against those of all statements at once.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use cedar_policy::{AuthorizationError, Authorizer, Context, PolicyId, Request};
use gantry_model::facts::Facts;
use gantry_model::{AgentName, GroupName, PolicyName, ServerName};
use proptest::prelude::*;
use proptest::sample::{Index as Choice, select};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::json;

use super::{Asked, Gaps, PolicySet, parse, unasked};
use crate::arguments::Shape;
use crate::call::{Call, MakeFacts};
use crate::decision::{Decision, Failure, Reason, Standing};
use crate::hints::Hints;
use crate::problem::shorten;
use crate::target::{ActsFor, Principal, Shown, Target};

/// Sets of policies where `PROPTEST_CASES` does not say otherwise: some seconds without optimisation. 3,125 are 100,000
/// requests.
const CASES: u32 = 256;
/// Requests that are put to each set. Parsing takes longer than deciding.
const REQUESTS: usize = 32;

const PRINCIPALS: [&str; 9] = [
    "principal",
    "principal is Agent",
    "principal is Group",
    "principal == Agent::\"a\"",
    "principal == Agent::\"b\"",
    "principal == Group::\"g\"",
    "principal in Group::\"g\"",
    "principal in Agent::\"a\"",
    "principal is Agent in Group::\"h\"",
];
const ACTIONS: [&str; 7] = [
    "action",
    "action == Action::\"tools/call\"",
    "action == Action::\"prompts/get\"",
    "action in Action::\"resources/read\"",
    "action in [Action::\"tools/call\", Action::\"server/use\", Action::\"tools/call\"]",
    "action in []",
    "action == Action::\"no/such\"",
];
const RESOURCES: [&str; 10] = [
    "resource",
    "resource is Tool",
    "resource is Server",
    "resource is Prompt in Server::\"s\"",
    "resource is Tool in Server::\"t\"",
    "resource in Server::\"s\"",
    "resource == Server::\"s\"",
    "resource == Tool::\"s/x\"",
    "resource in Tool::\"t/y\"",
    "resource == Resource::\"s/x\"",
];
const CONDITIONS: [&str; 22] = [
    "",
    "when { principal has user && principal.user in Group::\"g\" }",
    "unless { principal.user == User::\"corp/u\" }",
    "when { principal in Group::\"h\" }",
    "unless { resource in Server::\"s\" }",
    "when { resource has destructive && resource.destructive }",
    "when { resource.absent }",
    "unless { 9223372036854775807 + 1 == 0 }",
    "when { principal }",
    "when { context.time.hour < 12 }",
    "when { context.arguments.n > 2 }",
    "unless { context has arguments && context.arguments has n && context.arguments.n < 3 }",
    "when { context.era == \"modern\" && resource.absent }",
    "unless { context.revision == \"2025-11-25\" }",
    "when { context.arguments has path && context.arguments.path like \"/data/*\" }",
    "when { context.arguments.tags.contains(\"x\") || principal in Group::\"g\" }",
    "unless { context.arguments.o.b }",
    "when { context.arguments has n && context.arguments.n + 9223372036854775807 > 0 }",
    "when { context.facts.sql.kinds == [\"select\"] }",
    "unless { context has facts && context.facts.path.escapes }",
    "when { context has facts && context.facts.size.bytes > 5 && context.facts.shell.words.isEmpty() }",
    "unless { context has arguments && context.arguments has tags && context.arguments.tags.isEmpty() }",
];

fn statement() -> impl Strategy<Value = String> {
    let effect = select(vec!["permit", "permit", "forbid"]);
    (effect, select(&PRINCIPALS), select(&ACTIONS), select(&RESOURCES), select(&CONDITIONS)).prop_map(
        |(effect, principal, action, resource, condition)| {
            format!("{effect}({principal}, {action}, {resource}) {condition};")
        },
    )
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is no name"))
}

/// Every request there is about `x` and `y` of two servers.
fn targets(servers: &[ServerName]) -> Vec<Target<'_>> {
    let of_server = |server| {
        let of_name = move |name| {
            let lax = Hints { destructive: false, ..Hints::default() };
            [
                Target::Tool { server, name, hints: Hints::default() },
                Target::Tool { server, name, hints: lax },
                Target::Prompt { server, name },
                Target::Resource { server, uri: name },
                Target::Subscribe { server, uri: name },
                Target::CompletePrompt { server, name },
                Target::CompleteResource { server, uri: name },
            ]
        };
        ["x", "y"].into_iter().flat_map(of_name).chain([Target::Server { server }])
    };
    servers.iter().flat_map(of_server).collect()
}

fn compile(before: &PolicySet, texts: &[String]) -> PolicySet {
    let names: Vec<PolicyName> = (0..texts.len()).map(|index| name(&format!("p{index}"))).collect();
    before.followed_by(names.iter().zip(texts.iter().map(String::as_str))).expect("the policies compile")
}

fn is_of(set: &PolicySet, texts: &[String]) -> bool {
    let names: Vec<PolicyName> = (0..texts.len()).map(|index| name(&format!("p{index}"))).collect();
    set.is_of(names.iter().zip(texts.iter().map(String::as_str)))
}

/// All statements of a set as Cedar's authorizer takes them.
struct Unsliced {
    policies: cedar_policy::PolicySet,
    reasons: HashMap<PolicyId, Reason>,
}

impl Unsliced {
    fn of(set: &PolicySet) -> Unsliced {
        let mut all = Unsliced { policies: cedar_policy::PolicySet::new(), reasons: HashMap::new() };
        for (name, text) in &set.texts {
            for statement in parse((&*text.text).into()).expect("it was parsed before").statements {
                let id = PolicyId::new(format!("{name}[{}]", statement.index));
                let reason = Reason { policy: name.clone(), index: statement.index, id: None };
                all.reasons.insert(id.clone(), reason);
                all.policies.add(statement.policy.new_id(id)).expect("ids differ");
            }
        }
        all
    }

    fn decide(&self, principal: &Principal, target: &Target<'_>, context: Context) -> Decision {
        let (entity, uid) = (cedar_policy::Entity::from(target.entity()), principal.uid.clone());
        let request = Request::new(uid, target.action().clone(), entity.uid(), context, None);
        let entities = principal.entities.clone().add_entities([entity], None).expect("entities");
        let response =
            Authorizer::new().is_authorized(&request.expect("a request"), &self.policies, &entities);
        let found = response.diagnostics().reason().map(|id| self.reasons[id].clone()).collect();
        let failure = |error: &AuthorizationError| {
            let AuthorizationError::PolicyEvaluationError(error) = error;
            let statement = Some(self.reasons[error.policy_id()].clone());
            Failure { statement, message: shorten(&error.inner().to_string()) }
        };
        let failures = response.diagnostics().errors().map(failure).collect();
        let said = match response.decision() {
            cedar_policy::Decision::Allow => crate::Verdict::Allow,
            cedar_policy::Decision::Deny => crate::Verdict::Deny,
        };
        Decision::new(said, found, failures)
    }
}

/// Who asks, for what, and by which call.
type Random = (Choice, Choice, Choice);

/// Runs a property over random policies and requests; the seed is printed, and as `PROPTEST_RNG_SEED` repeats the run.
fn over_policies(property: impl Fn(&[String], &[Random]) -> Result<(), TestCaseError>) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let seed = match Config::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    println!("{cases} sets of policies, {REQUESTS} requests each, PROPTEST_RNG_SEED={seed}");
    let config =
        Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let statements = prop::collection::vec(statement(), 0..24);
    let requests = prop::collection::vec(any::<Random>(), REQUESTS);
    let run =
        TestRunner::new(config).run(&(statements, requests), |(texts, requests)| property(&texts, &requests));
    run.expect("it holds");
}

fn principals() -> Vec<Principal> {
    let agents: [AgentName; 3] = ["a", "b", "g"].map(name);
    let groups: [&[&str]; 4] = [&[], &["g"], &["h"], &["g", "h", "unnamed"]];
    let groups = groups.map(|groups| groups.iter().map(|group| name(group)).collect::<Vec<GroupName>>());
    let shown = |user: &str, group: &str| Shown {
        provider: name("corp"),
        user: Some(ActsFor::User(name(user))),
        groups: [group.to_owned()].into(),
        scopes: ["mcp".to_owned()].into(),
        tags: BTreeMap::new(),
    };
    let tokens = [None, Some(shown("corp/u", "g")), Some(shown("corp/v", "h"))];
    let mut found = Vec::new();
    for agent in &agents {
        for groups in &groups {
            found.extend(tokens.iter().map(|token| match token {
                None => Principal::new(agent, groups),
                Some(shown) => Principal::showing(agent, groups, shown),
            }));
        }
    }
    found
}

#[test]
fn a_slice_decides_as_all_statements_do() {
    let (servers, principals): ([ServerName; 2], _) = (["s", "t"].map(name), principals());
    let targets = targets(&servers);
    over_policies(|texts, requests| {
        let set = compile(&PolicySet::default(), texts);
        let unsliced = Unsliced::of(&set);
        for (who, what, _) in requests {
            let (principal, target) = (who.get(&principals), what.get(&targets));
            let decision = unsliced.decide(principal, target, Context::empty());
            prop_assert_eq!(set.decide(principal, target), decision);
        }
        Ok(())
    });
}

/// What calls are given that take `n`, `path`, `tags` and `o`; some of it is not of its type.
fn given() -> Vec<serde_json::Value> {
    vec![
        json!({}),
        json!({"n": 1, "path": "/data/x", "tags": ["x"], "o": {"b": true}}),
        json!({"n": 5, "path": "/etc/x", "tags": ["y", "z"], "o": {"b": false}}),
        json!({"n": 0, "o": {}}),
        json!({"n": -7, "path": "", "tags": []}),
        json!({"n": i64::MAX, "more": [{}]}),
        json!({"n": "1", "path": "/data/x"}),
        json!({"n": null, "path": 1}),
        json!({"tags": ["x", 1]}),
        json!({"o": {"b": 0}}),
        json!([]),
    ]
}

/// Facts of a statement, and of a path that leaves.
fn facts() -> Result<Facts, String> {
    let mut facts = Facts::default();
    facts.sql.kinds.insert("select".to_owned());
    (facts.path.escapes, facts.size.bytes) = (true, 9);
    Ok(facts)
}

/// Calls of every kind.
fn calls<'a>(shape: &'a Shape, given: &'a [serde_json::Value]) -> Vec<Call<'a>> {
    let arguments = given.iter().map(|given| Some((shape, given))).chain([None]);
    let at = |arguments| {
        let (none, some): (&MakeFacts<'_>, &MakeFacts<'_>) = (&|| Ok(Facts::default()), &facts);
        [
            (0, "legacy", "2025-11-25", none),
            (80_000, "modern", "2026-07-28", some),
            (80_000, "legacy", "", none),
        ]
        .map(|(at_seconds, era, revision, facts)| Call {
            at_seconds,
            era,
            revision,
            arguments,
            facts: arguments.is_some().then_some(facts),
        })
    };
    arguments.flat_map(at).collect()
}

#[test]
fn a_standing_is_what_every_call_gets_and_a_list_hides_what_every_call_is_denied() {
    let (servers, principals): ([ServerName; 2], _) = (["s", "t"].map(name), principals());
    let targets = targets(&servers);
    let (shape, given) = (shape(), given());
    let calls = calls(&shape, &given);
    over_policies(|texts, requests| {
        let set = compile(&PolicySet::default(), texts);
        let unsliced = Unsliced::of(&set);
        for (who, what, how) in requests {
            let (principal, target, call) = (who.get(&principals), what.get(&targets), how.get(&calls));
            let (standing, decision) =
                (set.standing(principal, target), set.decide_call(principal, target, call));
            prop_assert!(standing.is_shown() || !decision.is_allow(), "{:?}", standing);
            // What reads no call and forbids or fails, does so for every call.
            let (plain, readers) = (set.decide(principal, target), set.readers(principal, target));
            let failed = plain.failures.iter().filter_map(|failure| failure.statement.as_ref());
            let mut denies = plain.reasons.iter().chain(failed);
            let is_forbidden = !plain.is_allow() && denies.any(|it| !readers.contains(it));
            prop_assert!(!standing.is_shown() || !is_forbidden, "{:?}", plain);
            let is_settled = matches!(standing, Standing::Settled(_));
            if let Standing::Settled(settled) = standing {
                prop_assert_eq!(&settled, &decision);
            }
            prop_assert_eq!(is_settled, readers.is_empty());
            let expected = match call.context(true, true) {
                Ok(context) => unsliced.decide(principal, target, context.into()),
                Err(_) if is_settled => unsliced.decide(principal, target, Context::empty()),
                Err(message) => unasked(&message),
            };
            prop_assert_eq!(decision, expected);
        }
        Ok(())
    });
}

/// The shape of what calls are given, but for what has no type.
fn shape() -> Shape {
    Shape::from_schema(&json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "path": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}},
        "o": {"type": "object", "properties": {"b": {"type": "boolean"}}}}}))
}

#[test]
fn what_is_decided_with_gaps_is_decided_so_whatever_stands_in_them() {
    let (servers, principals): ([ServerName; 2], _) = (["s", "t"].map(name), principals());
    let targets = targets(&servers);
    let (shape, given) = (shape(), given());
    let calls = calls(&shape, &given);
    let (told, all) = (std::cell::Cell::new(0_usize), std::cell::Cell::new(0_usize));
    over_policies(|texts, requests| {
        let set = compile(&PolicySet::default(), texts);
        for (who, what, how) in requests {
            let (principal, target, call) = (who.get(&principals), what.get(&targets), how.get(&calls));
            let Some((_, serde_json::Value::Object(whole))) = call.arguments else { continue };
            for gap in ["n", "path", "tags", "o"] {
                let mut known = whole.clone();
                known.remove(gap);
                let mut gaps = Gaps::default();
                gaps.add(["arguments", gap]);
                gaps.add(["facts"]);
                gaps.may_be_untyped();
                let known = serde_json::Value::Object(known);
                let call = Call { arguments: Some((&shape, &known)), ..*call };
                let decided = set.decide_recorded(principal, target, &call, &gaps);
                all.set(all.get() + 1);
                let Ok(decided) = decided else { continue };
                told.set(told.get() + 1);
                for filling in given.iter().filter_map(|given| given.get(gap)) {
                    let mut filled = known.clone();
                    filled[gap] = filling.clone();
                    for facts in [call.facts, Some(&facts as &MakeFacts<'_>)] {
                        let call = Call { arguments: Some((&shape, &filled)), facts, ..call };
                        let whole = set.decide_call(principal, target, &call);
                        prop_assert_eq!(
                            decided.verdict,
                            whole.verdict,
                            "{}: {:?} {:?}",
                            &filled,
                            decided,
                            whole
                        );
                    }
                }
            }
        }
        Ok(())
    });
    println!("{} of {} are decided in spite of a gap", told.get(), all.get());
    assert!(told.get() > all.get() / 4, "a gap that nobody reads is none");
}

#[test]
fn a_gap_concerns_statements_that_read_it_and_no_others() {
    let decide = |cedar: &str, gaps: &[&[&str]]| {
        let set = compile(
            &PolicySet::default(),
            &[cedar.to_owned(), "permit(principal, action, resource);".to_owned()],
        );
        let (agent, server, shape, given) = (name("a"), name("s"), shape(), json!({"o": {}}));
        let (facts, target): (&MakeFacts<'_>, _) =
            (&facts, Target::Tool { server: &server, name: "x", hints: Hints::default() });
        let arguments = Some((&shape, &given));
        let call = Call { at_seconds: 0, era: "modern", revision: "", arguments, facts: Some(facts) };
        let mut unknown = Gaps::default();
        gaps.iter().for_each(|gap| unknown.add(gap.iter().copied()));
        let decided = set.decide_recorded(&Principal::new(&agent, &[]), &target, &call, &unknown);
        decided.map(|decision| decision.is_allow()).map_err(|unsure| unsure.statements.len())
    };
    let forbid = |condition: &str| format!("forbid(principal, action, resource) when {{ {condition} }};");
    let of_path = forbid("context.arguments has path && context.arguments.path == \"x\"");
    assert_eq!(decide(&of_path, &[&["arguments", "n"], &["facts"]]), Ok(true));
    assert_eq!(decide(&of_path, &[&["arguments", "path"]]), Err(1));
    assert_eq!(decide(&of_path, &[&["arguments"]]), Err(1));
    let deep = forbid("context.arguments has o && context.arguments.o has b && context.arguments.o.b");
    assert_eq!(decide(&deep, &[&["arguments", "o", "c"]]), Ok(true));
    assert_eq!(decide(&deep, &[&["arguments", "o"]]), Err(1));
    let of_facts = forbid("context.facts.url.private || context.revision == \"x\"");
    assert_eq!(decide(&of_facts, &[&["facts", "sql"], &["facts", "size"], &["time"]]), Ok(true));
    assert_eq!(decide(&of_facts, &[&["revision"]]), Err(1));
    let whole = forbid("context.arguments.o == context.arguments.o");
    assert_eq!(decide(&whole, &[&["arguments", "o", "c"]]), Err(1));
    // What is forbidden by what is known is forbidden.
    assert_eq!(decide(&forbid("context.era == \"modern\""), &[&["arguments"]]), Ok(false));
}

#[test]
fn an_argument_that_has_no_value_denies_where_a_statement_may_read_it_and_nowhere_else() {
    let texts = [
        "permit(principal, action, resource);",
        "forbid(principal, action, resource in Server::\"t\")
         when { context.arguments has n && context.arguments.n > 2 };",
        // What has no type by now: to Cedar it is never there.
        "forbid(principal, action, resource in Server::\"t\") when { context.arguments has m.o };",
    ]
    .map(str::to_owned);
    let set = compile(&PolicySet::default(), &texts);
    let (agent, servers): (AgentName, [ServerName; 2]) = (name("a"), ["s", "t"].map(name));
    let principal = Principal::new(&agent, &[]);
    let shape = Shape::from_schema(&json!({"type": "object", "properties": {"n": {"type": "integer"}}}));
    let decide = |server, given: &serde_json::Value| {
        let target = Target::Tool { server, name: "x", hints: Hints::default() };
        let call = Call {
            at_seconds: 0,
            era: "modern",
            revision: "",
            arguments: Some((&shape, given)),
            facts: None,
        };
        let decision = set.decide_call(&principal, &target, &call);
        (decision.is_allow(), decision.failures.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (few, many, wrong) = (json!({"n": 2}), json!({"n": 3}), json!({"n": [3]}));
    assert_eq!(decide(&servers[1], &few), (true, vec![]));
    assert_eq!(decide(&servers[1], &many), (false, vec![]));
    let failure = "argument \"n\" is not of its type".to_owned();
    assert_eq!(decide(&servers[1], &wrong), (false, vec![failure]));
    assert_eq!(decide(&servers[0], &wrong), (true, vec![]));
    let (untyped, null) = (json!({"m": {"o": 1}, "n": 2}), json!({"m": null, "n": 2}));
    let failure = "argument \"m.o\" has no type that policies can read".to_owned();
    assert_eq!(decide(&servers[1], &untyped), (false, vec![failure]));
    assert_eq!(decide(&servers[1], &null), (true, vec![]));
    assert_eq!(decide(&servers[0], &untyped), (true, vec![]));

    // Where nothing permits, nothing that a call says can.
    let set = compile(&PolicySet::default(), &texts[1..]);
    let target = Target::Tool { server: &servers[1], name: "x", hints: Hints::default() };
    assert_eq!(set.standing(&principal, &target), Standing::Refused);
}

#[test]
fn a_set_that_follows_another_decides_as_one_that_does_not() {
    let (servers, principals): ([ServerName; 2], _) = (["s", "t"].map(name), principals());
    let targets = targets(&servers);
    over_policies(|texts, requests| {
        let (first, second) = texts.split_at(texts.len() / 2);
        // By their names, some of the second replace some of the first, and some are the same.
        let earlier = [&second[..second.len() / 2], first].concat();
        let before = compile(&PolicySet::default(), &earlier);
        let (after, alone) = (compile(&before, second), compile(&PolicySet::default(), second));
        prop_assert_eq!(after.statement_count(), second.len());
        prop_assert!(is_of(&after, second));
        prop_assert_eq!(is_of(&before, second), earlier == second);
        for (who, what, _) in requests {
            let (principal, target) = (who.get(&principals), what.get(&targets));
            prop_assert_eq!(after.decide(principal, target), alone.decide(principal, target));
        }
        Ok(())
    });
}

#[test]
fn a_statement_of_another_scope_is_not_evaluated_and_so_cannot_fail() {
    let texts = [
        "permit(principal, action, resource);",
        "permit(principal == Agent::\"b\", action, resource) when { resource.absent };",
        "permit(principal, action == Action::\"prompts/get\", resource) when { resource.absent };",
        "permit(principal, action, resource in Server::\"t\") when { resource.absent };",
    ]
    .map(str::to_owned);
    let set = compile(&PolicySet::default(), &texts);
    let (agent, server, other): (AgentName, ServerName, ServerName) = (name("a"), name("s"), name("t"));
    let tool = |server| Target::Tool { server, name: "x", hints: Hints::default() };
    let asked = |target: &Target<'_>| {
        let principal = Principal::new(&agent, &[]);
        let asked = Asked::of(&principal, target).expect("a request");
        asked.slice(&set.index)
    };
    assert_eq!(asked(&tool(&server)), [0]);
    assert_eq!(asked(&tool(&other)), [0, 3]);
    let principal = Principal::new(&agent, &[]);
    assert!(set.decide(&principal, &tool(&server)).is_allow());
    let failed = set.decide(&principal, &tool(&other));
    assert_eq!((failed.is_allow(), failed.failures.len()), (false, 1));
}
