//! Members that know each other by their certificates: who is heard, as whom, and who is believed to be there.

use std::sync::Arc;

use gantry_control_plane::member::{self, Member, Place};
use gantry_control_plane::{ControlPlane, Options, Transport};
use gantry_node::identity::{MemberId, PeerName};
use gantry_node::membership::Membership;
use gantry_node::tls::{Connector, Expected, Presenter, Trust};
use gantry_node::token::JoinToken;
use gantry_wire::admin_v1::admin_client::AdminClient;
use gantry_wire::admin_v1::change_members_request::Change;
use gantry_wire::admin_v1::create_join_token_request::Role;
use gantry_wire::admin_v1::*;
use gantry_wire::raft_v1::peer_client::PeerClient;
use gantry_wire::raft_v1::{Question, ReadIndex, question};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::harness::{self, ADMIN_TOKEN, Admin, DEADLINE, Result, acme, add_token, resources};

/// One member that runs.
struct Running {
    member: Member,
    plane: ControlPlane,
    admin: Admin,
    directory: TempDir,
}

fn place() -> Place {
    let free = ([127, 0, 0, 1], 0).into();
    Place { listen: free, peer_listen: free, advertise: "127.0.0.1:0".to_owned(), contacts: Vec::new() }
}

fn options(directory: &TempDir, member: &Member) -> Options {
    Options {
        transport: Transport::Tls,
        member: Some(member.options()),
        ..harness::options(directory.path())
    }
}

impl Running {
    async fn found() -> Result<Running> {
        let directory = tempfile::tempdir()?;
        member::found(directory.path(), place()).await?;
        Running::start(directory).await
    }

    async fn start(directory: TempDir) -> Result<Running> {
        let member = Member::load(directory.path())?;
        let plane = gantry_control_plane::start(options(&directory, &member)).await?;
        let trust = Trust::new(&[CertificateDer::from(plane.authority().ok_or("an authority")?)])?;
        let connector = Connector::new(Presenter::empty(), trust, Expected::ControlPlane)?;
        let channel = dial(&plane.address().to_string(), connector).await?;
        let admin = AdminClient::with_interceptor(channel, add_token(Some(ADMIN_TOKEN))?);
        Ok(Running { member, plane, admin, directory })
    }

    async fn token(&mut self, role: Role) -> Result<JoinToken> {
        let request = CreateJoinTokenRequest { role: Some(role), expires_in_seconds: 0 };
        Ok(JoinToken::parse(&self.admin.create_join_token(request).await?.into_inner().token)?)
    }

    /// One more voter.
    async fn join(&mut self) -> Result<Running> {
        let directory = tempfile::tempdir()?;
        let token = self.token(Role::ControlPlane(ControlPlaneRole {})).await?;
        let address = self.plane.address().to_string();
        let member = member::join(directory.path(), &token, &address, place(), None).await?;
        let joined = Running::start(directory).await?;
        let request = ChangeMembersRequest { expected: None, change: Some(Change::Promote(member.id.get())) };
        self.admin.change_members(request).await?;
        Ok(joined)
    }

    /// Asks this member as whoever `own` is, and expects `expected` there.
    async fn ask_as(
        &self,
        own: (Arc<Presenter>, Arc<Trust>),
        expected: Expected,
        question: Question,
    ) -> Result<std::result::Result<(), Status>> {
        let connector = Connector::new(own.0, own.1, expected)?;
        let endpoint =
            Endpoint::from_shared(format!("http://{}", self.plane.peer_address().ok_or("an address")?))?;
        let channel = endpoint.timeout(DEADLINE).connect_with_connector_lazy(connector);
        Ok(PeerClient::new(channel).ask(question).await.map(|_| ()))
    }
}

async fn dial(address: &str, connector: Connector) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.timeout(DEADLINE);
    Ok(endpoint.connect_with_connector(connector).await?)
}

fn as_member(running: &Running) -> (Arc<Presenter>, Arc<Trust>) {
    (running.member.membership.presenter().clone(), running.member.membership.trust().clone())
}

fn exactly(running: &Running, number: u64) -> Result<Expected> {
    let cluster = running.member.membership.cluster().clone();
    Ok(Expected::Exactly(PeerName::control_plane(cluster, MemberId::new(number).ok_or("a number")?)))
}

fn read_index(from: u64) -> Question {
    Question { from, to: 1, question: Some(question::Question::ReadIndex(ReadIndex {})) }
}

fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[tokio::test]
async fn members_speak_to_each_other_over_tls_and_to_nobody_else() -> Result {
    let mut one = Running::found().await?;
    let mut two = one.join().await?;
    assert_eq!((one.member.id.get(), two.member.id.get()), (1, 2));

    // Both directions: the second writes through the first, which reads from nobody without the second.
    let applied = two
        .admin
        .apply(ApplyRequest { resources: resources(&acme())?, dry_run: false, ..Default::default() })
        .await?;
    assert_eq!(applied.into_inner().problems, []);
    let stored = one.admin.get(GetRequest::default()).await?.into_inner().resources;
    assert_eq!(stored.len(), acme().len());

    // A member is heard as itself only.
    let heard = one.ask_as(as_member(&two), exactly(&one, 1)?, read_index(2)).await?;
    assert_eq!(heard.map_err(|status| chain(&status)), Ok(()));
    let refused =
        one.ask_as(as_member(&two), exactly(&one, 1)?, read_index(3)).await?.err().ok_or("refused")?;
    let why = "it calls itself member 3, and its certificate is that of member 2";
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, why));

    // Who dials one member asks no other.
    let refused =
        one.ask_as(as_member(&two), exactly(&one, 3)?, read_index(2)).await?.err().ok_or("refused")?;
    let cluster = one.plane.cluster_id();
    let why = format!(
        "the certificate is that of gantry://{cluster}/control-plane/1, and \
         gantry://{cluster}/control-plane/3 was expected"
    );
    assert!(chain(&refused).ends_with(&why), "{}", chain(&refused));

    // A node's certificate is as good as none.
    let token = one.token(Role::Node(NodeRole::default())).await?;
    let file = two.directory.path().join("node");
    let address = one.plane.address().to_string();
    let node = Membership::join_as_node(&token, &"a".parse()?, &address, file).await?;
    let nobody = (Presenter::empty(), node.trust().clone());
    for own in [nobody, (node.presenter().clone(), node.trust().clone())] {
        let refused = one.ask_as(own, exactly(&one, 1)?, read_index(2)).await?.err().ok_or("refused")?;
        // TLS 1.3 tells a client only with the first answer.
        assert!(matches!(refused.code(), Code::Unavailable | Code::Unknown), "{refused:?}");
    }
    two.plane.shutdown().await?;
    one.plane.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_directory_is_one_members_and_no_empty_disk_gets_its_number() -> Result {
    let mut one = Running::found().await?;
    let again = member::found(one.directory.path(), place()).await.err().ok_or("refused")?;
    let used = format!("{} has a member already, or what is left of one", one.directory.path().display());
    assert_eq!(again.to_string(), used);

    let token = one.token(Role::ControlPlane(ControlPlaneRole {})).await?;
    let address = one.plane.address().to_string();
    let refused =
        member::join(one.directory.path(), &token, &address, place(), None).await.err().ok_or("refused")?;
    assert_eq!(refused.to_string(), used);
    // The token was not used up for that.
    let directory = tempfile::tempdir()?;
    let joined = member::join(directory.path(), &token, &address, place(), None).await?;
    assert_eq!((joined.id.get(), joined.place.contacts.len()), (2, 1));
    let key = |directory: &TempDir| std::fs::read(directory.path().join("kek"));
    assert_eq!(key(&directory)?, key(&one.directory)?);

    std::fs::remove_dir_all(directory.path().join("consensus"))?;
    let refused = Member::load(directory.path()).err().ok_or("refused")?;
    let why = format!(
        "the log and the state of member 2 are not in {}: it may have voted and acknowledged what it does not know \
         any more, so this number is never used again",
        directory.path().display()
    );
    assert_eq!(refused.to_string(), why);
    let nobody = tempfile::tempdir()?;
    let refused = Member::load(nobody.path()).err().ok_or("refused")?;
    assert_eq!(refused.to_string(), format!("there is no member in {}", nobody.path().display()));
    one.plane.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn what_ran_before_members_had_names_becomes_the_first_member_of_its_cluster() -> Result {
    let directory = harness::Harness::start().await?;
    let cluster = directory.plane.cluster_id().to_owned();
    let directory = directory.stop().await?;
    let member = member::found(directory.path(), place()).await?;
    assert_eq!(member.membership.name().to_string(), format!("gantry://{cluster}/control-plane/1"));
    let running = Running::start(directory).await?;
    assert_eq!(running.plane.cluster_id(), cluster);
    running.plane.shutdown().await?;
    Ok(())
}
