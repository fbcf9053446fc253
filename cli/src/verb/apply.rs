//! `gantry apply`: one file set, one change; with `--rollout`, on some nodes first.

use gantry_wire::admin_v1::BeginRolloutRequest;

use super::rollout::{StageFlags, begun};
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
    stages: StageFlags,
    #[command(flatten)]
    write: WriteFlags,
}

impl Apply {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let set = DocumentSet::read(&self.file)?;
        let admin = Admin::connect(&self.write.access.resolve()?).await?;
        if self.stages.is_asked() {
            return self.roll_out(&admin, &set).await;
        }
        let answer = change::submit(&admin, &set, Purpose::Apply, self.write.expect).await?;
        let results = answer.results.iter().map(Changed::from).collect();
        change::report(&admin, answer.revision, results, &self.write.report).await
    }

    async fn roll_out(&self, admin: &Admin, set: &DocumentSet) -> Result<Exit, Failure> {
        let (resources, expected_revision) = (set.to_wire(), self.write.expect);
        let change = BeginRolloutRequest { resources, expected_revision, ..BeginRolloutRequest::default() };
        let next = format!("`gantry diff {}`, then `gantry apply --rollout` again", set.flags());
        let answer = self.stages.begin(admin, change, &next).await?;
        if answer.problems.is_empty() {
            begun(admin, &answer, &self.write.report).await
        } else {
            Err(set.not_applied(&answer.problems))
        }
    }
}
