//! Who is let in, and who is not.

use std::error::Error;
use std::sync::Arc;

use gantry_node::identity::PeerName;
use gantry_node::tls::{
    Certified, Expected, Fingerprint, HandshakeError, Peer, Presenter, Revocations, Trust, client_config,
    peer_of, server_config,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::{Authority, DAY, Life, cluster, member, node};

const REVOKED: &str = "the certificate of the peer does not count: Revoked";
const STRANGER: &str = "the peer is of another cluster, or of none: its certificate is of an authority that is not believed here";
const STRANGE: &str =
    "the peer is of another cluster, or of none: it does not believe the authority of this one";

/// One side of a connection to be.
struct Side {
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
}

/// What each side says of a handshake: who the other is, or why there was none.
#[derive(Debug, PartialEq)]
struct Said {
    server: Result<Option<PeerName>, String>,
    client: Result<PeerName, String>,
}

/// A handshake, and a byte each way: a client is told only then that it was refused.
async fn meet(client: &Side, expected: Expected, server: &Side) -> Said {
    let config = client_config(client.presenter.clone(), client.trust.clone(), expected);
    meet_with(config.expect("a configuration"), server).await
}

async fn meet_with(client: Arc<ClientConfig>, server: &Side) -> Said {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let config = server_config(server.presenter.clone(), server.trust.clone(), cluster("here"));
    let acceptor = TlsAcceptor::from(config.expect("a configuration"));
    let connector = TlsConnector::from(client);
    let serve = async {
        let mut stream = acceptor.accept(far).await.map_err(chain)?;
        stream.write_u8(1).await.map_err(chain)?;
        stream.flush().await.map_err(chain)?;
        stream.read_u8().await.map_err(chain)?;
        Ok(peer_of(stream.get_ref().1).map(|peer| peer.name))
    };
    let dial = async {
        let name = ServerName::try_from("anything").expect("a name");
        let mut stream = connector.connect(name, near).await.map_err(chain)?;
        stream.read_u8().await.map_err(chain)?;
        stream.write_u8(1).await.map_err(chain)?;
        stream.flush().await.map_err(chain)?;
        Ok(peer_of(stream.get_ref().1).expect("a server has a certificate").name)
    };
    let (server, client) = tokio::join!(serve, dial);
    Said { server, client }
}

fn chain(error: std::io::Error) -> String {
    let error = HandshakeError::from(error);
    let source = error.source().map(|source| format!(": {source}"));
    error.to_string() + &source.unwrap_or_default()
}

fn side(authority: &Authority, name: &PeerName) -> Side {
    Side { presenter: authority.presenter(name), trust: authority.trust() }
}

fn any() -> Expected {
    Expected::ControlPlaneOf(cluster("here"))
}

fn met(client: Option<PeerName>, server: PeerName) -> Said {
    Said { server: Ok(client), client: Ok(server) }
}

fn refused_by_client(why: &str, alert: &str) -> Said {
    let server = Err(format!("TLS failed: received fatal alert: {alert}"));
    Said { server, client: Err(why.to_owned()) }
}

fn refused_by_server(why: &str, alert: &str) -> Said {
    let client = Err(format!("TLS failed: received fatal alert: {alert}"));
    Said { server: Err(why.to_owned()), client }
}

/// The client refuses who is of another authority, and the server hears that.
fn stranger_at_client() -> Said {
    Said { server: Err(STRANGE.to_owned()), client: Err(STRANGER.to_owned()) }
}

fn stranger_at_server() -> Said {
    Said { server: Err(STRANGER.to_owned()), client: Err(STRANGE.to_owned()) }
}

#[tokio::test]
async fn each_side_knows_who_the_other_is() {
    let authority = Authority::new();
    let (client, server) = (side(&authority, &node("a")), side(&authority, &member(2)));
    assert_eq!(meet(&client, any(), &server).await, met(Some(node("a")), member(2)));
    let exactly = Expected::Exactly(member(2));
    assert_eq!(meet(&client, exactly, &server).await, met(Some(node("a")), member(2)));
}

#[tokio::test]
async fn a_server_of_another_name_is_refused_though_the_authority_is_right() {
    let authority = Authority::new();
    let client = side(&authority, &node("a"));
    let not = |expected: &str, presented: &PeerName| {
        let why = format!(
            "the peer is refused: the certificate is that of {presented}, and {expected} was expected"
        );
        refused_by_client(&why, "CertificateUnknown")
    };
    let third = side(&authority, &member(3));
    let said = meet(&client, Expected::Exactly(member(2)), &third).await;
    assert_eq!(said, not("gantry://here/control-plane/2", &member(3)));

    // A node has a certificate of the cluster too, and is not its control plane.
    let other_node = side(&authority, &node("b"));
    let said = meet(&client, any(), &other_node).await;
    assert_eq!(said, not("the control plane of cluster here", &node("b")));

    let there: PeerName = "gantry://there/control-plane/2".parse().expect("a name");
    let said = meet(&client, any(), &side(&authority, &there)).await;
    assert_eq!(said, not("the control plane of cluster here", &there));
}

#[tokio::test]
async fn a_client_of_another_cluster_is_refused_though_the_authority_is_right() {
    let authority = Authority::new();
    let there: PeerName = "gantry://there/node/a".parse().expect("a name");
    let said = meet(&side(&authority, &there), any(), &side(&authority, &member(1))).await;
    let why = "the peer is refused: the certificate is that of gantry://there/node/a, and a peer of cluster here was expected";
    assert_eq!(said, refused_by_server(why, "CertificateUnknown"));
}

#[tokio::test]
async fn nobody_believes_another_authority() {
    let (ours, theirs) = (Authority::named("ours"), Authority::named("theirs"));
    let stranger = Side { presenter: theirs.presenter(&node("a")), trust: ours.trust() };
    let said = meet(&stranger, any(), &side(&ours, &member(1))).await;
    assert_eq!(said, stranger_at_server());

    let impostor = Side { presenter: theirs.presenter(&member(1)), trust: ours.trust() };
    let said = meet(&side(&ours, &node("a")), any(), &impostor).await;
    assert_eq!(said, stranger_at_client());
}

#[tokio::test]
async fn an_authority_is_known_by_its_key_and_not_by_its_name() {
    let (ours, twin) = (Authority::named("ours"), Authority::named("ours"));
    let stranger = Side { presenter: twin.presenter(&node("a")), trust: ours.trust() };
    let said = meet(&stranger, any(), &side(&ours, &member(1))).await;
    let why = "the certificate of the peer does not count: BadSignature";
    assert_eq!(said, refused_by_server(why, "DecryptError"));
}

#[tokio::test]
async fn a_certificate_counts_from_its_beginning_to_its_end() {
    let authority = Authority::new();
    let server = side(&authority, &member(1));
    let lived = |life: Life| Side {
        presenter: Presenter::new(authority.certify(&[node("a").to_string()], &life)),
        trust: authority.trust(),
    };
    let said = meet(&lived(Life(-120, -60)), any(), &server).await;
    let why = said.server.clone().expect_err("refused");
    assert!(
        why.starts_with("the certificate of the peer does not count: certificate expired: verification time"),
        "{why}"
    );
    assert_eq!(said.client, Err("TLS failed: received fatal alert: CertificateExpired".to_owned()));

    let said = meet(&lived(Life(60, 120)), any(), &server).await;
    let why = said.server.expect_err("refused");
    assert!(
        why.starts_with("the certificate of the peer does not count: certificate not valid yet"),
        "{why}"
    );
}

#[tokio::test]
async fn what_is_revoked_is_refused_from_then_on_even_to_a_client_that_was_here_before() {
    let authority = Authority::new();
    let (client, server) = (side(&authority, &node("a")), side(&authority, &member(1)));
    let good = met(Some(node("a")), member(1));
    assert_eq!(meet(&client, any(), &server).await, good);

    let presented = client.presenter.certified().expect("a certificate").peer().clone();
    let refused = refused_by_server(REVOKED, "CertificateRevoked");
    let by_serial = Revocations { serials: [(presented.serial, u64::MAX)].into(), ..Revocations::default() };
    server.trust.replace_revocations(by_serial);
    assert_eq!(meet(&client, any(), &server).await, refused);

    let by_name = |until_ms| {
        let names = [(node("a"), until_ms)].into();
        Revocations { names, ..Revocations::default() }
    };
    server.trust.replace_revocations(by_name(presented.expires_at_ms));
    assert_eq!(meet(&client, any(), &server).await, refused);

    // Enrolled anew: the name's newer certificate ends later than any that was revoked.
    server.trust.replace_revocations(by_name(presented.expires_at_ms - 1));
    assert_eq!(meet(&client, any(), &server).await, good);

    let other = Revocations { names: [(node("b"), u64::MAX)].into(), ..Revocations::default() };
    server.trust.replace_revocations(other);
    assert_eq!(meet(&client, any(), &server).await, good);

    // A client refuses a revoked server as well.
    let names = [(member(1), u64::MAX)].into();
    client.trust.replace_revocations(Revocations { names, ..Revocations::default() });
    let said = meet(&client, any(), &server).await;
    assert_eq!(said, refused_by_client(REVOKED, "CertificateRevoked"));
}

#[tokio::test]
async fn no_session_is_resumed_or_it_would_outlive_a_revocation() {
    let authority = Authority::new();
    let (client, server) = (side(&authority, &node("a")), side(&authority, &member(1)));
    let config = server_config(server.presenter, server.trust, cluster("here")).expect("a configuration");
    let acceptor = TlsAcceptor::from(config);
    let config = client_config(client.presenter, client.trust, any()).expect("a configuration");
    let connector = TlsConnector::from(config);
    for _ in 0..2 {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serve = async {
            let mut stream = acceptor.accept(far).await.expect("a handshake");
            stream.write_u8(1).await.expect("it is read");
            stream.get_ref().1.handshake_kind()
        };
        let dial = async {
            let name = ServerName::try_from("anything").expect("a name");
            let mut stream = connector.connect(name, near).await.expect("a handshake");
            stream.read_u8().await.expect("tickets come before it");
        };
        let (kind, ()) = tokio::join!(serve, dial);
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn one_certificate_carries_one_name() {
    let authority = Authority::new();
    let server = side(&authority, &member(1));
    for (names, why) in [
        (vec![], "the certificate carries 0 names of Gantry, and not one"),
        (
            vec![node("a").to_string(), node("b").to_string()],
            "the certificate carries 2 names of Gantry, and not one",
        ),
        (vec!["https://example.com/node/a".to_owned()], "the certificate's name cannot be read"),
    ] {
        let (certificate, key) = authority.sign(&names, &DAY);
        let refused = Certified::from_pem(certificate.as_bytes(), &key).expect_err("not one name");
        assert_eq!(refused.source().map(ToString::to_string), Some(why.to_owned()));

        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.expose()).expect("a key");
        let pair = CertifiedKey::from_der(vec![certificate], key, &aws_lc_rs::default_provider());
        let resolver = Arc::new(SingleCertAndKey::from(pair.expect("a pair")));
        let config = client_config(Presenter::empty(), authority.trust(), any()).expect("a configuration");
        let mut config = (*config).clone();
        config.client_auth_cert_resolver = resolver;
        let said = meet_with(Arc::new(config), &server).await;
        assert_eq!(said, refused_by_server(&format!("the peer is refused: {why}"), "CertificateUnknown"));
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_let_in_as_nobody() {
    let authority = Authority::new();
    let nobody = Side { presenter: Presenter::empty(), trust: authority.trust() };
    assert_eq!(meet(&nobody, any(), &side(&authority, &member(1))).await, met(None, member(1)));
}

#[tokio::test]
async fn a_joiner_knows_its_cluster_by_the_fingerprint_of_the_authority() {
    let (ours, theirs) = (Authority::named("ours"), Authority::named("theirs"));
    let server = side(&ours, &member(1));
    let joiner = |authority: &Authority| Side {
        presenter: Presenter::empty(),
        trust: Trust::pinned(Fingerprint::of(&authority.certificate())),
    };
    assert_eq!(meet(&joiner(&ours), any(), &server).await, met(None, member(1)));
    let said = meet(&joiner(&theirs), any(), &server).await;
    assert_eq!(said, stranger_at_client());

    // Showing the right authority is not enough: it must have signed.
    let chained = theirs.certify_beside(&ours, &[member(1).to_string()], &DAY);
    let chained = Side { presenter: Presenter::new(chained), trust: ours.trust() };
    let said = meet(&joiner(&ours), any(), &chained).await;
    assert_eq!(said, stranger_at_client());
}

#[tokio::test]
async fn certificates_and_authorities_are_replaced_while_the_process_runs() {
    let (old, new) = (Authority::named("ours"), Authority::named("theirs"));
    let (client, server) = (side(&old, &node("a")), side(&old, &member(1)));
    let both = [old.certificate(), new.certificate()];
    for trust in [&client.trust, &server.trust] {
        trust.replace_authorities(&both).expect("two authorities");
    }
    let serial = |side: &Side| side.presenter.certified().map(|certified| certified.peer().serial.clone());
    let before = serial(&server);
    server.presenter.replace(new.certify(&[member(2).to_string()], &DAY));
    assert_ne!(serial(&server), before);
    assert_eq!(meet(&client, any(), &server).await, met(Some(node("a")), member(2)));

    server.trust.replace_authorities(&[new.certificate()]).expect("an authority");
    let said = meet(&client, any(), &server).await;
    assert_eq!(said, stranger_at_server());
    client.presenter.replace(new.certify(&[node("b").to_string()], &DAY));
    assert_eq!(meet(&client, any(), &server).await, met(Some(node("b")), member(2)));
}

#[test]
fn no_key_is_shown_by_debug() {
    let authority = Authority::new();
    let presenter = authority.presenter(&node("a"));
    let Some(certified) = presenter.certified() else { panic!("it has one") };
    let Peer { name, labels, token, serial, begins_at_ms, expires_at_ms } = certified.peer();
    let peer = format!(
        "Peer {{ name: {name:?}, labels: {labels:?}, token: {token:?}, serial: {serial:?}, begins_at_ms: {begins_at_ms}, expires_at_ms: {expires_at_ms} }}"
    );
    let shown = format!("Presenter {{ certified: Some(Certified {{ peer: {peer}, .. }}) }}");
    assert_eq!(format!("{presenter:?}"), shown);
}
