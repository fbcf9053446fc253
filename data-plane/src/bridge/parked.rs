//! Calls that wait on this node for their client's next request (modern client, legacy server that asks).
//!
//! Always holds: a parked call is found by its number and resumed only by the principal that made it, for the same
//! method and name; one that nobody resumes is cancelled at its server.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::mpsc;

use crate::bridge::outlet::Outlet;
use crate::mcp::message::Id;
use crate::pipeline::Caller;

/// Calls that may be parked on a node; each holds a request to its server.
const PARKED_MAX: usize = 4_096;

/// The calls that wait here.
#[derive(Default)]
pub(crate) struct Parked {
    calls: DashMap<u64, Waiting>,
    next: AtomicU64,
}

struct Waiting {
    owner: String,
    about: String,
    resume: mpsc::Sender<Resume>,
}

/// What resumes a call.
pub(crate) struct Resume {
    pub(crate) outlet: Outlet,
    /// Of the client's new request.
    pub(crate) id: Id,
    /// Of the client's new request, as raw JSON.
    pub(crate) progress_token: Option<Bytes>,
    /// The client's answers, as raw JSON.
    pub(crate) responses: Option<Bytes>,
}

/// A call's place; dropped, it is forgotten.
pub(crate) struct Place<'a> {
    parked: &'a Parked,
    pub(crate) number: u64,
    resumed: mpsc::Receiver<Resume>,
}

impl Parked {
    /// Gives a call a place; `None` when there are too many.
    pub(crate) fn park(&self, caller: &Caller, about: String) -> Option<Place<'_>> {
        if self.calls.len() >= PARKED_MAX {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (resume, resumed) = mpsc::channel(1);
        self.calls.insert(number, Waiting { owner: owner(caller), about, resume });
        Some(Place { parked: self, number, resumed })
    }

    /// Resumes a call; gives back what was to resume it when there is none such.
    pub(crate) fn resume(
        &self,
        number: u64,
        caller: &Caller,
        about: &str,
        resume: Resume,
    ) -> Result<(), Resume> {
        let is_its = |waiting: &Waiting| waiting.owner == owner(caller) && waiting.about == about;
        match self.calls.remove_if(&number, |_, waiting| is_its(waiting)) {
            Some((_, waiting)) => {
                waiting.resume.try_send(resume).map_err(mpsc::error::TrySendError::into_inner)
            }
            None => Err(resume),
        }
    }
}

impl Place<'_> {
    /// Waits until the call is resumed.
    pub(crate) async fn resumed(&mut self) -> Option<Resume> {
        self.resumed.recv().await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.parked.calls.remove(&self.number);
    }
}

fn owner(caller: &Caller) -> String {
    format!("{}/{}/{}", caller.tenant.name, caller.endpoint.name, caller.principal_id())
}
