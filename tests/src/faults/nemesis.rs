//! Does to the processes what a round says, and takes it back.
//!
//! Always holds: a node is judged as faulty before a fault keeps it from its clients, and as live only when it has
//! answered one again; what was cut is whole again when a round has ended, but for the node whose certificate is to end.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::callers::answers;
use super::fleet::{Fleet, node, voter};
use super::ledger::Ledger;
use super::namespaces::{Names, Place};
use super::oracle::{State, Violation};
use super::plan::{Kind, Round};
use super::{NODES, VOTERS};
use crate::eventually::soon;
use crate::members::Error;

/// How long a node may take until it answers again, once it runs and is connected.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// A certificate that ends later than this is not waited for.
const CERTIFICATE_LIFE_MAX: Duration = Duration::from_secs(300);
/// How far past its end a certificate is used, and how long its bearer must be kept out.
const PAST_THE_END: Duration = Duration::from_secs(2);

/// Does and undoes.
pub struct Nemesis {
    /// The processes.
    pub fleet: Fleet,
    names: Names,
    ledger: Arc<Ledger>,
    key: String,
    exile: Option<Exile>,
}

/// A node that hears no voter.
#[derive(Debug, Clone, Copy)]
pub struct Exile {
    /// Its number.
    pub node: usize,
    /// When its certificate has ended, in milliseconds since 1970.
    ends_at_ms: u64,
}

impl Nemesis {
    /// One that has done nothing.
    #[must_use]
    pub fn new(fleet: Fleet, names: Names, ledger: Arc<Ledger>, key: String) -> Self {
        Self { fleet, names, ledger, key, exile: None }
    }

    /// The node that hears no voter.
    #[must_use]
    pub fn exile(&self) -> Option<Exile> {
        self.exile
    }

    /// Does what a round says, for as long as it says, and takes it back. Ends early when something was violated.
    ///
    /// # Errors
    /// When a process does not start or end, or a tool refuses.
    pub async fn play(&mut self, round: &Round, leader: usize) -> Result<(), Error> {
        let voters: Vec<Place> = round.victims(leader).into_iter().map(voter).collect();
        let mut nodes = round.nodes.clone();
        nodes.retain(|node| self.exile.is_none_or(|exile| exile.node != *node));
        match round.kind {
            Kind::Kill | Kind::Blackout => self.kill(&voters, &nodes, round.hold).await,
            Kind::Pause => self.pause(&voters, &nodes, round.hold).await,
            Kind::Link => self.unlink(&voters, &nodes, round.hold).await,
            Kind::Partition | Kind::OneWay => {
                let places = voters.into_iter().chain(nodes.into_iter().map(node)).collect();
                self.cut(places, round.kind == Kind::Partition, round.hold).await
            }
            Kind::Roll => self.roll(&voters, &nodes).await,
            Kind::Expiry => match nodes.first() {
                Some(node) if self.exile.is_none() => self.send_away(*node).await,
                _ => Ok(()),
            },
        }
    }

