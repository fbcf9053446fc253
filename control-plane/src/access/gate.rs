//! The gate of the admin service: who calls, and whether he may, before anything of the call is read; and one audit
//! record for each call, whatever becomes of it.
//!
//! Always holds: a call that has no rule, or whose caller proves nobody or may not, never reaches the service; what
//! does reach it carries an [`Admitted`], which only the gate makes. No call is under way for longer than its rule lets
//! it, nor for long once the process is to end, however slowly its caller sends.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use gantry_node::tls::Caller;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

use super::identity::{Doorkeeper, Identity};
use super::rules::{self, Rule};
use super::seats::{CALLS_OF_ADMIN_MAX, Seats};
use crate::audit::{Ended, NoEntry, Notes};
use crate::plane::{Plane, now_ms};

/// Stands for the name of a call that there is not, which is whatever somebody wrote.
const NO_CALL: &str = "(no call)";
/// How long calls may go on once the process is to end: less than it waits for connections, so that they are answered.
const ENDING_DEADLINE: Duration = Duration::from_secs(4);

/// The admin service behind its gate.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    service: S,
    plane: Arc<Plane>,
    doorkeeper: Arc<Doorkeeper>,
    seats: Seats,
}

/// A call that was let in: whose, by which rule, and what is noted of it.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) identity: Identity,
    pub(crate) rule: &'static Rule,
    pub(crate) notes: Notes,
    pub(crate) doorkeeper: Arc<Doorkeeper>,
}

impl<S> Gate<S> {
    pub(crate) fn new(service: S, plane: Arc<Plane>, doorkeeper: Doorkeeper) -> Gate<S> {
        Gate { service, plane, doorkeeper: Arc::new(doorkeeper), seats: Seats::default() }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone that stays is not ready yet, the one that was asked is.
        let next = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, next);
        let (plane, doorkeeper, seats) = (self.plane.clone(), self.doorkeeper.clone(), self.seats.clone());
        Box::pin(async move {
            let rule = request.uri().path().rsplit('/').next().and_then(rules::rule_of);
            let caller = request.extensions().get::<Caller>().cloned();
            let plain = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
            let address = caller.as_ref().map(|caller| caller.address).or(plain);
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            let method = rule.map_or(NO_CALL, |rule| rule.call);
            let entry = match plane.audit.open(method, address).await {
                Ok(entry) => entry,
                Err(refused) => return Ok(no_entry(refused).into_http()),
            };
            let state = plane.consensus.feed().latest().state;
            let identified = doorkeeper.admit(request.headers(), caller.as_ref(), &state).await;
            let identity = match identified {
                Ok(identity) => identity,
                Err(status) => {
                    entry.close(Ended::Nobody);
                    return Ok(status.into_http());
                }
            };
            entry.notes().who(&identity);
            let admitted =
                rule.ok_or_else(|| Status::unimplemented("there is no such call")).and_then(|rule| {
                    let roles = doorkeeper.roles(&identity, &state, now_ms())?;
                    rules::reach(&roles, rule.permission).ok_or_else(|| denied(&identity, rule))?;
                    let seat = seats.take(&identity.name).ok_or_else(|| crowded(&identity))?;
                    let notes = entry.notes().clone();
                    Ok((seat, Admitted { identity, rule, notes, doorkeeper }))
                });
            let (_seat, admitted) = match admitted {
                Ok(admitted) => admitted,
                Err(status) => {
                    entry.close(Ended::Answered(status.code()));
                    return Ok(status.into_http());
                }
            };
            let deadline = admitted.rule.deadline();
            request.extensions_mut().insert(admitted);
            let response = match in_time(service.call(request), deadline, &plane.stop).await {
                Some(response) => response?,
                None => broken_off().into_http(),
            };
            entry.close(Ended::Answered(code(&response)));
            Ok(response)
        })
    }
}

/// What comes of a call within its deadline, which is near once the process is to end.
async fn in_time<T>(
    call: impl Future<Output = T>,
    deadline: Duration,
    stop: &CancellationToken,
) -> Option<T> {
    let ending = async {
        stop.cancelled().await;
        tokio::time::sleep(ENDING_DEADLINE).await;
    };
    tokio::select! {
        biased;
        answer = call => Some(answer),
        () = tokio::time::sleep(deadline) => None,
        () = ending => None,
    }
}

fn no_entry(refused: NoEntry) -> Status {
    match refused {
        NoEntry::Ending => Status::unavailable(refused.to_string()),
        NoEntry::Crowded => Status::resource_exhausted(refused.to_string()),
    }
}

fn crowded(identity: &Identity) -> Status {
    let name = &identity.name;
    Status::resource_exhausted(format!(
        "{name} has {CALLS_OF_ADMIN_MAX} calls under way already; nothing was changed; wait for some of them"
    ))
}

/// Not `unavailable`, which clients repeat by themselves: what the call was to change may be changed.
fn broken_off() -> Status {
    Status::deadline_exceeded("the call was not sent whole, or not answered, in time; its outcome is unknown")
}

/// What somebody is told who may not.
pub(crate) fn denied(identity: &Identity, rule: &Rule) -> Status {
    Status::permission_denied(format!(
        "{} may not {}; `gantry admin whoami` shows the roles",
        identity.name, rule.act
    ))
}

/// How a call was answered: a failure stands in the head, and success at the end, which comes later.
fn code(response: &Response<Body>) -> Code {
    response.headers().get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_in_time_and_soon_when_the_process_is_to_end() {
        let (stop, hour) = (CancellationToken::new(), Duration::from_secs(3_600));
        let (began, never) = (Instant::now(), std::future::pending::<()>);
        assert_eq!(in_time(std::future::ready(7), hour, &stop).await, Some(7));
        assert_eq!((in_time(never(), hour, &stop).await, began.elapsed()), (None, hour));
        stop.cancel();
        let began = Instant::now();
        assert_eq!((in_time(never(), hour, &stop).await, began.elapsed()), (None, ENDING_DEADLINE));
        assert_eq!(
            in_time(tokio::task::yield_now(), hour, &stop).await,
            Some(()),
            "what is under way may come to its end"
        );
    }
}
