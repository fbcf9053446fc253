//! Who is let in.

use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_ecdsa_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio::time::timeout;

use super::nodes::{DEADLINE, TestNode, acquainted, all, within};
use crate::mesh::{Mesh, Unreachable};

#[tokio::test]
async fn a_peer_that_shows_another_certificate_is_asked_nothing() {
    let [mut a, b, mut impostor] = ["a", "b", "impostor"].map(TestNode::new);
    // The impostor listens where the peer is said to be, and knows the asker.
    impostor.told(&[a.member()]);
    a.told(&[b.member_at(impostor.address())]);
    assert_refused(a.mesh.open("b").await.err());
    assert!(impostor.seen.try_recv().is_err());
    assert_eq!(a.members(), ["a"]);
}

#[tokio::test]
async fn a_node_that_is_no_member_is_refused() {
    let [mut a, mut b, mut stranger] = ["a", "b", "stranger"].map(TestNode::new);
    let members = [a.member(), b.member()];
    a.told(&members);
    b.told(&members);
    stranger.told(&members);
    for peer in ["a", "b"] {
        assert_refused(stranger.mesh.open(peer).await.err());
    }
    assert!(a.seen.try_recv().is_err() && b.seen.try_recv().is_err());
    // Members are served all the while.
    assert!(all(a.ask("b", b"more").await).await.1.is_none());
}

#[tokio::test]
async fn a_peer_that_hears_of_the_asker_a_little_later_takes_the_exchange() {
    let [mut a, mut b] = ["a", "b"].map(TestNode::new);
    a.told(&[b.member()]);
    let asker = a.mesh.clone();
    let opened = tokio::spawn(async move { asker.open("b").await.map(drop) });
    tokio::task::yield_now().await;
    b.told(&[a.member()]);
    within(opened).await.expect("a task").expect("a peer");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let [a, _b] = acquainted(["a", "b"]);
    // Somebody saw the certificate of a member, and has a key of its own.
    let member = rcgen::generate_simple_self_signed(["gantry-mesh".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["gantry-mesh".to_owned()]).expect("a certificate");
    let fingerprint = super::super::identity::Fingerprint::of(member.cert.der());
    let mut victim = TestNode::new("c");
    let seen = gantry_wire::sync_v1::Mesh {
        certificate_fingerprint: fingerprint.as_bytes().to_vec(),
        address: "127.0.0.1:1".to_owned(),
    };
    victim.told(&[gantry_wire::sync_v1::Member { mesh: Some(seen), ..a.member() }]);

    let honest = connect(&victim, member.cert.der(), &member.signing_key.serialize_der()).await;
    assert!(honest.is_ok(), "{honest:?}");
    let thief = connect(&victim, member.cert.der(), &other.signing_key.serialize_der()).await;
    assert!(thief.is_err());
    let nameless = connect(&victim, other.cert.der(), &other.signing_key.serialize_der()).await;
    assert!(nameless.is_err());
}

#[tokio::test]
async fn a_node_alone_has_every_key_and_no_peer() {
    let (mesh, _acceptor) = Mesh::alone("a");
    assert_eq!((mesh.members(), mesh.home(b"key")), (vec!["a".into()], "a".into()));
    assert!(mesh.is_member("a") && !mesh.is_member("b"));
    assert!(mesh.whereabouts().is_none());
    assert!(matches!(mesh.open("a").await.err(), Some(Unreachable::NotMember)));
    mesh.tell_all(Bytes::new()).await;
}

/// On a busy machine the attempts may take longer than the deadline.
fn assert_refused(refused: Option<Unreachable>) {
    assert!(matches!(refused, Some(Unreachable::Lost(_) | Unreachable::Late)), "{refused:?}");
}

/// What somebody gets who connects with this certificate and key: whether a stream is answered with anything but an
/// end of the connection.
async fn connect(node: &TestNode, certificate: &CertificateDer<'static>, key: &[u8]) -> Result<(), String> {
    #[derive(Debug)]
    struct Shown(Arc<CertifiedKey>);

    impl ResolvesClientCert for Shown {
        fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    let key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(key.to_vec().into())).expect("a key");
    let shown = Shown(Arc::new(CertifiedKey::new(vec![certificate.clone()], key)));
    let expected = node.mesh.whereabouts().expect("a place").certificate_fingerprint;
    let verifier = super::super::identity::accepting(&expected);
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"gantry-mesh/1".to_vec()];
    let config = QuicClientConfig::try_from(config).expect("a configuration");
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("an endpoint");
    let config = quinn::ClientConfig::new(Arc::new(config));
    let connecting = endpoint.connect_with(config, node.address(), "gantry-mesh").expect("an attempt");
    let asked = async {
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        send.write_all(&[0xff; 4]).await.map_err(|error| error.to_string())?;
        send.finish().map_err(|error| error.to_string())?;
        // A stream of nothing but an end is ended in turn.
        receive.read_to_end(16).await.map(drop).map_err(|error| error.to_string())
    };
    timeout(DEADLINE, asked).await.expect("an answer in time")
}
