//! Nodes that start from what they last served.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use gantry_model::Revision;
use gantry_model::resource::{CredentialSpec, Resource, ServerSpec, Spec, TenantSpec, Transport};
use tokio::time::{Instant, timeout};

use super::control_plane::{Cluster, Member, Served};
use super::follower::{DEADLINE, Following};
use crate::sync::last_known_good::LastKnownGood;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const CANARY: &[u8] = b"canary-7c1f0e93b2a64d58-of-a-credential";
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

fn resource(name: &str, spec: Spec) -> Resource {
    let tenant = "acme".parse().expect("a name");
    Resource { tenant, name: name.parse().expect("a name"), spec }
}

fn tenant(description: &str) -> Resource {
    resource(
        "acme",
        Spec::Tenant(TenantSpec { description: description.to_owned(), ..TenantSpec::default() }),
    )
}

/// A cluster with a tenant that has a server with a credential.
fn cluster(id: &str) -> (Cluster, Revision) {
    let cluster = Cluster::new(id);
    cluster.put_secret("acme", "token", CANARY);
    cluster.apply(tenant("first"));
    let credential = CredentialSpec { header: "authorization".to_owned(), prefix: "Bearer ".to_owned() };
    cluster.apply(resource("token", Spec::Credential(credential)));
    let url = "http://127.0.0.1:1/mcp".parse().expect("a URL");
    let mut server = ServerSpec::new(Transport::Http { url });
    server.credential = Some("token".parse().expect("a name"));
    let revision = cluster.apply(resource("server", Spec::Server(server)));
    (cluster, revision)
}

/// What a node sends with a request to the server.
fn header_of_server(node: &Following) -> Option<Vec<u8>> {
    let config = node.node.config();
    let server = config.tenants.get("acme")?.servers.get("server")?;
    server.credential.as_ref()?.value.as_ref().map(|value| value.expose().clone())
}

fn files(data_dir: &Path) -> Vec<String> {
    let names = fs::read_dir(data_dir.join("last-known-good")).into_iter().flatten();
    let mut names: Vec<_> =
        names.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

/// Waits until exactly these files are there.
async fn has_files(data_dir: &Path, expected: &[&str]) {
    let until = Instant::now() + DEADLINE;
    // The system tells of no change of a directory without a crate for it.
    let mut again = tokio::time::interval(Duration::from_millis(5));
    while files(data_dir) != expected {
        assert!(Instant::now() < until, "{:?} are there, not {expected:?}", files(data_dir));
        again.tick().await;
    }
}

#[tokio::test]
async fn a_node_serves_what_it_last_had_without_a_control_plane_and_goes_on_by_delta() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster("one");
    let mut member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, &member.url()).await?;
    node.reaches(revision).await;
    has_files(directory.path(), &[&format!("{revision}.bin")]).await;
    member.has_served(&[Served { from: 0, to: revision.0 }]).await;
    node.kill().await;
    member.kill();

    let node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, NOWHERE).await?;
    assert_eq!(node.revision(), revision);
    assert!(node.node.config().keys.is_some());
    assert_eq!(header_of_server(&node), Some([b"Bearer ".as_slice(), CANARY].concat()));
    node.end().await;

    let member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, &member.url()).await?;
    let newer = cluster.apply(tenant("second"));
    node.reaches(newer).await;
    node.end().await;
    let served = member.served();
    assert!(served.iter().all(|served| served.from >= revision.0), "by delta only: {served:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_secret_stands_on_the_disk_unencrypted() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster("one");
    let member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, &member.url()).await?;
    node.reaches(revision).await;
    node.end().await;
    assert_eq!(files(directory.path()), [format!("{revision}.bin")]);
    let keys = Cluster::node_keys();
    let secrets = [CANARY, &keys.key_hash_key, &keys.session_key];
    let found = search(directory.path(), &secrets)?;
    assert_eq!(found, Vec::<PathBuf>::new());
    // The search finds what is there.
    fs::write(
        directory.path().join("leak"),
        format!("xx{}", STANDARD_NO_PAD.encode([b"y", CANARY].concat())),
    )?;
    assert_eq!(search(directory.path(), &secrets)?, [directory.path().join("leak")]);
    Ok(())
}

