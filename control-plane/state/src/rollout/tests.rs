//! Rollouts begin, go on and end, and nothing collides with them.

use gantry_model::rollout::{Stage, Thresholds};
use gantry_model::{Ban, BanTarget, Kind, Resource, Revision, RolloutId, document};
use gantry_wire::Command;
use serde_json::{Value, json};

use super::*;
use crate::outcome::Outcome;

/// A state, and the revision of its last command.
struct Cluster {
    state: State,
    revision: u64,
}

fn document(value: Value) -> Resource {
    document::parse(value).expect("a document")
}

fn tenant() -> TenantName {
    "acme".parse().expect("a name")
}

fn agent(name: &str, description: &str) -> Resource {
    document(json!({"kind": "Agent", "tenant": "acme", "name": name, "spec": {"description": description}}))
}

fn server(name: &str) -> Resource {
    document(json!({"kind": "Server", "tenant": "acme", "name": name, "spec": {"url": "http://example.com"}}))
}

fn endpoint(server: &str) -> Resource {
    document(json!({"kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servers": [server]}}))
}

fn id(resource: &Resource) -> ResourceId {
    resource.id()
}

fn rollout(number: u8, applied: Vec<Resource>, deleted: Vec<ResourceId>) -> Rollout {
    Rollout {
        tenant: tenant(),
        id: RolloutId([number; 8]),
        resource_count: 1,
        applied,
        deleted,
        checked: Revision::NONE,
        begun: Revision::NONE,
        stages: vec![Stage::Label("canary".parse().expect("a name")), Stage::Share(25)],
        stage: 0,
        pause_seconds: None,
        thresholds: Thresholds { rise_percent: 5, calls_min: 50 },
        by: "ann".to_owned(),
        begun_at_ms: 1,
        ended: None,
    }
}

fn ended(how: End) -> Ended {
    Ended { how, reason: "why".to_owned(), by: "bob".to_owned(), at_ms: 2 }
}

impl Cluster {
    /// One with a tenant, a server and two agents.
    fn new() -> Cluster {
        let mut cluster = Cluster { state: State::default(), revision: 0 };
        let tenant = document(json!({"kind": "Tenant", "name": "acme"}));
        let set = vec![tenant, server("files"), agent("bot", ""), agent("old", "")];
        cluster.done(&Command::Apply(set));
        cluster
    }

    /// Applies a command; the messages of its refusals.
    fn apply(&mut self, command: &Command) -> Result<Vec<ChangeKind>, Vec<String>> {
        self.revision += 1;
        let before = self.state.clone();
        let applied = self.state.apply(Revision(self.revision), command);
        // What is stored is what is in memory, running rollouts among it.
        let entries = self.state.entries().map(|(key, bytes)| (key.to_owned(), bytes.to_vec()));
        let loaded = State::load(entries.collect::<Vec<_>>()).expect("loads");
        assert!(loaded.running_rollouts().eq(self.state.running_rollouts()));
        match applied.outcome {
            Outcome::Done(done) => Ok(done.into_iter().map(|(_, kind)| kind).collect()),
            Outcome::Refused(refusals) => {
                assert!(self.state.entries().eq(before.entries()), "a refused command changes nothing");
                Err(refusals.into_iter().map(|refusal| refusal.message).collect())
            }
        }
    }

    fn done(&mut self, command: &Command) -> Vec<ChangeKind> {
        self.apply(command).expect("done")
    }

    fn begin(&mut self, rollout: Rollout) -> Vec<ChangeKind> {
        self.done(&Command::BeginRollout(Box::new(rollout)))
    }

    fn at(&self) -> RolloutAt {
        self.state.rollout(&tenant()).expect("a rollout").0.at()
    }

    fn latest(&self) -> (u32, Option<Ended>) {
        let (rollout, _) = self.state.rollout(&tenant()).expect("a rollout");
        (rollout.stage, rollout.ended.clone())
    }

