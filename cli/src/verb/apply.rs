//! `gantry apply`: one file set, one change.

use crate::admin::Admin;
use crate::change::{self, Changed, Purpose, WriteFlags};
use crate::documents::{DocumentSet, FileFlag};
use crate::failure::{Exit, Failure};

/// Apply documents as one change: all of them, or nothing when one has a problem.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    file: FileFlag,
    #[command(flatten)]
    write: WriteFlags,
}

impl Apply {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let set = DocumentSet::read(&self.file)?;
        let admin = Admin::connect(&self.write.access.resolve()?).await?;
        let answer = change::submit(&admin, &set, Purpose::Apply, self.write.expect).await?;
        let results = answer.results.iter().map(Changed::from).collect();
        change::report(&admin, answer.revision, results, &self.write.report).await
    }
}
