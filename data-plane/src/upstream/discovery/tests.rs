//! Discovery against a server on loopback, with a control plane that records what is reported.

use gantry_model::record::{Record, RecordValue};
use gantry_model::{Revision, SessionCarrier, document};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::audit::Audit;
use crate::config::site::Site;
use crate::config::tenant::Tenant;
use crate::mesh::Mesh;
use crate::upstream::Upstreams;
use crate::upstream::peer::{self, Answer, Asked, Peer};

/// How long a report may take: every wait below ends sooner.
const REPORT_TIMEOUT: Duration = Duration::from_secs(20);

/// Changes that a server tells of at once.
const BURST: usize = 100;

/// What the server does.
#[derive(Default)]
struct Conduct {
    modern: bool,
    legacy: bool,
    /// HTTP+SSE, and this status to a POST at its stream.
    sse: Option<StatusCode>,
    /// What `server/discover` is answered with instead.
    broken: Option<Answer>,
    tools: Vec<&'static str>,
    streams: Vec<mpsc::UnboundedSender<String>>,
    asked: Vec<String>,
    answered: Vec<Value>,
}

type Shared = Arc<Mutex<Conduct>>;

fn answer(conduct: &Shared, asked: &Asked) -> Answer {
    let mut conduct = conduct.lock().expect("not poisoned");
    let method = asked.body["method"].as_str().unwrap_or_default().to_owned();
    conduct.asked.push(if asked.body.is_null() { asked.method.to_string() } else { method.clone() });
    let Some(status) = conduct.sse else { return answer_http(&mut conduct, asked, &method) };
    match (asked.target.as_str(), &asked.method) {
        ("/mcp", &Method::GET) => {
            let (sender, answer) = peer::stream();
            sender.send("event: endpoint\ndata: /message\n\n".to_owned()).expect("read");
            conduct.streams = vec![sender];
            answer
        }
        ("/mcp", _) => peer::json(status, &Value::Null),
        _ => {
            if let Some(result) = result(&conduct, &method) {
                tell(&conduct, &json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result}));
            }
            peer::json(StatusCode::ACCEPTED, &Value::Null)
        }
    }
}

fn answer_http(conduct: &mut Conduct, asked: &Asked, method: &str) -> Answer {
    let in_session = asked.headers.get("mcp-session-id").is_some_and(|id| id == "one");
    let is_modern = asked.headers.get("mcp-protocol-version").is_some_and(|version| version == "2026-07-28");
    if asked.method == Method::GET && conduct.legacy {
        let (sender, answer) = peer::stream();
        conduct.streams.push(sender);
        return answer;
    }
    if method.is_empty() {
        conduct.answered.extend((!asked.body.is_null()).then(|| asked.body.clone()));
        return peer::json(StatusCode::ACCEPTED, &Value::Null);
    }
    if let Some(broken) = conduct.broken.take_if(|_| method == "server/discover") {
        return broken;
    }
    if is_modern && conduct.modern && method == "subscriptions/listen" {
        assert_eq!(asked.body["params"]["notifications"], json!({"toolsListChanged": true}));
        let (sender, answer) = peer::stream();
        conduct.streams.push(sender);
        tell(conduct, &json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged"}));
        return answer;
    }
    let is_served = if is_modern { conduct.modern } else { conduct.legacy };
    if !is_served {
        let error = json!({"code": -32000, "message": "Bad Request: Server not initialized"});
        let body = json!({"jsonrpc": "2.0", "id": null, "error": error});
        return peer::json(StatusCode::BAD_REQUEST, &body);
    }
    if !is_modern && !in_session && method != "initialize" {
        return peer::json(StatusCode::NOT_FOUND, &Value::Null);
    }
    let Some(result) = result(conduct, method) else {
        return peer::json(StatusCode::ACCEPTED, &Value::Null);
    };
    let body = json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result});
    let mut answer = peer::json(StatusCode::OK, &body);
    if method == "initialize" {
        answer.headers_mut().insert("mcp-session-id", HeaderValue::from_static("one"));
    }
    answer
}

