//! One suite after the other: the fixture server reached directly, then one like it through a gateway.
//!
//! Where the server behind the gateway does not speak what the suite speaks, the direct run is against a fixture that
//! does: the same tools, so that every difference is the bridge's.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::exceptions::{self, Exception};
use super::{Difference, Report, RunError, Status, Suite, compare};
use crate::cluster::Cluster;
use crate::dev::{Dev, DevError, Options};
use crate::fixture::{self, Era};
use crate::peers::MayBeMissing;

/// What stands between the suite and the server.
#[derive(Debug, Clone)]
pub enum Way {
    /// Nothing.
    Direct,
    /// A gateway of one node.
    Gateway(Options),
    /// Three nodes behind a balancer that sends every request to another one.
    Balanced(Options),
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Setting {
    /// What the server behind speaks.
    pub upstream: Era,
    /// What stands before it.
    pub way: Way,
}

/// What one suite found on both ways.
#[derive(Debug)]
pub struct Comparison {
    /// The suite.
    pub suite: Suite,
    /// What the server behind the gateway speaks.
    pub upstream: Era,
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

    /// What got worse, and is not known to be impossible on the wire.
    #[must_use]
    pub fn regressions(&self) -> Vec<Difference> {
        let mut regressions = self.differences();
        regressions.retain(|one| one.is_regression && self.exception(one).is_none());
        regressions
    }

    /// Whether the fixture did what it is known to do, and the gateway made nothing worse that can be done.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let passed = self.direct.count(Status::Success);
        let failed = self.direct.count(Status::Failure);
        let direct_is_good = failed == 0 && passed == self.suite.fixture_passed();
        direct_is_good && self.regressions().is_empty()
    }

    fn exception(&self, difference: &Difference) -> Option<&'static Exception> {
        exceptions::find(self.suite, self.upstream, &difference.name)
    }
}

/// Runs a suite against a fixture server of its own, and if there is one, through a gateway.
///
/// Each run has a server of its own, so that no run sees what another one changed. The results stay in
/// `folder/direct` and `folder/gateway`; what was there before is removed.
///
/// # Errors
/// When something did not start, or the suite did not run. Failing checks are no error here.
pub async fn run(suite: Suite, folder: &Path, setting: &Setting) -> Result<Comparison, CompareError> {
    let run_error = |source| CompareError::Run { suite, source };
    let upstream = setting.upstream;
    let native = if suite.is_spoken_by(upstream) { upstream } else { Era::Dual };
    let server = fixture::Server::start_as(native, 0).await?;
    let results = empty(&folder.join("direct").join(suite.name()))?;
    let direct = suite.run(&server.url(), &results).await.map_err(run_error)?;
    server.stop().await;
    let options = match &setting.way {
        Way::Direct => return Ok(Comparison { suite, upstream, direct, gateway: None }),
        Way::Gateway(options) | Way::Balanced(options) => options,
    };

    let server = fixture::Server::start_as(upstream, 0).await?;
    let results = empty(&folder.join("gateway").join(suite.name()))?;
    let servers = vec![("fixture".to_owned(), server.url())];
    let options = Options { servers, anonymous: true, ..options.clone() };
    let through = match &setting.way {
        Way::Balanced(_) => {
            let cluster = Cluster::start(options).await;
            suite.run(&cluster.url(), &results).await.map_err(run_error)?
        }
        Way::Direct | Way::Gateway(_) => {
            let dev = Dev::start(&options).await?;
            let through = suite.run(&dev.ready().endpoint, &results).await.map_err(run_error)?;
            dev.kill().await?;
            through
        }
    };
    server.stop().await;
    Ok(Comparison { suite, upstream, direct, gateway: Some(through) })
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
            match self.exception(&difference) {
                Some(exception) => {
                    writeln!(formatter, "  known: {difference}\n    because {}", exception.reason)?
                }
                None => writeln!(formatter, "  {difference}")?,
            }
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
