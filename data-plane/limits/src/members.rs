//! The members, and which of them owns a key.
//!
//! Always holds: every build computes the same digest and the same owner from the same members; when one goes, only its
//! keys move.

use crate::{Key, Member, NodeId, mix};

/// Members, this node included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// By node; each node once.
    list: Vec<Member>,
    digest: u64,
}

impl Members {
    /// Of a node named twice, the first counts.
    pub fn new(mut list: Vec<Member>) -> Members {
        list.sort_by_key(|member| member.node);
        list.dedup_by_key(|member| member.node);
        let add = |digest: u64, member: &Member| {
            mix(mix(digest ^ member.node.0).wrapping_add(member.incarnation)).wrapping_add(1)
        };
        let digest = list.iter().fold(0, add);
        Members { list, digest }
    }

    /// Says which members these are.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// By node.
    pub fn list(&self) -> &[Member] {
        &self.list
    }

    /// Whether this very process is one.
    pub fn has(&self, member: Member) -> bool {
        self.of(member.node) == Some(member)
    }

    /// The process of a node.
    pub fn of(&self, node: NodeId) -> Option<Member> {
        let place = self.list.binary_search_by_key(&node, |member| member.node).ok()?;
        self.list.get(place).copied()
    }

    /// These without one.
    #[must_use]
    pub fn without(&self, node: NodeId) -> Members {
        Members::new(self.list.iter().copied().filter(|member| member.node != node).collect())
    }

    /// Who owns a key; `None` when there are no members.
    pub fn owner(&self, key: Key) -> Option<NodeId> {
        let (low, high) = key.halves();
        let weight = |node: NodeId| mix(low ^ mix(high ^ node.0));
        self.list.iter().map(|member| (weight(member.node), member.node)).max().map(|(_, node)| node)
    }
}
