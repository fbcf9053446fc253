//! What goes wrong in a simulated cluster, and when: crashes, cut links, bad weather, bad disks, changes of membership.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::Cluster;
use super::executor::{self, WORLD};
use super::network::{Weather, address};
use super::random::Random;
use crate::raft::{Formation, MembershipChange, VoterId};

/// How long it is between two faults, in milliseconds.
const PAUSE_MS: (u64, u64) = (100, 3_000);
/// How long a member is down, in milliseconds, at most.
const DOWN_MS_MAX: u64 = 8_000;
/// Members that were ever there, at most.
const MEMBERS_MAX: usize = 8;
/// Voters that a removal leaves, at least.
const VOTERS_MIN: usize = 2;

/// Makes things go wrong until `until`.
pub(crate) async fn run(cluster: Arc<Cluster>, mut random: Random, until: tokio::time::Instant) {
    while tokio::time::Instant::now() < until {
        let pause = random.between(PAUSE_MS.0, PAUSE_MS.1);
        executor::wait(Duration::from_millis(pause)).await;
        let up: Vec<VoterId> = cluster.network.up().into_keys().collect();
        let Some(member) = random.pick(&up).copied() else { continue };
        match random.below(100) {
            0..16 => crash(&cluster, &mut random, &[member]),
            16..20 => {
                let several: Vec<_> = up.iter().copied().filter(|_| random.chance(700)).collect();
                crash(&cluster, &mut random, &several);
            }
            20..32 => split(&cluster, &mut random),
            32..44 => isolate(&cluster, &mut random, member),
            44..60 => isolate_leader(&cluster, &mut random),
            60..72 => {
                cluster.record.note("heal   all links");
                cluster.network.heal();
            }
            72..82 => weather(&cluster, &mut random),
            82..88 => disk(&cluster, &mut random, member),
            _ => membership(&cluster, &mut random, member),
        }
    }
}

/// Ends all faults: every link is open, every disk fast, every member up.
pub(crate) async fn end(cluster: &Arc<Cluster>) {
    cluster.record.note("heal   everything");
    cluster.network.heal();
    cluster.network.set_weather(Weather::calm());
    for (member, up) in cluster.network.up() {
        up.disk.set_slow(false);
        // Where a disk has failed the member has stopped.
        if up.consensus.status().await.stopped.is_some() {
            cluster.crash(member);
        }
    }
    for member in cluster.down() {
        cluster.start(member, Formation::Join).await;
    }
}

fn crash(cluster: &Arc<Cluster>, random: &mut Random, members: &[VoterId]) {
    for member in members.iter().copied() {
        cluster.crash(member);
        let down = Duration::from_millis(random.below(DOWN_MS_MAX));
        let cluster = cluster.clone();
        executor::spawn_for(WORLD, async move {
            executor::wait(down).await;
            cluster.start(member, Formation::Join).await;
        });
    }
}

/// Two parts that do not hear each other.
fn split(cluster: &Arc<Cluster>, random: &mut Random) {
    let members = cluster.members();
    let (one, other): (Vec<_>, Vec<_>) = members.into_iter().partition(|_| random.chance(500));
    cluster.record.note(format_args!("split  {one:?} from {other:?}"));
    for (from, to) in one.iter().flat_map(|from| other.iter().map(move |to| (*from, *to))) {
        cluster.network.cut(from, to);
        cluster.network.cut(to, from);
    }
}

fn isolate_leader(cluster: &Arc<Cluster>, random: &mut Random) {
    let leads = |(member, up): (VoterId, super::network::Up)| up.consensus.leads().then_some(member);
    let leaders: Vec<_> = cluster.network.up().into_iter().filter_map(leads).collect();
    if let Some(leader) = random.pick(&leaders).copied() {
        isolate(cluster, random, leader);
    }
}

/// A member that is not heard, or does not hear, or both.
fn isolate(cluster: &Arc<Cluster>, random: &mut Random, member: VoterId) {
    let (heard, hears) = [(false, false), (true, false), (false, true)][random.below(3) as usize];
    cluster.record.note(format_args!("isolate {member}: it is heard: {heard}, it hears: {hears}"));
    for other in cluster.members() {
        if !heard {
            cluster.network.cut(member, other);
        }
        if !hears {
            cluster.network.cut(other, member);
        }
    }
}

fn weather(cluster: &Arc<Cluster>, random: &mut Random) {
    let mut weather = Weather::calm();
    if random.chance(700) {
        weather.lost = random.below(300);
        weather.doubled = random.below(300);
        weather.proposal_replies_lost = random.below(500);
        weather.micros.1 += random.below(400_000);
    }
    cluster.record.note(format_args!("{weather:?}"));
    cluster.network.set_weather(weather);
}

fn disk(cluster: &Arc<Cluster>, random: &mut Random, member: VoterId) {
    let Some(up) = cluster.network.up().remove(&member) else { return };
    match random.below(3) {
        0 => {
            cluster.record.note(format_args!("disk   of {member} fails"));
            up.disk.fail();
            let (cluster, down) = (cluster.clone(), Duration::from_millis(random.below(DOWN_MS_MAX)));
            executor::spawn_for(WORLD, async move {
                executor::wait(down).await;
                cluster.crash(member);
                cluster.start(member, Formation::Join).await;
            });
        }
        kind => {
            cluster.record.note(format_args!("disk   of {member} is slow: {}", kind == 1));
            up.disk.set_slow(kind == 1);
        }
    }
}

/// Asks a member for a change; nobody waits for it.
fn membership(cluster: &Arc<Cluster>, random: &mut Random, at: VoterId) {
    let Some(up) = cluster.network.up().remove(&at) else { return };
    let known = up.consensus.membership().members;
    let voters: Vec<_> = known.iter().filter(|member| member.votes).map(|member| member.voter).collect();
    let learners: Vec<_> = known.iter().filter(|member| !member.votes).map(|member| member.voter).collect();
    let kind = random.below(10);
    let change = match (random.pick(&voters).copied(), random.pick(&learners).copied()) {
        (Some(voter), _) if kind < 3 => MembershipChange::HandOver(voter),
        (Some(voter), _) if kind < 5 && voters.len() > VOTERS_MIN => MembershipChange::Remove(voter),
        (_, Some(learner)) if kind < 8 => MembershipChange::Promote(learner),
        (_, Some(learner)) if kind < 9 => MembershipChange::Remove(learner),
        _ if cluster.members().len() < MEMBERS_MAX => {
            let cluster = cluster.clone();
            executor::spawn_for(WORLD, async move { join(&cluster, at).await });
            return;
        }
        _ => return,
    };
    let cluster = cluster.clone();
    executor::spawn_for(WORLD, async move {
        let removed = match &change {
            MembershipChange::Remove(voter) => Some(*voter),
            _ => None,
        };
        if let (Ok(_), Some(member)) = (cluster.change(at, change).await, removed) {
            cluster.leave(member);
        }
    });
}

/// A new member comes, and becomes a voter where that succeeds.
async fn join(cluster: &Arc<Cluster>, at: VoterId) {
    let member = cluster.add(Formation::Join).await;
    let learn = MembershipChange::Learn(member, address(member));
    if cluster.change(at, learn).await.is_ok() {
        let _ = cluster.change(at, MembershipChange::Promote(member)).await;
    }
}
