//! `dev` in front of servers of one's own, and without keys.

use crate::program::{Folder, seen};

#[test]
fn an_endpoint_without_keys_serves_callers_without_keys() {
    let demo = Folder::new();
    let upstream = demo.dev(&["--anonymous"]);
    let url = upstream.text("endpoint");

    // One Gantry in front of the other: a server of one's own, reached by its URL.
    let folder = Folder::new();
    let dev = folder.dev(&["--anonymous", "--server", &format!("My Server={url}")]);
    let endpoint = dev.text("endpoint");
    assert!(endpoint.ends_with("/dev/my-server/mcp"), "{endpoint}");
    assert_eq!(dev.text("tenant"), "dev");

    // Elsewhere there is no context, so the call carries no key.
    let stranger = Folder::new();
    let arguments = ["tool", "call", "echo", "--arg", "message=hello", "--endpoint", &endpoint];
    assert_eq!(stranger.run(&arguments), seen(0, "hello\n", ""));

    // A start without the flag closes the door.
    assert_eq!(dev.terminate().code(), Some(0));
    let dev = folder.dev(&["--server", &format!("My Server={url}")]);
    let endpoint = dev.text("endpoint");
    let arguments = ["tool", "call", "echo", "--arg", "message=hello", "--endpoint", &endpoint];
    let refused = "error: an agent key is required: Authorization: Bearer KEY
next: name a valid key with `--key-file FILE` or GANTRY_AGENT_KEY; `gantry key create --agent NAME` makes one
";
    assert_eq!(stranger.run(&arguments), seen(1, "", refused));
    assert_eq!(folder.run(&arguments[..5]), seen(0, "hello\n", ""));
}

#[test]
fn a_server_that_cannot_be_reached_does_not_prevent_a_start() {
    let folder = Folder::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let _dev = folder.dev(&["--server", &format!("gone=http://127.0.0.1:{port}/mcp")]);
    let expected = "error: what the server offers is not known yet; try again in a moment
next: `gantry status` shows what each server said
";
    assert_eq!(folder.run(&["tool", "call", "echo"]), seen(5, "", expected));
}
