//! Asking the control plane for approvals, beside the stream.
//!
//! Always holds: whatever goes wrong with a member, another is asked the same; both questions may be put any number of times.
//! What no member has granted is not granted: without a control plane nothing is. At most [`HELD_MAX`] calls are held,
//! [`HELD_OF_TENANT_MAX`] of one tenant and [`HELD_OF_PRINCIPAL_MAX`] of one principal, since each has a request open at a
//! member. No lock is kept while one is connected to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
/// Of one agent for one user: a quarter of that.
const HELD_OF_PRINCIPAL_MAX: usize = 8;
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
    held: Arc<Mutex<HeldBy>>,
}

/// How many calls are held, by tenant and principal.
type HeldBy = HashMap<(TenantName, Arc<str>), usize>;

struct Members {
    addresses: Vec<String>,
    proof: Proof,
    current: Mutex<Current>,
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
    by: (TenantName, Arc<str>),
    held: Arc<Mutex<HeldBy>>,
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
        let members = Members { addresses, proof, current: Mutex::default() };
        // A node is started once.
        let _ = self.asked.set(members);
    }

    /// Room to hold a call of a tenant's principal; `None`: as many as may be are held.
    pub(crate) fn hold(&self, tenant: &TenantName, principal: &Arc<str>) -> Option<Held> {
        let mut held = lock(&self.held);
        let by = (tenant.clone(), principal.clone());
        let of_tenant =
            held.iter().filter(|((of, _), _)| of == tenant).map(|(_, count)| count).sum::<usize>();
        let (all, own) = (held.values().sum::<usize>(), held.get(&by).copied().unwrap_or(0));
        if all >= HELD_MAX || of_tenant >= HELD_OF_TENANT_MAX || own >= HELD_OF_PRINCIPAL_MAX {
            return None;
        }
        held.insert(by.clone(), own + 1);
        Some(Held { by, held: self.held.clone() })
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
            let reached = tokio::time::timeout_at(until, members.client()).await;
            let failed = match reached.map_err(|_| unanswered("none could be reached in time"))? {
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
                    members.give_up(member);
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
        let (member, known) = {
            let current = lock(&self.current);
            (current.member, current.channel.clone())
        };
        let channel = match known {
            Some(channel) => channel,
            None => match connect(&self.addresses[member], &self.proof).await {
                Ok(channel) => self.keep(member, channel),
                Err(error) => {
                    self.give_up(member);
                    return Err(error);
                }
            },
        };
        Ok((member, SyncClient::new(channel), bearer))
    }

    /// Keeps a connection for those who ask next; the one that somebody else has made meanwhile is used instead.
    fn keep(&self, member: usize, channel: Channel) -> Channel {
        let mut current = lock(&self.current);
        match &current.channel {
            Some(kept) if current.member == member => kept.clone(),
            None if current.member == member => current.channel.insert(channel).clone(),
            // Another member is asked by now.
            _ => channel,
        }
    }

    /// Goes on to the next one, unless somebody else has.
    fn give_up(&self, member: usize) {
        let mut current = lock(&self.current);
        if current.member == member {
            *current = Current { member: (member + 1) % self.addresses.len(), channel: None };
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.by) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.by);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shown<T>(message: T, bearer: Option<Bearer>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(bearer) = bearer {
        bearer.show(&mut request);
    }
    request
}

/// Whether every other member would say the same. One of a build that knows no approvals speaks for itself alone.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        name.parse().expect("a name")
    }

    #[test]
    fn each_has_a_part_of_the_room_and_all_together_no_more_than_there_is() {
        let approvals = Approvals::default();
        let hold = |name: &str, principal: &str| approvals.hold(&tenant(name), &principal.into());
        let all_of = |name: &str, principal: &str| -> Vec<_> {
            std::iter::from_fn(|| hold(name, principal)).collect()
        };
        let of_bot = all_of("a", "bot");
        assert_eq!(of_bot.len(), HELD_OF_PRINCIPAL_MAX);
        let agents = ["1", "2", "3", "4", "5"];
        let of_others: Vec<_> = agents.iter().flat_map(|agent| all_of("a", agent)).collect();
        assert_eq!(of_bot.len() + of_others.len(), HELD_OF_TENANT_MAX);
        let tenants = ["b", "c", "d"].iter();
        let mut more: Vec<_> =
            tenants.flat_map(|name| agents.iter().flat_map(|agent| all_of(name, agent))).collect();
        assert_eq!(more.len(), HELD_MAX - HELD_OF_TENANT_MAX);
        drop(more.pop());
        assert!(hold("d", "bot").is_some() && hold("a", "bot").is_none());
        drop((of_bot, of_others, more));
        assert!(approvals.held.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn a_member_of_an_older_build_does_not_speak_for_the_others() {
        assert!(!is_final(&Status::unimplemented("what is that?")));
        assert!(!is_final(&Status::unavailable("later")));
        assert!(is_final(&Status::resource_exhausted("too many")));
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
