//! Joining a cluster over TLS, staying in it, and being thrown out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_control_plane::{ControlPlane, Options, Transport};
use gantry_node::identity::{ClusterId, PeerName};
use gantry_node::seal::NodeSealKey;
use gantry_node::tls::{CertificateRequest, Connector, Expected, Fingerprint, Presenter, Trust};
use gantry_node::token::JoinToken;
use gantry_wire::admin_v1::admin_client::AdminClient;
use gantry_wire::admin_v1::create_join_token_request::Role;
use gantry_wire::admin_v1::revoke_certificate_request::Subject;
use gantry_wire::admin_v1::*;
use gantry_wire::enrol_v1::enrol_client::EnrolClient;
use gantry_wire::enrol_v1::join_request::Joiner;
use gantry_wire::enrol_v1::{Certificates, JoinRequest, JoiningMember, RenewRequest};
use gantry_wire::sync_v1::node_message::Message;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::harness::{self, ADMIN_TOKEN, Admin, DEADLINE, Result, add_token};
use crate::node::{Connection, Process};

const NOT_GOOD: &str = "the join token is not good here: it may have been used, have expired, or be for something \
                        else; make another with `gantry cluster token`";

pub(crate) struct Secured {
    pub(crate) plane: ControlPlane,
    pub(crate) admin: Admin,
    _directory: TempDir,
}

impl Secured {
    pub(crate) async fn start() -> Result<Secured> {
        let directory = tempfile::tempdir()?;
        let options = Options { transport: Transport::Tls, ..harness::options(directory.path()) };
        let plane = gantry_control_plane::start(options).await?;
        let trust = Trust::new(&[CertificateDer::from(plane.authority().ok_or("an authority")?)])?;
        let channel = dial(&plane, Presenter::empty(), trust).await?;
        let admin = AdminClient::with_interceptor(channel, add_token(Some(ADMIN_TOKEN))?);
        Ok(Secured { plane, admin, _directory: directory })
    }

    async fn token(&mut self, role: Role, expires_in_seconds: u64) -> Result<JoinToken> {
        let request = CreateJoinTokenRequest { role: Some(role), expires_in_seconds };
        let made = self.admin.create_join_token(request).await?.into_inner();
        let token = JoinToken::parse(&made.token)?;
        assert_eq!(token.id.to_string(), made.id);
        Ok(token)
    }

    async fn node_token(&mut self) -> Result<JoinToken> {
        self.token(Role::Node(NodeRole::default()), 0).await
    }

    /// Who joins knows the cluster by the token only.
    async fn stranger(&self, token: &JoinToken) -> Result<EnrolClient<Channel>> {
        let trust = Trust::pinned(token.authority);
        Ok(EnrolClient::new(dial(&self.plane, Presenter::empty(), trust).await?))
    }

    /// Joins as a node.
    async fn join(&self, token: &JoinToken, name: &str) -> Result<std::result::Result<Node, Status>> {
        let request = CertificateRequest::new()?;
        let joined = self.stranger(token).await?.join(joining(token, node(name), &request)).await;
        let certificates = match joined {
            Ok(joined) => joined.into_inner().certificates.ok_or("certificates")?,
            Err(status) => return Ok(Err(status)),
        };
        let (chain, trust) = read(&certificates)?;
        assert_eq!(Fingerprint::of(chain.last().ok_or("a chain")?), token.authority);
        Ok(Ok(Node { presenter: Presenter::new(request.complete(chain)?), trust }))
    }
}

/// A node with its certificate.
struct Node {
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
}

impl Node {
    async fn dial(&self, plane: &ControlPlane) -> Result<Channel> {
        dial(plane, self.presenter.clone(), self.trust.clone()).await
    }

    fn name(&self) -> Result<PeerName> {
        Ok(self.presenter.certified().ok_or("a certificate")?.peer().name.clone())
    }
}

pub(crate) async fn dial(
    plane: &ControlPlane,
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
) -> Result<Channel> {
    let cluster: ClusterId = plane.cluster_id().parse()?;
    let connector = Connector::new(presenter, trust, Expected::ControlPlaneOf(cluster))?;
    let endpoint = Endpoint::from_shared(format!("http://{}", plane.address()))?.timeout(DEADLINE);
    Ok(endpoint.connect_with_connector(connector).await?)
}

fn joining(token: &JoinToken, joiner: Joiner, request: &CertificateRequest) -> JoinRequest {
    JoinRequest {
        token_id: token.id.0.to_vec(),
        token_secret: token.secret.expose().to_vec(),
        certificate_request: request.as_der().to_vec(),
        joiner: Some(joiner),
    }
}

fn node(name: &str) -> Joiner {
    Joiner::Node(name.to_owned())
}

fn member() -> Joiner {
    let seal_key = NodeSealKey::generate().expect("a key");
    Joiner::Member(JoiningMember { seal_public_key: seal_key.public_key().as_bytes().to_vec() })
}