/// The files below a directory in which one of the secrets stands: raw, hexadecimal, or base64 at any offset.
fn search(directory: &Path, secrets: &[&[u8]]) -> Result<Vec<PathBuf>> {
    let mut forms = Vec::new();
    for secret in secrets {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        forms.extend([secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()]);
        for offset in 0..3 {
            let encoded = STANDARD_NO_PAD.encode([&[0; 3][..offset], secret].concat());
            // Without the characters that depend on what stands before and after.
            let from = (offset * 8).div_ceil(6);
            forms.push(encoded.as_bytes()[from..encoded.len() - 2].to_vec());
        }
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(search(&entry.path(), secrets)?);
            continue;
        }
        let contents = fs::read(entry.path())?;
        let is_in = |form: &Vec<u8>| memchr::memmem::find(&contents, form).is_some();
        if forms.iter().any(is_in) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[tokio::test]
async fn a_file_that_cannot_be_used_makes_way_for_the_one_before() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, first) = cluster("one");
    let member = Member::start(&cluster);
    let mut revisions = vec![first];
    for description in ["a", "b", "c", "d"] {
        let mut node =
            Following::start(directory.path(), &LastKnownGood::KeyInDataDir, &member.url()).await?;
        node.reaches(*revisions.last().ok_or("a revision")?).await;
        node.end().await;
        revisions.push(cluster.apply(tenant(description)));
    }
    drop(member);
    let kept: Vec<String> = revisions[1..4].iter().map(|revision| format!("{revision}.bin")).collect();
    assert_eq!(files(directory.path()), kept, "three of four stay");
    let below = directory.path().join("last-known-good");

    // The newest is cut, the one before it of a later build, and others are none at all.
    let newest = fs::read(below.join(&kept[2]))?;
    fs::write(below.join(&kept[2]), &newest[..newest.len() - 1])?;
    let mut later = fs::read(below.join(&kept[1]))?;
    later[9] += 1;
    fs::write(below.join(&kept[1]), later)?;
    fs::write(below.join("99.bin"), "something else")?;
    fs::write(below.join("100.bin"), "")?;
    fs::write(below.join("notes.txt"), "an operator's")?;
    let node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, NOWHERE).await?;
    assert_eq!(node.revision(), revisions[1]);
    node.end().await;

    // Under another key nothing opens; the node starts all the same.
    fs::remove_file(directory.path().join("last-known-good.key"))?;
    let node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, NOWHERE).await?;
    assert_eq!(node.revision(), Revision::NONE);
    node.end().await;

    // What belongs to no history of this cluster goes with the next file.
    let member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, &member.url()).await?;
    node.reaches(revisions[4]).await;
    node.end().await;
    let expected =
        [kept[1].clone(), kept[2].clone(), format!("{}.bin", revisions[4]), "notes.txt".to_owned()];
    assert_eq!(files(directory.path()), expected);
    Ok(())
}

#[tokio::test]
async fn what_was_kept_of_another_cluster_goes_with_the_first_update() -> Result {
    let directory = tempfile::tempdir()?;
    let (old, first) = cluster("one");
    let last = (0..20).fold(first, |_, number| old.apply(tenant(&number.to_string())));
    let member = Member::start(&old);
    let mut node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, &member.url()).await?;
    node.reaches(last).await;
    node.end().await;
    let below = directory.path().join("last-known-good");
    fs::copy(below.join(format!("{last}.bin")), below.join(format!("{first}.bin")))?;

    // Of a cluster with fewer changes than the one file's name says, and more than the other's.
    let new = Cluster::new("two");
    let revision = (0..10).fold(first, |_, _| new.apply(tenant("of the new cluster")));
    assert!((first.0 + 1..last.0).contains(&revision.0), "{first} {revision} {last}");
    let member = Member::start(&new);
    let mut node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, &member.url()).await?;
    node.reaches(revision).await;
    assert!(node.node.config().tenants["acme"].servers.is_empty(), "nothing of the old cluster is served");
    node.end().await;
    member.has_served(&[Served { from: 0, to: revision.0 }]).await;
    assert_eq!(files(directory.path()), [format!("{revision}.bin")]);
    Ok(())
}

#[tokio::test]
async fn updates_that_follow_each_other_quickly_leave_the_first_and_the_last() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, first) = cluster("one");
    let member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &LastKnownGood::KeyInDataDir, &member.url()).await?;
    node.reaches(first).await;
    let first = format!("{first}.bin");
    has_files(directory.path(), &[&first]).await;
    let written = Instant::now();
    let mut last = Revision::NONE;
    for number in 0..10 {
        last = cluster.apply(tenant(&number.to_string()));
        node.reaches(last).await;
    }
    has_files(directory.path(), &[&first, &format!("{last}.bin")]).await;
    // The first may have been seen a moment after it was written.
    assert!(written.elapsed() > Duration::from_millis(800), "only {:?} later", written.elapsed());
    node.end().await;
    Ok(())
}

#[tokio::test]
async fn a_node_that_keeps_nothing_has_no_files() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster("one");
    let member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &LastKnownGood::Off, &member.url()).await?;
    node.reaches(revision).await;
    node.end().await;
    let names: Vec<_> = fs::read_dir(directory.path())?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<_>>()?;
    assert_eq!(names, ["audit.jsonl"]);
    Ok(())
}

#[tokio::test]
async fn a_key_that_was_named_has_to_be_there_and_is_used() -> Result {
    let (directory, elsewhere) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (cluster, revision) = cluster("one");
    let member = Member::start(&cluster);
    let path = elsewhere.path().join("key");
    let how = LastKnownGood::KeyFile(path.clone());
    let refused = Following::start(directory.path(), &how, &member.url()).await;
    let refused = refused.map(|_| ()).map_err(|error| error.to_string());
    let expected =
        format!("the key file {} is missing; a key that was named is not made here", path.display());
    assert_eq!(refused, Err(expected));

    fs::write(&path, [7; 32])?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut node = Following::start(directory.path(), &how, &member.url()).await?;
    node.reaches(revision).await;
    node.end().await;
    assert!(!directory.path().join("last-known-good.key").exists());
    let started = timeout(DEADLINE, Following::start(directory.path(), &how, NOWHERE)).await??;
    assert_eq!(started.revision(), revision);
    started.end().await;
    Ok(())
}
