//! Approvals against the rules that they promise.

use gantry_model::{Catalog, Name, PolicyName, Revision, document};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{Command, Outcome};

const FORBID: &str = r#"forbid (principal, action == Action::"tools/call", resource);"#;

fn name<T: From<Name>>(text: &str) -> T {
    text.parse::<Name>().expect("a name").into()
}

fn policy(cedar: &str, approval: serde_json::Value) -> gantry_model::Resource {
    let spec = json!({"cedar": cedar, "approval": approval});
    let fields = json!({"kind": "Policy", "tenant": "acme", "name": "ask", "spec": spec});
    document::parse(fields).expect("a valid document")
}

fn catalog(description: &str) -> Catalog {
    let mut catalog = Catalog::empty(name("acme"), name("files"));
    let json = json!({"name": "delete", "description": description, "inputSchema": {"type": "object"}});
    catalog.tools = vec![Definition::new("delete", json.to_string().as_str())];
    catalog
}

fn apply(state: &mut State, revision: u64, command: Command) -> Result<usize, String> {
    let applied = state.apply(Revision(revision), &command);
    match applied.outcome {
        Outcome::Done(_) => Ok(applied.changes.len()),
        Outcome::Refused(refusals) => Err(refusals[0].message.clone()),
    }
}

/// A tenant whose policy `ask` is of revision 5 and demands this.
fn ready(approval: serde_json::Value) -> State {
    let document = |kind: &str, name: &str, spec| {
        let mut fields = json!({"kind": kind, "name": name, "spec": spec});
        if kind != "Tenant" {
            fields["tenant"] = json!("acme");
        }
        document::parse(fields).expect("a valid document")
    };
    let set = vec![
        document("Tenant", "acme", json!({})),
        document("Agent", "bot", json!({})),
        document("Server", "files", json!({"url": "http://127.0.0.1:1/mcp"})),
        policy(FORBID, approval),
    ];
    let mut state = State::default();
    apply(&mut state, 5, Command::Apply(set)).expect("applied");
    apply(&mut state, 6, Command::PutCatalog(catalog("first"))).expect("recorded");
    state
}

fn call(arguments: u8) -> ApprovalCall {
    ApprovalCall {
        tenant: name("acme"),
        agent: name("bot"),
        user: None,
        server: name("files"),
        tool: "delete".parse().expect("a name"),
        arguments_hash: [arguments; 32],
        definition_hash: catalog("first").tools[0].hash,
        policies: vec![ApprovalPolicy { name: name::<PolicyName>("ask"), revision: Revision(5) }],
    }
}

const ID: ApprovalId = ApprovalId([1; 8]);

fn ask(id: ApprovalId, arguments: u8, at_ms: u64) -> Command {
    Command::AskApproval { id, call: call(arguments), arguments: "{}".to_owned(), at_ms }
}

fn vote(id: ApprovalId, by: &str, approves: bool, at_ms: u64) -> Command {
    let vote = Vote { by: name(by), approves, reason: String::new(), at_ms };
    Command::VoteOnApproval { tenant: name("acme"), id, vote }
}

fn take(id: ApprovalId, arguments: u8, taker: u8, at_ms: u64) -> Command {
    Command::TakeApproval { id, call: call(arguments), taking: Use { taker: [taker; 16], at_ms } }
}

fn refused(text: &str) -> Result<usize, String> {
    Err(text.replace("ID", &ID.to_string()))
}

#[test]
fn an_approval_is_taken_once_and_by_its_taker_as_often_as_it_asks() {
    let mut state = ready(json!({"expires_seconds": 10}));
    assert_eq!(apply(&mut state, 7, ask(ID, 1, 1_000)), Ok(1));
    let again = ApprovalId([2; 8]);
    assert_eq!(apply(&mut state, 7, ask(again, 1, 1_500)), Ok(0), "the same call waits already");
    assert_eq!(apply(&mut state, 8, take(ID, 1, 1, 1_500)), refused("approval ID is pending"));
    assert_eq!(apply(&mut state, 8, vote(ID, "ann", true, 1_600)), Ok(1));
    assert_eq!(apply(&mut state, 9, take(ID, 2, 1, 1_700)), refused("approval ID is of another call"));
    assert_eq!(apply(&mut state, 9, take(ID, 1, 1, 1_700)), Ok(1));
    assert_eq!(apply(&mut state, 9, take(ID, 1, 2, 1_700)), refused("approval ID is used already"));
    assert_eq!(apply(&mut state, 9, take(ID, 1, 1, 99_000)), Ok(0), "it asks again, however late");
    assert_eq!(apply(&mut state, 9, vote(ID, "bob", false, 1_800)), refused("approval ID is used already"));
    assert_eq!(apply(&mut state, 9, ask(again, 1, 1_900)), Ok(1), "the next call needs one of its own");
}

