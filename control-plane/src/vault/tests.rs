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
    let node_keys = NodeKeys::decode(fixture.vault.node_keys.expose().as_slice())?;
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
    let fixture = Fixture::new()?;
    let node = NodeSealKey::generate()?;
    let sealed = fixture.vault.release_node_keys(&node.public_key())?;
    let keys = node.open(&Purpose::NodeKeys, &sealed)?;
    let keys = NodeKeys::decode(keys.expose().as_slice())?;
    assert_eq!((keys.key_hash_key.len(), keys.session_key.len()), (KEY_BYTES, KEY_BYTES));
    assert_ne!(keys.key_hash_key, keys.session_key);
    assert_eq!(keys.seal_keys, [SealKey { generation: 1, key: keys.session_key }]);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &keys.key_hash_key);
    let secret = [9; KEY_SECRET_BYTES];
    let hash = fixture.vault.hash_agent_key(&Secret::new(secret));
    assert_eq!(hmac::sign(&key, &secret).as_ref(), hash);
    Ok(())
}
