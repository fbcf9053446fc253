//! What the table of nodes promises.

use std::time::Duration;

use gantry_model::{Revision, Scope};
use gantry_node::seal::{NodeSealKey, SealPublicKey};
use tokio::time::Instant;

use super::nodes::NODES_MAX;
use super::told::Seen;
use super::*;

fn arrival(node: &str, seal_key: SealPublicKey) -> Arrival {
    Arrival {
        node: node.parse().expect("an id"),
        build: "1".to_owned(),
        scope: Scope::Everything,
        seal_key,
        place: None,
        address: Some(([192, 0, 2, 1], 7).into()),
        connected_at_ms: 5,
    }
}

fn seal_key() -> SealPublicKey {
    NodeSealKey::generate().expect("a key").public_key()
}

#[test]
fn the_slowest_node_is_one_that_is_behind_or_else_the_one_that_took_longest() -> Result<(), FleetFull> {
    let nodes = Nodes::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let [first, second] = ["first", "second"].map(|id| nodes.enter(arrival(id, seal_key()), at(0)));
    let (first, second) = (first?, second?);
    nodes.acked(&first, Revision(5), 10, true, at(4));
    let id = |ticket: &Ticket| ticket.node.clone();

    let progress = nodes.progress((Revision(5), Lane::Configuration), |_| true, Some(at(1)), at(2));
    let slowest = Some((id(&second), Duration::from_secs(1)));
    assert_eq!(progress, Progress { connected: 2, acked: 1, slowest });

    nodes.acked(&second, Revision(6), 10, true, at(3));
    let progress = nodes.progress((Revision(5), Lane::Configuration), |_| true, Some(at(1)), at(9));
    let slowest = Some((id(&first), Duration::from_secs(3)));
    assert_eq!(progress, Progress { connected: 2, acked: 2, slowest });

    nodes.leave(&first, at(9));
    let progress = nodes.progress((Revision(7), Lane::Configuration), |_| true, Some(at(8)), at(10));
    let slowest = Some((id(&second), Duration::from_secs(2)));
    assert_eq!(progress, Progress { connected: 1, acked: 0, slowest });
    Ok(())
}

#[test]
fn what_is_urgent_is_in_force_with_the_first_of_both_answers() -> Result<(), FleetFull> {
    let nodes = Nodes::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let [busy, quick] = ["busy", "quick"].map(|id| nodes.enter(arrival(id, seal_key()), at(0)));
    let (busy, quick) = (busy?, quick?);
    // One has an update under way and hears of what is urgent; the other has the update first.
    nodes.urgent_acked(&busy, Revision(5), at(2));
    nodes.acked(&quick, Revision(6), 10, true, at(3));
    nodes.urgent_acked(&quick, Revision(5), at(4));
    let standings = |lane, now| {
        let standings = nodes.standings((Revision(5), lane), |_| true, Some(at(1)), now);
        standings.into_iter().map(|node| (node.node.to_string(), node.is_connected, node.has_it, node.took))
    };
    let seconds = Duration::from_secs;
    let urgent = standings(Lane::Urgent, at(9));
    let expected =
        [("busy".to_owned(), true, true, seconds(1)), ("quick".to_owned(), true, true, seconds(2))];
    assert_eq!(urgent.collect::<Vec<_>>(), expected);
    let configured = standings(Lane::Configuration, at(9));
    let expected =
        [("busy".to_owned(), true, false, seconds(8)), ("quick".to_owned(), true, true, seconds(2))];
    assert_eq!(configured.collect::<Vec<_>>(), expected);

    // Whoever goes without a word is named; who takes leave is not.
    nodes.leave(&busy, at(10));
    nodes.takes_leave(&quick);
    nodes.leave(&quick, at(10));
    let lost = standings(Lane::Urgent, at(12)).collect::<Vec<_>>();
    assert_eq!(lost, [("busy".to_owned(), false, false, seconds(2))]);
    Ok(())
}

#[test]
fn a_node_that_connects_again_ends_its_older_session_which_then_changes_nothing() -> Result<(), FleetFull> {
    let nodes = Nodes::default();
    let now = Instant::now();
    let key = seal_key();
    let old = nodes.enter(arrival("a", key), now)?;
    assert!(!old.provisioned);
    nodes.acked(&old, Revision(1), 10, true, now);
    let new = nodes.enter(arrival("a", key), now)?;
    assert!(old.replaced.is_cancelled() && !new.replaced.is_cancelled());
    assert!(new.provisioned);
    nodes.failed(&old, "late");
    nodes.leave(&old, now);
    nodes.records_dropped(&new, 3);
    let expected = NodeView {
        node: "a".parse().expect("an id"),
        member: None,
        connected: true,
        acked: Revision(1),
        urgent: Revision::NONE,
        seen: Seen {
            build: "1".to_owned(),
            scope: Scope::Everything,
            address: "192.0.2.1:7".to_owned(),
            connected_at_ms: 5,
            apply_us: 10,
            records_dropped: 3,
            ..Seen::default()
        }
        .into(),
    };
    assert_eq!(nodes.list(now), vec![expected]);
    let restarted = nodes.enter(arrival("a", seal_key()), now)?;
    assert!(!restarted.provisioned, "another process has none of the secrets");
    Ok(())
}

