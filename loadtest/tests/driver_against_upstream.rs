//! The driver against the upstream, over real sockets, in both loops and both eras, and the program
//! as a user runs it.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::Arc,
    time::Duration,
};

use gantry_loadtest::{
    driver::{
        Edge,
        call::{Call, Endpoint, Era, Proof},
        closed_loop,
        connection::Connection,
        open_loop,
        schedule::Rate,
    },
    upstream::{
        MCP_PATH, Upstream,
        catalog::{
            Catalog, EVENTS_TOOL, LARGE_TEXT_BYTES, LARGE_TOOL, PROGRESS_COUNT, SMALL_TEXT_BYTES, SMALL_TOOL,
            text, tool_names,
        },
    },
};
use serde_json::{Map, Value};

type TestResult = Result<(), Box<dyn Error>>;

const TOOL_COUNT: usize = 40;
const WARM: Duration = Duration::from_millis(20);
const MEASURED: Duration = Duration::from_millis(150);

/// An upstream on a free port, served until the test's runtime ends.
async fn upstream() -> Result<Arc<Endpoint>, Box<dyn Error>> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let upstream = Upstream::bind(listen, Catalog::with_tools(TOOL_COUNT)).await?;
    let url = format!("http://{}{MCP_PATH}", upstream.address()?);
    tokio::spawn(upstream.serve());
    Ok(Arc::new(Endpoint::parse(&url, None)?))
}

fn small_call(endpoint: &Endpoint, era: Era) -> Call {
    endpoint.call_tool(era, SMALL_TOOL, Proof::Text { text: text(SMALL_TEXT_BYTES), progress_count: 0 })
}

#[tokio::test]
async fn a_closed_loop_counts_every_answer_between_its_edges() -> TestResult {
    let endpoint = upstream().await?;
    let mut names = tool_names(TOOL_COUNT);
    names.sort_unstable();
    let large = Proof::Text { text: text(LARGE_TEXT_BYTES), progress_count: 0 };
    let events = Proof::Text { text: text(SMALL_TEXT_BYTES), progress_count: PROGRESS_COUNT };
    let calls = [
        small_call(&endpoint, Era::Legacy),
        small_call(&endpoint, Era::Modern),
        endpoint.call_tool(Era::Legacy, LARGE_TOOL, large.clone()),
        endpoint.call_tool(Era::Modern, LARGE_TOOL, large),
        endpoint.call_tool(Era::Legacy, EVENTS_TOOL, events.clone()),
        endpoint.call_tool(Era::Modern, EVENTS_TOOL, events),
        endpoint.list_tools(Era::Legacy, Proof::Tools { names: names.clone() }),
        endpoint.list_tools(Era::Modern, Proof::Tools { names }),
    ];
    for call in calls {
        let shown = format!("{call:?}");
        let plan = closed_loop::Plan {
            endpoint: Arc::clone(&endpoint),
            call: Arc::new(call),
            connection_count: 4,
            warm: WARM,
            measured: MEASURED,
        };
        let mut edges = Vec::new();
        let outcome = closed_loop::run(&plan, |edge| edges.push(edge)).await?;
        assert_eq!(edges, [Edge::Start, Edge::End]);
        assert_eq!((outcome.failed_count, outcome.failures.as_slice()), (0, [].as_slice()), "{shown}");
        assert!(outcome.completed_count > 20, "{} of {shown}", outcome.completed_count);
        assert!(outcome.succeeded_count > outcome.completed_count, "the warm-up is not measured");
        assert_eq!(outcome.latencies.count(), outcome.completed_count);
        assert!(outcome.measured >= MEASURED);
    }
    Ok(())
}

#[tokio::test]
async fn an_open_loop_makes_exactly_the_calls_of_its_schedule() -> TestResult {
    let endpoint = upstream().await?;
    let plan = open_loop::Plan {
        call: Arc::new(small_call(&endpoint, Era::Legacy)),
        endpoint,
        rate: Rate::per_second(1_000).ok_or("the rate is valid")?,
        connection_count: 4,
        warm: WARM,
        measured: MEASURED,
        start: None,
    };
    let outcome = open_loop::run(&plan).await?;
    assert_eq!(outcome.failures, [""; 0]);
    assert_eq!((outcome.succeeded_count, outcome.completed_count, outcome.failed_count), (170, 150, 0));
    assert!(outcome.latencies.at(0.5) > Duration::ZERO);
    Ok(())
}

#[tokio::test]
async fn an_answer_other_than_the_expected_one_is_a_failed_call() -> TestResult {
    let endpoint = upstream().await?;
    let wrong_text = Proof::Text { text: "something else".to_owned(), progress_count: 0 };
    let plan = closed_loop::Plan {
        call: Arc::new(endpoint.call_tool(Era::Legacy, SMALL_TOOL, wrong_text.clone())),
        endpoint: Arc::clone(&endpoint),
        connection_count: 2,
        warm: WARM,
        measured: MEASURED,
    };
    let outcome = closed_loop::run(&plan, |_| {}).await?;
    assert_eq!((outcome.succeeded_count, outcome.latencies.count()), (0, 0));
    assert!(outcome.failed_count > 0);
    assert!(outcome.failures[0].starts_with("not the expected content: {"), "{:?}", outcome.failures);

    // A JSON-RPC error is no fast answer either.
    let mut connection = Connection::open(&endpoint, Era::Legacy).await?;
    let failure = connection.call(&endpoint.call_tool(Era::Legacy, "no_such_tool", wrong_text)).await;
    let failure = failure.expect_err("the tool does not exist").to_string();
    let expected = "not a result: {\"jsonrpc\":\"2.0\",\"id\":1000000002,\
                    \"error\":{\"code\":-32602,\"message\":\"the tool does not exist\"}}";
    assert_eq!(failure, expected);
    connection.close().await;
    Ok(())
}

