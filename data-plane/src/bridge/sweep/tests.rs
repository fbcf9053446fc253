//! Sessions that are left behind at a server that is a process, with a clock of the test's own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use gantry_model::record::{Record, RecordValue};
use gantry_model::{Revision, TenantName, document};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::audit::Audit;
use crate::bridge::call::no_capabilities;
use crate::bridge::home::Home;
use crate::bridge::stream;
use crate::config::endpoint::Endpoint;
use crate::config::site::Site;
use crate::config::tenant::Tenant;
use crate::identity::Principal;
use crate::mcp::VERSION_LEGACY;
use crate::mcp::session::Bridged;
use crate::mesh::Mesh;
use crate::node::Node;
use crate::rejection::Upstream;
use crate::upstream::Upstreams;
use crate::upstream::discovery::Wakeup;
use crate::upstream::pool::{Pooled, SessionKey};
use crate::upstream::session::Opening;

/// A server that opens sessions and does nothing else.
const SCRIPT: &str = r#"while IFS= read -r line; do case "$line" in *'"initialize"'*)
    printf '%s\n' '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}' ;;
esac; done"#;

struct Harness {
    node: Arc<Node>,
    endpoint: Arc<Endpoint>,
    server: Arc<Server>,
    _directory: tempfile::TempDir,
}

impl Harness {
    /// A node with a server that may have so many processes.
    fn new(processes: u32) -> Harness {
        let directory = tempfile::tempdir().expect("a directory");
        let audit = Audit::start(directory.path(), "n", "test", mpsc::channel(1).0).expect("an audit");
        let mesh = Mesh::alone("n").0;
        let node = Arc::new(Node::new(
            audit,
            Upstreams::new(true),
            Wakeup::default(),
            mesh,
            Site::of(([127, 0, 0, 1], 0).into(), false),
        ));
        let spec = json!({"command": ["/bin/sh", "-c", SCRIPT], "processes": processes});
        let documents = [
            json!({"kind": "Server", "tenant": "acme", "name": "shell", "spec": spec}),
            json!({"kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servers": ["shell"]}}),
        ];
        let records = documents.map(|document| {
            let resource = document::parse(document).expect("a resource");
            Record { revision: Revision::NONE, value: RecordValue::Resource(Arc::new(resource)) }
        });
        let name: TenantName = "acme".parse().expect("a name");
        let tenant =
            Tenant::build(&name, records.iter(), &HashMap::new(), None, &Site::default()).expect("a tenant");
        let (_, server) = tenant.servers.iter().next().expect("a server");
        let (_, endpoint) = tenant.endpoints.iter().next().expect("an endpoint");
        Harness { node, endpoint: endpoint.clone(), server: server.clone(), _directory: directory }
    }

    /// The session with the server of a client that has a session with the gateway, or of one that has none.
    async fn open(&self, client: Option<&Home>) -> Result<Arc<Pooled>, Upstream> {
        let timeout = Duration::from_secs(30);
        let opening = Opening { capabilities: no_capabilities(), credential: None, listens: true, timeout };
        let nonce = client.map(|home| home.bridged.nonce.as_str());
        let principal = Principal { agent: "bot".parse().expect("a name"), user: None };
        let key = SessionKey::new(&self.server, &principal, &opening, nonce);
        self.node.upstreams.pool.get(&self.node.upstreams, &self.server, &key, &opening).await
    }

    /// A client that begins a session, makes a call within it, and is done.
    async fn begin(&self, nonce: &str) -> (Arc<Home>, Weak<Pooled>) {
        let home = self.node.homes.get(&Bridged {
            home: "n".to_owned(),
            nonce: nonce.to_owned(),
            version: VERSION_LEGACY.to_owned(),
            capabilities: no_capabilities(),
        });
        let pooled = self.open(Some(&home)).await.expect("a session with the server");
        stream::forward(&self.node, &self.endpoint, &home, &self.server, &pooled);
        (home, Arc::downgrade(&pooled))
    }

    async fn sweep(&self, now: Instant) {
        sweep(&self.node.homes, &self.node.upstreams.pool, now).await;
    }

    async fn make_room(&self, now: Instant) -> bool {
        make_room(&self.node.homes, &self.node.upstreams.pool, &self.server, now).await
    }
}

fn are_there<const N: usize>(sessions: [&Weak<Pooled>; N]) -> [bool; N] {
    sessions.map(|session| session.strong_count() > 0)
}

#[tokio::test]
async fn a_client_that_vanished_is_let_go_of_with_its_sessions_and_one_that_is_there_is_not() {
    let harness = Harness::new(16);
    let began = Instant::now();
    let (gone, of_gone) = harness.begin("gone").await;
    let (listening, of_listening) = harness.begin("listening").await;
    let stream = listening.open_stream();
    let (calling, of_calling) = harness.begin("calling").await;
    let call = bytes::Bytes::from_static(b"1");
    calling.begin(call.clone(), CancellationToken::new());
    let sessions = [&of_gone, &of_listening, &of_calling];

    harness.sweep(began + QUIET_MAX - Duration::from_secs(1)).await;
    assert_eq!(are_there(sessions), [true, true, true]);
    let after = Instant::now() + QUIET_MAX;
    harness.sweep(after).await;
    assert_eq!(are_there(sessions), [false, true, true]);

    // Both are gone as well now, but were there until just now.
    drop(stream);
    calling.end(&call);
    harness.sweep(after + QUIET_MAX - Duration::from_secs(1)).await;
    assert_eq!(are_there(sessions), [false, true, true]);
    harness.sweep(after + QUIET_MAX).await;
    assert_eq!(are_there(sessions), [false, false, false]);

    // A client that comes back gets a new home.
    let (again, of_again) = harness.begin("gone").await;
    assert!(!Arc::ptr_eq(&gone, &again));
    assert_eq!(are_there([&of_again]), [true]);
    harness.node.upstreams.stdio.stop().await;
}

#[tokio::test]
async fn a_session_of_no_client_is_kept_while_somebody_has_it() {
    let harness = Harness::new(16);
    let held = harness.open(None).await.expect("a session with the server");
    let session = Arc::downgrade(&held);
    let after = Instant::now() + QUIET_MAX;
    harness.sweep(after).await;
    drop(held);
    harness.sweep(after).await;
    assert_eq!(are_there([&session]), [true]);
    harness.sweep(after + QUIET_MAX).await;
    assert_eq!(are_there([&session]), [false]);
    harness.node.upstreams.stdio.stop().await;
}

#[tokio::test]
async fn a_full_server_gets_room_by_the_client_that_was_quiet_for_longest() {
    let harness = Harness::new(3);
    let (listening, of_listening) = harness.begin("listening").await;
    let _stream = listening.open_stream();
    let (_, of_first) = harness.begin("first").await;
    let (_, of_second) = harness.begin("second").await;
    let sessions = [&of_listening, &of_first, &of_second];
    assert_eq!(harness.open(None).await.err(), Some(Upstream::Busy));
    // All were used just now.
    assert!(!harness.make_room(Instant::now()).await);

    let later = Instant::now() + YIELD_AFTER;
    assert!(harness.make_room(later).await);
    assert_eq!(are_there(sessions), [true, false, true]);
    let held = harness.open(None).await.expect("there is room");
    assert!(harness.make_room(later).await);
    assert_eq!(are_there(sessions), [true, false, false]);
    // What is left is in use.
    assert!(!harness.make_room(later).await);
    drop(held);
    harness.node.upstreams.stdio.stop().await;
}
