//! The baseline that a recommender has to beat: how many customers bought an item, whoever asks.

use std::ops::Range;

use crate::{calendar::DAY_SECONDS, log::Log, purchases::Purchases};

/// The number of distinct buyers of each item.
#[derive(Clone, Debug, PartialEq)]
pub struct Popularity {
    buyers: Vec<f32>,
}

impl Popularity {
    /// Counts over `rows`.
    pub fn of(log: &Log, rows: Range<usize>) -> Self {
        let purchases = Purchases::of(log, rows);
        let mut buyers = vec![0.0; log.items.distinct()];
        for (item, _) in purchases.users().flat_map(|user| purchases.basket(user)) {
            buyers[*item as usize] += 1.0;
        }
        Self { buyers }
    }

    /// Counts over the last `days` before the row at which `training` ends.
    pub fn of_last_days(log: &Log, training: Range<usize>, days: i64) -> Self {
        let end = log.times.get(training.end).or_else(|| log.times.last()).copied().unwrap_or(0);
        let start = log.times.partition_point(|&time| time < end - days * DAY_SECONDS);
        Self::of(log, start.max(training.start)..training.end)
    }

    /// The scores of `items`, by code.
    pub fn score(&self, items: &[u32]) -> Vec<f32> {
        items.iter().map(|&item| self.buyers[item as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Ids;

    fn log() -> Log {
        Log {
            users: Ids::of(["a", "a", "b", "b", "c"]),
            items: Ids::of(["x", "x", "x", "y", "y"]),
            times: vec![0, DAY_SECONDS, 2 * DAY_SECONDS, 5 * DAY_SECONDS, 6 * DAY_SECONDS],
            ..Log::default()
        }
    }

    #[test]
    fn each_customer_counts_once() {
        assert_eq!(Popularity::of(&log(), 0..4).score(&[0, 1]), [2.0, 1.0]);
    }

    #[test]
    fn the_last_days_end_where_training_ends() {
        assert_eq!(Popularity::of_last_days(&log(), 0..4, 2).score(&[0, 1]), [0.0, 1.0]);
        assert_eq!(Popularity::of_last_days(&log(), 0..4, 4).score(&[0, 1]), [1.0, 1.0]);
    }
}
