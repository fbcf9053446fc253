//! What the modern era has a client give back, sealed: `requestState` and the ids of tasks.
//!
//! Always holds: a state is good for the server, method and name that it was made for, and for its principal; a
//! task's id is the same whenever it is told. What a server put into a state is not read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::NodeKeys;
use crate::config::server::Server;
use crate::mcp::headers::named;
use crate::mcp::message::{Kind, Message};
use crate::mcp::seal::{Owner, Purpose};
use crate::pipeline::{Caller, now_seconds};
use crate::rejection::Rejection;

/// How long a client may take to answer what it was asked, in seconds: a person may have to be found.
pub(crate) const STATE_SECONDS_MAX: u64 = 15 * 60;

/// What is in a `requestState` that a client holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum State {
    /// A server's own.
    #[serde(rename = "s")]
    Server {
        #[serde(rename = "s")]
        server: String,
        /// Method and name of the request, as [`about`] tells them.
        #[serde(rename = "a")]
        about: String,
        /// `None`: the server wants only its answers back.
        #[serde(rename = "u")]
        upstream: Option<String>,
    },
    /// A call that waits for an approval, whose client was sent to a URL.
    #[serde(rename = "a")]
    Approval {
        /// As above.
        #[serde(rename = "a")]
        about: String,
    },
    /// A call that waits on a node.
    #[serde(rename = "p")]
    Parked {
        #[serde(rename = "n")]
        node: String,
        #[serde(rename = "i")]
        id: u64,
    },
}

/// Seals what a server's answers hold for one principal.
pub(crate) struct Tokens {
    keys: Arc<NodeKeys>,
    tenant: Arc<crate::config::tenant::Tenant>,
    endpoint: Arc<crate::config::endpoint::Endpoint>,
    /// The agent, and for whom it acts.
    principal: Arc<str>,
    server: Arc<Server>,
    about: String,
}

/// What a request is about, in a few bytes.
pub(crate) fn about(message: &Message) -> String {
    let Kind::Request { method, params, .. } = &message.kind else { return String::new() };
    let named = named(method, params).unwrap_or_default();
    let hash = blake3::hash(format!("{}\n{named}", method.as_str()).as_bytes());
    hash.to_hex().as_str()[..16].to_owned()
}

/// Whether there may be something to seal in a message. Cheap, and nearly every answer has nothing.
pub(crate) fn may_have_tokens(message: &[u8]) -> bool {
    let has = |word: &[u8]| memmem::find(message, word).is_some();
    has(b"\"requestState\"") || has(b"\"taskId\"")
}

impl Tokens {
    /// For the answers of a server to a message.
    pub(crate) fn new(caller: &Caller, server: &Arc<Server>, message: &Message) -> Result<Tokens, Rejection> {
        Ok(Tokens {
            about: about(message),
            keys: caller.config.keys.clone().ok_or(Rejection::NotReady)?,
            tenant: caller.tenant.clone(),
            endpoint: caller.endpoint.clone(),
            principal: caller.principal_id().clone(),
            server: server.clone(),
        })
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            tenant: self.tenant.name.as_str(),
            endpoint: self.endpoint.name.as_str(),
            principal: &self.principal,
        }
    }

    /// A message with its tokens sealed; `None` when it has none and may pass as it is.
    pub(crate) fn seal(&self, message: &[u8]) -> Option<Bytes> {
        if !may_have_tokens(message) {
            return None;
        }
        let mut parsed: Value = serde_json::from_slice(message).ok()?;
        for part in ["result", "params"] {
            if let Some(part) = parsed.get_mut(part) {
                self.seal_state(part);
                self.seal_tasks(part);
            }
        }
        Some(parsed.to_string().into())
    }

    fn seal_state(&self, result: &mut Value) {
        let Some(Value::String(upstream)) = result.get("requestState") else { return };
        let server = self.server.name.to_string();
        let about = self.about.clone();
        let state = State::Server { server, about, upstream: Some(upstream.clone()) };
        result["requestState"] = self.seal_new(&state).into();
    }

    /// A state for the client; empty when it cannot be sealed, which is good for nothing.
    pub(crate) fn seal_new(&self, state: &State) -> String {
        let plain = serde_json::to_vec(state).unwrap_or_default();
        let expires = now_seconds() + STATE_SECONDS_MAX;
        self.keys.seal.seal(Purpose::State, self.owner(), expires, &plain).unwrap_or_default()
    }

    /// The ids of tasks stand in a result or in a notification's parameters, and in what belongs to it.
    fn seal_tasks(&self, part: &mut Value) {
        self.seal_task(part);
        for inner in ["task", "_meta"] {
            match part.get_mut(inner) {
                Some(Value::Object(members)) if inner == "_meta" => {
                    members.values_mut().for_each(|member| self.seal_task(member));
                }
                Some(member) => self.seal_task(member),
                None => {}
            }
        }
    }

    fn seal_task(&self, holder: &mut Value) {
        let Some(Value::String(id)) = holder.get("taskId") else { return };
        let plain = format!("{}/{id}", self.server.name);
        let sealed = self.keys.seal.seal_stable(Purpose::Task, self.owner(), plain.as_bytes());
        holder["taskId"] = sealed.unwrap_or_default().into();
    }
}

/// A state of the gateway's own, for a client, good for so long; `None`: it cannot be sealed.
pub(crate) fn seal_state(caller: &Caller, state: &State, lasts: Duration) -> Option<String> {
    let plain = serde_json::to_vec(state).ok()?;
    let expires = now_seconds() + lasts.as_secs();
    caller.config.keys.as_ref()?.seal.seal(Purpose::State, caller.owner(), expires, &plain).ok()
}

/// What is in a state that a client gives back.
pub(crate) fn open_state(caller: &Caller, token: &str) -> Result<State, Rejection> {
    let invalid = || {
        let message =
            "requestState is not one of this agent, or has expired; send the request anew without it";
        Rejection::InvalidParams(message.to_owned())
    };
    let keys = caller.config.keys.as_ref().ok_or(Rejection::NotReady)?;
    let plain =
        keys.seal.open(Purpose::State, caller.owner(), token, now_seconds()).map_err(|_| invalid())?;
    serde_json::from_slice(&plain).map_err(|_| invalid())
}
