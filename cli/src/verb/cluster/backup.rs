//! `gantry cluster backup-key` and `gantry cluster backup`: the whole cluster in one sealed file.
//!
//! Always holds: a file gets its name when it is whole and durable, can be read by its owner only, and replaces none.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gantry_control_plane::{BackupFacts, BackupKey, BackupRecipient, check_backup};
use gantry_node::owner_only;
use gantry_wire::admin_v1::BackupRequest;
use serde_json::json;

use crate::admin::{Admin, refused};
use crate::context::Access;
use crate::failure::{Exit, Failure, chain};
use crate::output::{self, TextFormat};

/// `gantry cluster backup-key`.
#[derive(Debug, clap::Args)]
pub(crate) struct MakeKey {
    /// Where the key goes that opens backups. Keep it apart from them and from the cluster: without it none opens.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// `gantry cluster backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// Where the backup goes; a new file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Whose key opens it, as `gantry cluster backup-key` printed it.
    #[arg(long, value_name = "gantry-backup-1...", value_parser = parse_recipient)]
    recipient: BackupRecipient,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
    #[command(flatten)]
    access: Access,
}

fn parse_recipient(text: &str) -> Result<BackupRecipient, String> {
    text.parse::<BackupRecipient>().map_err(|error| error.to_string())
}

impl MakeKey {
    /// Runs the command. The recipient is the only line on standard output.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let key = BackupKey::generate().map_err(|error| {
            Failure::error(chain(&error), "the system gives no random numbers; try again")
        })?;
        let line = format!("{}\n", key.to_text().expose());
        owner_only::make(&self.out, line.as_bytes()).map_err(|error| unwritable(&self.out, &error))?;
        output::print(&format!("{}\n", key.recipient()))?;
        output::say("next: gantry cluster backup --recipient with this line, --out FILE");
        Ok(Exit::Done)
    }
}

impl Backup {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        if self.out.exists() {
            return Err(unwritable(&self.out, &io::ErrorKind::AlreadyExists.into()));
        }
        let admin = Admin::connect(&self.access.resolve()?).await?;
        let beside = beside(&self.out);
        let received = self.receive(&admin, &beside).await;
        let (facts, bytes) = match received {
            Ok(received) => received,
            Err(failure) => {
                // The first failure is the one to tell.
                let _ = std::fs::remove_file(&beside);
                return Err(failure);
            }
        };
        output::print(&match self.output {
            TextFormat::Text => {
                let BackupFacts { cluster, revision, .. } = facts;
                format!(
                    "Cluster {cluster} as of revision {revision}: {bytes} bytes in {}\n",
                    self.out.display()
                )
            }
            TextFormat::Json => {
                let line = json!({
                    "file": self.out,
                    "bytes": bytes,
                    "cluster_id": facts.cluster,
                    "revision": facts.revision,
                    "recipient": facts.recipient,
                });
                format!("{line}\n")
            }
        })?;
        Ok(Exit::Done)
    }

    async fn receive(&self, admin: &Admin, beside: &Path) -> Result<(BackupFacts, u64), Failure> {
        let next = "`gantry cluster status` shows the members; ask another with `--admin HOST:PORT`";
        let request = BackupRequest { recipient: self.recipient.to_string() };
        let mut parts = admin.ask(admin.service().backup(request), next).await?;
        let failed = |error: io::Error| unwritable(beside, &error);
        let mut file = owner_only::create(beside).map_err(failed)?;
        let mut bytes = 0;
        while let Some(part) = parts.message().await.map_err(|status| refused(&status, next))? {
            file.write_all(&part.bytes).map_err(failed)?;
            bytes += part.bytes.len() as u64;
        }
        file.sync_all().map_err(failed)?;
        let facts = check_backup(beside).map_err(|error| {
            let said = format!("the backup did not come to its end: {}", chain(&error));
            Failure::new(Exit::Unavailable, said, next)
        })?;
        // Another backup of this name would have stumbled over the file beside it.
        std::fs::rename(beside, &self.out).map_err(|error| unwritable(&self.out, &error))?;
        owner_only::sync_directory_of(&self.out).map_err(failed)?;
        Ok((facts, bytes))
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::error(
        format!("{} cannot be written: {error}", path.display()),
        "name a new file with `--out FILE`",
    )
}
