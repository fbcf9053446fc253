//! The certificate of an admin: one file with its key and its authority, or files of an organisation's own.
//!
//! Always holds: a file with a key that others can read is not used; one that is replaced is replaced as a whole.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use gantry_node::membership::Membership;
use gantry_node::owner_only::{self, ReadError};
use gantry_node::tls::{Certified, Trust};

use crate::failure::{Failure, chain};

/// Longest file in bytes: a chain, or a key.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The certificate and whom to believe: `ca` where it is given, else the authority in the file.
pub(super) fn read(
    cert: &Path,
    key: Option<&Path>,
    ca: Option<Arc<Trust>>,
) -> Result<(Certified, Arc<Trust>), Failure> {
    let again = "`gantry admin certificate --out FILE` makes one; with a key elsewhere, name that with --key and --ca";
    match (key, ca) {
        (Some(key), Some(ca)) => Ok((of_files(cert, key)?, ca)),
        (Some(_), None) => Err(Failure::usage(
            "nobody is named whom to believe",
            "name the certificate of the cluster's authority with --ca FILE",
        )),
        (_, ca) => {
            let member = Membership::load(cert.to_owned());
            let member = member.map_err(|error| Failure::error(chain(&error), again))?;
            let missing = || Failure::error(format!("{} is not there", cert.display()), again);
            let member = member.ok_or_else(missing)?;
            let certified = member.presenter().certified().ok_or_else(missing)?;
            Ok((certified.as_ref().clone(), ca.unwrap_or_else(|| member.trust().clone())))
        }
    }
}

fn of_files(cert: &Path, key: &Path) -> Result<Certified, Failure> {
    let chain_text = bytes(cert)?;
    let read = owner_only::read(key, FILE_BYTES_MAX).map_err(|error| match error {
        ReadError::Open { .. } => Failure::error(
            format!("{} can be read by others, and holds a key", key.display()),
            format!("`chmod 600 {}`", shell_words::quote(&key.to_string_lossy())),
        ),
        error => Failure::error(chain(&error), "name a PEM file that can be read"),
    })?;
    Certified::from_pem(&chain_text, &read.contents).map_err(|error| {
        let files = format!("{} and {}", cert.display(), key.display());
        Failure::error(format!("{files}: {}", chain(&error)), "name a certificate and its own key, as PEM")
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let length = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if length > FILE_BYTES_MAX {
        let told = format!("{} is longer than any certificate or key", path.display());
        return Err(Failure::error(told, "name a PEM file"));
    }
    fs::read(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::error(format!("{}: {error}", path.display()), "name a PEM file that can be read")
}
