//! The way of a change, from documents to the node: what is applied, shown, compared, refused and deleted.

use std::time::Duration;

use gantry_tests::eventually::eventually;
use gantry_tests::governed::Governed;
use gantry_tests::process::Finished;
use serde_json::{Value, json};

/// How long discovery may take to record what the fixture offers.
const CATALOG_TIME_MAX: Duration = Duration::from_secs(20);

/// A document of every kind, in the order and the form in which `get` shows them.
///
/// The server's credential has no secret, so that no catalog is recorded and nothing else changes meanwhile.
const EVERY_KIND: &str = "\
kind: Tenant
name: acme
spec:
  description: The tenant of this test
---
kind: Credential
tenant: acme
name: token
spec:
  header: x-upstream-token
  prefix: 'Token '
---
kind: Server
tenant: acme
name: files
spec:
  url: http://127.0.0.1:9/mcp
  credential: token
  timeout_ms: 5000
---
kind: Server
tenant: acme
name: time
spec:
  url: https://127.0.0.1:9/mcp?zone=utc
  credential: token
  timeout_ms: 60000
---
kind: Endpoint
tenant: acme
name: main
spec:
  servers:
  - files
---
kind: Agent
tenant: acme
name: bot
spec:
  description: A program
  groups:
  - ops
---
kind: Policy
tenant: acme
name: everything
spec:
  cedar: |
    permit(principal, action, resource);
---
kind: Limit
tenant: acme
name: slow
spec:
  per:
  - agent
  - tool
  calls: 5
  window_seconds: 60
  burst: 2
  agent: bot
  server: files
  tool: read
";

/// The titles of the documents above.
const TITLES: [&str; 8] = [
    "Tenant acme",
    "Credential acme/token",
    "Server acme/files",
    "Server acme/time",
    "Endpoint acme/main",
    "Agent acme/bot",
    "Policy acme/everything",
    "Limit acme/slow",
];

/// What `apply` prints when the same happened to all of them.
fn report(change: &str, revision: u64) -> String {
    let lines: String = TITLES.iter().map(|title| format!("{change:<10} {title}\n")).collect();
    format!("{lines}revision {revision}\n")
}

async fn run(governed: &Governed, arguments: &[&str], input: &str) -> (i32, String, String) {
    let finished = governed.dev().admin_with_input(arguments, input.as_bytes()).await;
    let Finished { status, stdout, stderr } = finished.expect("the command runs");
    (status.code().expect("an exit code"), stdout, stderr)
}

async fn status(governed: &Governed) -> Value {
    let status = governed.admin(&["status", "-o", "json"], "").await;
    serde_json::from_str(&status).expect("a status is JSON")
}

