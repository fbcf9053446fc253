//! An agent's key: good at once when it is made, good for nothing within a second when it is revoked.

use std::time::{Duration, Instant};

use gantry_tests::agent::{Message, Protocol};
use gantry_tests::eventually::eventually;
use gantry_tests::governed::Governed;
use serde_json::{Value, json};

/// The bar for a key that was made or revoked.
const IN_FORCE_MAX: Duration = Duration::from_secs(1);

fn list(key: &str) -> Message {
    Message::modern("tools/list", json!({})).with_key(key)
}

async fn create(governed: &Governed, more: &[&str]) -> String {
    let arguments = [&["key", "create", "--agent", "demo-agent"], more].concat();
    governed.admin(&arguments, "").await.trim().to_owned()
}

#[tokio::test]
async fn a_key_works_when_it_is_made_and_stops_within_a_second_when_it_is_revoked() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let key = create(&governed, &[]).await;
    eventually("the new key to work", IN_FORCE_MAX, async || {
        (agent.ask(&list(&key)).await.expect("an answer").status == 200).then_some(())
    })
    .await;
    let id = key.split('_').nth(1).expect("gantry_ID_SECRET").to_owned();
    // The command ends when the change is stored; from then on the second runs.
    governed.admin(&["key", "revoke", &id], "").await;
    let stored = Instant::now();
    let refused = eventually("the revoked key to be refused", IN_FORCE_MAX, async || {
        let answer = agent.ask(&list(&key)).await.expect("an answer");
        (answer.status == 403).then_some(answer)
    })
    .await;
    println!("a revoked key was refused {:?} after the command ended", stored.elapsed());
    let refused: Value = serde_json::from_slice(&refused.body).expect("JSON");
    let error = &refused["error"];
    assert_eq!((&error["code"], &error["message"]), (&json!(-31410), &json!("the agent key is revoked")));
    // Another key of the same agent is not concerned.
    assert_eq!(agent.ask(&list(governed.key())).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_key_stops_by_itself_when_it_expires() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let key = create(&governed, &["--expires", "1s"]).await;
    eventually("the key to expire", Duration::from_secs(10), async || {
        (agent.ask(&list(&key)).await.expect("an answer").status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn revoking_a_key_that_is_not_there_says_so() {
    let governed = Governed::start().await;
    let refused = governed.dev().admin(&["key", "revoke", "0123456789abcdef"]).await.expect("it ends");
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("has no key 0123456789abcdef"), "{}", refused.stderr);
}
