//! A server as a child process of the gateway: one process for all callers, started again when it dies.

use std::time::{Duration, Instant};

use gantry_tests::agent::{Agent, Events, Message, Protocol};
use gantry_tests::audit::Trail;
use gantry_tests::dev::{Dev, Options, sibling};
use gantry_tests::eventually::eventually;
use gantry_tests::governed;
use gantry_tests::process;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

/// How long the process may be away after it was killed. The first pause before a start takes 0.2 s.
const AWAY_TIME_MAX: Duration = Duration::from_secs(20);

/// How long one answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// What a process of a server may inherit, as the README of the data plane has it; `_` is set by some shells.
const INHERITED: [&str; 9] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TMPDIR", "SHELL", "_"];

async fn start() -> Dev {
    let program = sibling("stdio-server").expect("the server's path");
    let command = shell_words::quote(&program.to_string_lossy()).into_owned();
    governed::start(&Options { stdio: vec![("child".to_owned(), command)], ..Options::default() }).await
}

async fn connect(dev: &Dev) -> Agent {
    Agent::connect(&dev.ready().endpoint, Protocol::Http1).await.expect("the endpoint is reached")
}

/// A call of a tool. Every caller uses the same id and the same progress token.
fn call(dev: &Dev, tool: &str, arguments: Value, progress: bool) -> Message {
    let mut params = json!({"name": tool, "arguments": arguments});
    if progress {
        params["_meta"] = json!({"progressToken": "same"});
    }
    let key = dev.ready().agent_key.as_deref().expect("a key");
    Message::legacy(&json!({"jsonrpc": "2.0", "id": "same", "method": "tools/call", "params": params}))
        .with_key(key)
}

/// The answer of a call without progress.
async fn ask(agent: &mut Agent, message: &Message) -> Value {
    let answer = timeout(ANSWER_TIME_MAX, agent.ask(message)).await.expect("an answer in time");
    answer.expect("the connection holds").json()
}

fn result(text: &str) -> Value {
    let result = json!({"content": [{"type": "text", "text": text}]});
    json!({"jsonrpc": "2.0", "id": "same", "result": result})
}

/// What the process tells of itself; null when there is none.
async fn who(dev: &Dev, agent: &mut Agent) -> Value {
    let who = ask(agent, &call(dev, "who", json!({}), false)).await;
    who["result"]["structuredContent"].clone()
}

/// Whether a process runs. One that has ended and that nobody has asked about yet does not.
async fn is_alive(pid: u64) -> bool {
    let mut ps = Command::new("ps");
    ps.args(["-o", "stat=", "-p", &pid.to_string()]);
    let state = process::run(ps, ANSWER_TIME_MAX).await.expect("ps runs").stdout;
    !state.trim().is_empty() && !state.trim_start().starts_with('Z')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_with_its_progress_and_the_process_inherits_little() {
    let dev = start().await;
    let mut agent = connect(&dev).await;
    let steps = call(&dev, "steps", json!({}), true);
    let mut events = Events::of(agent.send(&steps).await.expect("an answer begins"));
    let mut seen = Vec::new();
    while let Some(event) = timeout(ANSWER_TIME_MAX, events.next()).await.expect("in time").expect("it holds")
    {
        seen.push(event);
    }
    let step = |done: u64| {
        let params = json!({"progressToken": "same", "progress": done, "total": 3});
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    };
    assert_eq!(seen, [step(1), step(2), step(3), result("done")]);

    let who = who(&dev, &mut agent).await;
    let variables = who["variables"].as_array().expect("variables");
    let others: Vec<_> = variables
        .iter()
        .filter(|name| !name.as_str().is_some_and(|name| INHERITED.contains(&name)))
        .collect();
    assert_eq!(others, Vec::<&Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_with_the_same_id_and_token_get_each_their_own_answer() {
    let dev = start().await;
    let held: Vec<_> = (0..8)
        .map(|number| {
            let hold = call(&dev, "hold", json!({"name": format!("caller {number}")}), number % 2 == 0);
            let endpoint = dev.ready().endpoint.clone();
            tokio::spawn(async move {
                let mut agent = Agent::connect(&endpoint, Protocol::Http1).await.expect("a connection");
                ask(&mut agent, &hold).await
            })
        })
        .collect();
    let release = call(&dev, "release", json!({"count": 8}), false);
    assert_eq!(ask(&mut connect(&dev).await, &release).await, result("released"));
    for (number, held) in held.into_iter().enumerate() {
        let answer =
            timeout(ANSWER_TIME_MAX, held).await.expect("in time").expect("the caller did not panic");
        assert_eq!(answer, result(&format!("caller {number}")));
    }
    let records = Trail::below(dev.data_dir()).at_least(9).await;
    let outcomes: Vec<_> = records.iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ok"; 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_is_started_again_and_its_calls_are_told() {
    let dev = start().await;
    let mut agent = connect(&dev).await;
    let first = who(&dev, &mut agent).await["pid"].as_u64().expect("a process");
    let hold = call(&dev, "hold", json!({"name": "lost"}), false);
    let endpoint = dev.ready().endpoint.clone();
    let held = tokio::spawn(async move {
        let mut agent = Agent::connect(&endpoint, Protocol::Http1).await.expect("a connection");
        ask(&mut agent, &hold).await
    });
    eventually("the held call to be at the process", ANSWER_TIME_MAX, async || {
        (who(&dev, &mut agent).await["held"] == 1).then_some(())
    })
    .await;
    let killed = Command::new("kill").args(["-9", &first.to_string()]).status().await.expect("kill runs");
    assert!(killed.success());
    let began = Instant::now();
    let mut error =
        timeout(ANSWER_TIME_MAX, held).await.expect("in time").expect("no panic")["error"].clone();
    error["data"].take();
    assert_eq!(error, json!({"code": -31502, "message": "the server cannot be reached", "data": null}));
    let second = eventually("the process to be back", AWAY_TIME_MAX, async || {
        who(&dev, &mut agent).await["pid"].as_u64()
    })
    .await;
    println!("a killed process was back after {:?}", began.elapsed());
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_ends_with_the_gateway_however_that_ends() {
    for is_asked in [true, false] {
        let dev = start().await;
        let child = who(&dev, &mut connect(&dev).await).await["pid"].as_u64().expect("a process");
        assert!(is_alive(child).await);
        if is_asked {
            assert!(dev.terminate().await.expect("it ends").success());
        } else {
            dev.kill().await.expect("it is killed");
        }
        eventually("the process to end", AWAY_TIME_MAX, async || (!is_alive(child).await).then_some(()))
            .await;
    }
}
