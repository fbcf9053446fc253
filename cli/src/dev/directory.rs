//! The data directory of `gantry dev` and what it remembers between starts.
//!
//! Always holds: the directory and its context are the owner's alone; tokens come from the system's source of
//! randomness; a context that cannot be read is never written over.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use gantry_node::owner_only;

use crate::context::{ContextError, ContextFile, SecretText, read_secret};
use crate::failure::{Failure, chain};

/// Random bytes of a token: 256 bits cannot be guessed.
const TOKEN_BYTES: usize = 32;
/// The vault's key file in a voter's directory.
const KEY_FILE: &str = "kek";
/// Longest such file in bytes: it is copied as it is, and read by the vault.
const KEY_FILE_BYTES_MAX: u64 = 4 * 1024;
/// What an admin token begins with, so that secret scanners can find a leaked one.
const ADMIN_TOKEN_PREFIX: &str = "gantry_admin_";

/// The data directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens the directory; makes it when it is not there.
    pub(super) fn open(path: &Path) -> Result<Directory, Failure> {
        let failed = |error: io::Error| {
            Failure::error(
                format!("the data directory {} cannot be made: {error}", path.display()),
                "name another with `--data-dir DIR`",
            )
        };
        let is_new = !path.exists();
        owner_only::make_directory(path).map_err(failed)?;
        if is_new {
            // The directory holds keys and often lies in a repository.
            fs::write(path.join(".gitignore"), "*\n").map_err(failed)?;
        }
        Ok(Directory { path: path.to_owned() })
    }

    /// Where a plane keeps its data.
    pub(super) fn of_plane(&self, plane: &str) -> PathBuf {
        self.path.join(plane)
    }

    /// Where the context stands.
    pub(super) fn context_path(&self) -> PathBuf {
        self.path.join("context.json")
    }

    /// What an earlier start left; `None`: this is the first.
    pub(super) fn context(&self) -> Result<Option<ContextFile>, Failure> {
        let path = self.context_path();
        if !path.exists() {
            return Ok(None);
        }
        ContextFile::read(&path).map(Some).map_err(|error| {
            let quoted = shell_words::quote(&path.to_string_lossy()).into_owned();
            let next = match error {
                ContextError::OthersCanRead { .. } => format!("`chmod 600 {quoted}`, then start again"),
                ContextError::Read { .. } | ContextError::Format { .. } | ContextError::Write { .. } => {
                    format!("`rm {quoted}`, then start again: tokens and keys are made anew, all else stays")
                }
            };
            Failure::error(chain(&error), next)
        })
    }

    /// Where the token stands by which nodes join.
    pub(super) fn node_token_path(&self) -> PathBuf {
        self.path.join("node-token")
    }

    /// The token by which nodes join, these and others: the one that an earlier start left, so that nodes that joined
    /// then find this control plane again, else a new one.
    pub(super) fn node_token(&self) -> Result<SecretText, Failure> {
        self.token(&self.node_token_path())
    }

    /// The token by which the members of the control plane know each other.
    pub(super) fn peer_token(&self) -> Result<SecretText, Failure> {
        self.token(&self.path.join("peer-token"))
    }

    fn token(&self, path: &Path) -> Result<SecretText, Failure> {
        if path.exists() {
            return read_secret(path);
        }
        let token = SecretText::new(random_hex()?);
        let line = format!("{}\n", token.expose());
        owner_only::make(path, line.as_bytes()).map_err(|error| unwritable(path, &error))?;
        Ok(token)
    }

    /// Where the voters' data lie, the first voter first. A voter that was once there is there again at every start:
    /// without it the others may have no quorum.
    pub(super) fn voters(&self, wanted: u8) -> Result<Vec<PathBuf>, Failure> {
        let of = |number: u8| match number {
            1 => self.of_plane("control-plane"),
            number => self.of_plane(&format!("control-plane-{number}")),
        };
        let there = (1..=u8::MAX).take_while(|number| of(*number).exists()).count();
        if there > usize::from(wanted) {
            return Err(Failure::usage(
                format!("{} has {there} voters, and {wanted} of them have no quorum", self.path.display()),
                format!("start with `--voters {there}`, or name another directory with `--data-dir DIR`"),
            ));
        }
        Ok((1..=wanted).map(of).collect())
    }

    /// Gives a new voter the key file of the first, without which it could open no secret.
    pub(super) fn share_key_file(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let target = to.join(KEY_FILE);
        if target.exists() {
            return Ok(());
        }
        let key = owner_only::read(&from.join(KEY_FILE), KEY_FILE_BYTES_MAX).map_err(|error| {
            Failure::error(chain(&error), "put it back from your backup, then start again")
        })?;
        let copy = || {
            owner_only::make_directory(to)?;
            owner_only::replace(&target, key.contents.expose())
        };
        copy().map_err(|error| unwritable(&target, &error))
    }

    /// Where the other members hear a voter: the same at every start, since they remember it.
    pub(super) fn peer_address(&self, voter: &Path) -> Result<SocketAddr, Failure> {
        let path = voter.join("peer-address");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                let next = format!("correct {}: it has IP:PORT", path.display());
                Failure::error(format!("{} is no address", path.display()), next)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let free =
                    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
                let free = free.map_err(|error| {
                    Failure::error(
                        format!("there is no free port on loopback: {error}"),
                        "close some programs",
                    )
                })?;
                let written = owner_only::make_directory(voter);
                let written = written.and_then(|()| fs::write(&path, format!("{free}\n")));
                written.map_err(|error| unwritable(&path, &error))?;
                Ok(free)
            }
            Err(error) => Err(unwritable(&path, &error)),
        }
    }

    /// Keeps the context for the next start and for every other command.
    pub(super) fn keep(&self, context: &ContextFile) -> Result<(), Failure> {
        context.write(&self.context_path()).map_err(|error| {
            Failure::error(chain(&error), "make room or correct the permissions, then start again")
        })
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::error(
        format!("{} cannot be written: {error}", path.display()),
        "make room or correct the permissions, then start again",
    )
}

