//! A gateway with TLS whose tenant takes certificates of agents, clients that show some, and authorities that sign what a test
//! wants signed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey as Shown;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::agent::{Agent, Answer, Message, Protocol};
use crate::dev::Options;
use crate::governed::Governed;

/// What the certificate of the agent `reporter` calls it.
pub const REPORTER: &str = "spiffe://acme.example/agents/reporter";

/// By what the gateway can be reached.
const HOSTS: [&str; 4] = ["127.0.0.1", "mine.example", "other.example", "third.example"];

/// An authority.
pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// What a client shows: its chain, and the key of its own certificate, as PEM.
#[derive(Clone)]
pub struct Client {
    /// Its own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its own, as PEM.
    pub pem: String,
    /// The key.
    pub key: String,
}

/// The gateway. It ends when it is dropped.
pub struct Certified {
    /// With the server behind it.
    pub governed: Governed,
    server: CertificateDer<'static>,
    /// The authority that the tenant believes, once it is told to.
    pub ours: Authority,
    /// Another of the same name.
    pub theirs: Authority,
    /// Its certificate (`server.pem`), and what a test writes.
    pub files: TempDir,
}

/// An authority of this name.
///
/// # Panics
/// When no key can be made.
#[must_use]
pub fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A client of an authority, but for what is changed.
///
/// # Panics
/// When no certificate can be made of it.
pub fn client(by: &Authority, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Client {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Acme");
    params.distinguished_name.push(DnType::CommonName, "reporter");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let signed = params.signed_by(&key, by).expect("a certificate");
    Client { chain: vec![signed.der().clone()], pem: signed.pem(), key: key.serialize_pem() }
}

/// A provider `mesh` of certificates.
///
/// # Panics
/// When `more` is no object.
#[must_use]
pub fn provider(tenant: &str, bundle: &str, more: Value) -> Value {
    let mut spec = json!({"client_authorities": bundle});
    for (name, value) in more.as_object().expect("an object") {
        spec[name] = value.clone();
    }
    json!({"kind": "Provider", "tenant": tenant, "name": "mesh", "spec": spec})
}

/// An agent that `mesh` calls so.
#[must_use]
pub fn agent(tenant: &str, name: &str, client: &str) -> Value {
    let spec = json!({"identities": [{"provider": "mesh", "client": client}]});
    json!({"kind": "Agent", "tenant": tenant, "name": name, "spec": spec})
}

/// A call that succeeds for whoever may make it.
#[must_use]
pub fn add() -> Message {
    Message::call("add", json!({"a": 2, "b": 3}))
}

/// Shows a certificate where it is asked for one, and remembers that.
#[derive(Debug)]
struct Showing {
    shown: Option<Arc<Shown>>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Showing {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<Shown>> {
        self.asked.store(true, Ordering::Relaxed);
        self.shown.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Certified {
    /// Starts it; no certificate is taken yet.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(HOSTS.map(str::to_owned)).expect("a certificate");
        let files = tempfile::tempdir().expect("a temporary folder");
        let (certificate, key) = (files.path().join("server.pem"), files.path().join("server.key"));
        std::fs::write(&certificate, cert.pem()).expect("the certificate is written");
        std::fs::write(&key, signing_key.serialize_pem()).expect("the key is written");
        let options = Options { tls: Some((certificate, key)), ..Options::default() };
        let governed = Governed::start_with(options).await;
        let (ours, theirs) = (authority("Acme agents"), authority("Acme agents"));
        Self { governed, server: cert.der().clone(), ours, theirs, files }
    }

    /// The tenant believes our authority for its trust domain; `reporter` may call.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn believe(&self) {
        let documents = [
            provider("dev", &self.ours.pem(), json!({"trust_domain": "acme.example"})),
            agent("dev", "reporter", REPORTER),
            json!({"kind": "Policy", "tenant": "dev", "name": "reporter", "spec": {"cedar":
                "permit(principal == Agent::\"reporter\", action, resource) when { principal has provider && principal.provider == \"mesh\" };"}}),
        ];
        self.apply(&documents).await;
    }

    /// Applies documents.
    ///
    /// # Panics
    /// When they are refused.
    pub async fn apply(&self, documents: &[Value]) {
        let documents: Vec<String> = documents.iter().map(Value::to_string).collect();
        self.governed.apply(&documents.join("\n---\n")).await;
    }

    /// The endpoint.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.governed.dev().ready().endpoint
    }

    /// A connection that shows a certificate, and whether it was asked for one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn connect(&self, client: Option<&Client>, protocol: Protocol) -> (Agent, bool) {
        self.connect_to(HOSTS[0], client, protocol).await
    }

    /// The same, to this host of it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn connect_to(&self, host: &str, client: Option<&Client>, protocol: Protocol) -> (Agent, bool) {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let shown = client.map(|client| {
            let key = KeyPair::from_pem(&client.key).expect("a key").serialize_der();
            let key = provider
                .key_provider
                .load_private_key(rustls::pki_types::PrivatePkcs8KeyDer::from(key).into());
            Arc::new(Shown::new(client.chain.clone(), key.expect("a key")))
        });
        let asked = Arc::new(AtomicBool::new(false));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(Showing { shown, asked: asked.clone() }));
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        let authority = self.url().split('/').nth(2).expect("host and port");
        let stream = TcpStream::connect(authority).await.expect("a connection");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
        let agent = Agent::over(stream, self.url(), protocol).await.expect("a connection");
        (agent, asked.load(Ordering::Relaxed))
    }

    /// The answer on a connection of its own.
    ///
    /// # Panics
    /// When there is none.
    pub async fn ask(&self, client: Option<&Client>, message: &Message) -> Answer {
        self.connect(client, Protocol::Http2).await.0.ask(message).await.expect("an answer")
    }

    /// Writes a file.
    ///
    /// # Panics
    /// When it cannot.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).expect("a file is written");
        path
    }
}

/// Status and message of a refusal, or what the tool said.
///
/// # Panics
/// When the answer is no JSON.
#[must_use]
pub fn told(answer: &Answer) -> (u16, String) {
    let body = if answer.said().is_empty() { answer.json() } else { json!(answer.said()) };
    let text = body.pointer("/error/message").and_then(Value::as_str).map(str::to_owned);
    (answer.status, text.unwrap_or_else(|| body.as_str().unwrap_or_default().to_owned()))
}

/// What [`add`] is told.
#[must_use]
pub fn sum() -> (u16, String) {
    (200, r#"{"sum":5}"#.to_owned())
}
