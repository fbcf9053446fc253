//! `gantry context`: how a cluster is reached when no flag says it.

use gantry_wire::admin_v1::WhoAmIRequest;

use crate::admin::Admin;
use crate::context::Access;
use crate::failure::{Exit, Failure};
use crate::output;

/// Keep the flags by which a cluster is reached.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Context {
    /// Keep the flags of this command in .gantry/context.json, or in the file of --context, once they have proved good.
    Set(Box<Set>),
}

/// `gantry context set`.
#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The tenant that is meant when none is named.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl Context {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let Context::Set(set) = self;
        let admin = Admin::connect(&set.access.given()?).await?;
        let own = admin.ask(admin.service().who_am_i(WhoAmIRequest {}), "`gantry status`").await?;
        let path = set.access.keep(set.tenant)?;
        output::say(&format!("{} is the context of {}: {}", path.display(), own.name, own.roles.join(", ")));
        Ok(Exit::Done)
    }
}
