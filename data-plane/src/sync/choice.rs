//! Which control plane a node follows, and how long it waits before it tries the next.
//!
//! Always holds: it stays where it is while that works; after a failure it goes to another one, each as likely, where
//! there is another. The pause is anything from nothing to a bound that doubles with each failure in a row, up to
//! [`PAUSE_MAX`] (full jitter): a thousand nodes that lose their control plane at one moment do not come back at one.
//! Only an update that was taken ends the row, so nobody is hammered who takes nodes and sends them away.

use std::time::Duration;

use aws_lc_rs::rand;

/// Most of the first pause: on its own connection a node is back before anybody notices.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Most of any pause: how late a node may notice that its control plane is back, and what a thousand nodes cost that
/// ask one which is not.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Doublings after which the bound is reached.
const DOUBLINGS_MAX: u32 = 6;

/// The control planes, and the one that is followed.
pub(crate) struct Choice {
    /// Not empty.
    addresses: Vec<String>,
    current: usize,
    /// In a row.
    failures: u32,
}

impl Choice {
    /// Begins with any of them; `None` when there is none.
    pub(crate) fn of(addresses: Vec<String>) -> Option<Choice> {
        if addresses.is_empty() {
            return None;
        }
        let current = below(addresses.len(), random());
        Some(Choice { addresses, current, failures: 0 })
    }

    /// All of them, as `HOST:PORT`.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.addresses.iter().map(|address| bare(address).to_owned()).collect()
    }

    /// The one that is followed.
    pub(super) fn current(&self) -> &str {
        &self.addresses[self.current]
    }

    /// It brought an update, which was taken.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }

    /// It could not be reached, or its stream ended. Goes to another, and returns how long to wait before it is asked.
    pub(super) fn failed(&mut self) -> Duration {
        self.failed_by(random)
    }

    fn failed_by(&mut self, mut random: impl FnMut() -> u64) -> Duration {
        let others = self.addresses.len() - 1;
        if others > 0 {
            self.current = (self.current + 1 + below(others, random())) % self.addresses.len();
        }
        let most = (PAUSE_FIRST * 2_u32.pow(self.failures)).min(PAUSE_MAX);
        self.failures = (self.failures + 1).min(DOUBLINGS_MAX);
        let most = usize::try_from(most.as_micros()).unwrap_or(usize::MAX);
        Duration::from_micros(below(most + 1, random()) as u64)
    }
}

/// An address without its scheme.
pub(super) fn bare(address: &str) -> &str {
    let without_scheme = address.split_once("://").map_or(address, |(_, rest)| rest);
    without_scheme.trim_end_matches('/')
}

/// A number below a bound that is not 0. The bounds here are so small that none is noticeably more likely.
fn below(bound: usize, random: u64) -> usize {
    usize::try_from(random % bound as u64).unwrap_or_default()
}

/// Without randomness, pauses are merely equal.
fn random() -> u64 {
    let mut bytes = [0x55; 8];
    let _ = rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn three() -> Choice {
        let addresses = ["a", "b", "c"].map(str::to_owned).to_vec();
        Choice::of(addresses).expect("there are some")
    }

    #[test]
    fn it_begins_anywhere_and_goes_to_any_other() {
        let begun: BTreeSet<_> = (0..200).map(|_| three().current().to_owned()).collect();
        assert_eq!(begun, BTreeSet::from(["a", "b", "c"].map(str::to_owned)));
        let mut seen = BTreeSet::new();
        let mut choice = three();
        for _ in 0..200 {
            let before = choice.current().to_owned();
            choice.failed();
            assert_ne!(choice.current(), before);
            seen.insert((before, choice.current().to_owned()));
        }
        assert_eq!(seen.len(), 6, "{seen:?}");
        assert!(Choice::of(Vec::new()).is_none());
    }

    #[test]
    fn the_longest_pause_doubles_up_to_its_bound_and_begins_anew_after_an_update() {
        // The last number below any bound, and no other address, so that each random number is a pause.
        let longest = |choice: &mut Choice| {
            let bound = (PAUSE_FIRST * 2_u32.pow(choice.failures)).min(PAUSE_MAX);
            choice.failed_by(|| bound.as_micros() as u64)
        };
        let mut choice = Choice::of(vec!["a".to_owned()]).expect("there is one");
        let pauses: Vec<_> = (0..9).map(|_| longest(&mut choice).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
        choice.worked();
        assert_eq!([longest(&mut choice).as_millis(), longest(&mut choice).as_millis()], [100, 200]);
        assert_eq!(choice.failed_by(|| 0), Duration::ZERO);
        assert_eq!(choice.current(), "a");
    }
}
