//! Enrolment, and the commands that change it.

use gantry_model::enrolment::{
    Authority, Enrolment, EnrolmentChange, JoinRole, JoinToken, JoinTokenId, Joiner, Revocation, Revoked,
};
use gantry_model::identity::Serial;
use gantry_model::scope::{Labels, SCOPE_LABELS_MAX, SCOPE_TENANTS_MAX};

use crate::command::required;
use crate::convert::{WireError, bytes, name, name_or_none, text_or_empty};
use crate::{raft_v1, resource_v1 as wire};

impl From<&Enrolment> for wire::Enrolment {
    fn from(enrolment: &Enrolment) -> wire::Enrolment {
        wire::Enrolment {
            authority: enrolment.authority.as_ref().map(Into::into),
            last_member: enrolment.last_member,
            tokens: enrolment.tokens.iter().map(Into::into).collect(),
            revocations: enrolment.revocations.iter().map(Into::into).collect(),
            removed_members: enrolment.removed_members.clone(),
            removed_members_below: enrolment.removed_members_below,
            admin_issuers: enrolment.admin_issuers.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<&wire::Enrolment> for Enrolment {
    type Error = WireError;

    fn try_from(enrolment: &wire::Enrolment) -> Result<Enrolment, WireError> {
        Ok(Enrolment {
            authority: enrolment.authority.as_ref().map(TryInto::try_into).transpose()?,
            last_member: enrolment.last_member.max(1),
            tokens: enrolment.tokens.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            revocations: enrolment.revocations.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            removed_members: enrolment.removed_members.clone(),
            removed_members_below: enrolment.removed_members_below,
            admin_issuers: enrolment.admin_issuers.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Authority> for wire::Authority {
    fn from(authority: &Authority) -> wire::Authority {
        wire::Authority {
            certificate: authority.certificate.clone(),
            key_nonce: authority.key_nonce.to_vec(),
            key_sealed: authority.key_sealed.clone(),
        }
    }
}

impl TryFrom<&wire::Authority> for Authority {
    type Error = WireError;

    fn try_from(authority: &wire::Authority) -> Result<Authority, WireError> {
        Ok(Authority {
            certificate: authority.certificate.clone(),
            key_nonce: bytes("key_nonce", &authority.key_nonce)?,
            key_sealed: authority.key_sealed.clone(),
        })
    }
}

impl From<&JoinToken> for wire::JoinToken {
    fn from(token: &JoinToken) -> wire::JoinToken {
        let role = match &token.role {
            JoinRole::ControlPlane => wire::join_token::Role::ControlPlane(wire::ControlPlaneRole {}),
            JoinRole::Node { name, labels } => wire::join_token::Role::Node(wire::NodeRole {
                name: text_or_empty(name.as_ref()),
                labels: (!labels.is_empty()).then(|| labels.into()),
            }),
        };
        wire::JoinToken {
            id: token.id.0.to_vec(),
            hash: token.hash.to_vec(),
            role: Some(role),
            expires_at_ms: token.expires_at_ms,
            used: token.is_used,
        }
    }
}

impl TryFrom<&wire::JoinToken> for JoinToken {
    type Error = WireError;

    fn try_from(token: &wire::JoinToken) -> Result<JoinToken, WireError> {
        let role = match token.role.as_ref().ok_or(WireError::Missing("role"))? {
            wire::join_token::Role::ControlPlane(_) => JoinRole::ControlPlane,
            wire::join_token::Role::Node(node) => JoinRole::Node {
                name: name_or_none("name", &node.name)?,
                labels: node.labels.as_ref().map(TryInto::try_into).transpose()?.unwrap_or_default(),
            },
        };
        Ok(JoinToken {
            id: JoinTokenId(bytes("id", &token.id)?),
            hash: bytes("hash", &token.hash)?,
            role,
            expires_at_ms: token.expires_at_ms,
            is_used: token.used,
        })
    }
}

impl From<&Labels> for wire::NodeLabels {
    fn from(labels: &Labels) -> wire::NodeLabels {
        wire::NodeLabels {
            tenants: labels.tenants.iter().map(ToString::to_string).collect(),
            region: text_or_empty(labels.region.as_ref()),
            labels: labels.labels.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<&wire::NodeLabels> for Labels {
    type Error = WireError;

    fn try_from(labels: &wire::NodeLabels) -> Result<Labels, WireError> {
        if labels.tenants.len() > SCOPE_TENANTS_MAX {
            return Err(WireError::invalid("tenants", format!("{SCOPE_TENANTS_MAX} are the most")));
        }
        if labels.labels.len() > SCOPE_LABELS_MAX {
            return Err(WireError::invalid("labels", format!("{SCOPE_LABELS_MAX} are the most")));
        }
        Ok(Labels {
            tenants: labels.tenants.iter().map(|text| name("tenants", text)).collect::<Result<_, _>>()?,
            region: name_or_none("region", &labels.region)?,
            labels: labels.labels.iter().map(|text| name("labels", text)).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Revocation> for wire::Revocation {
    fn from(revocation: &Revocation) -> wire::Revocation {
        let subject = match &revocation.subject {
            Revoked::Name(name) => wire::revocation::Subject::Name(name.to_string()),
            Revoked::Serial(serial) => wire::revocation::Subject::Serial(serial.as_bytes().to_vec()),
        };
        wire::Revocation { subject: Some(subject), until_ms: revocation.until_ms }
    }
}

impl TryFrom<&wire::Revocation> for Revocation {
    type Error = WireError;

    fn try_from(revocation: &wire::Revocation) -> Result<Revocation, WireError> {
        let subject = match revocation.subject.as_ref().ok_or(WireError::Missing("subject"))? {
            wire::revocation::Subject::Name(name) => {
                Revoked::Name(name.parse().map_err(|problem| WireError::invalid("name", problem))?)
            }
            wire::revocation::Subject::Serial(serial) => Revoked::Serial(Serial::new(serial)),
        };
        Ok(Revocation { subject, until_ms: revocation.until_ms })
    }
}

impl From<&EnrolmentChange> for raft_v1::ChangeEnrolment {
    fn from(change: &EnrolmentChange) -> raft_v1::ChangeEnrolment {
        use raft_v1::change_enrolment::Change as To;
        let change = match change {
            EnrolmentChange::FoundAuthority(authority) => To::FoundAuthority(authority.into()),
            EnrolmentChange::PutJoinToken { token, now_ms } => {
                To::PutJoinToken(raft_v1::PutJoinToken { token: Some(token.into()), now_ms: *now_ms })
            }
            EnrolmentChange::UseJoinToken { id, hash, joiner, now_ms } => {
                let joiner = match joiner {
                    Joiner::ControlPlane(member) => raft_v1::use_join_token::Joiner::Member(*member),
                    Joiner::Node(name) => raft_v1::use_join_token::Joiner::Node(name.to_string()),
                };
                To::UseJoinToken(raft_v1::UseJoinToken {
                    id: id.0.to_vec(),
                    hash: hash.to_vec(),
                    joiner: Some(joiner),
                    now_ms: *now_ms,
                })
            }
            EnrolmentChange::Revoke { revocation, now_ms } => {
                let revocation = Some(revocation.into());
                To::RevokeCertificate(raft_v1::RevokeCertificate { revocation, now_ms: *now_ms })
            }
            EnrolmentChange::RemoveMember(member) => To::RemoveMember(*member),
            EnrolmentChange::PutAdminIssuer(issuer) => To::PutAdminIssuer(issuer.into()),
            EnrolmentChange::DeleteAdminIssuer(name) => To::DeleteAdminIssuer(name.to_string()),
        };
        raft_v1::ChangeEnrolment { change: Some(change) }
    }
}

impl TryFrom<&raft_v1::ChangeEnrolment> for EnrolmentChange {
    type Error = WireError;

    fn try_from(change: &raft_v1::ChangeEnrolment) -> Result<EnrolmentChange, WireError> {
        use raft_v1::change_enrolment::Change as From;
        Ok(match change.change.as_ref().ok_or(WireError::Missing("change"))? {
            From::FoundAuthority(authority) => EnrolmentChange::FoundAuthority(authority.try_into()?),
            From::PutJoinToken(put) => {
                EnrolmentChange::PutJoinToken { token: required("token", &put.token)?, now_ms: put.now_ms }
            }
            From::UseJoinToken(used) => EnrolmentChange::UseJoinToken {
                id: JoinTokenId(bytes("id", &used.id)?),
                hash: bytes("hash", &used.hash)?,
                joiner: match used.joiner.as_ref().ok_or(WireError::Missing("joiner"))? {
                    raft_v1::use_join_token::Joiner::Member(member) => Joiner::ControlPlane(*member),
                    raft_v1::use_join_token::Joiner::Node(node) => Joiner::Node(name("node", node)?),
                },
                now_ms: used.now_ms,
            },
            From::RevokeCertificate(revoke) => EnrolmentChange::Revoke {
                revocation: required("revocation", &revoke.revocation)?,
                now_ms: revoke.now_ms,
            },
            From::RemoveMember(member) => EnrolmentChange::RemoveMember(*member),
            From::PutAdminIssuer(issuer) => EnrolmentChange::PutAdminIssuer(issuer.try_into()?),
            From::DeleteAdminIssuer(issuer) => {
                EnrolmentChange::DeleteAdminIssuer(name("delete_admin_issuer", issuer)?)
            }
        })
    }
}
