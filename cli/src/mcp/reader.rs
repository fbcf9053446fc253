//! Reading the body of an answer as it comes: messages of a stream, or all of it.
//!
//! Always holds: an unfinished event, and a body that is no stream, have at most [`ANSWER_BYTES_MAX`] bytes.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::events::Events;
use super::{ANSWER_BYTES_MAX, McpError};

/// The messages of a stream of events.
pub(super) struct Reader {
    body: Incoming,
    events: Events,
    ready: VecDeque<Vec<u8>>,
}

impl Reader {
    /// Reads the body of an answer.
    pub(super) fn new(body: Incoming) -> Reader {
        Reader { body, events: Events::default(), ready: VecDeque::new() }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, McpError> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let Ok(data) = frame.map_err(McpError::Broken)?.into_data() else { continue };
            // The empty event that opens a resumable stream is passed over.
            self.ready.extend(self.events.push(&data).into_iter().filter(|event| !event.is_empty()));
            if self.events.kept() > ANSWER_BYTES_MAX {
                return Err(McpError::TooLarge);
            }
        }
    }
}

/// A body that is no stream, as a whole.
pub(super) async fn whole(mut body: Incoming) -> Result<Vec<u8>, McpError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(McpError::Broken)?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(McpError::TooLarge);
        }
    }
    Ok(bytes)
}
