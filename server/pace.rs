//! Work that can wait, beside requests that must not wait for it: to hash a large table, which takes seconds of a core, or
//! to look at rows that were answered.

use std::{thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Keeps the calling thread to a share of the machine or of a core.
///
/// A low priority does less. A core that is busy with what can wait does not count as idle, so the scheduler moves
/// nothing to it from the queue of another core, until some milliseconds later it balances all of them; and beside
/// requests that take both cores such work hardly gets on.
pub struct Pace {
    /// What the thread had computed when it last rested.
    rested: Duration,
    /// How many times as long it rests as it computes.
    rest: f64,
}

impl Pace {
    /// A share of the machine, or a core where that is less.
    pub fn of_machine(share: f64) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::of_core(share * cores as f64)
    }

    /// A share of a core, above 0.
    pub fn of_core(share: f64) -> Self {
        Self { rested: computed(), rest: rest(share) }
    }

    /// Sleeps some times as long as the thread has computed since it last did. What it waited for a disk does not count.
    pub fn rest(&mut self) {
        thread::sleep(computed().saturating_sub(self.rested).mul_f64(self.rest));
        self.rested = computed();
    }
}

/// For how long the calling thread has had a core.
fn computed() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// How many times as long a thread rests as it computes, to have that share of a core.
fn rest(share: f64) -> f64 {
    (1.0 / share - 1.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_more_of_a_core_it_has_the_less_it_rests() {
        let rests = [0.01, 0.1, 0.2, 0.4, 1.0, 6.4].map(|share| format!("{:.1}", rest(share)));
        assert_eq!(rests, ["99.0", "9.0", "4.0", "1.5", "0.0", "0.0"]);
    }

    #[test]
    fn it_rests_for_longer_than_it_computed() {
        let mut pace = Pace::of_core(0.2);
        let work = Duration::from_millis(2);
        while computed().saturating_sub(pace.rested) < work {}
        let start = Instant::now();
        pace.rest();
        assert!(start.elapsed() >= 4 * work);
        thread::sleep(work);
        assert!(computed().saturating_sub(pace.rested) < work, "to wait is not to compute");
    }
}
