//! Calls of legacy sessions that are held before they are forwarded, so that their clients can cancel them: no server and
//! no home has heard of them.
//!
//! Always holds: a call is here for as long as its place is kept, at most [`CALLS_MAX`] of a node; whoever says that a call is
//! cancelled, or its session over, ends all of them that go by that name. A call without a session is not here, because
//! nothing tells it from others of the same id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// Calls that may wait or take an approval at one time: ten times what is held, since who is not held is answered soon.
const CALLS_MAX: usize = 1_024;

/// The calls that are held on a node.
#[derive(Default)]
pub(crate) struct HeldCalls(Mutex<HashMap<Name, Known>>);

/// The token of a session, and the id of a request as raw JSON.
type Name = (Arc<str>, Bytes);

struct Known {
    cancelled: CancellationToken,
    /// Of this name: a client may use an id twice.
    count: usize,
}

/// The place of one call; dropped, it is forgotten.
pub(crate) struct HeldCall {
    calls: Arc<HeldCalls>,
    name: Name,
    pub(crate) cancelled: CancellationToken,
}

impl HeldCalls {
    /// A place for a call; `None`: as many as may be are held.
    pub(crate) fn begin(self: &Arc<Self>, session: &Arc<str>, id: &Bytes) -> Option<HeldCall> {
        let mut calls = self.lock();
        if calls.values().map(|known| known.count).sum::<usize>() >= CALLS_MAX {
            return None;
        }
        let name = (session.clone(), id.clone());
        let known = calls
            .entry(name.clone())
            .or_insert_with(|| Known { cancelled: CancellationToken::new(), count: 0 });
        known.count += 1;
        Some(HeldCall { calls: self.clone(), name, cancelled: known.cancelled.clone() })
    }

    /// Cancels a call. Returns whether it is held here.
    pub(crate) fn cancel(&self, session: &Arc<str>, id: &Bytes) -> bool {
        let calls = self.lock();
        let known = calls.get(&(session.clone(), id.clone()));
        known.inspect(|known| known.cancelled.cancel()).is_some()
    }

    /// Cancels all of a session.
    pub(crate) fn end(&self, session: &str) {
        for (_, known) in self.lock().iter().filter(|((of, _), _)| **of == *session) {
            known.cancelled.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldCall {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        if let Some(known) = calls.get_mut(&self.name) {
            known.count -= 1;
            if known.count == 0 {
                calls.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(calls: &Arc<HeldCalls>, session: &str, id: &'static str) -> Option<HeldCall> {
        calls.begin(&session.into(), &Bytes::from_static(id.as_bytes()))
    }

    #[test]
    fn a_call_is_cancelled_by_its_name_or_with_its_session_and_no_other_is() {
        let calls = Arc::new(HeldCalls::default());
        let [one, again, other, of_other] = [("s", "1"), ("s", "1"), ("s", "\"1\""), ("t", "1")]
            .map(|(session, id)| begin(&calls, session, id).expect("a place"));
        assert!(calls.cancel(&"s".into(), &Bytes::from_static(b"1")));
        let cancelled = |held: [&HeldCall; 4]| held.map(|held| held.cancelled.is_cancelled());
        assert_eq!(cancelled([&one, &again, &other, &of_other]), [true, true, false, false]);
        calls.end("s");
        assert_eq!(cancelled([&one, &again, &other, &of_other]), [true, true, true, false]);
        drop((one, other, of_other));
        assert!(calls.cancel(&"s".into(), &Bytes::from_static(b"1")), "the other of this id is there");
        drop(again);
        assert!(!calls.cancel(&"s".into(), &Bytes::from_static(b"1")) && calls.lock().is_empty());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let calls = Arc::new(HeldCalls::default());
        let held: Vec<_> = (0..CALLS_MAX).map(|_| begin(&calls, "s", "1").expect("a place")).collect();
        assert!(begin(&calls, "t", "1").is_none());
        drop(held);
        assert!(begin(&calls, "t", "1").is_some());
    }
}
