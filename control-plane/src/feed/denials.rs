//! Which changes may refuse what was allowed, so that nodes are told of them ahead of what they have to wait for.
//!
//! Always holds: a change that adds a `forbid`, takes a `permit` away, or takes away an agent, a group of an agent, a
//! server, an endpoint or a tenant is among them, and so is every step of a rollout. A change that is among them and
//! refuses nothing costs a message: what nodes are told can only refuse more.

use std::collections::BTreeSet;

use gantry_control_state::{Change, State};
use gantry_model::record::{RecordKey, RecordKind, RecordValue};
use gantry_model::resource::Kind;
use gantry_model::{Spec, TenantName};

/// Tenants of one revision. What concerns more of them is no denial that somebody waits for, but a configuration that
/// is brought, and to send that twice would hold up what is urgent.
const TENANTS_MAX: usize = 64;

/// The tenants in which changes may refuse what was allowed `before` them; none where they are too many.
pub(super) fn tenants(before: &State, changes: &[Change], after: &State) -> BTreeSet<TenantName> {
    let mut tenants = BTreeSet::new();
    for change in changes {
        // INVARIANT: the state's keys are keys of records.
        let Ok(key) = change.key.parse::<RecordKey>() else { continue };
        let Some(tenant) = key.tenant() else { continue };
        // What nodes in its stages are served changes with a rollout's record: also what it allowed is taken back so.
        let is_rollout = key.kind() == RecordKind::Rollout;
        if !tenants.contains(tenant) && (is_rollout || may_deny(spec(before, &key), &key, spec(after, &key)))
        {
            tenants.insert(tenant.clone());
        }
        if tenants.len() > TENANTS_MAX {
            return BTreeSet::new();
        }
    }
    tenants
}

fn may_deny(before: Option<&Spec>, key: &RecordKey, after: Option<&Spec>) -> bool {
    let RecordKind::Resource(kind) = key.kind() else { return false };
    match (kind, before, after) {
        // A word of a comment or a name is not worth the time that a parser takes.
        (Kind::Policy, None, Some(Spec::Policy(after))) => !after.shadow && after.cedar.contains("forbid"),
        (Kind::Policy, before, after) => before != after,
        (Kind::Agent, Some(Spec::Agent(before)), Some(Spec::Agent(after))) => before.groups != after.groups,
        (Kind::Agent | Kind::Server | Kind::Endpoint | Kind::Tenant, Some(_), None) => true,
        _ => false,
    }
}

fn spec<'a>(state: &'a State, key: &RecordKey) -> Option<&'a Spec> {
    match &state.record(key)?.value {
        RecordValue::Resource(resource) => Some(&resource.spec),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use gantry_control_state::Command;
    use gantry_model::{ResourceId, Revision, document};
    use serde_json::{Value, json};

    use super::*;

    const PERMIT: &str = "permit(principal, action, resource);";
    const FORBID: &str = "forbid(principal, action, resource);";

    /// The tenants in which the last of some commands may refuse something.
    fn denied_by(commands: &[Command]) -> Vec<String> {
        let (mut state, mut denied) = (State::default(), BTreeSet::new());
        for (revision, command) in (1..).zip(commands) {
            let before = state.clone();
            let changes = state.apply(Revision(revision), command).changes;
            assert!(!changes.is_empty(), "{command:?} changes nothing");
            denied = tenants(&before, &changes, &state);
        }
        denied.iter().map(ToString::to_string).collect()
    }

    fn apply(documents: Vec<Value>) -> Command {
        Command::Apply(documents.into_iter().map(|one| document::parse(one).expect("a document")).collect())
    }

    fn of(kind: &str, name: &str, spec: Value) -> Value {
        json!({"kind": kind, "tenant": "acme", "name": name, "spec": spec})
    }

    fn policy(name: &str, cedar: &str) -> Value {
        of("Policy", name, json!({"cedar": cedar}))
    }

    fn acme() -> Command {
        apply(vec![
            json!({"kind": "Tenant", "name": "acme"}),
            policy("open", PERMIT),
            of("Agent", "bot", json!({"groups": ["staff"]})),
            of("Server", "files", json!({"url": "http://127.0.0.1:9"})),
            of("Endpoint", "all", json!({"servers": ["files"]})),
        ])
    }

    fn id(kind: Kind, name: &str) -> ResourceId {
        let tenant = "acme".parse().expect("a name");
        ResourceId { tenant, kind, name: name.parse().expect("a name") }
    }

    fn delete(kind: Kind, name: &str) -> Command {
        Command::Delete(vec![id(kind, name)])
    }

    fn delete_all() -> Command {
        let ids = [
            (Kind::Endpoint, "all"),
            (Kind::Server, "files"),
            (Kind::Agent, "bot"),
            (Kind::Policy, "open"),
            (Kind::Tenant, "acme"),
        ];
        Command::Delete(ids.map(|(kind, name)| id(kind, name)).into())
    }

    #[test]
    fn what_may_refuse_something_is_told_from_what_only_allows_more() {
        let bot = |spec: Value| apply(vec![of("Agent", "bot", spec)]);
        for (what, last, denies) in [
            ("a new permit", apply(vec![policy("more", PERMIT)]), false),
            ("a new forbid", apply(vec![policy("less", FORBID)]), true),
            (
                "a new forbid that is not enforced",
                apply(vec![of("Policy", "less", json!({"cedar": FORBID, "shadow": true}))]),
                false,
            ),
            (
                "a permit that is not enforced any more",
                apply(vec![of("Policy", "open", json!({"cedar": PERMIT, "shadow": true}))]),
                true,
            ),
            ("a changed policy", apply(vec![policy("open", &format!("{PERMIT} {FORBID}"))]), true),
            ("a policy that goes", delete(Kind::Policy, "open"), true),
            ("a new agent", apply(vec![of("Agent", "eve", json!({}))]), false),
            ("an agent in another group", bot(json!({"groups": ["guests"]})), true),
            ("an agent by other words", bot(json!({"groups": ["staff"], "description": "b"})), false),
            ("an agent that goes", delete(Kind::Agent, "bot"), true),
            ("an endpoint that goes", delete(Kind::Endpoint, "all"), true),
            ("a new server", apply(vec![of("Server", "web", json!({"url": "http://127.0.0.1:9"}))]), false),
            ("a tenant that goes", delete_all(), true),
        ] {
            let expected: &[&str] = if denies { &["acme"] } else { &[] };
            assert_eq!(denied_by(&[acme(), last]), expected, "{what}");
        }
        let without_endpoint = delete(Kind::Endpoint, "all");
        assert_eq!(denied_by(&[acme(), without_endpoint, delete(Kind::Server, "files")]), ["acme"]);
    }

    #[test]
    fn a_change_of_more_tenants_than_anybody_denies_at_once_is_no_denial() {
        let forbids = |count: usize| {
            let tenants = (0..count).map(|number| format!("tenant-{number}"));
            let documents = tenants.flat_map(|tenant| {
                let policy =
                    json!({"kind": "Policy", "tenant": tenant, "name": "p", "spec": {"cedar": FORBID}});
                [json!({"kind": "Tenant", "name": tenant}), policy]
            });
            denied_by(&[apply(documents.collect())]).len()
        };
        assert_eq!([forbids(TENANTS_MAX), forbids(TENANTS_MAX + 1)], [TENANTS_MAX, 0]);
    }
}
