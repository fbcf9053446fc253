//! gRPC over these connections: who calls is known to the service, and a connection ends with the right to it.

use std::sync::Arc;
use std::time::Duration;

use gantry_node::identity::PeerName;
use gantry_node::tls::{Caller, Connector, Expected, Incoming, Presenter, Revocations, Trust, server_config};
use gantry_wire::sync_v1::sync_client::SyncClient;
use gantry_wire::sync_v1::sync_server::{Sync, SyncServer};
use gantry_wire::sync_v1::{
    ApprovalAnswer, AskApprovalRequest, NodeMessage, ServerMessage, TakeApprovalRequest,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Pending, StreamExt};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::authority::{Authority, DAY, Life, cluster, member, node};

const DEADLINE: Duration = Duration::from_secs(10);

/// Opens a stream on which nothing comes, and says in its headers who called.
struct Whoami;

#[tonic::async_trait]
impl Sync for Whoami {
    type FollowStream = Pending<Result<ServerMessage, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = request.extensions().get::<Caller>().ok_or(Status::internal("no caller"))?;
        let name = caller.peer.as_ref().map_or_else(|| "nobody".to_owned(), |peer| peer.name.to_string());
        let mut response = Response::new(tokio_stream::pending());
        response.metadata_mut().insert("caller", name.parse().map_err(|_| Status::internal("no header"))?);
        Ok(response)
    }

    async fn ask_approval(&self, _: Request<AskApprovalRequest>) -> Result<Response<ApprovalAnswer>, Status> {
        Err(Status::unimplemented("nothing is approved here"))
    }

    async fn take_approval(
        &self,
        _: Request<TakeApprovalRequest>,
    ) -> Result<Response<ApprovalAnswer>, Status> {
        Err(Status::unimplemented("nothing is approved here"))
    }
}

struct Served {
    address: std::net::SocketAddr,
    trust: Arc<Trust>,
    presenter: Arc<Presenter>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(authority: &Authority) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (presenter, trust) = (authority.presenter(&member(1)), authority.trust());
    let config = server_config(presenter.clone(), trust.clone(), cluster("here")).expect("a configuration");
    let incoming = Incoming::new(listener, config, trust.clone());
    let served = Server::builder().add_service(SyncServer::new(Whoami)).serve_with_incoming(incoming);
    let task = tokio::spawn(async { served.await.expect("it serves until it is dropped") });
    Served { address, trust, presenter, task }
}

fn connector(authority: &Authority, presenter: Arc<Presenter>) -> Connector {
    let expected = Expected::ControlPlaneOf(cluster("here"));
    Connector::new(presenter, authority.trust(), expected).expect("a connector")
}

async fn dial(served: &Served, connector: Connector) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::try_from(format!("http://{}", served.address)).expect("an address");
    endpoint.connect_with_connector(connector).await
}

/// Who the service says called, and the stream that stays.
async fn follow(channel: Channel) -> Result<(String, Streaming<ServerMessage>), Status> {
    let response = SyncClient::new(channel).follow(tokio_stream::pending()).await?;
    let caller = response.metadata().get("caller").expect("a header").to_str().expect("text").to_owned();
    Ok((caller, response.into_inner()))
}

async fn ends(mut stream: Streaming<ServerMessage>) {
    let ended = tokio::time::timeout(DEADLINE, stream.next()).await.expect("the stream ends");
    assert!(matches!(ended, None | Some(Err(_))), "{ended:?}");
}

fn revoked(name: PeerName) -> Revocations {
    Revocations { names: [(name, u64::MAX)].into(), ..Revocations::default() }
}

#[tokio::test]
async fn a_service_knows_who_calls() -> Result<(), Box<dyn std::error::Error>> {
    let authority = Authority::new();
    let served = serve(&authority).await;
    let channel = dial(&served, connector(&authority, authority.presenter(&node("a")))).await?;
    assert_eq!(follow(channel).await?.0, node("a").to_string());
    let channel = dial(&served, connector(&authority, Presenter::empty())).await?;
    assert_eq!(follow(channel).await?.0, "nobody");
    Ok(())
}

#[tokio::test]
async fn a_server_of_another_name_is_not_talked_to() {
    let authority = Authority::new();
    let served = serve(&authority).await;
    served.presenter.replace(authority.certify(&[node("b").to_string()], &DAY));
    let refused = dial(&served, connector(&authority, authority.presenter(&node("a")))).await;
    let mut error: &dyn std::error::Error = &refused.expect_err("refused");
    let mut said = Vec::new();
    while let Some(source) = error.source() {
        said.push(source.to_string());
        error = source;
    }
    let handshake = format!("the TLS handshake with {} failed", served.address);
    assert!(said.contains(&handshake), "{said:?}");
    let why = "the certificate is that of gantry://here/node/b, and the control plane of \
               cluster here was expected";
    assert!(said.iter().any(|said| said == why), "{said:?}");
}

#[tokio::test]
async fn revoking_a_client_ends_its_streams_and_nobody_elses() -> Result<(), Box<dyn std::error::Error>> {
    let authority = Authority::new();
    let served = serve(&authority).await;
    let open = async |name| {
        let channel = dial(&served, connector(&authority, authority.presenter(&node(name)))).await?;
        Ok::<_, Box<dyn std::error::Error>>((channel.clone(), follow(channel).await?.1))
    };
    let (channel_of_a, streams_of_a) = open("a").await?;
    let (channel_of_b, _streams_of_b) = open("b").await?;
    served.trust.replace_revocations(revoked(node("a")));
    ends(streams_of_a).await;
    // It dials again, and would resume its TLS session if it could.
    assert_eq!(follow(channel_of_a).await.map(|(caller, _)| caller).ok(), None);
    assert_eq!(follow(channel_of_b).await?.0, node("b").to_string(), "on the connection that it had");
    Ok(())
}

#[tokio::test]
async fn revoking_a_server_ends_the_streams_of_its_clients() -> Result<(), Box<dyn std::error::Error>> {
    let authority = Authority::new();
    let served = serve(&authority).await;
    let trust = authority.trust();
    let expected = Expected::ControlPlaneOf(cluster("here"));
    let connector = Connector::new(authority.presenter(&node("a")), trust.clone(), expected)?;
    let (_, stream) = follow(dial(&served, connector).await?).await?;
    trust.replace_revocations(revoked(member(1)));
    ends(stream).await;
    Ok(())
}

#[tokio::test]
async fn a_connection_ends_when_the_certificate_that_opened_it_does() -> Result<(), Box<dyn std::error::Error>>
{
    let authority = Authority::new();
    let served = serve(&authority).await;
    let presenter = Presenter::new(authority.certify(&[node("a").to_string()], &Life(-60, 3)));
    let channel = dial(&served, connector(&authority, presenter.clone())).await?;
    let (_, stream) = follow(channel.clone()).await?;
    // The next certificate is there in time, and the channel dials with it by itself.
    presenter.replace(authority.certify(&[node("a").to_string()], &DAY));
    ends(stream).await;
    assert_eq!(follow(channel).await?.0, node("a").to_string());
    Ok(())
}

#[tokio::test]
async fn a_silent_client_keeps_nobody_out() -> Result<(), Box<dyn std::error::Error>> {
    let authority = Authority::new();
    let served = serve(&authority).await;
    let mut silent = TcpStream::connect(served.address).await?;
    let channel = dial(&served, connector(&authority, authority.presenter(&node("a")))).await?;
    assert_eq!(follow(channel).await?.0, node("a").to_string());
    let closed = tokio::time::timeout(DEADLINE * 2, silent.read(&mut [0; 64])).await?;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    Ok(())
}
