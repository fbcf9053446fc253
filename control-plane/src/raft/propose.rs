//! Proposing a command from any member: here when this one leads, by the leader otherwise, again when that is safe.
//!
//! Always holds: a command has one origin however often it is tried, so it is applied at most once; `Unknown` is
//! answered where it may have been proposed and no answer came, every other error where it never was. A leader that
//! has not heard from a quorum for an election's time proposes nothing.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_control_state::{Command, Origin, Outcome, Proposal};
use gantry_model::Revision;
use gantry_wire::raft_v1 as wire;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::batcher::Proposed;
use super::queue::Waiting;
use super::{
    COMMAND_BYTES_MAX, Committed, Consensus, ELECTION_MS_MAX, PROPOSE_DEADLINE, ProposeError, VoterId,
};

/// How long it is waited for news of a leader before the one that is known is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long a leader may go on without a word from a quorum: the others may have another by then.
const QUORUM_SILENCE_MAX: Duration = Duration::from_millis(ELECTION_MS_MAX);

/// How long a member that is behind the leader may take to have what it proposed itself.
const APPLY_WAIT: Duration = Duration::from_secs(2);

/// This process as a proposer: its name and the commands that it waits for.
#[derive(Debug)]
pub(super) struct Proposer {
    id: [u8; 16],
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    next: u64,
    sequences: BTreeSet<u64>,
}

/// A command that is waited for; not any more when this is dropped.
struct Ticket<'a> {
    proposer: &'a Proposer,
    sequence: u64,
}

/// What became of one try.
#[derive(Debug)]
pub(super) enum Tried {
    Answered(Committed),
    /// It was not proposed, and may be elsewhere or later.
    NotHere(Option<ProposeError>),
    /// It may have been.
    Unknown(String),
    /// It was not proposed, and trying again does not help.
    Refused(ProposeError),
}

impl Proposer {
    pub(super) fn new(id: [u8; 16]) -> Self {
        Self { id, open: Mutex::new(Open { next: 1, sequences: BTreeSet::new() }) }
    }

    fn begin(&self) -> Ticket<'_> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = open.next;
        open.next += 1;
        open.sequences.insert(sequence);
        Ticket { proposer: self, sequence }
    }
}

impl Ticket<'_> {
    fn origin(&self, again: bool) -> Origin {
        let open = self.proposer.open.lock().unwrap_or_else(PoisonError::into_inner);
        let answered_below = open.sequences.first().copied().unwrap_or(self.sequence);
        Origin { proposer: self.proposer.id, sequence: self.sequence, answered_below, again }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut open = self.proposer.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.sequences.remove(&self.sequence);
    }
}

impl Consensus {
    /// Proposes a command, on whichever member leads, and waits until it is applied, at most [`PROPOSE_DEADLINE`].
    /// This member has then applied it too, unless it is far behind. Dropping the future leaves it unknown whether it will
    /// be applied.
    pub async fn propose(&self, command: Command) -> Result<Committed, ProposeError> {
        let ticket = self.inner.proposer.begin();
        let mut proposal = Proposal { origin: None, command };
        let deadline = Instant::now() + PROPOSE_DEADLINE;
        let mut metrics = self.inner.raft.server_metrics();
        let (mut again, mut unknown, mut refused) = (false, None, ProposeError::NoLeader);
        loop {
            metrics.borrow_and_update();
            proposal.origin = Some(ticket.origin(again));
            let command = Bytes::from(proposal.encode());
            if command.len() > COMMAND_BYTES_MAX {
                return Err(ProposeError::TooLarge { bytes: command.len() });
            }
            match self.propose_once(command, deadline).await {
                Tried::Answered(committed) => {
                    self.await_applied(committed.revision).await;
                    return Ok(committed);
                }
                Tried::NotHere(error) => refused = error.unwrap_or(refused),
                Tried::Unknown(reason) => (again, unknown) = (true, Some(reason)),
                Tried::Refused(error) if !again => return Err(error),
                Tried::Refused(_) => {}
            }
            if self.inner.stop.is_cancelled() || Instant::now() + RETRY_INTERVAL >= deadline {
                return Err(unknown.map_or(refused, |reason| ProposeError::Unknown { reason }));
            }
            // Whatever comes first: news of a leader, or the time to ask the known one again.
            if let Ok(Err(_)) = tokio::time::timeout(RETRY_INTERVAL, metrics.changed()).await {
                // There will be no news: consensus has ended here.
                return Err(
                    unknown.map_or(ProposeError::ShuttingDown, |reason| ProposeError::Unknown { reason })
                );
            }
        }
    }