#[test]
fn a_denial_is_final_and_outlives_an_approval() {
    let mut state = ready(json!({"approvals": 2, "expires_seconds": 10}));
    apply(&mut state, 7, ask(ID, 1, 0)).expect("asked");
    apply(&mut state, 7, vote(ID, "ann", true, 1)).expect("voted");
    let again = refused("ann has approved ID already; another approver is needed");
    assert_eq!(apply(&mut state, 7, vote(ID, "ann", true, 2)), again);
    assert_eq!(apply(&mut state, 7, take(ID, 1, 1, 3)), refused("approval ID is pending"));
    apply(&mut state, 7, vote(ID, "bob", true, 4)).expect("voted");
    assert_eq!(apply(&mut state, 7, vote(ID, "cid", true, 5)), refused("approval ID is approved already"));
    apply(&mut state, 7, vote(ID, "ann", false, 6)).expect("second thoughts");
    assert_eq!(apply(&mut state, 7, take(ID, 1, 1, 7)), refused("approval ID is denied"));
    assert_eq!(apply(&mut state, 7, vote(ID, "bob", true, 8)), refused("approval ID is denied already"));
    assert_eq!(
        apply(&mut state, 7, ask(ApprovalId([2; 8]), 1, 9_999)),
        Ok(0),
        "asking again changes nothing"
    );
    assert_eq!(
        apply(&mut state, 7, ask(ApprovalId([2; 8]), 1, 10_000)),
        Ok(1),
        "until it would have expired"
    );
}

#[test]
fn only_those_whom_the_policy_names_are_heard_and_only_in_time() {
    let named = json!({"approvals": 2, "approvers": ["ann", "bob", "cid"], "expires_seconds": 10});
    let mut state = ready(named);
    apply(&mut state, 7, ask(ID, 1, 0)).expect("asked");
    let none = refused("eve is none of the approvers that the policies of ID name");
    assert_eq!(apply(&mut state, 7, vote(ID, "eve", true, 1)), none);
    assert_eq!(apply(&mut state, 7, vote(ID, "eve", false, 1)), none);
    apply(&mut state, 7, vote(ID, "ann", true, 1)).expect("voted");
    let late = refused("approval ID is expired already");
    assert_eq!(apply(&mut state, 7, vote(ID, "cid", true, 10_000)), late);
    apply(&mut state, 7, vote(ID, "cid", true, 9_999)).expect("voted");
    assert_eq!(apply(&mut state, 7, take(ID, 1, 1, 10_000)), refused("approval ID is expired"));
    assert_eq!(apply(&mut state, 7, take(ID, 1, 1, 9_999)), Ok(1));
    let unknown = format!("tenant acme has no approval {}", ApprovalId([9; 8]));
    assert_eq!(apply(&mut state, 7, vote(ApprovalId([9; 8]), "ann", true, 1)), Err(unknown));
}

#[test]
fn a_change_of_the_policy_or_of_the_tool_makes_it_void() {
    let change_policy = Command::Apply(vec![policy(FORBID, json!({"approvals": 2}))]);
    let shadow = document::parse(json!({"kind": "Policy", "tenant": "acme", "name": "ask",
        "spec": {"cedar": FORBID, "shadow": true, "approval": {}}}));
    let shadow = Command::Apply(vec![shadow.expect("a valid document")]);
    let delete = Command::Delete(vec![ResourceId::policy(&name("acme"), &name("ask"))]);
    for (what, change) in [
        ("policy ask was changed since", change_policy),
        ("policy ask was changed since", shadow),
        ("policy ask was changed since", delete),
        ("the definition of tool files/delete changed since", Command::PutCatalog(catalog("another"))),
    ] {
        let mut state = ready(json!({}));
        apply(&mut state, 7, ask(ID, 1, 0)).expect("asked");
        let mut approved = state.clone();
        apply(&mut approved, 8, vote(ID, "ann", true, 1)).expect("voted");
        for state in [&mut state, &mut approved] {
            apply(state, 9, change.clone()).expect("changed");
            let void = refused(&format!("approval ID is void: {what}"));
            assert_eq!(apply(state, 10, take(ID, 1, 1, 2)), void);
            assert_eq!(apply(state, 10, vote(ID, "bob", false, 2)), void);
            let asked = apply(state, 10, ask(ApprovalId([2; 8]), 2, 3));
            assert_eq!(asked, Err(format!("{what}; make the call again")));
        }
    }
}

