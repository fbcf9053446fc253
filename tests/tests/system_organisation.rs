//! An organisation that brings certificates of its own: members and a node change over from the built-in authority to it,
//! and from one authority of it to the next, without one restart for the latter; mistakes on the way change nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gantry_tests::eventually::eventually;
use gantry_tests::members::{DEADLINE, Error, Member, Members, done, write_secret};
use gantry_tests::process::{Finished, Running, Stream, run};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use serde_json::Value;

/// An authority of the organisation's.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Authority, Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Gives a process a certificate that has counted for `hours` of its day.
    fn give(&self, members: &Members, process: &str, name: &str, hours: u64) -> Result<(), Error> {
        let from = SystemTime::now() - Duration::from_secs(60 + hours * 3_600);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.to_owned().try_into()?)];
        (params.not_before, params.not_after) = (from.into(), (from + Duration::from_secs(86_400)).into());
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.0)?;
        write_secret(&members.path(&format!("{process}.key")), &key.serialize_pem())?;
        replace(&members.path(&format!("{process}.pem")), &leaf.pem())
    }
}

/// Replaces a file as tools for certificates do.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let next = path.with_extension("next");
    fs::write(&next, text)?;
    fs::set_permissions(&next, PermissionsExt::from_mode(0o644))?;
    Ok(fs::rename(next, path)?)
}

/// The flags of a process that believes the bundle, and shows what it was given.
fn flags(members: &Members, process: Option<&str>) -> Vec<PathBuf> {
    let mut flags = vec!["--peer-ca".into(), members.path("bundle.pem")];
    if let Some(process) = process {
        flags.extend(["--peer-cert".into(), members.path(&format!("{process}.pem"))]);
        flags.extend(["--peer-key".into(), members.path(&format!("{process}.key"))]);
    }
    flags
}

/// Ends a member in order and runs it again, at another address; waits until the other one knows that.
async fn again(
    members: &Members,
    member: Member,
    other: &Member,
    (name, shows): (&str, bool),
) -> Result<Member, Error> {
    member.terminate().await?;
    let mut command = members.run_command(name)?;
    command.args(flags(members, shows.then_some(name)));
    let member = members.start(name, command).await?;
    let is_known = async || {
        let status = other.admin(members, &["cluster", "status", "--output", "json"]).await.ok()?;
        let status: Value = serde_json::from_str(&done(status).ok()?.stdout).ok()?;
        let known = status["members"].as_array()?.iter().find(|known| known["id"] == member.number)?;
        (known["address"] == member.peer_address.as_str()).then_some(())
    };
    eventually("the other member to know it", DEADLINE, is_known).await;
    Ok(member)
}

async fn node(members: &Members, all: [&Member; 2], flags: Vec<PathBuf>) -> Result<Running, Error> {
    let addresses = all.map(|member| member.address.to_string()).join(",");
    let mut node = members.gantry(&["data-plane", "run", "--output", "json", "--name", "a"])?;
    node.args(["--listen", "127.0.0.1:0", "--control-plane", &addresses]).args(flags);
    node.arg("--data-dir").arg(members.path("node"));
    let line = |stream, _: &str| (stream == Stream::Out).then_some(());
    Ok(Running::start(node, DEADLINE, line).await?.0)
}

/// An admin who believes one authority.
async fn status(members: &Members, at: &Member, ca: &str) -> Result<Finished, Error> {
    let mut command = members.gantry(&["status", "--output", "json", "--admin", &at.address.to_string()])?;
    command.arg("--ca").arg(members.path(ca)).arg("--token-file").arg(members.path(if at.number == 1 {
        "one/admin-token"
    } else {
        "two/admin-token"
    }));
    Ok(run(command, DEADLINE).await?)
}

async fn is_known_by(members: &Members, at: &Member, ca: &str) -> Option<()> {
    status(members, at, ca).await.ok()?.status.success().then_some(())
}

/// Waits until a new tenant is on the node, whichever member it follows.
async fn follows(members: &Members, at: &Member, tenant: &str) -> Result<(), Error> {
    let file = members.path("tenant.yaml");
    fs::write(&file, format!("kind: Tenant\nname: {tenant}\n"))?;
    let apply = ["apply", "-f", file.to_str().ok_or("text")?];
    let applied = async || done(at.admin(members, &apply).await.ok()?).ok().map(|_| ());
    eventually("a write", DEADLINE, applied).await;
    let has_all = async || {
        let status = done(at.admin(members, &["status", "--output", "json"]).await.ok()?).ok()?;
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        let node = status["nodes"].as_array()?.iter().find(|node| node["name"] == "a")?.clone();
        (node["connected"] == true && node["acked_revision"] == status["revision"]).then_some(())
    };
    eventually("the node to follow", DEADLINE, has_all).await;
    Ok(())
}

