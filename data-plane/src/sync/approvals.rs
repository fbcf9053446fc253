//! Asking the control plane for approvals, beside the stream.
//!
//! Always holds: whatever goes wrong with a member, another is asked the same; both questions may be put any number of times.
//! What no member has granted is not granted: without a control plane nothing is. At most [`HELD_MAX`] calls are held, and
//! [`HELD_OF_TENANT_MAX`] of one tenant, since each has a request open at a member.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use gantry_model::TenantName;
use gantry_node::bearer::Bearer;
use gantry_wire::sync_v1 as wire;
use gantry_wire::sync_v1::sync_client::SyncClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::connection::{FollowError, connect};
use crate::start::Proof;

/// Calls that are held at one time: a control plane takes 128 requests of a connection, and others need some of these.
const HELD_MAX: usize = 96;
/// Of one tenant: a third, so that none keeps the others from it.
const HELD_OF_TENANT_MAX: usize = 32;
/// How long an answer may take beyond what was asked to be waited for: a write that waits for a new leader takes up to 6 s.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// For how long members are asked that do not answer.
const TRY_MAX: Duration = Duration::from_secs(15);
/// How long it is waited before the next member is asked.
const PAUSE: Duration = Duration::from_millis(200);

/// Whom a node asks.
#[derive(Default)]
pub(crate) struct Approvals {
    asked: OnceLock<Members>,
    held: Arc<Mutex<HashMap<TenantName, usize>>>,
}

struct Members {
    addresses: Vec<String>,
    proof: Proof,
    current: tokio::sync::Mutex<Current>,
}

#[derive(Default)]
struct Current {
    /// Of the addresses.
    member: usize,
    channel: Option<Channel>,
}

/// What is asked.
enum Question {
    Ask(wire::AskApprovalRequest),
    Take(wire::TakeApprovalRequest),
}

/// Room for one held call.
pub(crate) struct Held {
    tenant: TenantName,
    held: Arc<Mutex<HashMap<TenantName, usize>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The control plane refused the question.
    #[error("{0}")]
    Refused(String),
    /// No member answered; what was asked may have happened.
    #[error("no member of the control plane answered: {0}")]
    Unanswered(String),
}

impl Approvals {
    /// Says who is to be asked.
    pub(crate) fn begin(&self, addresses: Vec<String>, proof: Proof) {
        let members = Members { addresses, proof, current: tokio::sync::Mutex::default() };
        // A node is started once.
        let _ = self.asked.set(members);
    }