    async fn propose_once(&self, command: Bytes, deadline: Instant) -> Tried {
        let Some((leader, _)) = self.leader() else { return Tried::NotHere(None) };
        if leader == self.inner.voter {
            return match self.enter(command) {
                Ok(answer) => committed(answer, deadline).await,
                Err(tried) => tried,
            };
        }
        match enqueue(&self.inner.forwards, command) {
            Ok(answer) => match timeout_at(deadline, answer).await {
                Ok(tried) => tried.unwrap_or_else(|_| lost()),
                Err(_) => late(),
            },
            Err(tried) => tried,
        }
    }

    /// Puts a command into the queue of this leader.
    fn enter(&self, command: Bytes) -> Result<oneshot::Receiver<Proposed>, Tried> {
        if !self.has_quorum() || self.is_handing_over() {
            return Err(Tried::NotHere(Some(ProposeError::NoQuorum)));
        }
        enqueue(&self.inner.proposals, command)
    }

    /// Proposes for another member: all of its commands, in their order.
    pub(super) async fn propose_for(&self, propose: wire::Propose) -> wire::ProposeReply {
        let leads = self.leader().is_some_and(|(leader, _)| leader == self.inner.voter);
        if !leads {
            let not_leader = || wire::propose_reply::Outcome::NotLeader(self.not_leader());
            return reply(std::iter::repeat_with(not_leader).take(1 + propose.more.len()));
        }
        let deadline = Instant::now() + PROPOSE_DEADLINE;
        let commands = std::iter::once(propose.command).chain(propose.more);
        let entered: Vec<_> = commands.map(|command| self.enter(command)).collect();
        let mut outcomes = Vec::with_capacity(entered.len());
        for entered in entered {
            let tried = match entered {
                Ok(answer) => committed(answer, deadline).await,
                Err(tried) => tried,
            };
            outcomes.push(outcome(tried));
        }
        reply(outcomes)
    }

    /// Whether this member, as the leader, has heard from a quorum of voters lately, or is the only one.
    fn has_quorum(&self) -> bool {
        self.since_quorum().is_some_and(|since| since <= QUORUM_SILENCE_MAX)
    }

    /// How long this member has led several voters without a word from a quorum, once that is too long for it to be
    /// their leader still.
    pub(super) fn quorum_silent(&self) -> Option<Duration> {
        self.since_quorum().filter(|since| *since > QUORUM_SILENCE_MAX)
    }

    /// How long ago a quorum answered this leader; `None`: this member does not lead, or none has answered yet.
    fn since_quorum(&self) -> Option<Duration> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.membership_config.membership().voter_ids().count() <= 1 {
            return Some(Duration::ZERO);
        }
        metrics.millis_since_quorum_ack.map(Duration::from_millis)
    }

    /// Waits, for a while, until this member has applied a revision: whoever asked it then finds here what it wrote.
    async fn await_applied(&self, revision: Revision) {
        if tokio::time::timeout(APPLY_WAIT, self.applied(revision)).await.is_err() {
            tracing::debug!(%revision, "this member has not applied yet what it proposed");
        }
    }

    pub(super) fn not_leader(&self) -> wire::NotLeader {
        let (leader, address) = self.leader().unzip();
        wire::NotLeader { leader: leader.unwrap_or(VoterId(0)).0, address: address.unwrap_or_default() }
    }
}

