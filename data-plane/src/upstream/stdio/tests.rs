//! Processes of scripted programs: what a caller sees of each kind, and what is left when the caller goes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gantry_model::resource::{Inspection, ServerSpec, Transport};
use serde_json::{Value, json};

use super::*;
use crate::config::inspection::Inspections;
use crate::mcp::message::Method;
use crate::upstream::exchange::{Ask, Exchange};
use crate::upstream::health::Health;
use crate::upstream::session::{AskFailure, LegacySession, Opening};
use crate::upstream::stdio::probe::Probed;
use crate::upstream::stdio::session::StdioSession;

/// An id that no other request has.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// How long anything here may take; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every scripted program begins with. `id` is the id of the line as raw JSON, which stands second in what the
/// gateway writes.
const PRELUDE: &str = r#"
say() { printf '%s\n' "$1"; }
result() { say "{\"jsonrpc\":\"2.0\",\"id\":$1,\"result\":$2}"; }
unknown() { say "{\"jsonrpc\":\"2.0\",\"id\":$1,\"error\":{\"code\":-32601,\"message\":\"unknown\"}}"; }
initialized='{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"script","version":"1"}}'
discovered='{"supportedVersions":["2026-07-28"],"capabilities":{},"serverInfo":{"name":"script","version":"1"}}'
next() { IFS= read -r line || exit 0; id=${line#*\"id\":}; id=${id%%,*}; }
"#;

/// A legacy server; `more` has more cases of a line.
fn legacy(more: &str) -> String {
    format!(
        r#"while next; do case "$line" in
        *'"initialize"'*) result "$id" "$initialized" ;;
        *notifications/initialized*) ;;
        {more}
        *'"who"'*) result "$id" "{{\"pid\":$$}}" ;;
        *'"id"'*) unknown "$id" ;;
        esac; done"#
    )
}

/// A modern server.
fn modern(more: &str) -> String {
    format!(
        r#"while next; do case "$line" in
        *'"server/discover"'*) result "$id" "$discovered" ;;
        {more}
        *'"who"'*) result "$id" "{{\"pid\":$$}}" ;;
        *'"id"'*) unknown "$id" ;;
        esac; done"#
    )
}

fn server(script: &str) -> Server {
    let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("{PRELUDE}\n{script}")];
    let transport = Transport::Stdio { command, environment: BTreeMap::new() };
    let (name, spec) = ("script".parse().expect("a name"), ServerSpec::new(transport));
    Server {
        tenant: "tenant".parse().expect("a name"),
        health: Arc::new(Health::new(&name, &spec)),
        name,
        spec,
        spec_digest: [0; 32],
        inspections: Inspections::compile(&Inspection::default(), &Inspection::default())
            .expect("no patterns"),
        uri: None,
        offer: None,
        credential: None,
        check: None,
        oddities: crate::config::definitions::Oddities::none(),
    }
}

fn opening() -> Opening {
    let capabilities = serde_json::value::to_raw_value(&json!({})).expect("JSON");
    Opening { capabilities, credential: None, listens: true, timeout: PATIENCE }
}

async fn open(stdio: &Stdio, server: &Server) -> Result<LegacySession, Upstream> {
    StdioSession::open(stdio, server, &opening()).await.map(LegacySession::of)
}

fn ask(id: u64, method: &str) -> Ask {
    let params = json!({"_meta": {"progressToken": id}});
    let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let method = Method::Other(method.to_owned());
    Ask { id, method, headers: http::HeaderMap::new(), body: body.to_string().into() }
}

async fn answered(exchange: Exchange) -> Result<Value, Upstream> {
    let answer = tokio::time::timeout(PATIENCE, exchange.answer()).await.expect("an answer in time")?;
    Ok(serde_json::from_slice(&answer).expect("JSON"))
}

async fn asked(session: &LegacySession, method: &str) -> Result<Value, AskFailure> {
    let exchange = session.ask(&ask(session.next_id(), method), PATIENCE).await?;
    Ok(answered(exchange).await?["result"].clone())
}

/// The process that answers.
async fn pid(session: &LegacySession) -> u64 {
    asked(session, "who").await.expect("an answer")["pid"].as_u64().expect("a number")
}

/// Whether a process runs: one that has ended and waits for its parent does not.
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

/// Waits for what tells nobody when it comes about.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_sessions_have_a_process_each_and_a_dropped_one_leaves_none() {
    let (stdio, server) = (Stdio::new(true), server(&legacy("")));
    let one = open(&stdio, &server).await.expect("a session");
    let two = open(&stdio, &server).await.expect("a session");
    let (first, second) = (pid(&one).await, pid(&two).await);
    assert!(first != second && runs(first) && runs(second));
    drop(one);
    eventually("the first process to end", || !runs(first)).await;
    assert_eq!(pid(&two).await, second);
    two.close().await;
    assert!(!runs(second));
    assert!(two.is_over());
    let ask = ask(two.next_id(), "who");
    assert!(matches!(two.ask(&ask, PATIENCE).await, Err(AskFailure::Expired)));
}

