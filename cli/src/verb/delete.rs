//! `gantry delete`: by kind and name, or what a file set names; one change, with `--rollout` on some nodes first.

use gantry_model::resource::Kind;
use gantry_wire::admin_v1::{BeginRolloutRequest, DeleteRequest, Problem};
use gantry_wire::resource_v1::ResourceId;

use super::get::{KindOrAll, parse_kind};
use super::rollout::{StageFlags, begun};
use crate::admin::Admin;
use crate::change::{self, Changed, WriteFlags, title};
use crate::context::AdminAccess;
use crate::documents::{DocumentSet, OptionalFileFlag, problem_line};
use crate::failure::{Exit, Failure};
use crate::output;

/// What helps where something is not deleted.
const NEXT: &str = "`gantry get all` shows what is stored";

/// Delete a resource, or every resource that a file set names, as one change.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Tenant, Server, Endpoint, Agent, Policy, Limit or Credential.
    #[arg(value_parser = parse_kind, requires = "name", required_unless_present = "file", conflicts_with = "file")]
    kind: Option<KindOrAll>,
    /// Its name.
    name: Option<String>,
    /// Its tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    tenant: Option<String>,
    #[command(flatten)]
    file: OptionalFileFlag,
    #[command(flatten)]
    stages: StageFlags,
    #[command(flatten)]
    write: WriteFlags,
}

impl Delete {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let set = match self.file.as_required() {
            Some(flag) => Some(DocumentSet::read(&flag)?),
            None => None,
        };
        let access = self.write.access.resolve()?;
        let ids = match &set {
            Some(set) => set.ids(),
            None => vec![self.id(&access)?],
        };
        let admin = Admin::connect(&access).await?;
        let expected_revision = self.write.expect;
        if self.stages.is_asked() {
            let deletes = ids.clone();
            let change = BeginRolloutRequest { deletes, expected_revision, ..BeginRolloutRequest::default() };
            let answer = self.stages.begin(&admin, change, NEXT).await?;
            return match answer.problems.is_empty() {
                true => begun(&admin, &answer, &self.write.report).await,
                false => Err(not_deleted(set.as_ref(), &ids, &answer.problems)),
            };
        }
        let request = DeleteRequest { ids: ids.clone(), expected_revision };
        let answer = admin.ask(admin.service().delete(request), NEXT).await?;
        for warning in &answer.warnings {
            output::warn(&output::visible(warning));
        }
        if !answer.problems.is_empty() {
            return Err(not_deleted(set.as_ref(), &ids, &answer.problems));
        }
        let results = answer.results.iter().map(Changed::from).collect();
        change::report(&admin, answer.revision, results, &self.write.report).await
    }

    fn id(&self, access: &AdminAccess) -> Result<ResourceId, Failure> {
        let (Some(KindOrAll::One(kind)), Some(name)) = (self.kind, self.name.clone()) else {
            return Err(Failure::usage("a kind and a name are needed", "`gantry delete KIND NAME`"));
        };
        let tenant = match kind {
            Kind::Tenant => name.clone(),
            Kind::Server
            | Kind::Endpoint
            | Kind::Agent
            | Kind::Policy
            | Kind::Limit
            | Kind::Credential
            | Kind::Provider => access.tenant_or(self.tenant.as_deref())?,
        };
        Ok(ResourceId { kind: kind.to_string(), tenant, name })
    }
}

/// A file set says where each problem stands; a name that was typed is its own place.
fn not_deleted(set: Option<&DocumentSet>, ids: &[ResourceId], problems: &[Problem]) -> Failure {
    if let Some(set) = set {
        return set.not_deleted(problems);
    }
    let label = ids.first().map(|id| title(&id.kind, &id.tenant, &id.name)).unwrap_or_default();
    let lines = problems.iter().map(|problem| problem_line(&label, problem)).collect();
    Failure::error("nothing was deleted", NEXT).with_details(lines)
}
