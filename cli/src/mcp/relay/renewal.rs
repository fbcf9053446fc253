//! A session that the endpoint forgot, begun anew: after the death of a server, an update, or a long rest.
//!
//! Always holds: a message is sent again only once, and only when the endpoint does not know its session (404), which
//! means that it did nothing. The agent notices nothing: it is not told of the second answer to its `initialize`.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::super::McpError;
use super::super::envelope::Envelope;
use super::Wire;
use crate::failure::chain;
use crate::output;

/// Ends the opening of a session.
const INITIALIZED: Bytes = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);

impl Wire {
    /// Sends a message; once more, in a new session, when the endpoint forgot its session.
    pub(super) async fn send_in_session(
        &self,
        body: Bytes,
        envelope: &Envelope,
    ) -> Result<Response<Incoming>, McpError> {
        let session = self.state().session.clone();
        let response = self.send(Method::POST, Some(body.clone()), Some(envelope)).await?;
        let is_of_session = envelope.modern.is_none() && envelope.method != "initialize";
        match session {
            Some(lost) if is_of_session && response.status() == StatusCode::NOT_FOUND => {
                if self.renew(&lost).await {
                    self.send(Method::POST, Some(body), Some(envelope)).await
                } else {
                    Ok(response)
                }
            }
            Some(_) | None => Ok(response),
        }
    }

    /// Begins a new session in place of one that is lost. Returns whether there is one.
    pub(super) async fn renew(&self, lost: &str) -> bool {
        let _one_at_a_time = self.renewing.lock().await;
        let initialize = {
            let state = self.state();
            if state.session.as_deref() != Some(lost) {
                return state.session.is_some();
            }
            state.initialize.clone()
        };
        let Some(initialize) = initialize else { return false };
        match self.initialize(initialize).await {
            Ok(()) => self.state().session.as_deref() != Some(lost),
            Err(error) => {
                output::warn(&format!(
                    "the session ended and cannot be begun anew: {}",
                    output::visible(&chain(&error))
                ));
                false
            }
        }
    }

    async fn initialize(&self, body: Bytes) -> Result<(), McpError> {
        let envelope = Envelope::read(&body).map_err(|_| McpError::NoAnswer)?;
        let response = self.send(Method::POST, Some(body), Some(&envelope)).await?;
        if !response.status().is_success() {
            let (status, text) = (response.status().as_u16(), "initialize was refused".to_owned());
            return Err(McpError::NotMcp { status, text });
        }
        self.note_session(&envelope, &response);
        // The agent has its answer; nobody reads this one.
        let (unread, _) = mpsc::channel(1);
        self.answer(&envelope, response, &unread).await?;
        let envelope = Envelope::read(&INITIALIZED).map_err(|_| McpError::NoAnswer)?;
        self.send(Method::POST, Some(INITIALIZED), Some(&envelope)).await?;
        Ok(())
    }
}
