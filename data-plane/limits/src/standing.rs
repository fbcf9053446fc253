//! Standing: for how much of a limit this node may act, by who stands by it.
//!
//! Each member has one voice, and gives it to every owner anew with each pulse, for [`VOICE_NS`]. An owner's buckets take in
//! the limit's rate times the share of voices that it has: all in good times, some when nodes are cut off. So two nodes
//! that take themselves for the owner of a key share its rate: whoever has other members in mind than the owner gives it no
//! voice, and gives the next owner of a key none before that of the former one has lapsed.
//!
//! Always holds:
//! - voices are counted in shares of the *base*: the members that last agreed, all of them, on who the members are. A share
//!   of less than a half counts half;
//! - a node whose voice an owner may still count takes nothing by itself; one whose voice has lapsed takes half its share
//!   (the *floor*);
//! - so all buckets and floors of a key together take in at most the limit's rate, among nodes of one base.
//!
//! It does not hold through these, and that is the bound then:
//! - a node that the control plane takes for gone, and that lives, goes on with half of its share of its former base, for as
//!   long as it is cut off from the control plane. At most half of a base can be taken for gone before [`FORGET_NS`], so that
//!   all together take in at most one and a half times the rate; but where others agree on a smaller base, and some of these
//!   are taken for gone next, their shares add up to more;
//! - nodes that never heard of each other count each for itself.

use std::collections::HashMap;
use std::sync::Arc;

use crate::members::Members;
use crate::message::{LEFT_MAX, Pulse, Stage};
use crate::{Member, Moment, NodeId};

/// How long a voice counts from when it was asked for. Several pulses, so that a lost one changes nothing; short, because
/// the next owner of a key waits for so long.
pub(crate) const VOICE_NS: u64 = 400_000_000;
/// How often members hear of each other.
pub(crate) const PULSE_NS: u64 = 100_000_000;
/// What who gives a voice adds, for clocks that run at different speeds.
const MARGIN_NS: u64 = VOICE_NS / 64;
/// After how long most of a base may be taken for gone. Shorter is less caution when a network is parted; longer, less
/// of a limit when most nodes have died at once.
const FORGET_NS: u64 = 30_000_000_000;
/// Changes of the members that may follow each other before all agree on one.
const RECENT_MAX: usize = 64;

/// Time that pays buckets, in nanoseconds of the whole rate.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flows {
    /// Of keys that were owned when the base was agreed on, and ever since.
    pub(crate) stay: u64,
    /// Of keys that came since.
    pub(crate) fresh: u64,
}

pub(crate) struct Standing {
    me: Member,
    members: Arc<Members>,
    /// What was agreed on, and what came since; the last is in force.
    recent: Vec<u64>,
    base: Vec<Member>,
    /// By whom this node stood before, and until when others may count its voice as theirs.
    left: Vec<(u64, Moment)>,
    changed_at: Moment,
    peers: HashMap<NodeId, Peer>,
    flows: Flows,
    now: Moment,
}

/// What is known of another member.
struct Peer {
    member: Member,
    /// Its latest stamp.
    stamp: Moment,
    /// The latest stamp of this node that it echoed.
    echoed: Moment,
    digest: u64,
    left: Vec<u64>,
    stage: Stage,
    /// Until when it may count the voice of this node.
    given_until: Moment,
    /// Time that this node has for itself of keys that the peer owns.
    floor: u64,
}

