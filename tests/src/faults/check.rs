//! What must hold once a fault has ended: writes are taken again, one member leads, and everybody has the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gantry_wire::admin_v1::{GetResponse, StatusResponse};

use super::admin::{Access, Admin, CallError};
use super::ledger::Ledger;
use super::oracle::Violation;
use super::writers::written;
use super::{NODES, TENANT, VOTERS};
use crate::eventually::soon;

/// How long it may take until a write is acknowledged after a fault: elections, and what waits on connections that died.
/// Measured: see control-plane/README.md.
const ACCEPT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long it may take until everybody has the same. A node that was cut off asks again after 8 s at most.
const CONVERGE_TIME_MAX: Duration = Duration::from_secs(60);

/// What a check saw.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// From the end of the fault until a write was acknowledged.
    pub accepted: Duration,
    /// From the pause of the writers until everybody had the same.
    pub converged: Duration,
    /// Who leads, from 0.
    pub leader: usize,
}

/// Waits until writes are taken again, then has the writers pause, and looks whether everybody has the same, and all
/// that was acknowledged. `away`: a node that cannot.
pub async fn check(ledger: &Ledger, accesses: &[Access], away: Option<usize>) -> Option<Recovery> {
    let healed = Instant::now();
    let before = ledger.with(|told| told.counts.acknowledged);
    // What was violated has stopped the writers.
    let is_over = || ledger.stop.is_cancelled();
    let accepted =
        async || (is_over() || ledger.with(|told| told.counts.acknowledged) > before).then_some(());
    let accepted = soon(ACCEPT_TIME_MAX, accepted).await;
    if is_over() {
        return None;
    }
    if accepted.is_none() {
        let late = format!("no write was acknowledged within {ACCEPT_TIME_MAX:?} after a fault");
        ledger.judge(Err(Violation::Late(late)));
        return None;
    }
    let accepted = healed.elapsed();
    let _pause = ledger.turn.write().await;
    let paused = Instant::now();
    let mut why = String::new();
    let mut voters = Voters { accesses, open: vec![None; accesses.len()] };
    let converged = soon(CONVERGE_TIME_MAX, async || match voters.agreed(away).await {
        Ok(agreed) => Some(agreed),
        Err(not_yet) => {
            why = not_yet;
            None
        }
    });
    let Some((leader, everything)) = converged.await else {
        ledger
            .judge(Err(Violation::Late(format!("not all had the same within {CONVERGE_TIME_MAX:?}: {why}"))));
        return None;
    };
    let converged = paused.elapsed();
    holds_all(ledger, &everything);
    Some(Recovery { accepted, converged, leader })
}

/// Whether all that was acknowledged is there.
fn holds_all(ledger: &Ledger, everything: &GetResponse) {
    let there: Vec<_> = written(everything).collect();
    let names: BTreeSet<_> = there.iter().map(|(name, _)| name.clone()).collect();
    let judged = ledger.with(|told| {
        let mut judged = vec![told.made.observe(&names)];
        for (name, register) in &mut told.registers {
            let seen = there.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
            judged.push(register.observe(name, seen));
        }
        judged
    });
    judged.into_iter().for_each(|judged| ledger.judge(judged));
}

/// Connections to all voters, which last as long as a check.
struct Voters<'a> {
    accesses: &'a [Access],
    open: Vec<Option<Admin>>,
}

impl Voters<'_> {
    async fn to(&mut self, voter: usize) -> Result<&mut Admin, String> {
        let admin = match self.open[voter].take() {
            Some(admin) => admin,
            None => self.accesses[voter].connect().await.map_err(unanswered(voter))?,
        };
        Ok(self.open[voter].insert(admin))
    }

    /// Who leads, and what is stored, when everybody says the same; otherwise what differs.
    async fn agreed(&mut self, away: Option<usize>) -> Result<(usize, GetResponse), String> {
        let looked = self.look(away).await;
        if looked.is_err() {
            // One of them may be to a process that is no more.
            self.open.fill(None);
        }
        looked
    }

    async fn look(&mut self, away: Option<usize>) -> Result<(usize, GetResponse), String> {
        let (mut leaders, mut statuses) = (BTreeSet::new(), Vec::new());
        for voter in 0..self.accesses.len() {
            let members = self.to(voter).await?.members().await.map_err(unanswered(voter))?;
            leaders.insert((members.term, members.leader));
            statuses.push(self.to(voter).await?.status().await.map_err(unanswered(voter))?);
        }
        let [(_, leader)] = Vec::from_iter(leaders.clone())[..] else {
            return Err(format!("the members name other leaders: {leaders:?}"));
        };
        let leader = usize::try_from(leader).ok().and_then(|leader| leader.checked_sub(1));
        let leader = leader.filter(|leader| *leader < VOTERS).ok_or("nobody leads")?;
        if statuses.iter().enumerate().any(|(voter, status)| status.leader != (voter == leader)) {
            return Err("another member says of itself that it leads, or the leader does not".to_owned());
        }
        same_state(&statuses, leader)?;
        nodes_follow(&statuses[leader], away)?;
        let everything = self.to(leader).await?.get("", TENANT, "").await.map_err(unanswered(leader))?;
        for voter in 0..self.accesses.len() {
            if self.to(voter).await?.get("", TENANT, "").await.map_err(unanswered(voter))? != everything {
                return Err(format!("voter {} answers otherwise than the leader", voter + 1));
            }
        }
        Ok((leader, everything))
    }
}

fn unanswered(voter: usize) -> impl FnOnce(CallError) -> String {
    move |error| format!("voter {}: {error}", voter + 1)
}

/// Whether all members are at the leader's revision, and have the same there.
fn same_state(statuses: &[StatusResponse], leader: usize) -> Result<(), String> {
    // A build before digests says none.
    let is_told = statuses.iter().all(|status| !status.digest.is_empty());
    let state = |status: &StatusResponse| (status.revision, is_told.then(|| status.digest.clone()));
    let leads = state(&statuses[leader]);
    match statuses.iter().position(|status| state(status) != leads) {
        Some(other) => {
            Err(format!("voter {} has {:?}, the leader {leads:?}", other + 1, state(&statuses[other])))
        }
        None => Ok(()),
    }
}

/// Whether every node has what the leader has; what a node acknowledges, it has by its digest.
fn nodes_follow(leader: &StatusResponse, away: Option<usize>) -> Result<(), String> {
    for number in (0..NODES).filter(|number| Some(*number) != away) {
        let name = format!("node-{}", number + 1);
        let node = leader.nodes.iter().find(|node| node.node_id == name);
        let node = node.ok_or_else(|| format!("{name} is not known"))?;
        let follows = node.connected && node.acked_revision == leader.revision && node.problems.is_empty();
        if !follows {
            return Err(format!(
                "{name} is at revision {} of {}, connected: {}, {:?} {:?}",
                node.acked_revision, leader.revision, node.connected, node.last_error, node.problems
            ));
        }
    }
    Ok(())
}
