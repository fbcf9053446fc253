//! A secret that was put into the vault: at the server, and nowhere else.
//!
//! Always holds: what is searched for is random, so that what is found is it; the search itself is shown to find a
//! planted one in every form.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use gantry_tests::agent::{Message, Protocol};
use gantry_tests::dev::Options;
use gantry_tests::eventually::eventually;
use gantry_tests::governed::Governed;
use gantry_tests::process::TAIL_LINES_MAX;
use serde_json::json;
use tempfile::TempDir;

/// How long the node may take to use a new secret: far beyond what it takes, because all that happens is logged here.
const IN_FORCE_MAX: Duration = Duration::from_secs(30);

/// The forms in which a secret could lie somewhere: raw, escaped as in a URL, as bytes are printed by a debugger,
/// hexadecimal, base64 at each of its three alignments.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let escaped = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let listed: Vec<String> = secret.iter().map(ToString::to_string).collect();
    let mut forms = vec![
        secret.to_vec(),
        secret.iter().map(escaped).collect::<String>().into_bytes(),
        listed.join(", ").into_bytes(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
    ];
    for shift in 0..3 {
        // What stands before the secret moves it; whole groups of four that depend on it alone stay the same.
        let shifted = [vec![0; shift], secret.to_vec()].concat();
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            let begin = if shift == 0 { 0 } else { 4 };
            let end = shifted.len() / 3 * 4;
            forms.push(encoded.as_bytes()[begin..end].to_vec());
        }
    }
    forms
}

fn holds(haystack: &[u8], secret: &[u8]) -> bool {
    forms(secret).iter().any(|form| memchr::memmem::find(haystack, form).is_some())
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).expect("a file"));
        }
    }
    found
}

fn finders<'a>(places: &'a BTreeMap<String, Vec<u8>>, secret: &[u8]) -> Vec<&'a str> {
    places.iter().filter(|(_, content)| holds(content, secret)).map(|(place, _)| place.as_str()).collect()
}

/// A text that nobody can have guessed, with characters that a URL escapes.
fn random(name: &str) -> String {
    // Folders that nobody can have guessed have random names; no crate for randomness is needed for a canary.
    let name_of = |folder: TempDir| folder.path().file_name().map(|name| name.to_string_lossy().into_owned());
    let names = [TempDir::new(), TempDir::new(), TempDir::new()];
    let parts: Vec<_> = names.into_iter().filter_map(Result::ok).filter_map(name_of).collect();
    format!("{name}/+={}&%", parts.concat().replace(".tmp", ""))
}

#[test]
fn the_search_finds_every_form() {
    let secret = b"canary/+=&AbC123xyz789QRS";
    for before in ["", "a", "ab"] {
        let text = [before.as_bytes(), secret, b" and more"].concat();
        assert!(holds(&text, secret));
        assert!(holds(format!("{text:?}").as_bytes(), secret));
        assert!(holds(hex::encode(&text).as_bytes(), secret));
        assert!(holds(hex::encode_upper(&text).as_bytes(), secret));
        assert!(holds(STANDARD_NO_PAD.encode(&text).as_bytes(), secret));
        assert!(holds(URL_SAFE_NO_PAD.encode(&text).as_bytes(), secret));
    }
    assert!(holds(b"?q=canary%2F%2B%3D%26AbC123xyz789QRS", secret));
    assert!(!holds(b"canary/+=&AbC123xyz789QR", secret));
}