#[test]
fn a_policy_in_a_stage_of_a_rollout_counts_as_of_its_beginning() {
    use gantry_model::RolloutId;
    use gantry_model::rollout::{Stage, Thresholds};
    let mut state = ready(json!({}));
    let rollout = gantry_model::Rollout {
        tenant: name("acme"),
        id: RolloutId([3; 8]),
        applied: vec![policy(FORBID, json!({"approvals": 2}))],
        deleted: Vec::new(),
        resource_count: 1,
        checked: Revision(6),
        begun: Revision(0),
        stages: vec![Stage::Label(name("canary"))],
        stage: 0,
        pause_seconds: None,
        thresholds: Thresholds { rise_percent: 5, calls_min: 50 },
        by: "ann".to_owned(),
        begun_at_ms: 0,
        ended: None,
    };
    apply(&mut state, 7, Command::BeginRollout(Box::new(rollout))).expect("begun");
    let mut staged = call(1);
    staged.policies[0].revision = Revision(7);
    let asked = Command::AskApproval { id: ID, call: staged.clone(), arguments: "{}".to_owned(), at_ms: 0 };
    apply(&mut state, 8, asked).expect("asked");
    assert_eq!(state.approval(&name("acme"), ID).map(|asked| asked.demands[0].approvals), Some(2));
    staged.policies[0].revision = Revision(6);
    assert!(state.void(&staged).is_some());
}

#[test]
fn there_is_room_for_others_and_what_is_over_makes_room() {
    let mut state = ready(json!({"expires_seconds": 10}));
    let id = |number: usize| ApprovalId((number as u64).to_be_bytes());
    let asking = |number: usize, agent: &str, at_ms| {
        let mut call = ApprovalCall { agent: name(agent), ..call(0) };
        call.arguments_hash[..8].copy_from_slice(&id(number).0);
        Command::AskApproval { id: id(number), call, arguments: "{}".to_owned(), at_ms }
    };
    for number in 0..APPROVALS_OF_PRINCIPAL_MAX {
        apply(&mut state, 7, asking(number, "bot", 0)).expect("asked");
    }
    let full = Err("too many calls wait for approval already; have some decided first".to_owned());
    assert_eq!(apply(&mut state, 7, asking(500, "bot", 1)), full);
    for number in APPROVALS_OF_PRINCIPAL_MAX..APPROVALS_OF_TENANT_MAX {
        apply(&mut state, 7, asking(number, &format!("bot-{}", number / 20), 1)).expect("asked");
    }
    assert_eq!(apply(&mut state, 7, asking(5_000, "late", 2)), full);
    assert_eq!(apply(&mut state, 7, asking(5_000, "late", 10_001)), Ok(APPROVALS_OF_TENANT_MAX + 1));
    assert_eq!((state.approval_count(), state.approvals_of(&name("acme")).count()), (1, 1));
    assert_eq!(apply(&mut state, 7, asking(5_001, "late", 20_001 + FORGOTTEN_AFTER_MS)), Ok(2));
    let all = all(&state);
    apply(&mut state, 8, Command::Delete(all)).expect("deleted");
    assert_eq!(state.approval_count(), 0, "they end with their tenant");
}

