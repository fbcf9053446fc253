//! The context of a cluster: the flags by which an admin reaches it, kept in a file so that nobody has to give them.
//!
//! Always holds: it names files and holds no secret; those are read with the checks of their own. A flag that is given takes
//! the place of what is kept, and one that proves the admin in the place of all that does.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_node::owner_only;
use serde::{Deserialize, Serialize};

use super::{Access, ContextFlag};
use crate::failure::Failure;

/// What the file says. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterContext {
    /// Host and port of a member.
    admin: String,
    /// Certificate of the authority: whatever proves the admin, it goes to a control plane that this has named.
    ca: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    /// The tenant that is meant when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
}

/// The whole file: what tells it apart from that of `gantry dev`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterFile {
    pub(super) cluster: ClusterContext,
}

impl ClusterContext {
    /// These flags, and what is kept in place of those that were not given.
    pub(super) fn fill(self, flags: &Access) -> Access {
        let (kept_token, kept_cert, kept_key) = match (&flags.token_file, &flags.cert) {
            (None, None) => (self.token_file, self.cert, self.key),
            _ => (None, None, None),
        };
        Access {
            admin: flags.admin.clone().or(Some(self.admin)),
            token_file: flags.token_file.clone().or(kept_token),
            ca: flags.ca.clone().or(Some(self.ca)),
            cert: flags.cert.clone().or(kept_cert),
            key: flags.key.clone().or(kept_key),
            context: ContextFlag::default(),
        }
    }

    /// What these flags say.
    pub(super) fn of(flags: &Access, tenant: Option<String>) -> Result<ClusterContext, Failure> {
        let admin = flags
            .admin
            .clone()
            .ok_or_else(|| Failure::usage("no admin service is named", "add `--admin HOST:PORT`"))?;
        let ca = flags.ca.as_deref().ok_or_else(|| {
            Failure::usage(
                "nobody is named whom to believe",
                "add the certificate of the cluster's authority, `--ca FILE`",
            )
        })?;
        let absolute = |path: &Option<PathBuf>| path.as_deref().map(whole).transpose();
        Ok(ClusterContext {
            admin,
            ca: whole(ca)?,
            token_file: absolute(&flags.token_file)?,
            cert: absolute(&flags.cert)?,
            key: absolute(&flags.key)?,
            tenant,
        })
    }

    /// Replaces the file as a whole.
    pub(super) fn write(self, path: &Path) -> Result<(), Failure> {
        let write = || {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let text = serde_json::to_string_pretty(&ClusterFile { cluster: self })?;
            owner_only::replace(path, format!("{text}\n").as_bytes())
        };
        write().map_err(|error| {
            Failure::error(
                format!("{} cannot be written: {error}", path.display()),
                "name another with `--context FILE`",
            )
        })
    }
}

fn whole(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path)
        .map_err(|error| Failure::error(format!("{}: {error}", path.display()), "name a file that is there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> ClusterContext {
        ClusterContext {
            admin: "one:1".to_owned(),
            ca: "/ca".into(),
            token_file: None,
            cert: Some("/cert".into()),
            key: Some("/key".into()),
            tenant: None,
        }
    }

    #[test]
    fn a_flag_takes_the_place_of_what_is_kept_and_a_proof_that_of_every_proof() {
        let fill = |flags: Access| {
            let all = kept().fill(&flags);
            let text =
                |path: Option<PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
            [all.admin.unwrap_or_default(), text(all.ca), text(all.token_file), text(all.cert), text(all.key)]
        };
        assert_eq!(fill(Access::default()), ["one:1", "/ca", "", "/cert", "/key"]);
        let other = Access { admin: Some("two:1".to_owned()), ca: Some("/b".into()), ..Access::default() };
        assert_eq!(fill(other), ["two:1", "/b", "", "/cert", "/key"]);
        let token = Access { token_file: Some("/t".into()), ..Access::default() };
        assert_eq!(fill(token), ["one:1", "/ca", "/t", "", ""]);
        let cert = Access { cert: Some("/c".into()), ..Access::default() };
        assert_eq!(fill(cert), ["one:1", "/ca", "", "/c", ""]);
    }
}
