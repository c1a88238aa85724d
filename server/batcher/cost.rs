//! What batches cost, pure: measured while the engine warmed up, corrected by every batch that runs.

use std::time::Duration;

use crate::engine::BatchCost;

/// What a batch of some rows costs on one engine.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    /// From warm-up, by rows.
    measured: Vec<BatchCost>,
    /// How much longer batches take than they did then.
    ratio: f64,
    /// How far a batch is from that on average.
    deviation: f64,
}

impl Costs {
    /// What warm-up has `measured`, sizes ascending. Without any, a batch costs nothing.
    pub(super) fn new(measured: Vec<BatchCost>) -> Self {
        debug_assert!(measured.is_sorted_by_key(|cost| cost.rows), "sizes ascend");
        Self { measured, ratio: 1.0, deviation: 0.0 }
    }

    /// What a batch of so many rows is expected to cost.
    pub(super) fn expected(&self, rows: usize) -> Duration {
        self.at_warm_up(rows).mul_f64(self.ratio)
    }

    /// What a batch of so many rows hardly ever exceeds.
    pub(super) fn cautious(&self, rows: usize) -> Duration {
        self.at_warm_up(rows).mul_f64(self.ratio + DEVIATIONS * self.deviation)
    }

    /// Learns that a batch of so many rows took this long.
    pub(super) fn learn(&mut self, rows: usize, took: Duration) {
        let expected = self.at_warm_up(rows).as_secs_f64();
        if expected <= 0.0 {
            return;
        }
        let ratio = (took.as_secs_f64() / expected).min(LARGEST_RATIO);
        let error = ratio - self.ratio;
        self.deviation += WEIGHT * (error.abs() - self.deviation);
        self.ratio += WEIGHT * error;
    }

    /// What a batch of so many rows cost during warm-up: on the line between the sizes that were measured, and in
    /// proportion to the rows beyond them.
    fn at_warm_up(&self, rows: usize) -> Duration {
        if rows == 0 {
            return Duration::ZERO;
        }
        let next = self.measured.partition_point(|cost| cost.rows < rows);
        let Some(above) = self.measured.get(next) else {
            let Some(last) = self.measured.last() else { return Duration::ZERO };
            return last.duration.mul_f64(rows as f64 / last.rows as f64);
        };
        let Some(below) = next.checked_sub(1).map(|previous| &self.measured[previous]) else {
            return above.duration;
        };
        let part = (rows - below.rows) as f64 / (above.rows - below.rows) as f64;
        // A larger batch can have measured less, by chance.
        let (from, to) = (below.duration.as_secs_f64(), above.duration.as_secs_f64());
        Duration::from_secs_f64(from + part * (to - from))
    }
}

/// The part that the last batch has in what is learnt: the last ten or so decide.
const WEIGHT: f64 = 1.0 / 8.0;

/// Deviations from the mean that a cautious guess allows for.
const DEVIATIONS: f64 = 2.0;

/// The most that one batch may seem to have cost, so that a stall of the machine is forgotten within some ten.
const LARGEST_RATIO: f64 = 16.0;

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn costs() -> Costs {
        Costs::new(
            [(1, 10), (4, 40), (16, 100)].map(|(rows, cost)| BatchCost { rows, duration: us(cost) }).into(),
        )
    }

    #[test]
    fn what_was_not_measured_lies_between_and_in_proportion_beyond() {
        let costs = costs();
        let expected = [1, 2, 4, 10, 16, 32].map(|rows| costs.expected(rows));
        assert_eq!(expected, [us(10), us(20), us(40), us(70), us(100), us(200)]);
        assert_eq!(costs.cautious(10), us(70), "nothing has deviated");
        assert_eq!(costs.expected(0), Duration::ZERO);
        assert_eq!(Costs::new(Vec::new()).expected(5), Duration::ZERO);
    }

    #[test]
    fn a_machine_that_is_slower_now_is_learnt_within_some_batches() {
        let mut costs = costs();
        for _ in 0..50 {
            costs.learn(4, us(120));
        }
        let expected = costs.expected(16);
        assert!((us(297)..=us(300)).contains(&expected), "three times the 100 of warm-up: {expected:?}");
        let cautious = costs.cautious(16);
        assert!((us(297)..us(310)).contains(&cautious), "it is steadily slower: {cautious:?}");
    }

    #[test]
    fn costs_that_vary_make_it_cautious() {
        let mut costs = costs();
        for took in [60, 20].repeat(50) {
            costs.learn(4, us(took));
        }
        let (expected, cautious) = (costs.expected(4), costs.cautious(4));
        assert!((us(35)..us(45)).contains(&expected), "{expected:?}");
        assert!((us(70)..us(90)).contains(&cautious), "{cautious:?}");
    }

    #[test]
    fn one_stall_is_forgotten() {
        let mut costs = costs();
        costs.learn(4, Duration::from_secs(1));
        assert!(costs.expected(4) < us(40 * 3), "{:?}", costs.expected(4));
        for _ in 0..20 {
            costs.learn(4, us(40));
        }
        assert!(costs.expected(4) < us(46), "{:?}", costs.expected(4));
    }
}
