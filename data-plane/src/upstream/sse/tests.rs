//! HTTP+SSE against a server on loopback.

use std::sync::Mutex;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::mcp::message;
use crate::upstream::peer::{self, Answer, Asked, Peer};

/// What the server does that differs between tests.
#[derive(Clone)]
struct Conduct {
    /// The event that names the endpoint, and what is sent before it.
    first: String,
    /// How a POST is answered.
    receipt: StatusCode,
}

fn conduct() -> Conduct {
    let first = ": hello\n\nevent: endpoint\ndata: /message?sessionId=7\n\n".to_owned();
    Conduct { first, receipt: StatusCode::ACCEPTED }
}

/// A server whose tool `cut` ends the stream instead of answering.
fn serve(conduct: &Conduct, stream: &Mutex<Option<mpsc::UnboundedSender<String>>>, asked: Asked) -> Answer {
    let mut stream = stream.lock().expect("not poisoned");
    if asked.method == Method::GET {
        assert_eq!(asked.headers[ACCEPT], "text/event-stream");
        assert_eq!(asked.headers["x-key"], "secret");
        let (sender, answer) = peer::stream();
        sender.send(conduct.first.clone()).expect("read");
        *stream = Some(sender);
        return answer;
    }
    assert_eq!(
        (asked.target.as_str(), &asked.headers["x-key"]),
        ("/message?sessionId=7", &"secret".parse().expect("a value"))
    );
    let Some(sender) = &*stream else { return peer::json(StatusCode::NOT_FOUND, &Value::Null) };
    let id = &asked.body["id"];
    let result = match asked.body["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": "2024-11-05", "capabilities": {}}),
        Some("tools/call") if asked.body["params"]["name"] == "cut" => {
            *stream = None;
            return peer::json(conduct.receipt, &Value::Null);
        }
        Some("tools/call") => json!({"content": []}),
        _ => return peer::json(conduct.receipt, &Value::Null),
    };
    let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
    sender.send(format!("event: message\ndata: {note}\n\ndata: {answer}\n\n")).expect("read");
    peer::json(conduct.receipt, &Value::Null)
}

async fn start(conduct: Conduct) -> Peer {
    let stream = Arc::new(Mutex::new(None));
    Peer::start(move |asked| serve(&conduct, &stream, asked)).await
}

async fn open(peer: &Peer, timeout: Duration) -> Result<Opened, Upstream> {
    let opening = Opening {
        capabilities: RawValue::from_string("{}".to_owned()).expect("an object"),
        credential: Some(("x-key".parse().expect("a name"), HeaderValue::from_static("secret"))),
        listens: true,
        timeout,
    };
    SseSession::open(&HttpUpstream::new(), &peer.uri("/sse"), &opening).await
}

const LONG: Duration = Duration::from_secs(10);

fn call(id: u64, tool: &str) -> Ask {
    let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}});
    Ask { id, method: message::Method::ToolsCall, headers: HeaderMap::new(), body: body.to_string().into() }
}

fn value(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn session(opened: &Opened) -> &SseSession {
    match &opened.carrier {
        Carrier::Sse(session) => session,
        Carrier::Http(_) | Carrier::Stdio(_) => panic!("another carrier"),
    }
}

#[tokio::test]
async fn a_session_is_opened_asked_and_over_when_its_stream_is_cut() {
    for receipt in [StatusCode::ACCEPTED, StatusCode::OK] {
        let peer = start(Conduct { receipt, ..conduct() }).await;
        let mut opened = open(&peer, LONG).await.expect("a session");
        let initialized = json!({"protocolVersion": "2024-11-05", "capabilities": {}});
        assert_eq!(value(&opened.initialized), initialized);
        let Some(Event::Notification(note)) = opened.unbound.recv().await else { panic!("no notification") };
        assert_eq!(value(&note)["method"], "notifications/tools/list_changed");
        let session = session(&opened);
        let answer = session.ask(&call(1, "x"), LONG).await.expect("sent").answer().await;
        let expected = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}});
        assert_eq!(answer.as_ref().map(value), Ok(expected));
        // The stream is cut in the middle of a call: the call failed, and nothing more is sent.
        let cut = session.ask(&call(2, "cut"), LONG).await.expect("sent").answer().await;
        assert_eq!(cut, Err(Upstream::Unreachable));
        assert!(session.is_over());
        assert!(matches!(session.ask(&call(3, "x"), LONG).await, Err(AskFailure::Expired)));
        assert!(matches!(session.tell(INITIALIZED).await, Err(AskFailure::Expired)));
    }
}

#[tokio::test]
async fn a_session_that_is_closed_is_over_and_its_calls_end() {
    let peer = start(conduct()).await;
    let opened = open(&peer, LONG).await.expect("a session");
    let session = session(&opened);
    let waiting = session.router.open(9).expect("there is room");
    session.close();
    assert!(session.is_over());
    assert_eq!(Exchange::of_queue(waiting).answer().await, Err(Upstream::Unreachable));
}

