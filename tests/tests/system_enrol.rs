//! A control plane as a process with TLS, and a node that joins it with a token, comes back by its certificate, and is thrown out.

use std::error::Error;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_tests::agent::{Agent, Message, Protocol};
use gantry_tests::dev::{command, sibling};
use gantry_tests::eventually::eventually;
use gantry_tests::process::{Finished, Running, Stream, run};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

type Tested<T = ()> = Result<T, Box<dyn Error>>;

/// A debug build on a busy machine takes a second or two to start.
const DEADLINE: Duration = Duration::from_secs(30);

/// A control plane as a process, and what an admin has of it.
struct Secured {
    plane: Running,
    address: SocketAddr,
    folder: TempDir,
}

impl Secured {
    /// The flags are those of `control-plane run`.
    async fn start(flags: &[&str]) -> Tested<Secured> {
        let folder = tempfile::tempdir()?;
        let mut init = gantry(folder.path())?;
        init.args(["cluster", "init", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]);
        init.arg("--data-dir").arg(folder.path().join("control-plane"));
        let made = run(init, DEADLINE).await?;
        assert!(made.status.success(), "{}", made.stderr);
        let mut command = gantry(folder.path())?;
        command.args(["control-plane", "run", "--output", "json"]).args(flags);
        command.arg("--data-dir").arg(folder.path().join("control-plane"));
        let (plane, address) = serving(command).await?;
        Ok(Secured { plane, address, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has a token made with which a node of this name joins.
    async fn token(&self, name: &str) -> Tested {
        let made = self.admin(&["cluster", "token", "--role", "node", "--name", name]).await?;
        let is_token = made.stdout.starts_with("gantry-join-1.") && made.stdout.lines().count() == 1;
        assert!(is_token, "{}", made.stderr);
        std::fs::write(self.path("join-token"), &made.stdout)?;
        Ok(std::fs::set_permissions(self.path("join-token"), PermissionsExt::from_mode(0o600))?)
    }

    /// An admin verb, over TLS.
    async fn admin(&self, arguments: &[&str]) -> Tested<Finished> {
        let mut command = gantry(self.folder.path())?;
        command.args(arguments).args(["--admin", &self.address.to_string()]);
        let made = self.path("control-plane");
        command.arg("--token-file").arg(made.join("admin-token")).arg("--ca").arg(made.join("ca.pem"));
        Ok(run(command, DEADLINE).await?)
    }

    fn node(&self, name: &str) -> Tested<Command> {
        node_of(&self.folder, self.address, name)
    }

    async fn connected(&self) -> Tested<Vec<String>> {
        let status = self.admin(&["status", "--output", "json"]).await?;
        let status: Value = serde_json::from_str(&status.stdout)?;
        let nodes = status["nodes"].as_array().ok_or("nodes")?.iter();
        let connected = nodes.filter(|node| node["connected"] == true);
        Ok(connected.filter_map(|node| Some(node["name"].as_str()?.to_owned())).collect())
    }
}

/// A node in a folder, with the token that lies there, as a process.
fn node_of(folder: &TempDir, control_plane: SocketAddr, name: &str) -> Tested<Command> {
    let mut command = gantry(folder.path())?;
    command.args(["data-plane", "run", "--output", "json", "--name", name, "--listen", "127.0.0.1:0"]);
    command.args(["--control-plane", &control_plane.to_string()]);
    command.arg("--join-token-file").arg(folder.path().join("join-token"));
    command.arg("--data-dir").arg(folder.path().join(name));
    Ok(command)
}

fn gantry(folder: &Path) -> Tested<Command> {
    Ok(command(&sibling("gantry-under-test")?, &folder.join("data")))
}

async fn serving(process: Command) -> Tested<(Running, SocketAddr)> {
    let line = |stream, line: &str| (stream == Stream::Out).then(|| line.to_owned());
    let (running, line) = Running::start(process, DEADLINE, line).await?;
    let ready: Value = serde_json::from_str(&line)?;
    Ok((running, ready["address"].as_str().ok_or("an address")?.parse()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_once_comes_back_by_its_certificate_and_is_thrown_out() -> Tested {
    let secured = Secured::start(&[]).await?;
    secured.token("a").await?;
    let (running, _) = serving(secured.node("a")?).await?;
    assert_eq!(secured.connected().await?, ["a"]);
    let identity = std::fs::metadata(secured.path("a").join("identity"))?;
    assert_eq!(identity.permissions().mode() & 0o777, 0o600);
    running.kill().await?;

    // The same flags again: the token is used up, the certificate counts.
    let (running, _) = serving(secured.node("a")?).await?;
    assert_eq!(secured.connected().await?, ["a"]);

    let refused = run(secured.node("b")?, DEADLINE).await?;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("the join token is not good here"), "{}", refused.stderr);

    let revoked = secured.admin(&["cluster", "revoke", "--node", "a"]).await?;
    assert!(revoked.status.success(), "{}", revoked.stderr);
    let nobody = async || secured.connected().await.ok().filter(Vec::is_empty);
    eventually("the node to be gone", DEADLINE, nobody).await;
    running.kill().await?;
    let token = std::fs::metadata(secured.path("control-plane").join("admin-token"))?;
    assert_eq!(token.permissions().mode() & 0o777, 0o600);
    assert_eq!(secured.plane.terminate(DEADLINE).await?.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificate_ended_while_it_was_down_serves_what_it_last_had() -> Tested {
    let secured = Secured::start(&["--certificate-life", "30s"]).await?;
    secured.token("a").await?;
    let (running, _) = serving(secured.node("a")?).await?;
    std::fs::write(
        secured.path("acme.yaml"),
        "kind: Tenant\nname: acme\n---\n\
         kind: Server\ntenant: acme\nname: files\nspec: {url: \"http://127.0.0.1:1/mcp\"}\n---\n\
         kind: Endpoint\ntenant: acme\nname: main\nspec: {servers: [files]}\n",
    )?;
    let file = secured.path("acme.yaml").to_string_lossy().into_owned();
    let applied = secured.admin(&["apply", "-f", &file, "--wait"]).await?;
    assert!(applied.status.success(), "{}", applied.stderr);
    secured.plane.kill().await?;
    running.terminate(DEADLINE).await?;

    // With the flags of its first start: the token is used up, and nobody is there who could take it.
    let restarted = async || {
        let (running, address) = serving(node_of(&secured.folder, secured.address, "a").ok()?).await.ok()?;
        if running.output().contains("has ended: no control plane takes the node in") {
            return Some((running, address));
        }
        running.kill().await.ok()?;
        None
    };
    let (running, address) = eventually("the certificate to end", 3 * DEADLINE, restarted).await;
    let mut agent = Agent::connect(&format!("http://{address}/acme/main/mcp"), Protocol::Http1).await?;
    let call = Message::call("add", json!({"a": 2, "b": 3}));
    assert_eq!(agent.ask(&call).await?.status, 401, "{}", running.output());
    running.kill().await?;
    Ok(())
}
