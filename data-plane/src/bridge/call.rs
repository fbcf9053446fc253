//! One request carried to a server of either era, and everything that comes back for it.
//!
//! Always holds: a call ends with exactly one response or rejection at its client's side, or with the client gone; a
//! call that ends before its server answered is cancelled there. The time that the client takes to answer questions
//! does not count against the server's deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_model::BanTarget;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bans::Who;
use crate::bridge::home::Home;
use crate::bridge::outlet::Outlet;
use crate::bridge::tokens::{Tokens, may_have_tokens};
use crate::bridge::translate::{self, Back, Hop};
use crate::bridge::{legacy_call, modern_call};
use crate::config::server::Server;
use crate::mcp::Era;
use crate::mcp::message::{Id, Kind, Message, Method, Params};
use crate::mcp::object::Object;
use crate::node::Node;
use crate::pipeline::Caller;
use crate::rejection::{Rejection, Unserved, Upstream};
use crate::upstream::discovery::is_of_other_era;
use crate::upstream::health::{Pass, Permit};

/// A call under way.
pub(crate) struct Call {
    pub(crate) node: Arc<Node>,
    pub(crate) caller: Caller,
    pub(crate) server: Arc<Server>,
    /// Of the client's hop.
    pub(crate) era: Era,
    /// The client's session, when it has one here.
    pub(crate) home: Option<Arc<Home>>,
    pub(crate) method: Method,
    pub(crate) message: Message,
    /// The id that the response is to have; another after a call was parked.
    pub(crate) id: Id,
    /// What progress is told by, as raw JSON.
    pub(crate) progress_token: Option<Bytes>,
    /// What the server calls what is asked for.
    pub(crate) inner: Option<String>,
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    /// Of arguments that headers repeat.
    pub(crate) mirrored: HeaderMap,
    /// What a modern server gave the client to give back.
    pub(crate) state: Option<String>,
    pub(crate) outlet: Outlet,
    pub(crate) cancelled: CancellationToken,
    pub(crate) place: Place,
}

/// A call's place among the server's.
pub(crate) enum Place {
    /// It may be sent; how that goes, is to be told.
    Admitted(Pass),
    /// It is under way.
    Held(#[expect(dead_code, reason = "it counts as long as it is there")] Permit),
    /// It waits for its client and takes no place from others.
    Free,
}

/// Why a call stops without an answer.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The client is told why.
    Rejected(Rejection),
    /// The client left or cancelled.
    Gone,
}

impl From<Upstream> for Stop {
    fn from(failure: Upstream) -> Stop {
        Stop::Rejected(Rejection::Upstream(failure))
    }
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Stop {
        Stop::Rejected(rejection)
    }
}

impl Call {
    /// Carries the call to its end.
    pub(crate) async fn run(mut self, era: Era) {
        let noted = self.home.as_ref().map(|home| (home.clone(), self.id.0.clone()));
        let answered = self.on_leash(era).await;
        match answered {
            Ok(answer) => self.finish(&answer, era).await,
            Err(Stop::Rejected(rejection)) => self.outlet.fail(rejection).await,
            Err(Stop::Gone) => {}
        }
        if let Some((home, id)) = noted {
            home.end(&id);
        }
    }

    /// The same, as long as nobody bans who asks, or the server.
    async fn on_leash(&mut self, era: Era) -> Result<Bytes, Stop> {
        let (mut leash, cancelled) = (self.node.bans.leash(self.who()), self.cancelled.clone());
        let mut running = std::pin::pin!(async {
            match era {
                Era::Legacy => legacy_call::run(self).await,
                Era::Modern => modern_call::run(self).await,
            }
        });
        let target = tokio::select! {
            biased;
            target = &mut leash => target,
            answered = &mut running => return answered,
        };
        // To a server that is banned nothing is sent any more; any other is told that nobody waits.
        if !matches!(target, BanTarget::Server(_) | BanTarget::Tenant) {
            cancelled.cancel();
            let _ = running.await;
        }
        Err(Rejection::Unserved(Unserved::Revoked(target)).into())
    }

    fn who(&self) -> Who {
        let session = self.home.as_ref().and_then(|home| home.bridged.nonce.parse().ok());
        Who { session, servers: vec![self.server.name.clone()], ..self.caller.who() }
    }