#[test]
fn what_was_denied_or_is_void_locks_nobody_out() {
    let id = |number: usize| ApprovalId((number as u64).to_be_bytes());
    let full = Err(Unasked::Full.to_string());
    for is_denied in [true, false] {
        let mut state = ready(json!({}));
        let asking = |number: usize, revision| {
            let mut call = call(0);
            call.arguments_hash[..8].copy_from_slice(&id(number).0);
            call.policies[0].revision = Revision(revision);
            Command::AskApproval { id: id(number), call, arguments: "{}".to_owned(), at_ms: number as u64 }
        };
        for number in 0..APPROVALS_OF_PRINCIPAL_MAX {
            apply(&mut state, 7, asking(number, 5)).expect("asked");
        }
        assert_eq!(apply(&mut state, 8, asking(500, 5)), full);
        if is_denied {
            for number in 0..APPROVALS_OF_PRINCIPAL_MAX {
                apply(&mut state, 9, vote(id(number), "ann", false, 100)).expect("denied");
            }
            for number in 100..100 + APPROVALS_OF_PRINCIPAL_MAX {
                assert_eq!(apply(&mut state, 10, asking(number, 5)), Ok(1));
            }
            assert_eq!(apply(&mut state, 10, asking(500, 5)), full);
        } else {
            let changed = Command::Apply(vec![policy(FORBID, json!({"approvals": 2}))]);
            apply(&mut state, 9, changed).expect("changed");
            for number in 100..100 + APPROVALS_OF_PRINCIPAL_MAX {
                assert_eq!(apply(&mut state, 10, asking(number, 9)), Ok(1));
            }
            assert_eq!(apply(&mut state, 10, asking(500, 9)), full);
        }
        assert_eq!(state.approval_count(), 2 * APPROVALS_OF_PRINCIPAL_MAX, "they can still be looked at");
    }
}

#[test]
fn a_tenant_without_room_forgets_what_is_void_and_then_the_oldest_that_were_denied() {
    let id = |number: usize| ApprovalId((number as u64).to_be_bytes());
    let asking = |number: usize, at_ms: u64| {
        let mut call = ApprovalCall { agent: name(&format!("bot-{}", number / 20)), ..call(0) };
        call.arguments_hash[..8].copy_from_slice(&id(number).0);
        Command::AskApproval { id: id(number), call, arguments: "{}".to_owned(), at_ms }
    };
    let mut state = ready(json!({}));
    for number in 0..APPROVALS_OF_TENANT_MAX {
        apply(&mut state, 7, asking(number, number as u64)).expect("asked");
    }
    assert_eq!(apply(&mut state, 8, asking(5_000, 2_000)), Err(Unasked::Full.to_string()));
    for number in [7, 3] {
        apply(&mut state, 8, vote(id(number), "ann", false, 2_000)).expect("denied");
    }
    let is_there = |state: &State, number| state.approval(&name("acme"), id(number)).is_some();
    assert_eq!(apply(&mut state, 9, asking(5_000, 2_000)), Ok(2));
    assert_eq!([3, 7, 5_000].map(|number| is_there(&state, number)), [false, true, true]);
    // Those of another definition go together.
    apply(&mut state, 10, Command::PutCatalog(catalog("another"))).expect("recorded");
    let mut other = call(9);
    other.definition_hash = catalog("another").tools[0].hash;
    let asked = Command::AskApproval { id: id(6_000), call: other, arguments: "{}".to_owned(), at_ms: 2_001 };
    assert_eq!(apply(&mut state, 11, asked), Ok(1 + APPROVALS_OF_TENANT_MAX));
    assert_eq!(state.approval_count(), 1);
}

#[test]
fn the_yes_of_an_admin_who_is_deleted_goes_with_him_and_his_no_stays() {
    use gantry_model::admin::{Admin, AdminChange, Role};
    let mut state = ready(json!({"approvals": 2}));
    let role = Role::Approver(Some(name("acme")));
    for admin in ["ann", "bob"] {
        let admin =
            Admin { name: name(admin), roles: vec![role.clone()], tokens: Vec::new(), created_at_ms: 0 };
        apply(&mut state, 7, Command::ChangeAdmin(AdminChange::Create(admin))).expect("created");
    }
    let [denied, used] = [ApprovalId([2; 8]), ApprovalId([3; 8])];
    for (id, arguments) in [(ID, 1), (denied, 2), (used, 3)] {
        apply(&mut state, 7, ask(id, arguments, 0)).expect("asked");
    }
    for (id, by, approves) in [
        (ID, "ann", true),
        (ID, "bob", true),
        (denied, "ann", false),
        (used, "ann", true),
        (used, "bob", true),
    ] {
        apply(&mut state, 8, vote(id, by, approves, 1)).expect("voted");
    }
    apply(&mut state, 8, take(used, 3, 1, 2)).expect("taken");
    apply(&mut state, 9, Command::ChangeAdmin(AdminChange::Delete(name("ann")))).expect("deleted");
    assert_eq!(apply(&mut state, 10, take(ID, 1, 1, 2)), refused("approval ID is pending"));
    let word =
        |id| state.approval(&name("acme"), id).map(|known| (known.state(2).as_str(), known.votes.len()));
    assert_eq!(word(ID), Some(("pending", 1)));
    assert_eq!((word(denied), word(used)), (Some(("denied", 1)), Some(("used", 2))));
}

