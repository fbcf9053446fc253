//! Asking a provider over HTTP.
//!
//! Always holds: https with a certificate that is verified, or, where that is said, plain http to loopback; no redirect is
//! followed, since a provider says where its documents are; an answer is bounded in size, and in time from the first byte
//! sent to the last received.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use url::{Host, Url};

use crate::key_set::SET_BYTES_MAX;

/// How long one question may take. A provider on the other side of the world answers within two seconds.
pub(crate) const FETCH_DEADLINE: Duration = Duration::from_secs(10);
/// Connections that are kept: providers are asked every few minutes, by one connection after the other.
const IDLE_CONNECTIONS_MAX: usize = 1;

/// Asks providers. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    plain: PlainHttp,
}

/// Whether http without TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainHttp {
    /// Never.
    Refused,
    /// To this machine: a provider under test.
    OnLoopback,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// How.
    pub status: StatusCode,
    /// What. It may hold a secret.
    pub body: Bytes,
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum FetcherError {
    /// One of the authorities is none.
    #[error("an authority cannot be used")]
    Authority(#[source] rustls::Error),
    /// TLS cannot be had.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Whoever listens could read or change it.
    #[error("{0} is not https")]
    Plain(Url),
    /// It is no address.
    #[error("{0} cannot be asked")]
    Address(Url),
    /// Nobody, or not as who he should be.
    #[error("{host} cannot be reached: {}", causes(.source))]
    Unreachable {
        /// Who.
        host: String,
        /// Why.
        source: hyper_util::client::legacy::Error,
    },
    /// Too slow.
    #[error("{0} did not answer within {FETCH_DEADLINE:?}")]
    Deadline(String),
    /// Too long, or it broke off.
    #[error("the answer of {0} is longer than {SET_BYTES_MAX} bytes, or broke off")]
    Body(String),
    /// Refused, or moved; no redirect is followed.
    #[error("{host} answered {status}")]
    Status {
        /// Who.
        host: String,
        /// How.
        status: StatusCode,
    },
}

impl Fetcher {
    /// Believes these authorities and no others; the public ones where there are none.
    pub fn new(authorities: &[CertificateDer<'_>], plain: PlainHttp) -> Result<Fetcher, FetcherError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider);
        let tls = tls.with_safe_default_protocol_versions().map_err(FetcherError::Tls)?;
        let tls = if authorities.is_empty() {
            tls.with_webpki_roots()
        } else {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone().into_owned()).map_err(FetcherError::Authority)?;
            }
            tls.with_root_certificates(roots)
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(FETCH_DEADLINE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Ok(Fetcher { client, plain })
    }

    /// What stands at an address. Dropping the future breaks it off.
    pub async fn get(&self, url: &Url) -> Result<Bytes, FetchError> {
        let answer = self.ask(Method::GET, url, Bytes::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            status => Err(FetchError::Status { host: host(url), status }),
        }
    }

    /// Sends a form, and what was answered, whatever that is.
    pub async fn post(&self, url: &Url, form: &[(&str, &str)]) -> Result<Answer, FetchError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.ask(Method::POST, url, Bytes::from(body)).await
    }

    async fn ask(&self, method: Method, url: &Url, body: Bytes) -> Result<Answer, FetchError> {
        self.may_ask(url)?;
        let request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(body))
            .map_err(|_| FetchError::Address(url.clone()))?;
        let answer = async {
            let answer = self.client.request(request).await;
            let answer =
                answer.map_err(|error| FetchError::Unreachable { host: host(url), source: error })?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, SET_BYTES_MAX).collect().await;
            let body = body.map_err(|_| FetchError::Body(host(url)))?.to_bytes();
            Ok(Answer { status: head.status, body })
        };
        tokio::time::timeout(FETCH_DEADLINE, answer).await.map_err(|_| FetchError::Deadline(host(url)))?
    }

    /// Whether a document may be believed that comes from there.
    pub(crate) fn may_ask(&self, url: &Url) -> Result<(), FetchError> {
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(FetchError::Address(url.clone())),
        };
        match (url.scheme(), self.plain) {
            ("https", _) => Ok(()),
            ("http", PlainHttp::OnLoopback) if is_loopback => Ok(()),
            _ => Err(FetchError::Plain(url.clone())),
        }
    }
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// An error's causes in one line: what the client says hides them.
fn causes(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
