//! Work that can wait: to hash a large table takes seconds of a core, beside requests that must not wait for it.

use std::{thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Keeps the calling thread to a tenth of the machine, or a core where that is less.
///
/// A low priority does less. A core that is busy with what can wait does not count as idle, so the scheduler moves
/// nothing to it from the queue of another core, until some milliseconds later it balances all of them; and beside
/// requests that take both cores such work hardly gets on.
pub(super) struct Pace {
    /// What the thread had computed when it last rested.
    rested: Duration,
    /// How many times as long it rests as it computes.
    rest: f64,
}

impl Pace {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { rested: computed(), rest: rest_on(cores) }
    }

    /// Sleeps some times as long as the thread has computed since it last did. What it waited for a disk does not count.
    pub(super) fn rest(&mut self) {
        thread::sleep(computed().saturating_sub(self.rested).mul_f64(self.rest));
        self.rested = computed();
    }
}

/// For how long the calling thread has had a core.
fn computed() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// How many times as long a thread rests as it computes, to have a tenth of so many cores.
fn rest_on(cores: usize) -> f64 {
    (10.0 / cores as f64 - 1.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_more_cores_there_are_the_less_it_rests() {
        let rests = [1, 2, 10, 64].map(|cores| rest_on(cores).to_bits());
        assert_eq!(rests, [9.0_f64, 4.0, 0.0, 0.0].map(f64::to_bits));
    }

    #[test]
    fn it_rests_for_longer_than_it_computed() {
        let mut pace = Pace { rest: 4.0, ..Pace::new() };
        let work = Duration::from_millis(2);
        while computed().saturating_sub(pace.rested) < work {}
        let start = Instant::now();
        pace.rest();
        assert!(start.elapsed() >= 4 * work);
        thread::sleep(work);
        assert!(computed().saturating_sub(pace.rested) < work, "to wait is not to compute");
    }
}
