//! Joining a cluster and staying in it, against a control plane that is played.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use gantry_model::Secret;
use gantry_model::enrolment::JoinTokenId;
use gantry_node::identity::PeerName;
use gantry_node::membership::{FileError, JoinError, Membership};
use gantry_node::tls::{Caller, Fingerprint, Incoming, server_config};
use gantry_node::token::JoinToken;
use gantry_wire::enrol_v1::enrol_server::{Enrol, EnrolServer};
use gantry_wire::enrol_v1::{Certificates, JoinRequest, JoinResponse, RenewRequest, RenewResponse};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::authority::{Authority, Life, cluster, member, node};

type Tested = Result<(), Box<dyn Error>>;

const DEADLINE: Duration = Duration::from_secs(20);

/// Signs for everybody, for a few seconds, and tells of each renewal; always for `name`, if there is one.
struct Played {
    authority: Authority,
    name: Option<PeerName>,
    renewals: mpsc::UnboundedSender<Option<PeerName>>,
}

impl Played {
    fn sign(&self, request: &[u8], name: PeerName) -> Certificates {
        let name = self.name.clone().unwrap_or(name);
        let leaf = self.authority.sign_request(request, &name, &Life(0, 3));
        let authority = self.authority.certificate().to_vec();
        Certificates { chain: vec![leaf.to_vec(), authority.clone()], authorities: vec![authority] }
    }
}

#[tonic::async_trait]
impl Enrol for Played {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        if request.token_secret != [7; 32] {
            return Err(Status::permission_denied("not good"));
        }
        let certificates = Some(self.sign(&request.certificate_request, node("a")));
        Ok(Response::new(JoinResponse { certificates, ..JoinResponse::default() }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let caller = request.extensions().get::<Caller>().and_then(|caller| caller.peer.clone());
        let _ = self.renewals.send(caller.map(|peer| peer.name));
        let certificates = Some(self.sign(&request.get_ref().certificate_request, node("a")));
        Ok(Response::new(RenewResponse { certificates }))
    }
}

struct Served {
    address: SocketAddr,
    token: JoinToken,
    renewals: mpsc::UnboundedReceiver<Option<PeerName>>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(name: Option<PeerName>) -> Result<Served, Box<dyn Error>> {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let trust = authority.trust();
    let config = server_config(authority.presenter(&member(1)), trust.clone(), cluster("here"))?;
    let token = JoinToken {
        cluster: cluster("here"),
        id: JoinTokenId([1; 8]),
        secret: Secret::new([7; 32]),
        authority: Fingerprint::of(&authority.certificate()),
    };
    let (told, renewals) = mpsc::unbounded_channel();
    let played = Played { authority, name, renewals: told };
    let serving = Server::builder()
        .add_service(EnrolServer::new(played))
        .serve_with_incoming(Incoming::new(listener, config, trust));
    let task = tokio::spawn(async { serving.await.expect("it serves until it is dropped") });
    Ok(Served { address, token, renewals, task })
}

#[tokio::test]
async fn who_joined_is_known_again_and_keeps_its_file_to_itself() -> Tested {
    let served = serve(None).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("made").join("identity");
    assert!(Membership::load(file.clone())?.is_none());
    let name = "a".parse()?;
    let address = served.address.to_string();
    let joined = Membership::join_as_node(&served.token, &name, &address, file.clone()).await?;
    assert_eq!(*joined.name(), node("a"));

    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let loaded = Membership::load(file.clone())?.ok_or("a member")?;
    assert_eq!((loaded.name(), loaded.expires_at_ms()), (joined.name(), joined.expires_at_ms()));
    let text = fs::read_to_string(&file)?;
    let shown = format!("{loaded:?}");
    let key = text.lines().nth(1).ok_or("the first line of the key")?;
    assert!(text.starts_with("-----BEGIN PRIVATE KEY-----") && !shown.contains(key.trim()), "{shown}");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640))?;
    assert!(matches!(Membership::load(file.clone()), Err(FileError::Open(path)) if path == file));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    fs::write(&file, &text[..text.len() / 2])?;
    assert!(matches!(Membership::load(file), Err(FileError::Authorities { .. })));
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_through_any_member_that_answers() -> Tested {
    let mut served = serve(None).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("identity");
    let address = served.address.to_string();
    let joined = Membership::join_as_node(&served.token, &"a".parse()?, &address, file.clone()).await?;
    let first = joined.expires_at_ms();
    // Nobody listens where this one did.
    let gone = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
    let staying = tokio::spawn({
        let (joined, addresses) = (joined.clone(), [gone, address]);
        async move { joined.stay(&addresses).await }
    });
    // The second is asked for with the first: it was taken into use.
    for _ in 0..3 {
        let asked = tokio::time::timeout(DEADLINE, served.renewals.recv()).await?;
        assert_eq!(asked, Some(Some(node("a"))));
    }
    staying.abort();
    assert!(joined.expires_at_ms() > first);
    let kept = Membership::load(file)?.ok_or("a member")?;
    assert!(kept.expires_at_ms() >= joined.expires_at_ms());
    Ok(())
}

#[tokio::test]
async fn a_joiner_gives_its_token_to_nobody_but_its_cluster() -> Tested {
    let (ours, theirs) = (serve(None).await?, serve(None).await?);
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("identity");
    let join = async |token: &JoinToken, served: &Served| {
        let address = served.address.to_string();
        let name = "a".parse().expect("a name");
        Membership::join_as_node(token, &name, &address, file.clone()).await.err()
    };
    let refused = join(&ours.token, &theirs).await.ok_or("refused")?;
    let address = theirs.address;
    assert_eq!(refused.to_string(), format!("the control plane at {address} cannot be asked"));
    let why = format!(
        "no connection: the TLS handshake with {address} failed: the peer is of another cluster, or of none: its \
         certificate is of an authority that is not believed here"
    );
    assert_eq!(refused.source().map(ToString::to_string), Some(why));

    let elsewhere = JoinToken { cluster: cluster("there"), ..ours.token.clone() };
    let refused = join(&elsewhere, &ours).await.ok_or("refused")?;
    assert!(matches!(refused, JoinError::Reach { .. }), "{refused}");

    let guessed = JoinToken { secret: Secret::new([8; 32]), ..ours.token.clone() };
    let refused = join(&guessed, &ours).await.ok_or("refused")?;
    assert_eq!(refused.to_string(), "the control plane refused: not good");
    assert!(!file.exists());
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_taken() -> Tested {
    let served = serve(Some(node("b"))).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("identity");
    let address = served.address.to_string();
    let refused = Membership::join_as_node(&served.token, &"a".parse()?, &address, file.clone()).await;
    let refused = refused.err().ok_or("refused")?;
    let why = refused.source().map(ToString::to_string);
    assert_eq!(why, Some("it is that of gantry://here/node/b".to_owned()));
    assert!(!file.exists());
    Ok(())
}
