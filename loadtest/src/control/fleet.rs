//! Many light nodes, and what they did, by node and in order.
//!
//! Always holds: an event is noted by the node itself, at its moment, whenever it is looked at; who waits for something
//! of all nodes waits for a bounded time.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use gantry_model::name::Name;
use gantry_node::{membership::Membership, token::JoinToken};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    ControlError,
    admin::{Access, Admin},
    cluster::Cluster,
    subscriber::{self, Event, Subscriber, What},
};

/// How many nodes join at one time.
const JOINING_MAX: usize = 16;
/// How long a token counts that is used at once: as short as tokens are, so that there is room for the next.
const TOKEN_LIFETIME: Duration = Duration::from_secs(2);
/// How many nodes connect at a time when a fleet starts.
const STARTING_STEP: usize = 50;
/// Between those.
const STARTING_PAUSE: Duration = Duration::from_millis(20);

/// The nodes.
pub(super) struct Fleet {
    nodes: Vec<Node>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Ends the nodes with the fleet.
    _following: JoinSet<()>,
}

/// What is known of a node.
#[derive(Clone, Debug, Default)]
struct Node {
    revision: u64,
    /// Updates since the last [`Fleet::forget`], oldest first.
    applied: Vec<Applied>,
    /// Which member its stream is of.
    member: usize,
    /// Since when it is without a stream.
    lost_at: Option<Instant>,
}

/// An update that a node took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applied {
    pub(super) at: Instant,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) update_bytes: usize,
    pub(super) answer_bytes: usize,
    pub(super) is_first: bool,
}

impl Fleet {
    /// Lets nodes join the cluster, each with a certificate of its own, kept in `folder`.
    pub(super) async fn join(
        count: usize,
        cluster: &Cluster,
        folder: &Path,
    ) -> Result<Vec<Membership>, ControlError> {
        let folder = folder.join("light");
        std::fs::create_dir_all(&folder)?;
        let accesses = cluster.accesses();
        let mut joining = JoinSet::new();
        for worker in 0..JOINING_MAX.min(count) {
            let (access, folder) = (accesses[worker % accesses.len()].clone(), folder.clone());
            joining.spawn(async move {
                let mut admin = Admin::connect(&access).await?;
                let mut joined = Vec::new();
                for number in (worker..count).step_by(JOINING_MAX) {
                    joined.push((number, join(&mut admin, &access, number, &folder).await?));
                }
                Ok::<_, ControlError>(joined)
            });
        }
        let mut joined = Vec::with_capacity(count);
        while let Some(worker) = joining.join_next().await {
            joined.extend(worker.map_err(|_| ControlError::Interrupted)??);
        }
        joined.sort_by_key(|(number, _)| *number);
        Ok(joined.into_iter().map(|(_, membership)| membership).collect())
    }

    /// Starts nodes that have joined, spread over the members.
    pub(super) async fn start(joined: Vec<Membership>, members: &[SocketAddr]) -> Result<Self, ControlError> {
        let (told, events) = mpsc::unbounded_channel();
        let mut following = JoinSet::new();
        let count = joined.len();
        for (number, membership) in joined.into_iter().enumerate() {
            let node = Subscriber::new(number, membership, members.to_vec(), told.clone())?;
            following.spawn(node.run());
            if number % STARTING_STEP == STARTING_STEP - 1 {
                tokio::time::sleep(STARTING_PAUSE).await;
            }
        }
        Ok(Self { nodes: vec![Node::default(); count], events, _following: following })
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Waits until every node has a revision, which is `what` is waited for.
    pub(super) async fn reach(
        &mut self,
        revision: u64,
        wait: Duration,
        what: &'static str,
    ) -> Result<(), ControlError> {
        match self.missing(revision, wait).await {
            0 => Ok(()),
            _ => Err(ControlError::Waited { what }),
        }
    }

    /// Waits until every node has a revision; says how many do not in time.
    pub(super) async fn missing(&mut self, revision: u64, wait: Duration) -> usize {
        self.until(wait, |node| node.revision >= revision).await
    }

    /// Takes the nodes of a member for lost, from now on, whether or not they notice.
    pub(super) fn lose(&mut self, member: usize) {
        let now = Instant::now();
        for node in self.nodes.iter_mut().filter(|node| node.member == member) {
            node.lost_at = node.lost_at.or(Some(now));
        }
    }

    /// Waits until every node that was lost has a stream again on which an update came; says how many have none in time.
    pub(super) async fn come_back(&mut self, wait: Duration) -> usize {
        self.until(wait, |node| node.lost_at.is_none()).await
    }

    /// Takes in what came, for as long.
    pub(super) async fn watch(&mut self, wait: Duration) {
        self.until(wait, |_| false).await;
    }

    async fn until(&mut self, wait: Duration, is_there: impl Fn(&Node) -> bool) -> usize {
        let deadline = tokio::time::Instant::now() + wait;
        let mut missing = self.nodes.iter().filter(|node| !is_there(node)).count();
        while missing > 0 {
            let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.events.recv()).await else { break };
            let node = &mut self.nodes[event.node];
            let was_there = is_there(node);
            node.take(event);
            match (was_there, is_there(node)) {
                (false, true) => missing -= 1,
                (true, false) => missing += 1,
                _ => {}
            }
        }
        missing
    }

