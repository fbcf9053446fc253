//! Applying and deleting resources.
//!
//! Always holds: one request is one command, so all of it happens or nothing; what a dry run answers is what the same
//! request would do to the same state. The state machine has the last word: what changed between check and commit it
//! judges again, policies' texts excepted.

use std::collections::BTreeSet;

use gantry_control_state::{ChangeKind, Command, Outcome, Refusal, State};
use gantry_model::{Kind, Resource, ResourceId, Revision, TenantName};
use gantry_wire::admin_v1::{
    AppliedResource, ApplyRequest, ApplyResponse, Change, DeleteRequest, DeleteResponse, Problem,
};
use gantry_wire::{WireError, resource_v1 as wire};
use tonic::Status;

use super::authorities;
use super::call::Call;
use super::endpoints;
use super::patterns;
use super::policy::{Applied, Judgement, judge};
use super::rejection::{broken_off, problems, unreadable};
use super::rollout;
use crate::feed::View;

/// Most warnings about one change; nobody reads further.
const WARNINGS_MAX: usize = 100;

pub(super) type Results = Vec<(ResourceId, ChangeKind)>;

/// What a command would do.
pub(super) struct Draft {
    pub(super) before: State,
    pub(super) after: State,
    pub(super) results: Results,
}

pub(super) async fn apply(call: &Call, request: ApplyRequest) -> Result<ApplyResponse, Status> {
    if request.resources.is_empty() {
        return Err(Status::invalid_argument("the set has no documents"));
    }
    let refused = |problems: Vec<Problem>| {
        call.note_problems(problems.len());
        ApplyResponse { problems, ..ApplyResponse::default() }
    };
    let resources: Vec<Resource> = match read_all(&request.resources) {
        Ok(resources) => resources,
        Err(problems) => return Ok(refused(problems)),
    };
    let ids: Vec<ResourceId> = resources.iter().map(Resource::id).collect();
    let unseen = ids.iter().filter(|id| id.kind == Kind::Tenant && !call.reach.has(&id.tenant));
    call.may_touch_tenants("make", unseen)?;
    let command = call.guarded(Command::Apply(resources.clone()));
    let mut view = call.view();
    let against = view.revision.0;
    let mut notes = Vec::new();
    if request.dry_run {
        // Also of what a rollout has in its hands; an apply would be told to let it end first.
        notes = rollout::notes(&view.state, &ids);
        view.state = view.state.without_rollouts();
    }
    let draft = match draft(call, view, &command) {
        Ok(draft) => draft,
        Err(refusals) => return Ok(refused(problems(refusals))),
    };
    let changes: Vec<ChangeKind> = draft.results.iter().map(|(_, change)| *change).collect();
    let documents: Vec<Applied> = resources.into_iter().zip(changes).collect();
    let judgement = judged(&draft, documents).await?;
    if !judgement.problems.is_empty() {
        return Ok(refused(judgement.problems));
    }
    let mut warnings = judgement.warnings;
    if request.dry_run {
        warnings.extend(notes);
        let results = draft.results.iter().map(|result| with_before(result, &draft.before)).collect();
        return Ok(ApplyResponse { revision: 0, results, problems: Vec::new(), warnings, against });
    }
    if draft.results.iter().all(|(_, change)| *change == ChangeKind::Unchanged) {
        // Nothing to write; the newest revision has it all.
        let results = draft.results.iter().map(applied).collect();
        return Ok(ApplyResponse { revision: against, results, problems: Vec::new(), warnings, against: 0 });
    }
    let committed = call.propose(command).await?;
    Ok(match committed.outcome {
        Outcome::Done(results) => ApplyResponse {
            revision: committed.revision.0,
            results: results.iter().map(applied).collect(),
            problems: Vec::new(),
            warnings,
            against: 0,
        },
        Outcome::Refused(refusals) => refused(problems(refusals)),
    })
}

