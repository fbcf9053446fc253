//! Credential: the secret that the server needs, as a header of the request to it.
//!
//! Always holds: this is the only stage that opens a secret. What the client sent as its own authorization is never
//! passed on; the forward stage takes headers from a list that does not have it.

use http::{HeaderName, HeaderValue};

use super::approve::Pass;
use super::discover::Subject;
use super::limit::{Admitted, Budget};
use super::{Caller, Received};
use crate::rejection::Rejection;

/// Proof that the request has what the server needs. Only this stage builds it.
pub(super) struct Credentialed {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    pub(super) header: Option<(HeaderName, HeaderValue)>,
    pub(super) pass: Pass,
    pub(super) budget: Budget,
    _private: (),
}

pub(super) fn credential(admitted: Admitted) -> Result<Credentialed, Rejection> {
    let Admitted { caller, received, subject, pass, budget, .. } = admitted;
    let server = subject.server().or_else(|| match &subject {
        // What is relayed without naming anything goes to the one server that there is.
        Subject::Protocol => caller.endpoint.only(),
        _ => None,
    });
    let header = match server {
        Some(server) => server.credential_header()?,
        None => None,
    };
    Ok(Credentialed { caller, received, subject, header, pass, budget, _private: () })
}

impl crate::config::server::Credential {
    /// As a header with its secret, marked so that it is never printed; `None` until the secret was put.
    pub(crate) fn as_header(&self) -> Option<(HeaderName, HeaderValue)> {
        let mut value = HeaderValue::from_bytes(self.value.as_ref()?.expose()).ok()?;
        value.set_sensitive(true);
        Some((self.header.clone(), value))
    }
}

impl crate::config::server::Server {
    /// The header of the server's credential with its secret, marked so that it is never printed.
    pub(crate) fn credential_header(&self) -> Result<Option<(HeaderName, HeaderValue)>, Rejection> {
        let Some(credential) = &self.credential else { return Ok(None) };
        let missing = || Rejection::NoCredential(credential.name.to_string());
        credential.as_header().map(Some).ok_or_else(missing)
    }
}
