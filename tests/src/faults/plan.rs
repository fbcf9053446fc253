//! Which fault each round has, by the seed alone.

use std::str::FromStr;
use std::time::Duration;

use super::random::Random;
use super::{NODES, VOTERS};

/// Voters that may have a fault while the others are to go on.
const VOTERS_MAX: usize = (VOTERS - 1) / 2;
/// Nodes that may have one.
const NODES_MAX: usize = NODES / 2;

/// What happens to processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Killed (SIGKILL), and started again.
    Kill,
    /// All voters are killed, and started again.
    Blackout,
    /// Stopped (SIGSTOP), and continued.
    Pause,
    /// Some voters and nodes, and the others, do not hear each other. Clients and servers hear all.
    Partition,
    /// The others do not hear them; they hear the others.
    OneWay,
    /// Their links are taken down, and up again.
    Link,
    /// A node hears no voter until its certificate has ended, and joins anew. Other rounds go on meanwhile.
    Expiry,
    /// Ended in order (SIGTERM) one after the other, and started as the build under test.
    Roll,
}

/// One round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// What happens.
    pub kind: Kind,
    /// To which voters besides the leader, from 0; some of them, if the leader is one.
    pub voters: Vec<usize>,
    /// Whether it happens to the leader.
    pub leader: bool,
    /// To which nodes, from 0.
    pub nodes: Vec<usize>,
    /// For how long.
    pub hold: Duration,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] = [
        Kind::Kill,
        Kind::Blackout,
        Kind::Pause,
        Kind::Partition,
        Kind::OneWay,
        Kind::Link,
        Kind::Expiry,
        Kind::Roll,
    ];
}

/// As many rounds, every kind once in each turn of eight; or all of one kind. The first is that of which the end takes
/// longest.
#[must_use]
pub fn rounds(seed: u64, count: usize, only: Option<Kind>) -> Vec<Round> {
    let mut random = Random(seed);
    let mut kinds = Vec::new();
    while kinds.len() < count {
        let mut turn = Kind::ALL;
        random.shuffle(&mut turn);
        if kinds.is_empty() {
            turn.sort_by_key(|kind| *kind != Kind::Expiry);
        }
        kinds.extend(turn);
    }
    kinds.into_iter().take(count).map(|kind| round(only.unwrap_or(kind), &mut random)).collect()
}

fn round(kind: Kind, random: &mut Random) -> Round {
    let hold = Duration::from_millis(500 + random.below(3_000) as u64);
    let (mut voter_count, mut node_count) = (random.below(VOTERS_MAX + 1), random.below(NODES_MAX + 1));
    match kind {
        Kind::Blackout => voter_count = VOTERS,
        Kind::Expiry => (voter_count, node_count) = (0, 1),
        Kind::Roll => (voter_count, node_count) = (1, 1),
        Kind::Kill | Kind::Pause | Kind::Partition | Kind::OneWay | Kind::Link => {
            // Something has to happen.
            voter_count = if node_count == 0 { voter_count.max(1) } else { voter_count };
        }
    }
    let leader = voter_count > 0 && random.below(2) == 0;
    let (voters, nodes) = (random.some(voter_count, VOTERS), random.some(node_count, NODES));
    Round { kind, voters, leader, nodes, hold }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|kind| format!("{kind:?}") == text);
        named.ok_or_else(|| format!("{text} is none of {:?}", Self::ALL))
    }
}

impl Round {
    /// The voters that it happens to, when `leader` leads.
    #[must_use]
    pub fn victims(&self, leader: usize) -> Vec<usize> {
        let mut voters = self.voters.clone();
        if self.leader && !voters.contains(&leader) {
            voters.pop();
            voters.push(leader);
        }
        voters.sort_unstable();
        voters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_rounds_and_every_turn_has_every_kind() {
        let all = rounds(7, 200, None);
        assert_eq!(all, rounds(7, 200, None));
        assert_ne!(all, rounds(8, 200, None));
        assert_eq!(all[0].kind, Kind::Expiry);
        let only = "Roll".parse().expect("a kind");
        assert!(rounds(7, 20, Some(only)).iter().all(|round| round.kind == Kind::Roll));
        for turn in all.chunks(Kind::ALL.len()) {
            let mut kinds: Vec<_> = turn.iter().map(|round| round.kind).collect();
            kinds.sort_unstable();
            assert_eq!(kinds, Kind::ALL);
        }
    }

    #[test]
    fn a_quorum_of_voters_and_half_of_the_nodes_have_no_fault_but_in_a_blackout() {
        for round in rounds(1, 400, None) {
            let victims = round.victims(3);
            assert!(!round.leader || victims.contains(&3), "{round:?}");
            assert_eq!(victims.len(), round.voters.len(), "{round:?}");
            assert!(round.nodes.len() <= NODES_MAX, "{round:?}");
            assert!(!victims.is_empty() || !round.nodes.is_empty(), "{round:?}");
            match round.kind {
                Kind::Blackout => assert_eq!(victims, [0, 1, 2, 3, 4]),
                _ => assert!(victims.len() <= VOTERS_MAX, "{round:?}"),
            }
        }
    }
}
