//! Admins: who may do what to the control plane, and the tokens by which they prove themselves.
//!
//! Always holds: of a token only a hash is stored. Its text form is `gantry_admin_NAME_ID_SECRET`, so that whoever finds
//! a lost one sees whose it is; no name has a `_`, so it reads in one way. A role that is of a tenant names it, and
//! says nothing about others. A certificate that was issued to an admin names the token that it hangs on, and counts
//! no longer than that does.
//!
//! What each role may do stands where calls are answered (`control-plane/src/access`).

use std::fmt;
use std::str::FromStr;

use crate::identity::ClusterId;
use crate::key::{KEY_SECRET_BYTES, KeyId, from_hex, push_hex};
use crate::name::{Name, NameError, TenantName};
use crate::secret::Secret;

/// The admin that every cluster has, who proves himself by the token that it is started with. Nobody else is called so.
pub const ROOT: &str = "root";
/// What the text of every admin token begins with, so that secret scanners can find a lost one.
pub const ADMIN_TOKEN_PREFIX: &str = "gantry_admin_";

/// Begins the text that names a token in a certificate, before the cluster.
const SCHEME: &str = "gantry://";
/// Follows the cluster in it.
const TOKEN_SEGMENT: &str = "/admin-token/";

/// Somebody who may call the admin service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Who.
    pub name: Name,
    /// What he may do: everything that one of them allows.
    pub roles: Vec<Role>,
    /// What he may prove himself with, besides a certificate of his name; the newest last.
    pub tokens: Vec<AdminToken>,
    /// When he was made, in milliseconds since 1970. Certificates of an earlier admin of the name do not count.
    pub created_at_ms: u64,
}

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Which one; not secret.
    pub id: KeyId,
    /// SHA-256 of its secret, which is random and needs no salt.
    pub hash: [u8; 32],
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// From when it is refused, in milliseconds since 1970; `None`: never.
    pub expires_at_ms: Option<u64>,
}

/// What an admin may do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything.
    ClusterAdmin,
    /// Everything within one tenant but its end.
    TenantAdmin(TenantName),
    /// To look at what is configured: of one tenant, or of all and the cluster.
    ReadOnly(Option<TenantName>),
    /// To read audit records, with the policies that decided and the revocations that would refuse: of one tenant, or
    /// all. Nothing else.
    Auditor(Option<TenantName>),
    /// To decide calls that wait for approval, and to look at them: of one tenant, or all. Nothing else.
    Approver(Option<TenantName>),
}

/// A change of the admins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminChange {
    /// Adds one; refused when there is one of that name.
    Create(Admin),
    /// Adds a token; the ones before it end at `older_end_at_ms`, if they do not end before.
    Rotate {
        /// Whose.
        name: Name,
        /// The new one.
        token: AdminToken,
        /// Until when the others count, in milliseconds since 1970.
        older_end_at_ms: u64,
        /// When, in milliseconds since 1970.
        now_ms: u64,
        /// The token of his own that he asked with. It has to be his newest, and the new one counts no longer than it
        /// does. `None`: whoever asks may give him any.
        asked_with: Option<KeyId>,
    },
    /// Ends one, with his tokens.
    Delete(Name),
}

/// A token as an admin presents it.
#[derive(Debug, Clone)]
pub struct PresentedToken {
    /// Whose it says it is.
    pub name: Name,
    /// Which one.
    pub id: KeyId,
    /// What proves possession.
    pub secret: Secret<[u8; KEY_SECRET_BYTES]>,
}

/// The text is not of the form of an admin token. It says no more, so that it can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an admin token (gantry_admin_NAME_ID_SECRET)")]
pub struct TokenFormatError;

/// The text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// There is none of this name.
    #[error(
        "one of cluster-admin, tenant-admin:TENANT, read-only, read-only:TENANT, auditor, auditor:TENANT, approver, \
         approver:TENANT"
    )]
    Unknown,
    /// What stands behind the colon is no tenant's name.
    #[error("the tenant's name: {0}")]
    Tenant(NameError),
}

impl Role {
    /// The tenant that it is bound to; `None`: it is of the cluster.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Role::ClusterAdmin => None,
            Role::TenantAdmin(tenant) => Some(tenant),
            Role::ReadOnly(tenant) | Role::Auditor(tenant) | Role::Approver(tenant) => tenant.as_ref(),
        }
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Role, RoleError> {
        let (role, tenant) = match text.split_once(':') {
            Some((role, tenant)) => (role, Some(tenant.parse().map_err(RoleError::Tenant)?)),
            None => (text, None),
        };
        match (role, tenant) {
            ("cluster-admin", None) => Ok(Role::ClusterAdmin),
            ("tenant-admin", Some(tenant)) => Ok(Role::TenantAdmin(tenant)),
            ("read-only", tenant) => Ok(Role::ReadOnly(tenant)),
            ("auditor", tenant) => Ok(Role::Auditor(tenant)),
            ("approver", tenant) => Ok(Role::Approver(tenant)),
            _ => Err(RoleError::Unknown),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Role::ClusterAdmin => "cluster-admin",
            Role::TenantAdmin(_) => "tenant-admin",
            Role::ReadOnly(_) => "read-only",
            Role::Auditor(_) => "auditor",
            Role::Approver(_) => "approver",
        })?;
        self.tenant().map_or(Ok(()), |tenant| write!(formatter, ":{tenant}"))
    }
}

