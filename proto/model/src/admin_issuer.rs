//! Issuers of tokens by which admins prove themselves: whom the cluster believes, and what for (OpenID Connect).
//!
//! Always holds: a role is given for a claim that has exactly a value; an admin by an issuer is in no record, so he is one as
//! long as his token says so and a rule gives him a role.

use crate::admin::Role;
use crate::name::Name;

/// An issuer whose tokens prove admins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminIssuer {
    /// What it is called here.
    pub name: Name,
    /// Its URL, exactly as it calls itself.
    pub issuer: String,
    /// For whom a token has to be: one of these.
    pub audiences: Vec<String>,
    /// With what it signs (`RS256`).
    pub algorithms: Vec<String>,
    /// Whom it may be served by, as DER; empty: the public authorities.
    pub authorities: Vec<Vec<u8>>,
    /// Whether it may be asked without TLS on this machine: for tests.
    pub is_plain_on_loopback: bool,
    /// What its claims give.
    pub rules: Vec<AdminRule>,
}

/// A role for whom an issuer says something of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRule {
    /// A claim: its name, or a JSON pointer.
    pub claim: String,
    /// What it is, or what its list has.
    pub value: String,
    /// What that gives.
    pub role: Role,
}