    fn description(&self, name: &str) -> Option<String> {
        let id = ResourceId::agent(&tenant(), &name.parse().expect("a name"));
        let (resource, _) = self.state.resource(&id)?;
        match &resource.spec {
            gantry_model::Spec::Agent(agent) => Some(agent.description.clone()),
            _ => None,
        }
    }
}

#[test]
fn what_only_the_nodes_of_a_stage_have_can_be_banned_while_they_have_it() {
    let mut cluster = Cluster::new();
    let ban = |name: &str| {
        let target = BanTarget::Agent(name.parse().expect("a name"));
        let (by, reason) = ("ann".to_owned(), String::new());
        Command::PutBan(Ban { tenant: tenant(), target, by, reason, at_ms: 1, until_ms: None })
    };
    cluster.begin(rollout(1, vec![agent("more", "")], vec![]));
    cluster.done(&ban("more"));
    cluster.apply(&ban("none")).expect_err("nobody has it");
    let at = cluster.at();
    cluster.done(&Command::EndRollout { at, end: ended(End::Aborted) });
    cluster.begin(rollout(2, vec![agent("other", "")], vec![]));
    let at = cluster.at();
    cluster.done(&Command::EndRollout { at, end: ended(End::Aborted) });
    cluster.apply(&ban("other")).expect_err("nobody has it any more");
}

#[test]
fn a_change_is_in_force_only_once_it_is_promoted_and_then_as_a_whole() {
    let mut cluster = Cluster::new();
    let change = rollout(1, vec![agent("bot", "new"), agent("more", "")], vec![id(&agent("old", ""))]);
    let kinds = cluster.begin(change);
    assert_eq!(kinds, [ChangeKind::Updated, ChangeKind::Created, ChangeKind::Deleted]);
    assert_eq!((cluster.description("bot"), cluster.description("more")), (Some(String::new()), None));
    let digest = cluster.state.digest();

    let overlay = |cluster: &Cluster| {
        let (rollout, _) = cluster.state.rollout(&tenant()).expect("a rollout");
        cluster.state.overlay(rollout).expect("fits")
    };
    let before = overlay(&cluster);
    let keys: Vec<_> = before.iter().map(|change| (change.key.as_str(), change.value.is_some())).collect();
    assert_eq!(keys, [("acme/agent/bot", true), ("acme/agent/more", true), ("acme/agent/old", false)]);
    cluster.done(&Command::AdvanceRollout(cluster.at()));
    assert_eq!(overlay(&cluster), before, "its bytes stay the same from stage to stage");
    assert_eq!(cluster.state.digest(), digest, "others are served what is stored");

    let at = cluster.at();
    cluster.done(&Command::EndRollout { at: at.clone(), end: ended(End::Promoted) });
    assert_eq!(cluster.description("bot"), Some("new".to_owned()));
    assert_eq!(cluster.state.names(&tenant(), Kind::Agent), ["bot", "more"]);
    assert_eq!(cluster.latest(), (1, Some(ended(End::Promoted))));
    assert_eq!(cluster.state.running_rollouts().len(), 0);
    let gone = cluster.apply(&Command::EndRollout { at, end: ended(End::Aborted) });
    assert_eq!(gone, Err(vec![format!("rollout {} of tenant acme has ended", RolloutId([1; 8]))]));
}

#[test]
fn a_change_that_is_taken_back_leaves_what_was_there() {
    let mut cluster = Cluster::new();
    cluster.begin(rollout(1, vec![agent("bot", "new")], Vec::new()));
    let at = cluster.at();
    cluster.done(&Command::EndRollout { at, end: ended(End::Stopped) });
    assert_eq!(cluster.description("bot"), Some(String::new()));
    assert_eq!(cluster.latest(), (0, Some(ended(End::Stopped))));
    let (stored, _) = cluster.state.rollout(&tenant()).expect("a rollout");
    assert_eq!((stored.applied.len(), stored.resource_count), (0, 1), "documents are not kept");
    cluster.begin(rollout(2, vec![agent("bot", "newer")], Vec::new()));
    assert_eq!(cluster.latest(), (0, None));
}