#[tokio::test]
async fn progress_and_questions_come_before_the_answer_that_they_belong_to() {
    let script = legacy(
        r#"*'"ask"'*) call=$id
            say "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}"
            say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$id,\"progress\":1}}"
            say "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"elicitation/create\",\"params\":{}}" ;;
        *'"p"'*) ponged=true ;;
        *'"q"'*) result "$call" "{\"ponged\":$ponged}" ;;"#,
    );
    let (stdio, server) = (Stdio::new(true), server(&script));
    let session = open(&stdio, &server).await.expect("a session");
    let asking = ask(session.next_id(), "ask");
    let mut exchange = session.ask(&asking, PATIENCE).await.expect("it is sent");
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
    assert_eq!(exchange.next().await, Some(Ok(Event::Notification(progress.into()))));
    let message = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}"#;
    let question = Event::Request { id: "\"q\"".into(), message: message.into() };
    assert_eq!(exchange.next().await, Some(Ok(question)));
    session
        .tell(r#"{"jsonrpc":"2.0","id":"q","result":{"action":"accept"}}"#.into())
        .await
        .expect("it is sent");
    assert_eq!(answered(exchange).await.expect("an answer")["result"], json!({"ponged": true}));
}

#[tokio::test]
async fn a_question_that_nobody_can_answer_is_refused() {
    let script = modern(
        r#"*notifications/cancelled*) say "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}" ;;
        *'"hold"'*) ;;
        *'"q"'*-32601*) : > "$REFUSED" ;;"#,
    );
    let folder = tempfile::tempdir().expect("a folder");
    let refused = folder.path().join("refused");
    let (stdio, mut server) = (Stdio::new(true), server(&script));
    let Transport::Stdio { environment, .. } = &mut server.spec.transport else { panic!("a process") };
    environment.insert("REFUSED".to_owned(), refused.to_string_lossy().into_owned());
    let process = stdio.modern(&server).await.expect("a process");
    // The only call that is under way is cancelled, and then the process asks.
    drop(process.ask(&ask(next_id(), "hold")).expect("it is sent"));
    eventually("the question to be refused", || refused.exists()).await;
}

#[tokio::test]
async fn a_call_whose_caller_left_is_cancelled_at_once_in_both_eras() {
    let cancelled = r#"*notifications/cancelled*) gone=${line#*requestId\":}; gone=${gone%%\}*}; result "$waiting" "$gone" ;;
        *'"hold"'*) ;;
        *'"wait"'*) waiting=$id ;;"#;
    let (stdio, old) = (Stdio::new(true), server(&legacy(cancelled)));
    let session = open(&stdio, &old).await.expect("a session");
    let (held, waiting) = (ask(session.next_id(), "hold"), ask(session.next_id(), "wait"));
    let held_exchange = session.ask(&held, PATIENCE).await.expect("it is sent");
    let waiting = session.ask(&waiting, PATIENCE).await.expect("it is sent");
    drop(held_exchange);
    assert_eq!(answered(waiting).await.expect("an answer")["result"], json!(held.id));

    let (stdio, new) = (Stdio::new(true), server(&modern(cancelled)));
    let process = stdio.modern(&new).await.expect("a process");
    let (held, waiting) = (ask(next_id(), "hold"), ask(next_id(), "wait"));
    let held_exchange = process.ask(&held).expect("it is sent");
    let waiting = process.ask(&waiting).expect("it is sent");
    drop(held_exchange);
    assert_eq!(answered(waiting).await.expect("an answer")["result"], json!(held.id));
}

#[tokio::test]
async fn a_killed_process_ends_its_calls_and_is_started_again_on_demand() {
    let (stdio, server) = (Stdio::new(true), server(&modern("*'\"hold\"'*) ;; *'\"die\"'*) kill -9 $$ ;;")));
    let process = stdio.modern(&server).await.expect("a process");
    let first = answered(process.ask(&ask(next_id(), "who")).expect("sent")).await.expect("an answer");
    let held = process.ask(&ask(next_id(), "hold")).expect("it is sent");
    let killing = process.ask(&ask(next_id(), "die")).expect("it is sent");
    assert_eq!(answered(held).await, Err(Upstream::Unreachable));
    assert_eq!(answered(killing).await, Err(Upstream::Unreachable));
    assert!(process.is_over());
    let began = Instant::now();
    let again = stdio.modern(&server).await.expect("a process");
    let paused = began.elapsed();
    let second = answered(again.ask(&ask(next_id(), "who")).expect("sent")).await.expect("an answer");
    assert_ne!(first["result"], second["result"]);
    println!("a killed process was back after {paused:?}");
    drop((process, again));
    stdio.stop().await;
    let pid = second["result"]["pid"].as_u64().expect("a number");
    assert!(!runs(pid));
}

