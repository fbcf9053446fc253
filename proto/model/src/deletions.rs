//! What was deleted of late, so that who expects a revision is told of deletions too.
//!
//! It tells no more than that something of a name was deleted, and when; what it was is gone.

use crate::name::TenantName;
use crate::revision::Revision;

/// What was deleted of late, of a tenant's or of the cluster's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletions {
    /// Whose; `None`: of the tenants themselves and of admins.
    pub tenant: Option<TenantName>,
    /// What was deleted at this revision or before it may be forgotten.
    pub forgotten: Revision,
    /// The latest, oldest first.
    pub latest: Vec<Deletion>,
}

/// A record that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Its key, as text.
    pub key: String,
    /// When.
    pub revision: Revision,
}
