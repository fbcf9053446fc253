//! Properties of decisions and checks that hold whatever the policies say.

use gantry_model::{PolicyName, ServerName};
use gantry_policy::{ActsFor, Hints, Known, PolicySet, Principal, Shown, Target, Verdict, check};
use proptest::prelude::*;

/// A statement without its effect: any scope, and conditions that hold, fail to hold, or cannot be evaluated.
fn scope_and_condition() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        "principal == Agent::\"claude\"",
        "principal in Group::\"ops\"",
        "principal is Agent",
    ]);
    let action = prop::sample::select(vec![
        "action",
        "action == Action::\"tools/call\"",
        "action in [Action::\"tools/call\", Action::\"server/use\"]",
    ]);
    let resource = prop::sample::select(vec![
        "resource",
        "resource in Server::\"files\"",
        "resource == Tool::\"files/read\"",
        "resource is Tool in Server::\"files\"",
    ]);
    let condition = prop::sample::select(vec![
        "",
        "when { true }",
        "unless { true }",
        "when { resource has destructive && resource.destructive }",
        "when { resource.absent }",
        "when { 9223372036854775807 + 1 == 0 }",
        "when { principal }",
    ]);
    (principal, action, resource, condition).prop_map(|(principal, action, resource, condition)| {
        format!("({principal}, {action}, {resource}) {condition};")
    })
}

fn server_name() -> impl Strategy<Value = ServerName> {
    prop::sample::select(vec!["files", "mail"]).prop_map(|name| name.parse().expect("a server's name"))
}

fn hints() -> impl Strategy<Value = Hints> {
    any::<(bool, bool, bool, bool)>().prop_map(|(read_only, destructive, idempotent, open_world)| Hints {
        read_only,
        destructive,
        idempotent,
        open_world,
    })
}

fn target<'a>(which: u8, server: &'a ServerName, name: &'a str, hints: Hints) -> Target<'a> {
    match which {
        0 => Target::Prompt { server, name },
        1 => Target::Resource { server, uri: name },
        2 => Target::Subscribe { server, uri: name },
        3 => Target::CompletePrompt { server, name },
        4 => Target::CompleteResource { server, uri: name },
        5 => Target::Server { server },
        _ => Target::Tool { server, name, hints },
    }
}

fn compile(text: &str) -> PolicySet {
    let name: PolicyName = "any".parse().expect("a policy's name");
    PolicySet::compile([(&name, text)]).expect("the policies compile")
}

fn claude(in_group: bool) -> Principal {
    let groups = if in_group { vec!["ops".parse().expect("a group's name")] } else { vec![] };
    Principal::new(&"claude".parse().expect("an agent's name"), &groups)
}

proptest! {
    #[test]
    fn nothing_is_allowed_where_nothing_permits(
        statements in prop::collection::vec(scope_and_condition(), 0..8),
        server in server_name(),
        name in "read|\\PC{0,20}",
        (which, hints, in_group) in (0_u8..9, hints(), any::<bool>()),
    ) {
        let text: String = statements.iter().map(|statement| format!("forbid{statement}\n")).collect();
        let decision = compile(&text).decide(&claude(in_group), &target(which, &server, &name, hints));
        prop_assert_eq!(decision.verdict, Verdict::Deny);
    }

    #[test]
    fn an_allow_has_a_permit_no_forbid_and_no_failure(
        statements in prop::collection::vec((any::<bool>(), scope_and_condition()), 0..8),
        server in server_name(),
        (which, hints, in_group) in (0_u8..9, hints(), any::<bool>()),
    ) {
        let text_of = |permits: bool, forbids: bool| -> String {
            let chosen = statements.iter().filter(|(permit, _)| if *permit { permits } else { forbids });
            let effect = |permit: &bool| if *permit { "permit" } else { "forbid" };
            chosen.map(|(permit, statement)| format!("{}{statement}\n", effect(permit))).collect()
        };
        let (agent, target) = (claude(in_group), target(which, &server, "read", hints));
        let decide = |text: String| compile(&text).decide(&agent, &target);
        let all = decide(text_of(true, true));
        let (permits, forbids) = (decide(text_of(true, false)), decide(text_of(false, true)));
        let expected = permits.is_allow() && forbids.reasons.is_empty() && forbids.failures.is_empty();
        prop_assert_eq!(all.is_allow(), expected);
        prop_assert_eq!(all.is_allow(), !all.reasons.is_empty() && all.reasons.iter().all(|reason| {
            statements[reason.index as usize].0
        }));
    }

    #[test]
    fn any_text_is_answered_and_what_is_accepted_compiles(text in "\\PC{0,60}", junk in r#"[\(\)\[\]\{\};:"@?!.,|&a-z ]{0,60}"#) {
        for text in [text.clone(), junk.clone(), format!("permit(principal, action, resource) when {{ {junk} }};")] {
            let checked = check(&text, &Known::new());
            let name: PolicyName = "any".parse().expect("a policy's name");
            let compiled = PolicySet::compile([(&name, text.as_str())]);
            prop_assert!(!checked.problems.is_empty() || compiled.is_ok(), "{:?}", compiled);
        }
    }

    #[test]
    fn what_no_statement_can_tell_apart_decides_nothing(
        conditions in prop::collection::vec((any::<bool>(), of_tokens()), 1..6),
        shown in shown(),
    ) {
        let effect = |permit: bool| if permit { "permit" } else { "forbid" };
        let statement = |(permit, condition): &(bool, &str)| {
            format!("{}(principal, action, resource) when {{ {condition} }};\n", effect(*permit))
        };
        let policies = compile(&conditions.iter().map(statement).collect::<String>());
        let (agent, server) = ("claude".parse().expect("a name"), "files".parse().expect("a name"));
        let decide = |shown: &Shown| {
            let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
            policies.decide(&Principal::showing(&agent, &[], shown), &target)
        };
        let reduced = PolicySet::reduce(&[&policies], shown.clone());
        prop_assert_eq!(decide(&shown), decide(&reduced));
        prop_assert_eq!(&PolicySet::reduce(&[&policies], reduced.clone()), &reduced);
    }
}

/// Conditions on what a token says.
fn of_tokens() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "principal has user",
        r#"principal has user && principal.user == User::"corp/ann""#,
        r#"principal has user && principal.user != User::"corp/bob""#,
        r#"principal has user && principal.user in Group::"staff""#,
        r#"principal has user && principal.user in [Group::"ops", User::"corp/eve"]"#,
        r#"principal.scopes.contains("mcp")"#,
        r#"principal has provider && principal.provider == "corp""#,
        r#"principal.hasTag("department") && principal.getTag("department").contains("it")"#,
        r#"principal in Group::"staff""#,
    ])
}

fn shown() -> impl Strategy<Value = Shown> {
    let some =
        |words: &'static [&'static str]| prop::collection::btree_set(prop::sample::select(words), 0..3);
    let user = prop::option::of(prop::sample::select(vec!["corp/ann", "corp/bob", "corp/eve", "corp/joe"]));
    let groups = some(&["staff", "ops", "guests"]);
    (user, groups, some(&["mcp", "admin"]), some(&["it", "hr"])).prop_map(
        |(user, groups, scopes, departments)| {
            let owned =
                |words: std::collections::BTreeSet<&str>| words.into_iter().map(str::to_owned).collect();
            Shown {
                provider: "corp".parse().expect("a name"),
                user: user.map(|user| ActsFor::User(user.parse().expect("a user"))),
                groups: owned(groups),
                scopes: owned(scopes),
                tags: [("department".to_owned(), owned(departments))].into(),
            }
        },
    )
}