/// A new admin token.
pub(crate) fn new_admin_token() -> Result<SecretText, Failure> {
    Ok(SecretText::new(format!("{ADMIN_TOKEN_PREFIX}{}", random_hex()?)))
}

fn random_hex() -> Result<String, Failure> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        Failure::error("the system gives no random bytes", "check /dev/urandom, then start again")
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_directory_is_the_owners_alone_and_stays_out_of_git() -> Result<(), Box<dyn std::error::Error>> {
        let parent = tempfile::tempdir()?;
        let path = parent.path().join("a/.gantry");
        let directory = Directory::open(&path).map_err(|failure| format!("{failure:?}"))?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(path.join(".gitignore"))?, "*\n");
        assert!(matches!(directory.context(), Ok(None)));
        Ok(())
    }

    #[test]
    fn nodes_join_with_one_token_from_start_to_start() -> Result<(), Box<dyn std::error::Error>> {
        let parent = tempfile::tempdir()?;
        let read = || -> Result<String, Failure> {
            Ok(Directory::open(parent.path())?.node_token()?.expose().to_owned())
        };
        let first = read().map_err(|failure| format!("{failure:?}"))?;
        assert_eq!(first.len(), 2 * TOKEN_BYTES);
        assert_eq!(read().map_err(|failure| format!("{failure:?}"))?, first);
        let mode = fs::metadata(parent.path().join("node-token"))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        Ok(())
    }

    #[test]
    fn tokens_are_long_and_never_the_same() -> Result<(), Failure> {
        let (one, two) = (new_admin_token()?, new_admin_token()?);
        assert_eq!(one.expose().len(), ADMIN_TOKEN_PREFIX.len() + 2 * TOKEN_BYTES);
        assert_ne!(one.expose(), two.expose());
        Ok(())
    }
}
