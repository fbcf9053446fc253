//! When a node last heard from a control plane, from any of them.
//!
//! Always holds: while a stream is open on which something came, that is now. Time is counted by the monotonic clock
//! while the process runs, so a wall clock that is set changes nothing. What passed before the process began is told
//! by the wall clock; where that cannot be (it says that it is earlier than when the node last heard), the silence
//! counts as endless: a clock that goes back shall not keep alive what was to end. The monotonic clock stands still
//! while a machine is suspended; that time does not count.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How far a wall clock may go back between two starts without being disbelieved: what keeping it right takes.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(5);

/// Who asks it: every request of a tenant that has a say in this, and who ends its streams.
#[derive(Debug)]
pub(crate) struct Contact(watch::Sender<Heard>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Never, as far as is known.
    Never,
    /// A stream is open.
    Now,
    /// The silence was `before` long at `at`.
    Last { at: Instant, before: Duration },
}

impl Default for Contact {
    fn default() -> Contact {
        Contact(watch::Sender::new(Heard::Never))
    }
}

impl Contact {
    /// How long nothing was heard; endless where that is not known.
    pub(crate) fn silence(&self) -> Duration {
        self.silence_at(Instant::now())
    }

    fn silence_at(&self, now: Instant) -> Duration {
        match *self.0.borrow() {
            Heard::Never => Duration::MAX,
            Heard::Now => Duration::ZERO,
            Heard::Last { at, before } => before.saturating_add(now.saturating_duration_since(at)),
        }
    }

    /// Tells when a stream begins or ends.
    pub(super) fn changes(&self) -> watch::Receiver<impl Sized + use<>> {
        self.0.subscribe()
    }

    /// A process begins with what it kept; `heard_at_ms` is when the one before it last heard, by the wall clock.
    pub(super) fn begin(&self, heard_at_ms: u64, now_ms: u64) {
        let before = match now_ms.checked_sub(heard_at_ms) {
            Some(before) => Duration::from_millis(before),
            None if Duration::from_millis(heard_at_ms - now_ms) <= CLOCK_STEP_MAX => Duration::ZERO,
            None => Duration::MAX,
        };
        self.0.send_replace(Heard::Last { at: Instant::now(), before });
    }

    /// Something came on a stream.
    pub(super) fn hears(&self) {
        self.0.send_if_modified(|heard| std::mem::replace(heard, Heard::Now) != Heard::Now);
    }

    /// The stream ended. Returns whether anything had come on it.
    pub(super) fn lost(&self) -> bool {
        let last = Heard::Last { at: Instant::now(), before: Duration::ZERO };
        self.0.send_if_modified(|heard| {
            let heard_something = *heard == Heard::Now;
            if heard_something {
                *heard = last;
            }
            heard_something
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn silence_begins_when_a_stream_ends_and_is_over_with_the_first_word() {
        let contact = Contact::default();
        let minute = Duration::from_secs(60);
        assert_eq!(contact.silence(), Duration::MAX);
        assert!(!contact.lost(), "nothing was heard on it");
        assert_eq!(contact.silence(), Duration::MAX);
        contact.hears();
        assert_eq!(contact.silence_at(Instant::now() + minute), Duration::ZERO);
        assert!(contact.lost());
        let later = Instant::now() + minute;
        let silence = contact.silence_at(later);
        assert!((minute..2 * minute).contains(&silence), "{silence:?}");
        // Attempts in vain do not begin it anew.
        assert!(!contact.lost());
        assert_eq!(contact.silence_at(later), silence);
        contact.hears();
        assert_eq!(contact.silence_at(later), Duration::ZERO);
    }

    #[test]
    fn what_passed_before_the_start_counts_unless_the_clock_went_back() {
        for (heard_at_ms, now_ms, before) in [
            (HOUR_MS, 2 * HOUR_MS, Duration::from_secs(3_600)),
            (HOUR_MS, HOUR_MS, Duration::ZERO),
            (HOUR_MS, HOUR_MS - 5_000, Duration::ZERO),
            (HOUR_MS, HOUR_MS - 5_001, Duration::MAX),
            (HOUR_MS, 0, Duration::MAX),
        ] {
            let contact = Contact::default();
            let started = Instant::now();
            contact.begin(heard_at_ms, now_ms);
            let begun = Instant::now();
            let minute = Duration::from_secs(60);
            let silence = contact.silence_at(started + minute);
            let what = format!("heard at {heard_at_ms}, started at {now_ms}: {silence:?}");
            assert!(silence <= before.saturating_add(minute), "{what}");
            assert!(contact.silence_at(begun + minute) >= before.saturating_add(minute), "{what}");
        }
    }
}
