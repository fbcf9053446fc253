//! Tenants that set a bound to how long they are served by what a node last heard.

use std::pin::pin;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::asking::{ask, cluster, end_of, listen, open_stream, status};
use super::control_plane::Member;
use super::follower::{DEADLINE, Following};
use crate::reply::BodyError;
use crate::sync::last_known_good::LastKnownGood;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";
const HOW: LastKnownGood = LastKnownGood::KeyInDataDir;

#[tokio::test]
async fn a_tenant_is_refused_once_the_silence_is_longer_than_it_allows_and_until_it_ends() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster();
    let mut member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &HOW, &member.url()).await?;
    node.reaches(revision).await;
    node.end().await;
    member.kill();

    let node = Following::start(directory.path(), &HOW, NOWHERE).await?;
    let silence = node.node.contact.silence();
    assert!(silence < Duration::from_secs(30), "the time before the start counts: {silence:?}");
    assert_eq!((status(&node, "strict").await, status(&node, "lenient").await), (200, 200));
    let (strict, lenient) = (listen(&node, "strict").await, listen(&node, "lenient").await);
    let conversation = open_stream(&node, "strict").await;
    // The bound is reached half a second from now, without anything else that happens.
    let now_ms = crate::sync::last_known_good::now_ms();
    node.node.contact.begin(now_ms - 59_500, now_ms);
    assert_eq!(status(&node, "strict").await, 200);
    let ended = timeout(DEADLINE, end_of(strict)).await?;
    assert!(matches!(ended, Some(BodyError::Cut(_))), "{ended:?}");
    let ended = timeout(DEADLINE, end_of(conversation)).await?;
    assert!(ended.is_none(), "{ended:?}");

    let refused = ask(&node, "strict", "tools/list", json!({})).await;
    assert_eq!(refused.status(), 503);
    let body = refused.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let mut body: Value = serde_json::from_slice(&body)?;
    assert!(body["error"]["data"]["decisionId"].take().is_string(), "{body}");
    let message = "this node has heard from no control plane for longer than the tenant allows; try again later, \
                   or at another node";
    let data = json!({"rejection": "stale", "decisionId": null});
    let error = json!({"code": -31504, "message": message, "data": data});
    // Refused before the body was read, so without the request's id.
    assert_eq!(body, json!({"jsonrpc": "2.0", "id": null, "error": error}));

    // A tenant without a bound is served for ever.
    assert_eq!(status(&node, "lenient").await, 200);
    node.node.contact.begin(now_ms - 10 * 24 * 3_600_000, now_ms);
    assert_eq!((status(&node, "strict").await, status(&node, "lenient").await), (503, 200));
    let mut lenient = pin!(lenient);
    let first = lenient.frame().await.ok_or("a frame")?;
    assert!(first.is_ok(), "{first:?}");

    // Any control plane will do, and what begins then is not cut.
    node.node.contact.hears();
    assert_eq!(status(&node, "strict").await, 200);
    let mut strict = pin!(listen(&node, "strict").await);
    assert!(matches!(strict.frame().await, Some(Ok(_))));
    node.kill().await;
    Ok(())
}

#[tokio::test]
async fn a_node_that_starts_long_after_it_heard_refuses_at_once() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster();
    let member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &HOW, &member.url()).await?;
    node.reaches(revision).await;
    node.end().await;
    drop(member);

    let node = Following::start(directory.path(), &HOW, NOWHERE).await?;
    let now_ms = crate::sync::last_known_good::now_ms();
    for (heard_at_ms, expected) in [
        (now_ms - 50_000, 200),
        (now_ms - 60_000, 503),
        // The clock went back since.
        (now_ms + 60_000, 503),
        (0, 503),
    ] {
        node.node.contact.begin(heard_at_ms, now_ms);
        assert_eq!(status(&node, "strict").await, expected, "heard at {heard_at_ms}, started at {now_ms}");
        assert_eq!(status(&node, "lenient").await, 200);
    }
    node.end().await;
    Ok(())
}
