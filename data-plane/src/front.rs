//! Other ways in than a POST for each message: WebSocket, HTTP+SSE of 2024-11-05, and batches of 2025-03-26.
//!
//! Always holds: a front adapts and decides nothing. Every message of it goes through [`crate::pipeline::serve`] as if
//! it were POSTed by itself, with the credentials of whoever sent it, so each is authenticated, governed and recorded.

pub(crate) mod batch;
mod conversation;
mod replies;
pub(crate) mod socket;
pub(crate) mod sse;

use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bans::{Leash, Who};
use crate::identity::certificate::ClientCertificate;
use crate::node::Node;
use crate::pipeline::Caller;
use crate::route::EndpointPath;

/// How often a quiet connection says that it is there: under the half minute after which common proxies close one.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Messages that wait to be written to a client; beyond, their servers wait. Each has at most 16 MiB.
const OUT_MAX: usize = 16;

/// The headers that may say who calls.
const CREDENTIALS: [HeaderName; 2] = [AUTHORIZATION, HeaderName::from_static("x-api-key")];

/// How nodes tell each other of a certificate: no header can be called so.
const CERTIFICATE: &str = ":certificate";

/// What says who calls, as it came.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// As [`CREDENTIALS`] are; a copy of one costs no more than counting it.
    values: [Option<HeaderValue>; 2],
    /// Of the connection.
    certificate: Option<Arc<ClientCertificate>>,
}

/// A message, and who sent it.
pub(crate) struct Posted {
    pub(crate) credentials: Credentials,
    pub(crate) message: bytes::Bytes,
}

/// Where the messages of a connection go. The names are not known to exist.
#[derive(Clone)]
struct Place {
    node: Arc<Node>,
    tenant: String,
    endpoint: String,
    /// Who opened the connection.
    who: Who,
}

/// What a connection that outlives its request holds on to.
#[derive(Clone)]
pub(crate) struct Hold {
    /// Its place among the listener's connections.
    #[expect(dead_code, reason = "it is free again when it is dropped")]
    pub(crate) connection: Arc<OwnedSemaphorePermit>,
    /// Who waits for its tasks.
    pub(crate) tasks: TaskTracker,
    /// Asks it to end.
    pub(crate) stop: CancellationToken,
}

impl Credentials {
    /// Those among the headers of a request, and the certificate of its connection.
    pub(crate) fn of(headers: &HeaderMap, extensions: &Extensions) -> Credentials {
        Credentials { values: Credentials::among(headers), certificate: extensions.get().cloned() }
    }

    fn among(headers: &HeaderMap) -> [Option<HeaderValue>; 2] {
        CREDENTIALS.map(|name| headers.get(name).cloned())
    }

    /// Those that are headers.
    pub(crate) fn headers(&self) -> HeaderMap {
        let pairs = CREDENTIALS.into_iter().zip(&self.values);
        pairs.filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    /// That of the connection.
    pub(crate) fn certificate(&self) -> Option<&Arc<ClientCertificate>> {
        self.certificate.as_ref()
    }

    /// As another node is told them.
    pub(crate) fn to_pairs(&self) -> Vec<(String, String)> {
        let pairs = self
            .headers()
            .into_iter()
            .filter_map(|(name, value)| Some((name?.to_string(), value.to_str().ok()?.to_owned())));
        let certificate = self.certificate.iter();
        pairs.chain(certificate.map(|shown| (CERTIFICATE.to_owned(), shown.to_text()))).collect()
    }

    /// As another node told them.
    pub(crate) fn of_pairs(pairs: &[(String, String)]) -> Credentials {
        let mut told = HeaderMap::new();
        for (name, value) in pairs {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                told.insert(name, value);
            }
        }
        let certificate = pairs.iter().find(|(name, _)| name == CERTIFICATE);
        let certificate = certificate.and_then(|(_, text)| ClientCertificate::of_text(text));
        Credentials { values: Credentials::among(&told), certificate }
    }

    /// A message that is served as if it were POSTed, by what says who calls.
    fn head(&self, method: http::Method) -> http::Request<()> {
        let mut request = http::Request::new(());
        *request.method_mut() = method;
        *request.headers_mut() = self.posted_headers();
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        request
    }

    fn posted_headers(&self) -> HeaderMap {
        let mut headers = self.headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers
    }
}

impl Place {
    fn new(node: &Arc<Node>, path: EndpointPath<'_>, caller: &Caller) -> Place {
        let (tenant, endpoint) = (path.tenant.to_owned(), path.endpoint.to_owned());
        Place { node: node.clone(), tenant, endpoint, who: caller.who() }
    }

    /// What ends the connection before its client does: its tenant's streams are cut, or there is no such tenant.
    fn cut(&self) -> CancellationToken {
        match self.node.config().tenants.get(self.tenant.as_str()) {
            Some(tenant) => self.node.cut_of(tenant),
            None => {
                let cut = CancellationToken::new();
                cut.cancel();
                cut
            }
        }
    }

    /// What ends it when whoever opened it is banned.
    fn leash(&self) -> Leash {
        self.node.bans.leash(self.who.clone())
    }

    fn path(&self) -> EndpointPath<'_> {
        EndpointPath { tenant: &self.tenant, endpoint: &self.endpoint }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;

    #[test]
    fn another_node_is_told_the_certificate_and_no_header_stands_for_one() {
        let chain = [CertificateDer::from(vec![1, 2]), CertificateDer::from(vec![3])];
        let certificate = ClientCertificate::of(Some(&chain));
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer k"))]);
        let values = Credentials::among(&headers);
        let told = Credentials { values, certificate: certificate.clone() }.to_pairs();
        let heard = Credentials::of_pairs(&told);
        let text = |shown: &Option<Arc<ClientCertificate>>| shown.as_ref().map(|shown| shown.to_text());
        assert_eq!((heard.headers(), text(&heard.certificate)), (headers, text(&certificate)));
        let header = [("certificate", "AQI="), ("x-forwarded-client-cert", "AQI=")];
        let header = header.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let heard = Credentials::of_pairs(&header);
        assert!(heard.headers().is_empty() && heard.certificate.is_none());
    }
}
