//! Records of the replicated state, to and from bytes.
//!
//! Always holds: the encoding has no maps and sets every field in order, so equal records have equal bytes; the
//! digest of a snapshot rests on that.

use std::sync::Arc;

use gantry_model::enrolment::Enrolment;
use gantry_model::key::KeyId;
use gantry_model::record::{Answered, Cluster, Proposer, Record, RecordValue, SealedSecret, TenantKey};
use gantry_model::{AgentKey, Revision};
use prost::Message;

use crate::convert::{WireError, bytes, name};
use crate::resource_v1 as wire;

/// The bytes of a record, as stored and as sent to nodes.
pub fn encode_record(record: &Record) -> Vec<u8> {
    wire::Record::from(record).encode_to_vec()
}

/// Reads a record. Fails on bytes that are no record, or none that this build knows.
pub fn decode_record(encoded: &[u8]) -> Result<Record, WireError> {
    Record::try_from(&wire::Record::decode(encoded)?)
}

impl From<&Record> for wire::Record {
    fn from(record: &Record) -> wire::Record {
        use wire::record::Value as To;
        let value = match &record.value {
            RecordValue::Resource(resource) => To::Resource(resource.as_ref().into()),
            RecordValue::AgentKey(key) => To::AgentKey(key.as_ref().into()),
            RecordValue::Catalog(catalog) => To::Catalog(catalog.as_ref().into()),
            RecordValue::SealedSecret(secret) => To::Secret(secret.as_ref().into()),
            RecordValue::TenantKey(key) => To::TenantKey(key.as_ref().into()),
            RecordValue::Cluster(cluster) => To::Cluster(cluster.as_ref().into()),
            RecordValue::Proposer(proposer) => To::Proposer(proposer.as_ref().into()),
            RecordValue::Admin(admin) => To::Admin(admin.as_ref().into()),
            RecordValue::Deletions(deletions) => To::Deletions(deletions.as_ref().into()),
            RecordValue::Ban(ban) => To::Ban(ban.as_ref().into()),
            RecordValue::Rollout(rollout) => To::Rollout(rollout.as_ref().into()),
            RecordValue::ApprovalRequest(request) => To::ApprovalRequest(request.as_ref().into()),
        };
        wire::Record { revision: record.revision.0, value: Some(value) }
    }
}

impl TryFrom<&wire::Record> for Record {
    type Error = WireError;

    fn try_from(record: &wire::Record) -> Result<Record, WireError> {
        use wire::record::Value as From;
        let value = match record.value.as_ref().ok_or(WireError::Missing("value"))? {
            From::Resource(resource) => RecordValue::Resource(Arc::new(resource.try_into()?)),
            From::AgentKey(key) => RecordValue::AgentKey(Arc::new(key.try_into()?)),
            From::Catalog(catalog) => RecordValue::Catalog(Arc::new(catalog.try_into()?)),
            From::Secret(secret) => RecordValue::SealedSecret(Arc::new(secret.try_into()?)),
            From::TenantKey(key) => RecordValue::TenantKey(Arc::new(key.try_into()?)),
            From::Cluster(cluster) => RecordValue::Cluster(Arc::new(cluster.try_into()?)),
            From::Proposer(proposer) => RecordValue::Proposer(Arc::new(proposer.try_into()?)),
            From::Admin(admin) => RecordValue::Admin(Arc::new(admin.try_into()?)),
            From::Deletions(deletions) => RecordValue::Deletions(Arc::new(deletions.try_into()?)),
            From::Ban(ban) => RecordValue::Ban(Arc::new(ban.try_into()?)),
            From::Rollout(rollout) => RecordValue::Rollout(Arc::new(rollout.try_into()?)),
            From::ApprovalRequest(request) => RecordValue::ApprovalRequest(Arc::new(request.try_into()?)),
        };
        Ok(Record { revision: Revision(record.revision), value })
    }
}

impl From<&Proposer> for wire::Proposer {
    fn from(proposer: &Proposer) -> wire::Proposer {
        let answered = |(sequence, answered): (&u64, &Answered)| wire::Answered {
            sequence: *sequence,
            revision: answered.revision.0,
            outcome: answered.outcome.clone(),
        };
        wire::Proposer {
            id: proposer.id.to_vec(),
            answered_below: proposer.answered_below,
            answered: proposer.answered.iter().map(answered).collect(),
        }
    }
}

impl TryFrom<&wire::Proposer> for Proposer {
    type Error = WireError;

    fn try_from(proposer: &wire::Proposer) -> Result<Proposer, WireError> {
        let answered = |answered: &wire::Answered| {
            let revision = Revision(answered.revision);
            (answered.sequence, Answered { revision, outcome: answered.outcome.clone() })
        };
        Ok(Proposer {
            id: bytes("id", &proposer.id)?,
            answered_below: proposer.answered_below,
            answered: proposer.answered.iter().map(answered).collect(),
        })
    }
}

