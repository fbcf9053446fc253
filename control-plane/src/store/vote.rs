//! The vote, numbered, so that an older one that comes back is noticed.
//!
//! ```text
//! meta tree, key "vote": number u64 LE | the caller's vote
//! ```

use super::database::Database;
use super::record::{self, Damage};
use super::{Item, OpenError, WriteError};

const KEY: &[u8] = b"vote";

/// How many votes have been saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Votes {
    saved: u64,
}

impl Votes {
    /// Reads the newest vote.
    pub(super) fn open(database: &Database) -> Result<(Self, Option<Vec<u8>>), OpenError> {
        let damaged = |damage| OpenError::Damaged { item: Item::Vote, damage };
        let Some(value) = database.meta.get(KEY)? else {
            return Ok((Self { saved: 0 }, None));
        };
        let payload = record::unframe(KEY, &value).map_err(damaged)?;
        let (saved, vote) = payload.split_first_chunk::<8>().ok_or(damaged(Damage::Layout))?;
        Ok((Self { saved: u64::from_le_bytes(*saved) }, Some(vote.to_vec())))
    }

    /// Replaces the vote.
    pub(super) fn save(&mut self, database: &Database, vote: &[u8]) -> Result<(), WriteError> {
        let payload = [&(self.saved + 1).to_le_bytes(), vote].concat();
        if !record::fits_one_value(&payload) {
            return Err(WriteError::TooLarge { bytes: vote.len() });
        }
        database.write(&database.meta, [(KEY.to_vec(), Some(record::frame(KEY, &payload)))])?;
        self.saved += 1;
        Ok(())
    }

    /// The number of the newest vote.
    pub(super) fn saved(&self) -> u64 {
        self.saved
    }
}