/// Lets a command wait, unless too many do.
fn enqueue<Answer>(
    queue: &mpsc::Sender<Waiting<Answer>>,
    command: Bytes,
) -> Result<oneshot::Receiver<Answer>, Tried> {
    let (reply, answer) = oneshot::channel();
    match queue.try_send(Waiting { command, reply }) {
        Ok(()) => Ok(answer),
        Err(mpsc::error::TrySendError::Full(_)) => Err(Tried::Refused(ProposeError::Overloaded)),
        Err(mpsc::error::TrySendError::Closed(_)) => Err(Tried::Refused(ProposeError::ShuttingDown)),
    }
}

/// What becomes of a command in this leader's queue.
async fn committed(answer: oneshot::Receiver<Proposed>, deadline: Instant) -> Tried {
    match timeout_at(deadline, answer).await {
        Ok(Ok(Ok(committed))) => Tried::Answered(committed),
        Ok(Ok(Err(ProposeError::Unknown { reason }))) => Tried::Unknown(reason),
        Ok(Ok(Err(error))) => Tried::Refused(error),
        Ok(Err(_)) => lost(),
        Err(_) => late(),
    }
}

fn lost() -> Tried {
    Tried::Unknown("the answer was lost".to_owned())
}

fn late() -> Tried {
    Tried::Unknown(format!("no answer within {} seconds", PROPOSE_DEADLINE.as_secs()))
}

fn outcome(tried: Tried) -> wire::propose_reply::Outcome {
    use wire::propose_reply::Outcome as To;
    let turned = |turned: wire::Turned| To::TurnedAway(turned.into());
    match tried {
        Tried::Answered(committed) => To::Committed(wire::Committed {
            revision: committed.revision.0,
            outcome: Some((&committed.outcome).into()),
        }),
        Tried::NotHere(_) => turned(wire::Turned::NoQuorum),
        Tried::Unknown(reason) => To::Unknown(reason),
        Tried::Refused(ProposeError::Overloaded) => turned(wire::Turned::Overloaded),
        Tried::Refused(_) => turned(wire::Turned::ShuttingDown),
    }
}

/// The first outcome, with the others behind it.
fn reply(outcomes: impl IntoIterator<Item = wire::propose_reply::Outcome>) -> wire::ProposeReply {
    let of = |outcome| wire::ProposeReply { outcome: Some(outcome), more: Vec::new() };
    let mut replies = outcomes.into_iter().map(of);
    let first = replies.next().unwrap_or_default();
    wire::ProposeReply { more: replies.collect(), ..first }
}

pub(super) fn read_reply(outcome: Option<wire::propose_reply::Outcome>) -> Tried {
    use wire::propose_reply::Outcome as From;
    let unfit = || Tried::Unknown("this build does not know the leader's reply".to_owned());
    match outcome {
        Some(From::Committed(committed)) => match committed.outcome.and_then(Outcome::from_message) {
            Some(outcome) => Tried::Answered(Committed { revision: Revision(committed.revision), outcome }),
            None => unfit(),
        },
        Some(From::NotLeader(_)) => Tried::NotHere(None),
        Some(From::Unknown(reason)) => Tried::Unknown(reason),
        Some(From::TurnedAway(turned)) => match wire::Turned::try_from(turned) {
            Ok(wire::Turned::Overloaded) => Tried::Refused(ProposeError::Overloaded),
            Ok(wire::Turned::NoQuorum) => Tried::NotHere(Some(ProposeError::NoQuorum)),
            // Another will lead.
            Ok(wire::Turned::ShuttingDown) => Tried::NotHere(None),
            Ok(wire::Turned::Unspecified) | Err(_) => unfit(),
        },
        None => unfit(),
    }
}
