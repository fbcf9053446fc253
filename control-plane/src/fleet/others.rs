//! What other members tell of the nodes that follow them.
//!
//! Always holds: a member's latest word replaces what it said before; the word of a member that has fallen silent is
//! kept for as long as its nodes may need to find another, and then forgotten; at most [`MEMBERS_MAX`] members are
//! heard. How far a node is, is as old as the word: it may be further.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use gantry_model::Revision;
use gantry_wire::raft_v1 as wire;
use gantry_wire::sync_v1::Mesh;
use tokio::time::Instant;

use super::acks::Answers;
use super::nodes::NODES_MAX;
use super::told::Seen;
use super::{NodeId, NodeView, Place, SETTLING};

/// Members whose word is kept. A cluster has a handful.
const MEMBERS_MAX: usize = 64;

/// What the others told, by member.
#[derive(Debug, Default)]
pub(super) struct Others(BTreeMap<u64, Told>);

#[derive(Debug)]
struct Told {
    at: Instant,
    nodes: HashMap<NodeId, ToldNode>,
}

/// A node that follows another member.
#[derive(Debug, Clone)]
pub(super) struct ToldNode {
    pub(super) view: NodeView,
    pub(super) place: Option<Place>,
    /// Since when it is known here.
    pub(super) since: Instant,
    /// When it was heard here that it had a revision.
    pub(super) answers: Answers,
}

impl Others {
    /// Takes the word of a member. Says whether the places of its nodes changed.
    pub(super) fn tell(&mut self, member: u64, news: wire::FleetNews, now: Instant) -> bool {
        if self.0.len() >= MEMBERS_MAX && !self.0.contains_key(&member) {
            return false;
        }
        let mut before = self.0.remove(&member).map(|told| told.nodes).unwrap_or_default();
        let mut places_changed = false;
        let mut nodes = HashMap::with_capacity(news.nodes.len().min(NODES_MAX));
        for node in news.nodes.into_iter().take(NODES_MAX) {
            // Another member has refused what cannot be read already.
            let Ok(id) = node.node_id.parse::<NodeId>() else { continue };
            let known = before.remove(&id);
            let node = ToldNode::read((member, &id), &node, known.as_ref(), now);
            places_changed |= known.is_none_or(|known| known.place != node.place);
            nodes.insert(id, node);
        }
        places_changed |= !before.is_empty();
        self.0.insert(member, Told { at: now, nodes });
        places_changed
    }

    /// Forgets members that have been silent for long. Says whether there were any.
    pub(super) fn forget_silent(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|_, told| now.saturating_duration_since(told.at) <= SILENT_KEPT);
        self.0.len() != before
    }

    /// Every node that follows another member, once.
    pub(super) fn nodes(&self) -> BTreeMap<&NodeId, &ToldNode> {
        // Of two members that both have a node, the one that got it last is right.
        let mut nodes: BTreeMap<&NodeId, &ToldNode> = BTreeMap::new();
        for (id, node) in self.0.values().flat_map(|told| &told.nodes) {
            let newer = nodes.get(id).is_none_or(|known| known.since <= node.since);
            if newer {
                nodes.insert(id, node);
            }
        }
        nodes
    }
}

/// As long as a node may take to connect again.
const SILENT_KEPT: Duration = SETTLING;

impl ToldNode {
    fn read(
        (member, id): (u64, &NodeId),
        node: &wire::FleetNode,
        known: Option<&ToldNode>,
        now: Instant,
    ) -> ToldNode {
        let place = node.place.as_ref().and_then(|place| {
            let mesh = Mesh {
                address: place.address.clone(),
                certificate_fingerprint: place.certificate_fingerprint.clone(),
            };
            Place::read(&place.incarnation, &mesh).ok()
        });
        let acked = Revision(node.acked_revision);
        let mut answers = known.map(|known| known.answers.clone()).unwrap_or_default();
        for (acks, told) in
            [(&mut answers.configuration, acked), (&mut answers.urgent, Revision(node.urgent_revision))]
        {
            if acks.newest() < told {
                acks.note(told, now);
            }
        }
        let view = NodeView {
            node: id.clone(),
            member: Some(member),
            connected: true,
            acked,
            urgent: Revision(node.urgent_revision),
            seen: Seen::of_news(node).into(),
        };
        ToldNode { view, place, since: known.map_or(now, |known| known.since), answers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Lane;

    fn news(nodes: &[(&str, u64)]) -> wire::FleetNews {
        let node = |(id, acked): &(&str, u64)| wire::FleetNode {
            node_id: (*id).to_owned(),
            acked_revision: *acked,
            place: Some(wire::Place {
                incarnation: format!("{id}-1"),
                address: "192.0.2.1:7000".to_owned(),
                certificate_fingerprint: vec![7; 32],
            }),
            ..wire::FleetNode::default()
        };
        wire::FleetNews { nodes: nodes.iter().map(node).collect() }
    }

    fn ids(others: &Others) -> Vec<String> {
        others.nodes().keys().map(ToString::to_string).collect()
    }

    #[test]
    fn the_latest_word_of_each_member_counts_until_it_has_been_silent_for_long() {
        let (mut others, start) = (Others::default(), Instant::now());
        assert!(others.tell(2, news(&[("b", 4), ("a", 5)]), start));
        assert!(others.tell(3, news(&[("c", 5)]), start));
        assert_eq!(ids(&others), ["a", "b", "c"]);
        // Only how far they are changes.
        let later = start + Duration::from_secs(1);
        assert!(!others.tell(2, news(&[("b", 5), ("a", 5)]), later));
        let b: NodeId = "b".parse().expect("an id");
        let node = others.nodes()[&b].clone();
        let acked_at = |revision| node.answers.at(Revision(revision), Lane::Configuration);
        assert_eq!((acked_at(4), acked_at(5)), (Some(start), Some(later)));
        assert_eq!((acked_at(6), node.since), (None, start));
        // One left, and a member falls silent.
        assert!(others.tell(2, news(&[("b", 5)]), later));
        assert_eq!(ids(&others), ["b", "c"]);
        assert!(!others.forget_silent(start + SILENT_KEPT));
        assert!(others.forget_silent(later + SILENT_KEPT));
        assert_eq!(ids(&others), ["b"]);
    }

    #[test]
    fn a_node_that_moved_is_there_once_with_whoever_got_it_last() {
        let (mut others, start) = (Others::default(), Instant::now());
        others.tell(3, news(&[("a", 9)]), start);
        others.tell(2, news(&[("a", 7)]), start + Duration::from_secs(1));
        let nodes = others.nodes();
        assert_eq!(nodes.values().map(|node| node.view.acked).collect::<Vec<_>>(), [Revision(7)]);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let (mut others, now) = (Others::default(), Instant::now());
        let mut odd = news(&[("a", 1), ("", 1)]);
        odd.nodes[0].place = Some(wire::Place { address: "nowhere".to_owned(), ..wire::Place::default() });
        others.tell(2, odd, now);
        let places: Vec<_> = others.nodes().values().map(|node| node.place.clone()).collect();
        assert_eq!(places, [None]);
    }
}
