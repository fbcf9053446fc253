//! Numbers, keys and limits as bytes.
//!
//! Always holds: each has one form, and another is not read.

use super::Unreadable;
use crate::Key;
use crate::limit::{Limit, OnOwnerLoss};

/// The four numbers of a limit.
pub(super) fn write_limit(out: &mut Vec<u8>, limit: Limit) {
    for number in [limit.calls(), limit.window_seconds(), limit.burst()] {
        write_number(out, number.into());
    }
    out.push(match limit.on_owner_loss() {
        OnOwnerLoss::Floor => 0,
        OnOwnerLoss::Deny => 1,
        OnOwnerLoss::Allow => 2,
    });
}

/// Seven bits a byte, the lowest first.
pub(super) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What is left to be read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Unreadable),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn fixed(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn key(&mut self) -> Result<Key, Unreadable> {
        self.array().map(Key)
    }

    pub(super) fn number(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part.checked_shl(shift).is_none_or(|shifted| shifted >> shift != part) {
                return Err(Unreadable);
            }
            number |= part << shift;
            if byte < 0x80 {
                // One number has one form.
                return (byte != 0 || shift == 0).then_some(number).ok_or(Unreadable);
            }
        }
        Err(Unreadable)
    }

    pub(super) fn small(&mut self) -> Result<u32, Unreadable> {
        u32::try_from(self.number()?).map_err(|_| Unreadable)
    }

    pub(super) fn limit(&mut self) -> Result<Limit, Unreadable> {
        let (calls, window_seconds, burst) = (self.small()?, self.small()?, self.small()?);
        let on_owner_loss = match self.byte()? {
            0 => OnOwnerLoss::Floor,
            1 => OnOwnerLoss::Deny,
            2 => OnOwnerLoss::Allow,
            _ => return Err(Unreadable),
        };
        Limit::new(calls, window_seconds, burst, on_owner_loss).ok_or(Unreadable)
    }
}
