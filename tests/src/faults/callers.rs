//! Agents that call a tool through any node, all the time; and look how new the configuration is that it serves by.
//!
//! A call goes to one node after the other, in any order, until one takes the connection; what has been sent is not sent
//! again. So a call has a live node to go to when one took no fault while it was tried: a node that was live from
//! before the connection was asked for until the attempt failed must not have refused it, and one that had no fault
//! meanwhile must answer what was sent. [`Life::judge`](super::oracle::Life::judge) is that rule.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::fleet::agent_address;
use super::ledger::Ledger;
use super::oracle::{Attempt, State};
use super::random::Random;
use super::writers::{MARKER, MARKER_TOOL};
use super::{ENDPOINT, NODES, TENANT};
use crate::agent::{Agent, Message, Protocol};

/// How often a caller begins.
const CALL_INTERVAL: Duration = Duration::from_millis(40);
/// How long a connection may take; one to a node whose link is down takes all of it.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take, on a machine that does much else.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// One call of so many looks at the configuration too.
const MARKER_SHARE: u64 = 4;

/// Calls until the ledger stops it.
pub async fn call(ledger: Arc<Ledger>, key: String, number: usize, seed: u64) {
    let mut random = Random(seed.wrapping_add(number as u64));
    let mut ticks = interval(CALL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0;
    while ledger.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        count += 1;
        let nodes = random.some(NODES, NODES);
        one_call(&ledger, &key, &nodes, count).await;
    }
}

async fn one_call(ledger: &Ledger, key: &str, nodes: &[usize], count: u64) {
    for node in nodes.iter().copied() {
        let (begin, start) = ledger.with(|told| (told.lives[node], told.node_starts[node]));
        let mut attempt = attempt(node, key, count).await;
        if let Ok(agent) = &mut attempt
            && count.is_multiple_of(MARKER_SHARE)
        {
            look(ledger, key, (node, start), agent).await;
        }
        let failed = ledger.with(|told| match &attempt {
            Ok(_) => {
                told.counts.calls += 1;
                None
            }
            Err(Attempt::NotConnected(_)) => {
                told.counts.passed_on += 1;
                None
            }
            Err(Attempt::Broken(_)) => {
                told.counts.excused += 1;
                Some(())
            }
        });
        let Err(attempt) = attempt else { return };
        let end = ledger.with(|told| told.lives[node]);
        ledger.judge(begin.judge(&format!("node-{}", node + 1), &attempt, end));
        if failed.is_some() {
            return;
        }
    }
    ledger.with(|told| told.counts.excused += 1);
}

/// One call at one node; the connection, when it was answered.
async fn attempt(node: usize, key: &str, count: u64) -> Result<Agent, Attempt> {
    let mut agent = connect(agent_address(node), ENDPOINT).await?;
    let message = Message::call("add", json!({"a": count, "b": 1})).with_key(key);
    let answer = timeout(ANSWER_TIME_MAX, agent.ask(&message)).await;
    let answer = answer.map_err(|_| Attempt::Broken(format!("no answer within {ANSWER_TIME_MAX:?}")))?;
    let answer = answer.map_err(|error| Attempt::Broken(crate::peers::chain(&error)))?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let wrong = || Attempt::Broken(format!("status {}: {body}", answer.status));
    if answer.status != 200 {
        return Err(wrong());
    }
    let last = answer.messages().pop();
    let sum = last.as_ref().and_then(|message| message.pointer("/result/structuredContent/sum"));
    if sum.and_then(Value::as_u64) == Some(count + 1) { Ok(agent) } else { Err(wrong()) }
}

async fn connect(address: SocketAddr, endpoint: &str) -> Result<Agent, Attempt> {
    let not_connected = |why: String| Attempt::NotConnected(why);
    let stream = timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| not_connected(format!("no connection within {CONNECT_TIME_MAX:?}")))?;
    let stream = stream.map_err(|error| not_connected(format!("cannot connect: {error}")))?;
    let url = format!("http://{address}/{TENANT}/{endpoint}/mcp");
    let agent = Agent::over(stream, &url, Protocol::Http1).await;
    agent.map_err(|error| not_connected(crate::peers::chain(&error)))
}

/// Looks at the marker by a connection that just served; without an answer there is nothing to learn.
async fn look(ledger: &Ledger, key: &str, (node, start): (usize, u64), agent: &mut Agent) {
    let before = ledger.with(|told| told.served.get(&(node, start)).copied().unwrap_or_default().known());
    let message = Message::modern("tools/list", json!({})).with_key(key);
    agent.go_to(&format!("/{TENANT}/{MARKER}/mcp"));
    let Ok(Ok(answer)) = timeout(ANSWER_TIME_MAX, agent.ask(&message)).await else { return };
    if answer.status != 200 {
        return;
    }
    let messages = answer.messages();
    let tools = messages.last().and_then(|message| message.pointer("/result/tools")?.as_array());
    let names = tools.into_iter().flatten().filter_map(|tool| tool["name"].as_str());
    let mut numbers = names.filter_map(|name| name.strip_prefix(MARKER_TOOL)?.parse().ok());
    let Some(number) = numbers.next() else { return };
    let judged = ledger.with(|told| {
        told.counts.looks += 1;
        if told.node_starts[node] != start {
            return Ok(());
        }
        let what = format!("node-{}, by the tools that it lists,", node + 1);
        told.served.entry((node, start)).or_default().observe(&what, before, number)
    });
    ledger.judge(judged);
}

/// Whether a node answers a call now. It is to be live from then on.
pub async fn answers(ledger: &Ledger, node: usize, key: &str) -> Option<()> {
    attempt(node, key, 1).await.ok()?;
    ledger.node_becomes(node, State::Live);
    Some(())
}
