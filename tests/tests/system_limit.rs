//! Limits over several nodes: one budget, wherever calls arrive.

use std::time::{Duration, Instant};

use gantry_tests::agent::{Agent, Message, Protocol};
use gantry_tests::cluster::Cluster;
use gantry_tests::dev::Options;
use gantry_tests::eventually::eventually;
use gantry_tests::fixture;
use gantry_tests::governed::Governed;
use serde_json::json;

const RATE: usize = 40;
const BURST: usize = 4;
/// How long calls are made.
const SPAN: Duration = Duration::from_secs(4);

/// A call of one client: when it was sent, and when it was answered.
struct Admitted {
    sent: Instant,
    answered: Instant,
}

/// Calls at one node for a while, as fast as answers come; returns those that were let through, and how many were not.
async fn call(url: String, key: String, until: Instant) -> (Vec<Admitted>, usize) {
    let mut agent = Agent::connect(&url, Protocol::Http1).await.expect("the node is reached");
    let add = Message::call("add", json!({"a": 2, "b": 3})).with_key(&key);
    let (mut admitted, mut refused) = (Vec::new(), 0);
    while Instant::now() < until {
        let sent = Instant::now();
        let answer = agent.ask(&add).await.expect("an answer");
        match answer.status {
            200 => admitted.push(Admitted { sent, answered: Instant::now() }),
            429 => {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                refused += 1;
            }
            status => panic!("{status}: {answer:?}"),
        }
    }
    (admitted, refused)
}

/// No window has more than the limit allows.
///
/// What is admitted between two moments was sent after the first and answered before the second, or is at an edge: a window
/// that is certain to have them all may be longer than seen from here, never shorter.
fn check_windows(admitted: &mut [Admitted]) {
    admitted.sort_by_key(|call| call.answered);
    for index in 0..admitted.len() {
        let mut from = admitted[index].sent;
        for (count, last) in (1_usize..).zip(&admitted[index..]) {
            from = from.min(last.sent);
            let most = BURST as f64 + RATE as f64 * (last.answered - from).as_secs_f64();
            // One call for each node may be on its way with a token that was lent before.
            assert!(count as f64 <= most + 3.0, "{count} calls in {:?}", last.answered - from);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_all_nodes_together_stay_within_the_limit_and_use_it() {
    let governed = Governed::start_with(Options { nodes: Some(3), ..Options::default() }).await;
    let limit = format!(
        "{{kind: Limit, tenant: dev, name: calm, spec: {{per: [agent], calls: {RATE}, window_seconds: 1, burst: {BURST}}}}}"
    );
    governed.apply(&limit).await;
    let nodes = &governed.dev().ready().nodes;
    assert_eq!(nodes.len(), 3);
    let until = Instant::now() + SPAN;
    let callers: Vec<_> = nodes
        .iter()
        .map(|node| tokio::spawn(call(node.endpoints["fixture"].clone(), governed.key().to_owned(), until)))
        .collect();
    let (mut admitted, mut served) = (Vec::new(), 0);
    for caller in callers {
        let (calls, refused) = caller.await.expect("a caller");
        assert!(refused > 0, "each node refuses some");
        served += usize::from(!calls.is_empty());
        admitted.extend(calls);
    }
    assert_eq!(served, 3, "each node lets some through");
    check_windows(&mut admitted);
    let all = RATE as f64 * SPAN.as_secs_f64();
    assert!(admitted.len() as f64 >= 0.6 * all, "{} calls of {all}", admitted.len());
    let counted = governed.server().calls("add", &json!({"a": 2, "b": 3}));
    assert_eq!(counted, admitted.len(), "what was refused did not arrive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_and_is_used_when_a_node_dies_that_owned_keys() {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let servers = vec![("fixture".to_owned(), server.url())];
    let mut cluster = Cluster::start(Options { servers, ..Options::default() }).await;
    // Several keys, so that it is nearly certain that the node owns one; a call takes of all or of none.
    let limits: Vec<String> = ["a", "b", "c", "d", "e", "f"]
        .iter()
        .map(|name| {
            let spec = format!("{{calls: {RATE}, window_seconds: 1, burst: {BURST}}}");
            format!("{{kind: Limit, tenant: dev, name: {name}, spec: {spec}}}\n")
        })
        .collect();
    let nodes = cluster.nodes();
    let documents = limits.join("---\n");
    let applied = nodes.dev().admin_with_input(&["apply", "-f", "-", "--wait"], documents.as_bytes()).await;
    let applied = applied.expect("it ends");
    assert!(applied.status.success(), "{}", applied.stderr);
    let (key, addresses) = (nodes.key(), nodes.addresses());
    let path = nodes.endpoint().splitn(4, '/').nth(3).expect("a path").to_owned();
    let began = Instant::now();
    let callers: Vec<_> = [0, 2, 0, 2, 0, 2]
        .iter()
        .map(|node| {
            let url = format!("http://{}/{path}", addresses[*node]);
            tokio::spawn(call(url, key.clone(), began + 2 * SPAN))
        })
        .collect();
    let is_used = async || (server.calls("add", &json!({"a": 2, "b": 3})) >= RATE).then_some(());
    eventually("the limit to be used", SPAN, is_used).await;
    nodes.kill(1).await;
    let killed = Instant::now();
    let mut admitted = Vec::new();
    for caller in callers {
        admitted.extend(caller.await.expect("a caller").0);
    }
    check_windows(&mut admitted);
    let (from, until) = (killed + Duration::from_secs(2), began + 2 * SPAN);
    let after = admitted.iter().filter(|call| call.answered > from).count();
    let all = RATE as f64 * (until - from).as_secs_f64();
    assert!(after as f64 >= 0.5 * all, "{after} calls of {all} after a node died");
}
