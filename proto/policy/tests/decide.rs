//! Decisions, each asserted whole: who may do what, which statement said so, and what fails closed.

use gantry_model::{AgentName, Catalog, Definition, GroupName, PolicyName, ServerName};
use gantry_policy::{
    CompileError, Decision, Failure, Hints, PolicySet, Principal, Problem, REASONS_MAX, Reason,
    STATEMENTS_MAX, Target, Verdict,
};

fn server(name: &str) -> ServerName {
    name.parse().expect("a server's name")
}

fn policy(name: &str) -> PolicyName {
    name.parse().expect("a policy's name")
}

fn principal(agent: &str, groups: &[&str]) -> Principal {
    let agent: AgentName = agent.parse().expect("an agent's name");
    let groups: Vec<GroupName> = groups.iter().map(|group| group.parse().expect("a group's name")).collect();
    Principal::new(&agent, &groups)
}

fn compile(texts: &[(&str, &str)]) -> PolicySet {
    let names: Vec<PolicyName> = texts.iter().map(|(name, _)| policy(name)).collect();
    PolicySet::compile(names.iter().zip(texts.iter().map(|(_, text)| *text))).expect("the policies compile")
}

fn tool<'a>(server: &'a ServerName, name: &'a str) -> Target<'a> {
    Target::Tool { server, name, hints: Hints::default() }
}

fn reason(name: &str, index: u32, id: Option<&str>) -> Reason {
    Reason { policy: policy(name), index, id: id.map(Into::into) }
}

fn allowed(reasons: Vec<Reason>) -> Decision {
    Decision { verdict: Verdict::Allow, reasons, failures: vec![] }
}

fn denied(reasons: Vec<Reason>) -> Decision {
    Decision { verdict: Verdict::Deny, reasons, failures: vec![] }
}

#[test]
fn without_any_policy_everything_is_denied() {
    let policies = compile(&[]);
    assert_eq!(
        policies.decide(&principal("claude", &["ops"]), &tool(&server("files"), "read")),
        denied(vec![])
    );
    assert_eq!(PolicySet::default().statement_count(), 0);
}

