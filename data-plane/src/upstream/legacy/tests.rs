//! Streamable HTTP of the legacy era against a server on loopback.

use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::upstream::peer::{self, Answer, Asked, Peer};

const LONG: Duration = Duration::from_secs(10);

/// A server that asks by the session's own stream and holds its response until it was answered.
#[derive(Default)]
struct Asking {
    stream: Option<mpsc::UnboundedSender<String>>,
    answered: CancellationToken,
}

impl Asking {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.method == Method::GET {
            let (sender, answer) = peer::stream();
            self.stream = Some(sender);
            return answer;
        }
        let reply = |result: Value| {
            let answer = json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result});
            peer::json(StatusCode::OK, &answer)
        };
        match asked.body["method"].as_str() {
            Some("initialize") => {
                let mut answer = reply(json!({"protocolVersion": "2025-06-18", "capabilities": {}}));
                answer.headers_mut().insert(SESSION_ID, HeaderValue::from_static("one"));
                answer
            }
            Some("tools/call") => {
                let question = json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"});
                self.stream.as_ref().expect("a stream").send(format!("data: {question}\n\n")).expect("read");
                peer::held(self.answered.clone(), reply(json!({"content": []})))
            }
            _ => {
                if asked.body["id"] == "q" {
                    self.answered.cancel();
                }
                peer::json(StatusCode::ACCEPTED, &Value::Null)
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_while_it_holds_its_response_is_heard() -> Result<(), AskFailure> {
    let server = Arc::new(Mutex::new(Asking::default()));
    let peer = Peer::start(move |asked| server.lock().expect("not poisoned").answer(&asked)).await;
    let capabilities = RawValue::from_string("{}".to_owned()).expect("an object");
    let opening = Opening { capabilities, credential: None, listens: true, timeout: LONG };
    let opened = HttpSession::open(&HttpUpstream::new(), &peer.uri("/mcp"), &opening).await?;
    let Carrier::Http(session) = opened.carrier else { panic!("another carrier") };
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}});
    let method = crate::mcp::message::Method::ToolsCall;
    let ask = Ask { id: 1, method, headers: HeaderMap::new(), body: body.to_string().into() };
    let mut exchange = session.ask(&ask, LONG).await?;
    let Some(Ok(Event::Request { id, .. })) = exchange.next().await else { panic!("no question") };
    assert_eq!(id, Bytes::from_static(b"\"q\""));
    let answer = json!({"jsonrpc": "2.0", "id": "q", "result": {"roots": []}});
    session.tell(answer.to_string().into()).await?;
    let answer: Value = serde_json::from_slice(&exchange.answer().await?).expect("JSON");
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}}));
    Ok(())
}

#[tokio::test]
async fn a_response_that_does_not_begin_and_no_question_is_late() -> Result<(), AskFailure> {
    let never = CancellationToken::new();
    let peer = Peer::start(move |asked| match asked.body["method"].as_str() {
        Some("initialize") => {
            let result = json!({"protocolVersion": "2025-06-18", "capabilities": {}});
            peer::json(StatusCode::OK, &json!({"jsonrpc": "2.0", "id": 0, "result": result}))
        }
        Some("tools/call") => peer::held(never.clone(), peer::json(StatusCode::OK, &Value::Null)),
        _ => peer::json(StatusCode::ACCEPTED, &Value::Null),
    })
    .await;
    let capabilities = RawValue::from_string("{}".to_owned()).expect("an object");
    let opening = Opening { capabilities, credential: None, listens: false, timeout: LONG };
    let opened = HttpSession::open(&HttpUpstream::new(), &peer.uri("/mcp"), &opening).await?;
    let Carrier::Http(session) = opened.carrier else { panic!("another carrier") };
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}});
    let method = crate::mcp::message::Method::ToolsCall;
    let ask = Ask { id: 1, method, headers: HeaderMap::new(), body: body.to_string().into() };
    let soon = Duration::from_millis(50);
    let late = session.ask(&ask, soon).await.err();
    assert!(matches!(late, Some(AskFailure::Failed(Upstream::Timeout(after))) if after == soon));
    Ok(())
}