    /// Waits for as long as a fault lasts, or until something was violated.
    async fn hold(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.ledger.stop.cancelled()).await;
    }

    async fn kill(&mut self, voters: &[Place], nodes: &[usize], hold: Duration) -> Result<(), Error> {
        let places: Vec<_> = voters.iter().copied().chain(nodes.iter().copied().map(node)).collect();
        self.become_faulty(nodes);
        for place in &places {
            self.fleet.kill(*place).await?;
        }
        self.hold(hold).await;
        self.fleet.start_all(&places).await?;
        self.become_live(nodes).await;
        Ok(())
    }

    async fn pause(&mut self, voters: &[Place], nodes: &[usize], hold: Duration) -> Result<(), Error> {
        self.become_faulty(nodes);
        let places: Vec<_> = voters.iter().copied().chain(nodes.iter().copied().map(node)).collect();
        for place in &places {
            self.fleet.signal(*place, "STOP").await?;
        }
        self.hold(hold).await;
        for place in &places {
            self.fleet.signal(*place, "CONT").await?;
        }
        self.become_live(nodes).await;
        Ok(())
    }

    async fn unlink(&mut self, voters: &[Place], nodes: &[usize], hold: Duration) -> Result<(), Error> {
        self.become_faulty(nodes);
        let places: Vec<_> = voters.iter().copied().chain(nodes.iter().copied().map(node)).collect();
        for place in &places {
            self.names.link(*place, false).await?;
        }
        self.hold(hold).await;
        for place in &places {
            self.names.link(*place, true).await?;
        }
        self.become_live(nodes).await;
        Ok(())
    }

    /// Nodes stay live: they hear their clients, who are at the hub.
    async fn cut(&mut self, inside: Vec<Place>, is_both: bool, hold: Duration) -> Result<(), Error> {
        let all = (0..VOTERS + NODES).map(Place);
        let outside: Vec<_> = all.filter(|place| !inside.contains(place)).collect();
        for place in &outside {
            self.names.deafen(*place, &inside).await?;
        }
        if is_both {
            for place in &inside {
                self.names.deafen(*place, &outside).await?;
            }
        }
        self.hold(hold).await;
        let all_voters: Vec<_> = (0..VOTERS).map(voter).collect();
        for place in inside.iter().chain(&outside) {
            let is_away = self.exile.is_some_and(|exile| node(exile.node) == *place);
            self.names.hear(*place, if is_away { &all_voters } else { &[] }).await?;
        }
        Ok(())
    }

    async fn roll(&mut self, voters: &[Place], nodes: &[usize]) -> Result<(), Error> {
        for place in voters {
            self.fleet.upgrade(*place);
            self.fleet.terminate(*place).await?;
            self.fleet.start(*place).await?;
        }
        for number in nodes {
            self.fleet.upgrade(node(*number));
            self.restart(*number).await?;
        }
        Ok(())
    }

    /// Every process that is of the build before becomes the one under test.
    ///
    /// # Errors
    /// As [`Nemesis::play`].
    pub async fn roll_rest(&mut self) -> Result<usize, Error> {
        let outdated = self.fleet.outdated();
        for place in &outdated {
            match super::fleet::node_at(*place) {
                None => self.roll(&[*place], &[]).await?,
                Some(number) => self.roll(&[], &[number]).await?,
            }
        }
        Ok(outdated.len())
    }

    /// Ends a node in order and starts it again. It answers what it has accepted.
    async fn restart(&mut self, number: usize) -> Result<(), Error> {
        self.ledger.node_becomes(number, State::Leaving);
        self.fleet.terminate(node(number)).await?;
        self.fleet.start(node(number)).await?;
        self.become_live(&[number]).await;
        Ok(())
    }

    /// Lets a node join anew with a short certificate, and cuts it off from all voters. It goes on serving.
    async fn send_away(&mut self, number: usize) -> Result<(), Error> {
        // The last voter signs short ones, if it is the build under test.
        let signer = voter(VOTERS - 1);
        if self.fleet.outdated().contains(&signer) {
            self.roll(&[signer], &[]).await?;
        }
        self.rejoin(number, true).await?;
        let ends_at_ms = self.fleet.certificate_end(number)?;
        let left = Duration::from_millis(ends_at_ms.saturating_sub(now_ms()));
        if left > CERTIFICATE_LIFE_MAX {
            return Err(format!("node-{} has a certificate for {left:?} more", number + 1).into());
        }
        self.exile = Some(Exile { node: number, ends_at_ms });
        let voters: Vec<_> = (0..VOTERS).map(voter).collect();
        Ok(self.names.deafen(node(number), &voters).await?)
    }

    async fn rejoin(&mut self, number: usize, forget: bool) -> Result<(), Error> {
        self.fleet.new_token(number).await?;
        self.ledger.node_becomes(number, State::Leaving);
        self.fleet.terminate(node(number)).await?;
        if forget {
            self.fleet.forget_certificate(number)?;
        }
        self.fleet.start(node(number)).await?;
        self.become_live(&[number]).await;
        Ok(())
    }

    /// Lets the node that is away hear the voters again, once its certificate has ended: nobody lets it in until it
    /// joins anew. Does nothing before, unless it is to be waited for.
    ///
    /// # Errors
    /// When it is let in, or does not join.
    pub async fn bring_back(&mut self, is_waited_for: bool) -> Result<bool, Error> {
        let Some(exile) = self.exile else { return Ok(false) };
        let ended = Duration::from_millis(exile.ends_at_ms) + PAST_THE_END;
        let left = ended.saturating_sub(Duration::from_millis(now_ms()));
        if !left.is_zero() && !is_waited_for {
            return Ok(false);
        }
        self.hold(left).await;
        if self.fleet.certificate_end(exile.node)? != exile.ends_at_ms {
            return Err(
                format!("node-{} has renewed its certificate, which it could not", exile.node + 1).into()
            );
        }
        self.names.hear(node(exile.node), &[]).await?;
        let name = format!("node-{}", exile.node + 1);
        let began = Instant::now();
        while began.elapsed() < PAST_THE_END && !self.ledger.stop.is_cancelled() {
            for access in self.fleet.accesses() {
                let status = access.connect().await?.status().await?;
                if status.nodes.iter().any(|node| node.node_id == name && node.connected) {
                    let let_in = format!("{name} is connected with a certificate that has ended");
                    self.ledger.judge(Err(Violation::Late(let_in)));
                }
            }
        }
        self.exile = None;
        self.rejoin(exile.node, false).await?;
        Ok(true)
    }

    fn become_faulty(&self, nodes: &[usize]) {
        for node in nodes {
            self.ledger.node_becomes(*node, State::Faulty);
        }
    }

    /// Waits until nodes answer calls.
    pub async fn become_live(&self, nodes: &[usize]) {
        for node in nodes {
            let answering = soon(ANSWER_TIME_MAX, async || answers(&self.ledger, *node, &self.key).await);
            if answering.await.is_none() {
                let late = format!("node-{} answers no call {ANSWER_TIME_MAX:?} after its fault", node + 1);
                self.ledger.judge(Err(Violation::Late(late)));
            }
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