fn read(certificates: &Certificates) -> Result<(Vec<CertificateDer<'static>>, Arc<Trust>)> {
    let der = |bytes: &Vec<u8>| CertificateDer::from(bytes.clone());
    let authorities: Vec<_> = certificates.authorities.iter().map(der).collect();
    Ok((certificates.chain.iter().map(der).collect(), Trust::new(&authorities)?))
}

fn refusal(status: Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn a_node_joins_with_a_token_and_follows_by_the_name_in_its_certificate_only() -> Result {
    let mut secured = Secured::start().await?;
    let token = secured.node_token().await?;
    let joined = secured.join(&token, "a").await??;
    assert_eq!(joined.name()?.to_string(), format!("gantry://{}/node/a", secured.plane.cluster_id()));

    let mut connection = Connection::over(joined.dial(&secured.plane).await?, None).await??;
    let mut process = Process::new("a")?;
    connection.send(Message::Hello(process.hello())).await?;
    process.follow(&mut connection).await?;

    let impostor = Process::new("b")?;
    let mut connection = Connection::over(joined.dial(&secured.plane).await?, None).await??;
    connection.send(Message::Hello(impostor.hello())).await?;
    let why = r#"the node calls itself "b", and its certificate is that of a"#.to_owned();
    assert_eq!(refusal(connection.end().await?), (Code::PermissionDenied, why));

    // The node token counts for nothing here.
    let nobody = Node { presenter: Presenter::empty(), trust: joined.trust };
    let channel = nobody.dial(&secured.plane).await?;
    let refused = Connection::over(channel, Some(harness::NODE_TOKEN)).await?.err().ok_or("refused")?;
    let why = "a node shows its certificate; give it a join token of `gantry cluster token --role node`";
    assert_eq!(refusal(refused), (Code::Unauthenticated, why.to_owned()));
    Ok(())
}

#[tokio::test]
async fn every_token_that_is_not_good_is_refused_in_the_same_words() -> Result {
    let mut secured = Secured::start().await?;
    let not_good = (Code::PermissionDenied, NOT_GOOD.to_owned());
    let refused = async |secured: &Secured, token: &JoinToken, name: &str| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(secured.join(token, name).await?.err().map(refusal))
    };
    let used = secured.node_token().await?;
    secured.join(&used, "a").await??;
    assert_eq!(refused(&secured, &used, "a").await?, Some(not_good.clone()));

    let mut unknown = used.clone();
    unknown.id.0[0] ^= 1;
    assert_eq!(refused(&secured, &unknown, "a").await?, Some(not_good.clone()));
    let mut guessed = secured.node_token().await?;
    let secret = *guessed.secret.expose();
    guessed.secret = gantry_model::Secret::new([7; 32]);
    assert_eq!(refused(&secured, &guessed, "a").await?, Some(not_good.clone()));
    guessed.secret = gantry_model::Secret::new(secret);
    secured.join(&guessed, "b").await??;

    let named = secured.token(Role::Node(NodeRole { name: "c".into(), labels: None }), 0).await?;
    assert_eq!(refused(&secured, &named, "d").await?, Some(not_good.clone()));
    let for_members = secured.token(Role::ControlPlane(ControlPlaneRole {}), 0).await?;
    assert_eq!(refused(&secured, &for_members, "d").await?, Some(not_good.clone()));

    let short = secured.token(Role::Node(NodeRole::default()), 1).await?;
    let expires_at = SystemTime::now() + Duration::from_secs(1);
    harness::eventually(async || Ok(SystemTime::now()), |now| *now > expires_at).await?;
    assert_eq!(refused(&secured, &short, "d").await?, Some(not_good));
    Ok(())
}

#[tokio::test]
async fn a_request_that_cannot_be_signed_does_not_use_the_token_up() -> Result {
    let mut secured = Secured::start().await?;
    let token = secured.node_token().await?;
    let request = CertificateRequest::new()?;
    let mut broken = joining(&token, node("a"), &request);
    broken.certificate_request.truncate(20);
    let refused = secured.stranger(&token).await?.join(broken).await.err().ok_or("refused")?;
    let why = "the certificate request is not one, or has no proof of its key".to_owned();
    assert_eq!(refusal(refused), (Code::InvalidArgument, why));
    let refused = secured.join(&token, "Not A Name").await?.err().ok_or("refused")?;
    assert_eq!(refused.code(), Code::InvalidArgument);
    secured.join(&token, "a").await??;
    Ok(())
}

