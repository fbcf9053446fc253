//! Scenario `control`: the figures of the control plane, in one report of parts that can run singly.
//!
//! What always holds: the control plane under test is processes of its own, on the machine's disk, and every part starts
//! with a new one; nothing is pinned, so members, nodes and load share all cores; a part that was not run has no figures
//! and no bars.

mod admin;
mod boot;
mod cluster;
mod disk;
mod fleet;
mod node;
mod push;
mod revoke;
mod subscriber;
mod tenants;
mod writes;

use std::{io, path::Path, time::Duration};

use serde_json::json;

use crate::{
    bars::Bar,
    driver::{call::EndpointError, connection::CallError},
    pinning::find_program,
    process::ProcessError,
    report::{Report, Row},
    upstream::child::ChildError,
};

/// Failures that are shown; they often have one cause.
const FAILURE_SHOWN_MAX: usize = 6;
/// Open files that a node takes here, and as many in a member.
const FILES_PER_NODE: usize = 2;
/// Files besides.
const FILES_SPARE: usize = 1_000;
/// How the control plane runs.
const CLUSTER: &str = "three members, each a process (`gantry control-plane run`), with TLS on every link";

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these; empty: all.
    pub parts: Vec<Part>,
    /// How often everything is measured that is measured several times.
    pub round_count: u32,
    /// How long a measurement of writes takes.
    pub measured: Duration,
    /// How long changes are held at their rate.
    pub held: Duration,
    /// How many nodes subscribe.
    pub node_count: usize,
    /// Whether it is to end soon.
    pub is_quick: bool,
    /// Gantry's program.
    pub gantry: std::path::PathBuf,
}

/// A part of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Durable writes.
    Writes,
    /// Changes on many nodes.
    Push,
    /// Many tenants.
    Tenants,
    /// A node without a control plane.
    Boot,
    /// Revocations.
    Revoke,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Files of the run, or what the system says of a process.
    #[error("the machine does not do what the run needs")]
    Machine(#[from] io::Error),
    /// A process.
    #[error("a process does not work")]
    Process(#[from] ProcessError),
    /// A process said something else than that it is ready.
    #[error("{0} did not say where it serves")]
    Line(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] gantry_node::tls::TlsError),
    /// The authority of the cluster cannot be believed.
    #[error("the authority of the cluster cannot be used")]
    Trust(#[from] gantry_node::tls::TrustError),
    /// A node did not get its certificate.
    #[error("a node does not join")]
    Join(#[from] gantry_node::membership::JoinError),
    /// A member cannot be reached.
    #[error("a member cannot be reached")]
    Reach(#[from] tonic::transport::Error),
    /// A member did not do it.
    #[error("a member answered: {}", .0.message())]
    Status(#[source] Box<tonic::Status>),
    /// A change was refused.
    #[error("a change was refused: {0}")]
    Refused(String),
    /// A token.
    #[error("a token cannot stand in a header")]
    Token,
    /// A node's key.
    #[error("a node has no key")]
    Seal(#[source] gantry_node::seal::SealError),
    /// The server behind a node.
    #[error("an upstream does not work")]
    Upstream(#[from] ChildError),
    /// Where calls go.
    #[error("an endpoint cannot be used")]
    Endpoint(#[from] EndpointError),
    /// A call that has to work.
    #[error("a call does not work")]
    Call(#[from] CallError),
    /// The other side closed the stream.
    #[error("the stream was closed")]
    Closed,
    /// What was waited for did not come about.
    #[error("waited in vain for {what}")]
    Waited {
        /// What.
        what: &'static str,
    },
    /// Someone stopped it, or a task of its own died.
    #[error("interrupted")]
    Interrupted,
}

impl From<tonic::Status> for ControlError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Part {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 5] = [Self::Writes, Self::Push, Self::Tenants, Self::Boot, Self::Revoke];

    /// As it is called on the command line and in the names of its figures.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Push => "push",
            Self::Tenants => "tenants",
            Self::Boot => "boot",
            Self::Revoke => "revoke",
        }
    }

    fn rows(self) -> &'static [Row] {
        match self {
            Self::Writes => writes::ROWS,
            Self::Push => push::ROWS,
            Self::Tenants => tenants::ROWS,
            Self::Boot => boot::ROWS,
            Self::Revoke => revoke::ROWS,
        }
    }

    fn bars(self) -> &'static [Bar] {
        match self {
            Self::Writes => writes::BARS,
            Self::Push => push::BARS,
            Self::Tenants => tenants::BARS,
            Self::Boot => boot::BARS,
            Self::Revoke => revoke::BARS,
        }
    }

    async fn run(self, options: &Options, folder: &Path, report: &mut Report) -> Result<(), ControlError> {
        match self {
            Self::Writes => writes::run(options, folder, report).await,
            Self::Push => push::run(options, folder, report).await,
            Self::Tenants => tenants::run(options, folder, report).await,
            Self::Boot => boot::run(options, folder, report).await,
            Self::Revoke => revoke::run(options, folder, report).await,
        }
    }
}

/// Runs the parts, one after the other, and ends every process that they started.
///
/// # Errors
/// When something does not work, or `interrupted` comes true.
pub async fn run(options: &Options, interrupted: impl Future<Output = ()>) -> Result<Report, ControlError> {
    raise_file_limit(options.node_count * FILES_PER_NODE + FILES_SPARE).await;
    let parts: Vec<Part> = Part::ALL
        .into_iter()
        .filter(|part| options.parts.is_empty() || options.parts.contains(part))
        .collect();
    let mut report = Report::new("control", false, &[]);
    report.cores = "members, nodes and load share all of them";
    report.run = format!(
        "{CLUSTER}; {} rounds; writes for {:.1} s each; {} subscribed nodes, changes held for {:.0} s",
        options.round_count,
        options.measured.as_secs_f64(),
        options.node_count,
        options.held.as_secs_f64()
    );
    report.facts = vec![
        ("round_count", json!(options.round_count)),
        ("node_count", json!(options.node_count)),
        ("measured_s", json!(options.measured.as_secs_f64())),
        ("held_s", json!(options.held.as_secs_f64())),
        ("parts", json!(parts.iter().map(|part| part.key()).collect::<Vec<_>>().join(" "))),
    ];
    let measured = async {
        for part in &parts {
            let folder = tempfile::tempdir()?;
            part.run(options, folder.path(), &mut report).await?;
            report.rows.extend(part.rows());
        }
        Ok(())
    };
    tokio::select! {
        measured = measured => measured,
        () = interrupted => Err(ControlError::Interrupted),
    }?;
    report.failures.truncate(FAILURE_SHOWN_MAX);
    let bars: Vec<Bar> = parts.iter().flat_map(|part| part.bars()).copied().collect();
    report.judge(&bars);
    Ok(report)
}

/// Raises the limit of open files for this process and those that it starts. By a program, because doing it here
/// would need unsafe code; where it is refused, nodes do not connect and the report says so.
async fn raise_file_limit(count: usize) {
    let Some(program) = find_program("prlimit") else { return };
    let limit = format!("--nofile={count}:{count}");
    let own = std::process::id().to_string();
    let _ = tokio::process::Command::new(program).args(["--pid", &own, &limit]).status().await;
}
