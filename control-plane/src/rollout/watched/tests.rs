//! How a stage is seen to go, by what its nodes say.

use std::sync::Arc;

use gantry_model::rollout::{Stage, Thresholds};
use gantry_model::{Labels, Scope, document};
use serde_json::json;

use super::*;
use crate::fleet::{Problem, Seen};

/// The revision at which the stage begins.
const AT: Revision = Revision(10);
/// How long it has to be healthy.
const PAUSE: Duration = Duration::from_secs(60);

fn rollout() -> Rollout {
    let agent = document::parse(json!({"kind": "Agent", "tenant": "acme", "name": "bot"}));
    Rollout {
        tenant: "acme".parse().expect("a name"),
        id: RolloutId([1; 8]),
        applied: vec![agent.expect("a document")],
        deleted: Vec::new(),
        resource_count: 1,
        checked: Revision(1),
        begun: AT,
        stages: vec![Stage::Label("canary".parse().expect("a name")), Stage::Share(99)],
        stage: 0,
        pause_seconds: Some(PAUSE.as_secs()),
        thresholds: Thresholds { rise_percent: 5, calls_min: 50 },
        by: "ann".to_owned(),
        begun_at_ms: 1,
        ended: None,
    }
}

fn node(name: &str, label: &str, acked: Revision) -> NodeView {
    let labels = [label.parse().expect("a name")].into();
    let scope = Scope::Of(Labels { labels, ..Labels::default() });
    NodeView {
        node: name.parse().expect("a name"),
        member: None,
        connected: true,
        acked,
        urgent: acked,
        seen: Seen { scope, ..Seen::default() }.into(),
    }
}

fn counted(mut node: NodeView, calls: u64, rejected: u64) -> NodeView {
    let counts = Calls { calls, rejected, refused: 0 };
    Arc::make_mut(&mut node.seen).calls.insert("acme".parse().expect("a name"), counts);
    node
}

/// The same, where so many were turned away before anybody knew them.
fn refusing(refused: u64, node: NodeView) -> NodeView {
    let mut node = node;
    Arc::make_mut(&mut node.seen).calls.values_mut().for_each(|calls| calls.refused = refused);
    node
}

fn canary(acked: Revision) -> NodeView {
    node("a", "canary", acked)
}

fn other() -> NodeView {
    node("b", "plain", AT)
}

/// A member that watches, and its clock.
struct Member {
    rollouts: Rollouts,
    rollout: Rollout,
    at: Revision,
    now: Instant,
    now_ms: u64,
    saw_begin: bool,
}

impl Member {
    fn new() -> Member {
        let (rollouts, now) = (Rollouts::default(), Instant::now());
        Member { rollouts, rollout: rollout(), at: AT, now, now_ms: 1, saw_begin: true }
    }

    fn look(&self, nodes: &[NodeView]) -> Advice {
        let nodes: Vec<&NodeView> = nodes.iter().collect();
        let (now, now_ms, saw_begin) = (self.now, self.now_ms, self.saw_begin);
        self.rollouts.look((&self.rollout, self.at), Look { nodes: &nodes, now, now_ms, saw_begin })
    }

    fn waits_for(&self) -> String {
        self.watched().waits_for
    }

    fn watched(&self) -> Watched {
        self.rollouts.of(&self.rollout).expect("watched")
    }
}

#[tokio::test]
async fn a_stage_goes_on_once_all_its_nodes_have_had_the_change_for_long_enough() {
    let mut member = Member::new();
    let behind = [canary(Revision(9)), node("c", "canary", AT), other()];
    assert_eq!(member.look(&behind), Advice::Wait);
    member.now += PAUSE * 10;
    assert_eq!(member.look(&behind), Advice::Wait, "one has it not");
    assert_eq!(member.waits_for(), "node a does not have the change yet");
    let all = [canary(AT), node("c", "canary", AT), other()];
    assert_eq!(member.look(&all), Advice::Wait, "the clock begins");
    member.now += PAUSE - Duration::from_millis(1);
    assert_eq!(member.look(&all), Advice::Wait);
    member.now += Duration::from_millis(1);
    assert_eq!(member.look(&all), Advice::GoOn);
    member.rollout.pause_seconds = None;
    assert_eq!(member.look(&all), Advice::Wait, "that is for an admin to say");
}

