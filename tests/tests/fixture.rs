//! The fixture server as a process of its own.

use std::process::Stdio;
use std::time::Duration;

use gantry_tests::process;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// The time it may take to start or to end; both take milliseconds.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Starts the server and waits for the one line that it prints.
async fn start() -> (Child, ChildStdin, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fixture-server"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the fixture server starts");
    let input = child.stdin.take().expect("its input is a pipe");
    let output = child.stdout.take().expect("its output is a pipe");
    let mut line = String::new();
    timeout(TIME_MAX, BufReader::new(output).read_line(&mut line))
        .await
        .expect("it prints its URL in time")
        .expect("its output can be read");
    (child, input, line)
}

async fn ends_well(mut child: Child) -> bool {
    let ended = timeout(TIME_MAX, child.wait()).await;
    ended.expect("it ends in time").expect("it ends").success()
}

#[tokio::test]
async fn the_process_prints_its_url_and_ends_when_its_input_closes() {
    let (child, input, line) = start().await;
    let port = line
        .strip_prefix("http://127.0.0.1:")
        .and_then(|rest| rest.strip_suffix("/mcp\n"))
        .and_then(|port| port.parse::<u16>().ok());
    assert!(port.is_some_and(|port| port != 0), "{line:?}");
    drop(input);
    assert!(ends_well(child).await);
}

#[tokio::test]
async fn the_process_ends_when_it_is_asked_to() {
    let (child, _input, _) = start().await;
    let id = child.id().expect("it runs").to_string();
    let mut kill = Command::new("kill");
    kill.args(["-TERM", &id]);
    let killed = process::run(kill, TIME_MAX).await.expect("kill runs");
    assert!(killed.status.success());
    assert!(ends_well(child).await);
}

#[test]
fn the_catalog_lists_every_tool_once() {
    let catalog: Value =
        serde_json::from_str(include_str!("../src/fixture/catalog.json")).expect("the catalog is JSON");
    let tools = catalog["tools"].as_array().expect("a list of tools");
    let mut names: Vec<_> =
        tools.iter().map(|tool| tool["definition"]["name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
