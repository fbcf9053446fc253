//! What must hold while processes die and links are cut, judged by what clients were told. Pure: no clock, no network.
//!
//! Always holds: a write that failed is unknown: it may be there, may not, and may still come, once. The tests below show
//! each check what it must refuse.

use std::collections::{BTreeMap, BTreeSet};

/// What must not have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An acknowledged write is not there, or one that it replaced came back.
    #[error(
        "{register} has {seen:?}, the latest acknowledged is {acknowledged:?}, and may have one of {open:?}"
    )]
    Lost {
        /// What was written.
        register: String,
        /// What a reader saw.
        seen: Option<u64>,
        /// What it must have at least.
        acknowledged: Option<u64>,
        /// Writes that nobody knows about.
        open: Vec<u64>,
    },
    /// Something that was made once, and acknowledged, is not there.
    #[error("{0} was acknowledged, and is gone")]
    Gone(String),
    /// A call was answered as of an earlier revision than one that was known before it was made.
    #[error("{what} answered with revision {seen}, and {before} was known before it was asked")]
    WentBack {
        /// Who answered what.
        what: String,
        /// What it said.
        seen: u64,
        /// What was known.
        before: u64,
    },
    /// Two members led in one term.
    #[error("members {0} and {1} both led in term {2}")]
    TwoLeaders(u64, u64, u64),
    /// A call failed that had a live node to go to.
    #[error("a call at {node}, which was {state:?} all the time, failed: {why}")]
    Failed {
        /// Where.
        node: String,
        /// How the node was.
        state: State,
        /// What the caller saw.
        why: String,
    },
    /// A change that is as it should be was refused.
    #[error("a write at {0} was refused: {1}")]
    Refused(String, String),
    /// Something did not become as it should in time.
    #[error("{0}")]
    Late(String),
}

/// Something that one writer writes, one number after the other, each larger than those before.
#[derive(Debug, Clone, Default)]
pub struct Register {
    current: Option<u64>,
    /// Not known to be there, nor to be replaced.
    open: BTreeSet<u64>,
}

impl Register {
    /// A write is sent.
    pub fn begin(&mut self, value: u64) {
        self.open.insert(value);
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self, value: u64) {
        self.open.remove(&value);
        self.current = Some(value);
    }

    /// It was refused: it never comes.
    pub fn refused(&mut self, value: u64) {
        self.open.remove(&value);
    }

    /// A reader saw a value, as of a moment after all writes that have been acknowledged.
    ///
    /// # Errors
    /// When an acknowledged write is not there.
    pub fn observe(&mut self, name: &str, seen: Option<u64>) -> Result<(), Violation> {
        if seen == self.current {
            return Ok(());
        }
        if let Some(value) = seen.filter(|value| self.open.remove(value)) {
            // It came late, once: what it replaced is gone, and it does not come again.
            self.current = Some(value);
            return Ok(());
        }
        let open = self.open.iter().copied().collect();
        Err(Violation::Lost { register: name.to_owned(), seen, acknowledged: self.current, open })
    }
}

/// The newest of what was seen, such as a revision: nobody who asks afterwards is told an older one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Newest(u64);

impl Newest {
    /// What is known; taken before a question is asked.
    #[must_use]
    pub fn known(self) -> u64 {
        self.0
    }

    /// `what` was asked when `before` was known, and answered with `seen`.
    ///
    /// # Errors
    /// When that is older.
    pub fn observe(&mut self, what: &str, before: u64, seen: u64) -> Result<(), Violation> {
        self.0 = self.0.max(seen);
        match seen < before {
            true => Err(Violation::WentBack { what: what.to_owned(), seen, before }),
            false => Ok(()),
        }
    }
}

/// Who led in which term.
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<u64, u64>);

impl Leaders {
    /// A member says of itself that it leads.
    ///
    /// # Errors
    /// When another one said so of the same term.
    pub fn observe(&mut self, term: u64, member: u64) -> Result<(), Violation> {
        match *self.0.entry(term).or_insert(member) {
            first if first == member => Ok(()),
            first => Err(Violation::TwoLeaders(first, member, term)),
        }
    }

    /// In how many terms somebody led.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.0.len()
    }
}

/// What was made once and acknowledged.
#[derive(Debug, Default)]
pub struct Made(BTreeSet<String>);

impl Made {
    /// It was acknowledged.
    pub fn acknowledged(&mut self, name: String) {
        self.0.insert(name);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A reader saw all that there is.
    ///
    /// # Errors
    /// When one is not there.
    pub fn observe(&self, there: &BTreeSet<String>) -> Result<(), Violation> {
        match self.0.difference(there).next() {
            None => Ok(()),
            Some(gone) => Err(Violation::Gone(gone.clone())),
        }
    }
}

/// How a node is to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It takes connections and answers. That no control plane reaches it does not change that.
    Live,
    /// It was told to end, or is being started: it may refuse connections, and answers what it has accepted.
    Leaving,
    /// It was killed, stopped or cut off from clients: nothing is expected of it.
    Faulty,
}

/// How a node is and how often it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    state: State,
    changes: u64,
    faults: u64,
}

/// How an attempt at one node ended that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// No connection was made; another node may be tried.
    NotConnected(String),
    /// The request was sent, or may have been: to try another node could make it happen twice.
    Broken(String),
}

impl Default for Life {
    fn default() -> Self {
        Self { state: State::Leaving, changes: 0, faults: 0 }
    }
}

impl Life {
    /// It is to be judged otherwise from now on; said before a fault begins, and after it has ended.
    pub fn becomes(&mut self, state: State) {
        self.changes += 1;
        self.faults += u64::from(state == State::Faulty);
        self.state = state;
    }