#[tokio::test]
async fn callers_of_a_modern_server_share_a_process_which_outlives_its_configuration_by_the_calls_under_way()
{
    let script =
        modern("*'\"hold\"'*) held=$id ;; *'\"let\"'*) result \"$held\" '{}'; result \"$id\" '{}' ;;");
    let (stdio, server) = (Stdio::new(true), server(&script));
    let process = stdio.modern(&server).await.expect("a process");
    assert!(Arc::ptr_eq(&process, &stdio.modern(&server).await.expect("a process")));
    let who = answered(process.ask(&ask(next_id(), "who")).expect("sent")).await.expect("an answer");
    let pid = who["result"]["pid"].as_u64().expect("a number");
    let held = process.ask(&ask(next_id(), "hold")).expect("it is sent");
    let letting = process.ask(&ask(next_id(), "let")).expect("it is sent");
    stdio.programs.clear();
    drop(process);
    assert_eq!(answered(held).await.expect("an answer")["result"], json!({}));
    assert_eq!(answered(letting).await.expect("an answer")["result"], json!({}));
    eventually("the process to end", || !runs(pid)).await;
}

async fn probe(script: &str) -> (Stdio, Server, Result<Probed, Upstream>) {
    let (stdio, server) = (Stdio::new(true), server(script));
    let probed = tokio::time::timeout(PATIENCE, stdio.probe(&server, &opening())).await.expect("in time");
    (stdio, server, probed)
}

#[tokio::test]
async fn a_modern_program_is_known_by_its_result_or_by_its_error_and_its_process_is_kept() {
    let refusing = r#"while next; do case "$line" in
        *server/discover*) say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32022,\"message\":\"no\"}}" ;;
        esac; done"#;
    for (script, has_result) in [(modern(""), true), (refusing.to_owned(), false)] {
        let (stdio, server, probed) = probe(&script).await;
        let Ok(Probed::Modern { process, discovered }) = probed else { panic!("it is modern") };
        assert_eq!(discovered.is_some(), has_result);
        assert!(Arc::ptr_eq(&process, &stdio.modern(&server).await.expect("a process")));
    }
}

#[tokio::test]
async fn a_legacy_program_is_known_by_its_error_its_silence_or_its_exit() {
    let silent = legacy("*server/discover*) ;;");
    let exiting = legacy("*server/discover*) exit 1 ;;");
    for script in [legacy(""), silent, exiting] {
        let (_stdio, _server, probed) = probe(&script).await;
        let Ok(Probed::Legacy(session)) = probed else { panic!("it is legacy") };
        assert!(pid(&session).await > 0);
        let initialized: Value = serde_json::from_slice(&session.initialized).expect("JSON");
        assert_eq!(initialized["protocolVersion"], "2025-11-25");
    }
}

#[tokio::test]
async fn a_modern_program_that_starts_slowly_is_known_though_initialize_was_sent() {
    let script = r#"next; first=$line; next; line=$first; id=${line#*\"id\":}; id=${id%%,*}
        result "$id" "$discovered"; while next; do result "$id" "{\"pid\":$$}"; done"#;
    let (_stdio, _server, probed) = probe(script).await;
    let Ok(Probed::Modern { discovered: Some(_), .. }) = probed else { panic!("it is modern") };
}

#[tokio::test]
async fn a_program_that_does_not_start_is_unreachable_and_soon_not_tried_any_more() {
    let (stdio, mut server) = (Stdio::new(true), server(""));
    let command = vec!["/nonexistent/program".to_owned()];
    server.spec.transport = Transport::Stdio { command, environment: BTreeMap::new() };
    for _ in 0..6 {
        assert_eq!(open(&stdio, &server).await.err(), Some(Upstream::Unreachable));
    }
    let began = Instant::now();
    assert_eq!(open(&stdio, &server).await.err(), Some(Upstream::Unreachable));
    assert!(began.elapsed() < PAUSE_WAITED_MAX, "a long pause is not waited for");
    assert!(stdio.program(&server).expect("a program").places.take().await.is_ok());
}

#[tokio::test]
async fn processes_beyond_the_bound_are_refused_and_a_closed_one_makes_room() {
    let (stdio, mut server) = (Stdio::new(true), server(&legacy("")));
    server.spec.processes = 2;
    let one = open(&stdio, &server).await.expect("a session");
    let _two = open(&stdio, &server).await.expect("a session");
    assert_eq!(open(&stdio, &server).await.err(), Some(Upstream::Busy));
    drop(one);
    // The one that is ending is waited for.
    tokio::task::yield_now().await;
    open(&stdio, &server).await.expect("a session");
}

