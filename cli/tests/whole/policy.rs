//! What needs no control plane: cases beside policies, and what arguments seem to be made of.

use serde_json::{Value, json};

use crate::program::{Folder, Seen, seen};

const DOCUMENTS: &str = r#"kind: Tenant
name: acme
---
kind: Server
tenant: acme
name: files
spec: {url: "http://127.0.0.1:9", inspection: {tools: {read_file: {arguments: {path: path}}}}}
---
kind: Provider
tenant: acme
name: corp
spec: {issuer: "https://id.example.com", algorithms: [RS256]}
---
kind: Agent
tenant: acme
name: bot
spec: {groups: [ops]}
---
kind: Policy
tenant: acme
name: files
spec:
  cedar: |
    @id("ops")
    permit(principal in Group::"ops", action, resource in Server::"files");
    @id("below-data")
    forbid(principal, action == Action::"tools/call", resource == Tool::"files/read_file")
    unless { context.arguments.path like "/data/*" };
    @id("eve")
    forbid(principal, action, resource) when { principal has user && principal.user == User::"corp/eve" };
    @id("night")
    forbid(principal, action, resource) when { context.time.hour < 6 };
    @id("escape")
    forbid(principal, action == Action::"tools/call", resource == Tool::"files/read_file")
    when { context.facts.path.escapes };
"#;

/// What the server offers.
const TOOLS: &str = r#"{"tools": [{"name": "read_file", "inputSchema": {"type": "object", "required": ["path"],
    "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}}}}]}"#;

const CASES: &str = r#"tools: {files: files.tools}
cases:
  - name: below /data is read
    agent: bot
    tool: files/read_file
    arguments: {path: /data/a}
    expect: allow
    because: [files/ops]
  - {agent: bot, tool: files/read_file, arguments: {path: /etc/passwd}, expect: deny, because: [files/below-data]}
  - {agent: bot, tool: files/read_file, arguments: {path: /data/../../a}, expect: deny, because: [files/escape]}
  - {agent: bot, tool: files/read_file, arguments: {path: 1}, expect: error}
  - {agent: bot, user: corp/eve, prompt: files/summary, expect: deny, because: [files]}
  - {agent: bot, user: corp/ann, prompt: files/summary, expect: allow}
  - {name: at night, agent: bot, server: files, at: "2026-11-23T03:00:00Z", expect: deny}
"#;

const PASSED: &str = r#"set/files.test.yaml
  ok      below /data is read: allow (files/ops)
  ok      bot calls files/read_file: deny (files/below-data)
  ok      bot calls files/read_file: deny (files/escape)
  ok      bot calls files/read_file: error (denied, as it cannot be told: argument "path" is not of its type)
  ok      bot gets prompt files/summary: deny (files/eve)
  ok      bot gets prompt files/summary: allow (files/ops)
  ok      at night: deny (files/night)
"#;

/// A folder with the documents and these cases beside them.
fn folder(cases: &str) -> Folder {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().join("set")).expect("folders");
    folder.write("set/acme.yaml", DOCUMENTS);
    folder.write("set/files.tools", TOOLS);
    folder.write("set/files.test.yaml", cases);
    folder
}

fn test(folder: &Folder) -> Seen {
    folder.run(&["policy", "test", "set"])
}

#[test]
fn cases_beside_the_policies_are_decided_as_by_a_node_and_are_no_documents() {
    let folder = folder(CASES);
    assert_eq!(test(&folder), seen(0, PASSED, "7 cases passed\n"));
    let told = folder.run(&["policy", "test", "set/acme.yaml", "set/files.test.yaml", "-o", "json"]);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let expected = json!({
        "file": "set/files.test.yaml", "case": "bot calls files/read_file", "passed": true, "expected": "deny",
        "verdict": "deny", "policies": ["files/below-data"], "failures": [], "missing": [],
    });
    assert_eq!(told[1], expected);
    let expected =
        "error: no admin service is known: there is no .gantry/context.json here or in a parent directory
next: start one with `gantry dev`, or name one with `--admin HOST:PORT --token-file FILE`
";
    assert_eq!(folder.run(&["diff", "-f", "set"]), seen(1, "", expected));
}

