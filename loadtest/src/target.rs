//! What is measured: the way to the upstream with nothing, with nginx, or with Gantry between.
//!
//! What always holds: a target counts as running once it has answered a tool call, and lists every
//! tool of the upstream. One that is not installed is absent, one that does not start is broken;
//! the report says so, and neither is passed over in silence.

pub mod gantry;
pub mod nginx;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    causes::on_one_line,
    driver::{
        call::{Endpoint, EndpointError, Era, Proof},
        connection::{CallError, Connection},
    },
    pinning::Pinning,
    process::{Process, ProcessError},
    upstream::catalog,
};

/// Until the first answer of a target that was started.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries; short, because the start is measured too.
const FIRST_ANSWER_PAUSE: Duration = Duration::from_millis(2);

/// Which target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Nothing between.
    Direct,
    /// nginx as a plain reverse proxy.
    Nginx,
    /// Gantry with everything on.
    Gantry,
}

/// A target that answers.
#[derive(Debug)]
pub struct Target {
    /// Which one.
    pub name: Name,
    /// Where it answers.
    pub endpoint: Arc<Endpoint>,
    /// Its process; none for [`Name::Direct`].
    pub process: Option<Process>,
    /// What it says of itself.
    pub version: String,
    /// From the start of its process to its first right answer to a call.
    pub start_to_first_answer: Duration,
    /// Its names of the tools, sorted.
    pub tool_names: Vec<String>,
}

/// A target that cannot be measured.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Which one.
    pub name: Name,
    /// How it is missing.
    pub cause: Cause,
    /// Why, for people.
    pub reason: String,
}

/// How a target is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is not on this machine.
    Absent,
    /// It is here and does not work.
    Broken,
}

/// What a target needs to be started.
#[derive(Clone, Debug)]
pub struct Site {
    /// A folder of this run, gone after it.
    pub folder: PathBuf,
    /// Which core it runs on.
    pub pinning: Pinning,
    /// The URL of the upstream.
    pub upstream_url: String,
    /// How many tools the upstream has.
    pub tool_count: usize,
}

/// Why a target does not answer.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Its process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its endpoint.
    #[error("it has no usable endpoint")]
    Endpoint(#[from] EndpointError),
    /// Its files.
    #[error("its files cannot be written")]
    Files(#[from] std::io::Error),
    /// What it printed at its start.
    #[error("its first line is not the expected JSON object")]
    FirstLine,
    /// A step of its set-up.
    #[error("its set-up failed: {words}")]
    SetUp {
        /// What it said.
        words: String,
    },
    /// No right answer in time.
    #[error("no right answer within {} s", FIRST_ANSWER_TIMEOUT.as_secs())]
    FirstAnswer(#[source] CallError),
    /// It does not list what the upstream offers.
    #[error("it lists {listed_count} of {expected_count} tools")]
    Tools {
        /// Tools listed.
        listed_count: usize,
        /// Tools of the upstream.
        expected_count: usize,
    },
}

impl Name {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Nginx, Self::Gantry];

    /// As it stands in the names of figures and on the command line.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Gantry => "gantry",
        }
    }

    /// As it stands in tables.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Gantry => "Gantry",
        }
    }
}

impl Missing {
    fn absent(name: Name, reason: String) -> Self {
        Self { name, cause: Cause::Absent, reason }
    }

    fn broken(name: Name, error: &TargetError) -> Self {
        Self { name, cause: Cause::Broken, reason: on_one_line(error) }
    }
}

impl Target {
    /// The name under which this target offers a tool of the upstream.
    ///
    /// INVARIANT: `exposed_names` has found every tool, so there always is one.
    #[must_use]
    pub fn exposed_name(&self, tool: &str) -> &str {
        exposed_name(&self.tool_names, tool).unwrap_or_default()
    }
}

/// The upstream itself as a target.
///
/// # Errors
/// When it does not answer.
pub async fn direct(site: &Site) -> Result<Target, TargetError> {
    let endpoint = Endpoint::parse(&site.upstream_url, None)?;
    let (tool_names, start_to_first_answer) =
        first_answer(&endpoint, Instant::now(), site.tool_count).await?;
    Ok(Target {
        name: Name::Direct,
        endpoint: Arc::new(endpoint),
        process: None,
        version: "no proxy".to_owned(),
        start_to_first_answer,
        tool_names,
    })
}

/// Tries until a target lists all tools and answers a call, and says how long after `started`.
async fn first_answer(
    endpoint: &Endpoint,
    started: Instant,
    tool_count: usize,
) -> Result<(Vec<String>, Duration), TargetError> {
    loop {
        let failure = match try_first_answer(endpoint, tool_count).await {
            Ok(names) => return Ok((names, started.elapsed())),
            Err(failure) => failure,
        };
        if started.elapsed() > FIRST_ANSWER_TIMEOUT {
            return Err(failure);
        }
        tokio::time::sleep(FIRST_ANSWER_PAUSE).await;
    }
}

async fn try_first_answer(endpoint: &Endpoint, tool_count: usize) -> Result<Vec<String>, TargetError> {
    let mut connection = Connection::open(endpoint, Era::Legacy).await.map_err(TargetError::FirstAnswer)?;
    let names = connection.tool_names(endpoint, Era::Legacy).await.map_err(TargetError::FirstAnswer)?;
    let expected = catalog::tool_names(tool_count);
    let is_complete =
        names.len() == expected.len() && expected.iter().all(|tool| exposed_name(&names, tool).is_some());
    let Some(small) = exposed_name(&names, catalog::SMALL_TOOL).filter(|_| is_complete) else {
        let (listed_count, expected_count) = (names.len(), expected.len());
        return Err(TargetError::Tools { listed_count, expected_count });
    };
    let proof = Proof::Text { text: catalog::text(catalog::SMALL_TEXT_BYTES), progress_count: 0 };
    let call = endpoint.call_tool(Era::Legacy, small, proof);
    connection.call(&call).await.map_err(TargetError::FirstAnswer)?;
    connection.close().await;
    Ok(names)
}

/// A gateway may set the server's name before the tool's, as in `bench__answer_200b`.
fn exposed_name<'n>(names: &'n [String], tool: &str) -> Option<&'n str> {
    let is_exposed = |name: &&String| {
        let prefix = name.strip_suffix(tool);
        prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with("__"))
    };
    names.iter().find(is_exposed).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_found_bare_or_behind_the_name_of_its_server() {
        let names = ["bench__answer_200b", "tool_0003", "other_tool_0004"].map(str::to_owned);
        assert_eq!(exposed_name(&names, "answer_200b"), Some("bench__answer_200b"));
        assert_eq!(exposed_name(&names, "tool_0003"), Some("tool_0003"));
        assert_eq!(exposed_name(&names, "tool_0004"), None);
    }
}