/// What the server was sent, as its tool shows it. The client sends things of its own besides.
async fn sent_headers(governed: &Governed, of_client: &str) -> String {
    let mut agent = governed.connect(Protocol::Http1).await;
    let call = governed
        .call("show_request_headers", json!({}))
        .with("cookie", of_client)
        .with("proxy-authorization", of_client)
        .with("x-canary", of_client);
    let answer = agent.ask(&call).await.expect("an answer");
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Answers that no server had a part in, or one whose tool repeats nothing.
async fn answers(governed: &Governed) -> Vec<u8> {
    let mut agent = governed.connect(Protocol::Http1).await;
    let mut answers = Vec::new();
    for message in [
        Message::modern("tools/list", json!({})),
        Message::modern("server/discover", json!({})),
        Message::call("add", json!({"a": 2, "b": 3})),
        Message::call("zebra", json!({})),
    ] {
        let answer = agent.ask(&message.with_key(governed.key())).await.expect("an answer");
        answers.extend_from_slice(format!("{:?}", answer.headers).as_bytes());
        answers.extend_from_slice(&answer.body);
    }
    answers
}

/// Everything that the gateway stored, logged, was started with, and answers to admins and agents.
async fn places(governed: &Governed) -> BTreeMap<String, Vec<u8>> {
    let dev = governed.dev();
    let mut places = files(dev.data_dir());
    for file in ["audit.jsonl", "raft/db", "context.json"] {
        assert!(places.keys().any(|place| place.ends_with(file)), "{file}: {:?}", places.keys());
    }
    let output = dev.output();
    assert!(output.contains(" TRACE ") && output.lines().count() < TAIL_LINES_MAX, "the log is whole");
    // The one line that tells the key and the token is there to tell them.
    let log: Vec<_> = output.lines().filter(|line| !line.starts_with("{\"endpoint\":")).collect();
    places.insert("log".to_owned(), log.join("\n").into_bytes());
    let id = dev.id().expect("it runs");
    for file in ["environ", "cmdline"] {
        let path = format!("/proc/{id}/{file}");
        // Only Linux tells.
        if let Ok(content) = fs::read(&path) {
            places.insert(path, content);
        }
    }
    for arguments in [
        &["get", "all", "-o", "yaml"][..],
        &["get", "credentials", "--tenant", "dev", "-o", "json"],
        &["key", "ls", "-o", "json"],
        &["audit", "tail", "-n", "1000", "-o", "json"],
        &["status", "-o", "json"],
    ] {
        let printed = dev.admin(arguments).await.expect("it ends");
        assert!(printed.status.success(), "{arguments:?}: {}", printed.stderr);
        places.insert(arguments.join(" "), [printed.stdout, printed.stderr].concat().into_bytes());
    }
    places.insert("answers".to_owned(), answers(governed).await);
    places
}

#[tokio::test]
async fn a_secret_reaches_the_server_and_lies_nowhere() {
    // Everything that could be logged is.
    let governed =
        Governed::start_with(Options { log: Some("trace".to_owned()), ..Options::default() }).await;
    let (secret, of_client) = (random("canary"), random("client"));
    let url = governed.server().url();
    governed
        .apply(&format!(
            "kind: Credential\ntenant: dev\nname: canary\nspec: {{header: x-canary, prefix: 'Token '}}\n---\n\
             kind: Server\ntenant: dev\nname: fixture\nspec: {{url: '{url}', credential: canary}}\n"
        ))
        .await;
    let put = governed.admin(&["credential", "put", "canary", "--wait"], &format!("{secret}\n")).await;
    assert!(!put.contains(&secret));
    let expected = format!("Token {secret}");
    let shown = eventually("the server to receive the secret", IN_FORCE_MAX, async || {
        let shown = sent_headers(&governed, &of_client).await;
        shown.contains(&expected).then_some(shown)
    })
    .await;
    // Nothing by which the client proves itself is passed on.
    assert!(!shown.contains("gantry_") && !shown.contains(&of_client), "{shown}");

    let places = places(&governed).await;
    assert_eq!(finders(&places, secret.as_bytes()), Vec::<&str>::new());

    // Key and token lie in the context of `dev`, which is there to hold them, and nowhere else.
    let context = governed.dev().data_dir().join("context.json").display().to_string();
    let token = governed.dev().ready().admin_token.as_deref().expect("a start prints the token");
    for proof in [governed.key(), token] {
        let (_, random) = proof.rsplit_once('_').expect("a name before what is random");
        assert_eq!(finders(&places, random.as_bytes()), [context.as_str()]);
        let bytes = hex::decode(random).expect("what is random is hexadecimal");
        // The hexadecimal form of the bytes is the text above; no other form of them is anywhere.
        assert_eq!(finders(&places, &bytes), [context.as_str()]);
    }
}
