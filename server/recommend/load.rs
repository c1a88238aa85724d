//! How long a question will take, by what searches have cost and by what waits already.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

/// What the threads of a version have to do, in items, and what an item costs.
#[derive(Debug)]
pub(super) struct Load {
    threads: usize,
    /// Items of questions that wait or are being searched.
    items: AtomicUsize,
    picoseconds_an_item: AtomicU64,
}

impl Load {
    /// Nothing to do for so many threads, and what an item costs them.
    pub(super) fn new(threads: usize, an_item: Duration) -> Self {
        let picoseconds = an_item.as_nanos().saturating_mul(1000);
        let picoseconds_an_item = AtomicU64::new(u64::try_from(picoseconds).unwrap_or(u64::MAX));
        Self { threads: threads.max(1), items: AtomicUsize::new(0), picoseconds_an_item }
    }

    /// How long it takes until a question of so many items is answered, were it asked now.
    pub(super) fn expected(&self, items: usize) -> Duration {
        let before = self.items.load(Ordering::Relaxed) / self.threads;
        let items = u64::try_from(before.saturating_add(items)).unwrap_or(u64::MAX);
        let picoseconds = self.picoseconds_an_item.load(Ordering::Relaxed).saturating_mul(items);
        Duration::from_nanos(picoseconds / 1000)
    }

    /// So many items more wait.
    pub(super) fn add(&self, items: usize) {
        self.items.fetch_add(items, Ordering::Relaxed);
    }

    /// So many items wait no longer.
    pub(super) fn remove(&self, items: usize) {
        self.items.fetch_sub(items, Ordering::Relaxed);
    }

    /// Learns from a search of so many items, an eighth of what it says. Short ones say more of their beginning than of
    /// their items.
    pub(super) fn learn(&self, items: usize, took: Duration) {
        if items < LEAST_ITEMS {
            return;
        }
        let picoseconds = took.as_nanos().saturating_mul(1000) / items as u128;
        let latest = u64::try_from(picoseconds).unwrap_or(u64::MAX);
        let mean = |old: u64| Some(old - old / 8 + latest / 8);
        // Whichever of two searches is written down last, the mean is one of what was measured.
        let _ = self.picoseconds_an_item.fetch_update(Ordering::Relaxed, Ordering::Relaxed, mean);
    }
}

/// Searches of fewer items are not learnt from.
const LEAST_ITEMS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_shared_by_the_threads_and_comes_before() {
        let load = Load::new(2, Duration::from_micros(1));
        assert_eq!(load.expected(1000), Duration::from_millis(1));
        load.add(4000);
        assert_eq!(load.expected(1000), Duration::from_millis(3));
        load.remove(4000);
        assert_eq!(load.expected(0), Duration::ZERO);
    }

    #[test]
    fn searches_that_take_longer_make_it_dearer_by_and_by() {
        let load = Load::new(1, Duration::from_micros(1));
        load.learn(10_000, Duration::from_millis(90));
        assert_eq!(load.expected(1000), Duration::from_millis(2));
        for _ in 0..100 {
            load.learn(10_000, Duration::from_millis(90));
        }
        let expected = load.expected(1000).as_secs_f64();
        assert!((expected - 0.009).abs() < 1e-5, "{expected}");
        load.learn(10, Duration::from_secs(9));
        assert!((load.expected(1000).as_secs_f64() - expected).abs() < 1e-12, "too few to say anything");
    }
}