#[test]
fn a_case_that_comes_out_otherwise_is_told_with_what_decided_and_ends_with_1() {
    let cases = "cases:
  - {name: allowed, agent: bot, server: files, expect: deny}
  - {name: denied, agent: bot, groups: [guests], user: corp/eve, resource: files/a, expect: allow}
  - {name: for another reason, agent: bot, server: files, expect: allow, because: [files/ops, files/more]}
  - {name: fine, agent: bot, server: files, expect: allow}
";
    let expected = "set/files.test.yaml
  FAILED  allowed: allow (files/ops), expected deny
  FAILED  denied: deny (files/eve), expected allow
  FAILED  for another reason: allow (files/ops), expected because of files/more
  ok      fine: allow (files/ops)
";
    let told = "error: 3 of 4 cases failed
next: correct the policies or the cases, then `gantry policy test set`
";
    assert_eq!(test(&folder(cases)), seen(1, expected, told));
}

#[test]
fn a_denial_that_no_policy_meant_is_no_denial_that_was_expected() {
    let cases = r#"tools: {files: files.tools}
cases:
  - {name: misspelt, agent: bot, tool: files/read_file, arguments: {pth: /etc/passwd}, expect: deny}
  - {name: meant, agent: bot, tool: files/read_file, arguments: {pth: /etc/passwd}, expect: error}
  - {name: unlike, agent: bot, tool: files/read_file, arguments: {path: /data/a}, expect: error}
  - {name: both, agent: bot, tool: files/read_file, arguments: {}, at: "2026-11-23T03:00:00Z", expect: deny}
"#;
    let expected = r#"set/files.test.yaml
  FAILED  misspelt: error (denied, as it cannot be told: files/below-data: record does not have the attribute `path`), expected deny: no policy denies it; correct the case, or write `expect: error` where that is meant
  ok      meant: error (denied, as it cannot be told: files/below-data: record does not have the attribute `path`)
  FAILED  unlike: allow (files/ops), expected error
  ok      both: deny (files/night; also files/below-data: record does not have the attribute `path`)
"#;
    let told = "error: 2 of 4 cases failed
next: correct the policies or the cases, then `gantry policy test set`
";
    assert_eq!(test(&folder(cases)), seen(1, expected, told));
}

#[test]
fn a_case_that_asks_for_what_is_not_there_is_an_error_and_no_denial() {
    let cases = r#"tools: {files: [{name: read_file}]}
cases:
  - {agent: bott, server: files, expect: deny}
  - {agent: bot, tool: files/read_fil, expect: deny}
  - {agent: bot, server: file, expect: deny}
  - {agent: bot, user: corps/eve, server: files, expect: deny}
  - {agent: bot, server: files, prompt: files/a, expect: deny}
  - {agent: bot, tool: read_file, expect: deny}
  - {agent: bot, server: files, arguments: {}, expect: deny}
  - {agent: bot, server: files, scopes: [a], expect: deny}
  - {agent: bot, server: files, at: noon, expect: deny}
"#;
    let told = r#"error: the files have 9 problems; nothing was tested
  set/files.test.yaml: case "bott uses server files": there is no Agent "bott" (nearest: bot)
  set/files.test.yaml: case "bot calls files/read_fil": there is no tool "files/read_fil" (nearest: read_file)
  set/files.test.yaml: case "bot uses server file": there is no Server "file" (nearest: files)
  set/files.test.yaml: case "bot uses server files": there is no Provider "corps" (nearest: corp)
  set/files.test.yaml: case "bot": a case has one of `tool`, `prompt`, `resource` and `server`
  set/files.test.yaml: case "bot": "read_file" is not SERVER/NAME
  set/files.test.yaml: case "bot uses server files": only a tool has `arguments`
  set/files.test.yaml: case "bot uses server files": what a token says needs the `user` or the `provider` that it is of
  set/files.test.yaml: case "bot uses server files": at: "noon" is no time since 1970, such as 2026-01-05T12:00:00Z
next: correct it, then `gantry policy test set`
"#;
    // The policies read an argument that the tool of these definitions has not.
    let folder = folder(cases);
    folder.write("set/acme.yaml", &DOCUMENTS.replace("context.arguments.path like", "resource.name like"));
    assert_eq!(test(&folder), seen(1, "", told));
}

