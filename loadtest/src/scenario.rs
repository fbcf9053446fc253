//! What every scenario is told, and how it ends.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    driver::{call::EndpointError, connection::CallError},
    target::TargetError,
    upstream::child::ChildError,
};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often everything is measured.
    pub round_count: u32,
    /// How long each measurement takes.
    pub measured: Duration,
    /// Gantry's program.
    pub gantry: PathBuf,
    /// Streams to open, for the scenario that does.
    pub stream_count: usize,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The files of the run.
    #[error("the files of the run cannot be written")]
    Files(#[source] io::Error),
    /// An upstream.
    #[error("an upstream does not work")]
    Upstream(#[from] ChildError),
    /// Gantry.
    #[error("Gantry does not work")]
    Gantry(#[from] TargetError),
    /// Where calls go.
    #[error("an endpoint cannot be used")]
    Endpoint(#[from] EndpointError),
    /// Calls that have to work before anything is measured.
    #[error("calls do not work")]
    Call(#[from] CallError),
    /// A process that is measured has gone.
    #[error("a measured process has ended during the run")]
    Usage(#[source] io::Error),
    /// What was waited for did not come about.
    #[error("waited in vain for {what}")]
    Waited {
        /// What.
        what: &'static str,
    },
    /// Someone stopped it.
    #[error("interrupted")]
    Interrupted,
}