impl Standing {
    /// A node with no others. `is_settled`: it may act at once.
    pub(crate) fn new(me: Member, is_settled: bool, now: Moment) -> Standing {
        let members = Arc::new(Members::new(vec![me]));
        Standing {
            me,
            recent: vec![members.digest()],
            members,
            base: if is_settled { vec![me] } else { Vec::new() },
            left: Vec::new(),
            changed_at: now,
            peers: HashMap::new(),
            flows: Flows::default(),
            now,
        }
    }

    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.members
    }

    pub(crate) fn flows(&self) -> Flows {
        self.flows
    }

    /// The control plane says otherwise who the members are.
    pub(crate) fn change(&mut self, members: Arc<Members>, now: Moment) {
        self.advance(now);
        self.changed_at = now;
        self.left.push((self.members.digest(), now.plus(VOICE_NS + MARGIN_NS)));
        if self.recent.len() == RECENT_MAX {
            self.recent.remove(0);
        }
        self.recent.push(members.digest());
        self.peers.retain(|_, peer| members.has(peer.member));
        for member in members.list().iter().filter(|member| **member != self.me) {
            self.peers.entry(member.node).or_insert_with(|| Peer::new(*member));
        }
        self.members = members;
    }

    /// A member says that it goes.
    pub(crate) fn part(&mut self, member: Member, now: Moment) {
        self.advance(now);
        self.base.retain(|other| *other != member);
    }

    /// Lets time pass. Must be called before anything is asked of it or told to it.
    pub(crate) fn advance(&mut self, now: Moment) {
        if now <= self.now {
            return;
        }
        let (before, base_count) = (self.now, self.base.len().max(1) as u64);
        let own_clean = self.changed_at.plus(VOICE_NS + MARGIN_NS);
        // From when and until when each voice counts.
        let (mut stay, mut fresh) = (Vec::new(), Vec::new());
        let current = self.members.digest();
        for member in &self.base {
            if *member == self.me {
                stay.push((before, now));
                fresh.push((own_clean.max(before), now));
            } else if let Some(peer) = self.peers.get(&member.node).filter(|peer| peer.member == *member) {
                let until = peer.voice_until().min(now);
                // An owner that goes on may count whoever stood by it all the while.
                if self.recent.contains(&peer.digest)
                    && peer.left.iter().all(|left| self.recent.contains(left))
                {
                    stay.push((before, until));
                }
                if peer.digest == current && peer.left.is_empty() {
                    fresh.push((before, until));
                }
            }
        }
        self.flows.stay += share(&stay, base_count);
        self.flows.fresh += share(&fresh, base_count);
        if self.base.contains(&self.me) {
            let share_of = 2 * base_count.max(self.members.list().len() as u64);
            for peer in self.peers.values_mut() {
                let from = peer.given_until.max(own_clean).max(before);
                peer.floor += now.since(from) / share_of;
            }
        }
        self.left.retain(|(_, until)| *until > now);
        self.now = now;
    }

    /// Acts as if everybody stood by it.
    #[cfg(test)]
    pub(crate) fn pretend(&mut self, defect: Option<crate::owner::Defect>) {
        if defect == Some(crate::owner::Defect::NoVoices) {
            self.flows = Flows { stay: self.now.0, fresh: self.now.0 };
        }
    }

    /// Takes a pulse. Returns whether all members agree now for the first time on who they are.
    pub(crate) fn hear(&mut self, from: Member, pulse: &Pulse) -> bool {
        let Some(peer) = self.peers.get_mut(&from.node).filter(|peer| peer.member == from) else {
            return false;
        };
        peer.stamp = peer.stamp.max(pulse.stamp);
        // What it echoes it cannot have heard before this node said it.
        if pulse.echo >= peer.echoed && pulse.echo <= self.now {
            (peer.echoed, peer.digest, peer.stage) = (pulse.echo, pulse.digest, pulse.stage);
            peer.left.clone_from(&pulse.left);
        }
        self.settle()
    }

    /// What a member is to hear. It has the voice of this node by it.
    pub(crate) fn pulse(&mut self, to: NodeId) -> Option<Pulse> {
        let (now, stage, digest) = (self.now, self.stage(), self.members.digest());
        let peer = self.peers.get_mut(&to)?;
        peer.given_until = now.plus(VOICE_NS + MARGIN_NS);
        // More than a pulse has room for: one that nobody stands by says that it is so.
        let too_many = self.left.len() > LEFT_MAX;
        let left = if too_many { vec![0] } else { self.left.iter().map(|(left, _)| *left).collect() };
        Some(Pulse { stamp: now, echo: peer.stamp, digest, left, stage })
    }

    /// Whether all members agree; looks at it again, as nothing has to be heard where there are no others.
    pub(crate) fn settle(&mut self) -> bool {
        let current = self.members.digest();
        // Who begins goes by what the others settle on.
        let begins = self.stage() == Stage::Begins;
        let agrees = |peer: &Peer| {
            peer.digest == current
                && peer.left.is_empty()
                && peer.voice_until() > self.now
                && !(begins && peer.stage == Stage::Unsettled)
        };
        if self.stage() == Stage::Settled || !self.is_clean() || !self.peers.values().all(agrees) {
            return false;
        }
        let stayed = self.base.iter().filter(|member| self.members.has(**member)).count();
        if 2 * stayed < self.base.len() && self.now.since(self.changed_at) < FORGET_NS {
            return false;
        }
        self.base = self.members.list().to_vec();
        self.recent = vec![current];
        true
    }

    /// Time that this node has for itself of keys that another owns, and whether it has some now.
    pub(crate) fn floor(&self, owner: NodeId) -> Option<(u64, bool)> {
        let peer = self.peers.get(&owner)?;
        Some((peer.floor, self.now >= peer.given_until && self.is_clean()))
    }

    fn is_clean(&self) -> bool {
        self.left.is_empty()
    }

    fn stage(&self) -> Stage {
        match () {
            () if self.base.is_empty() => Stage::Begins,
            () if self.recent.len() == 1 && self.base == self.members.list() => Stage::Settled,
            () => Stage::Unsettled,
        }
    }
}

impl Peer {
    fn new(member: Member) -> Peer {
        let (zero, digest) = (Moment(0), 0);
        let (left, stage) = (Vec::new(), Stage::Begins);
        Peer { member, stamp: zero, echoed: zero, digest, left, stage, given_until: zero, floor: 0 }
    }

    fn voice_until(&self) -> Moment {
        // Nothing was echoed.
        if self.echoed == Moment(0) { Moment(0) } else { self.echoed.plus(VOICE_NS) }
    }
}

/// The time that voices pay: each counts from a moment to another.
fn share(voices: &[(Moment, Moment)], base_count: u64) -> u64 {
    let mut edges: Vec<(Moment, bool)> = voices
        .iter()
        .filter(|(from, until)| from < until)
        .flat_map(|(from, until)| [(*from, true), (*until, false)])
        .collect();
    edges.sort_unstable();
    let (mut count, mut paid, mut last) = (0_u64, 0, Moment(0));
    for (at, begins) in edges {
        let parts = if 2 * count > base_count { 2 * count } else { count };
        paid += u64::try_from(u128::from(at.since(last)) * u128::from(parts) / u128::from(2 * base_count))
            .unwrap_or(u64::MAX);
        count = if begins { count + 1 } else { count - 1 };
        last = at;
    }
    paid
}