#[test]
fn a_permit_by_server_covers_everything_of_that_server_and_nothing_else() {
    let policies = compile(&[("files", r#"permit(principal, action, resource in Server::"files");"#)]);
    let agent = principal("claude", &[]);
    let of = |server| {
        [
            tool(server, "read"),
            Target::Prompt { server, name: "x" },
            Target::Resource { server, uri: "test://x" },
            Target::Subscribe { server, uri: "test://x" },
            Target::CompletePrompt { server, name: "x" },
            Target::CompleteResource { server, uri: "test://{x}" },
            Target::Server { server },
        ]
    };
    let (files, mail) = (server("files"), server("mail"));
    for target in of(&files) {
        assert_eq!(policies.decide(&agent, &target), allowed(vec![reason("files", 0, None)]), "{target:?}");
    }
    for target in of(&mail) {
        assert_eq!(policies.decide(&agent, &target), denied(vec![]), "{target:?}");
    }
}

#[test]
fn a_permit_by_action_covers_that_method_only() {
    let (server, agent) = (server("files"), principal("claude", &[]));
    let targets = [
        ("tools/call", tool(&server, "x")),
        ("prompts/get", Target::Prompt { server: &server, name: "x" }),
        ("resources/read", Target::Resource { server: &server, uri: "x" }),
        ("resources/subscribe", Target::Subscribe { server: &server, uri: "x" }),
        ("completion/complete", Target::CompletePrompt { server: &server, name: "x" }),
        ("completion/complete", Target::CompleteResource { server: &server, uri: "x" }),
        ("server/use", Target::Server { server: &server }),
    ];
    for (permitted, _) in targets {
        let text = format!(r#"permit(principal, action == Action::"{permitted}", resource);"#);
        let policies = compile(&[("method", &text)]);
        for (method, target) in targets {
            let expected =
                if method == permitted { allowed(vec![reason("method", 0, None)]) } else { denied(vec![]) };
            assert_eq!(
                policies.decide(&agent, &target),
                expected,
                "{target:?} when {permitted} is permitted"
            );
        }
    }
}

#[test]
fn a_permit_by_tool_covers_that_tool_of_that_server() {
    let text = r#"@id("reading") permit(principal, action, resource == Tool::"files/read");"#;
    let (policies, agent) = (compile(&[("tools", text)]), principal("claude", &[]));
    let (files, mail) = (server("files"), server("mail"));
    let expected = allowed(vec![reason("tools", 0, Some("reading"))]);
    assert_eq!(policies.decide(&agent, &tool(&files, "read")), expected);
    assert_eq!(policies.decide(&agent, &tool(&files, "write")), denied(vec![]));
    assert_eq!(policies.decide(&agent, &tool(&mail, "read")), denied(vec![]));
    assert_eq!(policies.decide(&agent, &Target::Prompt { server: &files, name: "read" }), denied(vec![]));
}

#[test]
fn a_permit_by_group_or_agent_covers_its_members_only() {
    let text = r#"permit(principal in Group::"ops", action, resource); permit(principal == Agent::"root", action, resource);"#;
    let (policies, files) = (compile(&[("who", text)]), server("files"));
    let decide =
        |agent: &str, groups: &[&str]| policies.decide(&principal(agent, groups), &tool(&files, "read"));
    assert_eq!(decide("claude", &["dev", "ops"]), allowed(vec![reason("who", 0, None)]));
    assert_eq!(decide("claude", &["dev"]), denied(vec![]));
    assert_eq!(decide("ops", &[]), denied(vec![]), "an agent is not the group of its name");
    assert_eq!(decide("root", &[]), allowed(vec![reason("who", 1, None)]));
    let both = allowed(vec![reason("who", 0, None), reason("who", 1, None)]);
    assert_eq!(decide("root", &["ops"]), both);
}

#[test]
fn a_forbid_wins_over_any_permit() {
    let policies = compile(&[
        ("all", "permit(principal, action, resource);"),
        (
            "no-write",
            r#"permit(principal, action, resource); @id("w") forbid(principal, action, resource == Tool::"files/write");"#,
        ),
    ]);
    let (files, agent) = (server("files"), principal("claude", &[]));
    let expected = denied(vec![reason("no-write", 1, Some("w"))]);
    assert_eq!(policies.decide(&agent, &tool(&files, "write")), expected);
    let expected = allowed(vec![reason("all", 0, None), reason("no-write", 0, None)]);
    assert_eq!(policies.decide(&agent, &tool(&files, "read")), expected);
    assert_eq!(policies.statement_count(), 3);
}

#[test]
fn a_forbid_by_hint_follows_what_the_server_claims() {
    let text = r#"permit(principal, action, resource);
        @id("no-destruction") forbid(principal, action == Action::"tools/call", resource) when { resource.destructive };"#;
    let (policies, agent, files) = (compile(&[("hints", text)]), principal("claude", &[]), server("files"));
    let decide = |definition: &str| {
        let hints = Hints::from_definition(definition);
        policies.decide(&agent, &Target::Tool { server: &files, name: "x", hints })
    };
    let forbidden = denied(vec![reason("hints", 1, Some("no-destruction"))]);
    assert_eq!(decide(r#"{"annotations": {"destructiveHint": true}}"#), forbidden);
    assert_eq!(decide(r#"{"name": "x"}"#), forbidden, "what is not claimed is feared");
    let permitted = allowed(vec![reason("hints", 0, None)]);
    assert_eq!(decide(r#"{"annotations": {"destructiveHint": false}}"#), permitted);
    assert_eq!(decide(r#"{"annotations": {"readOnlyHint": true}}"#), permitted);
}

#[test]
fn every_attribute_can_be_read() {
    let text = r#"
        permit(principal, action == Action::"tools/call", resource) when { resource.name like "read_*"
            && resource.readOnly && !resource.destructive && resource.idempotent && !resource.openWorld };
        permit(principal, action == Action::"prompts/get", resource) when { resource.name == "greet" };
        permit(principal, action == Action::"resources/read", resource) when { resource.uri like "file:///pub/*" };"#;
    let (policies, agent, files) = (compile(&[("all", text)]), principal("claude", &[]), server("files"));
    let hints = Hints { read_only: true, destructive: false, idempotent: true, open_world: false };
    let targets = [
        Target::Tool { server: &files, name: "read_file", hints },
        Target::Prompt { server: &files, name: "greet" },
        Target::Resource { server: &files, uri: "file:///pub/x" },
    ];
    for (index, target) in (0..).zip(targets) {
        assert_eq!(policies.decide(&agent, &target), allowed(vec![reason("all", index, None)]), "{target:?}");
    }
    let private = Target::Resource { server: &files, uri: "file:///etc/x" };
    assert_eq!(policies.decide(&agent, &private), denied(vec![]));
}

#[test]
fn a_statement_that_fails_denies_what_another_permits() {
    // A check refuses the first two; the third is well typed and fails only when it is evaluated.
    let failing = [
        ("when { resource.owner == 1 }", r#"`Tool::"files/read"` does not have the attribute `owner`"#),
        ("when { principal }", "type error: expected bool, got (entity of type `Agent`)"),
        (
            "when { 9223372036854775807 + 1 > 0 }",
            "integer overflow while attempting to add the values `9223372036854775807` and `1`",
        ),
    ];
    for (condition, message) in failing {
        for effect in ["permit", "forbid"] {
            let text = format!(r#"@id("broken") {effect}(principal, action, resource) {condition};"#);
            let policies = compile(&[("all", "permit(principal, action, resource);"), ("bad", &text)]);
            let decision = policies.decide(&principal("claude", &[]), &tool(&server("files"), "read"));
            let statement = Some(reason("bad", 0, Some("broken")));
            let failures = vec![Failure { statement, message: message.to_owned() }];
            let expected = Decision { verdict: Verdict::Deny, reasons: vec![], failures };
            assert_eq!(decision, expected, "{text}");
        }
    }
}

#[test]
fn a_forbid_is_told_beside_a_failure() {
    let text =
        "forbid(principal, action, resource); permit(principal, action, resource) when { resource.owner };";
    let decision =
        compile(&[("mix", text)]).decide(&principal("claude", &[]), &tool(&server("files"), "read"));
    assert_eq!(decision.verdict, Verdict::Deny);
    assert_eq!(decision.reasons, [reason("mix", 0, None)]);
    assert_eq!(
        decision.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [r#"mix[1]: `Tool::"files/read"` does not have the attribute `owner`"#]
    );
}

#[test]
fn a_decision_carries_a_bounded_number_of_reasons_in_order() {
    let policies = compile(&[("many", &"permit(principal, action, resource);".repeat(100))]);
    let decision = policies.decide(&principal("claude", &[]), &tool(&server("files"), "read"));
    let first: Vec<Reason> = (0..).take(REASONS_MAX).map(|index| reason("many", index, None)).collect();
    assert_eq!(decision, allowed(first));
}

#[test]
fn what_a_list_shows_is_what_a_call_may_reach() {
    let text = r#"
        permit(principal in Group::"ops", action, resource in Server::"files");
        permit(principal, action == Action::"tools/call", resource) when { resource.readOnly };
        forbid(principal, action, resource == Tool::"files/peek");"#;
    let policies = compile(&[("mix", text)]);
    let mut catalog = Catalog::empty("acme".parse().expect("a tenant's name"), server("files"));
    let reader = r#"{"annotations": {"readOnlyHint": true}}"#;
    catalog.tools = [("read", reader), ("peek", reader), ("write", "{}")]
        .map(|(name, json)| Definition::new(name, json))
        .into();
    let decide = |agent: &Principal, tool: &Definition| {
        let hints = Hints::from_definition(&tool.json);
        policies.decide(agent, &Target::Tool { server: &catalog.server, name: &tool.name, hints })
    };
    let shown = |agent: &Principal| -> Vec<&str> {
        let shown = catalog.tools.iter().filter(|tool| decide(agent, tool).is_allow());
        shown.map(|tool| &*tool.name).collect()
    };
    let called = |agent: &Principal, name: &str| {
        let found = catalog.tools.iter().find(|tool| &*tool.name == name);
        found.is_some_and(|tool| decide(agent, tool).is_allow())
    };
    for agent in [principal("claude", &["ops"]), principal("claude", &[])] {
        let listed = shown(&agent);
        for name in ["write", "read", "peek", "none"] {
            assert_eq!(called(&agent, name), listed.contains(&name), "{name}");
        }
    }
    assert_eq!(shown(&principal("claude", &["ops"])), ["read", "write"]);
    assert_eq!(shown(&principal("claude", &[])), ["read"]);
}

#[test]
fn policies_that_do_not_compile_are_named() {
    let (good, bad) = (policy("good"), policy("bad"));
    let all = "permit(principal, action, resource);";
    let refused = |policies: &[(&PolicyName, &str)]| match PolicySet::compile(policies.iter().copied()) {
        Ok(set) => panic!("compiled: {set:?}"),
        Err(error) => error,
    };
    let syntax = refused(&[(&good, all), (&bad, "permit(principal, action)")]);
    let problem = Problem {
        line: 1,
        column: 26,
        message: "unexpected end of input".to_owned(),
        help: Some("expected `;` or identifier".to_owned()),
    };
    assert_eq!(syntax, CompileError::Text { policy: bad.clone(), problem });
    assert_eq!(syntax.to_string(), "policy bad does not compile");
    assert_eq!(refused(&[(&bad, all), (&bad, all)]), CompileError::Twice { policy: bad.clone() });
    let half = all.repeat(STATEMENTS_MAX / 2);
    let many = refused(&[(&good, &half), (&policy("more"), &half), (&bad, all)]);
    assert_eq!(many, CompileError::TooMany { policy: bad.clone() });
    assert_eq!(many.policy(), &bad);
}

#[test]
fn a_set_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<PolicySet>();
    shared::<Principal>();
}
