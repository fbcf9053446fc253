//! Command lines that cannot be done, and commands that find no Gantry.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::program::{Folder, seen};

#[test]
fn an_unknown_verb_is_a_usage_error() {
    let expected = "error: unrecognized subcommand 'frobnicate'

Usage: gantry <COMMAND>

For more information, try '--help'.
";
    assert_eq!(Folder::new().run(&["frobnicate"]), seen(2, "", expected));
}

#[test]
fn a_kind_that_is_none_is_answered_with_the_nearest() {
    let expected =
        "error: invalid value 'sever' for '<KIND>': unknown kind \"sever\"; nearest known name: server

For more information, try '--help'.
";
    assert_eq!(Folder::new().run(&["get", "sever"]), seen(2, "", expected));
}

#[test]
fn without_a_context_the_way_to_one_is_named() {
    let folder = Folder::new();
    let expected =
        "error: no admin service is known: there is no .gantry/context.json here or in a parent directory
next: start one with `gantry dev`, or name one with `--admin HOST:PORT --token-file FILE`
";
    for arguments in [&["status"][..], &["get", "all"], &["audit", "tail"], &["key", "ls"]] {
        assert_eq!(folder.run(arguments), seen(1, "", expected), "{arguments:?}");
    }
    let expected = "error: no endpoint is known
next: start `gantry dev`, or name one with `--endpoint URL`
";
    assert_eq!(folder.run(&["tool", "call", "echo"]), seen(1, "", expected));
}

#[test]
fn an_admin_address_needs_a_token_of_its_own() {
    let expected = "error: there is no token for the admin service at 127.0.0.1:1
next: add `--token-file FILE`
";
    assert_eq!(Folder::new().run(&["status", "--admin", "127.0.0.1:1"]), seen(1, "", expected));
}

#[test]
fn a_token_does_not_leave_this_machine() {
    let folder = Folder::new();
    folder.write("token", "t\n");
    let expected = "error: admin address \"192.0.2.1:8081\" is not on this machine, and the token would travel unencrypted
next: name the certificate of the cluster's authority with --ca FILE, or forward the port to this machine, such as `ssh -L 8081:127.0.0.1:8081 HOST`
";
    let arguments = ["status", "--admin", "192.0.2.1:8081", "--token-file", "token"];
    assert_eq!(folder.run(&arguments), seen(1, "", expected));
}

#[test]
fn an_admin_service_that_does_not_answer_is_unavailable() {
    let folder = Folder::new();
    folder.write("token", "t\n");
    // The port of a listener that has just ended.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let expected = format!(
        "error: the admin service at http://127.0.0.1:{port}/ does not answer: transport error: tcp connect error: Connection refused (os error 111)
next: start it with `gantry dev`, or name another with `--admin HOST:PORT --token-file FILE`
"
    );
    let address = format!("127.0.0.1:{port}");
    assert_eq!(folder.run(&["status", "--admin", &address, "--token-file", "token"]), seen(5, "", &expected));
}

#[test]
fn a_context_that_others_can_read_is_refused() {
    let folder = Folder::new();
    let directory = folder.path().join(".gantry");
    fs::create_dir(&directory).expect("a folder");
    folder.write(".gantry/context.json", "{}");
    let path = directory.join("context.json");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("permissions");
    let path = fs::canonicalize(&path).expect("a path");
    let path = path.display();
    let expected = format!(
        "error: {path} can be read by others, and it holds the admin token
next: `chmod 600 {path}`
"
    );
    assert_eq!(folder.run(&["status"]), seen(1, "", &expected));
}

#[test]
fn an_open_door_is_refused_before_anything_starts() {
    let folder = Folder::new();
    let expected = "error: --anonymous would serve everybody who reaches 0.0.0.0:0
next: listen on loopback (`--listen 127.0.0.1:8080`), or leave --anonymous out
";
    assert_eq!(folder.run(&["dev", "--anonymous", "--listen", "0.0.0.0:0"]), seen(2, "", expected));
    let expected =
        "error: --admin 0.0.0.0:0 can be reached from other machines, and the admin service has no TLS
next: listen on loopback, such as `--admin 127.0.0.1:8081`
";
    assert_eq!(folder.run(&["dev", "--admin", "0.0.0.0:0"]), seen(2, "", expected));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn a_node_that_could_not_follow_is_refused_before_it_listens() {
    let folder = Folder::new();
    let run = |control_plane| {
        let arguments =
            ["data-plane", "run", "--name", "a", "--listen", "127.0.0.1:0", "--token-file", "token"];
        folder.run(&[&arguments[..], &["--control-plane", control_plane]].concat())
    };
    let expected = "error: control plane \"https://192.0.2.1:8081\" is not HOST:PORT
next: name it as HOST:PORT, such as `--control-plane 127.0.0.1:8081`
";
    assert_eq!(run("https://192.0.2.1:8081"), seen(2, "", expected));
    let expected = "error: control plane \"192.0.2.1:8081\" is not on this machine, and the token would travel unencrypted
next: join the cluster with --join-token-file FILE, or forward the port to this machine, such as `ssh -L 8081:127.0.0.1:8081 HOST`
";
    assert_eq!(run("192.0.2.1:8081"), seen(1, "", expected));
    let expected = "error: token: No such file or directory (os error 2)
next: name a file that holds the secret and nothing else
";
    assert_eq!(run("127.0.0.1:1"), seen(1, "", expected));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn an_import_that_is_none_is_refused() {
    let folder = Folder::new();
    folder.write("mcp.json", r#"{"mcpServers": {"a": {"url": "http://x/${GANTRY_NOT_SET}"}}}"#);
    let expected = "error: mcp.json: a: the environment variable GANTRY_NOT_SET is not set
next: name a JSON file of the form {\"mcpServers\": {\"NAME\": {\"url\": ...}}}
";
    assert_eq!(folder.run(&["dev", "--import", "mcp.json"]), seen(1, "", expected));
}

#[test]
fn arguments_of_a_call_are_checked_before_anything_is_sent() {
    let folder = Folder::new();
    let expected = "error: --json-args is no JSON object: expected value at line 1 column 1
next: write one, such as `--json-args '{\"id\": 1}'`
";
    assert_eq!(folder.run(&["tool", "call", "echo", "--json-args", "x"]), seen(2, "", expected));
    let expected = "error: the argument \"a\" is given twice
next: give it once
";
    assert_eq!(folder.run(&["tool", "call", "echo", "--arg", "a=1", "--arg", "a=2"]), seen(2, "", expected));
}
