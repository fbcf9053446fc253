//! That a slice leaves nothing out: sliced decisions against those of all statements at once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use cedar_policy::{AuthorizationError, Authorizer, Context, PolicyId, Request};
use gantry_model::{AgentName, GroupName, PolicyName, ServerName};
use proptest::prelude::*;
use proptest::sample::{Index as Choice, select};
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::{Asked, PolicySet, parse};
use crate::decision::{Decision, Failure, Reason};
use crate::hints::Hints;
use crate::problem::shorten;
use crate::target::{Principal, Target};

/// Sets of policies where `PROPTEST_CASES` does not say otherwise: some seconds without optimisation.
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
const CONDITIONS: [&str; 7] = [
    "",
    "when { principal in Group::\"h\" }",
    "unless { resource in Server::\"s\" }",
    "when { resource has destructive && resource.destructive }",
    "when { resource.absent }",
    "unless { 9223372036854775807 + 1 == 0 }",
    "when { principal }",
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
            for statement in parse(&text.text).expect("it was parsed before").statements {
                let id = PolicyId::new(format!("{name}[{}]", statement.index));
                let reason = Reason { policy: name.clone(), index: statement.index, id: None };
                all.reasons.insert(id.clone(), reason);
                all.policies.add(statement.policy.new_id(id)).expect("ids differ");
            }
        }
        all
    }

    fn decide(&self, principal: &Principal, target: &Target<'_>) -> Decision {
        let (entity, uid) = (cedar_policy::Entity::from(target.entity()), principal.uid.clone());
        let request = Request::new(uid, target.action().clone(), entity.uid(), Context::empty(), None);
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
        Decision::new(response.decision() == cedar_policy::Decision::Allow, found, failures)
    }
}

/// Runs a property over random policies and requests; the seed is printed, and as `PROPTEST_RNG_SEED` repeats the run.
fn over_policies(property: impl Fn(&[String], &[(Choice, Choice)]) -> Result<(), TestCaseError>) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let seed = match Config::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    println!("{cases} sets of policies, {REQUESTS} requests each, PROPTEST_RNG_SEED={seed}");
    let config =
        Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let statements = prop::collection::vec(statement(), 0..24);
    let requests = prop::collection::vec(any::<(Choice, Choice)>(), REQUESTS);
    let run =
        TestRunner::new(config).run(&(statements, requests), |(texts, requests)| property(&texts, &requests));
    run.expect("it holds");
}

fn principals() -> Vec<Principal> {
    let agents: [AgentName; 3] = ["a", "b", "g"].map(name);
    let groups: [&[&str]; 4] = [&[], &["g"], &["h"], &["g", "h", "unnamed"]];
    let groups = groups.map(|groups| groups.iter().map(|group| name(group)).collect::<Vec<GroupName>>());
    let with_groups = |agent| groups.iter().map(move |groups| Principal::new(agent, groups));
    agents.iter().flat_map(with_groups).collect()
}

#[test]
fn a_slice_decides_as_all_statements_do() {
    let (servers, principals): ([ServerName; 2], _) = (["s", "t"].map(name), principals());
    let targets = targets(&servers);
    over_policies(|texts, requests| {
        let set = compile(&PolicySet::default(), texts);
        let unsliced = Unsliced::of(&set);
        for (who, what) in requests {
            let (principal, target) = (who.get(&principals), what.get(&targets));
            prop_assert_eq!(set.decide(principal, target), unsliced.decide(principal, target));
        }
        Ok(())
    });
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
        for (who, what) in requests {
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
