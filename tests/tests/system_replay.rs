//! Replaying recorded calls against policies that are not applied yet: which answers would be others, what is not known, and
//! who may see it.

use std::fs;
use std::path::Path;

use gantry_tests::agent::{Message, Protocol};
use gantry_tests::governed::Governed;
use gantry_tests::process::Finished;
use serde_json::{Value, json};

/// Two policies: one that reads a path, and one that forbids a tool to everybody.
const CANDIDATE: &str = r#"
kind: Policy
tenant: dev
name: below-data
spec:
  cedar: |
    @id("data-only")
    forbid (principal, action == Action::"tools/call", resource == Tool::"fixture/read_file")
    unless { context.arguments.path like "/data/*" };
---
kind: Policy
tenant: dev
name: no-greetings
spec: {cedar: 'forbid (principal, action, resource == Tool::"fixture/greet");'}
"#;

struct Scene {
    governed: Governed,
    folder: tempfile::TempDir,
}

impl Scene {
    /// The candidate in a file, and calls that were recorded: of each tool what it is and is not about, one of which has a key
    /// in it that the record does not tell.
    async fn start() -> Scene {
        let scene =
            Scene { governed: Governed::start().await, folder: tempfile::tempdir().expect("a folder") };
        scene.write("candidate.yaml", CANDIDATE);
        let governed = &scene.governed;
        let mut agent = governed.connect(Protocol::Http1).await;
        for message in [
            governed.call("read_file", json!({"path": "/data/a"})),
            governed.call("read_file", json!({"path": "/etc/passwd"})),
            governed.call("read_file", json!({"path": "/etc/shadow"})),
            governed.call("read_file", json!({"path": "/data/AKIAIOSFODNN7EXAMPLE"})),
            governed.call("greet", json!({"name": "Ada", "token": "s"})),
            governed.call("add", json!({"a": 2, "b": 3})),
            Message::modern("prompts/get", json!({"name": "test_simple_prompt"})).with_key(governed.key()),
            Message::modern("tools/list", json!({})).with_key(governed.key()),
        ] {
            assert_eq!(agent.ask(&message).await.expect("an answer").status, 200);
        }
        let records = governed.trail().at_least(8).await;
        let last = records.last().expect("a record")["decision_id"].as_str().expect("an id").to_owned();
        // `explain` waits for a record that is on its way to the control plane.
        governed.admin(&["policy", "explain", &last], "").await;
        scene
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a path").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(Path::new(&self.path(name)), text).expect("a file");
    }

    async fn replay(&self, more: &[&str]) -> Finished {
        let arguments = [&["policy", "check", "--replay", "--tenant", "dev"], more].concat();
        self.governed.dev().admin(&arguments).await.expect("it runs")
    }

    /// The report for programs, and the exit code.
    async fn report(&self, more: &[&str]) -> (Value, Option<i32>) {
        let finished = self.replay(&[&["-o", "json"], more].concat()).await;
        let report = serde_json::from_str(&finished.stdout);
        (report.unwrap_or_else(|error| panic!("{error}: {finished:?}")), finished.status.code())
    }
}

