//! Connections to services that check.
//!
//! Always holds: nothing is sent to who cannot show a certificate of the authorities that are believed, but on this
//! machine; a connection is made when it is first needed, and again after it broke.

use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use gantry_model::resource::ExternalCheck;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to be made; a question that waits for it has its own time besides.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a silent connection is probed, and how long the answer may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a service, made once something is asked; `None`: nobody could be believed.
pub(super) fn channel(spec: &ExternalCheck) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(spec.url.to_string()).ok()?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .tcp_nodelay(true);
    if spec.url.scheme() == "http" {
        return Some(endpoint.connect_lazy());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider);
    let tls = tls.with_safe_default_protocol_versions().ok()?;
    let tls = match &spec.authorities {
        None => tls.with_webpki_roots(),
        Some(pem) => tls.with_root_certificates(roots(pem)?),
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls.with_no_client_auth())
        .https_only()
        .enable_http2()
        .wrap_connector(tcp);
    Some(endpoint.connect_with_connector_lazy(connector))
}

fn roots(pem: &str) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(pem.as_bytes())) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}
