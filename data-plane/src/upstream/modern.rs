//! Requests to servers of the modern era (2026-07-28): each stands by itself.

use std::time::Duration;

use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::config::server::Server;
use crate::mcp::VERSION_MODERN;
use crate::mcp::headers::{METHOD, PROTOCOL_VERSION};
use crate::rejection::Upstream;
use crate::upstream::Upstreams;
use crate::upstream::exchange::{Ask, Exchange};
use crate::upstream::http::Outbound;
use crate::upstream::legacy::check;

/// Sends a request. `timeout` is for the head of the answer; dropping the exchange ends the request at the server.
pub(crate) async fn ask(
    upstreams: &Upstreams,
    server: &Server,
    ask: &Ask,
    timeout: Duration,
) -> Result<Exchange, Upstream> {
    let Some(uri) = &server.uri else { return upstreams.stdio.modern(server).await?.ask(ask) };
    let mut headers: HeaderMap = ask.headers.clone();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(VERSION_MODERN));
    let method = HeaderValue::from_str(ask.method.as_str()).map_err(|_| Upstream::Protocol)?;
    headers.insert(METHOD, method);
    let outbound = Outbound { uri, method: Method::POST, headers, body: ask.body.clone(), timeout };
    let response = upstreams.http.send(outbound).await?;
    check(response.status())?;
    Exchange::of_response(response, None).await
}