#[tokio::test]
async fn members_that_join_at_the_same_time_get_numbers_of_their_own() -> Result {
    let mut secured = Secured::start().await?;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(secured.token(Role::ControlPlane(ControlPlaneRole {}), 0).await?);
    }
    let join = async |token: &JoinToken| {
        let request = CertificateRequest::new()?;
        let joined = secured.stranger(token).await?.join(joining(token, member(), &request)).await?;
        let (chain, _) = read(&joined.into_inner().certificates.ok_or("certificates")?)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(request.complete(chain)?.peer().name.to_string())
    };
    let [a, b, c, d] = &tokens[..] else { return Err("four".into()) };
    let (a, b, c, d) = tokio::try_join!(join(a), join(b), join(c), join(d))?;
    let cluster = secured.plane.cluster_id();
    let numbers = [2, 3, 4, 5].map(|number| format!("gantry://{cluster}/control-plane/{number}"));
    assert_eq!(HashSet::from([a, b, c, d]), HashSet::from(numbers));
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_renewed_by_itself_for_its_own_name() -> Result {
    let mut secured = Secured::start().await?;
    let token = secured.node_token().await?;
    let joined = secured.join(&token, "a").await??;
    let mut enrol = EnrolClient::new(joined.dial(&secured.plane).await?);
    let request = CertificateRequest::new()?;
    let renewal = RenewRequest { certificate_request: request.as_der().to_vec() };
    let renewed = enrol.renew(renewal.clone()).await?.into_inner();
    let (chain, _) = read(&renewed.certificates.ok_or("certificates")?)?;
    let renewed = request.complete(chain)?;
    let before = joined.presenter.certified().ok_or("a certificate")?.peer().clone();
    assert_eq!(renewed.peer().name, before.name);
    assert_ne!(renewed.peer().serial, before.serial);

    let refused = secured.stranger(&token).await?.renew(renewal).await.err().ok_or("refused")?;
    let why = "a certificate is renewed by the one before it, and none was shown".to_owned();
    assert_eq!(refusal(refused), (Code::Unauthenticated, why));
    Ok(())
}

#[tokio::test]
async fn a_revoked_node_is_cut_off_and_stays_out() -> Result {
    let mut secured = Secured::start().await?;
    let (first, second) = (secured.node_token().await?, secured.node_token().await?);
    let (a, b) = (secured.join(&first, "a").await??, secured.join(&second, "b").await??);
    let follow = async |node: &Node, name: &str| {
        let mut connection = Connection::over(node.dial(&secured.plane).await?, None).await??;
        let mut process = Process::new(name)?;
        connection.send(Message::Hello(process.hello())).await?;
        process.follow(&mut connection).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((process, connection))
    };
    let (_, mut connection_of_a) = follow(&a, "a").await?;
    let (mut process_b, mut connection_of_b) = follow(&b, "b").await?;

    let subject = Some(Subject::Name(a.name()?.to_string()));
    let revoked = secured.admin.revoke_certificate(RevokeCertificateRequest { subject }).await?;
    let revision = revoked.into_inner().revision;
    connection_of_a.end().await?;
    process_b.follow_to(&mut connection_of_b, revision).await?;

    // TLS 1.3 tells a client only with the first answer.
    let again = match a.dial(&secured.plane).await {
        Ok(channel) => Connection::over(channel, None).await?.err().map(|status| status.code()),
        Err(_) => Some(Code::Unavailable),
    };
    assert!(matches!(again, Some(Code::Unavailable | Code::Unknown)), "{again:?}");

    let elsewhere = Some(Subject::Name("gantry://elsewhere/node/a".into()));
    let refused = secured.admin.revoke_certificate(RevokeCertificateRequest { subject: elsewhere }).await;
    assert_eq!(refused.err().map(|status| status.code()), Some(Code::NotFound));
    Ok(())
}

#[tokio::test]
async fn who_guesses_is_not_listened_to_for_a_while() -> Result {
    let mut secured = Secured::start().await?;
    let good = secured.node_token().await?;
    let mut guess = good.clone();
    guess.secret = gantry_model::Secret::new([9; 32]);
    let mut codes = Vec::new();
    for _ in 0..11 {
        codes.push(secured.join(&guess, "a").await?.err().map(|status| status.code()));
    }
    let mut expected = vec![Some(Code::PermissionDenied); 10];
    expected.push(Some(Code::ResourceExhausted));
    assert_eq!(codes, expected);
    let refused = secured.join(&good, "a").await?.err().ok_or("refused")?;
    let why = "too many join tokens from this address were not good; try again in a minute".to_owned();
    assert_eq!(refusal(refused), (Code::ResourceExhausted, why));
    Ok(())
}

#[tokio::test]
async fn nobody_joins_without_tls() -> Result {
    let harness = harness::Harness::start().await?;
    let mut enrol = EnrolClient::new(harness::channel(harness.address()).await?);
    let refused = enrol.join(JoinRequest::default()).await.err().ok_or("refused")?;
    let why = "nobody joins here: this control plane has no TLS".to_owned();
    assert_eq!(refusal(refused), (Code::FailedPrecondition, why));
    Ok(())
}
