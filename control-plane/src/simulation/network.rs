//! The network between simulated members: messages come late, twice, in another order, or not at all.
//!
//! What always holds: a question that was sent crosses by itself, whatever becomes of the one who asked; a member that
//! is down answers nothing; what a link does to a message is decided by the seed when the message is sent, and a
//! message on its way is lost when the link is cut before it arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gantry_wire::raft_v1::{CheckpointHead, CheckpointReply, Question, Reply, question};
use tokio::sync::oneshot;

use super::executor::{self, Owner, WORLD};
use super::random::Random;
use super::record::Record;
use crate::raft::{Answering, Consensus, Peer, PeerError, Peers, VoterId};
use crate::store::simulated::Disk;

/// How long a message takes, in microseconds.
const CALM_MICROS: (u64, u64) = (100, 2_000);
/// How soon a connection is known to be broken over which nothing comes any more: it is probed, as `peer::client` says.
const PROBED_WITHIN: Duration = Duration::from_secs(3);
/// A checkpoint takes so many times as long.
const CHECKPOINT_FACTOR: u32 = 50;
/// How long a duplicate may come behind, at most.
const DUPLICATE_MICROS_MAX: u64 = 5_000_000;

/// A member that is up.
#[derive(Clone)]
pub(crate) struct Up {
    pub(crate) owner: Owner,
    pub(crate) consensus: Consensus,
    pub(crate) disk: Arc<Disk>,
}

/// How messages fare.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// Of a thousand messages so many are lost.
    pub(crate) lost: u64,
    /// Of a thousand questions so many arrive twice.
    pub(crate) doubled: u64,
    /// How long one takes, in microseconds.
    pub(crate) micros: (u64, u64),
    /// Of a thousand replies to `Propose` so many are lost.
    pub(crate) proposal_replies_lost: u64,
}

impl Weather {
    pub(crate) fn calm() -> Self {
        Self { lost: 0, doubled: 0, micros: CALM_MICROS, proposal_replies_lost: 0 }
    }
}

pub(crate) struct Network {
    pub(crate) record: Arc<Record>,
    inner: Mutex<Inner>,
}

struct Inner {
    random: Random,
    up: BTreeMap<VoterId, Up>,
    cut: BTreeSet<(VoterId, VoterId)>,
    weather: Weather,
    leaders: BTreeMap<(u64, u64), Owner>,
}

/// What happens to a message.
enum Fate {
    Arrives(Duration),
    /// Nobody hears of it; whoever waits is told after this time, or not at all.
    Lost(Option<Duration>),
}

