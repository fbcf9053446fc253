//! Several nodes behind a balancer that sends every request to another one.

use std::collections::BTreeSet;

use gantry_tests::agent::{Agent, Answer, Message, Protocol};
use gantry_tests::balancer::Counts;
use gantry_tests::cluster::{Cluster, NODES};
use gantry_tests::dev::Options;
use gantry_tests::fixture;
use gantry_tests::governed;
use serde_json::{Value, json};

fn options(server: &fixture::Server) -> Options {
    Options { servers: vec![("fixture".to_owned(), server.url())], ..Options::default() }
}

fn sum_of(answer: &Answer) -> Option<Value> {
    answer.messages().last()?.pointer("/result/structuredContent").cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_connection_go_to_every_node_and_pass_over_a_killed_one() {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let mut cluster = Cluster::start(options(&server)).await;
    let key = cluster.nodes().key();
    let mut agent = Agent::connect(&cluster.url(), Protocol::Http1).await.expect("the balancer is reached");
    let add = Message::call("add", json!({"a": 2, "b": 3})).with_key(&key);
    let sums = async |agent: &mut Agent, count: usize| {
        for _ in 0..count {
            let answer = agent.ask(&add).await.expect("an answer");
            assert_eq!(sum_of(&answer), Some(json!({"sum": 5})), "{answer:?}");
        }
    };

    // All three in turn.
    sums(&mut agent, 2 * NODES).await;
    let even = Counts { by_node: vec![2; NODES], untaken: 0, broken: 0 };
    assert_eq!(cluster.balancer().counts(), even);

    // One is gone, and with it another time the control plane; the others take its requests.
    cluster.nodes().kill(1).await;
    sums(&mut agent, NODES).await;
    let without = Counts { by_node: vec![3, 2, 4], untaken: 0, broken: 0 };
    assert_eq!(cluster.balancer().counts(), without);
    cluster.nodes().restart(1).await;
    cluster.nodes().kill(0).await;
    sums(&mut agent, NODES).await;

    // It is back at the same address, with what it had stored.
    cluster.nodes().restart(0).await;
    sums(&mut agent, NODES).await;
    let counts = cluster.balancer().counts();
    assert_eq!((counts.untaken, counts.broken, counts.by_node.iter().sum()), (0, 0, 5 * NODES));
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_runs_several_nodes_that_serve_the_same() {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let dev = governed::start(&Options { nodes: Some(3), ..options(&server) }).await;
    let nodes = &dev.ready().nodes;
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["dev", "dev-2", "dev-3"]);
    let urls: BTreeSet<_> = nodes.iter().map(|node| node.endpoints["fixture"].as_str()).collect();
    assert_eq!(urls.len(), nodes.len());
    let key = dev.ready().agent_key.clone().expect("an agent key");
    for url in urls {
        let mut agent = Agent::connect(url, Protocol::Http1).await.expect("the node is reached");
        let add = Message::call("add", json!({"a": 2, "b": 3})).with_key(&key);
        let answer = agent.ask(&add).await.expect("an answer");
        assert_eq!(sum_of(&answer), Some(json!({"sum": 5})), "{answer:?}");
    }
}
