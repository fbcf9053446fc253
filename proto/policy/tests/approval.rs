//! The third verdict: what may be approved, what may not, and which texts cannot demand it.

use gantry_model::{PolicyName, ServerName};
use gantry_policy::{
    Decision, Hints, Known, PolicySet, PolicyText, Principal, REASONS_MAX, Standing, Target, Verdict, check,
};

const PERMIT: &str = "permit(principal, action, resource);";
const FORBID: &str = r#"forbid(principal, action == Action::"tools/call", resource);"#;
/// Fails wherever it is evaluated.
const FAILS: &str =
    r#"forbid(principal, action == Action::"tools/call", resource) when { resource.name.nothing };"#;

fn set(policies: &[(&str, &str)]) -> PolicySet {
    let names: Vec<PolicyName> = policies.iter().map(|(name, _)| name.parse().expect("a name")).collect();
    let text =
        |(name, cedar): &(&str, &'static str)| PolicyText { cedar, is_approvable: name.starts_with("ask") };
    let policies: Vec<(&str, &'static str)> =
        policies.iter().map(|(name, cedar)| (*name, Box::leak(Box::from(*cedar)) as &'static str)).collect();
    PolicySet::compile(names.iter().zip(policies.iter().map(text))).expect("the policies compile")
}

fn server() -> ServerName {
    "files".parse().expect("a name")
}

fn decide(policies: &[(&str, &str)]) -> (Verdict, String) {
    let (server, agent) = (server(), Principal::new(&"bot".parse().expect("a name"), &[]));
    let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
    let policies = set(policies);
    let decision = policies.decide(&agent, &target);
    assert_eq!(policies.standing(&agent, &target), Standing::Settled(decision.clone()));
    let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    (decision.verdict, reasons.join(" "))
}

#[test]
fn an_approval_is_required_only_where_nothing_else_denies() {
    use Verdict::{Allow, Deny, RequireApproval};
    for (policies, verdict, reasons) in [
        (&[("open", PERMIT), ("ask", FORBID)][..], RequireApproval, "ask[0]"),
        (&[("open", PERMIT), ("ask-b", FORBID), ("ask-a", FORBID)], RequireApproval, "ask-a[0] ask-b[0]"),
        (&[("open", PERMIT), ("ask", FORBID), ("never", FORBID)], Deny, "never[0]"),
        (&[("ask", FORBID)], Deny, ""),
        (&[("open", PERMIT), ("ask", FORBID), ("fails", FAILS)], Deny, ""),
        (&[("open", PERMIT), ("ask", FAILS)], Deny, ""),
        (&[("open", PERMIT)], Allow, "open[0]"),
    ] {
        assert_eq!(decide(policies), (verdict, reasons.to_owned()), "{policies:?}");
    }
}

#[test]
fn a_list_shows_what_can_be_approved() {
    let (server, agent) = (server(), Principal::new(&"bot".parse().expect("a name"), &[]));
    let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
    assert!(set(&[("open", PERMIT), ("ask", FORBID)]).standing(&agent, &target).is_shown());
    assert!(!set(&[("ask", FORBID)]).standing(&agent, &target).is_shown());
    // What reads the call is decided then.
    let by_call =
        r#"forbid(principal, action == Action::"tools/call", resource) when { context.era == "legacy" };"#;
    assert_eq!(set(&[("open", PERMIT), ("ask", by_call)]).standing(&agent, &target), Standing::Open);
    let resource = Target::Resource { server: &server, uri: "file:///a" };
    assert!(set(&[("open", PERMIT), ("ask", FORBID)]).decide(&agent, &resource).is_allow());
}

#[test]
fn no_demand_is_lost_where_many_statements_apply() {
    let many = FORBID.repeat(REASONS_MAX + 4);
    let both = [("open", PERMIT), ("ask-a", many.as_str()), ("ask-b", FORBID)];
    assert_eq!(decide(&both), (Verdict::RequireApproval, "ask-a[0] ask-b[0]".to_owned()));
    let names: Vec<String> = (0..=REASONS_MAX).map(|number| format!("ask-{number}")).collect();
    let mut policies: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), FORBID)).collect();
    policies.push(("open", PERMIT));
    assert_eq!(decide(&policies), (Verdict::Deny, String::new()), "more policies than can be told deny");
}

#[test]
fn of_two_sets_both_have_to_allow_and_all_demands_count() {
    let of = |policies: &[(&str, &str)]| -> Decision {
        let (server, agent) = (server(), Principal::new(&"bot".parse().expect("a name"), &[]));
        let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
        set(policies).decide(&agent, &target)
    };
    let allow = of(&[("open", PERMIT)]);
    let (a, b) = (of(&[("open", PERMIT), ("ask-a", FORBID)]), of(&[("open", PERMIT), ("ask-b", FORBID)]));
    let both = of(&[("open", PERMIT), ("ask-a", FORBID), ("ask-b", FORBID)]);
    let deny = of(&[]);
    assert_eq!(allow.clone().and(allow.clone()), allow);
    assert_eq!((allow.clone().and(a.clone()), a.clone().and(allow.clone())), (a.clone(), a.clone()));
    assert_eq!(a.clone().and(b), both);
    for one in [allow, a] {
        assert_eq!(
            (one.clone().and(deny.clone()).verdict, deny.clone().and(one).verdict),
            (Verdict::Deny, Verdict::Deny)
        );
    }
}

#[test]
fn a_text_that_permits_or_concerns_more_than_calls_is_refused_at_its_place() {
    let told = |cedar: &str| -> Vec<String> {
        let text = PolicyText { cedar, is_approvable: true };
        let name: PolicyName = "ask".parse().expect("a name");
        let problems = check(text, &Known::new()).problems;
        assert_eq!(
            PolicySet::compile([(&name, text)]).is_err(),
            !problems.is_empty(),
            "both refuse the same"
        );
        problems.iter().map(ToString::to_string).collect()
    };
    assert_eq!(told(FORBID), Vec::<String>::new());
    let permits = "a policy with `approval` says what is forbidden until it is approved, and this permits (write \
                   `forbid`, and put what permits into another policy)";
    let concerns = "only calls of tools can be approved, and this statement concerns other requests too (write \
                    `action == Action::\"tools/call\"` in its scope)";
    let text = format!(
        "{FORBID}\n// permit(\n  @note(\"permit(\") @id(\"x\")\n  {PERMIT}\nforbid(principal, action, resource);"
    );
    assert_eq!(
        told(&text),
        [format!("line 4, column 3: {permits}"), format!("line 5, column 1: {concerns}")]
    );
    let list = r#"forbid(principal, action in [Action::"tools/call"], resource);"#;
    assert_eq!(told(list), [format!("line 1, column 1: {concerns}")]);
    // Words within a condition begin no statement.
    let words = r#"forbid(principal, action == Action::"tools/call", resource)
        when { resource.name like "permit(*" && !(resource.name == "forbid(") };"#;
    assert_eq!(told(&format!("{words}\n{PERMIT}")), [format!("line 3, column 1: {permits}")]);
}
