//! Whether a queue stands, pure. A queue that takes up bursts empties again; one that does not, only delays everybody
//! behind it. This is the signal of `CoDel` (RFC 8289): the wait has not once been short for a whole interval.

use std::time::{Duration, Instant};

/// Watches how long rows wait for their batch to close.
#[derive(Clone, Debug)]
pub(super) struct Codel {
    target: Duration,
    /// Since when every wait was longer than the target.
    long_since: Option<Instant>,
}

impl Codel {
    /// For a queue in which the shortest wait should be within `target`.
    pub(super) fn new(target: Duration) -> Self {
        Self { target, long_since: None }
    }

    /// Sees a batch close whose youngest member has waited for `wait`.
    pub(super) fn see(&mut self, now: Instant, wait: Duration) {
        if wait <= self.target {
            self.long_since = None;
        } else {
            self.long_since.get_or_insert(now);
        }
    }

    /// How long rows that come in may have to wait; `None` unless the queue stands.
    pub(super) fn wait_to_enter(&self, now: Instant) -> Option<Duration> {
        self.stands(now).then(|| self.target.saturating_mul(WAIT_TO_ENTER))
    }

    /// How long rows that were let in may have waited; `None` unless the queue stands. Some longer, so that nobody is let
    /// in and then refused because an estimate was off by a little.
    pub(super) fn wait_to_stay(&self, now: Instant) -> Option<Duration> {
        self.stands(now).then(|| self.target.saturating_mul(WAIT_TO_STAY))
    }

    fn stands(&self, now: Instant) -> bool {
        let interval = self.target.saturating_mul(INTERVAL_IN_TARGETS).max(SHORTEST_INTERVAL);
        self.long_since.is_some_and(|since| now.saturating_duration_since(since) >= interval)
    }
}

/// In targets, as is the next.
const WAIT_TO_ENTER: u32 = 2;

const WAIT_TO_STAY: u32 = 3;

/// A burst that is served within so many targets is none of `CoDel`'s business.
const INTERVAL_IN_TARGETS: u32 = 2;

/// A shorter interval would take a pause of the machine for overload.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_queue_stands_once_every_wait_of_an_interval_was_long_and_no_longer_after_a_short_one() {
        let start = Instant::now();
        let mut codel = Codel::new(ms(100));
        for at in (0..200).step_by(10) {
            assert_eq!(codel.wait_to_enter(start + ms(at)), None, "after {at} ms");
            codel.see(start + ms(at), ms(101));
        }
        assert_eq!(codel.wait_to_enter(start + ms(200)), Some(ms(200)));
        assert_eq!(codel.wait_to_stay(start + ms(200)), Some(ms(300)));
        codel.see(start + ms(210), ms(100));
        assert_eq!(codel.wait_to_enter(start + ms(1_000)), None);
        assert_eq!(codel.wait_to_stay(start + ms(1_000)), None);
    }

    #[test]
    fn a_short_target_still_leaves_a_pause_of_the_machine_alone() {
        let start = Instant::now();
        let mut codel = Codel::new(ms(1));
        codel.see(start, ms(50));
        assert_eq!(codel.wait_to_enter(start + ms(99)), None);
        assert_eq!(codel.wait_to_enter(start + ms(100)), Some(ms(2)));
    }
}
