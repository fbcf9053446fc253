//! What a member that does not lead hands on to the leader: many commands, one message.
//!
//! What always holds: at most [`MESSAGES_MAX`] messages are on their way, and what waits meanwhile leaves together. None
//! waits for a member that is known to lead no more. Every command has an answer of its own: `NotHere` if the leader never had it,
//! `Unknown` if it may have.

use std::sync::Arc;

use bytes::Bytes;
use gantry_wire::raft_v1 as wire;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::peers::Peer;
use super::propose::{Tried, read_reply};
use super::queue::{Queue, Waiting};
use super::{Consensus, PROPOSE_DEADLINE, ProposeError, VoterId, runtime};

/// Messages on their way at one time. With one alone, a command that just missed it would wait for the entry of those in
/// it to be committed, and then for its own.
const MESSAGES_MAX: usize = 4;

impl Consensus {
    /// Hands commands on until this member stops.
    pub(super) async fn forward_commands(self, mut queue: Queue<Tried>) {
        let seats = Arc::new(Semaphore::new(MESSAGES_MAX));
        loop {
            let seat = tokio::select! {
                biased;
                () = self.inner.stop.cancelled() => break,
                seat = seats.clone().acquire_owned() => seat,
            };
            let (Ok(seat), Some(batch)) = (seat, queue.next().await) else { break };
            drop(runtime::spawn(self.clone().forward(batch, seat)));
        }
        queue.turn_away(|| Tried::Refused(ProposeError::ShuttingDown));
    }

    async fn forward(self, batch: Vec<Waiting<Tried>>, _seat: OwnedSemaphorePermit) {
        let (mut commands, mut replies): (Vec<Bytes>, Vec<oneshot::Sender<Tried>>) =
            batch.into_iter().map(|waiting| (waiting.command, waiting.reply)).unzip();
        let mut one_at_a_time = false;
        while !commands.is_empty() {
            let sent = if one_at_a_time { 1 } else { commands.len() };
            let answers = self.ask_leader(&commands[..sent]).await;
            // A leader of an earlier build reads the first command of a message only: it never had the others.
            one_at_a_time |= answers.len() < sent;
            commands.drain(..answers.len());
            for (reply, answer) in replies.drain(..answers.len()).zip(answers) {
                let _ = reply.send(answer);
            }
        }
    }

    /// What became of the first of these commands, at least: of as many as the leader's build takes at once.
    async fn ask_leader(&self, commands: &[Bytes]) -> Vec<Tried> {
        let all = |tried: &dyn Fn() -> Tried| commands.iter().map(|_| tried()).collect();
        let leader = self.leader().filter(|(leader, _)| *leader != self.inner.voter);
        let (Some((leader, address)), Some((first, more))) = (leader, commands.split_first()) else {
            return all(&|| Tried::NotHere(None));
        };
        let propose = wire::Propose { command: first.clone(), more: more.to_vec() };
        let question = wire::question::Question::Propose(propose);
        let question = wire::Question { from: self.inner.voter.0, to: leader.0, question: Some(question) };
        let peer = Peer { voter: Some(leader), address };
        let answer = tokio::select! {
            biased;
            answer = self.inner.peers.ask(peer, question, PROPOSE_DEADLINE) => answer,
            () = self.another_leads(leader) => {
                return all(&|| Tried::Unknown("another member came to lead before there was an answer".to_owned()));
            }
        };
        match answer {
            Ok(wire::Reply { reply: Some(wire::reply::Reply::Propose(reply)) }) => {
                let more = reply.more.into_iter().take(more.len()).map(|reply| read_reply(reply.outcome));
                std::iter::once(read_reply(reply.outcome)).chain(more).collect()
            }
            Ok(_) => all(&|| Tried::Unknown("the leader's reply does not fit the question".to_owned())),
            Err(error) => all(&|| Tried::Unknown(error.to_string())),
        }
    }

    /// Waits until this member hears that somebody else leads than `leader`. One that was deposed may be cut off, and
    /// whoever waited for its answers would keep the seats from what the next one could take.
    async fn another_leads(&self, leader: VoterId) {
        let mut metrics = self.inner.raft.server_metrics();
        let is_other = |current: Option<u64>| current.is_some_and(|current| current != leader.0);
        if metrics.wait_for(|metrics| is_other(metrics.current_leader)).await.is_err() {
            // Consensus has ended here: there will be no news.
            std::future::pending().await
        }
    }
}
