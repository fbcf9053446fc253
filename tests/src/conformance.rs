//! The official MCP conformance suite, run against a URL, and two such runs compared check by check.
//!
//! The suite cannot present a key and its names are fixed, so the endpoint under test must be open and
//! must not rename anything. What a server is measured by is the same server reached directly.

mod exceptions;
mod gateway;
mod report;

use std::path::Path;
use std::time::Duration;

pub use gateway::{CompareError, Comparison, Setting, Way, run};
pub use report::{Check, CheckName, Difference, Report, ReportError, Status, compare};

use crate::fixture::Era;
use crate::peers::{InstallError, MayBeMissing, Node};
use crate::process::{self, ProcessError};

/// The time one suite may take; the longest takes 10 s against a server that answers at once, and
/// scenarios that fail wait for their own timeouts.
const SUITE_TIME_MAX: Duration = Duration::from_secs(300);

/// One version of the suite with one choice of scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Version 0.1.16, all scenarios.
    Released,
    /// Version 0.2.0-alpha.12, what revision 2025-11-25 requires.
    Requirements20251125,
    /// Version 0.2.0-alpha.12, what revision 2026-07-28 requires, and its extensions.
    Requirements20260728,
}

/// Why a suite gave no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The suite could not be installed.
    #[error("the conformance suite is not installed")]
    Install(#[from] InstallError),
    /// The suite did not run.
    #[error("the conformance suite did not run to its end")]
    Process(#[from] ProcessError),
    /// Its results cannot be read.
    #[error("the conformance suite left no valid results\n{output}")]
    Report {
        /// What it printed.
        output: String,
        /// What is wrong with its results.
        #[source]
        source: ReportError,
    },
}

impl MayBeMissing for RunError {
    fn missing(&self) -> Option<&str> {
        match self {
            Self::Install(error) => error.missing(),
            Self::Process(_) | Self::Report { .. } => None,
        }
    }
}

impl Suite {
    /// All suites, the quickest first.
    pub const ALL: [Self; 3] = [Self::Released, Self::Requirements20251125, Self::Requirements20260728];

    /// A name for people and folders.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Released => "0.1.16-all",
            Self::Requirements20251125 => "0.2.0-alpha.12-2025-11-25",
            Self::Requirements20260728 => "0.2.0-alpha.12-2026-07-28",
        }
    }

    /// How many checks the fixture server passes when it is reached directly; it fails none.
    #[must_use]
    pub fn fixture_passed(self) -> usize {
        match self {
            Self::Released => 46,
            Self::Requirements20251125 => 83,
            Self::Requirements20260728 => 197,
        }
    }

    /// Whether a server of an era speaks what the suite speaks.
    #[must_use]
    pub fn is_spoken_by(self, era: Era) -> bool {
        match self {
            Self::Released | Self::Requirements20251125 => era != Era::Modern,
            Self::Requirements20260728 => era != Era::Legacy,
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::Released => "node_modules/conformance-0.1/dist/index.js",
            Self::Requirements20251125 | Self::Requirements20260728 => {
                "node_modules/conformance-0.2/dist/index.js"
            }
        }
    }

    fn selection(self) -> [&'static str; 2] {
        match self {
            Self::Released => ["--suite", "all"],
            Self::Requirements20251125 => ["--requirements", "2025-11-25"],
            Self::Requirements20260728 => ["--requirements", "2026-07-28"],
        }
    }

    /// Runs the suite against a URL; its results stay below `folder`, which should be empty.
    ///
    /// # Errors
    /// When it cannot be installed or run. Failing checks are no error here: they are in the report.
    pub async fn run(self, url: &str, folder: &Path) -> Result<Report, RunError> {
        let node = Node::install().await?;
        let mut command = node.command(self.script());
        command.args(["server", "--url", url]).args(self.selection()).arg("-o").arg(folder);
        let finished = process::run(command, SUITE_TIME_MAX).await?;
        Report::read(folder)
            .map_err(|source| RunError::Report { output: finished.stdout + &finished.stderr, source })
    }
}
