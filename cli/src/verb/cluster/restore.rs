//! `gantry cluster restore`: a new cluster of a backup, without the old one.
//!
//! Always holds: it needs no running control plane; what the new cluster does not have of the old one is said.

use std::path::PathBuf;

use gantry_control_plane::member::MakeError;
use gantry_control_plane::{BackupKey, BackupKeyError, RestoreError, Restored};
use serde_json::json;

use super::make::{PlaceFlags, Told};
use crate::context::read_secret;
use crate::failure::{Exit, Failure, chain};
use crate::output::{self, TextFormat};
use crate::verb::control_plane::AdminFiles;

/// `gantry cluster restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The key that opens it, from `gantry cluster backup-key`.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    #[command(flatten)]
    place: PlaceFlags,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
}

impl Restore {
    /// Runs the command.
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let key =
            read_secret(&self.key_file)?.expose().parse::<BackupKey>().map_err(|error: BackupKeyError| {
                let said = format!("{}: {error}", self.key_file.display());
                Failure::error(said, "name the right file with `--key-file`")
            })?;
        let (data_dir, place) = (&self.place.data_dir, self.place.resolve()?);
        let restored = gantry_control_plane::restore(&self.from, key, data_dir, place).await;
        let restored = restored.map_err(|error| not_restored(&error))?;
        let files = AdminFiles::make(data_dir, &restored.member)?;
        warn(&restored);
        told(&restored).report(self.output, data_dir, &restored.member, &files)
    }
}

fn warn(restored: &Restored) {
    let revision = restored.backup.revision;
    output::warn(&format!(
        "what was changed after revision {revision} is undone: what was revoked or deleted since then counts again, agents' keys too"
    ));
    if !restored.admins.is_empty() {
        output::warn("no admin has a token in the new cluster; make them with `gantry admin rotate NAME`");
    }
    for name in &restored.unreadable {
        output::warn(&format!("the secret of credential {name} was damaged already; put it again"));
    }
}

fn told(restored: &Restored) -> Told {
    let (member, backup) = (&restored.member, &restored.backup);
    Told {
        first: format!(
            "Founded the cluster {}, of cluster {} as of revision {}; this is member {}.",
            member.membership.cluster(),
            backup.cluster,
            backup.revision,
            member.id
        ),
        last: String::new(),
        more: vec![
            ("revision", restored.revision.into()),
            ("backup_cluster_id", backup.cluster.as_str().into()),
            ("backup_revision", backup.revision.into()),
            ("backup_made_at_ms", backup.made_at_ms.into()),
            ("admins", restored.admins.iter().map(ToString::to_string).collect()),
            ("unreadable", json!(restored.unreadable)),
        ],
    }
}

fn not_restored(error: &RestoreError) -> Failure {
    let next = match error {
        RestoreError::File { .. } => {
            "take another backup with --from, or the right key with --key-file; nothing was written"
        }
        RestoreError::Member(MakeError::Used(_)) => "name a new directory with --data-dir DIR",
        RestoreError::Member(_) | RestoreError::Directory { .. } | RestoreError::Store(_) => {
            "make room or correct the permissions, then run it again"
        }
        RestoreError::State(_) | RestoreError::Refound(_) => {
            "restore it with the gantry that wrote it, or take another backup"
        }
        RestoreError::Interrupted => "run it again",
    };
    Failure::error(format!("the cluster is not restored: {}", chain(error)), next)
}
