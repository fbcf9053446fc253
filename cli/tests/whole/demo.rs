//! The demo, from the first start through an allowed call, a denied one and its explanation, to the second start.

use std::time::Duration;

use crate::program::{Dev, Folder, Seen, eventually, seen};

/// How long a change may take until every call sees it.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// A text with everything replaced that differs from run to run.
fn steady(text: &str) -> String {
    let words = text.split_inclusive(|character: char| character.is_whitespace() || character == '`');
    words.map(steady_word).collect()
}

fn steady_word(word: &str) -> String {
    let bare =
        word.trim_end_matches(|character: char| character.is_whitespace() || "`,.".contains(character));
    let rest = &word[bare.len()..];
    let is_hex =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let shown = match bare {
        id if id.split_once('-').is_some_and(|(run, number)| is_hex(run, 8) && is_hex(number, 6)) => {
            "DECISION"
        }
        key if is_hex(key, 16) => "KEY",
        time if time.len() == 24 && time.ends_with('Z') => "TIME",
        other => other,
    };
    format!("{shown}{rest}")
}

/// Replaces the number after each of some words.
fn without_numbers(text: &str, words: &[&str]) -> String {
    let mut steady = String::new();
    let mut follows = false;
    for piece in text.split_inclusive(' ') {
        let bare = piece.trim();
        let digits = bare.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        if follows && digits > 0 {
            steady.push_str(&piece.replacen(&bare[..digits], "N", 1));
        } else {
            steady.push_str(piece);
        }
        follows = words.contains(&bare) || (follows && bare.is_empty());
    }
    steady
}

fn steadied(seen: Seen) -> Seen {
    Seen { code: seen.code, stdout: steady(&seen.stdout), stderr: steady(&seen.stderr) }
}

fn call(folder: &Folder, arguments: &[&str]) -> Seen {
    steadied(folder.run(&[&["tool", "call"], arguments].concat()))
}