#[test]
fn who_decides_about_another_stage_or_another_rollout_is_refused() {
    let mut cluster = Cluster::new();
    cluster.begin(rollout(1, vec![agent("bot", "new")], Vec::new()));
    let first = cluster.at();
    cluster.done(&Command::AdvanceRollout(first.clone()));
    let other = RolloutAt { id: RolloutId([9; 8]), ..cluster.at() };
    for at in [first, other] {
        for command in
            [Command::AdvanceRollout(at.clone()), Command::EndRollout { at, end: ended(End::Promoted) }]
        {
            let refused = cluster.apply(&command).expect_err("refused");
            assert!(
                refused[0].starts_with("there is rollout 0101010101010101 of tenant acme in stage 2 of 3")
            );
        }
    }
    let last = cluster.apply(&Command::AdvanceRollout(cluster.at()));
    assert_eq!(last, Err(vec!["all nodes come next, which ends the rollout".to_owned()]));
}

#[test]
fn one_of_a_tenant_runs_at_a_time_and_a_bounded_number_in_all() {
    let mut cluster = Cluster::new();
    cluster.begin(rollout(1, vec![agent("bot", "new")], Vec::new()));
    let second = Command::BeginRollout(Box::new(rollout(2, vec![agent("old", "new")], Vec::new())));
    let refused = cluster.apply(&second).expect_err("refused");
    assert!(refused[0].starts_with("there is rollout 0101010101010101 of tenant acme"), "{refused:?}");
    let of_tenant = |number: usize| {
        let name = format!("t{number}");
        let tenant = document(json!({"kind": "Tenant", "name": name}));
        let agent = document(json!({"kind": "Agent", "tenant": name, "name": "bot"}));
        let begun = Rollout { tenant: name.parse().expect("a name"), ..rollout(1, vec![agent], Vec::new()) };
        (Command::Apply(vec![tenant]), Command::BeginRollout(Box::new(begun)))
    };
    for number in 1..=ROLLOUTS_MAX {
        let (make, begin) = of_tenant(number);
        cluster.done(&make);
        let begun = cluster.apply(&begin);
        assert_eq!(begun.is_ok(), number < ROLLOUTS_MAX, "{begun:?}");
    }
}

#[test]
fn what_changes_nothing_or_does_not_fit_does_not_begin() {
    let mut cluster = Cluster::new();
    let mut refused =
        |rollout: Rollout| cluster.apply(&Command::BeginRollout(Box::new(rollout))).expect_err("refused");
    assert_eq!(refused(rollout(1, vec![agent("bot", "")], Vec::new())), ["all of it is in force already"]);
    assert_eq!(refused(rollout(1, vec![endpoint("flies")], Vec::new())), ["there is no Server acme/flies"]);
    assert_eq!(refused(rollout(1, Vec::new(), vec![id(&agent("bob", ""))])), ["there is no Agent acme/bob"]);
    let nobody = Rollout { tenant: "acmee".parse().expect("a name"), ..rollout(1, Vec::new(), Vec::new()) };
    assert_eq!(refused(nobody), ["it names no resource"]);
}