    /// How it is.
    #[must_use]
    pub fn state(self) -> State {
        self.state
    }

    /// Judges an attempt that began when the node was `self` and failed when it is `end`.
    ///
    /// # Errors
    /// When the node was live all the time; or was not faulty for a moment, and the request was sent.
    pub fn judge(self, node: &str, attempt: &Attempt, end: Life) -> Result<(), Violation> {
        let (why, is_excused) = match attempt {
            Attempt::NotConnected(why) => (why, self.state != State::Live || self.changes != end.changes),
            Attempt::Broken(why) => (why, self.state == State::Faulty || self.faults != end.faults),
        };
        match is_excused {
            true => Ok(()),
            false => Err(Violation::Failed { node: node.to_owned(), state: self.state, why: why.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(seen: Option<u64>, acknowledged: Option<u64>, open: &[u64]) -> Result<(), Violation> {
        let register = "r".to_owned();
        Err(Violation::Lost { register, seen, acknowledged, open: open.to_vec() })
    }

    #[test]
    fn an_acknowledged_write_that_is_not_there_is_lost() {
        let mut register = Register::default();
        assert_eq!(register.observe("r", None), Ok(()));
        register.begin(1);
        register.acknowledged(1);
        assert_eq!(register.observe("r", None), lost(None, Some(1), &[]));
        register.begin(2);
        register.acknowledged(2);
        assert_eq!(register.observe("r", Some(1)), lost(Some(1), Some(2), &[]));
        assert_eq!(register.observe("r", Some(2)), Ok(()));
        assert_eq!(register.observe("r", Some(9)), lost(Some(9), Some(2), &[]));
    }

    #[test]
    fn a_write_without_an_answer_may_come_or_not_and_comes_once() {
        let mut register = Register::default();
        register.begin(1);
        register.acknowledged(1);
        register.begin(2);
        assert_eq!(register.observe("r", Some(1)), Ok(()));
        register.begin(3);
        register.acknowledged(3);
        assert_eq!(register.observe("r", Some(3)), Ok(()));
        assert_eq!(register.observe("r", Some(2)), Ok(()), "it came late");
        assert_eq!(register.observe("r", Some(3)), lost(Some(3), Some(2), &[]), "nobody wrote it again");
        register.begin(4);
        register.acknowledged(4);
        assert_eq!(register.observe("r", Some(2)), lost(Some(2), Some(4), &[]), "it came a second time");
    }

    #[test]
    fn a_refused_write_never_comes() {
        let mut register = Register::default();
        register.begin(1);
        register.refused(1);
        assert_eq!(register.observe("r", Some(1)), lost(Some(1), None, &[]));
    }

    #[test]
    fn what_was_made_once_stays() {
        let mut made = Made::default();
        made.acknowledged("a".to_owned());
        made.acknowledged("b".to_owned());
        let there = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(made.observe(&there(&["a", "b", "c"])), Ok(()));
        assert_eq!(made.observe(&there(&["a", "c"])), Err(Violation::Gone("b".to_owned())));
    }

    #[test]
    fn a_revision_older_than_one_that_was_known_before_went_back() {
        let mut newest = Newest::default();
        assert_eq!(newest.observe("a", newest.known(), 5), Ok(()));
        let before = newest.known();
        assert_eq!(newest.observe("b", before, 7), Ok(()));
        // Asked before 7 was known.
        assert_eq!(newest.observe("c", before, 5), Ok(()));
        let went_back = Violation::WentBack { what: "d".to_owned(), seen: 6, before: 7 };
        assert_eq!(newest.observe("d", newest.known(), 6), Err(went_back));
    }

    #[test]
    fn a_term_has_one_leader() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.observe(1, 1), Ok(()));
        assert_eq!(leaders.observe(1, 1), Ok(()));
        assert_eq!(leaders.observe(2, 3), Ok(()));
        assert_eq!(leaders.observe(1, 2), Err(Violation::TwoLeaders(1, 2, 1)));
        assert_eq!(leaders.terms(), 2);
    }

    #[test]
    fn a_failed_call_is_excused_by_a_fault_of_its_node_only() {
        let failed = |state| Err(Violation::Failed { node: "n".to_owned(), state, why: "x".to_owned() });
        let (refused, broken) = (Attempt::NotConnected("x".to_owned()), Attempt::Broken("x".to_owned()));
        let mut life = Life::default();
        life.becomes(State::Live);
        let live = life;
        for attempt in [&refused, &broken] {
            assert_eq!(live.judge("n", attempt, live), failed(State::Live));
        }
        life.becomes(State::Leaving);
        let leaving = life;
        assert_eq!(live.judge("n", &refused, leaving), Ok(()));
        assert_eq!(leaving.judge("n", &refused, leaving), Ok(()));
        assert_eq!(live.judge("n", &broken, leaving), failed(State::Live), "it answers what it accepted");
        assert_eq!(leaving.judge("n", &broken, leaving), failed(State::Leaving));
        life.becomes(State::Live);
        life.becomes(State::Faulty);
        let faulty = life;
        life.becomes(State::Live);
        let healed = life;
        for (begin, end) in [(live, faulty), (faulty, faulty), (faulty, healed), (live, healed)] {
            assert_eq!(begin.judge("n", &refused, end), Ok(()));
            assert_eq!(begin.judge("n", &broken, end), Ok(()));
        }
        assert_eq!(healed.judge("n", &broken, healed), failed(State::Live));
    }
}