#[tokio::test]
async fn a_refused_message_is_told_by_its_status() {
    for (receipt, failure) in [
        (StatusCode::UNAUTHORIZED, Upstream::Refused(StatusCode::UNAUTHORIZED)),
        (StatusCode::BAD_REQUEST, Upstream::Status(StatusCode::BAD_REQUEST)),
        (StatusCode::TEMPORARY_REDIRECT, Upstream::Status(StatusCode::TEMPORARY_REDIRECT)),
        (StatusCode::NOT_FOUND, Upstream::Unreachable),
    ] {
        let peer = start(Conduct { receipt, ..conduct() }).await;
        assert_eq!(open(&peer, LONG).await.err(), Some(failure));
    }
}

#[tokio::test]
async fn a_stream_that_names_no_endpoint_is_given_up_at_the_deadline() {
    let short = Duration::from_millis(50);
    for first in ["", ": only a comment\n\n", "data: /message?sessionId=7\n\n"] {
        let peer = start(Conduct { first: first.to_owned(), ..conduct() }).await;
        assert_eq!(open(&peer, short).await.err(), Some(Upstream::Timeout(short)), "{first:?}");
    }
    let peer = Peer::start(|_| peer::stream().1).await;
    assert_eq!(open(&peer, LONG).await.err(), Some(Upstream::Unreachable), "the stream ended");
    let peer = Peer::start(|_| peer::json(StatusCode::OK, &json!({}))).await;
    assert_eq!(open(&peer, LONG).await.err(), Some(Upstream::Protocol), "no stream at all");
}

#[tokio::test]
async fn an_endpoint_of_another_origin_is_refused_and_nothing_is_sent_there() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let elsewhere = Peer::start(move |asked: Asked| {
        seen.send(asked.target).expect("read");
        peer::json(StatusCode::ACCEPTED, &Value::Null)
    })
    .await;
    let first = format!("event: endpoint\ndata: {}/message?sessionId=7\n\n", elsewhere.origin);
    let peer = start(Conduct { first, ..conduct() }).await;
    assert_eq!(open(&peer, LONG).await.err(), Some(Upstream::Protocol));
    drop(elsewhere);
    assert_eq!(requests.recv().await, None);
}

#[test]
fn messages_go_only_to_the_origin_of_the_servers_own_url() {
    let base = Uri::from_static("https://mcp.example.com:8443/a/sse?tenant=1");
    let good = |path: &str| Ok(format!("https://mcp.example.com:8443{path}"));
    let foreign = |origin: &str| Err(EndpointError::Foreign(origin.to_owned()));
    for (named, expected) in [
        ("/message?sessionId=1", good("/message?sessionId=1")),
        ("message?sessionId=1", good("/a/message?sessionId=1")),
        ("?sessionId=1", good("/a/sse?sessionId=1")),
        ("../message", good("/message")),
        ("https://mcp.example.com:8443/m", good("/m")),
        ("HTTPS://MCP.EXAMPLE.COM:8443/m#part", good("/m")),
        ("/a b?c=\"d\"", good("/a%20b?c=%22d%22")),
        ("https:/m", good("/m")),
        ("", good("/a/sse?tenant=1")),
        ("https://mcp.example.com/m", foreign("https://mcp.example.com")),
        ("http://mcp.example.com:8443/m", foreign("http://mcp.example.com:8443")),
        ("https://mcp.example.com.evil.test:8443/m", foreign("https://mcp.example.com.evil.test:8443")),
        ("//evil.test/m", foreign("https://evil.test")),
        ("/\\evil.test/m", foreign("https://evil.test")),
        ("\\\\evil.test/m", foreign("https://evil.test")),
        ("/\t/evil.test/m", foreign("https://evil.test")),
        ("https://mcp.example.com:8443@evil.test/m", foreign("https://evil.test")),
        ("http://169.254.169.254/latest/meta-data", foreign("http://169.254.169.254")),
        ("http://2130706433/", foreign("http://127.0.0.1")),
        ("http://[::1]:8443/m", foreign("http://[::1]:8443")),
        ("file:///etc/passwd", foreign("null")),
        ("data:text/plain,x", foreign("null")),
        ("javascript:alert(1)", foreign("null")),
        ("https://user:pass@mcp.example.com:8443/m", Err(EndpointError::UserInfo)),
        ("https://", Err(EndpointError::Malformed)),
        ("https://mcp.example.com:99999/m", Err(EndpointError::Malformed)),
    ] {
        assert_eq!(resolve(&base, named).map(|uri| uri.to_string()), expected, "{named:?}");
    }
    // A port that goes without saying is the same port.
    let plain = Uri::from_static("http://mcp.example.com/sse");
    let said = resolve(&plain, "http://mcp.example.com:80/m").map(|uri| uri.to_string());
    assert_eq!(said, Ok("http://mcp.example.com/m".to_owned()));
    assert_eq!(
        resolve(&plain, "https://mcp.example.com/m"),
        Err(EndpointError::Foreign("https://mcp.example.com".to_owned()))
    );
}
