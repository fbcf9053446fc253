//! Streamable HTTP: one POST per message, the answer as JSON or as a stream of events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

use super::answer::{Answer, McpError};
use super::events::Events;
use super::{ANSWER_BYTES_MAX, Target};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer that is not MCP is told, in characters.
const TOLD_MAX: usize = 200;

/// Requests to one URL.
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Transport {
    pub(super) fn new(target: Target) -> Result<Transport, McpError> {
        let uri = Uri::try_from(target.url.as_str())
            .map_err(|error| McpError::Setup(format!("{} cannot be called: {error}", target.url)))?;
        let authorization = target.key.as_ref().map(|key| {
            let value = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
            value.map_err(|_| McpError::Setup("the agent key has characters that no key has".to_owned()))
        });
        let mut authorization = authorization.transpose()?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&target)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Transport { client: Client::builder(TokioExecutor::new()).build(connector), uri, authorization })
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn request(
        &self,
        id: u64,
        method: &str,
        params: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Answer, McpError> {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let response = self.post(&message, headers).await?;
        let status = response.status().as_u16();
        let text = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (retry_after, session) = (text(RETRY_AFTER.as_str()), text("mcp-session-id"));
        let message = if is_event_stream(response.headers()) {
            answer_of_stream(response.into_body(), id).await?
        } else {
            answer_of_body(response.into_body(), status).await?
        };
        Ok(Answer { status, retry_after, session, message })
    }

    /// Sends a notification.
    pub(super) async fn notify(&self, method: &str, headers: &[(&str, &str)]) -> Result<(), McpError> {
        let message = json!({"jsonrpc": "2.0", "method": method});
        finish(self.post(&message, headers).await?).await
    }

    /// Ends a session.
    pub(super) async fn end_session(&self, headers: &[(&str, &str)]) -> Result<(), McpError> {
        finish(self.send(Method::DELETE, None, headers).await?).await
    }

    async fn post(&self, message: &Value, headers: &[(&str, &str)]) -> Result<Response<Incoming>, McpError> {
        self.send(Method::POST, Some(Bytes::from(message.to_string())), headers).await
    }

    /// Sends a request with a message as it is, or with none, and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        method: Method,
        message: Option<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, McpError> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.uri.clone())
            .header(ACCEPT, "application/json, text/event-stream");
        if message.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(message.unwrap_or_default()))
            .map_err(|error| McpError::Setup(format!("the call cannot be sent: {error}")))?;
        self.client.request(request).await.map_err(|source| McpError::Unreachable { source })
    }
}

fn tls(target: &Target) -> Result<ClientConfig, McpError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |error: rustls::Error| McpError::Setup(format!("TLS cannot be set up: {error}"));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let Some(path) = &target.certificate else {
        return Ok(builder.with_webpki_roots().with_no_client_auth());
    };
    let unreadable = |error: rustls::pki_types::pem::Error| {
        McpError::Setup(format!("{} cannot be read as PEM: {error}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?).map_err(unusable)?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Whether an answer is a stream of events.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Reads an answer that says nothing to its end: a connection that is closed before looks like a client that left.
async fn finish(response: Response<Incoming>) -> Result<(), McpError> {
    match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
        Ok(_) => Ok(()),
        Err(_) => Err(McpError::NoAnswer),
    }
}

async fn answer_of_body(mut body: Incoming, status: u16) -> Result<Value, McpError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(McpError::Broken)?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(McpError::TooLarge);
        }
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(message) if message.get("jsonrpc").is_some() => Ok(message),
        Ok(_) | Err(_) => {
            let text = crate::output::first_line(String::from_utf8_lossy(&bytes).trim(), TOLD_MAX);
            Err(McpError::NotMcp { status, text })
        }
    }
}

async fn answer_of_stream(mut body: Incoming, id: u64) -> Result<Value, McpError> {
    let mut events = Events::default();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(McpError::Broken)?.into_data() else {
            continue;
        };
        length += data.len();
        if length > ANSWER_BYTES_MAX {
            return Err(McpError::TooLarge);
        }
        for event in events.push(&data) {
            // Notifications, and the empty event that opens a resumable stream, are passed over.
            let message: Value = serde_json::from_slice(&event).unwrap_or_default();
            if message.get("id") == Some(&Value::from(id)) && message.get("method").is_none() {
                return Ok(message);
            }
        }
    }
    Err(McpError::NoAnswer)
}