/// A gateway that has recorded what the fixture offers, so that its revision stands still.
async fn start() -> (Governed, u64) {
    let governed = Governed::start().await;
    let revision = eventually("the catalog of the fixture", CATALOG_TIME_MAX, async || {
        let status = status(&governed).await;
        let is_known = status["servers"][0]["tools"].as_u64() > Some(0);
        is_known.then(|| status["revision"].as_u64()).flatten()
    })
    .await;
    (governed, revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_stored_as_it_was_written_and_reaches_the_node_before_apply_returns() {
    let (governed, before) = start().await;
    let stdout = governed.admin(&["apply", "-f", "-", "--wait"], EVERY_KIND).await;
    let (report_of_all, wait) = stdout.split_at(report("created", before + 1).len());
    assert_eq!(report_of_all, report("created", before + 1));
    let wait = wait.strip_prefix("1 of 1 node acknowledged; slowest dev, ").expect("who has it");
    assert!(wait.strip_suffix(" ms\n").is_some_and(|ms| ms.parse::<u64>().is_ok()), "{wait}");

    let stored = governed.admin(&["get", "all", "--tenant", "acme", "-o", "yaml"], "").await;
    assert_eq!(stored, EVERY_KIND);

    let status = status(&governed).await;
    let mut node = status["nodes"][0].clone();
    // These differ from run to run.
    for field in ["apply_us", "address", "connected_since", "urgent_revision"] {
        assert!(!node[field].take().is_null(), "{field}");
    }
    let expected = json!({
        "name": "dev", "build": "0.1.0", "connected": true, "acked_revision": before + 1, "lag": 0,
        "apply_us": null, "records_dropped": 0, "last_error": "", "address": null, "member": 1,
        "connected_since": null, "urgent_revision": null, "problems": [],
        "scope": {"everything": true, "tenants": []},
    });
    let listed = governed.admin(&["node", "ls", "-o", "json"], "").await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed, status["nodes"]);
    let shown = governed.admin(&["node", "show", "dev", "-o", "json"], "").await;
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), status["nodes"][0]);
    assert_eq!((&status["revision"], &status["nodes"]), (&json!(before + 1), &json!([status["nodes"][0]])));
    assert_eq!(node, expected);

    // What was shown can be applied again, and changes nothing.
    let again = governed.admin(&["apply", "-f", "-"], &stored).await;
    assert_eq!(again, report("unchanged", before + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_shown_until_it_is_applied_and_showing_it_changes_nothing() {
    let (governed, before) = start().await;
    governed.apply(EVERY_KIND).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("limit.yaml");
    let changed = EVERY_KIND.rsplit("---\n").next().expect("a limit").replace("calls: 5", "calls: 6");
    std::fs::write(&file, changed).expect("the limit is written");
    let file = file.to_str().expect("a path in UTF-8");

    let (code, stdout, stderr) = run(&governed, &["diff", "-f", file], "").await;
    let expected = format!(
        "--- Limit acme/slow (stored)
+++ Limit acme/slow ({file}:document 1)
@@ -5,7 +5,7 @@
   per:
   - agent
   - tool
-  calls: 5
+  calls: 6
   window_seconds: 60
   burst: 2
   agent: bot
"
    );
    assert_eq!((code, stdout), (3, expected));
    let at = before + 1;
    let next = format!("apply just this with `gantry apply --expect {at} -f {file}`");
    assert_eq!(stderr, format!("against revision {at} of what is stored; {next}\n"));
    assert_eq!(status(&governed).await["revision"], json!(before + 1));

    let applied = governed.admin(&["apply", "-f", file], "").await;
    assert_eq!(applied, format!("updated    Limit acme/slow\nrevision {}\n", before + 2));
    assert_eq!(run(&governed, &["diff", "-f", file], "").await, (0, String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_refer_to_is_deleted_with_them_or_not_at_all() {
    let (governed, before) = start().await;
    governed.apply(EVERY_KIND).await;
    let refused = |lines: &[&str]| {
        let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
        format!("error: nothing was deleted\n{lines}next: `gantry get all` shows what is stored\n")
    };
    for (arguments, lines) in [
        (
            ["server", "files"],
            vec![
                "Server acme/files: Server acme/files is still named by Endpoint acme/main",
                "Server acme/files: Server acme/files is still named by Limit acme/slow",
            ],
        ),
        (
            ["credential", "token"],
            vec![
                "Credential acme/token: Credential acme/token is still named by Server acme/files",
                "Credential acme/token: Credential acme/token is still named by Server acme/time",
            ],
        ),
        (["agent", "bot"], vec!["Agent acme/bot: Agent acme/bot is still named by Limit acme/slow"]),
        (
            ["endpoint", "mian"],
            vec!["Endpoint acme/mian: there is no Endpoint acme/mian; nearest known name: main"],
        ),
    ] {
        let [kind, name] = arguments;
        let outcome = run(&governed, &["delete", kind, name, "--tenant", "acme"], "").await;
        assert_eq!(outcome, (1, String::new(), refused(&lines)), "{arguments:?}");
    }
    let shown = governed.admin(&["get", "all", "--tenant", "acme", "-o", "yaml"], "").await;
    assert_eq!(shown, EVERY_KIND);
    assert_eq!(status(&governed).await["revision"], json!(before + 1));

    let deleted = governed.admin(&["delete", "-f", "-"], EVERY_KIND).await;
    assert_eq!(deleted, report("deleted", before + 2));
    let (code, stdout, _) = run(&governed, &["get", "all", "--tenant", "acme", "-o", "yaml"], "").await;
    assert_eq!((code, stdout), (0, String::new()));
}

/// One document that is refused, where among good ones it stands, and what is said of it.
struct Bad {
    document: String,
    /// What stands before the path: `Kind tenant/name`, as far as the document says it.
    title: &'static str,
    problem: &'static str,
}

fn bad(kind: &str, name: &str, spec: &str, title: &'static str, problem: &'static str) -> Bad {
    let document = format!("kind: {kind}\ntenant: dev\nname: {name}\nspec: {spec}\n");
    Bad { document, title, problem }
}

fn bad_policy(cedar: &str, problem: &'static str) -> Bad {
    let lines: String = cedar.lines().map(|line| format!("\n    {line}")).collect();
    bad("Policy", "bad", &format!("\n  cedar: |{lines}"), "Policy dev/bad", problem)
}

fn bad_documents() -> Vec<Bad> {
    vec![
        bad(
            "Endpoint",
            "bad",
            "{servers: [fixtrue]}",
            "Endpoint dev/bad",
            "spec.servers[0]: there is no Server dev/fixtrue; nearest known name: fixture",
        ),
        bad(
            "Server",
            "bad",
            "{url: 'http://127.0.0.1:9/mcp', credential: tokn}",
            "Server dev/bad",
            "spec.credential: there is no Credential dev/tokn; nearest known name: token",
        ),
        bad(
            "Limit",
            "bad",
            "{cals: 5, window_seconds: 60}",
            "Limit dev/bad",
            "spec.cals: unknown field `cals`, expected one of `per`, `calls`, `window_seconds`, `burst`, \
             `agent`, `server`, `tool`; nearest known name: calls",
        ),
        bad(
            "Sever",
            "bad",
            "{}",
            "Sever dev/bad",
            "kind: unknown kind \"Sever\"; nearest known name: Server",
        ),
        bad(
            "Server",
            "bad",
            "{url: 'http://user:password@127.0.0.1:9/mcp'}",
            "Server dev/bad",
            "spec.url: holds a secret; put it with `gantry credential put` and name the credential",
        ),
        bad_policy(
            "permit(principal, action, resource);\npermit(principal, action resource);",
            "spec.cedar: line 2, column 26: unexpected token `resource` (expected `!=`, `)`, `,`, `:`, `<`, \
             `<=`, `==`, `>`, `>=`, `in`, or `is`)",
        ),
        bad_policy(
            "permit(\n  principal,\n  action == Action::\"tools/call\",\n  resource == Tool::\"fixture/ad\"\n);",
            "spec.cedar: line 4, column 15: there is no Tool \"fixture/ad\" (nearest: Tool::\"fixture/add\")",
        ),
        bad_policy(
            "permit(principal, action == Action::\"tools/cal\", resource);",
            "spec.cedar: line 1, column 29: unrecognized action `Action::\"tools/cal\"` (did you mean \
             `Action::\"tools/call\"`?)",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_set_is_applied_when_one_of_its_documents_is_bad() {
    let (governed, _) = start().await;
    governed.apply("kind: Credential\ntenant: dev\nname: token\nspec: {}\n").await;
    let stored = governed.admin(&["get", "all", "-o", "yaml"], "").await;
    let revision = status(&governed).await["revision"].clone();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for number in 0..10 {
        let document = format!("kind: Agent\ntenant: dev\nname: good-{number}\n");
        std::fs::write(folder.path().join(format!("{number}.yaml")), document).expect("it is written");
    }
    let path = folder.path().to_str().expect("a path in UTF-8");
    for Bad { document, title, problem } in bad_documents() {
        std::fs::write(folder.path().join("4-bad.yaml"), document).expect("it is written");
        let outcome = run(&governed, &["apply", "-f", path], "").await;
        let expected = format!(
            "error: the documents have a problem; nothing was applied
  {path}/4-bad.yaml:document 1 ({title}): {problem}
next: correct the documents, then `gantry diff -f {path}`
"
        );
        assert_eq!(outcome, (1, String::new(), expected));
        assert_eq!(governed.admin(&["get", "all", "-o", "yaml"], "").await, stored);
        assert_eq!(status(&governed).await["revision"], revision);
    }

    // Without the bad one, the good ones are applied.
    std::fs::remove_file(folder.path().join("4-bad.yaml")).expect("it is removed");
    let applied = governed.admin(&["apply", "-f", path], "").await;
    let lines: String = (0..10).map(|number| format!("created    Agent dev/good-{number}\n")).collect();
    let revision = revision.as_u64().expect("a revision");
    assert_eq!(applied, format!("{lines}revision {}\n", revision + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_checked_with_line_and_column_before_it_is_applied() {
    let (governed, before) = start().await;
    let expected = r#"error: there is no Tool "fixture/ad"
 --> stdin:5:15
  |
5 |   resource == Tool::"fixture/ad"
  |               ^
  = help: nearest: Tool::"fixture/add"
error: stdin has 1 problem and would be refused
next: correct it, then `gantry policy check -f -`
"#;
    let text = "// One call.\npermit(\n  principal,\n  action == Action::\"tools/call\",\n  resource == Tool::\"fixture/ad\"\n);\n";
    let (code, stdout, stderr) = run(&governed, &["policy", "check", "-f", "-"], text).await;
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (1, "", expected));
    let text = text.replace("/ad", "/add");
    let checked = governed.admin(&["policy", "check", "-f", "-"], &text).await;
    assert_eq!(checked, "stdin: 1 policy, no problem\n");
    assert_eq!(status(&governed).await["revision"], json!(before));
}
