//! A cluster that is written to, backed up, lost, and made anew of its backup: agents call on with the keys that they
//! have, who was stopped is stopped still, and neither of the two clusters takes what is the other's.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_tests::agent::{Agent, Message, Protocol};
use gantry_tests::eventually::eventually;
use gantry_tests::fixture;
use gantry_tests::members::{DEADLINE, Error, Member, Members, done, write_secret};
use gantry_tests::process::{Finished, Running, Stream, run};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const SECRET: &str = "canary-5f0c9d-of-the-backup";
/// Where the members of both clusters hear each other: an address that no other test listens on, so that the new cluster
/// can have the port that the old one had.
const PEER_IP: &str = "127.0.9.1";

/// Runs a command, with text on its standard input.
async fn input(members: &Members, at: &Member, arguments: &[&str], text: &str) -> Result<String, Error> {
    Ok(done(at.admin_with_input(members, arguments, text).await?)?.stdout)
}

async fn local(members: &Members, arguments: &[&str]) -> Result<Finished, Error> {
    Ok(run(members.gantry(arguments)?, DEADLINE).await?)
}

fn text(path: &Path) -> Result<&str, Error> {
    Ok(path.to_str().ok_or("a path that is text")?)
}

/// Founds the old cluster, whose first member is heard at an address of its own.
async fn found(members: &Members) -> Result<Member, Error> {
    let (dir, peer) = (members.path("one"), format!("{PEER_IP}:0"));
    let dir = text(&dir)?;
    let init = ["cluster", "init", "--listen", "127.0.0.1:0", "--peer-listen", &peer, "--data-dir", dir];
    done(local(members, &init).await?)?;
    members.run("one").await
}

/// What is configured in `acme`, and the keys of an agent and of one that was stopped.
async fn configure(members: &Members, at: &Member, server: &fixture::Server) -> Result<[String; 2], Error> {
    let documents = format!(
        "kind: Tenant\nname: acme\n---\n\
         kind: Credential\ntenant: acme\nname: canary\nspec: {{header: x-canary}}\n---\n\
         kind: Server\ntenant: acme\nname: s\nspec: {{url: '{}', credential: canary}}\n---\n\
         kind: Endpoint\ntenant: acme\nname: main\nspec: {{servers: [s]}}\n---\n\
         kind: Agent\ntenant: acme\nname: bot\n---\n\
         kind: Agent\ntenant: acme\nname: thief\n---\n\
         kind: Policy\ntenant: acme\nname: all\nspec: {{cedar: 'permit(principal, action, resource);'}}\n",
        server.url()
    );
    input(members, at, &["apply", "-f", "-"], &documents).await?;
    input(members, at, &["credential", "put", "canary", "--tenant", "acme"], SECRET).await?;
    let key = async |agent| -> Result<String, Error> {
        let made = input(members, at, &["key", "create", "--agent", agent, "--tenant", "acme"], "").await?;
        Ok(made.trim().to_owned())
    };
    let keys = [key("bot").await?, key("thief").await?];
    input(members, at, &["revoke", "agent", "thief", "--tenant", "acme"], "").await?;
    Ok(keys)
}

fn node_command(
    members: &Members,
    at: &Member,
    name: &str,
    token: &Path,
) -> Result<tokio::process::Command, Error> {
    let mut node = members.gantry(&["data-plane", "run", "--output", "json", "--name", name])?;
    node.args(["--listen", "127.0.0.1:0", "--control-plane", &at.address.to_string()]);
    node.arg("--join-token-file").arg(token).arg("--data-dir").arg(members.path(name));
    Ok(node)
}

/// A node with a new token of the member's cluster.
async fn node(members: &Members, at: &Member, name: &str) -> Result<(Running, SocketAddr), Error> {
    let token = members.path("node.token");
    write_secret(&token, &input(members, at, &["cluster", "token", "--role", "node"], "").await?)?;
    serve(node_command(members, at, name, &token)?).await
}

async fn serve(node: tokio::process::Command) -> Result<(Running, SocketAddr), Error> {
    let line = |stream, line: &str| (stream == Stream::Out).then(|| line.to_owned());
    let (running, line) = Running::start(node, DEADLINE, line).await?;
    let ready: Value = serde_json::from_str(&line)?;
    Ok((running, ready["address"].as_str().ok_or("an address")?.parse()?))
}