fn result(conduct: &Conduct, method: &str) -> Option<Value> {
    let capabilities = json!({"tools": {"listChanged": true}, "prompts": {}});
    match method {
        "server/discover" => Some(json!({"supportedVersions": ["2026-07-28"], "capabilities": capabilities})),
        "initialize" => Some(json!({"protocolVersion": "2025-06-18", "capabilities": capabilities})),
        "tools/list" => {
            let tools = conduct.tools.iter().map(|name| json!({"name": name}));
            Some(json!({"tools": tools.collect::<Vec<_>>()}))
        }
        "prompts/list" => Some(json!({"prompts": []})),
        _ => None,
    }
}

/// Says something on every stream that is open.
fn tell(conduct: &Conduct, message: &Value) {
    for stream in &conduct.streams {
        // Whether anybody reads is not the server's business.
        let _ = stream.send(format!("event: message\ndata: {message}\n\n"));
    }
}

fn changed() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
}

struct Harness {
    conduct: Shared,
    node: Arc<Node>,
    discovery: Discovery,
    reports: mpsc::Receiver<Report>,
    url: String,
    _peer: Peer,
    _directory: tempfile::TempDir,
}

/// What a report says: the revisions, the tools and the carrier, or the failure.
#[derive(Debug, PartialEq)]
struct Said(Result<(Vec<String>, Vec<String>, SessionCarrier), String>);

fn found(revisions: &[&str], tools: &[&str], carrier: SessionCarrier) -> Said {
    let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    Said(Ok((owned(revisions), owned(tools), carrier)))
}

impl Harness {
    async fn start(conduct: Conduct) -> Harness {
        let conduct = Arc::new(Mutex::new(conduct));
        let served = conduct.clone();
        let peer = Peer::start(move |asked| answer(&served, &asked)).await;
        let directory = tempfile::tempdir().expect("a directory");
        let audit = Audit::start(directory.path(), "n", "test", mpsc::channel(1).0).expect("an audit");
        let mesh = Mesh::alone("n").0;
        let node = Arc::new(Node::new(
            audit,
            Upstreams::new(false),
            Wakeup::default(),
            mesh,
            Site::of(([127, 0, 0, 1], 0).into(), false),
        ));
        let (sender, reports) = mpsc::channel(8);
        let discovery = Discovery::new(node.clone(), sender);
        let url = format!("{}/mcp", peer.origin);
        let mut harness =
            Harness { conduct, node, discovery, reports, url, _peer: peer, _directory: directory };
        harness.configure(None);
        let config = harness.node.config();
        harness.discovery.reconcile(&config, &config.tenants.keys().cloned().collect());
        harness
    }

    fn configure(&mut self, catalog: Option<Catalog>) {
        let server = json!({"kind": "Server", "tenant": "acme", "name": "files", "spec": {"url": self.url}});
        let server = document::parse(server).expect("a server");
        let values = [RecordValue::Resource(Arc::new(server))];
        let values = values.into_iter().chain(catalog.map(|catalog| RecordValue::Catalog(Arc::new(catalog))));
        let records: Vec<_> = values.map(|value| Record { revision: Revision::NONE, value }).collect();
        let name: TenantName = "acme".parse().expect("a name");
        let tenant =
            Tenant::build(&name, records.iter(), &HashMap::new(), None, &Site::default()).expect("a tenant");
        let mut config = Config::empty(Default::default());
        config.put(tenant);
        self.node.swap(config);
    }

    /// The next report, which is recorded when it has a catalog.
    async fn report(&mut self) -> Said {
        let report = tokio::time::timeout(REPORT_TIMEOUT, self.reports.recv()).await;
        match report.expect("in time").expect("discovery runs").found {
            Err(message) => Said(Err(message)),
            Ok(catalog) => {
                self.configure(Some((*catalog).clone()));
                let tools = catalog.tools.iter().map(|tool| tool.name.to_string()).collect();
                Said(Ok((catalog.revisions, tools, catalog.carrier)))
            }
        }
    }

