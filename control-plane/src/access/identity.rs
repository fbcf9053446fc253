//! Who an admin is: by the token that the control plane was started with, by a token of his own, by a certificate, or by
//! the token of an issuer that the cluster believes.
//!
//! Always holds: what does not prove anybody is refused in the same words, whoever it names; what an admin may do is as
//! the state has it at the moment of the call, so a deleted admin or an ended token counts for nothing at once.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use gantry_control_state::State;
use gantry_model::admin::{PresentedToken, ROOT, Role};
use gantry_model::identity::{Party, Serial};
use gantry_model::key::KeyId;
use gantry_model::{Name, Secret};
use gantry_node::tls::Caller;
use tonic::Status;
use tonic::codegen::http::HeaderMap;

use super::federation::{Federated, Federation};
use super::{TokenCheck, Whose, sha256};
use crate::ca::CLOCK_SKEW;
use crate::plane::now_ms;

/// Knows admins.
#[derive(Debug, Clone)]
pub(crate) struct Doorkeeper {
    root: TokenCheck,
    federation: Federation,
}

/// Somebody who has proved who he is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    /// Who; `root` for the token that the control plane was started with.
    pub(crate) name: Name,
    /// How he proved it.
    pub(crate) proof: Proof,
}

/// How an admin has proved who he is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Proof {
    /// By the token that the control plane was started with.
    Root,
    /// By one of his own tokens.
    Token(KeyId),
    /// By a certificate.
    Certificate {
        /// Which.
        serial: Serial,
        /// From when it counts, in milliseconds since 1970.
        begins_at_ms: u64,
        /// Until when, in milliseconds since 1970.
        expires_at_ms: u64,
        /// Without which token it does not count; an organisation's authority names none.
        token: Option<KeyId>,
    },
    /// By a token of an issuer.
    Federated(Box<Federated>),
}

impl Doorkeeper {
    pub(crate) fn new(root: &Secret<String>, federation: Federation) -> Doorkeeper {
        Doorkeeper { root: TokenCheck::new(Whose::Admin, root), federation }
    }

    /// Who calls, where that may take asking an issuer for its keys.
    pub(crate) async fn admit(
        &self,
        headers: &HeaderMap,
        caller: Option<&Caller>,
        state: &State,
    ) -> Result<Identity, Status> {
        // Who started the control plane may have given it a token with dots.
        if let Ok(token) = self.root.shown(headers)
            && self.root.check(token).is_err()
            && let Some(identified) = self.federation.identify(token, state).await
        {
            return identified;
        }
        self.identify(headers, caller, state, now_ms())
    }

    /// Who calls with these headers over this connection.
    pub(crate) fn identify(
        &self,
        headers: &HeaderMap,
        caller: Option<&Caller>,
        state: &State,
        now_ms: u64,
    ) -> Result<Identity, Status> {
        let peer = caller.and_then(|caller| caller.peer.as_ref());
        let identity = match peer.map(|peer| (peer, &peer.name.party)) {
            Some((peer, Party::Admin(name))) if !headers.contains_key("authorization") => {
                let proof = Proof::Certificate {
                    serial: peer.serial.clone(),
                    begins_at_ms: peer.begins_at_ms,
                    expires_at_ms: peer.expires_at_ms,
                    token: peer.token,
                };
                Identity { name: name.clone(), proof }
            }
            _ => self.by_token(self.root.shown(headers)?, state)?,
        };
        self.roles(&identity, state, now_ms).map(|_| identity)
    }

    fn by_token(&self, token: &str, state: &State) -> Result<Identity, Status> {
        let Ok(token) = token.parse::<PresentedToken>() else {
            self.root.check(token)?;
            let name = ROOT.parse().map_err(|_| self.root.wrong())?;
            return Ok(Identity { name, proof: Proof::Root });
        };
        let stored = state.admin(&token.name);
        let stored = stored.and_then(|admin| admin.tokens.iter().find(|stored| stored.id == token.id));
        let stored = stored.ok_or_else(|| self.root.wrong())?;
        verify_slices_are_equal(&sha256(token.secret.expose()), &stored.hash)
            .map_err(|_| self.root.wrong())?;
        Ok(Identity { name: token.name, proof: Proof::Token(token.id) })
    }

    /// What somebody may do, as `state` has it; refused when he is nobody any more.
    pub(crate) fn roles(&self, identity: &Identity, state: &State, now_ms: u64) -> Result<Vec<Role>, Status> {
        let stored = match &identity.proof {
            Proof::Root => return Ok(vec![Role::ClusterAdmin]),
            Proof::Federated(federated) => return federated.roles(state, now_ms / 1_000),
            Proof::Token(_) | Proof::Certificate { .. } => state.admin(&identity.name),
        };
        let stored = stored.ok_or_else(|| self.root.wrong())?;
        match &identity.proof {
            Proof::Root | Proof::Federated(_) => {}
            Proof::Token(id) => {
                let token = stored.tokens.iter().find(|token| token.id == *id);
                let token = token.ok_or_else(|| self.root.wrong())?;
                if token.expires_at_ms.is_some_and(|end| end <= now_ms) {
                    return Err(Status::unauthenticated(format!(
                        "the call's token has ended; `gantry admin rotate {}` makes another, by whoever may",
                        identity.name
                    )));
                }
            }
            Proof::Certificate { begins_at_ms, token, .. } => {
                // It begins a little before it was made. An older one is of another admin of this name.
                let skew = u64::try_from(CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
                // Certificates know whole seconds.
                let created_at_ms = stored.created_at_ms - stored.created_at_ms % 1_000;
                if begins_at_ms.saturating_add(skew) < created_at_ms {
                    return Err(Status::unauthenticated(
                        "the certificate is of an earlier admin of this name; have another one made",
                    ));
                }
                let counts = |id: &KeyId| {
                    let token = stored.tokens.iter().find(|token| token.id == *id);
                    token.is_some_and(|token| token.expires_at_ms.is_none_or(|end| end > now_ms))
                };
                if !token.as_ref().is_none_or(counts) {
                    return Err(Status::unauthenticated(
                        "the token that the certificate hangs on has ended; have another one made",
                    ));
                }
            }
        }
        Ok(stored.roles.clone())
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Root => formatter.write_str("start token"),
            Proof::Token(id) => write!(formatter, "token {id}"),
            Proof::Certificate { serial, .. } => write!(formatter, "certificate {serial}"),
            Proof::Federated(federated) => {
                write!(formatter, "token of {} for {:?}", federated.issuer, federated.subject)
            }
        }
    }
}

#[cfg(test)]
mod tests;
