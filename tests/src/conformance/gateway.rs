//! One suite after the other: the fixture server reached directly, then the same one through a gateway.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{Difference, Report, RunError, Status, Suite, compare};
use crate::dev::{Dev, DevError, Options};
use crate::fixture;
use crate::peers::MayBeMissing;

/// What one suite found on both ways.
#[derive(Debug)]
pub struct Comparison {
    /// The suite.
    pub suite: Suite,
    /// The server reached directly.
    pub direct: Report,
    /// The same server through the gateway; `None` when there was none.
    pub gateway: Option<Report>,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A folder for results cannot be emptied.
    #[error("cannot prepare {}", path.display())]
    Prepare {
        /// The folder.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The fixture server did not start.
    #[error("the fixture server did not start")]
    Fixture(#[from] fixture::StartError),
    /// The gateway did not start or end.
    #[error("the gateway failed")]
    Gateway(#[from] DevError),
    /// The suite gave no report.
    #[error("{} gave no report", suite.name())]
    Run {
        /// The suite.
        suite: Suite,
        /// What went wrong.
        #[source]
        source: RunError,
    },
}

impl MayBeMissing for CompareError {
    fn missing(&self) -> Option<&str> {
        match self {
            Self::Run { source, .. } => source.missing(),
            Self::Prepare { .. } | Self::Fixture(_) | Self::Gateway(_) => None,
        }
    }
}

impl Comparison {
    /// Everything that came out differently; empty without a gateway.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        match &self.gateway {
            Some(gateway) => compare(&self.direct, gateway),
            None => Vec::new(),
        }
    }

    /// Whether the fixture did what it is known to do, and the gateway made nothing worse.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let passed = self.direct.count(Status::Success);
        let failed = self.direct.count(Status::Failure);
        let direct_is_good = failed == 0 && passed == self.suite.fixture_passed();
        direct_is_good && !self.differences().iter().any(|one| one.is_regression)
    }
}

/// Runs a suite against a fixture server of its own, and if there are options for one, through a gateway.
///
/// Each run has a server of its own, so that no run sees what another one changed. The results stay in
/// `folder/direct` and `folder/gateway`; what was there before is removed.
///
/// # Errors
/// When something did not start, or the suite did not run. Failing checks are no error here.
pub async fn run(suite: Suite, folder: &Path, gateway: Option<&Options>) -> Result<Comparison, CompareError> {
    let run_error = |source| CompareError::Run { suite, source };
    let server = fixture::Server::start(0).await?;
    let results = empty(&folder.join("direct").join(suite.name()))?;
    let direct = suite.run(&server.url(), &results).await.map_err(run_error)?;
    server.stop().await;
    let Some(options) = gateway else {
        return Ok(Comparison { suite, direct, gateway: None });
    };

    let server = fixture::Server::start(0).await?;
    let results = empty(&folder.join("gateway").join(suite.name()))?;
    let dev = Dev::start(&Options {
        servers: vec![("fixture".to_owned(), server.url())],
        anonymous: true,
        ..options.clone()
    })
    .await?;
    let through = suite.run(&dev.ready().endpoint, &results).await.map_err(run_error)?;
    dev.kill().await?;
    server.stop().await;
    Ok(Comparison { suite, direct, gateway: Some(through) })
}

fn empty(folder: &Path) -> Result<PathBuf, CompareError> {
    let prepare = || {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)
    };
    prepare()
        .map(|()| folder.to_owned())
        .map_err(|source| CompareError::Prepare { path: folder.to_owned(), source })
}

impl fmt::Display for Comparison {
    /// A table of both runs, then what the server did not pass, then every difference.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = self.suite.fixture_passed();
        writeln!(formatter, "{}", self.suite.name())?;
        writeln!(formatter, "  direct   {} (expected {expected} passed)", counts(&self.direct))?;
        for (name, check) in self.direct.failures() {
            let message = check.message.as_deref().unwrap_or_default();
            writeln!(formatter, "  FAILED {name}: {message}")?;
        }
        if let Some(gateway) = &self.gateway {
            writeln!(formatter, "  gateway  {}", counts(gateway))?;
        }
        for difference in self.differences() {
            writeln!(formatter, "  {difference}")?;
        }
        Ok(())
    }
}

fn counts(report: &Report) -> String {
    format!(
        "{} passed, {} failed, {} warnings, {} skipped",
        report.count(Status::Success),
        report.count(Status::Failure),
        report.count(Status::Warning),
        report.count(Status::Skipped),
    )
}