    fn set(&self, change: impl FnOnce(&mut Conduct)) {
        change(&mut self.conduct.lock().expect("not poisoned"));
    }

    /// How often the server was asked something.
    fn count(&self, method: &str) -> usize {
        let conduct = self.conduct.lock().expect("not poisoned");
        conduct.asked.iter().filter(|asked| *asked == method).count()
    }

    fn names() -> (TenantName, ServerName) {
        ("acme".parse().expect("a name"), "files".parse().expect("a name"))
    }

    fn wake(&self) {
        let (tenant, server) = Harness::names();
        self.node.discovery.wake(&tenant, &server);
    }
}

#[tokio::test]
async fn what_a_server_offered_before_it_became_another_one_is_not_told() {
    let conduct = Conduct { modern: true, tools: vec!["a"], ..Conduct::default() };
    let mut harness = Harness::start(conduct).await;
    let report = tokio::time::timeout(REPORT_TIMEOUT, harness.reports.recv()).await;
    let report = report.expect("in time").expect("discovery runs");
    assert!(report.is_current(&harness.node.config()));
    harness.url.push_str("/other");
    harness.configure(None);
    assert!(!report.is_current(&harness.node.config()));
    harness.node.swap(Config::empty(Default::default()));
    assert!(!report.is_current(&harness.node.config()));
}

const HTTP: SessionCarrier = SessionCarrier::StreamableHttp;

#[tokio::test]
async fn a_burst_of_changes_on_the_stream_of_a_modern_server_is_asked_about_a_few_times() {
    let conduct = Conduct { modern: true, tools: vec!["a"], ..Conduct::default() };
    let mut harness = Harness::start(conduct).await;
    assert_eq!(harness.report().await, found(&["2026-07-28"], &["a"], HTTP));
    harness.set(|conduct| {
        conduct.tools.push("b");
        (0..BURST).for_each(|_| tell(conduct, &changed()));
    });
    let two = found(&["2026-07-28"], &["a", "b"], HTTP);
    assert_eq!(harness.report().await, two);
    // A stream that broke is opened again, and what may have been missed is asked about.
    harness.set(|conduct| conduct.streams.clear());
    while harness.count("subscriptions/listen") < 2 {
        assert_eq!(harness.report().await, two);
    }
    // Once for the server, once for the burst and once for the stream; a slow machine may cut the burst in pieces.
    assert!((3..=BURST / 10).contains(&harness.count("tools/list")), "{}", harness.count("tools/list"));
    harness.discovery.stop().await;
}

#[tokio::test]
async fn one_session_with_a_legacy_server_is_kept_heard_answered_and_ended() {
    let conduct = Conduct { legacy: true, tools: vec!["a"], ..Conduct::default() };
    let mut harness = Harness::start(conduct).await;
    assert_eq!(harness.report().await, found(&["2025-06-18"], &["a"], HTTP));
    harness.set(|conduct| {
        tell(conduct, &json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}));
        tell(conduct, &json!({"jsonrpc": "2.0", "id": "r", "method": "roots/list"}));
        conduct.tools.push("b");
        tell(conduct, &changed());
    });
    assert_eq!(harness.report().await, found(&["2025-06-18"], &["a", "b"], HTTP));
    assert_eq!((harness.count("initialize"), harness.count("GET")), (1, 1));
    let error = json!({"code": -32601, "message": "nobody is there to be asked"});
    let answered = harness.conduct.lock().expect("not poisoned").answered.clone();
    assert_eq!(
        answered,
        [
            json!({"jsonrpc": "2.0", "id": 7, "result": {}}),
            json!({"jsonrpc": "2.0", "id": "r", "error": error}),
        ]
    );
    harness.discovery.stop().await;
    assert_eq!(
        harness.conduct.lock().expect("not poisoned").asked.last().map(String::as_str),
        Some("DELETE")
    );
}

