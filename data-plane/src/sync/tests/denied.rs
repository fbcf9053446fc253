//! Denials that come ahead of updates: in force at once, also over a restart, and gone with what takes them back.

use std::time::Duration;

use gantry_model::resource::{PolicySpec, Resource, Spec};
use gantry_policy::{Hints, Standing, Target, Verdict};
use tokio::time::Instant;

use super::asking::{cluster, resource};
use super::control_plane::Member;
use super::follower::{DEADLINE, Following};
use crate::sync::last_known_good::LastKnownGood;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";
const HOW: LastKnownGood = LastKnownGood::KeyInDataDir;
const PERMIT: &str = "permit(principal, action, resource);";
const FORBID: &str = "forbid(principal, action, resource);";

fn policy(tenant: &str, name: &str, cedar: &str) -> Resource {
    resource(tenant, name, Spec::Policy(PolicySpec::enforced(cedar)))
}

/// What a tenant says of a tool of its server, with what that follows from.
fn verdict(node: &Following, tenant: &str) -> (Verdict, Vec<String>) {
    let config = node.node.config();
    let tenant = &config.tenants[tenant];
    let server = "server".parse().expect("a name");
    let target = Target::Tool { server: &server, name: "read", hints: Hints::default() };
    let Standing::Settled(decision) = tenant.standing(&tenant.agents["anonymous"], &target) else {
        panic!("these policies read nothing of a call");
    };
    (decision.verdict, decision.reasons.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn a_forbid_is_in_force_while_an_update_is_on_its_way_and_survives_a_restart_without_it() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, _) = cluster();
    cluster.apply(policy("lenient", "open", PERMIT));
    let revision = cluster.apply(policy("strict", "open", PERMIT));
    let mut member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &HOW, &member.url()).await?;
    node.reaches(revision).await;
    let (allowed, denied) =
        ((Verdict::Allow, vec!["open[0]".to_owned()]), (Verdict::Deny, vec!["less[0]".to_owned()]));
    assert_eq!((verdict(&node, "strict"), verdict(&node, "lenient")), (allowed.clone(), allowed.clone()));
    let kept = async |name: &str| {
        let path = directory.path().join("last-known-good").join(name);
        let until = Instant::now() + DEADLINE;
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while !path.exists() {
            assert!(Instant::now() < until, "{} is not there", path.display());
            again.tick().await;
        }
    };
    kept(&format!("{revision}.bin")).await;

    // The end of the update that has it too does not come.
    cluster.hold(true);
    let forbidden = cluster.deny(policy("strict", "less", FORBID));
    cluster.is_in_force(forbidden).await;
    assert_eq!(node.revision(), revision);
    assert_eq!((verdict(&node, "strict"), verdict(&node, "lenient")), (denied.clone(), allowed.clone()));

    // A process that is killed then, and finds no control plane.
    kept("urgent").await;
    node.kill().await;
    member.kill();
    let mut node = Following::start(directory.path(), &HOW, NOWHERE).await?;
    assert_eq!((node.revision(), verdict(&node, "strict")), (revision, denied.clone()));
    node.end().await;

    // The update brings it, and a later one takes it away.
    cluster.hold(false);
    let member = Member::start(&cluster);
    node = Following::start(directory.path(), &HOW, &member.url()).await?;
    node.reaches(forbidden).await;
    assert_eq!(verdict(&node, "strict"), denied);
    let lifted = cluster.apply(policy("strict", "less", PERMIT));
    node.reaches(lifted).await;
    let both = (Verdict::Allow, vec!["less[0]".to_owned(), "open[0]".to_owned()]);
    assert_eq!(verdict(&node, "strict"), both);
    node.end().await;
    Ok(())
}
