//! Following audit records, and explaining one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_model::{PolicyName, ResourceId, Spec, TenantName};
use gantry_wire::admin_v1::{
    ExplainRequest, ExplainResponse, PolicyText, TailRecordsRequest, TailRecordsResponse,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::call::Call;
use super::rejection::parse_or_every;
use super::revoke;
use crate::access::rules::Reach;
use crate::feed::View;
use crate::journal::{RECORDS_MAX, Record, Selection, Tail, Tailed};
use crate::plane::{TAILS_MAX, now_ms};

/// Records on their way to one reader; beyond these a slow reader loses some of the journal's, and is told.
const QUEUED_MAX: usize = 16;
/// How long a reader may take to hear that the control plane is going down; less than it waits for its tasks.
const LAST_WORD_DEADLINE: Duration = Duration::from_secs(1);
/// Asks for the newest denial instead of a decision's id.
const LAST: &str = "last";

type Message = Result<TailRecordsResponse, Status>;

/// One reader on its way.
struct Follower {
    call: Call,
    tail: Tail,
    follow: bool,
    sender: mpsc::Sender<Message>,
    stop: CancellationToken,
    _room: OwnedSemaphorePermit,
}

pub(super) fn tail(call: Call, request: &TailRecordsRequest) -> Result<ReceiverStream<Message>, Status> {
    let whose = match parse_or_every::<TenantName>("tenant", &request.tenant)? {
        // One that is not there has no records either.
        Some(tenant) if call.reach.has(&tenant) => Selection::Tenants([tenant].into()),
        Some(_) => Selection::Tenants(BTreeSet::new()),
        None => whose(&call),
    };
    let room = call.plane.tails.clone().try_acquire_owned().map_err(|_| {
        Status::resource_exhausted(format!("{TAILS_MAX} others follow the records already; end one of them"))
    })?;
    let last = usize::try_from(request.last).unwrap_or(RECORDS_MAX);
    let (sender, receiver) = mpsc::channel(QUEUED_MAX);
    let journal = if request.admin { &call.plane.audit.journal } else { &call.plane.journal };
    let tail = journal.tail(last, whose);
    let (tasks, stop) = (call.plane.tasks.clone(), call.plane.stop.clone());
    let follower = Follower { call, tail, follow: request.follow, sender, stop, _room: room };
    tasks.spawn(follower.run());
    Ok(ReceiverStream::new(receiver))
}

impl Follower {
    /// Ends with the records, the reader or the process.
    async fn run(mut self) {
        while let Some(Tailed { record, lost }) = self.next().await {
            let response = TailRecordsResponse { record: record.json.to_vec(), lost };
            let next = self.call.is_still_let_in().map(|()| response);
            let is_last = next.is_err();
            tokio::select! {
                () = self.stop.cancelled() => return self.tell_of_the_end().await,
                sent = self.sender.send(next) => if sent.is_err() || is_last { return },
            }
        }
    }

    /// Without it a reader could not tell an end from the last record; one that takes nothing is not waited for.
    async fn tell_of_the_end(&self) {
        let status = Status::unavailable("the control plane is going down");
        let _ = tokio::time::timeout(LAST_WORD_DEADLINE, self.sender.send(Err(status))).await;
    }

    async fn next(&mut self) -> Option<Tailed> {
        if !self.follow {
            return self.tail.advance();
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.tell_of_the_end().await;
                None
            }
            () = self.sender.closed() => None,
            tailed = self.tail.next() => Some(tailed),
        }
    }
}

pub(super) fn explain(call: &Call, request: &ExplainRequest) -> Result<ExplainResponse, Status> {
    let whose = whose(call);
    let record = match request.decision_id.as_str() {
        "" => return Err(Status::invalid_argument(format!("name a decision by its id, or `{LAST}`"))),
        LAST => call.plane.journal.last_denied(&whose).ok_or_else(|| {
            Status::not_found(
                "policy denied nothing since this control plane started; `gantry audit tail` shows calls",
            )
        })?,
        id => find(call, id, &whose).ok_or_else(|| {
            Status::not_found(format!(
                "decision {id:?} is not among the last {RECORDS_MAX} records here; \
                 the audit file of the node that decided has it"
            ))
        })?,
    };
    let view = call.view();
    Ok(ExplainResponse {
        policies: texts(&view, &record),
        bans: revoke::refusing(&view.state, &record.json, now_ms()),
        record: record.json.to_vec(),
        current_revision: view.revision.0,
    })
}

/// The records that a caller may read.
fn whose(call: &Call) -> Selection {
    match &call.reach {
        Reach::Everything => Selection::Everybody,
        Reach::Tenants(tenants) => Selection::Tenants(tenants.clone()),
    }
}

/// A record of an agent's call, or of a call of this service.
fn find(call: &Call, decision_id: &str, whose: &Selection) -> Option<Arc<Record>> {
    let of_agents = call.plane.journal.find(decision_id, whose);
    of_agents.or_else(|| call.plane.audit.journal.find(decision_id, whose))
}

/// The policies that decided, as they stand now; one that was deleted since is left out.
fn texts(view: &View, record: &Arc<Record>) -> Vec<PolicyText> {
    let Some(tenant) = record.tenant.as_deref().and_then(|tenant| tenant.parse::<TenantName>().ok()) else {
        return Vec::new();
    };
    let text = |name: &PolicyName| {
        let (resource, stored) = view.state.resource(&ResourceId::policy(&tenant, name))?;
        match &resource.spec {
            Spec::Policy(spec) => Some(PolicyText {
                name: name.to_string(),
                cedar: spec.cedar.clone(),
                revision: stored.revision.0,
            }),
            _ => None,
        }
    };
    // Several statements of one policy may have decided.
    let mut names: Vec<&PolicyName> = Vec::new();
    for name in &record.policies {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().filter_map(text).collect()
}
