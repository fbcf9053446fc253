//! What the vault promises, on a state made of real commands.

use std::error::Error;

use gantry_control_state::{Command, Outcome};
use gantry_model::resource::{CredentialSpec, Resource, TenantSpec};
use gantry_model::{Revision, Spec};
use gantry_node::seal::NodeSealKey;
use gantry_wire::sync_v1::{NodeKeys, SealKey};
use prost::Message;

use super::envelope::KEY_BYTES;
use super::*;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

struct Fixture {
    directory: tempfile::TempDir,
    cluster: Cluster,
    vault: Vault,
    state: State,
    revision: u64,
}

impl Fixture {
    /// What a node opens of the node keys.
    fn node_keys(&self) -> Result<NodeKeys> {
        let node = NodeSealKey::generate()?;
        let sealed = self.vault.release_node_keys(&self.state, &node.public_key())?;
        let keys = node.open(&Purpose::NodeKeys, &sealed)?;
        Ok(NodeKeys::decode(keys.expose().as_slice())?)
    }

    fn new() -> Result<Fixture> {
        let directory = tempfile::tempdir()?;
        let cluster = Vault::found(directory.path())?;
        let vault = Vault::unseal(directory.path(), &cluster)?;
        let mut fixture = Fixture { directory, cluster, vault, state: State::default(), revision: 0 };
        let credential = |name: &str| -> Result<Resource> {
            let spec = CredentialSpec { header: "authorization".into(), prefix: String::new() };
            Ok(Resource { tenant: "acme".parse()?, name: name.parse()?, spec: Spec::Credential(spec) })
        };
        let tenant = Resource {
            tenant: "acme".parse()?,
            name: "acme".parse()?,
            spec: Spec::Tenant(TenantSpec::default()),
        };
        let resources = vec![tenant, credential("token")?, credential("other")?];
        assert!(matches!(fixture.apply(Command::Apply(resources)), Outcome::Done(_)));
        Ok(fixture)
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.revision += 1;
        self.state.apply(Revision(self.revision), &command).outcome
    }

    fn put(&mut self, credential: &str, secret: &str) -> Result<SealedSecret> {
        let secret = Secret::new(secret.as_bytes().to_vec());
        let (tenant, credential) = ("acme".parse()?, credential.parse()?);
        let (secret, tenant_key) = self.vault.seal_secret(&self.state, &tenant, &credential, &secret)?;
        let outcome = self.apply(Command::PutSecret { secret: secret.clone(), tenant_key });
        assert_eq!(outcome, Outcome::Done(Vec::new()));
        Ok(secret)
    }

    fn open(&self, stored: &SealedSecret) -> Option<Vec<u8>> {
        self.vault.open_secret(&self.state, stored).ok().map(|secret| secret.expose().clone())
    }
}

#[test]
fn a_node_opens_what_was_put_and_each_put_is_a_new_version() -> Result {
    let mut fixture = Fixture::new()?;
    let first = fixture.put("token", "hunter2")?;
    let second = fixture.put("token", "hunter3")?;
    let other = fixture.put("other", "hunter2")?;
    assert_eq!((first.version, second.version, other.version), (1, 2, 1));

    let node = NodeSealKey::generate()?;
    for (stored, secret) in [(&first, "hunter2"), (&second, "hunter3"), (&other, "hunter2")] {
        let released = fixture.vault.release(&fixture.state, stored, &node.public_key())?;
        let purpose = Purpose::Credential {
            tenant: stored.tenant.clone(),
            credential: stored.credential.clone(),
            version: stored.version,
        };
        assert_eq!(node.open(&purpose, &released.sealed)?.expose(), secret.as_bytes());
    }
    Ok(())
}

#[test]
fn a_secret_that_was_moved_to_another_place_does_not_open() -> Result {
    let mut fixture = Fixture::new()?;
    let stored = fixture.put("token", "hunter2")?;
    assert_eq!(fixture.open(&stored), Some(b"hunter2".to_vec()));
    let moved = [
        SealedSecret { credential: "other".parse()?, ..stored.clone() },
        SealedSecret { tenant: "globex".parse()?, ..stored.clone() },
        SealedSecret { version: 2, ..stored.clone() },
        SealedSecret { tenant_key_version: 2, ..stored.clone() },
        SealedSecret { nonce: [0; 12], ..stored },
    ];
    for stored in moved {
        assert_eq!(fixture.open(&stored), None, "{stored:?}");
    }
    Ok(())
}

#[test]
fn nothing_that_is_proposed_holds_a_secret() -> Result {
    let mut fixture = Fixture::new()?;
    fixture.put("token", "hunter2-hunter2-hunter2")?;
    fixture.apply(Command::Bootstrap(fixture.cluster.clone()));
    let stored: Vec<u8> = fixture.state.entries().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    let root = fixture.vault.root.expose().to_vec();
    let rotate = fixture.vault.rotate_node_keys(&fixture.state, 5)?;
    fixture.apply(rotate);
    let stored: Vec<u8> =
        stored.into_iter().chain(fixture.state.entries().flat_map(|(_, bytes)| bytes.to_vec())).collect();
    let node_keys = fixture.node_keys()?;
    let secrets = [b"hunter2-hunter2-hunter2".to_vec(), root, node_keys.key_hash_key, node_keys.session_key];
    for secret in secrets {
        assert!(!stored.windows(secret.len()).any(|window| window == secret));
    }
    Ok(())
}

