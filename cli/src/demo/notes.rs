//! The notes of the demo server.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Notes by id. They can be read and deleted, not written: the set never grows.
#[derive(Debug)]
pub(super) struct Notes(Mutex<BTreeMap<u64, Note>>);

/// One note.
#[derive(Debug, Clone)]
pub(super) struct Note {
    /// Its title.
    pub(super) title: &'static str,
    /// Its text.
    pub(super) text: &'static str,
}

impl Default for Notes {
    fn default() -> Notes {
        let note = |title, text| Note { title, text };
        Notes(Mutex::new(BTreeMap::from([
            (
                1,
                note(
                    "Welcome",
                    "This note was read through Gantry: the call was identified, authorised, checked, metered and recorded.",
                ),
            ),
            (2, note("Groceries", "Bread, olives, coffee.")),
            (3, note("On call", "The pager is Ada's until Thursday, then Grace's.")),
        ])))
    }
}

impl Notes {
    /// Ids and titles.
    pub(super) fn titles(&self) -> Vec<(u64, &'static str)> {
        self.lock().iter().map(|(id, note)| (*id, note.title)).collect()
    }

    /// A note.
    pub(super) fn read(&self, id: u64) -> Option<Note> {
        self.lock().get(&id).cloned()
    }

    /// Deletes a note; whether it was there.
    pub(super) fn delete(&self, id: u64) -> bool {
        self.lock().remove(&id).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Note>> {
        // No operation leaves the map half changed, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
