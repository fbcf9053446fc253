//! Tenures: since when this node owns keys of which it keeps nothing, and so what may have been spent of them.
//!
//! Always holds: a key that is not kept is taken for untouched only where whoever owned it before said so, or nobody did;
//! otherwise it is as if it had been empty when this node became its owner.

use std::sync::Arc;

use crate::members::Members;
use crate::owner::Beginning;
use crate::standing::Flows;
use crate::{Key, NodeId};

/// Changes of the members that are remembered. A key that was owned for longer is as if it came with the oldest.
const TENURES_MAX: usize = 64;

/// Under which members this node owned what.
pub(crate) struct Tenures {
    /// The latest last.
    list: Vec<Tenure>,
}

struct Tenure {
    members: Arc<Members>,
    /// Time that flowed since.
    flowed: u64,
    is_settled: bool,
    /// Whether what came with it and is not known is untouched.
    is_sound: bool,
}

impl Tenures {
    /// The first.
    pub(crate) fn new(members: Arc<Members>, is_settled: bool, is_sound: bool) -> Tenures {
        Tenures { list: vec![Tenure { members, flowed: 0, is_settled, is_sound }] }
    }

    pub(crate) fn begin(&mut self, members: Arc<Members>, is_sound: bool) {
        if self.list.len() == TENURES_MAX {
            self.list.remove(0);
        }
        self.list.push(Tenure { members, flowed: 0, is_settled: false, is_sound });
    }

    pub(crate) fn advance(&mut self, before: Flows, after: Flows) {
        for tenure in &mut self.list {
            tenure.flowed +=
                if tenure.is_settled { after.stay - before.stay } else { after.fresh - before.fresh };
        }
    }

    pub(crate) fn settle(&mut self) {
        for tenure in &mut self.list {
            tenure.is_settled = true;
        }
    }

    /// Everybody who owned keys before told of them all.
    pub(crate) fn make_sound(&mut self) {
        if let Some(last) = self.list.last_mut() {
            last.is_sound = true;
        }
    }

    /// Whether every key that is not kept is untouched.
    pub(crate) fn are_sound(&self) -> bool {
        self.list.iter().all(|tenure| tenure.is_sound)
    }

    /// How a key of this node begins.
    pub(crate) fn beginning(&self, me: NodeId, key: Key) -> Beginning {
        let mine = self.list.iter().rev().take_while(|tenure| tenure.members.owner(key) == Some(me));
        match mine.last() {
            Some(came) => {
                Beginning { emptied_ago: (!came.is_sound).then_some(came.flowed), is_fresh: !came.is_settled }
            }
            None => Beginning { emptied_ago: Some(0), is_fresh: true },
        }
    }
}
