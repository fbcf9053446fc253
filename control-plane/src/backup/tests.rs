//! A backup of a state with everything in it, and what becomes of it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use gantry_control_state::{Command, Outcome, State};
use gantry_model::admin::{Admin, AdminChange, AdminToken, Role};
use gantry_model::key::{AgentKey, KEY_ID_BYTES, KeyId};
use gantry_model::record::RecordValue;
use gantry_model::{Ban, BanTarget, Catalog, Definition, ResourceId, Revision, Secret, document};
use gantry_node::seal::{NodeSealKey, Purpose};
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::feed::Feed;
use crate::member::{MakeError, Member, Place};
use crate::raft::{Consensus, Options, VoterId};
use crate::vault::{BackupKey, Vault};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const CANARY: &str = "canary-secret-7c1f";

struct Fixture {
    directory: tempfile::TempDir,
    vault: Vault,
    state: State,
    revision: u64,
    key: BackupKey,
}

impl Fixture {
    /// A cluster with a record of every kind that a client can make.
    fn new() -> Result<Fixture> {
        let directory = tempfile::tempdir()?;
        let kept = directory.path().join("old");
        let cluster = Vault::found(&kept)?;
        let vault = Vault::unseal(&kept, &cluster)?;
        let (state, key) = (State::default(), BackupKey::generate()?);
        let mut fixture = Fixture { directory, vault, state, revision: 0, key };
        fixture.apply(Command::Bootstrap(cluster));
        let document = |value| document::parse(value).map_err(|error| format!("{error:?}"));
        let documents = [
            json!({"kind": "Tenant", "name": "acme", "spec": {}}),
            json!({"kind": "Agent", "tenant": "acme", "name": "agent", "spec": {}}),
            json!({"kind": "Credential", "tenant": "acme", "name": "token", "spec": {"header": "x-token"}}),
            json!({"kind": "Server", "tenant": "acme", "name": "s", "spec": {"url": "http://127.0.0.1:1/"}}),
            json!({"kind": "Server", "tenant": "acme", "name": "s-2", "spec": {"url": "http://127.0.0.1:1/"}}),
        ];
        let documents = documents.into_iter().map(document).collect::<std::result::Result<_, _>>()?;
        fixture.apply(Command::Apply(documents));
        let hash = fixture.vault.hash_agent_key(&Secret::new([7; gantry_model::key::KEY_SECRET_BYTES]));
        let (tenant, agent, id) = ("acme".parse()?, "agent".parse()?, KeyId([1; KEY_ID_BYTES]));
        let key = AgentKey { tenant, agent, id, hash, created_at_ms: 1, expires_at_ms: None };
        fixture.apply(Command::PutKey(key));
        let mut catalog = Catalog::empty("acme".parse()?, "s".parse()?);
        // More than one part of the file.
        catalog.tools = vec![Definition::new("tool", format!("\"{}\"", "x".repeat(150_000)))];
        fixture.apply(Command::PutCatalog(catalog));
        let secret = Secret::new(CANARY.as_bytes().to_vec());
        let (tenant, credential) = ("acme".parse()?, "token".parse()?);
        let (secret, tenant_key) =
            fixture.vault.seal_secret(&fixture.state, &tenant, &credential, &secret)?;
        fixture.apply(Command::PutSecret { secret, tenant_key });
        let (tenant, target) = ("acme".parse()?, BanTarget::Agent("agent".parse()?));
        let (by, reason) = ("root".to_owned(), "a leaked key".to_owned());
        fixture.apply(Command::PutBan(Ban { tenant, target, by, reason, at_ms: 1, until_ms: None }));
        let token =
            AdminToken { id: KeyId([2; KEY_ID_BYTES]), hash: [3; 32], created_at_ms: 1, expires_at_ms: None };
        let admin = Admin {
            name: "ada".parse()?,
            roles: vec![Role::ClusterAdmin],
            tokens: vec![token],
            created_at_ms: 1,
        };
        fixture.apply(Command::ChangeAdmin(AdminChange::Create(admin)));
        fixture.apply(Command::Delete(vec![ResourceId::server(&"acme".parse()?, &"s-2".parse()?)]));
        Ok(fixture)
    }

