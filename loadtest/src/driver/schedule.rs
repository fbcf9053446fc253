//! When each call of an open loop is due, and what its latency counts from.
//!
//! What always holds: `due_at(i + 1) > due_at(i)`, the moments depend on the rate alone and never
//! on an answer, and a latency counts from the moment at which the call was due. So a target that
//! stalls is charged for every call that had to wait behind the stall (no coordinated omission).
//! It does not wait or send.

use std::time::{Duration, Instant};

/// Beyond this many calls one slot is a mistake: at 1,000/s it is almost three hours.
pub const TICKET_COUNT_MAX: u64 = 10_000_000;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Calls per second of an open loop, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

/// The number of a call in its schedule, from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The moments at which calls are due: first a warm-up, then the measured calls.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Instant,
    rate: Rate,
    warm_count: u64,
    total_count: u64,
}

impl Rate {
    /// `None` for zero and for rates finer than a nanosecond.
    #[must_use]
    pub fn per_second(calls: u64) -> Option<Self> {
        (1..=NANOSECONDS_PER_SECOND).contains(&calls).then_some(Self(calls))
    }

    /// How many calls become due within `duration`, at most [`TICKET_COUNT_MAX`].
    fn count_within(self, duration: Duration) -> u64 {
        let count = duration.as_nanos() * u128::from(self.0) / u128::from(NANOSECONDS_PER_SECOND);
        u64::try_from(count).map_or(TICKET_COUNT_MAX, |count| count.min(TICKET_COUNT_MAX))
    }
}

impl Schedule {
    /// Calls at `rate` from `start` on, of which those within `warm` are not measured.
    #[must_use]
    pub fn new(start: Instant, rate: Rate, warm: Duration, measured: Duration) -> Self {
        let warm_count = rate.count_within(warm);
        let total_count = (warm_count + rate.count_within(measured)).min(TICKET_COUNT_MAX);
        Self { start, rate, warm_count, total_count }
    }

    /// How many calls there are, warm-up included.
    #[must_use]
    pub fn total_count(&self) -> u64 {
        self.total_count
    }

    /// How many calls are measured.
    #[must_use]
    pub fn measured_count(&self) -> u64 {
        self.total_count - self.warm_count
    }

    /// The moment at which a call is due. Computed from the ticket, so that errors do not add up.
    #[must_use]
    pub fn due_at(&self, ticket: Ticket) -> Instant {
        let ticket = u128::from(ticket.0.min(TICKET_COUNT_MAX));
        let offset = ticket * u128::from(NANOSECONDS_PER_SECOND) / u128::from(self.rate.0);
        self.start + Duration::from_nanos(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// How many calls are due at `now`: the tickets below this number.
    #[must_use]
    pub fn due_count(&self, now: Instant) -> u64 {
        let Some(elapsed) = now.checked_duration_since(self.start) else {
            return 0;
        };
        // Ticket i is due at floor(i * second / rate) <= elapsed: i < (elapsed + 1 ns) * rate.
        let nanoseconds = (elapsed.as_nanos() + 1) * u128::from(self.rate.0);
        let count = nanoseconds.div_ceil(u128::from(NANOSECONDS_PER_SECOND));
        u64::try_from(count).map_or(self.total_count, |count| count.min(self.total_count))
    }

    /// The latency of a call answered at `completed`; `None` if it belongs to the warm-up.
    #[must_use]
    pub fn latency(&self, ticket: Ticket, completed: Instant) -> Option<Duration> {
        (ticket.0 >= self.warm_count).then(|| completed.saturating_duration_since(self.due_at(ticket)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn schedule(calls_per_second: u64, warm: Duration, measured: Duration) -> Schedule {
        let rate = Rate::per_second(calls_per_second).expect("the test is right");
        Schedule::new(Instant::now(), rate, warm, measured)
    }

    #[test]
    fn calls_are_due_at_a_fixed_distance_without_drift() {
        let schedule = schedule(3_000, Duration::ZERO, Duration::from_secs(100));
        assert_eq!(schedule.total_count(), 300_000);
        let due = |ticket| schedule.due_at(Ticket(ticket)) - schedule.start;
        assert_eq!(due(0), Duration::ZERO);
        assert_eq!(due(1), Duration::from_nanos(333_333));
        assert_eq!(due(3), MS);
        assert_eq!(due(299_997), Duration::from_millis(99_999));
    }

    #[test]
    fn exactly_the_tickets_before_the_due_count_are_due() {
        let schedule = schedule(7_000, Duration::ZERO, MS * 10);
        assert_eq!(schedule.due_count(schedule.start - MS), 0);
        for step in 0..2_000 {
            let now = schedule.start + Duration::from_micros(7) * step;
            let by_hand =
                (0..schedule.total_count()).filter(|ticket| schedule.due_at(Ticket(*ticket)) <= now).count();
            assert_eq!(schedule.due_count(now), by_hand as u64, "at step {step}");
        }
    }

    #[test]
    fn warm_up_calls_are_sent_but_not_measured() {
        let schedule = schedule(1_000, MS * 10, MS * 50);
        assert_eq!(schedule.total_count(), 60);
        assert_eq!(schedule.measured_count(), 50);
        let completed = schedule.start + Duration::from_secs(1);
        assert_eq!(schedule.latency(Ticket(9), completed), None);
        assert_eq!(schedule.latency(Ticket(10), completed), Some(MS * 990));
    }

    /// One connection, 1,000 calls/s, each served in 0.1 ms, except one that takes 100 ms. A driver
    /// that counts from the send sees one slow call; here the hundred behind it are slow too.
    #[test]
    fn a_stall_is_charged_to_every_call_that_waited_behind_it() {
        let schedule = schedule(1_000, Duration::ZERO, MS * 1_000);
        let mut free_at = schedule.start;
        let mut latencies = Vec::new();
        for ticket in (0..schedule.total_count()).map(Ticket) {
            let service = if ticket.0 == 500 { MS * 100 } else { MS / 10 };
            free_at = free_at.max(schedule.due_at(ticket)) + service;
            latencies.push(schedule.latency(ticket, free_at).expect("the test is right"));
        }
        assert_eq!(latencies[499], MS / 10);
        assert_eq!(latencies[500], MS * 100);
        assert_eq!(latencies[501], MS * 100 - MS + MS / 10);
        let slow = latencies.iter().filter(|latency| **latency > MS).count();
        assert_eq!(slow, 110, "the call, 99 due meanwhile, and 10 until the queue is empty");
        assert_eq!(latencies[999], MS / 10);
    }

    #[test]
    fn a_rate_is_at_least_one_and_at_most_one_per_nanosecond() {
        assert_eq!(Rate::per_second(0), None);
        assert_eq!(Rate::per_second(NANOSECONDS_PER_SECOND + 1), None);
        assert_eq!(Rate::per_second(1), Some(Rate(1)));
    }
}