    async fn finish(&self, answer: &Bytes, era: Era) {
        if error_code(answer).is_some_and(|code| is_of_other_era(era, code)) {
            self.node.discovery.doubt(&self.server.tenant, &self.server.name);
        }
        let back = Back { client: self.era, server: era, id: &self.id.0, method: &self.method };
        let translated = translate::response(answer, &back).map(|response| self.localise(response, era));
        match translated {
            // A client that left has its record; nobody waits for more.
            Some(response) => {
                let _ = self.outlet.finish(response).await;
            }
            None => self.outlet.fail(Rejection::Upstream(Upstream::Protocol)).await,
        }
    }

    /// A message with what agents see in place of what the server says.
    fn localise(&self, message: Bytes, era: Era) -> Bytes {
        let message = match era {
            Era::Modern if may_have_tokens(&message) => {
                let tokens = Tokens::new(&self.caller, &self.server, &self.message).ok();
                tokens.and_then(|tokens| tokens.seal(&message)).unwrap_or(message)
            }
            Era::Modern | Era::Legacy => message,
        };
        translate::expose_uris(&message, &self.caller.endpoint, &self.server).unwrap_or(message)
    }

    /// Passes a server's notification on, if it means something to the client.
    pub(crate) async fn notify(&self, note: &Bytes) {
        self.node.notice(&self.server, note);
        let level = self.params().meta.log_level.as_deref();
        let note = translate::notification(note, self.era, self.progress_token.as_ref(), level);
        if let Some(note) = note {
            let note = translate::expose_uris(&note, &self.caller.endpoint, &self.server).unwrap_or(note);
            // Whether the client left is noticed where it is waited for.
            let _ = self.outlet.send(note).await;
        }
    }

    pub(crate) fn params(&self) -> &Params {
        static NONE: std::sync::LazyLock<Params> = std::sync::LazyLock::new(Params::default);
        match &self.message.kind {
            Kind::Request { params, .. } => params,
            Kind::Notification { .. } | Kind::Response { .. } => &NONE,
        }
    }

    /// The request for the server.
    pub(crate) fn request(&self, hop: &Hop<'_>) -> Bytes {
        let text = std::str::from_utf8(&self.message.body).unwrap_or("{}");
        let params = crate::mcp::json::fields(text, &["params"]).ok().and_then(|[params]| params);
        translate::request(&self.method, params.map(RawValue::get), hop)
    }

    /// What the client can do, as raw JSON.
    pub(crate) fn capabilities(&self) -> Box<RawValue> {
        let declared = match (&self.home, &self.params().meta.capabilities) {
            (Some(home), _) => Some(home.bridged.capabilities.clone()),
            (None, Some(raw)) => {
                String::from_utf8(raw.to_vec()).ok().and_then(|raw| RawValue::from_string(raw).ok())
            }
            (None, None) => None,
        };
        declared.unwrap_or_else(no_capabilities)
    }

    /// Tells the server's health how sending went, the first time.
    pub(crate) fn judge<T>(&mut self, sent: Result<T, Stop>) -> Result<T, Stop> {
        let Place::Admitted(pass) = std::mem::replace(&mut self.place, Place::Free) else { return sent };
        let sent = match sent {
            Ok(sent) => Ok(sent),
            Err(Stop::Rejected(rejection)) => Err(rejection),
            Err(Stop::Gone) => return Err(Stop::Gone),
        };
        let (sent, permit) = pass.judge(sent)?;
        self.place = Place::Held(permit);
        Ok(sent)
    }

    /// Does a step of the call, as long as somebody waits for it and its time is not over. A legacy client that
    /// leaves may come back to its session; its calls go on.
    pub(crate) async fn within<T>(
        &self,
        deadline: Instant,
        step: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        let left = async {
            match self.era {
                Era::Legacy => std::future::pending().await,
                Era::Modern => self.outlet.left().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(Stop::Gone),
            () = left => Err(Stop::Gone),
            // Before the step, which may always have something.
            () = tokio::time::sleep_until(deadline) => Err(Upstream::Timeout(self.timeout()).into()),
            done = step => Ok(done),
        }
    }

    /// How long the server may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.server.spec.timeout_ms))
    }
}

/// The code of an answer that is an error.
fn error_code(answer: &[u8]) -> Option<i64> {
    memchr::memmem::find(answer, b"\"error\"")?;
    let message = Object::parse(std::str::from_utf8(answer).ok()?).ok()?;
    message.object("error").get("code")?.parse().ok()
}

/// The capabilities of a client that has none.
pub(crate) fn no_capabilities() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}