    fn apply(&mut self, command: Command) {
        self.revision += 1;
        let outcome = self.state.apply(Revision(self.revision), &command).outcome;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn backup(&self) -> Result<PathBuf> {
        let recipient = self.key.recipient();
        let facts = BackupFacts {
            cluster: self.vault.cluster_id().to_owned(),
            revision: self.revision,
            made_at_ms: 7,
            recipient: recipient.to_string(),
        };
        let (parts, mut receiver) = mpsc::channel(PARTS_MAX);
        let (state, root) = (self.state.clone(), self.vault.root_for_backup());
        let writing = tokio::task::spawn_blocking(move || write(&state, &root, &recipient, facts, &parts));
        let mut bytes = Vec::new();
        while let Some(part) = receiver.recv().await {
            bytes.extend(part);
        }
        writing.await??;
        let path = self.path("backup");
        fs::write(&path, bytes)?;
        Ok(path)
    }

    async fn restore(&self, from: &Path) -> std::result::Result<Restored, RestoreError> {
        let key = self.key.to_text().expose().parse().expect("a key");
        restore(from, key, &self.path("new"), place()).await
    }
}

fn place() -> Place {
    let (listen, peer_listen) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
    Place { listen, peer_listen, advertise: "cp-1.example.com:8082".to_owned(), contacts: Vec::new() }
}

fn chain(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[tokio::test]
async fn a_cluster_made_of_a_backup_holds_everything_under_keys_of_its_own() -> Result {
    let fixture = Fixture::new()?;
    let backup = fixture.backup().await?;
    let restored = fixture.restore(&backup).await?;
    let old = fixture.state.cluster().ok_or("a cluster")?.clone();
    assert_eq!((restored.backup.cluster.as_str(), restored.unreadable.len()), (old.id.as_str(), 0));

    let new = fixture.path("new");
    let parts = fs::read_dir(&new)?.map(|part| Ok(part?.file_name().into_string().expect("text")));
    let mut parts: Vec<_> = parts.collect::<std::io::Result<_>>()?;
    parts.sort();
    assert_eq!(parts, ["consensus", "identity", "kek", "member.json"]);
    let member = Member::load(&new)?;
    assert_eq!((member.id.get(), &member.place), (1, &place()));
    assert_eq!(member.membership.name(), restored.member.membership.name());
    let consensus = Consensus::start(Options::new(new.join("consensus"), VoterId(1)), Feed::new()).await?;
    let state = consensus.feed().latest().state;
    let cluster = state.cluster().ok_or("a cluster")?.clone();
    let vault = Vault::unseal(&new, &cluster)?;
    assert_eq!(restored.member.membership.cluster().as_str(), cluster.id);
    assert_eq!(consensus.membership().members[0].address, place().advertise);
    assert!(cluster.id != old.id && cluster.kek_id != old.kek_id);
    assert_ne!(cluster.enrolment.authority, old.enrolment.authority);
    assert!(cluster.enrolment.tokens.is_empty());

    // Every record is there, under the revision of its last change; what is sealed differs, the rest does not.
    let keys = |state: &State| state.entries().map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
    assert_eq!(keys(&state), keys(&fixture.state));
    for (before, after) in fixture.state.records().zip(state.records()) {
        match (&before.value, &after.value) {
            (RecordValue::Cluster(_), RecordValue::Cluster(_)) => {}
            (RecordValue::SealedSecret(old), RecordValue::SealedSecret(new)) => {
                assert_eq!((old.version, before.revision), (new.version, after.revision));
                assert_ne!(old.ciphertext, new.ciphertext);
            }
            (RecordValue::TenantKey(old), RecordValue::TenantKey(new)) => {
                assert_eq!((old.version, before.revision), (new.version, after.revision));
                assert_ne!(old.wrapped, new.wrapped);
            }
            // Who he is and what he may do stays; what proves him does not.
            (RecordValue::Admin(old), RecordValue::Admin(new)) => {
                assert_eq!(**new, Admin { tokens: Vec::new(), ..Admin::clone(old) });
                assert_eq!(after.revision.0, restored.revision);
            }
            _ => assert_eq!(before, after),
        }
    }
    assert_eq!(state.digest(), fixture.state.digest());

    // The secret opens with the new keys only, agents' keys are known as before.
    let (tenant, credential) = ("acme".parse()?, "token".parse()?);
    let secret = state.secret(&tenant, &credential).ok_or("a secret")?;
    let node = NodeSealKey::generate()?;
    let released = vault.release(&state, secret, &node.public_key())?;
    let purpose = Purpose::Credential { tenant, credential, version: 1 };
    assert_eq!(node.open(&purpose, &released.sealed)?.expose(), CANARY.as_bytes());
    assert!(fixture.vault.release(&state, secret, &node.public_key()).is_err());
    let agent = Secret::new([7; gantry_model::key::KEY_SECRET_BYTES]);
    assert_eq!(vault.hash_agent_key(&agent), fixture.vault.hash_agent_key(&agent));

    // Revisions go on above every one that a node may have seen.
    let tenant = document::parse(json!({"kind": "Tenant", "name": "later", "spec": {}}));
    let tenant = tenant.map_err(|error| format!("{error:?}"))?;
    let committed = consensus.propose(Command::Apply(vec![tenant])).await?;
    assert!(committed.revision.0 > restored.revision, "{:?}", committed.revision);
    assert_eq!((restored.revision, restored.backup.revision), (1_000_000_000, fixture.revision));
    assert_eq!(restored.admins, ["ada".parse()?]);
    consensus.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_flipped_byte_or_a_missing_tail_is_refused_and_nothing_is_made() -> Result {
    let fixture = Fixture::new()?;
    let backup = fixture.backup().await?;
    let sound = fs::read(&backup)?;
    // All of the head and the end, and places in every part.
    let head = 0..700;
    let parts = (700..sound.len() - 80).step_by(6007);
    let places: Vec<_> = head.chain(parts).chain(sound.len() - 80..sound.len()).collect();
    for at in places {
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        fs::write(&backup, &flipped)?;
        assert!(fixture.restore(&backup).await.is_err(), "byte {at}");
        // As who can compute the digest would, and cannot seal.
        let covered = sound.len() - 32;
        if at < covered {
            let digest = blake3::hash(&flipped[..covered]);
            flipped[covered..].copy_from_slice(digest.as_bytes());
            fs::write(&backup, &flipped)?;
            assert!(fixture.restore(&backup).await.is_err(), "byte {at}, with a digest that fits");
        }
        fs::write(&backup, &sound[..at])?;
        assert!(fixture.restore(&backup).await.is_err(), "cut at {at}");
    }
    fs::write(&backup, [&sound[..], b"more"].concat())?;
    let refused = fixture.restore(&backup).await.expect_err("longer");
    let expected = format!(
        "the backup {} cannot be used: it is damaged or cut short: its digest does not match",
        backup.display()
    );
    assert_eq!(chain(&refused), expected);
    let left: Vec<_> = fs::read_dir(fixture.directory.path())?.collect::<std::result::Result<Vec<_>, _>>()?;
    assert_eq!(left.len(), 2, "the old cluster and the backup: {left:?}");
    Ok(())
}

#[tokio::test]
async fn another_key_and_a_directory_that_is_used_are_refused() -> Result {
    let fixture = Fixture::new()?;
    let backup = fixture.backup().await?;
    let another = BackupKey::generate()?;
    let given = another.recipient();
    let refused = restore(&backup, another, &fixture.path("new"), place()).await.expect_err("another key");
    let expected = format!(
        "the backup {} cannot be used: it was made for {}, and this is the key of {given}",
        backup.display(),
        fixture.key.recipient()
    );
    assert_eq!(chain(&refused), expected);

    // What a mount has of its own, and what a restore that was killed has left, are no member's.
    let used = |error: &RestoreError| matches!(error, RestoreError::Member(MakeError::Used(_)));
    fs::create_dir_all(fixture.path("new").join("lost+found"))?;
    fs::create_dir(fixture.path("new").join("restoring"))?;
    fs::write(fixture.path("new").join("restoring").join("kek"), "half of one")?;
    fs::write(fixture.path("new").join("kek"), "another's")?;
    let refused = fixture.restore(&backup).await.expect_err("used");
    assert!(used(&refused), "{refused}");
    assert_eq!(fs::read(fixture.path("new").join("kek"))?, b"another's");
    fs::remove_file(fixture.path("new").join("kek"))?;
    fixture.restore(&backup).await?;
    assert!(!fixture.path("new").join("restoring").exists());
    let refused = fixture.restore(&backup).await.expect_err("a cluster is there now");
    assert!(used(&refused), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_backup_shows_nothing_of_what_it_holds() -> Result {
    let fixture = Fixture::new()?;
    let bytes = fs::read(fixture.backup().await?)?;
    let root = fixture.vault.root_for_backup();
    for hidden in [CANARY.as_bytes(), b"acme", b"x-token", root.expose()] {
        assert!(!bytes.windows(hidden.len()).any(|window| window == hidden), "{hidden:?}");
    }
    assert!(bytes.windows(16).any(|window| window == &fixture.vault.cluster_id().as_bytes()[..16]));
    Ok(())
}
