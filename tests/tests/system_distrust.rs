//! Nodes hear of certificates that were taken back: of a member's, which they refuse from then on, and of each other's.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use gantry_tests::eventually::eventually;
use gantry_tests::members::{DEADLINE, Error, Member, Members, done, write_secret};
use gantry_tests::process::{Running, Stream};

/// A node by name.
struct Node<'a> {
    members: &'a Members,
    name: &'static str,
}

impl Node<'_> {
    fn data(&self) -> PathBuf {
        self.members.path(&format!("{}.data", self.name))
    }

    /// Joins the cluster of a member.
    async fn join(&self, at: &Member) -> Result<Running, Error> {
        let token = done(at.admin(self.members, &["cluster", "token", "--role", "node"]).await?)?;
        write_secret(&self.members.path(&format!("{}.token", self.name)), &token.stdout)?;
        self.run(at.address).await
    }

    /// Follows whoever is at an address; returns once it serves.
    async fn run(&self, control_plane: SocketAddr) -> Result<Running, Error> {
        let mut node =
            self.members.gantry(&["data-plane", "run", "--output", "json", "--name", self.name])?;
        node.args(["--listen", "127.0.0.1:0", "--control-plane", &control_plane.to_string()]);
        node.arg("--join-token-file").arg(self.members.path(&format!("{}.token", self.name)));
        node.arg("--data-dir").arg(self.data()).env("GANTRY_LOG", "info");
        let line = |stream, line: &str| (stream == Stream::Out).then(|| line.to_owned());
        Ok(Running::start(node, DEADLINE, line).await?.0)
    }
}

/// Waits until a process has said so.
async fn says(what: &str, output: impl Fn() -> String, text: &str) {
    let said = async || output().contains(text).then_some(());
    eventually(what, DEADLINE, said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_heard_of_a_removed_member_refuses_it_with_nobody_else_there() -> Result<(), Error> {
    let members = Members::new()?;
    let one = members.found("one").await?;
    let two = members.learner("two", &one).await?;
    let [heard, deaf] = ["heard", "deaf"].map(|name| Node { members: &members, name });
    let running = [heard.join(&one).await?, deaf.join(&one).await?];
    for node in [&heard, &deaf] {
        let kept = async || node.data().join("last-known-good").read_dir().ok()?.next().map(drop);
        eventually("something to start from", DEADLINE, kept).await;
    }
    // It goes without a word, and does not learn that it was removed.
    two.kill().await?;
    done(one.admin(&members, &["cluster", "remove", "2"]).await?)?;
    for node in [&heard, &deaf] {
        let told = async || node.data().join("distrusted").exists().then_some(());
        eventually("the node to keep that the member was removed", DEADLINE, told).await;
    }
    for process in running {
        process.kill().await?;
    }
    one.kill().await?;

    // The removed member is back, and the only one; a node that does not know asks it.
    let two = members.run("two").await?;
    fs::remove_file(deaf.data().join("distrusted"))?;
    let (knows, asks) = (heard.run(two.address).await?, deaf.run(two.address).await?);
    let refused = "the certificate of the peer does not count: Revoked";
    says("the node to refuse the member", || knows.output(), refused).await;
    // It knows less than the node, and says so itself.
    says("the other to ask it", || asks.output(), "the control plane ended the stream").await;
    assert!(!asks.output().contains(refused), "{}", asks.output());
    assert!(!knows.output().contains("the control plane ended the stream"), "{}", knows.output());
    for process in [knows, asks] {
        process.kill().await?;
    }
    Ok(two.kill().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_has_no_peers_any_more() -> Result<(), Error> {
    let members = Members::new()?;
    let one = members.found("one").await?;
    let [a, b] = ["a", "b"].map(|name| Node { members: &members, name });
    let (a, b) = (a.join(&one).await?, b.join(&one).await?);
    let peers = |count: usize| format!("the control plane told of the mesh peers={count}");
    says("the nodes to know each other", || a.output(), &peers(1)).await;
    let before = a.output().matches(&peers(0)).count();
    done(one.admin(&members, &["cluster", "revoke", "--node", "b"]).await?)?;
    let forgotten = async || (a.output().matches(&peers(0)).count() > before).then_some(());
    eventually("the other node to be told", DEADLINE, forgotten).await;
    b.kill().await?;
    a.kill().await?;
    Ok(one.kill().await?)
}
