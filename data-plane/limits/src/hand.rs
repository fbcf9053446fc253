//! Hand-over: buckets go to who owns them now.
//!
//! Always holds: what is handed over is gone here before it is sent, and is taken once, however often it comes; a part that
//! does not come costs its tokens, and never makes any. That a key is untouched counts only when every part has come.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::Engine;
use crate::members::Members;
use crate::message::{Ground, Hand, Item};
use crate::owner::parts;
use crate::{Key, Member, NodeId};

/// Parts that wait for the members that they are for: 4 MB of them, about 100,000 keys. More are lost.
const STASHED_MAX: usize = 4_096;

/// Changes of the members after which what waits is lost.
const STASHED_CHANGES_MAX: u8 = 8;

/// What was handed over to this node.
#[derive(Default)]
pub(crate) struct Hands {
    /// The latest of each.
    heard: HashMap<NodeId, Heard>,
    /// What came ahead of the members that it is for, and how many changes ago.
    stashed: Vec<(u8, Member, Hand)>,
    /// The last that this node made.
    number: u32,
    /// Whether this node owned nothing before the present members.
    begins: bool,
    /// Who went when these became the members.
    gone: Vec<Member>,
}

/// A hand-over, as far as it came.
struct Heard {
    from: Member,
    number: u32,
    digest: u64,
    is_leaving: bool,
    ground: Ground,
    /// A bit for each part, set when it came.
    came: Vec<u64>,
    missing: u32,
}

impl Hands {
    /// The members are others now.
    pub(crate) fn change(&mut self, gone: Vec<Member>, begins: bool) {
        (self.gone, self.begins) = (gone, begins);
    }

    /// Whether everything came of what became this node's own with these members.
    fn are_sound(&self, me: Member, members: &Members) -> bool {
        match self.begins {
            true => self.are_whole(me, members),
            // Keys come from nobody else.
            false => self.gone.iter().all(|member| self.has_left(*member, members.digest())),
        }
    }

    /// Whether a process said that it goes, and everything came that it had for these members.
    fn has_left(&self, member: Member, digest: u64) -> bool {
        self.heard.get(&member.node).is_some_and(|heard| {
            heard.from == member
                && heard.is_leaving
                && heard.digest == digest
                && heard.missing == 0
                && heard.ground == Ground::Sound
        })
    }

    /// Whether everybody else told of everything.
    fn are_whole(&self, me: Member, members: &Members) -> bool {
        let mut others = members.list().iter().filter(|member| **member != me);
        others.all(|member| {
            self.heard.get(&member.node).is_some_and(|heard| {
                heard.from == *member
                    && heard.digest == members.digest()
                    && heard.missing == 0
                    && heard.ground != Ground::Unsound
            })
        })
    }

    /// Takes note of a part. `false`: it came before, or is of a hand-over before the latest.
    fn note(&mut self, from: Member, hand: &Hand) -> bool {
        let words = hand.total.div_ceil(64) as usize;
        let is_known = |heard: &Heard| heard.from == from && heard.number >= hand.number;
        if !self.heard.get(&from.node).is_some_and(is_known) {
            let heard = Heard {
                from,
                number: hand.number,
                digest: hand.digest,
                is_leaving: hand.is_leaving,
                ground: hand.ground,
                came: vec![0; words],
                missing: hand.total,
            };
            self.heard.insert(from.node, heard);
        }
        let Some(heard) = self.heard.get_mut(&from.node).filter(|heard| heard.number == hand.number) else {
            return false;
        };
        let Some(word) = heard.came.get_mut(hand.index as usize / 64) else { return false };
        let bit = 1 << (hand.index % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        heard.missing = heard.missing.saturating_sub(is_new.into());
        is_new
    }
}

impl Engine {
    /// Hands keys over that these members say are not its own, and tells all that it did.
    pub(crate) fn hand_over(&mut self, members: &Members, is_leaving: bool, is_first: bool) {
        let me = self.me.node;
        let next = |key: Key| members.owner(key).filter(|owner| *owner != me);
        let mut handed = self.owner.hand_over(self.standing.flows(), self.now, next);
        let ground = match () {
            () if is_first && members.list().len() > 1 => Ground::New,
            () if self.tenures.are_sound() => Ground::Sound,
            () => Ground::Unsound,
        };
        self.hands.number += 1;
        let (digest, number) = (members.digest(), self.hands.number);
        for member in members.list().iter().filter(|member| member.node != me) {
            let parts = parts(handed.remove(&member.node).unwrap_or_default());
            let total = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            for (index, keys) in (0..).zip(parts) {
                let hand = Hand { digest, number, index, total, ground, is_leaving, keys };
                self.out.push((*member, Item::Hand(hand)));
            }
        }
    }

    pub(crate) fn take_hand(&mut self, from: Member, hand: Hand) {
        let members = self.standing.members().clone();
        if hand.is_leaving {
            self.standing.part(from, self.now);
        }
        if hand.digest != members.digest() {
            if self.hands.stashed.len() < STASHED_MAX {
                self.hands.stashed.push((0, from, hand));
            }
            return;
        }
        self.take_part(from, &hand, &members);
    }

    /// Takes what came ahead; what was for members before is lost.
    pub(crate) fn take_stashed(&mut self) {
        let members = self.standing.members().clone();
        for (changes, from, hand) in std::mem::take(&mut self.hands.stashed) {
            if hand.digest == members.digest() {
                self.take_part(from, &hand, &members);
            } else if changes < STASHED_CHANGES_MAX {
                self.hands.stashed.push((changes + 1, from, hand));
            }
        }
        self.make_sound(&members);
    }

    fn take_part(&mut self, from: Member, hand: &Hand, members: &Arc<Members>) {
        if !self.hands.note(from, hand) {
            return;
        }
        let (tenures, me, flows) = (&self.tenures, self.me.node, self.standing.flows());
        for handed in hand.keys.iter().filter(|handed| members.owner(handed.key) == Some(me)) {
            self.owner.take_over(handed, flows, || tenures.beginning(me, handed.key));
        }
        self.make_sound(members);
    }

    fn make_sound(&mut self, members: &Members) {
        if self.hands.are_sound(self.me, members) {
            self.tenures.make_sound();
        }
    }
}
