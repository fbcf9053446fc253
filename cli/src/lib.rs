//! The one binary `gantry`, as a library: `gantry dev`, the production roles, and every admin verb.
//!
//! Always holds: data goes to standard output and talk to standard error; a command ends with 0 (done), 1 (error),
//! 2 (usage), 3 (differs), 4 (denied) or 5 (unavailable); every error names what to do next; a secret is read from a
//! file or standard input, never from the command line. Admin verbs speak gRPC; only `tool call` and `connect` speak
//! MCP, because only the endpoint runs the whole pipeline.

mod address;
mod admin;
mod change;
mod context;
mod demo;
mod dev;
mod documents;
mod duration;
mod failure;
mod mcp;
mod moment;
mod name;
mod node;
mod output;
mod peer_files;
mod record;
mod signals;
mod verb;
mod waiting;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use dev::Dev;
use failure::{Exit, Failure};
use output::Paint;
use verb::admin::Admin;
use verb::apply::Apply;
use verb::approval::Approval;
use verb::audit::Audit;
use verb::catalog::Catalog;
use verb::cluster::Cluster;
use verb::connect::Connect;
use verb::context::Context;
use verb::control_plane::ControlPlane;
use verb::credential::Credential;
use verb::data_plane::DataPlane;
use verb::delete::Delete;
use verb::diff::Diff;
use verb::get::Get;
use verb::key::Key;
use verb::login::Login;
use verb::node::Node;
use verb::policy::Policy;
use verb::revoke::Revoke;
use verb::rollout::Rollout;
use verb::status::Status;
use verb::tool::Tool;

/// How long threads that are left behind may hold up the end of the process, such as one that waits for a disk.
const THREADS_TIMEOUT: Duration = Duration::from_secs(2);

/// Gantry governs what AI agents do through MCP: identified, authorised, checked, metered, recorded.
#[derive(Debug, Parser)]
#[command(name = "gantry", version)]
#[command(after_help = "Exit codes: 0 done, 1 error, 2 usage, 3 differs, 4 denied, 5 unavailable")]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Dev(Box<Dev>),
    Apply(Apply),
    Diff(Diff),
    Get(Get),
    Delete(Delete),
    #[command(subcommand)]
    Rollout(Rollout),
    #[command(subcommand)]
    Tool(Tool),
    #[command(subcommand)]
    Catalog(Catalog),
    #[command(subcommand)]
    Approval(Approval),
    #[command(subcommand)]
    Key(Key),
    #[command(subcommand)]
    Admin(Admin),
    Login(Login),
    #[command(subcommand)]
    Context(Context),
    #[command(subcommand)]
    Revoke(Revoke),
    #[command(subcommand)]
    Policy(Policy),
    #[command(subcommand)]
    Credential(Credential),
    #[command(subcommand)]
    Audit(Audit),
    Connect(Connect),
    Status(Status),
    #[command(subcommand)]
    Node(Node),
    #[command(subcommand)]
    Cluster(Cluster),
    #[command(subcommand)]
    ControlPlane(ControlPlane),
    #[command(subcommand)]
    DataPlane(DataPlane),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    gantry_node::telemetry::log_to_stderr();
    gantry_node::tls::install_provider();
    let exit = run(line.verb).unwrap_or_else(|failure| {
        eprint!("{}", failure.render(Paint::stderr()));
        failure.exit()
    });
    exit.into()
}

fn run(verb: Verb) -> Result<Exit, Failure> {
    // Planes share the processors; a verb has one call to wait for.
    let mut builder = match &verb {
        Verb::Dev(_) | Verb::ControlPlane(_) | Verb::DataPlane(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(|error| {
        let next = "check the limits of this process (`ulimit -a`)";
        Failure::error(format!("the process cannot start: {error}"), next)
    })?;
    let exit = runtime.block_on(async {
        match verb {
            Verb::Dev(verb) => verb.run().await,
            Verb::Apply(verb) => verb.run().await,
            Verb::Diff(verb) => verb.run().await,
            Verb::Get(verb) => verb.run().await,
            Verb::Delete(verb) => verb.run().await,
            Verb::Rollout(verb) => verb.run().await,
            Verb::Tool(verb) => verb.run().await,
            Verb::Catalog(verb) => verb.run().await,
            Verb::Approval(verb) => verb.run().await,
            Verb::Key(verb) => verb.run().await,
            Verb::Admin(verb) => verb.run().await,
            Verb::Login(verb) => verb.run().await,
            Verb::Context(verb) => verb.run().await,
            Verb::Revoke(verb) => verb.run().await,
            Verb::Policy(verb) => verb.run().await,
            Verb::Credential(verb) => verb.run().await,
            Verb::Audit(verb) => verb.run().await,
            Verb::Connect(verb) => verb.run().await,
            Verb::Status(verb) => verb.run().await,
            Verb::Node(verb) => verb.run().await,
            Verb::Cluster(verb) => verb.run().await,
            Verb::ControlPlane(verb) => verb.run().await,
            Verb::DataPlane(verb) => verb.run().await,
        }
    });
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    exit
}