impl PresentedToken {
    /// The text form, which is itself secret.
    pub fn to_text(&self) -> Secret<String> {
        let mut text = format!("{ADMIN_TOKEN_PREFIX}{}_{}_", self.name, self.id);
        push_hex(&mut text, &self.secret);
        Secret::new(text)
    }
}

/// The token that a certificate hangs on, as it stands in that: `gantry://CLUSTER/admin-token/ID`.
pub fn token_uri(cluster: &ClusterId, id: KeyId) -> String {
    format!("{SCHEME}{cluster}{TOKEN_SEGMENT}{id}")
}

/// Whether a text in a certificate is about a token at all, readable or not.
pub fn is_token_uri(text: &str) -> bool {
    let rest = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/'));
    rest.is_some_and(|(_, rest)| rest.starts_with(&TOKEN_SEGMENT[1..]))
}

/// Reads what [`token_uri`] wrote for a cluster; `None`: it is something else.
pub fn read_token_uri(text: &str, cluster: &ClusterId) -> Option<KeyId> {
    let id = text.strip_prefix(SCHEME)?.strip_prefix(cluster.as_str())?.strip_prefix(TOKEN_SEGMENT)?;
    // Another spelling of a number would be a second text for one token.
    id.parse().ok().filter(|read: &KeyId| read.to_string() == id)
}

impl FromStr for PresentedToken {
    type Err = TokenFormatError;

    fn from_str(text: &str) -> Result<PresentedToken, TokenFormatError> {
        let mut parts = text.strip_prefix(ADMIN_TOKEN_PREFIX).ok_or(TokenFormatError)?.splitn(3, '_');
        let mut part = || parts.next().ok_or(TokenFormatError);
        Ok(PresentedToken {
            name: part()?.parse().map_err(|_| TokenFormatError)?,
            id: part()?.parse().map_err(|_| TokenFormatError)?,
            secret: Secret::new(from_hex(part()?).ok_or(TokenFormatError)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_form_and_another_text_is_none() -> Result<(), Box<dyn std::error::Error>> {
        let token = PresentedToken {
            name: "alice-2".parse()?,
            id: KeyId([1, 2, 3, 4, 5, 6, 7, 0xff]),
            secret: Secret::new([0xab; KEY_SECRET_BYTES]),
        };
        let text = token.to_text();
        assert!(text.expose().starts_with("gantry_admin_alice-2_01020304050607ff_abab"));
        let read: PresentedToken = text.expose().parse()?;
        assert_eq!((read.name, read.id), (token.name, token.id));
        assert_eq!(read.secret.expose(), token.secret.expose());
        let longer = format!("{}00", text.expose());
        for other in ["", "gantry_admin_", "gantry_admin_alice", "gantry_01020304050607ff_ab", &longer] {
            assert_eq!(other.parse::<PresentedToken>().err(), Some(TokenFormatError), "{other}");
        }
        Ok(())
    }

    #[test]
    fn a_certificate_names_its_token_in_one_way() -> Result<(), NameError> {
        let (cluster, id) = ("c1".parse()?, KeyId([1, 2, 3, 4, 5, 6, 7, 0xff]));
        let text = token_uri(&cluster, id);
        assert_eq!(text, "gantry://c1/admin-token/01020304050607ff");
        assert_eq!((is_token_uri(&text), read_token_uri(&text, &cluster)), (true, Some(id)));
        assert_eq!(read_token_uri(&text, &"c2".parse()?), None, "of another cluster");
        for other in ["01020304050607FF", "01020304050607f", "01020304050607ff/", ""] {
            let other = format!("gantry://c1/admin-token/{other}");
            assert_eq!((is_token_uri(&other), read_token_uri(&other, &cluster)), (true, None), "{other}");
        }
        assert!(!is_token_uri("gantry://c1/admin/alice") && !is_token_uri("gantry://c1/scope"));
        Ok(())
    }

    #[test]
    fn a_role_is_read_as_it_is_printed_and_another_text_is_none() -> Result<(), RoleError> {
        let roles =
            ["cluster-admin", "tenant-admin:acme", "read-only", "read-only:acme", "auditor", "auditor:acme"];
        for text in roles {
            assert_eq!(text.parse::<Role>()?.to_string(), text);
        }
        for text in ["", "admin", "cluster-admin:acme", "tenant-admin", "Auditor"] {
            assert_eq!(text.parse::<Role>(), Err(RoleError::Unknown), "{text}");
        }
        assert_eq!("auditor:".parse::<Role>(), Err(RoleError::Tenant(NameError::Empty)));
        Ok(())
    }
}