impl Network {
    pub(crate) fn new(record: Arc<Record>, random: Random) -> Arc<Self> {
        let (up, cut, leaders) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let inner = Inner { random, up, cut, weather: Weather::calm(), leaders };
        Arc::new(Self { record, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("not poisoned")
    }

    pub(crate) fn set_up(&self, member: VoterId, up: Up) {
        self.inner().up.insert(member, up);
    }

    pub(crate) fn set_down(&self, member: VoterId) -> Option<Up> {
        self.inner().up.remove(&member)
    }

    pub(crate) fn up(&self) -> BTreeMap<VoterId, Up> {
        self.inner().up.clone()
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    /// From now on `from` cannot reach `to`.
    pub(crate) fn cut(&self, from: VoterId, to: VoterId) {
        self.inner().cut.insert((from, to));
    }

    /// Every way is open again.
    pub(crate) fn heal(&self) {
        self.inner().cut.clear();
    }

    fn is_cut(&self, from: VoterId, to: VoterId) -> bool {
        self.inner().cut.contains(&(from, to))
    }

    fn chance(&self, per_mille: impl FnOnce(&Weather) -> u64) -> bool {
        let mut inner = self.inner();
        let per_mille = per_mille(&inner.weather);
        inner.random.chance(per_mille)
    }

    fn fate(&self, from: VoterId, to: VoterId) -> Fate {
        let mut inner = self.inner();
        let (low, high) = inner.weather.micros;
        let lost = inner.weather.lost;
        let after = Duration::from_micros(inner.random.between(low, high));
        if inner.cut.contains(&(from, to)) || inner.random.chance(lost) {
            let told = inner.random.chance(500);
            return Fate::Lost(told.then_some(after));
        }
        Fate::Arrives(after)
    }

    /// Waits until a message has crossed; `false` when it is lost, and then as late as whoever waits may know: until it
    /// waits no more, or until the probes of the connection found out.
    async fn crosses<Answer>(
        &self,
        from: VoterId,
        to: VoterId,
        factor: u32,
        waiting: &mut oneshot::Sender<Answer>,
    ) -> bool {
        match self.fate(from, to) {
            Fate::Arrives(after) => {
                executor::wait(after * factor).await;
                if !self.is_cut(from, to) {
                    return true;
                }
            }
            Fate::Lost(Some(after)) => {
                executor::wait(after * factor).await;
                return false;
            }
            Fate::Lost(None) => {}
        }
        let _ = tokio::time::timeout(PROBED_WITHIN, waiting.closed()).await;
        false
    }

    /// Carries a question there and its answer back.
    async fn carry(
        self: Arc<Self>,
        from: VoterId,
        to: VoterId,
        question: Question,
        mut waiting: oneshot::Sender<Result<Reply, String>>,
    ) {
        if !self.crosses(from, to, 1, &mut waiting).await {
            return;
        }
        let Some(target) = self.inner().up.get(&to).cloned() else { return };
        let is_proposal = matches!(question.question, Some(question::Question::Propose(_)));
        // A connection that breaks ends what is done for it, or nobody notices.
        let ends_with_caller = self.chance(|_| 500);
        let (sender, answer) = oneshot::channel();
        let consensus = target.consensus.clone();
        executor::spawn_for(target.owner, async move {
            let mut sender = sender;
            let answering = consensus.answer(question);
            if !ends_with_caller {
                let _ = sender.send(answering.await);
                return;
            }
            tokio::select! {
                biased;
                answer = answering => {
                    let _ = sender.send(answer);
                }
                () = sender.closed() => {}
            }
        });
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = waiting.closed() => return,
        };
        // It is down, and the connection with it.
        let Ok(answer) = answer else { return };
        if is_proposal && self.chance(|weather| weather.proposal_replies_lost) {
            waiting.closed().await;
            return;
        }
        if self.crosses(to, from, 1, &mut waiting).await {
            let _ = waiting.send(answer.map_err(|error| error.to_string()));
        }
    }

    /// Carries a checkpoint there and the answer back.
    async fn carry_checkpoint(
        self: Arc<Self>,
        (from, to): (VoterId, VoterId),
        head: CheckpointHead,
        file: PathBuf,
        mut waiting: oneshot::Sender<Result<CheckpointReply, String>>,
    ) {
        let checkpoint = self.inner().up.get(&from).and_then(|up| up.disk.checkpoint(&file));
        let Some(checkpoint) = checkpoint else {
            let _ = waiting.send(Err("the checkpoint is gone".to_owned()));
            return;
        };
        if !self.crosses(from, to, CHECKPOINT_FACTOR, &mut waiting).await {
            return;
        }
        let Some(target) = self.inner().up.get(&to).cloned() else { return };
        self.record.note(format_args!("member {to} is given a checkpoint by {from}"));
        let (sender, answer) = oneshot::channel();
        executor::spawn_for(target.owner, async move {
            let incoming = target.consensus.incoming_checkpoint().await;
            target.disk.receive(incoming.clone(), checkpoint);
            let _ = sender.send(target.consensus.install(head, incoming.clone()).await);
        });
        let Ok(answer) = answer.await else { return };
        if self.crosses(to, from, 1, &mut waiting).await {
            let _ = waiting.send(answer.map_err(|error| error.to_string()));
        }
    }

    /// openraft may elect several in a term, each over the one before by its id: what leads is a term with an id. That
    /// one leads by its own election, and no more than once: not again after a start.
    fn observe_leader(&self, from: VoterId, term: u64, leader: u64) {
        let mut inner = self.inner();
        let Some(owner) = inner.up.get(&from).map(|up| up.owner) else { return };
        let first = *inner.leaders.entry((term, leader)).or_insert(owner);
        drop(inner);
        if first != owner || leader != from.0 {
            self.record
                .violate(format_args!("{from} leads term {term} as {leader}, which another start did"));
        }
    }

    fn observe(&self, from: VoterId, to: VoterId, question: &Question) {
        let kind = match &question.question {
            Some(question::Question::Append(append)) => {
                if let Some(vote) = append.vote.filter(|vote| vote.committed) {
                    self.observe_leader(from, vote.term, vote.voter);
                }
                1 + append.entries.len() as u64
            }
            Some(question::Question::Vote(_)) => 1001,
            Some(question::Question::Propose(_)) => 1002,
            Some(question::Question::ReadIndex(_)) => 1003,
            Some(question::Question::ChangeMembers(_)) => 1004,
            Some(_) | None => 1005,
        };
        self.record.count(&[from.0, to.0, kind]);
    }
}

/// The way of one member to the others.
pub(crate) struct Way {
    pub(crate) own: VoterId,
    pub(crate) network: Arc<Network>,
}

/// The address of a member.
pub(crate) fn address(member: VoterId) -> String {
    format!("member-{member}")
}

fn member_at(address: &str) -> Option<VoterId> {
    address.strip_prefix("member-")?.parse().ok().map(VoterId)
}

impl Peers for Way {
    fn ask(&self, peer: Peer, question: Question, deadline: Duration) -> Answering<Reply> {
        let Some(to) = member_at(&peer.address) else { return refused(peer, "no such address") };
        let (own, network) = (self.own, &self.network);
        network.observe(own, to, &question);
        if network.chance(|weather| weather.doubled) {
            let (network, question) = (network.clone(), question.clone());
            let behind = Duration::from_micros(network.inner().random.below(DUPLICATE_MICROS_MAX));
            executor::spawn_for(WORLD, async move {
                executor::wait(behind).await;
                let (sender, unheard) = oneshot::channel();
                network.carry(own, to, question, sender).await;
                drop(unheard);
            });
        }
        let (sender, answer) = oneshot::channel();
        executor::spawn_for(WORLD, network.clone().carry(own, to, question, sender));
        waiting(peer, answer, deadline)
    }

    fn install(
        &self,
        peer: Peer,
        head: CheckpointHead,
        file: PathBuf,
        deadline: Duration,
    ) -> Answering<CheckpointReply> {
        let Some(to) = member_at(&peer.address) else { return refused(peer, "no such address") };
        let (sender, answer) = oneshot::channel();
        let carry = self.network.clone().carry_checkpoint((self.own, to), head, file, sender);
        executor::spawn_for(WORLD, carry);
        waiting(peer, answer, deadline)
    }
}

fn refused<Answer: Send + 'static>(peer: Peer, reason: &str) -> Answering<Answer> {
    let error = PeerError::Unreachable { peer, reason: reason.to_owned() };
    Box::pin(std::future::ready(Err(error)))
}

fn waiting<Answer: Send + 'static>(
    peer: Peer,
    answer: oneshot::Receiver<Result<Answer, String>>,
    deadline: Duration,
) -> Answering<Answer> {
    Box::pin(async move {
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(reason))) => Err(PeerError::Refused { peer, reason }),
            Ok(Err(_)) => Err(PeerError::Unreachable { peer, reason: "the connection broke".to_owned() }),
            Err(_) => Err(PeerError::Late { peer, after: deadline }),
        }
    })
}

impl std::fmt::Debug for Way {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Way").field("own", &self.own).finish_non_exhaustive()
    }
}