#[tokio::test]
async fn a_process_that_ignores_its_end_is_killed_with_its_children() {
    let script = legacy("*'\"child\"'*) sleep 1000 & result \"$id\" \"{\\\"pid\\\":$!}\" ;;");
    // Neither the end of its input nor SIGTERM ends it.
    let stubborn =
        r#"trap '' TERM; next() { IFS= read -r line || return 1; id=${line#*\"id\":}; id=${id%%,*}; }"#;
    let script = format!("{stubborn}\n{script}\nwhile :; do sleep 1000; done");
    let (stdio, server) = (Stdio::new(true), server(&script));
    let session = open(&stdio, &server).await.expect("a session");
    let parent = pid(&session).await;
    let child = asked(&session, "child").await.expect("an answer")["pid"].as_u64().expect("a number");
    assert_eq!((runs(parent), runs(child)), (true, true));
    let began = Instant::now();
    session.close().await;
    let took = began.elapsed();
    assert!(!runs(parent));
    eventually("the child to end", || !runs(child)).await;
    println!("a process that ignores SIGTERM was gone after {took:?}");
    assert!(took >= child::KILL_AFTER);
}

#[tokio::test]
async fn a_process_that_does_not_read_is_ended_and_its_calls_with_it() {
    let script = "next; result \"$id\" \"$initialized\"; next; sleep 1000";
    let (stdio, server) = (Stdio::new(true), server(script));
    let session = open(&stdio, &server).await.expect("a session");
    let first = session.ask(&ask(session.next_id(), "hold"), PATIENCE).await.expect("it is sent");
    let large = Bytes::from(vec![b' '; 1024 * 1024]);
    let mut sent = 0_u32;
    while session.tell(large.clone()).await.is_ok() {
        sent += 1;
        assert!(sent < 100, "the queue is bounded");
    }
    assert!(session.is_over());
    assert_eq!(answered(first).await, Err(Upstream::Unreachable));
    session.close().await;
}

#[tokio::test]
async fn memory_files_and_dumps_of_a_process_are_limited() {
    let script = legacy(
        r#"*'"eat"'*) if x=$(head -c 100000000 /dev/zero | tr '\0' a) && [ ${#x} -eq 100000000 ]
            then result "$id" '{"ate":true}'; else result "$id" '{"ate":false}'; fi ;;
        *'"limits"'*) result "$id" "[\"$(ulimit -v)\",\"$(ulimit -c)\",\"$(ulimit -n)\"]" ;;"#,
    );
    let script =
        script.replace("if x=$(", "if ( x=$(").replace("-eq 100000000 ]", "-eq 100000000 ] ) 2>/dev/null");
    let (stdio, mut server) = (Stdio::new(true), server(&script));
    let free = open(&stdio, &server).await.expect("a session");
    assert_eq!(asked(&free, "eat").await.expect("an answer"), json!({"ate": true}));
    server.spec.memory_mb = Some(64);
    let limited = open(&stdio, &server).await.expect("a session");
    assert_eq!(asked(&limited, "limits").await.expect("an answer"), json!(["65536", "0", "1024"]));
    assert_eq!(asked(&limited, "eat").await.expect("an answer"), json!({"ate": false}));
    // It lives, and its next call is served.
    assert!(pid(&limited).await > 0);
}

#[tokio::test]
async fn a_flood_of_errors_does_not_stop_a_process_and_little_is_inherited() {
    let script = legacy(
        r#"*'"flood"'*) head -c 3000000 /dev/zero | tr '\0' '\n' >&2; result "$id" '{}' ;;
        *'"environment"'*) result "$id" "\"$(env | sed 's/=.*//' | sort | tr '\n' ' ')\"" ;;"#,
    );
    let (stdio, mut server) = (Stdio::new(true), server(&script));
    let Transport::Stdio { environment, .. } = &mut server.spec.transport else { panic!("a process") };
    environment.insert("OWN".to_owned(), "1".to_owned());
    let session = open(&stdio, &server).await.expect("a session");
    assert_eq!(asked(&session, "flood").await.expect("an answer"), json!({}));
    let names = asked(&session, "environment").await.expect("an answer");
    let known =
        ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TMPDIR", "SHELL", "OWN", "PWD", "_", "OLDPWD"];
    let (known, unknown): (Vec<_>, Vec<_>) =
        names.as_str().expect("text").split_whitespace().partition(|name| known.contains(name));
    assert_eq!((known.contains(&"OWN"), unknown), (true, vec![]));
}

#[tokio::test]
async fn where_processes_are_not_allowed_a_server_is_unreachable() {
    let (stdio, server) = (Stdio::new(false), server(&legacy("")));
    assert_eq!(open(&stdio, &server).await.err(), Some(Upstream::Unreachable));
    assert_eq!(stdio.modern(&server).await.err(), Some(Upstream::Unreachable));
}