#[tokio::test]
async fn a_stage_without_a_live_node_never_goes_on_and_a_node_that_vanishes_stops_the_clock() {
    let mut member = Member::new();
    member.look(&[other()]);
    member.now += PAUSE * 10;
    assert_eq!(member.look(&[other()]), Advice::Wait);
    assert_eq!(member.waits_for(), "no connected node is in the stage");

    let both = [canary(AT), node("c", "canary", AT)];
    member.look(&both);
    member.now += PAUSE / 2;
    let gone = [canary(AT), NodeView { connected: false, ..node("c", "canary", AT) }];
    assert_eq!(member.look(&gone), Advice::Wait);
    assert_eq!(member.waits_for(), "node c had the change and is gone; the clock starts anew");
    member.now += PAUSE / 2;
    assert_eq!(member.look(&gone), Advice::Wait);
    member.now += PAUSE;
    assert_eq!(member.look(&gone), Advice::GoOn, "the one that is left was healthy for as long");
}

#[tokio::test]
async fn the_next_stage_has_a_clock_of_its_own() {
    let mut member = Member::new();
    let nodes = [canary(Revision(20)), other()];
    member.look(&nodes);
    member.now += PAUSE;
    assert_eq!(member.look(&nodes), Advice::GoOn);
    (member.rollout.stage, member.at) = (1, Revision(15));
    let later = [canary(Revision(20)), node("b", "plain", Revision(15))];
    assert_eq!(member.look(&later), Advice::Wait);
    member.now += PAUSE;
    assert_eq!(member.look(&later), Advice::GoOn);
}

#[tokio::test]
async fn a_node_that_refuses_the_tenant_stops_it_and_what_it_refused_before_does_not() {
    let refusing = |revision: u64, tenant: &str| {
        let (tenant, resource, message) = (tenant.to_owned(), String::new(), "does not compile".to_owned());
        let mut node = canary(Revision(9));
        let seen = Arc::make_mut(&mut node.seen);
        (seen.refused, seen.problems) = (Revision(revision), vec![Problem { tenant, resource, message }]);
        node
    };
    let member = Member::new();
    assert_eq!(member.look(&[refusing(9, "acme")]), Advice::Wait, "before the change");
    assert_eq!(member.look(&[refusing(10, "birch")]), Advice::Wait, "of another tenant");
    let stop = Advice::Stop("node a refuses the change: does not compile".to_owned());
    assert_eq!(member.look(&[refusing(10, "acme")]), stop);
    // Nothing of it may be told, and the node need not be there any more.
    let stop = Advice::Stop(format!("node a {TAKES_NOTHING}"));
    assert_eq!(member.look(&[refusing(9, "")]), Advice::Wait, "before the change");
    assert_eq!(member.look(&[refusing(10, "")]), stop);
    assert_eq!(member.look(&[NodeView { connected: false, ..refusing(10, "") }]), stop);
    assert_eq!(member.look(&[NodeView { acked: AT, ..refusing(11, "") }]), Advice::Wait, "it has the change");
}

#[tokio::test]
async fn a_rollout_is_taken_back_when_it_was_not_over_in_time() {
    let mut member = Member::new();
    let nodes = [canary(AT), node("c", "canary", Revision(9))];
    member.now_ms = member.rollout.late_at_ms() - 1;
    assert_eq!(member.look(&nodes), Advice::Wait);
    member.now_ms += 1;
    assert_eq!(member.look(&nodes), Advice::Stop("it was not over within 3 days".to_owned()));
    let all = [canary(AT)];
    assert_eq!(member.look(&all), Advice::Stop("it was not over within 3 days".to_owned()));
    member.now += PAUSE;
    assert_eq!(member.look(&all), Advice::GoOn, "it is over");
}

#[tokio::test]
async fn a_rise_against_other_nodes_stops_it_and_one_everywhere_does_not() {
    let member = Member::new();
    let look = |stage: (u64, u64), others: (u64, u64)| {
        member.look(&[counted(canary(AT), stage.0, stage.1), counted(other(), others.0, others.1)])
    };
    assert_eq!(look((1_000, 900), (1_000, 0)), Advice::Wait, "what was before the stage does not count");
    assert_eq!(look((1_049, 949), (1_100, 0)), Advice::Wait, "too few");
    assert_eq!(look((1_200, 1_000), (1_200, 100)), Advice::Wait, "half of both");
    let reason =
        "160 of 260 calls were rejected on nodes with the change, and 100 of 400 of nodes without the change";
    assert_eq!(look((1_260, 1_060), (1_400, 100)), Advice::Stop(reason.to_owned()));
}

#[tokio::test]
async fn without_other_nodes_a_stage_is_compared_with_what_was_before() {
    let member = Member::new();
    let look = |calls, rejected| member.look(&[counted(canary(AT), calls, rejected), other()]);
    assert_eq!(look(1_000, 10), Advice::Wait);
    assert_eq!(look(1_060, 11), Advice::Wait);
    let reason =
        "50 of 110 calls were rejected on nodes with the change, and 10 of 1000 of the same nodes before";
    assert_eq!(look(1_110, 60), Advice::Stop(reason.to_owned()));

    // A process that is started anew counts from nothing, and has the change from its first call on.
    let member = Member::new();
    let look = |calls, rejected| member.look(&[counted(canary(AT), calls, rejected), other()]);
    assert_eq!(look(1_000, 10), Advice::Wait);
    let reason =
        "60 of 100 calls were rejected on nodes with the change, and 10 of 1000 of the same nodes before";
    assert_eq!(look(100, 60), Advice::Stop(reason.to_owned()));
}

