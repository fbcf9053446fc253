//! The agents' listener with a certificate: both versions of HTTP, as the client and TLS agree on.

use std::sync::Arc;

use gantry_tests::agent::{Agent, Message, Protocol};
use gantry_tests::dev::Options;
use gantry_tests::governed::Governed;
use gantry_tests::refusal::{Refusal, check_over};
use rcgen::CertifiedKey;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A gateway with a certificate for 127.0.0.1.
struct Secured {
    governed: Governed,
    certificate: CertificateDer<'static>,
    // Dropped after the process, which may read it again.
    _files: TempDir,
}

impl Secured {
    async fn start() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let files = tempfile::tempdir().expect("a temporary folder");
        let (certificate, key) = (files.path().join("certificate.pem"), files.path().join("key.pem"));
        std::fs::write(&certificate, cert.pem()).expect("the certificate is written");
        std::fs::write(&key, signing_key.serialize_pem()).expect("the key is written");
        let options = Options { tls: Some((certificate, key)), ..Options::default() };
        let governed = Governed::start_with(options).await;
        Self { governed, certificate: cert.der().clone(), _files: files }
    }

    fn endpoint(&self) -> &str {
        &self.governed.dev().ready().endpoint
    }

    /// Connects and offers protocols; returns what was agreed on.
    async fn connect(&self, offered: &[&[u8]]) -> (TlsStream<TcpStream>, Option<Vec<u8>>) {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        let authority = self.endpoint().split('/').nth(2).expect("host and port");
        let stream = TcpStream::connect(authority).await.expect("a connection");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
        let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        (stream, agreed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_speaks_the_version_of_http_that_tls_agreed_on() {
    let secured = Secured::start().await;
    let governed = &secured.governed;
    assert!(secured.endpoint().starts_with("https://127.0.0.1:"), "{}", secured.endpoint());
    let refusals = [Refusal::new("no key", Message::call("add", json!({})), "unauthenticated")
        .error(401, -31401, "an agent key is required: Authorization: Bearer KEY")
        .header("www-authenticate", r#"Bearer realm="gantry""#)
        .without_id()];
    let (h2, http1): (&[u8], &[u8]) = (b"h2", b"http/1.1");
    let offers = [
        (vec![h2, http1], Some(h2), Protocol::Http2),
        (vec![http1], Some(http1), Protocol::Http1),
        (vec![h2], Some(h2), Protocol::Http2),
        (vec![], None, Protocol::Http1),
    ];
    for (offered, expected, protocol) in offers {
        let (stream, agreed) = secured.connect(&offered).await;
        assert_eq!(agreed.as_deref(), expected);
        let agent = Agent::over(stream, secured.endpoint(), protocol).await.expect("a connection");
        check_over(governed, agent, &refusals).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_trusts_the_certificate_of_its_own_gateway() {
    let secured = Secured::start().await;
    let call = ["tool", "call", "add", "--arg", "a=2", "--arg", "b=3"];
    assert_eq!(secured.governed.admin(&call, "").await, "{\"sum\":5}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_no_tls_gets_no_answer_and_disturbs_nobody() {
    let secured = Secured::start().await;
    let endpoint = secured.endpoint().replacen("https", "http", 1);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let asked = async {
            let mut agent = Agent::connect(&endpoint, protocol).await?;
            agent.ask(&secured.governed.call("add", json!({"a": 2, "b": 3}))).await
        };
        assert!(asked.await.is_err(), "{protocol:?}");
    }
    let (stream, _) = secured.connect(&[b"h2"]).await;
    let agent = Agent::over(stream, secured.endpoint(), Protocol::Http2).await.expect("a connection");
    check_over(&secured.governed, agent, &[]).await;
    assert_eq!(secured.governed.trail().at_least(1).await.len(), 1, "only the mark was recorded");
}
