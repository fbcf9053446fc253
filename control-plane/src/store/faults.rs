//! Faults that tests put between the store and its database.
//!
//! A fault stops the I/O thread exactly where a crash would: the writes before it are written, the ones after never.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::WriteError;

/// Nothing fails unless a test asks for it.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    writes_left: Mutex<Option<u64>>,
    gate: Mutex<Gate>,
    changed: Condvar,
    any_order: AtomicBool,
}

#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waiting: bool,
}

impl Faults {
    /// Lets this many more writes through, then fails every one.
    pub(crate) fn fail_after(&self, writes: u64) {
        *self.writes_left.lock().unwrap_or_else(PoisonError::into_inner) = Some(writes);
    }

    /// Holds every sync until [`Faults::open_gate`].
    pub(crate) fn close_gate(&self) {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    /// Waits until a sync stands at the closed gate.
    pub(crate) fn wait_for_sync(&self) {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(gate, |gate| !gate.waiting).unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets the syncs go on.
    pub(crate) fn open_gate(&self) {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).closed = false;
        self.changed.notify_all();
    }

    /// Lets entries be appended in any order. openraft's suite appends below the purge mark, which openraft never does.
    pub(crate) fn accept_any_order(&self) {
        self.any_order.store(true, Ordering::Relaxed);
    }

    pub(super) fn accepts_any_order(&self) -> bool {
        self.any_order.load(Ordering::Relaxed)
    }

    pub(super) fn before_write(&self) -> Result<(), WriteError> {
        let mut left = self.writes_left.lock().unwrap_or_else(PoisonError::into_inner);
        match left.as_mut() {
            None => Ok(()),
            Some(0) => Err(WriteError::Injected),
            Some(writes) => {
                *writes -= 1;
                Ok(())
            }
        }
    }

    pub(super) fn before_sync(&self) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.waiting = true;
        self.changed.notify_all();
        gate = self.changed.wait_while(gate, |gate| gate.closed).unwrap_or_else(PoisonError::into_inner);
        gate.waiting = false;
    }
}
