//! `gantry apply`: one file set, one change.

use crate::admin::Admin;
use crate::change::{self, Changed, Purpose, WaitFlags};
use crate::context::Access;
use crate::documents::{DocumentSet, FileFlag};
use crate::failure::{Exit, Failure};
use crate::output::TextFormat;

/// Apply documents as one change: all of them, or nothing when one has a problem.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    file: FileFlag,
    #[command(flatten)]
    wait: WaitFlags,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
    #[command(flatten)]
    access: Access,
}

impl Apply {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let set = DocumentSet::read(&self.file)?;
        let admin = Admin::connect(&self.access.resolve()?).await?;
        let answer = change::submit(&admin, &set, Purpose::Apply).await?;
        let results = answer.results.iter().map(Changed::from).collect();
        change::report(&admin, answer.revision, results, &self.wait, self.output).await
    }
}
