//! The children that propose: a voter that is alone, with checkpoints and purges under way.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gantry_control_plane::feed::Feed;
use gantry_control_plane::raft::{Consensus, Options, ProposeError, VoterId};
use gantry_control_state::{Command, Outcome};
use gantry_model::{Catalog, Definition, Kind, document};
use serde_json::json;

use crate::faults::{EXIT_NOT_STARTED, EXIT_STOPPED};
use crate::process::say;

const PROPOSERS: u64 = 8;
/// One in this many proposals is a large one, of many values and batches.
const LARGE_EVERY: u64 = 16;
const LARGE_BYTES: usize = 300_000;
/// Low, so that checkpoints and purges come often.
const CHECKPOINT_ENTRIES: u64 = 20;

/// What the child proposes that ends by itself.
const SOME: u64 = 25;
/// How long a voter on a failing disk may take until it says that it has stopped.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// Proposes some things one after another and ends: with 0 when all were acknowledged, or with what `faults.rs` says
/// and the reason.
pub(crate) async fn propose_some(directory: &Path) {
    let options = Options { checkpoint_entries: CHECKPOINT_ENTRIES, ..Options::new(directory, VoterId(1)) };
    let consensus = match Consensus::start(options, Feed::new()).await {
        Ok(consensus) => consensus,
        Err(error) => {
            say("reason", &chain(&error));
            std::process::exit(EXIT_NOT_STARTED);
        }
    };
    let state = consensus.feed().latest().state;
    let found = state.names(&"any".parse().expect("a name"), Kind::Tenant);
    found.iter().for_each(|name| say("found", name));
    let mut failed = false;
    for at in 0..SOME {
        let name = format!("t{}-{at}", found.len());
        say("try", &name);
        failed = propose(&consensus, &name, at % LARGE_EVERY == 0).await.is_err();
        if failed {
            break;
        }
        say("ack", &name);
    }
    let begun = Instant::now();
    let mut stopped = consensus.status().await.stopped;
    while failed && stopped.is_none() && begun.elapsed() < STOPS_WITHIN {
        tokio::task::yield_now().await;
        stopped = consensus.status().await.stopped;
    }
    assert!(!failed || stopped.is_some(), "it goes on after a failure");
    match (stopped, consensus.shutdown().await) {
        (None, Ok(())) => {}
        (Some(reason), _) => {
            say("reason", &reason);
            std::process::exit(EXIT_STOPPED);
        }
        // The last sync is part of the shutdown.
        (None, Err(error)) => {
            say("reason", &chain(&error));
            std::process::exit(EXIT_STOPPED);
        }
    }
}

fn chain(mut error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    text
}

/// Says what it found and `ready`, then proposes until it is killed, and says of each what it tries and what was
/// acknowledged.
pub(crate) async fn propose_without_end(directory: &Path, round: &str) {
    let options = Options { checkpoint_entries: CHECKPOINT_ENTRIES, ..Options::new(directory, VoterId(1)) };
    let consensus = Consensus::start(options, Feed::new()).await.expect("start");
    say("term", &consensus.status().await.term.to_string());
    let state = consensus.feed().latest().state;
    for name in state.names(&"any".parse().expect("a name"), Kind::Tenant) {
        say("found", &name);
    }
    say("ready", "");
    let next = Arc::new(AtomicU64::new(0));
    let mut proposers = tokio::task::JoinSet::new();
    for _ in 0..PROPOSERS {
        let (consensus, next, round) = (consensus.clone(), next.clone(), round.to_owned());
        proposers.spawn(async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let name = format!("r{round}-{at}");
                say("try", &name);
                propose(&consensus, &name, at % LARGE_EVERY == 0).await.expect("committed");
                say("ack", &name);
            }
        });
    }
    let ended = proposers.join_next().await;
    panic!("a proposer has ended: {ended:?}");
}

async fn propose(consensus: &Consensus, name: &str, large: bool) -> Result<(), ProposeError> {
    let parse = |value| document::parse(value).expect("a valid document");
    let tenant = parse(json!({"kind": "Tenant", "name": name, "spec": {}}));
    let mut commands = vec![Command::Apply(vec![tenant.clone()])];
    if large {
        let server =
            json!({"kind": "Server", "tenant": name, "name": "s", "spec": {"url": "http://127.0.0.1:1/"}});
        let mut catalog = Catalog::empty(name.parse().expect("a name"), "s".parse().expect("a name"));
        catalog.tools = vec![Definition::new("tool", format!("\"{}\"", "x".repeat(LARGE_BYTES)))];
        commands = vec![Command::Apply(vec![tenant, parse(server)]), Command::PutCatalog(catalog)];
    }
    for command in commands {
        let outcome = consensus.propose(command).await?.outcome;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    Ok(())
}