pub(super) async fn delete(call: &Call, request: DeleteRequest) -> Result<DeleteResponse, Status> {
    if request.ids.is_empty() {
        return Err(Status::invalid_argument("the request names nothing to delete"));
    }
    let refused = |problems: Vec<Problem>| {
        call.note_problems(problems.len());
        DeleteResponse { problems, ..DeleteResponse::default() }
    };
    let ids: Vec<ResourceId> = match read_all(&request.ids) {
        Ok(ids) => ids,
        Err(problems) => return Ok(refused(problems)),
    };
    call.may_touch_tenants("delete", ids.iter().filter(|id| id.kind == Kind::Tenant))?;
    let command = call.guarded(Command::Delete(ids));
    let draft = match draft(call, call.view(), &command) {
        Ok(draft) => draft,
        Err(refusals) => return Ok(refused(problems(refusals))),
    };
    let warnings = judged(&draft, Vec::new()).await?.warnings;
    let committed = call.propose(command).await?;
    Ok(match committed.outcome {
        Outcome::Done(results) => DeleteResponse {
            revision: committed.revision.0,
            results: results.iter().map(applied).collect(),
            problems: Vec::new(),
            warnings,
        },
        Outcome::Refused(refusals) => refused(problems(refusals)),
    })
}

/// Reads every element, or tells what is wrong with each that cannot be read.
pub(super) fn read_all<'a, Message, Read>(messages: &'a [Message]) -> Result<Vec<Read>, Vec<Problem>>
where
    Read: TryFrom<&'a Message, Error = WireError>,
{
    let mut read = Vec::with_capacity(messages.len());
    let mut problems = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        match Read::try_from(message) {
            Ok(element) => read.push(element),
            Err(error) => problems.push(unreadable(at, &error)),
        }
    }
    if problems.is_empty() { Ok(read) } else { Err(problems) }
}

/// Applies a command to a copy of what its author may see of the state.
pub(super) fn draft(call: &Call, view: View, command: &Command) -> Result<Draft, Vec<Refusal>> {
    let before = view.state;
    let mut after = before.clone();
    let newest = call.plane.consensus.feed().latest().revision.max(view.revision);
    match after.apply(Revision(newest.0 + 1), command).outcome {
        Outcome::Done(results) => Ok(Draft { before, after, results }),
        Outcome::Refused(refusals) => Err(refusals),
    }
}

pub(super) async fn judged(draft: &Draft, documents: Vec<Applied>) -> Result<Judgement, Status> {
    let changed = draft.results.iter().map(|(id, _)| id.kind);
    if !changed.chain(documents.iter().map(|(document, _)| document.id().kind)).any(is_judged) {
        return Ok(Judgement::default());
    }
    let (before, after) = (draft.before.clone(), draft.after.clone());
    let tenants: BTreeSet<TenantName> = draft
        .results
        .iter()
        .filter(|(_, change)| *change != ChangeKind::Unchanged)
        .map(|(id, _)| id.tenant.clone())
        .chain(documents.iter().map(|(document, _)| document.tenant.clone()))
        .collect();
    let judge = move || {
        let mut judgement = judge(&before, &after, &documents, tenants.into_iter());
        judgement.problems.extend(authorities::problems(&documents));
        judgement.problems.extend(patterns::problems(&documents));
        let endpoints = documents.iter().map(|(document, _)| document);
        judgement.warnings.extend(endpoints::warnings(&after, endpoints));
        judgement.warnings.truncate(WARNINGS_MAX);
        judgement
    };
    tokio::task::spawn_blocking(judge).await.map_err(|_| broken_off())
}

/// Whether there may be something to say about a document of a kind, or of policies that name it.
fn is_judged(kind: Kind) -> bool {
    match kind {
        Kind::Tenant | Kind::Server | Kind::Endpoint | Kind::Agent | Kind::Policy | Kind::Provider => true,
        Kind::Limit | Kind::Credential => false,
    }
}

pub(super) fn applied((id, change): &(ResourceId, ChangeKind)) -> AppliedResource {
    let change = match change {
        ChangeKind::Created => Change::Created,
        ChangeKind::Updated => Change::Updated,
        ChangeKind::Unchanged => Change::Unchanged,
        ChangeKind::Deleted => Change::Deleted,
    };
    let wire::ResourceId { kind, tenant, name } = id.into();
    AppliedResource { kind, tenant, name, change: change.into(), before: None }
}

fn with_before(result: &(ResourceId, ChangeKind), before: &State) -> AppliedResource {
    let stored = match result.1 {
        ChangeKind::Updated => before.resource(&result.0).map(|(resource, _)| resource.as_ref().into()),
        ChangeKind::Created | ChangeKind::Unchanged | ChangeKind::Deleted => None,
    };
    AppliedResource { before: stored, ..applied(result) }
}
