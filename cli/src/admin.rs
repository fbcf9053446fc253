//! The admin client: one gRPC connection, the token on every call or the certificate of the connection, and what a refusal
//! means to a person.
//!
//! Always holds: a call ends within [`CALL_TIMEOUT`]; a write that got no answer is told as unknown, never as failed.

use std::sync::Arc;
use std::time::Duration;

use gantry_node::bearer::Bearer;
use gantry_node::tls::{Connector, Expected, Presenter, Trust};
use gantry_wire::MESSAGE_BYTES_MAX;
use gantry_wire::admin_v1::admin_client::AdminClient;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::context::{AdminAccess, Proof};
use crate::failure::{Exit, Failure, chain};

/// How long a connection may take: the service is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take. The service's own bound on a write is shorter; past this one nobody answers any more.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often an idle connection is probed, so that `audit tail --follow` notices a dead peer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// What is told of a call without an answer.
const UNANSWERED: &str = "no answer in time; a change may or may not have been made";

/// The generated client with the token on every call.
pub(crate) type Service = AdminClient<InterceptedService<Channel, ShownToken>>;

/// Puts the token on every call, where there is one.
#[derive(Debug, Clone)]
pub(crate) struct ShownToken(Option<Bearer>);

impl Interceptor for ShownToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            bearer.show(&mut request);
        }
        Ok(request)
    }
}

/// A connection to the admin service.
#[derive(Clone)]
pub(crate) struct Admin {
    service: Service,
    is_plain: bool,
}

impl Admin {
    /// Connects.
    pub(crate) async fn connect(access: &AdminAccess) -> Result<Admin, Failure> {
        let url = access.address.as_url();
        let unreachable = |error: tonic::transport::Error| {
            Failure::new(
                Exit::Unavailable,
                format!("the admin service at {url} does not answer: {}", chain(&error)),
                match &access.trust {
                    None => {
                        "start it with `gantry dev`, or name another with `--admin HOST:PORT --token-file FILE`"
                    }
                    Some(_) => {
                        "start it with `gantry control-plane run`, and name its address and its DATA_DIR/ca.pem; \
                         `gantry dev` has no TLS: leave --ca out"
                    }
                },
            )
        };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(unreachable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL);
        let channel = match &access.trust {
            None => endpoint.connect().await,
            Some(trust) => endpoint.connect_with_connector(connector(trust, &access.proof)?).await,
        };
        let channel = channel.map_err(unreachable)?;
        let token = match &access.proof {
            Proof::Certificate(_) => None,
            Proof::Token(token) => Some(Bearer::new(token.as_secret()).map_err(|error| {
                Failure::error(format!("the admin token: {error}"), "check the token file")
            })?),
        };
        let service = AdminClient::with_interceptor(channel, ShownToken(token))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Admin { service, is_plain: access.trust.is_none() })
    }

    /// The connection broke before there was an answer.
    fn broken(&self, status: &Status) -> Failure {
        let next = if self.is_plain {
            "if it has TLS, as `gantry control-plane run` has, name its DATA_DIR/ca.pem with `--ca FILE`; else look whether \
             it runs, and what was changed with `gantry get all`"
        } else {
            "look whether it runs, and what was changed with `gantry get all`"
        };
        let message = format!("the connection to the admin service broke: {}", chain(status));
        Failure::new(Exit::Unavailable, message, next)
    }

    /// The generated client. Cloning shares the connection.
    pub(crate) fn service(&self) -> Service {
        self.service.clone()
    }

    /// Waits for the answer of a call; `next` is what to do when the request itself is at fault.
    pub(crate) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
        next: &str,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) if is_broken(&status) => Err(self.broken(&status)),
            Ok(Err(status)) => Err(refused(&status, next)),
            Err(_) => Err(refused(&Status::deadline_exceeded(UNANSWERED), next)),
        }
    }
}

/// Whether there is no answer because the connection broke.
fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|error| error.is::<tonic::transport::Error>())
}

/// Dials a control plane that the authority has named.
fn connector(trust: &Arc<Trust>, proof: &Proof) -> Result<Connector, Failure> {
    let (presenter, expected) = match proof {
        Proof::Token(_) => (Presenter::empty(), Expected::ControlPlane),
        Proof::Certificate(certified) => {
            let cluster = certified.peer().name.cluster.clone();
            (Presenter::new(certified.clone()), Expected::ControlPlaneOf(cluster))
        }
    };
    Connector::new(presenter, trust.clone(), expected)
        .map_err(|error| Failure::error(chain(&error), "look at the file that --ca names"))
}

/// What the refusal of a call means; `next` is what to do when the request itself is at fault.
pub(crate) fn refused(status: &Status, next: &str) -> Failure {
    let message = status.message();
    match status.code() {
        Code::Unavailable => Failure::new(
            Exit::Unavailable,
            format!("the admin service is not available: {message}"),
            "`gantry status`; when it answers, run the command again",
        ),
        Code::DeadlineExceeded | Code::Cancelled => {
            let message = if message.is_empty() { UNANSWERED } else { message };
            Failure::new(Exit::Unavailable, message, "`gantry get all` shows what is stored")
        }
        Code::Aborted => Failure::new(Exit::Unavailable, message, "run the command again"),
        Code::Unauthenticated => Failure::error(
            format!("the admin service refuses the token: {message}"),
            "use the context file of the running `gantry dev`, or name the right one with `--token-file FILE` or `--cert FILE`",
        ),
        Code::PermissionDenied => Failure::new(Exit::Denied, message, "ask an admin who may do this"),
        Code::Unimplemented => Failure::error(
            format!("the admin service does not know this call: {message}"),
            "compare `gantry --version` with the build that `gantry status` shows",
        ),
        Code::Internal | Code::Unknown | Code::DataLoss => Failure::error(
            format!("the admin service failed: {message}"),
            "look into the log of `gantry dev`, then run `gantry status`",
        ),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange => Failure::error(message, next),
    }
}