#[test]
fn the_vault_opens_again_with_its_key_file_and_with_no_other() -> Result {
    let fixture = Fixture::new()?;
    let again = Vault::unseal(fixture.directory.path(), &fixture.cluster)?;
    assert_eq!(again.root.expose(), fixture.vault.root.expose());
    let secret = Secret::new([7; KEY_SECRET_BYTES]);
    assert_eq!(again.hash_agent_key(&secret), fixture.vault.hash_agent_key(&secret));

    let stranger = tempfile::tempdir()?;
    let missing = Vault::unseal(stranger.path(), &fixture.cluster).err();
    assert!(matches!(missing, Some(UnsealError::KeyFile(KeyFileError::Missing { .. }))), "{missing:?}");
    Vault::found(stranger.path())?;
    let wrong = Vault::unseal(stranger.path(), &fixture.cluster).err();
    assert!(matches!(wrong, Some(UnsealError::WrongKey { .. })), "{wrong:?}");

    let moved = Cluster { id: "another".into(), ..fixture.cluster.clone() };
    let moved = Vault::unseal(fixture.directory.path(), &moved).err();
    assert!(matches!(moved, Some(UnsealError::Damaged { what: "root key", .. })), "{moved:?}");
    Ok(())
}

#[test]
fn a_node_gets_the_keys_that_hash_agent_keys() -> Result {
    let mut fixture = Fixture::new()?;
    fixture.apply(Command::Bootstrap(fixture.cluster.clone()));
    let keys = fixture.node_keys()?;
    assert_eq!((keys.key_hash_key.len(), keys.session_key.len()), (KEY_BYTES, KEY_BYTES));
    assert_ne!(keys.key_hash_key, keys.session_key);
    assert_eq!(keys.seal_keys, [SealKey { generation: 1, key: keys.session_key }]);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &keys.key_hash_key);
    let secret = [9; KEY_SECRET_BYTES];
    let hash = fixture.vault.hash_agent_key(&Secret::new(secret));
    assert_eq!(hmac::sign(&key, &secret).as_ref(), hash);
    Ok(())
}

#[test]
fn a_rotation_gives_a_new_seal_key_and_keeps_the_one_before() -> Result {
    let mut fixture = Fixture::new()?;
    fixture.apply(Command::Bootstrap(fixture.cluster.clone()));
    let first = fixture.node_keys()?;
    let early = fixture.vault.rotate_node_keys(&fixture.state, 5)?;
    let late = fixture.vault.rotate_node_keys(&fixture.state, 6)?;
    fixture.apply(early);
    let second = fixture.node_keys()?;
    assert_eq!(second.key_hash_key, first.key_hash_key, "stored keys of agents stay good");
    assert_eq!(second.seal_keys[0], SealKey { generation: 2, key: second.session_key.clone() });
    assert_eq!(second.seal_keys[1..], first.seal_keys);
    let refused = fixture.state.apply(Revision(100), &late).outcome;
    assert!(matches!(refused, Outcome::Refused(_)), "two at once are one: {refused:?}");

    let again = fixture.vault.rotate_node_keys(&fixture.state, 7)?;
    fixture.apply(again);
    let third = fixture.node_keys()?;
    assert_eq!(third.seal_keys[0].generation, 3);
    assert_eq!(third.seal_keys[1..], second.seal_keys[..1]);

    // The vault opens with them again; a record that is rolled back to another generation does not open.
    let cluster = fixture.state.cluster().ok_or("a cluster")?.as_ref().clone();
    Vault::unseal(fixture.directory.path(), &cluster)?;
    let moved =
        Vault::unseal(fixture.directory.path(), &Cluster { node_keys_generation: 2, ..cluster }).err();
    assert!(matches!(moved, Some(UnsealError::Damaged { what: "node keys", .. })), "{moved:?}");
    Ok(())
}

#[test]
fn the_one_key_of_an_earlier_build_is_the_first_generation() -> Result {
    let mut fixture = Fixture::new()?;
    let (hash, session) = (vec![1; KEY_BYTES], vec![2; KEY_BYTES]);
    let keys = NodeKeys { key_hash_key: hash.clone(), session_key: session.clone(), seal_keys: Vec::new() };
    let purpose = format!("gantry node keys v1|{}", fixture.cluster.id);
    let sealed = fixture.vault.root.seal(purpose.as_bytes(), &Secret::new(keys.encode_to_vec()))?;
    (fixture.cluster.node_keys_nonce, fixture.cluster.node_keys_wrapped) = (sealed.nonce, sealed.ciphertext);
    fixture.apply(Command::Bootstrap(fixture.cluster.clone()));
    Vault::unseal(fixture.directory.path(), &fixture.cluster)?;
    let first = SealKey { generation: 1, key: session.clone() };
    let seal_keys = vec![first.clone()];
    assert_eq!(fixture.node_keys()?, NodeKeys { key_hash_key: hash, session_key: session, seal_keys });
    let rotate = fixture.vault.rotate_node_keys(&fixture.state, 5)?;
    fixture.apply(rotate);
    assert_eq!(fixture.node_keys()?.seal_keys[1], first);
    Ok(())
}

#[test]
fn a_flipped_bit_in_the_key_file_is_told() -> Result {
    let fixture = Fixture::new()?;
    let path = fixture.directory.path().join("kek");
    let sound = std::fs::read(&path)?;
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bytes)?;
        let refused = Vault::unseal(fixture.directory.path(), &fixture.cluster).map(|_| ());
        assert!(matches!(refused, Err(UnsealError::WrongKey { .. })), "bit {bit}: {refused:?}");
    }
    std::fs::write(&path, sound)?;
    Vault::unseal(fixture.directory.path(), &fixture.cluster)?;
    Ok(())
}
