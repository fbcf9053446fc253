//! `gantry cluster`: what concerns the cluster as a whole.

mod backup;
mod make;
mod members;
mod restore;
mod token;

use gantry_wire::admin_v1::RotateNodeKeysRequest;

use crate::admin::Admin;
use crate::change::{self, Changed, ReportFlags};
use crate::context::Access;
use crate::failure::{Exit, Failure};

/// Maintain the cluster as a whole.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Cluster {
    /// Found a cluster: make the directory of its first member.
    Init(make::Init),
    /// Join a cluster: make the directory of one more member, with a token of `gantry cluster token`.
    Join(make::Join),
    /// Give all nodes a new key for sessions, cursors and the like; what the key before it sealed opens still.
    RotateKeys(RotateKeys),
    /// Make a token with which one process may join.
    Token(token::Token),
    /// Take the certificates of a node, or of an admin, back: it is cut off, and may join again with a new token.
    Revoke(token::Revoke),
    /// Show the members of the control plane: who leads, who votes, how far each is.
    Status(members::Status),
    /// Make a member that has joined a voter.
    Add(members::Change),
    /// Take a member out of the cluster, for ever: its id is never used again.
    Remove(members::Change),
    /// Let a member that has joined take the place of one that is gone for good, such as for a lost disk.
    Replace(members::Replace),
    /// Let another voter lead; writes wait for a few seconds meanwhile.
    Transfer(members::Change),
    /// Make the key that opens backups, and show whom to make them for.
    BackupKey(backup::MakeKey),
    /// Write the whole cluster into one sealed file, while it runs.
    Backup(backup::Backup),
    /// Make a new cluster of a backup, without the old one.
    Restore(restore::Restore),
}

/// `gantry cluster rotate-keys`.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateKeys {
    /// Rotate also within 24 hours of the last time, which ends sessions that were sealed before that.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    report: ReportFlags,
    #[command(flatten)]
    access: Access,
}

impl Cluster {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Cluster::Init(init) => init.run().await,
            Cluster::Join(join) => join.run().await,
            Cluster::RotateKeys(rotate) => rotate.run().await,
            Cluster::Token(token) => token.run().await,
            Cluster::Revoke(revoke) => revoke.run().await,
            Cluster::Status(status) => status.run().await,
            Cluster::Add(change) => change.run(members::promote).await,
            Cluster::Remove(change) => change.run(members::remove).await,
            Cluster::Replace(replace) => replace.run().await,
            Cluster::Transfer(change) => change.run(members::transfer).await,
            Cluster::BackupKey(make) => make.run(),
            Cluster::Backup(backup) => backup.run().await,
            Cluster::Restore(restore) => restore.run().await,
        }
    }
}

impl RotateKeys {
    async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.access.resolve()?).await?;
        let request = RotateNodeKeysRequest { force: self.force };
        let next =
            "`gantry status` shows the cluster; `gantry cluster rotate-keys --force` when a key has leaked";
        let answer = admin.ask(admin.service().rotate_node_keys(request), next).await?;
        let rotated = Changed {
            kind: "NodeKeys".to_owned(),
            tenant: String::new(),
            name: format!("generation {}", answer.generation),
            change: "rotated",
        };
        change::report(&admin, answer.revision, vec![rotated], &self.report).await
    }
}