    /// Room to hold a call of a tenant; `None`: as many as may be are held.
    pub(crate) fn hold(&self, tenant: &TenantName) -> Option<Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_tenant) = (held.values().sum::<usize>(), held.get(tenant).copied().unwrap_or(0));
        if all >= HELD_MAX || of_tenant >= HELD_OF_TENANT_MAX {
            return None;
        }
        held.insert(tenant.clone(), of_tenant + 1);
        Some(Held { tenant: tenant.clone(), held: self.held.clone() })
    }

    /// Has a call wait for approval, and waits up to `wait_ms` of the question for a decision.
    pub(crate) async fn ask(
        &self,
        question: wire::AskApprovalRequest,
    ) -> Result<wire::ApprovalAnswer, AskError> {
        self.put(Question::Ask(question)).await
    }

    /// Uses an approval up.
    pub(crate) async fn take(
        &self,
        question: wire::TakeApprovalRequest,
    ) -> Result<wire::ApprovalAnswer, AskError> {
        self.put(Question::Take(question)).await
    }

    async fn put(&self, question: Question) -> Result<wire::ApprovalAnswer, AskError> {
        let unanswered = |why: &str| AskError::Unanswered(why.to_owned());
        let members = self.asked.get().ok_or_else(|| unanswered("the node follows none"))?;
        let until = Instant::now() + TRY_MAX;
        loop {
            let failed = match members.client().await {
                Ok((member, client, bearer)) => {
                    let failed =
                        match tokio::time::timeout(question.patience(), question.put(client, bearer)).await {
                            Ok(Ok(answer)) => return Ok(answer.into_inner()),
                            Ok(Err(status)) if is_final(&status) => {
                                return Err(AskError::Refused(status.message().to_owned()));
                            }
                            Ok(Err(status)) => status.message().to_owned(),
                            Err(_) => "it did not answer in time".to_owned(),
                        };
                    members.give_up(member).await;
                    failed
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() + PAUSE >= until {
                return Err(AskError::Unanswered(failed));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Question {
    /// How long one member may take to answer.
    fn patience(&self) -> Duration {
        match self {
            Question::Ask(ask) => Duration::from_millis(ask.wait_ms.into()) + ANSWER_MAX,
            Question::Take(_) => ANSWER_MAX,
        }
    }

    async fn put(
        &self,
        mut client: SyncClient<Channel>,
        bearer: Option<Bearer>,
    ) -> Result<Response<wire::ApprovalAnswer>, Status> {
        match self {
            Question::Ask(ask) => client.ask_approval(shown(ask.clone(), bearer)).await,
            Question::Take(take) => client.take_approval(shown(take.clone(), bearer)).await,
        }
    }
}

impl Members {
    /// The member that answered last, or the next.
    async fn client(&self) -> Result<(usize, SyncClient<Channel>, Option<Bearer>), FollowError> {
        let bearer = match &self.proof {
            Proof::Token(token) => Some(Bearer::new(token)?),
            Proof::Certificate(_) => None,
        };
        let mut current = self.current.lock().await;
        let channel = match &current.channel {
            Some(channel) => channel.clone(),
            None => match connect(&self.addresses[current.member], &self.proof).await {
                Ok(channel) => current.channel.insert(channel).clone(),
                Err(error) => {
                    current.member = (current.member + 1) % self.addresses.len();
                    return Err(error);
                }
            },
        };
        Ok((current.member, SyncClient::new(channel), bearer))
    }

    /// Goes on to the next one, unless somebody else has.
    async fn give_up(&self, member: usize) {
        let mut current = self.current.lock().await;
        if current.member == member {
            *current = Current { member: (member + 1) % self.addresses.len(), channel: None };
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.tenant);
            }
        }
    }
}

fn shown<T>(message: T, bearer: Option<Bearer>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(bearer) = bearer {
        bearer.show(&mut request);
    }
    request
}

/// Whether every other member would say the same.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument | Code::Unimplemented)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        name.parse().expect("a name")
    }

    #[test]
    fn one_tenant_holds_a_third_and_all_together_no_more_than_there_is_room_for() {
        let approvals = Approvals::default();
        let of_one: Vec<_> = std::iter::from_fn(|| approvals.hold(&tenant("a"))).collect();
        assert_eq!(of_one.len(), HELD_OF_TENANT_MAX);
        let others = ["b", "c", "d"].map(tenant);
        let mut more: Vec<_> =
            others.iter().flat_map(|name| std::iter::from_fn(|| approvals.hold(name))).collect();
        assert_eq!(more.len(), HELD_MAX - HELD_OF_TENANT_MAX);
        drop(more.pop());
        assert!(approvals.hold(&tenant("d")).is_some() && approvals.hold(&tenant("a")).is_none());
        drop((of_one, more));
        assert!(approvals.held.lock().expect("not poisoned").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_follows_nobody_is_granted_nothing() {
        let approvals = Approvals::default();
        let asked = approvals.ask(wire::AskApprovalRequest::default()).await;
        assert!(matches!(asked, Err(AskError::Unanswered(_))));
        approvals
            .begin(vec!["127.0.0.1:1".to_owned()], Proof::Token(gantry_model::Secret::new("t".repeat(32))));
        let taken = approvals.take(wire::TakeApprovalRequest::default()).await;
        assert!(matches!(taken, Err(AskError::Unanswered(_))));
    }
}