    /// Forgets what nodes did so far; where they are stays.
    pub(super) fn forget(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.nodes[event.node].take(event);
        }
        for node in &mut self.nodes {
            node.applied.clear();
        }
    }

    /// What each node did since.
    pub(super) fn applied(&self) -> impl Iterator<Item = &[Applied]> {
        self.nodes.iter().map(|node| node.applied.as_slice())
    }

    /// When each node had a revision; those that never had it are left out.
    pub(super) fn moments(&self, revision: u64) -> impl Iterator<Item = Instant> {
        self.applied().filter_map(move |applied| {
            let first = applied.partition_point(|applied| applied.to < revision);
            applied.get(first).map(|applied| applied.at)
        })
    }
}

async fn join(
    admin: &mut Admin,
    access: &Access,
    number: usize,
    folder: &Path,
) -> Result<Membership, ControlError> {
    let text = subscriber::name(number);
    let token = JoinToken::parse(&admin.node_token(&text, None, TOKEN_LIFETIME).await?)
        .map_err(|_| ControlError::Token)?;
    let name: Name = text.parse().map_err(|_| ControlError::Token)?;
    let file = folder.join(&text);
    Ok(Membership::join_as_node(&token, &name, &access.address.to_string(), file).await?)
}

impl Node {
    fn take(&mut self, event: Event) {
        match event.what {
            What::Lost => self.lost_at = self.lost_at.or(Some(event.at)),
            What::Applied { member, from, to, update_bytes, answer_bytes, is_first } => {
                let at = event.at;
                // One that came before may be heard of after.
                self.lost_at = self.lost_at.filter(|lost| !is_first || at <= *lost);
                (self.revision, self.member) = (to, member);
                self.applied.push(Applied { at, from, to, update_bytes, answer_bytes, is_first });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(count: usize) -> (mpsc::UnboundedSender<Event>, Fleet) {
        let (told, events) = mpsc::unbounded_channel();
        (told, Fleet { nodes: vec![Node::default(); count], events, _following: JoinSet::new() })
    }

    fn applied(node: usize, at: Instant, to: u64) -> Event {
        Event { node, at, what: update(to, false, 0) }
    }

    fn update(to: u64, is_first: bool, member: usize) -> What {
        What::Applied { member, from: to - 1, to, update_bytes: 10, answer_bytes: 5, is_first }
    }

    #[tokio::test]
    async fn a_revision_has_come_to_a_node_with_the_first_update_that_reaches_it() {
        let (told, mut fleet) = fleet(2);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for event in [applied(0, at(1), 4), applied(0, at(2), 6), applied(1, at(9), 5)] {
            told.send(event).expect("it listens");
        }
        assert_eq!(fleet.missing(6, Duration::from_millis(20)).await, 1, "the second has 5");
        assert_eq!(fleet.moments(5).collect::<Vec<_>>(), [at(2), at(9)]);
        assert_eq!(fleet.moments(6).collect::<Vec<_>>(), [at(2)]);
        told.send(applied(1, at(11), 7)).expect("it listens");
        assert_eq!(fleet.missing(6, Duration::from_secs(1)).await, 0);
        fleet.forget();
        assert_eq!(fleet.moments(1).count(), 0);
        assert_eq!(fleet.missing(6, Duration::from_secs(1)).await, 0, "where they are is not forgotten");
    }

    #[tokio::test]
    async fn a_node_is_back_with_the_first_update_of_another_stream() {
        let (told, mut fleet) = fleet(2);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for node in 0..2 {
            told.send(Event { node, at: start, what: update(3, true, node) }).expect("it listens");
        }
        fleet.watch(Duration::from_millis(1)).await;
        // Its nodes are gone with it, before they know.
        fleet.lose(1);
        let lost_at = fleet.nodes[1].lost_at.expect("it is lost");
        assert_eq!(fleet.nodes[0].lost_at, None);
        told.send(Event { node: 1, at: start, what: update(4, true, 1) }).expect("it listens");
        told.send(Event { node: 1, at: lost_at + Duration::from_secs(1), what: What::Lost })
            .expect("it listens");
        told.send(Event { node: 0, at: at(1), what: What::Lost }).expect("it listens");
        assert_eq!(fleet.come_back(Duration::from_millis(20)).await, 2, "what came before does not count");
        for node in 0..2 {
            let at = lost_at + Duration::from_secs(2);
            told.send(Event { node, at, what: update(5, true, 0) }).expect("it listens");
        }
        assert_eq!(fleet.come_back(Duration::from_secs(1)).await, 0);
    }
}