#[tokio::test]
async fn a_target_that_refuses_connections_is_an_error() -> TestResult {
    let unused = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let endpoint = Endpoint::parse(&format!("http://{unused}/mcp"), None)?;
    let failure = Connection::open(&endpoint, Era::Legacy).await.expect_err("nobody listens");
    assert_eq!(failure.to_string(), "cannot connect");
    Ok(())
}

#[test]
fn the_comparison_runs_without_any_proxy_and_writes_flat_figures() -> TestResult {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_gantry-loadtest"))
        .args(["compare", "--rounds", "2", "--seconds", "0.05", "--target", "direct", "--json"])
        .arg(&json)
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout)?;
    assert!(table.contains("| tools/call 200 B: calls/s "), "{table}");
    let figures: Map<String, Value> = serde_json::from_slice(&std::fs::read(&json)?)?;
    assert!(figures.values().all(|value| !value.is_object() && !value.is_array()));
    assert_eq!(figures["scenario"], "compare");
    assert_eq!(figures["failed_calls_count_median"], 0.0);
    assert_eq!(figures["round_count"], 2);
    assert!(figures["direct_call_200b_p50_us_median"].as_f64().is_some_and(|p50| p50 > 0.0));
    Ok(())
}

#[test]
fn gantry_is_started_measured_compared_and_stopped() -> TestResult {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("figures.json");
    let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand_in_gantry.sh");
    let output = Command::new(env!("CARGO_BIN_EXE_gantry-loadtest"))
        .args(["compare", "--rounds", "2", "--seconds", "0.1", "--slot", "call_200b", "--check"])
        .args(["--target", "direct", "--target", "gantry", "--gantry", stand_in, "--json"])
        .arg(&json)
        .output()?;
    let table = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{table}");
    let figures: Map<String, Value> = serde_json::from_slice(&std::fs::read(&json)?)?;
    assert_eq!(figures["gantry_version"], "9.9.9");
    assert_eq!(figures["is_check_met"], true);
    for figure in ["rate_ratio_to_direct", "added_latency_p99_us", "cpu_us_per_call", "loaded_rss_mib"] {
        let figure = format!("gantry_call_200b_{figure}_median");
        assert!(figures.get(&figure).is_some_and(Value::is_f64), "{figure} in {figures:?}");
    }
    Ok(())
}

#[test]
fn lists_are_measured_beside_calls_and_one_without_gzip_is_a_failed_call_where_gzip_was_accepted()
-> TestResult {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("figures.json");
    let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand_in_gantry.sh");
    let output = Command::new(env!("CARGO_BIN_EXE_gantry-loadtest"))
        .args(["lists", "--rounds", "1", "--seconds", "0.2", "--gantry", stand_in, "--json"])
        .arg(&json)
        .output()?;
    let table = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{table}");
    let figures: Map<String, Value> = serde_json::from_slice(&std::fs::read(&json)?)?;
    assert_eq!(figures["scenario"], "lists");
    // The upstream, which stands in, knows no gzip.
    assert!(figures["failed_calls_count_median"].as_f64().is_some_and(|count| count > 0.0));
    assert_eq!(figures["gantry_list_300_gzip_calls_per_s_median"], 0.0);
    for figure in ["gantry_list_300_calls_per_s", "gantry_call_200b_calls_per_s"] {
        let figure = format!("{figure}_median");
        assert!(figures.get(&figure).is_some_and(Value::is_f64), "{figure} in {figures:?}");
    }
    Ok(())
}

#[test]
fn a_check_without_gantry_fails_and_says_which_bar() -> TestResult {
    let output = Command::new(env!("CARGO_BIN_EXE_gantry-loadtest"))
        .args(["compare", "--rounds", "1", "--seconds", "0.05", "--slot", "call_200b"])
        .args(["--target", "direct", "--target", "gantry", "--gantry", "/nonexistent/gantry", "--check"])
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout)?;
    assert!(table.contains("Gantry: not built, there is no /nonexistent/gantry."), "{table}");
    let missed: Vec<&str> = table.lines().filter(|line| line.starts_with("MISSED")).collect();
    let expected =
        "MISSED       gantry_measured_count = - (bar: >= 1): a check without Gantry checks nothing";
    assert_eq!(missed, [expected]);
    Ok(())
}

#[test]
fn an_unknown_scenario_prints_those_that_exist() -> TestResult {
    let output = Command::new(env!("CARGO_BIN_EXE_gantry-loadtest")).arg("comparison").output()?;
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: there is no scenario \"comparison\"; there are:\n  \
                    compare    direct, nginx and Gantry interleaved: rate, latency, processor time, memory\n  \
                    control    the control plane: durable writes, changes on 1,000 nodes, a killed leader\n  \
                    isolation  calls of healthy servers beside calls to sick ones, or to as many well ones, of the \
                    same endpoint\n  \
                    lists      processor time of a list of 300 tools, in gzip and as it is, beside that of a call\n  \
                    streams    memory of many open listen streams, and how soon all hear of a change\n";
    assert_eq!(String::from_utf8(output.stderr)?, expected);
    Ok(())
}