/// Status and text of what the tool answers that shows what the server was sent.
async fn call(node: SocketAddr, key: &str) -> Option<(u16, String)> {
    let mut agent = Agent::connect(&format!("http://{node}/acme/main/mcp"), Protocol::Http1).await.ok()?;
    let call = Message::call("show_request_headers", json!({})).with_key(key);
    let answer = agent.ask(&call).await.ok()?;
    Some((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

async fn secret_arrives(node: SocketAddr, key: &str) -> Option<()> {
    call(node, key).await?.1.contains(SECRET).then_some(())
}

/// Whoever has this key is stopped: it is known, and what it is refused for.
async fn is_stopped(node: SocketAddr, key: &str) -> Option<()> {
    let (status, said) = call(node, key).await?;
    (status == 403 && said.contains("revoked")).then_some(())
}

/// The tenants that a [`writer`] has made, as a member reads them.
async fn written(members: &Members, at: &Member) -> Result<Vec<String>, Error> {
    let got: Value =
        serde_json::from_str(&input(members, at, &["get", "tenants", "--output", "json"], "").await?)?;
    let names = got.as_array().ok_or("a list")?.iter().filter_map(|tenant| tenant["name"].as_str());
    Ok(names.filter(|name| name.starts_with("t-")).map(str::to_owned).collect())
}

/// Makes `t-000`, `t-001` and so on until it is told to stop, one after the other; counts those that were acknowledged.
async fn writer(
    members: &Members,
    at: &Member,
    count: &AtomicUsize,
    stop: &CancellationToken,
) -> Result<(), Error> {
    while !stop.is_cancelled() {
        let document = format!("kind: Tenant\nname: t-{:03}\n", count.load(Ordering::SeqCst));
        input(members, at, &["apply", "-f", "-"], &document).await?;
        count.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// Takes a backup at one member while another is written to. How many writes were acknowledged before, and the revision.
async fn back_up(
    members: &Members,
    at: &Member,
    written: &Member,
    recipient: &str,
) -> Result<(usize, u64), Error> {
    let (count, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let backup = async {
        let has_some = async || (count.load(Ordering::SeqCst) >= 3).then_some(());
        eventually("writes", DEADLINE, has_some).await;
        let before = count.load(Ordering::SeqCst);
        let file = members.path("backup");
        let verb = ["cluster", "backup", "--recipient", recipient, "--output", "json", "--out", text(&file)?];
        let made: Value = serde_json::from_str(&input(members, at, &verb, "").await?)?;
        let after = count.load(Ordering::SeqCst);
        // Some more, so that what comes after the backup is not in it.
        eventually("more", DEADLINE, async || (count.load(Ordering::SeqCst) >= after + 2).then_some(()))
            .await;
        stop.cancel();
        Ok::<_, Error>((before, made["revision"].as_u64().ok_or("a revision")?))
    };
    let (made, wrote) = tokio::join!(backup, writer(members, written, &count, &stop));
    wrote?;
    made
}

/// The command that makes the new cluster, whose first member is heard where the old one's was.
fn restore(members: &Members, key: &str, peer: &str) -> Result<tokio::process::Command, Error> {
    let mut restore =
        members.gantry(&["cluster", "restore", "--output", "json", "--listen", "127.0.0.1:0"])?;
    restore.args(["--peer-listen", peer, "--key-file"]).arg(members.path(key));
    restore.arg("--from").arg(members.path("backup")).arg("--data-dir").arg(members.path("new"));
    Ok(restore)
}

/// A backup that is not as it was written, or that is for another key, makes nothing.
async fn refusals(members: &Members, peer: &str, other: &str) -> Result<(), Error> {
    let sound = std::fs::read(members.path("backup"))?;
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    let short = &sound[..sound.len() - 1];
    let mine = std::fs::read_to_string(members.path("key"))?;
    let recipient =
        |key: &str| format!("gantry-backup-1.{}", &key.trim()["gantry-backup-key-1.".len()..][..64]);
    let whose = format!("it was made for {}, and this is the key of {other}", recipient(&mine));
    for (bytes, key, why) in [
        (&flipped[..], "key", "it is damaged or cut short: its digest does not match"),
        (short, "key", "it is damaged or cut short: its digest does not match"),
        (&sound[..10], "key", "it is no backup that this build knows"),
        (&sound[..], "other-key", whose.as_str()),
    ] {
        std::fs::write(members.path("backup"), bytes)?;
        let refused = run(restore(members, key, peer)?, DEADLINE).await?;
        let path = members.path("backup");
        let expected = format!(
            "error: the cluster is not restored: the backup {} cannot be used: {why}\n\
             next: take another backup with --from, or the right key with --key-file; nothing was written\n",
            path.display()
        );
        assert_eq!((refused.status.code(), refused.stderr), (Some(1), expected));
        assert!(!members.path("new").exists());
    }
    std::fs::write(members.path("backup"), sound)?;
    Ok(())
}

/// Nothing of what the cluster keeps secret, nor what is configured, is readable in the file.
fn shows_nothing(members: &Members, keys: &[String; 2]) -> Result<(), Error> {
    let bytes = std::fs::read(members.path("backup"))?;
    let find = |hidden: &[u8]| memchr::memmem::find(&bytes, hidden).is_some();
    let (kek, token) =
        (std::fs::read(members.path("one/kek"))?, std::fs::read(members.path("one/admin-token"))?);
    let agents: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    for hidden in
        [SECRET.as_bytes(), b"acme", b"x-canary", b"ada-lovelace", b"permit", &kek[..], token.trim_ascii()]
    {
        assert!(!find(hidden), "{}", String::from_utf8_lossy(hidden));
        assert!(!find(hex::encode(hidden).as_bytes()), "{}", String::from_utf8_lossy(hidden));
    }
    assert!(agents.iter().all(|key| !find(key)));
    assert!(find(b"gantry backup 1\n"), "it would be found if it were there");
    assert_eq!(std::fs::metadata(members.path("backup"))?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

/// What the old cluster has given out counts for nothing in the new one, and both sides say why.
async fn keeps_apart(members: &Members, new: &Member, unused: &Path, key: &str) -> Result<(), Error> {
    // A member that was left starts, and meets another cluster where its own one was.
    let two = members.run("two").await?;
    let stranger = "the peer is of another cluster, or of none";
    eventually("the old member to say so", DEADLINE, async || two.output().contains(stranger).then_some(()))
        .await;
    eventually("the new one to say so", DEADLINE, async || new.output().contains(stranger).then_some(()))
        .await;
    assert_eq!(new.roles(members).await?, (Some(1), vec![(1, "voter".to_owned())]));
    two.kill().await?;

    // A token that nobody has used yet.
    let refused = run(node_command(members, new, "node-c", unused)?, DEADLINE).await?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains(stranger), "{}", refused.stderr);

    // A node with its certificate serves what it has, and says why it is not served; with a token it moves.
    let (old, address) = serve(node_command(members, new, "node-a", unused)?).await?;
    let why = format!(
        "the control plane cannot be reached: the TLS handshake with {} failed: {stranger}",
        new.address
    );
    eventually("the old node to say so", DEADLINE, async || old.output().contains(&why).then_some(())).await;
    eventually("a call at the old node", DEADLINE, async || secret_arrives(address, key).await).await;
    old.kill().await?;
    Ok(())
}

/// Admins are known in the new cluster, and none of their tokens.
async fn admins(members: &Members, new: &Member, token: &str) -> Result<(), Error> {
    write_secret(&members.path("ada-lovelace"), token)?;
    let whoami = async || -> Result<Finished, Error> {
        let mut command = members.gantry(&["admin", "whoami", "--output", "json"])?;
        command.args(["--admin", &new.address.to_string(), "--token-file"]).arg(members.path("ada-lovelace"));
        command.arg("--ca").arg(members.path("new/ca.pem"));
        Ok(run(command, DEADLINE).await?)
    };
    let refused = whoami().await?;
    let wrong = "error: the admin service refuses the token: the call's token is not the right one;";
    assert!(refused.status.code() == Some(1) && refused.stderr.starts_with(wrong), "{}", refused.stderr);
    write_secret(
        &members.path("ada-lovelace"),
        &input(members, new, &["admin", "rotate", "ada-lovelace"], "").await?,
    )?;
    let ada: Value = serde_json::from_str(&done(whoami().await?)?.stdout)?;
    assert_eq!((&ada["name"], &ada["roles"]), (&json!("ada-lovelace"), &json!(["read-only"])));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_call_on_in_a_cluster_that_is_made_of_a_backup() -> Result<(), Error> {
    let members = Members::new()?;
    let server = fixture::Server::start(0).await?;
    let one = found(&members).await?;
    let two = members.voter("two", &one).await?;
    let keys = configure(&members, &one, &server).await?;
    let ada = input(&members, &one, &["admin", "create", "ada-lovelace", "--role", "read-only"], "").await?;
    let (old_node, address) = node(&members, &one, "node-a").await?;
    eventually("a call before the backup", DEADLINE, async || secret_arrives(address, &keys[0]).await).await;
    eventually("the stop before the backup", DEADLINE, async || is_stopped(address, &keys[1]).await).await;
    let unused = members.path("unused");
    write_secret(&unused, &input(&members, &one, &["cluster", "token", "--role", "node"], "").await?)?;

    let (key, other) = (members.path("key"), members.path("other-key"));
    let recipient = done(local(&members, &["cluster", "backup-key", "--out", text(&key)?]).await?)?.stdout;
    let another = done(local(&members, &["cluster", "backup-key", "--out", text(&other)?]).await?)?.stdout;
    let (before, revision) = back_up(&members, &two, &one, recipient.trim()).await?;
    let written_in_all = written(&members, &one).await?;
    shows_nothing(&members, &keys)?;
    // The cluster is lost. Its second member lies about on a disk.
    let peer = one.peer_address.clone();
    one.kill().await?;
    two.kill().await?;
    old_node.terminate(DEADLINE).await?;

    refusals(&members, &peer, another.trim()).await?;
    let restored = done(run(restore(&members, "key", &peer)?, DEADLINE).await?)?;
    let said = format!("warning: what was changed after revision {revision} is undone");
    assert!(restored.stderr.contains(&said), "{}", restored.stderr);
    let restored: Value = serde_json::from_str(&restored.stdout)?;
    assert_eq!((&restored["backup_revision"], &restored["member"]), (&json!(revision), &json!(1)));
    assert!(restored["revision"].as_u64() > Some(revision));

    let new = members.run("new").await?;
    let kept = written(&members, &new).await?;
    assert!(
        kept.len() >= before && kept.len() < written_in_all.len(),
        "{before} {kept:?} {written_in_all:?}"
    );
    assert_eq!(kept, written_in_all[..kept.len()], "the state of one moment");
    admins(&members, &new, &ada).await?;
    keeps_apart(&members, &new, &unused, &keys[0]).await?;
    for name in ["node-b", "node-a"] {
        let (_node, address) = node(&members, &new, name).await?;
        eventually("a call after the restore", DEADLINE, async || secret_arrives(address, &keys[0]).await)
            .await;
        eventually("the stop after the restore", DEADLINE, async || is_stopped(address, &keys[1]).await)
            .await;
        let connected = async || {
            let status = done(new.admin(&members, &["status", "--output", "json"]).await.ok()?).ok()?;
            let status: Value = serde_json::from_str(&status.stdout).ok()?;
            let node = status["nodes"].as_array()?.iter().find(|node| node["name"] == name)?.clone();
            (node["connected"] == true && node["acked_revision"] == status["revision"]).then_some(())
        };
        eventually("the node to follow the new cluster", DEADLINE, connected).await;
    }
    // It goes on like any other: with one more member, and above every revision that there was.
    let next = members.voter("next", &new).await?;
    let changed =
        input(&members, &next, &["apply", "-f", "-", "--output", "json"], "kind: Tenant\nname: later\n")
            .await?;
    let changed: Value = serde_json::from_str(&changed)?;
    assert!(changed["revision"].as_u64() > restored["revision"].as_u64(), "{changed}");
    Ok(())
}