async fn says(member: &Member, what: &str) {
    eventually(what, DEADLINE, async || member.output().contains(what).then_some(())).await;
}

/// The two members, from the built-in authority to the organisation's.
async fn change_over(members: &Members, one: Member, two: Member) -> Result<(Member, Member), Error> {
    // First all believe both, then they show the new certificates.
    let one = again(members, one, &two, ("one", false)).await?;
    let two = again(members, two, &one, ("two", false)).await?;
    let one = again(members, one, &two, ("one", true)).await?;
    let two = again(members, two, &one, ("two", true)).await?;
    Ok((one, two))
}

/// One more member joins through one that shows the organisation's certificate, if it is told of that authority; the token
/// names the built-in one, and is not used up by who believes nothing else.
async fn join(members: &Members, through: &Member) -> Result<(), Error> {
    let token = done(through.admin(members, &["cluster", "token", "--role", "control-plane"]).await?)?;
    let file = members.path("three.token");
    write_secret(&file, &token.stdout)?;
    let join = async |ca: &[&str]| -> Result<Finished, Error> {
        let member = through.address.to_string();
        let mut join = members.gantry(&["cluster", "join", "--output", "json", "--member", &member])?;
        join.args(["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]).arg("--token-file").arg(&file);
        join.arg("--data-dir").arg(members.path("three"));
        for ca in ca {
            join.arg("--peer-ca").arg(members.path(ca));
        }
        Ok(run(join, DEADLINE).await?)
    };
    // Authorities of one name differ by their keys.
    for (wrong, why) in [(&[][..], "is not believed here"), (&["second.pem"], "BadSignature")] {
        let refused = join(wrong).await?;
        let is_told = refused.stderr.contains("this member does not join") && refused.stderr.contains(why);
        assert!(refused.status.code() == Some(1) && is_told, "{wrong:?}: {}", refused.stderr);
        assert!(!members.path("three/identity").exists());
    }
    let joined: Value = serde_json::from_str(&done(join(&["first.pem"]).await?)?.stdout)?;
    assert_eq!(joined["member"], 3);
    Ok(())
}

/// The organisation's authority makes the certificates of admins too; the built-in one makes none that count.
async fn admins(
    members: &Members,
    at: &Member,
    first: &Authority,
    name: impl Fn(&str) -> String,
) -> Result<(), Error> {
    let created = done(at.admin(members, &["admin", "create", "alice", "--role", "read-only"]).await?)?;
    write_secret(&members.path("alice.token"), &created.stdout)?;
    for admin in ["alice", "nobody"] {
        first.give(members, admin, &name(&format!("admin/{admin}")), 0)?;
    }
    let by = async |admin: &str, verb: &[&str]| -> Result<Finished, Error> {
        let mut command = members.gantry(verb)?;
        command.args(["--admin", &at.address.to_string()]).arg("--ca").arg(members.path("second.pem"));
        command.arg("--cert").arg(members.path(&format!("{admin}.pem")));
        command.arg("--key").arg(members.path(&format!("{admin}.key")));
        Ok(run(command, DEADLINE).await?)
    };
    let whoami = done(by("alice", &["admin", "whoami"]).await?)?.stdout;
    assert!(whoami.starts_with("alice: read-only\nproved by certificate "), "{whoami}");
    let nobody = by("nobody", &["admin", "whoami"]).await?;
    assert!(nobody.stderr.contains("the admin service refuses"), "{}", nobody.stderr);
    let out = members.path("alice.own");
    let next = ["admin", "certificate", "--out", out.to_str().ok_or("text")?];
    let renewed = by("alice", &next).await?;
    assert!(renewed.stderr.contains("is of an organisation's authority"), "{}", renewed.stderr);
    let mut built_in = members.gantry(&next)?;
    built_in.args(["--admin", &at.address.to_string()]).arg("--ca").arg(members.path("second.pem"));
    built_in.arg("--token-file").arg(members.path("alice.token"));
    let built_in = run(built_in, DEADLINE).await?;
    assert!(!built_in.status.success() && !out.exists(), "{}", built_in.stderr);
    done(at.admin(members, &["admin", "delete", "alice"]).await?)?;
    let gone = by("alice", &["admin", "whoami"]).await?;
    assert!(gone.stderr.contains("the admin service refuses"), "{}", gone.stderr);
    Ok(())
}

/// Files that cannot be used are told of, and what was in use stays.
async fn mistakes(
    members: &Members,
    [one, two]: [&Member; 2],
    second: &Authority,
    of_two: &str,
) -> Result<(), Error> {
    second.give(members, "one", of_two, 0)?;
    says(one, "what was in use before stays in use").await;
    fs::write(members.path("two.pem"), "no certificate")?;
    says(two, "what was in use before stays in use").await;
    for member in [one, two] {
        assert!(is_known_by(members, member, "first.pem").await.is_some());
    }
    Ok(())
}

/// The organisation's next authority is believed beside the first, and its certificates are shown. Nobody is restarted.
async fn next_authority(
    members: &Members,
    all: [&Member; 2],
    [first, second]: [&Authority; 2],
    name: impl Fn(&str) -> String,
) -> Result<(), Error> {
    replace(&members.path("bundle.pem"), &format!("{}{}", first.0.pem(), second.0.pem()))?;
    for (process, party) in [("one", "control-plane/1"), ("two", "control-plane/2"), ("a", "node/a")] {
        second.give(members, process, &name(party), 20)?;
    }
    for member in all {
        let known = async || is_known_by(members, member, "second.pem").await;
        eventually("the next authority's certificate", DEADLINE, known).await;
        assert!(is_known_by(members, member, "first.pem").await.is_none());
        // Twenty of its twenty-four hours are over.
        says(member, "is in the last quarter of its life").await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_brings_certificates_of_its_own_and_replaces_them_without_a_restart()
-> Result<(), Error> {
    let members = Members::new()?;
    let one = members.found("one").await?;
    // It follows and does not vote, so that either can be restarted at another address.
    let two = members.learner("two", &one).await?;
    let cluster: Value =
        serde_json::from_str(&done(one.admin(&members, &["status", "-o", "json"]).await?)?.stdout)?;
    let cluster = cluster["cluster_id"].as_str().ok_or("a cluster")?.to_owned();
    let name = |party: &str| format!("gantry://{cluster}/{party}");
    let (first, second) = (Authority::new()?, Authority::new()?);
    fs::write(members.path("first.pem"), first.0.pem())?;
    fs::write(members.path("second.pem"), second.0.pem())?;
    let built_in = fs::read_to_string(members.path("one/ca.pem"))?;
    replace(&members.path("bundle.pem"), &format!("{}{built_in}", first.0.pem()))?;
    first.give(&members, "one", &name("control-plane/1"), 0)?;
    first.give(&members, "two", &name("control-plane/1"), 0)?;

    // A certificate has to name the process that shows it.
    let mut wrong = members.run_command("two")?;
    wrong.args(flags(&members, Some("two")));
    let refused = run(wrong, DEADLINE).await?;
    let why =
        format!("is that of {}, and this process is {}", name("control-plane/1"), name("control-plane/2"));
    assert!(refused.status.code() == Some(1) && refused.stderr.contains(&why), "{}", refused.stderr);
    first.give(&members, "two", &name("control-plane/2"), 0)?;
    let (one, two) = change_over(&members, one, two).await?;
    first.give(&members, "a", &name("node/a"), 0)?;
    // It never joined: its certificate is enough.
    let node_a = node(&members, [&one, &two], flags(&members, Some("a"))).await?;
    follows(&members, &two, "by-the-first").await?;
    assert!(is_known_by(&members, &one, "first.pem").await.is_some());
    assert_eq!(
        status(&members, &one, "one/ca.pem").await?.status.code(),
        Some(5),
        "the built-in authority is not shown"
    );

    join(&members, &one).await?;
    mistakes(&members, [&one, &two], &second, &name("control-plane/2")).await?;
    next_authority(&members, [&one, &two], [&first, &second], &name).await?;
    admins(&members, &one, &first, &name).await?;
    let (end, told) = ("is in the last quarter of its life", one.output());
    replace(&members.path("bundle.pem"), &second.0.pem())?;
    // It is told anew of what is in use since then.
    let is_told = async || (one.output().matches(end).count() > told.matches(end).count()).then_some(());
    eventually("the bundle to be in use", DEADLINE, is_told).await;
    // A member that comes back meets the others, and the node, by the second authority.
    let two = again(&members, two, &one, ("two", true)).await?;
    follows(&members, &two, "by-the-second").await?;
    assert_eq!(one.roles(&members).await?.1.len(), 2);
    // What the first one gave counts no more.
    node_a.terminate(DEADLINE).await?;
    first.give(&members, "a", &name("node/a"), 0)?;
    let old = node(&members, [&one, &two], flags(&members, Some("a"))).await?;
    eventually("a try", DEADLINE, async || old.output().contains("trying again").then_some(())).await;
    for member in [&one, &two] {
        let status: Value =
            serde_json::from_str(&done(status(&members, member, "second.pem").await?)?.stdout)?;
        let nodes = status["nodes"].as_array().ok_or("nodes")?;
        assert!(nodes.iter().all(|node| node["connected"] == false), "{status}");
    }
    Ok(())
}