#[test]
fn the_first_governed_call_and_the_second_start() {
    let folder = Folder::new();
    let dev = folder.dev(&[]);

    // What a newcomer is told to try.
    let welcome = "Welcome\n\nThis note was read through Gantry: the call was identified, authorised, checked, metered and recorded.\n";
    assert_eq!(call(&folder, &["read_note", "--arg", "id=1"]), seen(0, welcome, ""));
    let denied = "error: tools/call of \"delete_note\" is denied: a policy forbids it
  decision DECISION
next: `gantry policy explain DECISION`
";
    assert_eq!(call(&folder, &["delete_note", "--arg", "id=1"]), seen(4, "", denied));
    explains_the_denial(&folder);

    // The legacy era, structured content, and what a call may get wrong.
    let greeting = ["greet", "--arg", "name=Ada", "--revision", "2025-11-25"];
    assert_eq!(call(&folder, &greeting), seen(0, "Hello, Ada!\n", ""));
    let unknown = "error: ad: unknown tool \"ad\"; the nearest is \"add\" (JSON-RPC -32602)
next: `gantry tool ls` lists the tools, `gantry get endpoints` the endpoints
";
    assert_eq!(call(&folder, &["ad"]), seen(1, "", unknown));
    let (stdout, stderr) = (
        "Invalid arguments for tool \"add\":\n- at /: \"b\" is a required property\n",
        "error: add reports an error\nnext: correct the arguments; `gantry audit tail` shows the call\n",
    );
    assert_eq!(call(&folder, &["add", "--arg", "a=1"]), seen(1, stdout, stderr));

    // A second process cannot take the directory.
    let taken = folder.run(&["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!((taken.code, taken.stdout.as_str()), (Some(1), ""));
    let expected = format!(
        "error: the control plane does not start: consensus does not start: cannot open the store in .gantry/control-plane/consensus: data directory .gantry/control-plane/consensus is in use by process {}
next: stop the process that uses the directory, or name another with `--data-dir DIR`
",
        dev.ready["pid"]
    );
    assert_eq!(taken.stderr, expected);

    // The second start finds what the first one stored.
    let first = dev.ready.clone();
    assert_eq!(dev.terminate().code(), Some(0));
    let dev = folder.dev(&[]);
    for field in ["agent_key", "admin_token", "tenant", "agent"] {
        assert_eq!(dev.ready[field], first[field], "{field}");
    }
    assert_eq!(call(&folder, &["read_note", "--arg", "id=1"]), seen(0, welcome, ""));
    revokes_a_key(&folder, &dev);
}

fn explains_the_denial(folder: &Folder) {
    let explained = steadied(folder.run(&["policy", "explain", "last"]));
    let expected = "denied DECISION
  who        agent demo-agent of tenant demo, with key KEY
  what       tools/call delete_note of server demo, through endpoint main
  arguments  {\"id\":1}
  when       TIME
  where      node dev, at revision N
  took       N µs
  verdict    deny, because of no-destructive-tools
  reason     tools/call of \"delete_note\" is denied: a policy forbids it

policy no-destructive-tools, as of revision N
  // Made by `gantry dev`: no agent may call a tool that says of itself that it destroys.
  @id(\"no-destructive-tools\")
  forbid(
    principal,
    action == Action::\"tools/call\",
    resource
  ) when { resource.destructive };

next: if the call should be allowed, change the policy that forbids it:
  gantry get policy no-destructive-tools --tenant demo -o yaml > no-destructive-tools.yaml
  then edit no-destructive-tools.yaml, `gantry diff -f no-destructive-tools.yaml`, `gantry apply -f no-destructive-tools.yaml`
";
    let stdout = without_numbers(&explained.stdout, &["revision", "took"]).replace(" ms\n", " µs\n");
    assert_eq!((explained.code, stdout.as_str(), explained.stderr.as_str()), (Some(0), expected, ""));
}

fn revokes_a_key(folder: &Folder, dev: &Dev) {
    let id = dev.text("agent_key").split('_').nth(1).unwrap_or_default().to_owned();
    let revoked = folder.run(&["key", "revoke", &id, "--wait"]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert!(revoked.stdout.starts_with(&format!("revoked    Key demo/{id}\nrevision ")), "{revoked:?}");
    // `--wait` has waited until the node refuses it: the next call is.
    let mut last = call(folder, &["list_notes"]);
    assert_eq!(last.code, Some(4), "{last:?}");
    assert!(last.stderr.starts_with("error: the agent key is revoked\n  decision "), "{last:?}");
    let explained = folder.run(&["revoke", "ls"]);
    assert!(explained.stdout.contains(&format!("demo    key   {id}  root")), "{explained:?}");
    // A new key, from the one line that `key create` prints, works.
    let created = folder.run(&["key", "create", "--agent", "demo-agent", "--expires", "1h"]);
    assert_eq!(created.code, Some(0), "{created:?}");
    folder.write("key", &created.stdout);
    let notes = "1: Welcome\n2: Groceries\n3: On call\n";
    let served = eventually(SEEN_WITHIN, || {
        last = call(folder, &["list_notes", "--key-file", "key"]);
        last == seen(0, notes, "")
    });
    assert!(served, "{last:?}");
}

#[test]
fn what_is_got_can_be_applied_and_what_differs_is_shown() {
    let folder = Folder::new();
    let _dev = folder.dev(&[]);
    let stored = folder.run(&["get", "all", "-o", "yaml"]);
    assert_eq!((stored.code, stored.stderr.as_str()), (Some(0), ""));
    folder.write("all.yaml", &stored.stdout);
    assert_eq!(folder.run(&["diff", "-f", "all.yaml"]), seen(0, "", ""));

    let limit = "kind: Limit\ntenant: demo\nname: calls-per-minute\nspec: {per: [agent, tool], calls: 7, window_seconds: 60}\n";
    folder.write("limit.yaml", limit);
    let difference = "--- Limit demo/calls-per-minute (stored)
+++ Limit demo/calls-per-minute (limit.yaml:document 1)
@@ -5,5 +5,5 @@
   per:
   - agent
   - tool
-  calls: 60
+  calls: 7
   window_seconds: 60
";
    let advice = "against revision N of what is stored; apply just this with `gantry apply --expect N -f limit.yaml`\n";
    let diff = || {
        let diff = folder.run(&["diff", "-f", "limit.yaml"]);
        Seen { stderr: without_numbers(&diff.stderr, &["revision", "--expect"]), ..diff }
    };
    assert_eq!(diff(), seen(3, difference, advice));

    // One bad reference: the whole set is refused, with its place.
    folder.write("bad.yaml", "kind: Endpoint\ntenant: demo\nname: other\nspec: {servers: [dmo]}\n");
    let refused = "error: the documents have a problem; nothing was applied
  bad.yaml:document 1 (Endpoint demo/other): spec.servers[0]: there is no Server demo/dmo; nearest known name: demo
next: correct the documents, then `gantry diff -f limit.yaml -f bad.yaml`
";
    assert_eq!(folder.run(&["apply", "-f", "limit.yaml", "-f", "bad.yaml"]), seen(1, "", refused));
    assert_eq!(diff(), seen(3, difference, advice));

    let applied = folder.run(&["apply", "-f", "limit.yaml", "--wait"]);
    let stdout = without_numbers(&applied.stdout.replace('\n', " \n "), &["revision", "dev,"]);
    let expected = "updated    Limit demo/calls-per-minute \n revision N \n 1 of 1 node acknowledged; slowest dev, N ms \n ";
    assert_eq!((applied.code, stdout.as_str()), (Some(0), expected));
    assert_eq!(folder.run(&["diff", "-f", "limit.yaml"]), seen(0, "", ""));
}

#[test]
fn a_policy_is_checked_before_it_is_applied() {
    let folder = Folder::new();
    let _dev = folder.dev(&[]);
    folder.write(
        "good.cedar",
        "permit(principal, action == Action::\"tools/call\", resource == Tool::\"demo/echo\");\n",
    );
    let good = folder.run(&["policy", "check", "-f", "good.cedar"]);
    assert_eq!(good, seen(0, "good.cedar: 1 policy, no problem\n", ""));
    folder.write("bad.cedar", "permit(\n  principal,\n  action == Action::\"tools/cal\",\n  resource\n);\n");
    let expected = "error: unrecognized action `Action::\"tools/cal\"`
 --> bad.cedar:3:13
  |
3 |   action == Action::\"tools/cal\",
  |             ^
  = help: did you mean `Action::\"tools/call\"`?
error: bad.cedar has 1 problem and would be refused
next: correct it, then `gantry policy check -f bad.cedar`
";
    assert_eq!(folder.run(&["policy", "check", "-f", "bad.cedar"]), seen(1, "", expected));
}

#[test]
fn a_call_that_nothing_permits_is_explained_with_the_policy_that_would() {
    let folder = Folder::new();
    let _dev = folder.dev(&[]);
    folder.write("bot.yaml", "kind: Policy\ntenant: demo\nname: use-demo\nspec:\n  cedar: |\n    permit(principal, action == Action::\"tools/call\", resource == Tool::\"demo/echo\");\n");
    let applied = folder.run(&["apply", "-f", "bot.yaml", "--wait"]);
    assert_eq!(applied.code, Some(0), "{applied:?}");
    assert_eq!(call(&folder, &["greet", "--arg", "name=Ada"]).code, Some(4));
    let explained = folder.run(&["policy", "explain", "last"]).stdout;
    let (_, document) = explained.split_once("`gantry apply -f permit.yaml`:\n\n").expect("a suggestion");
    let expected = "kind: Policy
tenant: demo
name: permit-demo-agent-greet
spec:
  cedar: |
    permit(
      principal == Agent::\"demo-agent\",
      action == Action::\"tools/call\",
      resource == Tool::\"demo/greet\"
    );
";
    assert_eq!(document, expected);
    folder.write("permit.yaml", document);
    let applied = folder.run(&["apply", "-f", "permit.yaml", "--wait"]);
    assert_eq!(applied.code, Some(0), "{applied:?}");
    assert_eq!(call(&folder, &["greet", "--arg", "name=Ada"]), seen(0, "Hello, Ada!\n", ""));
}