#[test]
fn policies_that_would_be_refused_are_not_tested() {
    let folder = folder(CASES);
    folder.write("set/acme.yaml", &DOCUMENTS.replace("context.arguments.path", "context.arguments.pth"));
    let told = r#"error: the files have a problem; nothing was tested
  set/acme.yaml:document 5 (Policy acme/files): spec.cedar: line 5, column 10: for Tool::"files/read_file": attribute `arguments.pth` in context for Action::"tools/call" not found (did you mean `path`?)
next: correct it, then `gantry policy test set`
"#;
    assert_eq!(test(&folder), seen(1, "", told));

    folder.write("set/acme.yaml", DOCUMENTS);
    folder.write("set/files.test.yaml", "cases: [{agent: bot, tool: files/read_file, expect: allow}]");
    let told = r#"error: the files have a problem; nothing was tested
  set/files.test.yaml: case "bot calls files/read_file": what the tool takes is not known; write what server files offers under `tools`
next: correct it, then `gantry policy test set`
"#;
    assert_eq!(test(&folder), seen(1, "", told));
    folder.write("set/files.test.yaml", "cases: [{agent: bot, sever: files, expect: allow}]");
    let refused = test(&folder);
    assert!(
        refused.stderr.contains("set/files.test.yaml: unknown field `sever`, expected one of"),
        "{refused:?}"
    );
    folder.write("set/files.test.yaml", "cases: []");
    let told = "error: there is no case in what is named
next: write cases into a file NAME.test.yaml; README.md of Gantry shows one
";
    assert_eq!(test(&folder), seen(1, "", told));
}

#[test]
fn what_arguments_seem_to_be_is_proposed_from_a_file_with_reasons_and_nothing_is_asked() {
    let folder = Folder::new();
    let tools = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [
        {"name": "run_query", "description": "Runs a query against the Postgres database", "inputSchema": {"type": "object",
            "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}, "notes": {"type": "string"}}}},
        {"name": "fetch", "inputSchema": {"type": "object", "properties": {
            "page": {"type": "string", "format": "uri"},
            "save": {"type": "string", "description": "a folder, if any"}}}},
    ]}});
    folder.write("tools.json", &tools.to_string());
    let yaml = "# What the arguments of the server seem to be made of, and why:
#   fetch: page is url (sure): its format is uri
#   run_query: query is sql (likely): it is named query, and its tool tells of a database
# What filters find in them is reported; `filters: {sql: block}` beside `tools` would refuse it.
# Perhaps, and not proposed:
#   fetch: save is path (perhaps): its description says \"folder\"
inspection:
  tools:
    fetch:
      arguments:
        page: url
    run_query:
      arguments:
        query: sql
";
    let said = "2 tools: 2 declarations proposed, 1 more that only sound so; nothing was changed; look at each, \
                and put it under `spec` of the Server\n";
    assert_eq!(folder.run(&["policy", "suggest", "--tools", "tools.json"]), seen(0, yaml, said));
    let told = folder.run(&["policy", "suggest", "--tools", "tools.json", "-o", "json"]);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let expected = json!({"tool": "fetch", "place": "page", "form": "url", "trust": "sure", "reasons": ["its format is uri"]});
    assert_eq!(told[0], expected);
    // A schema that leads everywhere is looked at for as long as another, and told.
    let everywhere = json!({"anyOf": vec![json!({"$ref": "#/$defs/A"}); 1_000]});
    let schema =
        json!({"properties": {"url": {"type": "string"}, "a": everywhere}, "$defs": {"A": everywhere}});
    folder.write("tools.json", &json!([{"name": "t", "inputSchema": schema}]).to_string());
    let told = folder.run(&["policy", "suggest", "--tools", "tools.json"]);
    assert!(
        told.stderr.starts_with("warning: the schema of t leads to more than is looked at\n1 tools: 1 "),
        "{told:?}"
    );
    folder.write("tools.json", "{}");
    let refused = "error: tools.json: neither a list of tools nor an object with `tools`
next: name a JSON file with a list of tools, or with an object that has `tools`, as a server answers `tools/list`
";
    assert_eq!(folder.run(&["policy", "suggest", "--tools", "tools.json"]), seen(1, "", refused));
}

#[test]
fn a_replay_of_nothing_is_a_mistake_of_the_command_line() {
    let folder = Folder::new();
    let told = "error: there is nothing to compare with
next: name documents with -f, or a policy with --without
";
    assert_eq!(folder.run(&["policy", "check", "--replay"]), seen(2, "", told));
    let refused = folder.run(&["policy", "check", "-f", "a.cedar", "--traffic", "b.jsonl"]);
    assert_eq!(refused.code, Some(2));
}
