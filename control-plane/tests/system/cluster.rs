//! Three members of one control plane: each takes changes, serves nodes and knows of the nodes of the others.

use gantry_control_plane::raft::VoterId;
use gantry_control_plane::{ControlPlane, MemberOptions, MemberProof, Options};
use gantry_model::Secret;
use gantry_wire::admin_v1::change_members_request::Change;
use gantry_wire::admin_v1::*;
use gantry_wire::sync_v1::node_message::Message;
use gantry_wire::sync_v1::{Mesh, RecordReport};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{ADMIN_TOKEN, Admin, Harness, Result, acme, admin, eventually, options};
use crate::node::Process;

const PEER_TOKEN: &str = "peer-token-peer-token-peer-token-peer-token";

/// Members 1, 2 and 3; 1 leads.
struct Cluster {
    members: Vec<Harness>,
}

fn member(directory: &TempDir, voter: u64, join: Option<String>) -> Options {
    let member = MemberOptions {
        voter: VoterId(voter),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        proof: MemberProof::Token(Secret::new(PEER_TOKEN.to_owned())),
        join: join.into_iter().collect(),
    };
    Options { member: Some(member), ..options(directory.path()) }
}

async fn harness(directory: TempDir, plane: ControlPlane) -> Result<Harness> {
    let admin = admin(plane.address(), Some(ADMIN_TOKEN)).await?;
    Ok(Harness { directory, plane, admin })
}

impl Cluster {
    async fn start() -> Result<Cluster> {
        let directory = tempfile::tempdir()?;
        let first = gantry_control_plane::start(member(&directory, 1, None)).await?;
        let (address, key) = (first.peer_address().map(str::to_owned), directory.path().join("kek"));
        let mut members = vec![harness(directory, first).await?];
        for voter in [2, 3] {
            let directory = tempfile::tempdir()?;
            // An operator brings it, or it comes with the enrolment.
            std::fs::copy(&key, directory.path().join("kek"))?;
            let plane = gantry_control_plane::start(member(&directory, voter, address.clone())).await?;
            members.push(harness(directory, plane).await?);
            let promote = Some(Change::Promote(voter));
            let request = ChangeMembersRequest { expected: None, change: promote };
            members[1].admin.change_members(request).await?;
        }
        Ok(Cluster { members })
    }

    async fn stop(self) -> Result {
        for member in self.members {
            member.stop().await?;
        }
        Ok(())
    }
}

async fn roles(admin: &mut Admin) -> Result<(u64, Vec<(u64, bool)>)> {
    let answer = admin.list_members(ListMembersRequest {}).await?.into_inner();
    Ok((answer.leader, answer.members.iter().map(|member| (member.id, member.votes)).collect()))
}

fn meshed(name: &str, port: u16) -> Result<Process> {
    let mesh = Mesh { address: format!("127.0.0.1:{port}"), certificate_fingerprint: vec![7; 32] };
    Ok(Process { mesh: Some(mesh), ..Process::new(name)? })
}

#[tokio::test]
async fn any_member_takes_a_change_and_a_node_of_any_other_applies_it() -> Result {
    let mut cluster = Cluster::start().await?;
    let [one, two, three] = cluster.members.as_mut_slice() else { return Err("three members".into()) };
    assert_eq!(roles(&mut three.admin).await?, (1, vec![(1, true), (2, true), (3, true)]));

    let applied = two.apply(&acme()).await?;
    let secret = three.put_secret("token", "s3cret").await?;
    // What is read at another member is what was acknowledged at this one.
    assert!(one.stored().await?.contains(&"Server acme/files".to_owned()));

    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(three.address()).await?;
    process.follow_to(&mut connection, secret.revision).await?;
    assert_eq!(process.secrets["token"], b"s3cret");
    let changed = one.apply(&[json!({"kind": "Tenant", "name": "beta"})]).await?;
    assert!(changed > applied);
    process.follow_to(&mut connection, changed).await?;

    // The other members know how far it is, and a wait anywhere waits for it.
    let wait = WaitAppliedRequest { revision: changed, timeout_ms: 10_000, ..WaitAppliedRequest::default() };
    let connected = |status: &StatusResponse| {
        status.nodes.iter().any(|node| node.connected && node.acked_revision >= changed)
    };
    for member in [one, two] {
        eventually(async || member.status().await, connected).await?;
        let waited = member.admin.wait_applied(wait).await?.into_inner();
        assert_eq!((waited.node_count, waited.acked_count), (1, 1));
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_node_goes_on_by_delta_with_another_member_when_its_own_is_gone() -> Result {
    let mut cluster = Cluster::start().await?;
    cluster.members[0].apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (connection, _) = process.join(cluster.members[0].address()).await?;
    let had = process.revision;
    drop(connection);
    // The leader goes; a change waits for the next.
    cluster.members.remove(0).stop().await?;
    let changed = cluster.members[0].apply(&[json!({"kind": "Tenant", "name": "beta"})]).await?;
    let (mut connection, update) = process.join(cluster.members[1].address()).await?;
    assert_eq!(update.from_revision, had, "a delta");
    process.follow_to(&mut connection, changed).await?;
    assert!(process.entries.contains_key("beta/tenant/beta"));
    let (leader, _) = roles(&mut cluster.members[0].admin).await?;
    assert!([2, 3].contains(&leader), "{leader}");
    cluster.stop().await
}

#[tokio::test]
async fn a_member_that_is_behind_a_node_sends_it_away_and_not_back_in_time() -> Result {
    let mut cluster = Cluster::start().await?;
    cluster.members[0].apply(&acme()).await?;
    let mut process = Process::new("node")?;
    drop(process.join(cluster.members[0].address()).await?);
    for _ in 0..2 {
        cluster.members.remove(1).stop().await?;
    }
    // It follows a member without a quorum, which has what it has.
    let (connection, _) = process.join(cluster.members[0].address()).await?;
    drop(connection);
    process.revision += 1_000;
    let end = process.connect(cluster.members[0].address()).await?.end().await?;
    let told = format!("this member is behind revision {}, which the node has", process.revision);
    assert_eq!((end.code(), end.message().starts_with(&told)), (tonic::Code::Unavailable, true), "{end}");
    cluster.stop().await
}

#[tokio::test]
async fn nodes_of_different_members_are_told_of_each_other() -> Result {
    let cluster = Cluster::start().await?;
    let (mut left, mut right) = (meshed("left", 7001)?, meshed("right", 7002)?);
    let (mut to_left, _) = left.join(cluster.members[0].address()).await?;
    let (_to_right, _) = right.join(cluster.members[2].address()).await?;
    let told = loop {
        let members = to_left.members().await?;
        if members.members.len() > 1 {
            break members;
        }
    };
    let mut names: Vec<_> = told.members.iter().map(|member| member.node_id.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["left", "right"]);
    cluster.stop().await
}

#[tokio::test]
async fn what_a_node_of_one_member_records_is_found_at_every_other() -> Result {
    let mut cluster = Cluster::start().await?;
    let mut process = Process::new("node")?;
    let (connection, _) = process.join(cluster.members[1].address()).await?;
    let record = json!({"decision_id": "d1", "tenant": "acme", "verdict": "deny", "policies": []});
    let records = RecordReport { records: vec![record.to_string().into_bytes()], dropped: 0 };
    connection.send(Message::Records(records)).await?;
    let request = ExplainRequest { decision_id: "d1".to_owned() };
    for member in &mut cluster.members {
        let found =
            eventually(async || Ok(member.admin.explain(request.clone()).await), |found| found.is_ok())
                .await?;
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&found?.into_inner().record)?, record);
    }
    cluster.stop().await
}