#[test]
fn what_a_running_rollout_changes_or_needs_stays_as_it_is_and_the_rest_may_change() {
    let mut cluster = Cluster::new();
    cluster.begin(rollout(1, vec![endpoint("files"), agent("bot", "new")], vec![id(&agent("old", ""))]));
    let first = "of tenant acme in stage 1 of 3 (canary); `gantry rollout promote --tenant acme` or `gantry rollout \
                 abort --tenant acme` first";
    let rollout = "rollout 0101010101010101";
    for (command, what) in [
        (Command::Apply(vec![agent("more", ""), agent("bot", "other")]), "Agent acme/bot"),
        (Command::Apply(vec![endpoint("files")]), "Endpoint acme/main"),
        (Command::Delete(vec![id(&agent("old", ""))]), "Agent acme/old"),
    ] {
        let refused = Err(vec![format!("{what} is part of {rollout} {first}")]);
        assert_eq!(cluster.apply(&command), refused);
    }
    let needed = cluster.apply(&Command::Delete(vec![id(&server("files"))]));
    let message =
        format!("the change of {rollout} {first} would not fit any more (there is no Server acme/files)");
    assert_eq!(needed, Err(vec![message]));
    cluster.done(&Command::Apply(vec![agent("more", ""), agent("bot", "")]));

    // Also once it ended nothing is in the way any more.
    let at = cluster.at();
    cluster.done(&Command::EndRollout { at, end: ended(End::Aborted) });
    cluster.done(&Command::Apply(vec![agent("bot", "other")]));
}

#[test]
fn what_was_changed_by_another_way_stops_the_promotion_instead_of_being_overwritten() {
    let mut cluster = Cluster::new();
    cluster.begin(rollout(1, vec![agent("bot", "new")], Vec::new()));
    // No command does this: it stands for a way that nobody thought of.
    let value = RecordValue::Resource(Arc::new(agent("bot", "other")));
    cluster.revision += 1;
    cluster.state.put(gantry_model::record::Record { revision: Revision(cluster.revision), value });
    let at = cluster.at();
    let kinds = cluster.done(&Command::EndRollout { at, end: ended(End::Promoted) });
    assert_eq!((kinds.len(), cluster.description("bot")), (0, Some("other".to_owned())));
    let reason = "the change does not fit what is stored any more: Agent acme/bot was changed at revision 3";
    assert_eq!(cluster.latest(), (0, Some(Ended { reason: reason.to_owned(), ..ended(End::Stopped) })));
}

#[test]
fn a_tenant_takes_its_rollout_along_and_cannot_go_while_one_runs() {
    let mut cluster = Cluster::new();
    cluster.begin(rollout(1, vec![agent("bot", "new")], Vec::new()));
    let all = || {
        let ids = [server("files"), agent("bot", ""), agent("old", "")].map(|resource| id(&resource));
        Command::Delete([ResourceId::of_tenant(&tenant())].into_iter().chain(ids).collect())
    };
    assert!(cluster.apply(&all()).is_err());
    let at = cluster.at();
    cluster.done(&Command::EndRollout { at, end: ended(End::Aborted) });
    cluster.done(&all());
    assert_eq!(cluster.state.rollout(&tenant()), None);
    assert!(cluster.state.tenants_with_rollouts().is_empty());
}

#[test]
fn without_rollouts_the_state_is_what_all_other_nodes_are_served() {
    let mut cluster = Cluster::new();
    cluster.begin(rollout(1, vec![agent("bot", "new")], Vec::new()));
    let mut without = cluster.state.without_rollouts();
    assert_eq!((without.running_rollouts().len(), without.digest()), (0, cluster.state.digest()));
    let applied = without.apply(Revision(9), &Command::Apply(vec![agent("bot", "other")]));
    assert!(matches!(applied.outcome, Outcome::Done(_)));
}

#[test]
fn a_rollout_whose_author_saw_an_older_state_is_refused() {
    let mut cluster = Cluster::new();
    cluster.done(&Command::Apply(vec![agent("bot", "newer")]));
    let begin = |applied| Command::Expecting {
        revision: Revision(1),
        command: Box::new(Command::BeginRollout(Box::new(rollout(1, applied, Vec::new())))),
    };
    let refused = cluster.apply(&begin(vec![agent("old", "new"), agent("bot", "new")]));
    let message = "Agent acme/bot was changed at revision 2, after the expected revision 1";
    assert_eq!(refused, Err(vec![message.to_owned()]));
    cluster.done(&begin(vec![agent("old", "new")]));
}
