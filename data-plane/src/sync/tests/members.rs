//! Nodes that know several members of one cluster.

use std::path::Path;
use std::time::Duration;

use gantry_model::Revision;
use gantry_model::resource::{Resource, Spec, TenantSpec};
use tokio::time::{Instant, timeout};

use super::control_plane::{Cluster, Member, Served};
use super::follower::{DEADLINE, Following};
use crate::sync::connection::SILENCE_MAX;
use crate::sync::last_known_good::LastKnownGood;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A node whose member is killed is back within this; another member answers at once, and the pause before is short.
const BACK_WITHIN: Duration = Duration::from_secs(2);

fn change(cluster: &Cluster, description: &str) -> Revision {
    let spec = Spec::Tenant(TenantSpec { description: description.to_owned(), ..TenantSpec::default() });
    let tenant = "acme".parse().expect("a name");
    cluster.apply(Resource { tenant, name: "acme".parse().expect("a name"), spec })
}

/// Three members, and a node that follows one of them; which is the number.
async fn three(directory: &Path, cluster: &Cluster) -> Result<(Vec<Member>, Following, usize)> {
    let revision = change(cluster, "first");
    let members: Vec<Member> = (0..3).map(|_| Member::start(cluster)).collect();
    let urls: Vec<String> = members.iter().map(Member::url).collect();
    let mut node = Following::start_with(directory, &LastKnownGood::Off, urls).await?;
    node.reaches(revision).await;
    let followed = members.iter().position(|member| *member.opened().borrow() == 1);
    Ok((members, node, followed.ok_or("nobody is followed")?))
}

/// The updates that other members than this sent, once there is one.
async fn served_elsewhere(members: &[Member], but: usize) -> Vec<Served> {
    let until = Instant::now() + DEADLINE;
    let mut again = tokio::time::interval(Duration::from_millis(5));
    loop {
        let others = members.iter().enumerate().filter(|(number, _)| *number != but);
        let served: Vec<Served> = others.flat_map(|(_, member)| member.served()).collect();
        if !served.is_empty() {
            return served;
        }
        assert!(Instant::now() < until, "no other member was asked");
        again.tick().await;
    }
}

#[tokio::test]
async fn a_node_stays_with_a_member_that_works_and_goes_on_by_delta_when_it_is_killed() -> Result {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::new("one");
    let (mut members, mut node, followed) = three(directory.path(), &cluster).await?;
    let mut last = node.revision();
    for number in 0..20 {
        last = change(&cluster, &number.to_string());
        node.reaches(last).await;
    }
    let opened: usize = members.iter().map(|member| *member.opened().borrow()).sum();
    assert_eq!(opened, 1, "it never asked another");

    members[followed].kill();
    let killed = Instant::now();
    let served = served_elsewhere(&members, followed).await;
    assert!(killed.elapsed() <= BACK_WITHIN, "back after {:?}", killed.elapsed());
    assert_eq!(served, [Served { from: last.0, to: last.0 }], "by delta");
    node.reaches(change(&cluster, "after")).await;
    println!("back by delta {:?} after the member was killed", killed.elapsed());
    node.end().await;
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_told_that_its_member_goes_down_goes_to_another() -> Result {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::new("one");
    let (members, mut node, followed) = three(directory.path(), &cluster).await?;
    let before = node.revision();
    members[followed].go_down();
    let told = Instant::now();
    let served = served_elsewhere(&members, followed).await;
    assert!(told.elapsed() <= BACK_WITHIN, "back after {:?}", told.elapsed());
    assert_eq!(served, [Served { from: before.0, to: before.0 }], "by delta");
    node.reaches(change(&cluster, "after")).await;
    node.end().await;
    Ok(())
}

#[tokio::test]
async fn a_node_whose_members_all_send_it_away_asks_ever_less_often() -> Result {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::new("one");
    let (members, node, _) = three(directory.path(), &cluster).await?;
    members.iter().for_each(Member::go_down);
    let asked = || members.iter().map(|member| *member.opened().borrow()).sum::<usize>();
    // Pauses of 50 ms, 100 ms, ... on average: in three seconds about eight, and never as many as here.
    let ended = timeout(Duration::from_secs(3), std::future::pending::<()>()).await;
    assert!(ended.is_err());
    assert!((3..40).contains(&asked()), "{} times", asked());
    node.end().await;
    Ok(())
}

#[tokio::test]
async fn a_member_that_falls_silent_is_left_within_a_known_time() -> Result {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::new("one");
    let (mut members, mut node, followed) = three(directory.path(), &cluster).await?;
    let before = node.revision();
    members[followed].stop();
    let stopped = Instant::now();
    let served = served_elsewhere(&members, followed).await;
    let took = stopped.elapsed();
    assert!(took <= SILENCE_MAX + BACK_WITHIN, "left after {took:?}");
    assert_eq!(served, [Served { from: before.0, to: before.0 }], "by delta");
    node.reaches(change(&cluster, "after")).await;
    println!("a silent member was left for another after {took:?}; the bound is {SILENCE_MAX:?}");
    node.end().await;
    Ok(())
}
