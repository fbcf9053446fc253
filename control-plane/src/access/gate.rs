//! The gate of the admin service: who calls, and whether he may, before anything of the call is read; and one audit
//! record for each call, whatever becomes of it.
//!
//! Always holds: a call that has no rule, or whose caller proves nobody or may not, never reaches the service; what
//! does reach it carries an [`Admitted`], which only the gate makes.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use gantry_node::tls::Caller;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

use super::identity::{Doorkeeper, Identity};
use super::rules::{self, Rule};
use crate::audit::{Ended, Notes};
use crate::plane::{Plane, now_ms};

/// Stands for the name of a call that there is not, which is whatever somebody wrote.
const NO_CALL: &str = "(no call)";

/// The admin service behind its gate.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    service: S,
    plane: Arc<Plane>,
    doorkeeper: Arc<Doorkeeper>,
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
        Gate { service, plane, doorkeeper: Arc::new(doorkeeper) }
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
        let (plane, doorkeeper) = (self.plane.clone(), self.doorkeeper.clone());
        Box::pin(async move {
            let rule = request.uri().path().rsplit('/').next().and_then(rules::rule_of);
            let caller = request.extensions().get::<Caller>().cloned();
            let plain = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
            let address = caller.as_ref().map(|caller| caller.address).or(plain);
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            let method = rule.map_or(NO_CALL, |rule| rule.call);
            let Some(entry) = plane.audit.open(method, address).await else {
                return Ok(Status::unavailable("the control plane is going down").into_http());
            };
            let state = plane.consensus.feed().latest().state;
            let identified = doorkeeper.identify(request.headers(), caller.as_ref(), &state, now_ms());
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
                    let notes = entry.notes().clone();
                    Ok(Admitted { identity, rule, notes, doorkeeper })
                });
            match admitted {
                Ok(admitted) => request.extensions_mut().insert(admitted),
                Err(status) => {
                    entry.close(Ended::Denied);
                    return Ok(status.into_http());
                }
            };
            let response = service.call(request).await?;
            entry.close(Ended::Answered(code(&response)));
            Ok(response)
        })
    }
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