#[tokio::test]
async fn a_server_that_changes_its_era_is_found_to_have_done_so() {
    let conduct = Conduct { legacy: true, tools: vec!["a"], ..Conduct::default() };
    let mut harness = Harness::start(conduct).await;
    assert_eq!(harness.report().await, found(&["2025-06-18"], &["a"], HTTP));
    // It becomes modern; a call finds out.
    harness.set(|conduct| (conduct.legacy, conduct.modern) = (false, true));
    let (tenant, server) = Harness::names();
    harness.node.discovery.doubt(&tenant, &server);
    assert_eq!(harness.report().await, found(&["2026-07-28"], &["a"], HTTP));
    assert_eq!(harness.count("DELETE"), 1, "the session is ended");
    // While it is out of order, nothing else is believed of it.
    harness.set(|conduct| {
        conduct.legacy = true;
        conduct.broken = Some(peer::json(StatusCode::SERVICE_UNAVAILABLE, &Value::Null));
    });
    harness.wake();
    assert_eq!(harness.report().await, Said(Err("the server answered with HTTP status 503".to_owned())));
    // It comes back with both eras, and goes back to the old one.
    assert_eq!(harness.report().await, found(&["2026-07-28", "2025-06-18"], &["a"], HTTP));
    harness.set(|conduct| conduct.modern = false);
    harness.wake();
    assert_eq!(harness.report().await, found(&["2025-06-18"], &["a"], HTTP));
    harness.discovery.stop().await;
}

#[tokio::test]
async fn a_server_that_takes_no_post_is_asked_over_http_sse_and_again_when_its_stream_ends() {
    for status in [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED] {
        let conduct = Conduct { sse: Some(status), tools: vec!["a"], ..Conduct::default() };
        let mut harness = Harness::start(conduct).await;
        let one = found(&["2025-06-18"], &["a"], SessionCarrier::HttpSse);
        assert_eq!(harness.report().await, one, "{status}");
        harness.set(|conduct| {
            conduct.tools.push("b");
            tell(conduct, &changed());
        });
        let two = found(&["2025-06-18"], &["a", "b"], SessionCarrier::HttpSse);
        assert_eq!(harness.report().await, two, "{status}");
        assert_eq!(harness.count("GET"), 1, "{status}: the session is kept");
        harness.set(|conduct| conduct.streams.clear());
        assert_eq!(harness.report().await, two, "{status}");
        assert_eq!(harness.count("GET"), 2, "{status}: the session is opened again");
        harness.discovery.stop().await;
    }
}

#[tokio::test]
async fn what_is_nowhere_is_told_by_what_its_post_was_answered() {
    let mut harness = Harness::start(Conduct { sse: None, ..Conduct::default() }).await;
    // A POST is answered with 400 here, and a GET with 202.
    assert_eq!(harness.report().await, Said(Err("the server's answer is not MCP".to_owned())));
    harness.discovery.stop().await;
}

#[tokio::test]
async fn a_modern_server_that_does_not_speak_with_us_is_told_by_its_own_words() {
    let error = json!({"code": -32022, "message": "only 2027-01-01"});
    let body = json!({"jsonrpc": "2.0", "id": 1, "error": error});
    let conduct = Conduct { broken: Some(peer::json(StatusCode::BAD_REQUEST, &body)), ..Conduct::default() };
    let mut harness = Harness::start(conduct).await;
    let words = "the server answered with error -32022: only 2027-01-01".to_owned();
    assert_eq!(harness.report().await, Said(Err(words)));
    assert_eq!(harness.count("GET"), 0, "no older transport is tried");
    harness.discovery.stop().await;
}

#[test]
fn an_error_that_only_the_other_era_has_raises_doubt() {
    for code in [-32601, -32022, -32000] {
        assert!(is_of_other_era(Era::Modern, code), "{code}");
    }
    for code in [-32020, -32021, -32022] {
        assert!(is_of_other_era(Era::Legacy, code), "{code}");
    }
    assert!(!is_of_other_era(Era::Legacy, -32601));
    assert!(!is_of_other_era(Era::Modern, -32602));
}
