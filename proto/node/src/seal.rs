//! Sealing to a process: how a secret travels from the control plane to one process and to no other.
//!
//! RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. The node makes a key pair when it
//! starts and sends the public half in its `Hello`; the private half never leaves its memory.
//!
//! Always holds: what is sealed names its purpose ([`Purpose`]), so that a message opens only as what it was sealed
//! for; the two planes agree on that because both take it from here. It proves nothing about who sealed: base mode
//! has no sender authentication, the stream's token (later: certificate) has.

use std::fmt;

use gantry_model::identity::PeerName;
use gantry_model::{CredentialName, Secret, TenantName};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};

/// Bytes of a public key.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// Separates these messages from any other use of HPKE.
const INFO: &[u8] = b"gantry node v1";

static SUITE: &dyn Hpke = DH_KEM_X25519_HKDF_SHA256_AES_256;

/// What a sealed message is for; authenticated, not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The keys that all nodes of a cluster share: an encoded `gantry.sync.v1.NodeKeys`.
    NodeKeys,
    /// The secret of a credential.
    Credential {
        /// The tenant of the credential.
        tenant: TenantName,
        /// The credential.
        credential: CredentialName,
        /// Which of its secrets.
        version: u64,
    },
    /// The key file of the vault, for a member that joins.
    KeyFile {
        /// Which member.
        member: PeerName,
    },
}

/// A message for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The sender's ephemeral public key.
    pub encapsulated_key: Vec<u8>,
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// The public half of a node's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealPublicKey([u8; PUBLIC_KEY_BYTES]);

/// A node's key pair. Lives as long as the process; there is no way to store it.
pub struct NodeSealKey {
    public: SealPublicKey,
    private: HpkePrivateKey,
}

/// Why sealing or opening did not work.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SealError {
    /// The bytes are no public key.
    #[error("a public key has {PUBLIC_KEY_BYTES} bytes, not {0}")]
    PublicKeyLength(usize),
    /// No key pair could be made.
    #[error("no key pair could be made")]
    Generate(#[source] rustls::Error),
    /// The message could not be sealed: the public key is not a usable point.
    #[error("the message cannot be sealed to this public key")]
    Seal(#[source] rustls::Error),
    /// The message was sealed for another key or another purpose, or was damaged.
    #[error("the message is not sealed for this key and purpose")]
    Open,
}

/// Seals `plaintext` so that only the owner of `recipient` opens it, and only for `purpose`.
pub fn seal(
    recipient: &SealPublicKey,
    purpose: &Purpose,
    plaintext: &Secret<Vec<u8>>,
) -> Result<Sealed, SealError> {
    let public = HpkePublicKey(recipient.0.to_vec());
    let (encapsulated, ciphertext) =
        SUITE.seal(INFO, &purpose.aad(), plaintext.expose(), &public).map_err(SealError::Seal)?;
    Ok(Sealed { encapsulated_key: encapsulated.0, ciphertext })
}

impl NodeSealKey {
    /// Makes a key pair.
    pub fn generate() -> Result<NodeSealKey, SealError> {
        let (public, private) = SUITE.generate_key_pair().map_err(SealError::Generate)?;
        Ok(NodeSealKey { public: SealPublicKey::try_from(public.0.as_slice())?, private })
    }

    /// The half that the node sends to the control plane.
    pub fn public_key(&self) -> SealPublicKey {
        self.public
    }

    /// Opens what was sealed to this key for this purpose.
    pub fn open(&self, purpose: &Purpose, sealed: &Sealed) -> Result<Secret<Vec<u8>>, SealError> {
        let encapsulated = EncapsulatedSecret(sealed.encapsulated_key.clone());
        SUITE
            .open(&encapsulated, INFO, &purpose.aad(), &sealed.ciphertext, &self.private)
            .map(Secret::new)
            .map_err(|_| SealError::Open)
    }
}

impl fmt::Debug for NodeSealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NodeSealKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SealPublicKey {
    /// The key's bytes, as they are sent.
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0
    }
}

impl TryFrom<&[u8]> for SealPublicKey {
    type Error = SealError;

    fn try_from(bytes: &[u8]) -> Result<SealPublicKey, SealError> {
        bytes.try_into().map(SealPublicKey).map_err(|_| SealError::PublicKeyLength(bytes.len()))
    }
}

impl Purpose {
    /// Names hold no `|`, so different purposes have different bytes.
    fn aad(&self) -> Vec<u8> {
        match self {
            Purpose::NodeKeys => b"node keys".to_vec(),
            Purpose::Credential { tenant, credential, version } => {
                format!("credential|{tenant}|{credential}|{version}").into_bytes()
            }
            Purpose::KeyFile { member } => format!("key file|{member}").into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: &str, version: u64) -> Purpose {
        Purpose::Credential {
            tenant: "acme".parse().expect("a name"),
            credential: name.parse().expect("a name"),
            version,
        }
    }

    #[test]
    fn a_message_opens_with_its_key_and_purpose_and_with_no_other() -> Result<(), SealError> {
        let key = NodeSealKey::generate()?;
        let plaintext = Secret::new(b"hunter2".to_vec());
        let sealed = seal(&key.public_key(), &credential("token", 1), &plaintext)?;
        assert_eq!(key.open(&credential("token", 1), &sealed)?.expose(), plaintext.expose());

        for other in [credential("token", 2), credential("taken", 1), Purpose::NodeKeys] {
            assert_eq!(key.open(&other, &sealed).err(), Some(SealError::Open), "{other:?}");
        }
        let stranger = NodeSealKey::generate()?;
        assert_eq!(stranger.open(&credential("token", 1), &sealed).err(), Some(SealError::Open));
        Ok(())
    }

    #[test]
    fn a_damaged_message_does_not_open() -> Result<(), SealError> {
        let key = NodeSealKey::generate()?;
        let sealed = seal(&key.public_key(), &Purpose::NodeKeys, &Secret::new(vec![7; 64]))?;
        let damaged = |change: fn(&mut Sealed)| {
            let mut sealed = sealed.clone();
            change(&mut sealed);
            key.open(&Purpose::NodeKeys, &sealed).err()
        };
        assert_eq!(damaged(|sealed| sealed.ciphertext[0] ^= 1), Some(SealError::Open));
        assert_eq!(damaged(|sealed| sealed.ciphertext.truncate(3)), Some(SealError::Open));
        assert_eq!(damaged(|sealed| sealed.encapsulated_key.clear()), Some(SealError::Open));
        Ok(())
    }

    #[test]
    fn a_public_key_that_agrees_on_nothing_secret_is_refused() -> Result<(), SealError> {
        let zero = SealPublicKey::try_from([0_u8; 32].as_slice())?;
        let refused = seal(&zero, &Purpose::NodeKeys, &Secret::new(vec![1])).err();
        assert!(matches!(refused, Some(SealError::Seal(_))), "{refused:?}");
        assert_eq!(SealPublicKey::try_from([0_u8; 31].as_slice()), Err(SealError::PublicKeyLength(31)));
        Ok(())
    }

    #[test]
    fn the_private_half_is_not_shown_by_debug() -> Result<(), SealError> {
        let shown = format!("{:?}", NodeSealKey::generate()?);
        assert!(shown.starts_with("NodeSealKey { public: SealPublicKey(["), "{shown}");
        assert!(!shown.contains("private"), "{shown}");
        Ok(())
    }
}