fn all(state: &State) -> Vec<ResourceId> {
    let id = |record: &gantry_model::Record| match &record.value {
        RecordValue::Resource(resource) => Some(resource.id()),
        _ => None,
    };
    state.records().filter_map(id).collect()
}

#[derive(Debug, Clone)]
enum Act {
    Ask(u8),
    Vote { id: u8, by: u8, approves: bool },
    Take { id: u8, arguments: u8, taker: u8 },
    Change,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Act::Ask),
        5 => (0..6_u8, 0..3_u8, prop::bool::weighted(0.85))
            .prop_map(|(id, by, approves)| Act::Vote { id, by, approves }),
        8 => (0..6_u8, 0..3_u8, 0..4_u8).prop_map(|(id, arguments, taker)| Act::Take { id, arguments, taker }),
        1 => Just(Act::Change),
        1 => (0..6_000_u64).prop_map(Act::Wait),
    ]
}

proptest! {
    /// Whatever is asked, said, taken and changed, in any order: no approval has two takers, none is taken that two different
    /// admins did not approve and none denied, in time; and the log, applied again, gives the same state.
    #[test]
    fn nothing_is_granted_twice_or_without_its_votes(acts in prop::collection::vec(act(), 1..60)) {
        let mut state = ready(json!({"approvals": 2, "expires_seconds": 10}));
        let (mut log, mut now, mut asked) = (Vec::new(), 1_u64, 0_u8);
        let mut policies = call(0).policies;
        let mut takers = std::collections::BTreeMap::new();
        for act in acts {
            now += 1;
            let revision = 10 + log.len() as u64;
            let now_call = |arguments| ApprovalCall { policies: policies.clone(), ..call(arguments) };
            let command = match act {
                Act::Ask(arguments) => {
                    asked += 1;
                    let id = ApprovalId([asked; 8]);
                    let call = now_call(arguments);
                    Command::AskApproval { id, call, arguments: "{}".to_owned(), at_ms: now }
                }
                Act::Vote { id, by, approves } => {
                    vote(ApprovalId([id + 1; 8]), ["ann", "bob", "cid"][usize::from(by)], approves, now)
                }
                Act::Take { id, arguments, taker } => Command::TakeApproval {
                    id: ApprovalId([id + 1; 8]),
                    call: now_call(arguments),
                    taking: Use { taker: [taker; 16], at_ms: now },
                },
                Act::Change => {
                    policies[0].revision = Revision(revision);
                    let text = format!("// {revision}\n{FORBID}");
                    Command::Apply(vec![policy(&text, json!({"approvals": 2, "expires_seconds": 10}))])
                }
                Act::Wait(ms) => {
                    now += ms;
                    continue;
                }
            };
            let before = state.clone();
            let done = apply(&mut state, revision, command.clone());
            if let (Command::TakeApproval { id, call, taking }, Ok(_)) = (&command, &done) {
                let taker = *takers.entry(*id).or_insert(taking.taker);
                prop_assert_eq!(taker, taking.taker, "two takers of {}", id);
                let request = before.approval(&call.tenant, *id).expect("it was there");
                prop_assert_eq!(&request.call, call);
                if request.used.is_none() {
                    prop_assert!(request.approvers().len() >= 2 && request.expires_at_ms > now);
                    prop_assert!(request.votes.iter().all(|vote| vote.approves));
                    prop_assert_eq!(before.void(call), None);
                }
            }
            if let (Command::AskApproval { call, .. }, Ok(_)) = (&command, &done) {
                prop_assert!(state.approval_of(call, now).is_some(), "what was asked is there");
            }
            log.push((revision, command));
        }
        let mut replayed = ready(json!({"approvals": 2, "expires_seconds": 10}));
        for (revision, command) in &log {
            let _ = apply(&mut replayed, *revision, command.clone());
        }
        prop_assert!(replayed.entries().eq(state.entries()));
        let stored = state.entries().map(|(key, bytes)| (key.to_owned(), bytes.to_vec()));
        let loaded = State::load(stored).expect("it reads");
        prop_assert_eq!(loaded.approval_count(), state.approval_count());
    }
}
