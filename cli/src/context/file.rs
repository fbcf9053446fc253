//! The context file: what `gantry dev` keeps between starts and leaves for every other command.
//!
//! Always holds: it is readable by its owner only, on write and on read; a write replaces the whole file or nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gantry_model::Secret;
use gantry_node::owner_only;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cluster::{ClusterContext, ClusterFile};

/// Permission bits of anybody but the owner.
const OTHERS: u32 = 0o077;

/// What a context file may be.
pub(crate) enum Context {
    /// What `gantry dev` left.
    Dev(ContextFile),
    /// What `gantry context set` kept.
    Cluster(ClusterContext),
}

/// What the file of `gantry dev` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContextFile {
    /// Host and port of the admin service.
    pub(crate) admin_address: String,
    /// What proves the admin.
    pub(crate) admin_token: SecretText,
    /// The tenant that is meant when none is named.
    pub(crate) tenant: String,
    /// The endpoint that is meant when none is named: a key of `endpoints`.
    pub(crate) endpoint: String,
    /// URLs by endpoint name.
    pub(crate) endpoints: BTreeMap<String, String>,
    /// Agent keys by tenant; the one of `tenant` is used for calls.
    pub(crate) agent_keys: BTreeMap<String, SecretText>,
    /// PEM certificate to trust for the endpoints, when they are `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
}

/// A secret text. It serialises, which only the context file may do.
#[derive(Debug, Clone)]
pub(crate) struct SecretText(Secret<String>);

impl SecretText {
    /// The secret, still under guard.
    pub(crate) fn as_secret(&self) -> &Secret<String> {
        &self.0
    }

    /// Takes a text under guard.
    pub(crate) fn new(text: String) -> SecretText {
        SecretText(Secret::new(text))
    }

    /// The text itself.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretText, D::Error> {
        String::deserialize(deserializer).map(SecretText::new)
    }
}

/// Why a context file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else could have read the token.
    #[error("{} can be read by others, and it holds the admin token", path.display())]
    OthersCanRead {
        /// The file.
        path: PathBuf,
    },
    /// It is no context.
    #[error("{} is no context file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Context {
    /// Reads a context file.
    pub(crate) fn read(path: &Path) -> Result<Context, ContextError> {
        let text = read_text(path)?;
        let format = |source| ContextError::Format { path: path.to_owned(), source };
        let whole: serde_json::Value = serde_json::from_str(&text).map_err(format)?;
        if whole.get("cluster").is_none() {
            return serde_json::from_str(&text).map(Context::Dev).map_err(format);
        }
        let ClusterFile { cluster } = serde_json::from_value(whole).map_err(format)?;
        Ok(Context::Cluster(cluster))
    }
}

impl ContextFile {
    /// Reads the context file of `gantry dev`.
    pub(crate) fn read(path: &Path) -> Result<ContextFile, ContextError> {
        let text = read_text(path)?;
        serde_json::from_str(&text).map_err(|source| ContextError::Format { path: path.to_owned(), source })
    }

    /// Replaces the context file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), ContextError> {
        let failed = |source| ContextError::Write { path: path.to_owned(), source };
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|source| ContextError::Format { path: path.to_owned(), source })?;
        text.push('\n');
        owner_only::replace(path, text.as_bytes()).map_err(failed)
    }

    /// The agent key of the context's tenant.
    pub(crate) fn agent_key(&self) -> Option<&SecretText> {
        self.agent_keys.get(&self.tenant)
    }
}

/// The text of a file that nobody else can read.
fn read_text(path: &Path) -> Result<String, ContextError> {
    let failed = |source| ContextError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    // The permissions are those of the file that is read, not of what the path names a moment later.
    if file.metadata().map_err(failed)?.permissions().mode() & OTHERS != 0 {
        return Err(ContextError::OthersCanRead { path: path.to_owned() });
    }
    io::read_to_string(file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> ContextFile {
        ContextFile {
            admin_address: "127.0.0.1:1".to_owned(),
            admin_token: SecretText::new("t".to_owned()),
            tenant: "demo".to_owned(),
            endpoint: "main".to_owned(),
            endpoints: BTreeMap::from([("main".to_owned(), "http://127.0.0.1:2/demo/main/mcp".to_owned())]),
            agent_keys: BTreeMap::from([("demo".to_owned(), SecretText::new("k".to_owned()))]),
            certificate: None,
        }
    }

    #[test]
    fn a_context_survives_its_file_and_replaces_the_one_before() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("context.json");
        context().write(&path)?;
        context().write(&path)?;
        let read = ContextFile::read(&path)?;
        assert_eq!(serde_json::to_value(&read)?, serde_json::to_value(context())?);
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(read.agent_key().map(SecretText::expose), Some("k"));
        assert!(!format!("{read:?}").contains("\"t\""));
        Ok(())
    }

    #[test]
    fn a_context_that_others_can_read_is_not_used() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("context.json");
        context().write(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        assert!(matches!(ContextFile::read(&path), Err(ContextError::OthersCanRead { .. })));
        Ok(())
    }
}