#[tokio::test]
async fn a_member_that_came_later_does_not_take_what_it_sees_first_for_what_was_before() {
    let look = |member: &Member, calls, rejected| {
        (member.look(&[counted(canary(AT), calls, rejected), other()]), member.watched().compared_with)
    };
    let came_later = Member { saw_begin: false, ..Member::new() };
    assert_eq!(look(&came_later, 1_000, 900), (Advice::Wait, Compared::Nothing));
    assert_eq!(look(&came_later, 1_100, 1_000), (Advice::Wait, Compared::Nothing));
    // Counts that come late are not from before either.
    let mut member = Member::new();
    member.look(&[canary(AT), other()]);
    member.now += FIRST_COUNTS;
    assert_eq!(look(&member, 1_000, 900), (Advice::Wait, Compared::Nothing));
    // What a node had that comes to its stage later is known to whoever sees it then.
    let mut member = Member { saw_begin: false, ..Member::new() };
    let of_other = |acked, calls, rejected| counted(node("b", "plain", acked), calls, rejected);
    member.look(&[canary(AT), of_other(AT, 900, 0)]);
    member.look(&[canary(AT), of_other(AT, 1_000, 0)]);
    (member.rollout.stage, member.at) = (1, Revision(15));
    member.now += FIRST_COUNTS * 2;
    member.look(&[canary(Revision(15)), of_other(Revision(15), 1_000, 0)]);
    let reason =
        "60 of 60 calls were rejected on nodes with the change, and 0 of 1000 of the same nodes before";
    let nodes = [canary(Revision(15)), of_other(Revision(15), 1_060, 60)];
    assert_eq!(member.look(&nodes), Advice::Stop(reason.to_owned()));
}

#[tokio::test]
async fn callers_whom_nobody_knows_any_more_stop_it_and_those_who_are_unknown_everywhere_hide_nothing() {
    let member = Member::new();
    let nothing = [refusing(900, counted(canary(AT), 100, 0)), refusing(900, counted(other(), 100, 0))];
    let at_first = [refusing(500, counted(canary(AT), 100, 0)), counted(other(), 100, 0)];
    assert_eq!(member.look(&at_first), Advice::Wait);
    // As many everywhere.
    assert_eq!(member.look(&nothing), Advice::Wait);
    // All who called are turned away.
    let reason =
        "60 of 60 calls were rejected on nodes with the change, and 0 of 100 of nodes without the change";
    let locked_out = [refusing(560, counted(canary(AT), 100, 0)), counted(other(), 200, 0)];
    assert_eq!(member.look(&locked_out), Advice::Stop(reason.to_owned()));
    // Strangers are turned away by the thousand on every node, and a few agents, on those with the change.
    let reason =
        "60 of 60 calls were rejected on nodes with the change, and 0 of 60 of nodes without the change";
    let hidden = [refusing(50_500, counted(canary(AT), 160, 60)), refusing(50_000, counted(other(), 160, 0))];
    assert_eq!(member.look(&hidden), Advice::Stop(reason.to_owned()));
}

#[tokio::test]
async fn strangers_have_no_change_taken_back_where_no_other_node_tells_how_many_there_are_anyway() {
    let in_stage = |refused, calls, rejected| refusing(refused, counted(canary(AT), calls, rejected));
    let quiet = |calls| counted(other(), calls, 0);
    // A stage that has all nodes, and one whose other nodes have too few calls.
    for others in [[vec![], vec![]], [vec![quiet(100)], vec![quiet(110)]]] {
        let member = Member::new();
        let [at_first, later] = others;
        let look = |node, others: &[NodeView]| member.look(&[&[node][..], others].concat());
        assert_eq!(look(in_stage(0, 1_000, 0), &at_first), Advice::Wait);
        assert_eq!(look(in_stage(5_000, 1_100, 0), &later), Advice::Wait);
        let watched = member.watched();
        let seen = (watched.calls.calls, watched.calls.rejected, watched.compared_with);
        assert_eq!(seen, (100, 0, Compared::Before));
        // A rise among those who are known counts as before.
        let reason =
            "50 of 150 calls were rejected on nodes with the change, and 0 of 1000 of the same nodes before";
        assert_eq!(look(in_stage(9_000, 1_150, 50), &later), Advice::Stop(reason.to_owned()));
    }
}