/// The counts by call: unchanged, changes and unknown.
fn counts(report: &Value) -> Vec<Value> {
    let sum = |list: &Value| -> u64 {
        list.as_array().into_iter().flatten().filter_map(|one| one["count"].as_u64()).sum()
    };
    let rows = report["rows"].as_array().expect("rows").iter();
    rows.map(|row| json!([row["what"], row["unchanged"], sum(&row["changes"]), sum(&row["unknown"])]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_candidate_would_change_is_told_by_call_and_what_is_not_known_is_not_guessed() {
    let scene = Scene::start().await;
    let candidate = scene.path("candidate.yaml");
    let (report, code) = scene.report(&["-f", &candidate]).await;
    assert_eq!(code, Some(3));
    let expected = [
        json!(["calls fixture/add", 1, 0, 0]),
        json!(["calls fixture/greet", 0, 1, 0]),
        json!(["calls fixture/read_file", 1, 2, 1]),
        json!(["gets prompt fixture/test_simple_prompt", 1, 0, 0]),
    ];
    assert_eq!(counts(&report), expected);
    let totals =
        ["records", "not_decided", "of_other_tenants", "decided_otherwise_now", "changes", "unknown"];
    assert_eq!(totals.map(|name| report[name].as_u64()), [8, 1, 0, 0, 3, 1].map(Some));
    let read = &report["rows"][2];
    let change = &read["changes"][0];
    let told = json!([change["from"], change["to"], change["because"]]);
    assert_eq!(told, json!(["allow", "deny", ["below-data/data-only"]]));
    assert_eq!(read["unknown"][0]["reason"], "below-data/data-only reads what the record does not tell");
    // The examples are decisions that can be looked at.
    for (id, path) in [(&change["example"], "/etc/passwd"), (&read["unknown"][0]["example"], "[redacted]")] {
        let explained = scene.governed.admin(&["policy", "explain", id.as_str().expect("an id")], "").await;
        assert!(explained.contains(path), "{explained}");
    }

    let told = scene.replay(&["-f", &candidate]).await;
    let table = [
        "AGENT       CALL                                    ALLOW->DENY  DENY->ALLOW  UNCHANGED  UNKNOWN",
        "demo-agent  calls fixture/add                       -            -            1          -",
        "demo-agent  calls fixture/greet                     1            -            -          -",
        "demo-agent  calls fixture/read_file                 2            -            1          1",
        "demo-agent  gets prompt fixture/test_simple_prompt  -            -            1          -",
    ];
    let lines: Vec<&str> = told.stdout.lines().take(table.len()).map(str::trim_end).collect();
    assert_eq!(lines, table, "{}", told.stdout);
    assert!(
        told.stderr.starts_with("8 records, 7 with a decision: 3 would change, 1 are not known\n"),
        "{}",
        told.stderr
    );
    assert!(
        told.stdout.contains("demo-agent calls fixture/greet: 1 allow -> deny, because no-greetings"),
        "{}",
        told.stdout
    );

    // Nothing of it was applied, and what is applied changes nothing any more.
    scene.governed.apply(CANDIDATE).await;
    let (report, code) = scene.report(&["-f", &candidate]).await;
    assert_eq!((report["changes"].as_u64(), code), (Some(0), Some(0)));
    let drifted = "decided_otherwise_now";
    assert_eq!((report[drifted].as_u64(), report["unknown"].as_u64()), (Some(3), Some(1)));
    // Without them, what they deny is let through again.
    let (report, code) = scene.report(&["--without", "below-data", "--without", "no-greetings"]).await;
    let changes = &report["rows"][1]["changes"][0];
    assert_eq!((&changes["from"], &changes["to"], code), (&json!("deny"), &json!("allow"), Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_file_are_replayed_and_those_of_another_tenant_are_left_out() {
    let scene = Scene::start().await;
    let candidate = scene.path("candidate.yaml");
    let records = scene.governed.admin(&["audit", "tail", "-n", "100", "-o", "json"], "").await;
    let mut of_another: Value =
        serde_json::from_str(records.lines().next().expect("a record")).expect("JSON");
    of_another["tenant"] = json!("globex");
    scene.write("calls.jsonl", &format!("{records}\n{of_another}\n"));
    let calls = scene.path("calls.jsonl");
    let (of_file, code) = scene.report(&["-f", &candidate, "--traffic", &calls]).await;
    let (of_journal, _) = scene.report(&["-f", &candidate]).await;
    assert_eq!((of_file["rows"].clone(), code), (of_journal["rows"].clone(), Some(3)));
    assert_eq!(
        (of_file["of_other_tenants"].as_u64(), of_journal["of_other_tenants"].as_u64()),
        (Some(1), Some(0))
    );
    // As it stands in the file of a node.
    let file = scene.governed.dev().data_dir().join("data-plane").join("audit.jsonl");
    let (of_node, _) = scene.report(&["-f", &candidate, "--traffic", file.to_str().expect("a path")]).await;
    assert_eq!(of_node["rows"], of_journal["rows"]);

    // Before this build, records did not tell what was asked.
    let old: String = records
        .lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).expect("JSON");
            record.as_object_mut().expect("an object").remove("asked");
            format!("{record}\n")
        })
        .collect();
    scene.write("old.jsonl", &old);
    let (of_old, code) = scene.report(&["-f", &candidate, "--traffic", &scene.path("old.jsonl")]).await;
    assert_eq!((of_old["changes"].as_u64(), of_old["unknown"].as_u64(), code), (Some(0), Some(7), Some(0)));

    // What a node was writing when it died is left out and told, and so is what came to no tenant.
    scene.write("torn.jsonl", &format!("{records}\n{{\"outcome\":\"unauthenticated\"}}\n{}", &records[..70]));
    let torn = ["-f", candidate.as_str(), "--traffic", &scene.path("torn.jsonl")];
    let (of_torn, _) = scene.report(&torn).await;
    assert_eq!(of_torn["rows"], of_journal["rows"]);
    let totals = ["records", "missed", "unreadable", "not_decided", "of_other_tenants"];
    assert_eq!(totals.map(|name| of_torn[name].as_u64()), [9, 0, 1, 2, 0].map(Some));
    let told = scene.replay(&torn).await;
    assert!(told.stderr.contains("1 records could not be read and were left out\n"), "{}", told.stderr);
    scene.write("broken.jsonl", "\nno record\n");
    let broken = scene.replay(&["-f", &candidate, "--traffic", &scene.path("broken.jsonl")]).await;
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        broken.stderr.contains("broken.jsonl: it has no record; line 2 is no record"),
        "{}",
        broken.stderr
    );
    scene.write("wrong.yaml", &CANDIDATE.replace("arguments.path", "arguments.pth"));
    let wrong = scene.replay(&["-f", &scene.path("wrong.yaml")]).await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        wrong.stderr.contains("the candidate would be refused; nothing was replayed"),
        "{}",
        wrong.stderr
    );
    assert!(wrong.stderr.contains("did you mean `path`?"), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_of_another_tenant_replays_nothing_of_this_one() {
    let scene = Scene::start().await;
    scene.governed.apply("{kind: Tenant, name: globex}").await;
    let create = ["admin", "create", "eve", "--role", "tenant-admin:globex"];
    let token = scene.governed.admin(&create, "").await;
    scene.write("eve.token", token.trim_end());
    std::fs::set_permissions(scene.path("eve.token"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("owner only");
    let candidate = scene.path("candidate.yaml");
    let dev = scene.governed.dev();
    let (address, token) = (dev.ready().admin_address.clone(), scene.path("eve.token"));
    let by_eve = ["--admin", &address, "--token-file", &token];
    let refused = scene.replay(&[&["-f", candidate.as_str()][..], &by_eve].concat()).await;
    let told = "error: there is no tenant dev\nnext: `gantry get tenants` lists those that you may see\n";
    assert_eq!(
        (refused.status.code(), refused.stdout.as_str(), refused.stderr.as_str()),
        (Some(1), "", told)
    );
    // Her own tenant has no traffic, whatever there is of others.
    scene.write(
        "own.yaml",
        "{kind: Policy, tenant: globex, name: all, spec: {cedar: 'permit(principal, action, resource);'}}",
    );
    let own = scene.path("own.yaml");
    let arguments =
        [&["policy", "check", "--replay", "--tenant", "globex", "-f", own.as_str()][..], &by_eve].concat();
    let finished = dev.admin(&arguments).await.expect("it runs");
    assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(0), ""), "{finished:?}");
    assert!(finished.stderr.contains("0 records"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proposed_of_a_server_can_be_applied_as_it_is_and_is_not_proposed_again() {
    let scene = Scene::start().await;
    let before =
        scene.governed.admin(&["get", "server", "fixture", "--tenant", "dev", "-o", "yaml"], "").await;
    let proposed = scene.governed.admin(&["policy", "suggest", "fixture", "--tenant", "dev"], "").await;
    assert!(proposed.contains("#   read_file: path is path (likely): it is named path\n"), "{proposed}");
    assert_eq!(
        scene.governed.admin(&["get", "server", "fixture", "--tenant", "dev", "-o", "yaml"], "").await,
        before
    );
    scene.governed.apply(&proposed).await;
    let stored =
        scene.governed.admin(&["get", "server", "fixture", "--tenant", "dev", "-o", "json"], "").await;
    let stored: Value = serde_json::from_str(&stored).expect("JSON");
    assert_eq!(stored["spec"]["inspection"]["tools"]["read_file"], json!({"arguments": {"path": "path"}}));
    let again =
        scene.governed.admin(&["policy", "suggest", "fixture", "--tenant", "dev", "-o", "json"], "").await;
    assert!(!again.contains("read_file"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_what_no_record_tells_is_not_replayed_as_let_through() {
    let governed = Governed::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let server = governed.server().url();
    governed.apply(&format!("{{kind: Server, tenant: dev, name: fixture, spec: {{url: {server:?}, inspection: {{tools: {{greet: {{arguments: {{name: sql, files: path}}}}}}}}}}}}")).await;
    // Facts of SQL alone are asked for, and there are none of a call with so many paths, of which a record has not all.
    let reads = "{kind: Policy, tenant: dev, name: reads, spec: {cedar: 'forbid (principal, action == \
                 Action::\"tools/call\", resource == Tool::\"fixture/greet\") unless { context.facts.sql.kinds == [\"select\"] };'}}";
    governed.apply(reads).await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let greet =
        |files: usize| governed.call("greet", json!({"name": "SELECT 1", "files": vec!["/a"; files]}));
    for (files, is_denied) in [(60, false), (80, true)] {
        let answer = agent.ask(&greet(files)).await.expect("an answer").messages().pop().expect("a message");
        assert_eq!(answer["error"]["data"]["rejection"] == "denied", is_denied, "{answer}");
    }
    // Subscriptions to several resources are denied for one, and the record tells of that alone.
    governed.apply("{kind: Policy, tenant: dev, name: no-text, spec: {cedar: 'forbid (principal, action, resource == Resource::\"fixture/test://static-text\");'}}").await;
    let uris = ["test://static-text", "test://static-binary"];
    for uris in [&uris[..], &uris[..1]] {
        let wanted = json!({"notifications": {"resourceSubscriptions": uris}});
        let listen = Message::modern("subscriptions/listen", wanted).with_key(governed.key());
        let answer = agent.ask(&listen).await.expect("an answer").json();
        assert_eq!(answer["error"]["data"]["rejection"], "denied", "{answer}");
    }
    let records = governed.trail().at_least(4).await;
    let asked: Vec<_> = records.iter().map(|record| record["asked"]["more"] == true).collect();
    assert_eq!(asked, [false, false, true, false]);
    assert!(records.iter().all(|record| record.get("token").is_none()));

    let last = records[3]["decision_id"].as_str().expect("an id").to_owned();
    governed.admin(&["policy", "explain", &last], "").await;
    let candidate = folder.path().join("candidate.yaml");
    let text = "{kind: Policy, tenant: dev, name: more, spec: {cedar: 'permit (principal, action, resource);'}}\n---\n\
                {kind: Policy, tenant: dev, name: aside, spec: {shadow: true, cedar: 'forbid (principal, action, resource);'}}";
    fs::write(&candidate, text).expect("a file");
    let scene = Scene { governed, folder };
    let (report, code) = scene.report(&["-f", candidate.to_str().expect("a path")]).await;
    let expected = [
        json!(["calls fixture/greet", 1, 0, 1]),
        json!(["subscribes to fixture/test://static-text", 1, 0, 0]),
        json!(["subscriptions/listen", 0, 0, 1]),
    ];
    assert_eq!(counts(&report), expected);
    assert_eq!((code, report["decided_otherwise_now"].as_u64()), (Some(0), Some(0)));
    assert_eq!(report["not_replayed"], json!(["Policy aside (a shadow decides nothing)"]));
}
