//! Admins, the commands that change them, and what was deleted of late.

use gantry_model::Revision;
use gantry_model::admin::{Admin, AdminChange, AdminToken};
use gantry_model::admin_issuer::{AdminIssuer, AdminRule};
use gantry_model::deletions::{Deletion, Deletions};
use gantry_model::key::KeyId;

use crate::command::required;
use crate::convert::{WireError, bytes, name, name_or_none, text_or_empty};
use crate::{raft_v1, resource_v1 as wire};

impl From<&Admin> for wire::Admin {
    fn from(admin: &Admin) -> wire::Admin {
        wire::Admin {
            name: admin.name.to_string(),
            roles: admin.roles.iter().map(ToString::to_string).collect(),
            tokens: admin.tokens.iter().map(Into::into).collect(),
            created_at_ms: admin.created_at_ms,
        }
    }
}

impl TryFrom<&wire::Admin> for Admin {
    type Error = WireError;

    fn try_from(admin: &wire::Admin) -> Result<Admin, WireError> {
        let role = |text: &String| text.parse().map_err(|error| WireError::invalid("roles", error));
        Ok(Admin {
            name: name("name", &admin.name)?,
            roles: admin.roles.iter().map(role).collect::<Result<_, _>>()?,
            tokens: admin.tokens.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            created_at_ms: admin.created_at_ms,
        })
    }
}

impl From<&AdminToken> for wire::AdminToken {
    fn from(token: &AdminToken) -> wire::AdminToken {
        wire::AdminToken {
            id: token.id.to_string(),
            hash: token.hash.to_vec(),
            created_at_ms: token.created_at_ms,
            expires_at_ms: token.expires_at_ms.unwrap_or(0),
        }
    }
}

impl TryFrom<&wire::AdminToken> for AdminToken {
    type Error = WireError;

    fn try_from(token: &wire::AdminToken) -> Result<AdminToken, WireError> {
        Ok(AdminToken {
            id: token_id("id", &token.id)?,
            hash: bytes("hash", &token.hash)?,
            created_at_ms: token.created_at_ms,
            expires_at_ms: (token.expires_at_ms != 0).then_some(token.expires_at_ms),
        })
    }
}

fn token_id(field: &'static str, text: &str) -> Result<KeyId, WireError> {
    text.parse().map_err(|_| WireError::invalid(field, "not a token's id"))
}

impl From<&AdminChange> for raft_v1::ChangeAdmin {
    fn from(change: &AdminChange) -> raft_v1::ChangeAdmin {
        use raft_v1::change_admin::Change as To;
        let change = match change {
            AdminChange::Create(admin) => To::Create(admin.into()),
            AdminChange::Rotate { name, token, older_end_at_ms, now_ms, asked_with } => {
                To::Rotate(raft_v1::RotateAdminToken {
                    name: name.to_string(),
                    token: Some(token.into()),
                    older_end_at_ms: *older_end_at_ms,
                    now_ms: *now_ms,
                    asked_with: asked_with.map(|id| id.to_string()).unwrap_or_default(),
                })
            }
            AdminChange::Delete(name) => To::Delete(name.to_string()),
        };
        raft_v1::ChangeAdmin { change: Some(change) }
    }
}

impl TryFrom<&raft_v1::ChangeAdmin> for AdminChange {
    type Error = WireError;

    fn try_from(change: &raft_v1::ChangeAdmin) -> Result<AdminChange, WireError> {
        use raft_v1::change_admin::Change as From;
        Ok(match change.change.as_ref().ok_or(WireError::Missing("change"))? {
            From::Create(admin) => AdminChange::Create(admin.try_into()?),
            From::Rotate(rotate) => AdminChange::Rotate {
                name: name("name", &rotate.name)?,
                token: required("token", &rotate.token)?,
                older_end_at_ms: rotate.older_end_at_ms,
                now_ms: rotate.now_ms,
                asked_with: match rotate.asked_with.as_str() {
                    "" => None,
                    id => Some(token_id("asked_with", id)?),
                },
            },
            From::Delete(admin) => AdminChange::Delete(name("delete", admin)?),
        })
    }
}

impl From<&AdminIssuer> for wire::AdminIssuer {
    fn from(issuer: &AdminIssuer) -> wire::AdminIssuer {
        let rule = |rule: &AdminRule| wire::AdminRule {
            claim: rule.claim.clone(),
            value: rule.value.clone(),
            role: rule.role.to_string(),
        };
        wire::AdminIssuer {
            name: issuer.name.to_string(),
            issuer: issuer.issuer.clone(),
            audiences: issuer.audiences.clone(),
            algorithms: issuer.algorithms.clone(),
            authorities: issuer.authorities.clone(),
            plain_on_loopback: issuer.is_plain_on_loopback,
            rules: issuer.rules.iter().map(rule).collect(),
        }
    }
}

impl TryFrom<&wire::AdminIssuer> for AdminIssuer {
    type Error = WireError;

    fn try_from(issuer: &wire::AdminIssuer) -> Result<AdminIssuer, WireError> {
        let rule = |rule: &wire::AdminRule| {
            let role = rule.role.parse().map_err(|error| WireError::invalid("role", error))?;
            Ok(AdminRule { claim: rule.claim.clone(), value: rule.value.clone(), role })
        };
        Ok(AdminIssuer {
            name: name("name", &issuer.name)?,
            issuer: issuer.issuer.clone(),
            audiences: issuer.audiences.clone(),
            algorithms: issuer.algorithms.clone(),
            authorities: issuer.authorities.clone(),
            is_plain_on_loopback: issuer.plain_on_loopback,
            rules: issuer.rules.iter().map(rule).collect::<Result<_, WireError>>()?,
        })
    }
}

impl From<&Deletions> for wire::Deletions {
    fn from(deletions: &Deletions) -> wire::Deletions {
        let deletion =
            |deletion: &Deletion| wire::Deletion { key: deletion.key.clone(), revision: deletion.revision.0 };
        wire::Deletions {
            tenant: text_or_empty(deletions.tenant.as_ref()),
            forgotten: deletions.forgotten.0,
            latest: deletions.latest.iter().map(deletion).collect(),
        }
    }
}

impl TryFrom<&wire::Deletions> for Deletions {
    type Error = WireError;

    fn try_from(deletions: &wire::Deletions) -> Result<Deletions, WireError> {
        let deletion = |deletion: &wire::Deletion| Deletion {
            key: deletion.key.clone(),
            revision: Revision(deletion.revision),
        };
        Ok(Deletions {
            tenant: name_or_none("tenant", &deletions.tenant)?,
            forgotten: Revision(deletions.forgotten),
            latest: deletions.latest.iter().map(deletion).collect(),
        })
    }
}