#[tokio::test]
async fn whoever_is_no_member_is_not_heard() -> Result {
    use gantry_wire::raft_v1::peer_client::PeerClient;
    use gantry_wire::raft_v1::{Question, ReadIndex, question};
    let cluster = Cluster::start().await?;
    let address = cluster.members[0].plane.peer_address().ok_or("an address")?.parse()?;
    let question =
        || Question { question: Some(question::Question::ReadIndex(ReadIndex {})), ..Question::default() };
    for token in [None, Some(ADMIN_TOKEN)] {
        let channel = crate::harness::channel(address).await?;
        let mut client = PeerClient::with_interceptor(channel, crate::harness::add_token(token)?);
        let refused = client.ask(question()).await.err().ok_or("it is refused")?;
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    }
    // A member that is asked for another says so.
    let channel = crate::harness::channel(address).await?;
    let mut client = PeerClient::with_interceptor(channel, crate::harness::add_token(Some(PEER_TOKEN))?);
    let refused = client.ask(Question { to: 9, ..question() }).await.err().ok_or("it is refused")?;
    assert_eq!(
        (refused.code(), refused.message()),
        (tonic::Code::FailedPrecondition, "this is member 1, not member 9")
    );
    cluster.stop().await
}

#[tokio::test]
async fn the_number_of_a_removed_member_is_never_used_again() -> Result {
    use gantry_wire::raft_v1::change_members_reply::Outcome;
    use gantry_wire::raft_v1::peer_client::PeerClient;
    use gantry_wire::raft_v1::{ChangeMembers, Member, Question, change_members, question, reply};
    let mut cluster = Cluster::start().await?;
    let remove = ChangeMembersRequest { expected: None, change: Some(Change::Remove(3)) };
    cluster.members[1].admin.change_members(remove).await?;
    let address = cluster.members[0].plane.peer_address().ok_or("an address")?.parse()?;
    let channel = crate::harness::channel(address).await?;
    let mut client = PeerClient::with_interceptor(channel, crate::harness::add_token(Some(PEER_TOKEN))?);
    let mut learn = async |voter| {
        let member = Member { voter, address: "127.0.0.1:1".to_owned() };
        let change = ChangeMembers { change: Some(change_members::Change::Learn(member)), expected: None };
        let question = Some(question::Question::ChangeMembers(change));
        let reply = client.ask(Question { from: voter, to: 1, question }).await?.into_inner().reply;
        let Some(reply::Reply::ChangeMembers(reply)) = reply else { return Err("another reply".into()) };
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(reply.outcome)
    };
    let why = "member 3 was removed, and its number is never used again; join anew from an empty directory: \
               `gantry cluster token --role control-plane` here, then `gantry cluster join` there";
    assert_eq!(learn(3).await?, Some(Outcome::Refused(why.to_owned())));
    assert!(matches!(learn(4).await?, Some(Outcome::Membership(_))));
    let (_, members) = roles(&mut cluster.members[0].admin).await?;
    assert_eq!(members, [(1, true), (2, true), (4, false)]);
    cluster.stop().await
}
