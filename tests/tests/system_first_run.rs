//! What a newcomer does: starts `gantry dev` in an empty folder, and runs what it prints, as it is printed.

use std::path::Path;
use std::time::Duration;

use gantry_tests::agent::{Agent, Message, Protocol};
use gantry_tests::dev::{command, sibling};
use gantry_tests::process::{self, Finished, Running, Stream};
use serde_json::{Value, json};
use tokio::process::Command;

/// How long a start, an end or a command may take. Each takes a fraction of a second.
const TIME_MAX: Duration = Duration::from_secs(60);

/// What `dev` is started with besides: other ports than 8080 and 8081, which may be taken here.
const PORTS: [&str; 5] = ["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// The last line of what people are told.
const LAST_LINE: &str = "Ctrl-C stops it.";

/// `gantry` in a folder, with nothing but the folder to find its data by.
fn gantry(folder: &Path) -> Command {
    let program = sibling("gantry-under-test").expect("the program's path");
    let mut command = command(&program, &folder.join(".gantry"));
    command.current_dir(folder).args(PORTS);
    command
}

/// Runs a line as it is printed, in a shell in that folder.
async fn run_line(folder: &Path, line: &str) -> (Option<i32>, String, String) {
    let mut shell = command(Path::new("sh"), &folder.join(".gantry"));
    shell.current_dir(folder).args(["-c", line]);
    let Finished { status, stdout, stderr } = process::run(shell, TIME_MAX).await.expect("a shell runs");
    (status.code(), stdout, stderr)
}

/// Starts it as people do; returns what it tells them.
async fn start_for_people(folder: &Path) -> (Running, String) {
    let ready = |stream, line: &str| (stream == Stream::Out && line.starts_with(LAST_LINE)).then_some(());
    let (running, ()) = Running::start(gantry(folder), TIME_MAX, ready).await.expect("it starts");
    let told = running.output();
    (running, told)
}

/// Starts it as programs do; returns its one line.
async fn start_for_programs(folder: &Path) -> (Running, Value) {
    let mut command = gantry(folder);
    command.args(["--output", "json"]);
    let ready = |stream, line: &str| (stream == Stream::Out).then(|| line.to_owned());
    let (running, line) = Running::start(command, TIME_MAX, ready).await.expect("it starts");
    (running, serde_json::from_str(&line).expect("the line is JSON"))
}

/// The value after a label of what people are told.
fn told<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(label));
    line.expect("a line with that label").trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_a_first_start_prints_work_as_printed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let (running, text) = start_for_people(folder).await;
    let (_, commands) = text.split_once("Try next, in another terminal:\n\n").expect("what to try");
    let commands: Vec<_> = commands.lines().take_while(|line| !line.is_empty()).collect();
    let [allowed, denied, explain] = commands.as_slice() else { panic!("{text}") };
    assert!(allowed.ends_with("# allowed"), "{allowed}");
    assert!(denied.ends_with("# denied by the policy no-destructive-tools"), "{denied}");
    assert!(explain.ends_with("# why it was denied"), "{explain}");

    let note = "Welcome\n\nThis note was read through Gantry: the call was identified, authorised, checked, metered \
                and recorded.\n";
    assert_eq!(run_line(folder, allowed).await, (Some(0), note.to_owned(), String::new()));

    let (code, stdout, stderr) = run_line(folder, denied).await;
    let id = stderr.lines().nth(1).and_then(|line| line.strip_prefix("  decision ")).expect("an id");
    let expected = format!(
        "error: tools/call of \"delete_note\" is denied: a policy forbids it
  decision {id}
next: `gantry policy explain {id}`
"
    );
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(4), "", expected.as_str()));

    let (code, stdout, stderr) = run_line(folder, explain).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with(&format!("denied {id}\n")), "{stdout}");
    assert!(stdout.contains("  verdict    deny, because of no-destructive-tools\n"), "{stdout}");
    assert!(stdout.contains("\n  ) when { resource.destructive };\n"), "{stdout}");

    // Nothing was written besides the data directory.
    let entries =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    assert_eq!(entries.collect::<Vec<_>>(), [".gantry"]);
    assert!(running.terminate(TIME_MAX).await.expect("it ends").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_what_the_first_one_stored() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let (running, text) = start_for_people(folder).await;
    let (key, token) = (told(&text, "agent key"), told(&text, "admin token"));
    let program = sibling("gantry-under-test").expect("the program's path");
    let program = shell_words::quote(&program.to_string_lossy()).into_owned();
    let document =
        r#"{"kind": "Limit", "tenant": "demo", "name": "mine", "spec": {"calls": 9, "window_seconds": 9}}"#;
    let apply = format!("echo '{document}' | {program} apply -f -");
    assert_eq!(run_line(folder, &apply).await.0, Some(0));
    let get = format!("{program} get all -o json");
    let (_, stored, _) = run_line(folder, &get).await;
    assert!(running.terminate(TIME_MAX).await.expect("it ends").success());

    let (running, line) = start_for_programs(folder).await;
    let endpoint = line["endpoint"].as_str().expect("an endpoint");
    let expected = json!({
        "endpoint": endpoint,
        "endpoints": {"main": endpoint},
        "agent_key": key,
        "admin_address": line["admin_address"],
        "admin_token": token,
        "pid": running.id(),
        "client_config": {"mcpServers": {"gantry-demo": {
            "type": "http", "url": endpoint, "headers": {"Authorization": format!("Bearer {key}")},
        }}},
        "tenant": "demo",
        "agent": "demo-agent",
        "context": ".gantry/context.json",
        "nodes": [{"name": "dev", "endpoints": {"main": endpoint}}],
        "node_token_file": ".gantry/node-token",
    });
    assert_eq!(line, expected);
    // The demo server listens elsewhere now; everything else is as it was.
    let server = |text: &str| -> Vec<Value> {
        let resources: Vec<Value> = serde_json::from_str(text).expect("resources are JSON");
        resources.into_iter().filter(|resource| resource["kind"] != "Server").collect()
    };
    assert_eq!(server(&run_line(folder, &get).await.1), server(&stored));

    // What is printed for a client is all that it needs.
    let config = &line["client_config"]["mcpServers"]["gantry-demo"];
    let url = config["url"].as_str().expect("a URL");
    let authorization = config["headers"]["Authorization"].as_str().expect("a header");
    let mut agent = Agent::connect(url, Protocol::Http1).await.expect("the endpoint is reached");
    let call = Message::call("add", json!({"a": 2, "b": 3})).with("authorization", authorization);
    let answer = agent.ask(&call).await.expect("an answer");
    assert_eq!((answer.status, &answer.json()["result"]["structuredContent"]), (200, &json!({"sum": 5.0})));
    assert!(running.terminate(TIME_MAX).await.expect("it ends").success());
}