impl From<&AgentKey> for wire::AgentKey {
    fn from(key: &AgentKey) -> wire::AgentKey {
        wire::AgentKey {
            tenant: key.tenant.to_string(),
            agent: key.agent.to_string(),
            id: key.id.to_string(),
            hash: key.hash.to_vec(),
            created_at_ms: key.created_at_ms,
            expires_at_ms: key.expires_at_ms.unwrap_or(0),
        }
    }
}

impl TryFrom<&wire::AgentKey> for AgentKey {
    type Error = WireError;

    fn try_from(key: &wire::AgentKey) -> Result<AgentKey, WireError> {
        Ok(AgentKey {
            tenant: name("tenant", &key.tenant)?,
            agent: name("agent", &key.agent)?,
            id: key.id.parse::<KeyId>().map_err(|_| WireError::invalid("id", "not a key's id"))?,
            hash: bytes("hash", &key.hash)?,
            created_at_ms: key.created_at_ms,
            expires_at_ms: (key.expires_at_ms != 0).then_some(key.expires_at_ms),
        })
    }
}

impl From<&SealedSecret> for wire::SealedSecret {
    fn from(secret: &SealedSecret) -> wire::SealedSecret {
        wire::SealedSecret {
            tenant: secret.tenant.to_string(),
            credential: secret.credential.to_string(),
            version: secret.version,
            tenant_key_version: secret.tenant_key_version,
            nonce: secret.nonce.to_vec(),
            ciphertext: secret.ciphertext.clone(),
        }
    }
}

impl TryFrom<&wire::SealedSecret> for SealedSecret {
    type Error = WireError;

    fn try_from(secret: &wire::SealedSecret) -> Result<SealedSecret, WireError> {
        Ok(SealedSecret {
            tenant: name("tenant", &secret.tenant)?,
            credential: name("credential", &secret.credential)?,
            version: secret.version,
            tenant_key_version: secret.tenant_key_version,
            nonce: bytes("nonce", &secret.nonce)?,
            ciphertext: secret.ciphertext.clone(),
        })
    }
}

impl From<&TenantKey> for wire::TenantKey {
    fn from(key: &TenantKey) -> wire::TenantKey {
        wire::TenantKey {
            tenant: key.tenant.to_string(),
            version: key.version,
            nonce: key.nonce.to_vec(),
            wrapped: key.wrapped.clone(),
        }
    }
}

impl TryFrom<&wire::TenantKey> for TenantKey {
    type Error = WireError;

    fn try_from(key: &wire::TenantKey) -> Result<TenantKey, WireError> {
        Ok(TenantKey {
            tenant: name("tenant", &key.tenant)?,
            version: key.version,
            nonce: bytes("nonce", &key.nonce)?,
            wrapped: key.wrapped.clone(),
        })
    }
}

impl From<&Cluster> for wire::Cluster {
    fn from(cluster: &Cluster) -> wire::Cluster {
        wire::Cluster {
            id: cluster.id.clone(),
            kek_id: cluster.kek_id.clone(),
            root_nonce: cluster.root_nonce.to_vec(),
            root_wrapped: cluster.root_wrapped.clone(),
            node_keys_nonce: cluster.node_keys_nonce.to_vec(),
            node_keys_wrapped: cluster.node_keys_wrapped.clone(),
            node_keys_generation: cluster.node_keys_generation,
            node_keys_rotated_at_ms: cluster.node_keys_rotated_at_ms.unwrap_or(0),
            enrolment: Some((&cluster.enrolment).into()),
        }
    }
}

impl TryFrom<&wire::Cluster> for Cluster {
    type Error = WireError;

    fn try_from(cluster: &wire::Cluster) -> Result<Cluster, WireError> {
        if cluster.id.is_empty() {
            return Err(WireError::Missing("id"));
        }
        Ok(Cluster {
            id: cluster.id.clone(),
            kek_id: cluster.kek_id.clone(),
            root_nonce: bytes("root_nonce", &cluster.root_nonce)?,
            root_wrapped: cluster.root_wrapped.clone(),
            node_keys_nonce: bytes("node_keys_nonce", &cluster.node_keys_nonce)?,
            node_keys_wrapped: cluster.node_keys_wrapped.clone(),
            node_keys_generation: cluster.node_keys_generation.max(1),
            node_keys_rotated_at_ms: (cluster.node_keys_rotated_at_ms != 0)
                .then_some(cluster.node_keys_rotated_at_ms),
            enrolment: cluster
                .enrolment
                .as_ref()
                .map_or_else(|| Ok(Enrolment::default()), TryInto::try_into)?,
        })
    }
}
