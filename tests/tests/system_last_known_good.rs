//! A node that is started while there is no control plane.

use std::fs;
use std::time::{Duration, Instant};

use gantry_tests::agent::{Agent, Message, Protocol};
use gantry_tests::cluster::Cluster;
use gantry_tests::dev::Options;
use gantry_tests::eventually::eventually;
use gantry_tests::fixture;
use serde_json::json;

/// From the start of the process to the answer of a server.
const BOOT_TIME_MAX: Duration = Duration::from_millis(500);
/// For a debug build on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_a_control_plane_and_serves_what_it_served() {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let servers = vec![("fixture".to_owned(), server.url())];
    let mut cluster = Cluster::start(Options { servers, ..Options::default() }).await;
    let key = cluster.nodes().key();
    let url = |cluster: &mut Cluster| {
        let nodes = cluster.nodes();
        let (first, second) = (nodes.addresses()[0].to_string(), nodes.addresses()[1].to_string());
        nodes.endpoint().replace(&first, &second)
    };
    let add = Message::call("add", json!({"a": 2, "b": 3})).with_key(&key);
    let sum = async |url: &str| {
        let mut agent = Agent::connect(url, Protocol::Http1).await.ok()?;
        let answer = agent.ask(&add).await.ok()?;
        answer.messages().last()?.pointer("/result/structuredContent/sum").cloned()
    };
    let before = url(&mut cluster);
    assert_eq!(sum(&before).await, Some(json!(5)));
    let kept = cluster.nodes().data_dir(1).join("last-known-good");
    eventually("a file to start from", PATIENCE, async || {
        fs::read_dir(&kept)
            .ok()?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().ends_with(".bin"))
    })
    .await;
    cluster.nodes().kill(0).await;
    cluster.nodes().kill(1).await;

    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        cluster.nodes().restart(1).await;
        let after = url(&mut cluster);
        let answer = sum(&after).await;
        times.push(started.elapsed());
        assert_eq!(answer, Some(json!(5)), "{}", cluster.nodes().output());
        cluster.nodes().kill(1).await;
    }
    times.sort_unstable();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "from the start of a node's process, without a control plane, to the first proxied answer: median {:?} of \
         {times:?} ({build} build)",
        times[times.len() / 2]
    );
    let bound = if cfg!(debug_assertions) { PATIENCE } else { BOOT_TIME_MAX };
    assert!(times[times.len() / 2] <= bound, "{times:?}");

    // With the control plane back, the node is its again.
    cluster.nodes().restart(1).await;
    cluster.nodes().restart(0).await;
    let follows = eventually("the node in the control plane's list", PATIENCE, async || {
        let status = cluster.nodes().dev().admin(&["status", "-o", "json"]).await.ok()?;
        status.stdout.contains("node-1").then_some(())
    });
    follows.await;
}
