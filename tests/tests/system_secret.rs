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
use gantry_tests::agent::Protocol;
use gantry_tests::dev::Options;
use gantry_tests::eventually::eventually;
use gantry_tests::governed::Governed;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the node may take to use a new secret.
const IN_FORCE_MAX: Duration = Duration::from_secs(5);

/// The forms in which a secret could lie somewhere: raw, hexadecimal, base64 at each of its three alignments.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![
        secret.as_bytes().to_vec(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
    ];
    for shift in 0..3 {
        // What stands before the secret moves it; whole groups of four that depend on it alone stay the same.
        let shifted = [vec![0; shift], secret.as_bytes().to_vec()].concat();
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            let begin = if shift == 0 { 0 } else { 4 };
            let end = shifted.len() / 3 * 4;
            forms.push(encoded.as_bytes()[begin..end].to_vec());
        }
    }
    forms
}

fn holds(haystack: &[u8], secret: &str) -> bool {
    forms(secret).iter().any(|form| haystack.windows(form.len()).any(|window| window == form))
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

fn finders<'a>(places: &'a BTreeMap<String, Vec<u8>>, secret: &str) -> Vec<&'a str> {
    places.iter().filter(|(_, content)| holds(content, secret)).map(|(place, _)| place.as_str()).collect()
}

fn random() -> String {
    // Two folders that nobody can have guessed have random names; no crate for randomness is needed for a canary.
    let name = |folder: TempDir| folder.path().file_name().map(|name| name.to_string_lossy().into_owned());
    let names = [TempDir::new(), TempDir::new(), TempDir::new()];
    let parts: Vec<_> = names.into_iter().filter_map(Result::ok).filter_map(name).collect();
    format!("canary{}", parts.concat().replace(".tmp", ""))
}

#[test]
fn the_search_finds_every_form() {
    let secret = "canaryAbC123xyz789QRS";
    for before in ["", "a", "ab"] {
        let text = format!("{before}{secret} and more");
        assert!(holds(text.as_bytes(), secret));
        assert!(holds(hex::encode(&text).as_bytes(), secret));
        assert!(holds(hex::encode_upper(&text).as_bytes(), secret));
        assert!(holds(STANDARD_NO_PAD.encode(&text).as_bytes(), secret));
        assert!(holds(URL_SAFE_NO_PAD.encode(&text).as_bytes(), secret));
    }
    assert!(!holds(b"canaryAbC123xyz789QR", secret));
}

async fn sent_headers(governed: &Governed) -> Value {
    let mut agent = governed.connect(Protocol::Http1).await;
    let call = governed.call("show_request_headers", json!({}));
    let answer = agent.ask(&call).await.expect("an answer");
    let shown = String::from_utf8_lossy(&answer.body).into_owned();
    json!(shown)
}

#[tokio::test]
async fn a_secret_reaches_the_server_and_lies_nowhere() {
    // Everything that could be logged is.
    let governed =
        Governed::start_with(Options { log: Some("trace".to_owned()), ..Options::default() }).await;
    let secret = random();
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
        let shown = sent_headers(&governed).await;
        shown.as_str().is_some_and(|shown| shown.contains(&expected)).then_some(shown)
    })
    .await;
    // The client's own key is not passed on.
    let shown = shown.as_str().unwrap_or_default();
    assert!(!shown.contains("gantry_"), "{shown}");

    let dev = governed.dev();
    let mut places = files(dev.data_dir());
    assert!(places.keys().any(|place| place.ends_with("audit.jsonl")), "{:?}", places.keys());
    assert!(places.keys().any(|place| place.contains("raft")), "{:?}", places.keys());
    let id = dev.id().expect("it runs");
    places.insert("log".to_owned(), dev.output().into_bytes());
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
        &["audit", "tail", "-n", "1000", "-o", "json"],
        &["status", "-o", "json"],
    ] {
        let printed = dev.admin(arguments).await.expect("it ends");
        assert!(printed.status.success(), "{arguments:?}: {}", printed.stderr);
        places.insert(arguments.join(" "), [printed.stdout, printed.stderr].concat().into_bytes());
    }
    assert_eq!(finders(&places, &secret), Vec::<&str>::new());

    // The agent's key lies in the context of `dev`, which is there to hold it, and nowhere else.
    let context = dev.data_dir().join("context.json").display().to_string();
    places.remove("log"); // the first line that `dev` prints shows the key
    assert_eq!(finders(&places, governed.key()), [context.as_str()]);
}