#[test]
fn an_error_stays_until_the_next_acknowledgement() -> Result<(), FleetFull> {
    let nodes = Nodes::default();
    let now = Instant::now();
    let ticket = nodes.enter(arrival("a", seal_key()), now)?;
    let problem = |tenant: &str| Problem {
        tenant: tenant.to_owned(),
        resource: String::new(),
        message: "bad".to_owned(),
    };
    let shown = |nodes: &Nodes| {
        let seen = nodes.list(now).remove(0).seen;
        (seen.last_error.clone(), seen.refused, seen.problems.clone())
    };
    nodes.failed(&ticket, "wrong");
    nodes.refused(&ticket, Revision(1), vec![problem("acme"), problem("globex")]);
    let problems = vec![problem("acme"), problem("globex")];
    assert_eq!(shown(&nodes), ("wrong".to_owned(), Revision(1), problems.clone()));
    // Another member is told the same.
    let other = Nodes::default();
    other.told(2, nodes.news(), now);
    assert_eq!(shown(&other), ("wrong".to_owned(), Revision(1), problems));
    assert_eq!(other.list(now)[0].member, Some(2));
    nodes.refused(&ticket, Revision(2), vec![problem("x"); 1_000]);
    assert_eq!(shown(&nodes).2.len(), 64);
    nodes.acked(&ticket, Revision(2), 10, false, now);
    assert_eq!(shown(&nodes), (String::new(), Revision::NONE, Vec::new()));
    assert!(!nodes.enter(arrival("a", seal_key()), now)?.provisioned);
    Ok(())
}

#[test]
fn a_node_that_takes_no_snapshot_either_is_told_of_and_one_that_a_snapshot_helps_is_not()
-> Result<(), FleetFull> {
    let nodes = Nodes::default();
    let now = Instant::now();
    let ticket = nodes.enter(arrival("a", seal_key()), now)?;
    let shown = |nodes: &Nodes| {
        let seen = nodes.list(now).remove(0).seen;
        (seen.refused, seen.problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>())
    };
    nodes.refused_whole(&ticket, Revision(1), "a delta");
    nodes.acked(&ticket, Revision(1), 10, true, now);
    nodes.refused_whole(&ticket, Revision(2), "another delta");
    assert_eq!(shown(&nodes), (Revision::NONE, vec![]));
    nodes.refused_whole(&ticket, Revision(3), "a snapshot");
    // Also by another session: it was sent away meanwhile.
    nodes.leave(&ticket, now);
    let ticket = nodes.enter(arrival("a", seal_key()), now)?;
    nodes.refused_whole(&ticket, Revision(4), "another snapshot");
    assert_eq!(shown(&nodes), (Revision(4), vec!["another snapshot".to_owned()]));
    let other = Nodes::default();
    other.told(2, nodes.news(), now);
    assert_eq!(shown(&other), (Revision(4), vec!["another snapshot".to_owned()]));
    nodes.acked(&ticket, Revision(4), 10, true, now);
    assert_eq!(shown(&nodes), (Revision::NONE, vec![]));
    Ok(())
}

#[test]
fn a_node_that_left_is_forgotten_after_an_hour_and_earlier_when_there_is_no_room() -> Result<(), FleetFull> {
    let nodes = Nodes::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let key = seal_key();
    let gone = nodes.enter(arrival("gone", key), at(0))?;
    nodes.leave(&gone, at(1));
    assert_eq!(nodes.list(at(3601)).len(), 1);
    assert_eq!(nodes.list(at(3602)).len(), 0);

    let gone = nodes.enter(arrival("gone", key), at(0))?;
    nodes.leave(&gone, at(1));
    for index in 0..NODES_MAX {
        nodes.enter(arrival(&format!("n{index}"), key), at(2))?;
    }
    assert_eq!(nodes.enter(arrival("one-more", key), at(2)).err(), Some(FleetFull));
    assert!(nodes.enter(arrival("n0", key), at(2)).is_ok());
    Ok(())
}

#[test]
fn an_id_is_short_and_visible() {
    assert!("node-1.example".parse::<NodeId>().is_ok());
    for text in ["", "a b", "é", &"x".repeat(129)] {
        assert_eq!(text.parse::<NodeId>(), Err(NodeIdError), "{text}");
    }
}
