//! Durations, counted in bins: how long labels took, and requests.

use std::time::Duration;

/// Durations, counted in bins that grow by a fifth: four to each doubling of the microseconds. Counts add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations([u32; Self::BINS]);

impl Default for Durations {
    fn default() -> Self {
        Self([0; Self::BINS])
    }
}

impl Durations {
    /// Up to half a year.
    pub const BINS: usize = 176;

    /// The bin of a duration.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a logarithm from 1 on")]
    pub fn bin(duration: Duration) -> usize {
        let bin = (duration.as_micros().max(1) as f64).log2() * 4.0;
        (bin as usize).min(Self::BINS - 1)
    }

    /// Those that were counted elsewhere, by their bins.
    pub fn of(counts: [u32; Self::BINS]) -> Self {
        Self(counts)
    }

    /// Counts a duration.
    pub fn add(&mut self, duration: Duration) {
        let count = &mut self.0[Self::bin(duration)];
        *count = count.saturating_add(1);
    }

    /// Adds what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// The duration that a share of `q` does not exceed, at most a fifth too long. `None` without any.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let all: f64 = self.0.iter().copied().map(f64::from).sum();
        let mut below = 0.0;
        let mut bins = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        let found = bins.find(|(_, count)| {
            below += f64::from(**count);
            below >= q * all
        });
        found.map(|(bin, _)| Duration::from_secs_f64(((bin + 1) as f64 / 4.0).exp2() / 1e6))
    }

    /// How many are in bins of durations that are longer than this one.
    pub fn longer(&self, than: Duration) -> u64 {
        self.0[Self::bin(than) + 1..].iter().copied().map(u64::from).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_within_a_fifth() {
        let mut durations = Durations::default();
        assert_eq!(durations.quantile(0.5), None);
        (1..=1_000).for_each(|second| durations.add(Duration::from_secs(second)));
        for (q, expected) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = durations.quantile(q).expect("durations").as_secs_f64();
            assert!(found >= expected && found < expected * 1.2, "{q}: {found}");
        }
        durations.add(Duration::ZERO);
        durations.add(Duration::MAX);
        assert!(durations.quantile(1.0).expect("durations") > Duration::from_hours(24 * 180));
    }

    #[test]
    fn what_is_longer_is_counted_by_whole_bins() {
        let mut durations = Durations::default();
        for ms in [1, 2, 3, 40, 50] {
            durations.add(Duration::from_millis(ms));
        }
        assert_eq!(durations.longer(Duration::from_millis(10)), 2);
        assert_eq!((durations.longer(Duration::ZERO), durations.longer(Duration::MAX)), (5, 0));
    }
}
