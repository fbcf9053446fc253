//! What must hold of every byte that a stranger may send, as functions of those bytes.
//!
//! A fuzzer (`tests/fuzz`) calls them with inputs that it makes up, and the tests below with those that it found worth
//! keeping. Always holds: each panics where its property does not hold, and with the same input always or never.
//! No part of the product: it is compiled for tests, and by `tests/fuzz`, which takes this module and `mcp` as they
//! stand, without the rest of the plane. So these two name nothing else of this crate.

mod envelope;
mod events;
mod headers;
mod sealed;

pub use envelope::envelope;
pub use events::events;
pub use headers::headers;
pub use sealed::sealed;

use super::mcp;

/// A number that depends on every byte (FNV-1a): decides what a property tries, so that an input replays.
fn digest(bytes: &[u8]) -> usize {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    // The upper half is mixed better, and fits everywhere.
    (hash >> 33) as usize
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Calls a property with everything that is kept for it.
    fn replay(target: &str, property: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
        let entries = fs::read_dir(&folder).expect("the corpus is there");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            // Shown when the property panics.
            println!("{}", file.display());
            property(&fs::read(&file).expect("an input"));
        }
    }

    #[test]
    fn every_body_that_is_kept_is_read_as_others_read_it() {
        replay("envelope", super::envelope);
    }

    #[test]
    fn every_stream_that_is_kept_has_the_same_events_however_it_is_cut() {
        replay("events", super::events);
    }

    #[test]
    fn every_head_that_is_kept_passes_only_if_it_says_what_its_body_says() {
        replay("headers", super::headers);
    }

    #[test]
    fn every_forgery_that_is_kept_stays_closed() {
        replay("sealed", super::sealed);
    }
}
