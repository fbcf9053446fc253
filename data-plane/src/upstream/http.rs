//! Servers over HTTP: pooled connections, with a deadline until the answer begins.
//!
//! Always holds: a request is sent at most once, unless a pooled connection turned out dead before anything of the
//! request was written. Redirects are not followed: they would carry a credential elsewhere.

mod complaints;

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::rejection::Upstream;
use crate::upstream::http::complaints::Complaints;

/// Idle connections kept for each server.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// How long an idle connection is kept: less than servers commonly do (a minute), so that we close first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How this gateway names itself to servers.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("gantry/", env!("CARGO_PKG_VERSION")));

/// Sends requests to servers over HTTP. Clones share the connections.
#[derive(Clone)]
pub(crate) struct HttpUpstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    complaints: Arc<Complaints>,
}

/// One request to a server.
pub(crate) struct Outbound<'a> {
    pub(crate) uri: &'a Uri,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Until the answer's head is there.
    pub(crate) timeout: Duration,
}

impl HttpUpstream {
    pub(crate) fn new() -> HttpUpstream {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs speaks TLS 1.2 and 1.3")
            .with_webpki_roots()
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        HttpUpstream { client, complaints: Arc::default() }
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(&self, outbound: Outbound<'_>) -> Result<Response<Incoming>, Upstream> {
        let mut request = Request::new(Full::new(outbound.body));
        *request.method_mut() = outbound.method;
        *request.uri_mut() = outbound.uri.clone();
        *request.headers_mut() = outbound.headers;
        request.headers_mut().insert(USER_AGENT, AGENT);
        match tokio::time::timeout(outbound.timeout, self.client.request(request)).await {
            Err(_) => Err(Upstream::Timeout(outbound.timeout)),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let due = |authority| self.complaints.of(authority, Instant::now());
                if let Some(untold) = outbound.uri.authority().map_or(Some(0), due) {
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(uri = %outbound.uri, %error, %cause, untold, "server cannot be reached");
                }
                Err(Upstream::Unreachable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::LOCATION;
    use serde_json::Value;
    use tokio::sync::mpsc;

    use super::*;
    use crate::upstream::peer::{self, Peer};

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_nothing_goes_where_it_points() {
        let (seen, mut requests) = mpsc::unbounded_channel();
        let elsewhere = Peer::start(move |asked| {
            seen.send(asked.target).expect("read");
            peer::json(StatusCode::OK, &Value::Null)
        })
        .await;
        let target: HeaderValue = format!("{}/metadata", elsewhere.origin).parse().expect("a value");
        for status in [301, 302, 303, 307, 308].map(|code| StatusCode::from_u16(code).expect("a status")) {
            let target = target.clone();
            let peer = Peer::start(move |_| {
                let mut answer = peer::json(status, &Value::Null);
                answer.headers_mut().insert(LOCATION, target.clone());
                answer
            })
            .await;
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
                let timeout = Duration::from_secs(10);
                let outbound = Outbound { uri: &peer.uri("/mcp"), method, headers, body, timeout };
                let answer = HttpUpstream::new().send(outbound).await.map(|answer| answer.status());
                assert_eq!(answer, Ok(status));
                let failure = crate::upstream::legacy::check(status);
                assert_eq!(failure, Err(Upstream::Status(status)));
            }
        }
        drop(elsewhere);
        assert_eq!(requests.recv().await, None);
    }
}
