//! Join tokens that were not good, counted by address.
//!
//! Always holds: an address that presented [`FAILURES_MAX`] bad tokens within [`WINDOW`] is not listened to until that
//! has passed; at most [`ADDRESSES_MAX`] addresses are remembered, and when all of them are busy failing, no further
//! address is listened to. A token's secret has 256 bits: this bounds work and noise, guessing is hopeless anyway.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// More than a person mistypes, and than a fleet behind one address gets wrong by chance.
pub(super) const FAILURES_MAX: u32 = 10;
/// How long failures count, from the first of them.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Far more than join at a time; a hundred bytes each.
pub(super) const ADDRESSES_MAX: usize = 4_096;

/// Who failed of late.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug)]
struct Failures {
    first: Instant,
    count: u32,
}

impl Attempts {
    /// Whether an address is listened to.
    pub(super) fn may_try(&self, address: IpAddr, now: Instant) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = failures.get(&origin(address))
            && now.duration_since(known.first) < WINDOW
        {
            return known.count < FAILURES_MAX;
        }
        if failures.len() >= ADDRESSES_MAX {
            failures.retain(|_, known| now.duration_since(known.first) < WINDOW);
        }
        failures.len() < ADDRESSES_MAX
    }

    /// Counts a token that was not good.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failures.entry(origin(address)).or_insert(Failures { first: now, count: 0 });
        if now.duration_since(known.first) >= WINDOW {
            *known = Failures { first: now, count: 0 };
        }
        known.count += 1;
    }
}

/// One machine has as many addresses of version 6 as it likes, within a network of 64 bits.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_often_is_not_listened_to_for_a_while() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for _ in 0..FAILURES_MAX {
            assert!(attempts.may_try(address("10.0.0.1"), now));
            attempts.failed(address("10.0.0.1"), now);
        }
        assert!(!attempts.may_try(address("10.0.0.1"), now));
        assert!(!attempts.may_try(address("::ffff:10.0.0.1"), now), "the same by another name");
        assert!(attempts.may_try(address("10.0.0.2"), now));
        assert!(attempts.may_try(address("10.0.0.1"), now + WINDOW));
        attempts.failed(address("10.0.0.1"), now + WINDOW);
        assert!(attempts.may_try(address("10.0.0.1"), now + WINDOW), "counted anew");

        for host in 0..FAILURES_MAX {
            attempts.failed(address(&format!("fd00:1:2:3::{host}")), now);
        }
        assert!(!attempts.may_try(address("fd00:1:2:3:4:5:6:7"), now));
        assert!(attempts.may_try(address("fd00:1:2:4::1"), now));
    }

    #[test]
    fn addresses_are_remembered_up_to_a_bound() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for host in 0..ADDRESSES_MAX as u32 {
            attempts.failed(IpAddr::V4(host.into()), now);
        }
        let stranger = IpAddr::V4(0x0a00_0001.into());
        assert!(!attempts.may_try(stranger, now));
        assert!(attempts.may_try(IpAddr::V4(5.into()), now), "one that is known may go on");
        assert!(attempts.may_try(stranger, now + WINDOW));
    }
}
