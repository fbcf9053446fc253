//! The members of a simulated cluster: their disks, their starts and their ends.
//!
//! What always holds: a crash ends every task of a member at once, and its disk keeps what was durable; a member that
//! has left the cluster is never started again; an id is never used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gantry_model::Revision;
use tokio::sync::oneshot;

use super::executor::{self, Owner};
use super::network::{Network, Up, Way, address};
use super::random::Random;
use super::record::Record;
use crate::feed::Feed;
use crate::raft::{ChangeError, Consensus, Formation, Membership, MembershipChange, Options, VoterId};
use crate::store::simulated::Disk;

/// Log entries after which a checkpoint is written: few, so that members that were away need one.
const CHECKPOINT_ENTRIES: u64 = 12;
/// How long a change may take while nothing is broken.
const CALM_DEADLINE: Duration = Duration::from_secs(60);

/// All members, up or down.
pub(crate) struct Cluster {
    pub(crate) network: Arc<Network>,
    pub(crate) record: Arc<Record>,
    seed: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    disks: BTreeMap<VoterId, Arc<Disk>>,
    gone: BTreeSet<VoterId>,
    starting: BTreeSet<VoterId>,
    starts: u64,
}

impl Cluster {
    /// A cluster of so many voters, which all are up.
    pub(crate) async fn form(seed: u64, record: Arc<Record>, voters: u64) -> Arc<Self> {
        let network = Network::new(record.clone(), Random::new(seed, 1));
        let cluster = Arc::new(Self { network, record, seed, inner: Mutex::default() });
        let first = cluster.add(Formation::Found(address(VoterId(1)))).await;
        for _ in 1..voters {
            let member = cluster.add(Formation::Join).await;
            for change in
                [MembershipChange::Learn(member, address(member)), MembershipChange::Promote(member)]
            {
                let done = cluster.change(first, change).await;
                assert!(done.is_ok(), "nothing is broken yet: {done:?}");
            }
        }
        cluster
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("not poisoned")
    }

    /// Starts a member that was never there.
    pub(crate) async fn add(self: &Arc<Self>, formation: Formation) -> VoterId {
        let member = {
            let mut inner = self.inner();
            let member = VoterId(inner.disks.len() as u64 + 1);
            inner.disks.insert(member, Disk::new(Random::new(self.seed, 100 + member.0)));
            member
        };
        self.start(member, formation).await;
        member
    }

    /// Starts a member, unless it has left or is up.
    pub(crate) async fn start(self: &Arc<Self>, member: VoterId, formation: Formation) {
        let (owner, disk) = {
            let is_up = self.network.up().contains_key(&member);
            let mut inner = self.inner();
            if is_up || inner.gone.contains(&member) || !inner.starting.insert(member) {
                return;
            }
            inner.starts += 1;
            (Owner(inner.starts), inner.disks[&member].clone())
        };
        self.record.note(format_args!("start  {member}"));
        let peers = Arc::new(Way { own: member, network: self.network.clone() });
        let options =
            Options { peers, formation, checkpoint_entries: CHECKPOINT_ENTRIES, ..Options::new("", member) };
        let mut proposer = [0; 16];
        proposer[..8].copy_from_slice(&owner.0.to_le_bytes());
        proposer[8..].copy_from_slice(&self.seed.to_le_bytes());
        let (sender, started) = oneshot::channel();
        let (record, feed) = (self.record.clone(), Feed::new());
        let on_disk = disk.clone();
        executor::spawn_for(owner, async move {
            let opened = on_disk.open(Consensus::identity(member));
            executor::spawn(watch(record, feed.clone(), member));
            let _ = sender.send(Consensus::start_on(options, opened, feed, proposer).await);
        });
        let started = started.await;
        self.inner().starting.remove(&member);
        match started {
            // It was told to leave meanwhile.
            Ok(Ok(_)) if self.inner().gone.contains(&member) => executor::end(owner),
            Ok(Ok(consensus)) => self.network.set_up(member, Up { owner, consensus, disk }),
            Ok(Err(error)) => self.record.violate(format_args!("member {member} does not start: {error}")),
            Err(_) => self.record.violate(format_args!("the start of member {member} was dropped")),
        }
    }

    /// Takes the power of a member.
    pub(crate) fn crash(&self, member: VoterId) {
        let Some(up) = self.network.set_down(member) else { return };
        self.record.note(format_args!("crash  {member}"));
        executor::end(up.owner);
        up.disk.crash();
    }

    /// Ends a member for ever.
    pub(crate) fn leave(&self, member: VoterId) {
        self.crash(member);
        self.inner().gone.insert(member);
    }

    /// The members that have not left.
    pub(crate) fn members(&self) -> Vec<VoterId> {
        let inner = self.inner();
        inner.disks.keys().filter(|member| !inner.gone.contains(member)).copied().collect()
    }

    /// Those of them that are down.
    pub(crate) fn down(&self) -> Vec<VoterId> {
        let up = self.network.up();
        self.members().into_iter().filter(|member| !up.contains_key(member)).collect()
    }

    /// Asks a member for a change of membership. The answer is lost when it crashes.
    pub(crate) async fn change(
        &self,
        at: VoterId,
        change: MembershipChange,
    ) -> Result<Membership, ChangeError> {
        let lost = |why: &str| ChangeError::Unknown(why.to_owned());
        let asked = format!("{change:?} at {at}");
        let Some(up) = self.network.up().remove(&at) else { return Err(lost("it is down")) };
        let (sender, answer) = oneshot::channel();
        executor::spawn_for(up.owner, async move {
            let _ = sender.send(up.consensus.change_members(change, None).await);
        });
        let answer = tokio::time::timeout(CALM_DEADLINE, answer).await;
        let answer =
            answer.map_err(|_| lost("late")).and_then(|answer| answer.map_err(|_| lost("it crashed")));
        let answer = answer.and_then(|answer| answer);
        self.record.note(match &answer {
            Ok(_) => format!("{asked}: done"),
            Err(error) => format!("{asked}: {error}"),
        });
        answer
    }
}

/// Looks at what a member's feed tells: revisions only grow, and a revision is one state on all members.
async fn watch(record: Arc<Record>, feed: Feed, member: VoterId) {
    let mut newest = feed.subscribe();
    let mut last = Revision::NONE;
    while newest.changed().await.is_ok() {
        newest.borrow_and_update();
        let view = feed.latest();
        if view.revision < last {
            record.violate(format_args!("member {member} went back from {last} to {}", view.revision));
        }
        last = view.revision;
        record.has(view.revision, view.state.digest(), member.0);
        record.count(&[member.0, view.revision.0]);
    }
}
