//! Bans that come ahead of updates: in force at once, also over a restart, and gone when they are lifted.

use std::time::Duration;

use gantry_model::{Ban, BanTarget};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::asking::{ask, cluster, end_of, listen, open_stream, status};
use super::control_plane::Member;
use super::follower::{DEADLINE, Following};
use crate::reply::{BodyError, CutBy};
use crate::sync::last_known_good::LastKnownGood;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";
const HOW: LastKnownGood = LastKnownGood::KeyInDataDir;

fn ban(tenant: &str, target: BanTarget) -> Ban {
    let (by, reason) = ("ann".to_owned(), "a secret reason".to_owned());
    Ban { tenant: tenant.parse().expect("a name"), target, by, reason, at_ms: 1, until_ms: None }
}

fn anonymous() -> BanTarget {
    BanTarget::Agent("anonymous".parse().expect("a name"))
}

#[tokio::test]
async fn a_ban_is_in_force_while_an_update_is_on_its_way_and_survives_a_restart_without_it() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster();
    let mut member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &HOW, &member.url()).await?;
    node.reaches(revision).await;
    let (strict, lenient) = (listen(&node, "strict").await, listen(&node, "lenient").await);
    let conversation = open_stream(&node, "strict").await;
    let file = directory.path().join("last-known-good").join(format!("{revision}.bin"));
    let kept = async |path: &std::path::Path| {
        let until = Instant::now() + DEADLINE;
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while !path.exists() {
            assert!(Instant::now() < until, "{} is not there", path.display());
            again.tick().await;
        }
    };
    kept(&file).await;

    // The end of the update that has it too does not come.
    cluster.hold(true);
    let banned = cluster.ban(ban("strict", anonymous()));
    cluster.is_in_force(banned).await;
    assert_eq!(node.revision(), revision);
    assert_eq!((status(&node, "strict").await, status(&node, "lenient").await), (403, 200));
    let ended = timeout(DEADLINE, end_of(strict)).await?;
    assert!(
        matches!(&ended, Some(BodyError::Cut(CutBy::Ban(target))) if *target == anonymous()),
        "{ended:?}"
    );
    assert!(timeout(DEADLINE, end_of(conversation)).await?.is_none());
    let refused = ask(&node, "strict", "tools/list", json!({})).await;
    let body = refused.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let mut body: Value = serde_json::from_slice(&body)?;
    assert!(body["error"]["data"]["decisionId"].take().is_string(), "{body}");
    let data = json!({"rejection": "revoked", "decisionId": null});
    let error = json!({"code": -31410, "message": "agent \"anonymous\" is revoked", "data": data});
    assert_eq!(body, json!({"jsonrpc": "2.0", "id": null, "error": error}));
    drop(lenient);

    // A process that is killed then, and finds no control plane.
    kept(&directory.path().join("last-known-good").join("urgent")).await;
    node.kill().await;
    member.kill();
    let mut node = Following::start(directory.path(), &HOW, NOWHERE).await?;
    assert_eq!((node.revision(), status(&node, "strict").await), (revision, 403));
    node.end().await;

    // The update brings it, and a later one takes it away.
    cluster.hold(false);
    let member = Member::start(&cluster);
    node = Following::start(directory.path(), &HOW, &member.url()).await?;
    node.reaches(banned).await;
    assert_eq!((status(&node, "strict").await, status(&node, "lenient").await), (403, 200));
    let lifted = cluster.lift(&ban("strict", anonymous()));
    node.reaches(lifted).await;
    assert_eq!(status(&node, "strict").await, 200);
    node.end().await;
    Ok(())
}

#[tokio::test]
async fn a_tenant_that_is_banned_is_refused_whole_and_the_other_is_not() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster();
    let member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &LastKnownGood::Off, &member.url()).await?;
    node.reaches(revision).await;
    let banned = cluster.ban(ban("lenient", BanTarget::Tenant));
    cluster.is_in_force(banned).await;
    assert_eq!((status(&node, "strict").await, status(&node, "lenient").await), (200, 403));
    node.end().await;
    Ok(())
}
