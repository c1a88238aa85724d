//! How the events are spread over users, or over items: a long tail, shown on buckets that double, and the share of
//! the events that falls on the head.

use serde::Serialize;

use super::share::{rounded, share};

/// The spread of events over their owners, users or items.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Activity {
    /// Users, or items.
    pub owners: usize,
    /// Events an owner, on the mean.
    pub mean: f64,
    /// Events of the owner in the middle, the lower of two.
    pub median: usize,
    /// Events of the busiest owner.
    pub most: usize,
    /// Owners with one event.
    pub with_one_event: usize,
    /// The same over all owners.
    pub with_one_event_share: f64,
    /// The share of the events on the busiest 1 % of the owners, at least one of them.
    pub top_1_percent_share: f64,
    /// The share of the events on the busiest 10 % of the owners, at least one of them.
    pub top_10_percent_share: f64,
    /// The fewest owners that have half of the events.
    pub owners_of_half: usize,
    /// Owners by events, from the idlest to the busiest.
    pub histogram: Vec<ActivityBucket>,
}

/// Owners with about as many events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ActivityBucket {
    /// The fewest events, a power of two.
    pub from: usize,
    /// The most events, one less than the next power of two.
    pub to: usize,
    /// Owners.
    pub owners: usize,
    /// Their events.
    pub events: usize,
}

impl Activity {
    /// The spread of `counts`, the events of each owner. `None` without owners of any event.
    pub fn of(counts: &[usize]) -> Option<Self> {
        let mut counts: Vec<usize> = counts.iter().copied().filter(|&count| count > 0).collect();
        counts.sort_unstable_by_key(|&count| std::cmp::Reverse(count));
        let (owners, events) = (counts.len(), counts.iter().sum::<usize>());
        let most = *counts.first()?;
        let with_one_event = counts.iter().filter(|&&count| count == 1).count();
        let head = |parts: usize| share(counts[..owners.div_ceil(parts)].iter().sum(), events);
        Some(Self {
            owners,
            mean: rounded(events as f64 / owners as f64),
            median: counts[owners / 2],
            most,
            with_one_event,
            with_one_event_share: share(with_one_event, owners),
            top_1_percent_share: head(100),
            top_10_percent_share: head(10),
            owners_of_half: owners_of_half(&counts, events),
            histogram: histogram(&counts),
        })
    }
}

/// The fewest of the descending `counts` that sum to half of `events`.
fn owners_of_half(counts: &[usize], events: usize) -> usize {
    let mut sum = 0;
    let reached = counts.iter().position(|count| {
        sum += count;
        sum * 2 >= events
    });
    reached.map_or(0, |position| position + 1)
}

/// The buckets of the descending `counts`.
fn histogram(counts: &[usize]) -> Vec<ActivityBucket> {
    let bucket = |count: usize| count.ilog2() as usize;
    let (Some(&most), Some(&least)) = (counts.first(), counts.last()) else { return Vec::new() };
    let first = bucket(least);
    let empty =
        |power: usize| ActivityBucket { from: 1 << power, to: (1 << power) * 2 - 1, owners: 0, events: 0 };
    let mut buckets: Vec<ActivityBucket> = (first..=bucket(most)).map(empty).collect();
    for &count in counts {
        buckets[bucket(count) - first].owners += 1;
        buckets[bucket(count) - first].events += count;
    }
    buckets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn a_tail_is_counted_by_hand() {
        let activity = Activity::of(&[1, 8, 0, 1, 3, 2, 1]).expect("owners");
        assert_eq!((activity.owners, activity.median, activity.most), (6, 1, 8));
        assert_eq!((activity.with_one_event, activity.owners_of_half), (3, 1));
        near(activity.mean, 16.0 / 6.0);
        near(activity.with_one_event_share, 0.5);
        let found: Vec<_> = activity.histogram.iter().map(|b| (b.from, b.to, b.owners, b.events)).collect();
        assert_eq!(found, [(1, 1, 3, 3), (2, 3, 2, 5), (4, 7, 0, 0), (8, 15, 1, 8)]);
    }

    #[test]
    fn the_head_is_a_hundredth_and_a_tenth_rounded_up() {
        let mut counts = vec![1; 198];
        counts.extend([50, 52]);
        let activity = Activity::of(&counts).expect("owners");
        near(activity.top_1_percent_share, 102.0 / 300.0);
        near(activity.top_10_percent_share, 120.0 / 300.0);
        assert_eq!(activity.owners_of_half, 50);
        assert_eq!(Activity::of(&[0, 0]), None);
        let busy: Vec<_> = Activity::of(&[5, 20]).expect("owners").histogram.iter().map(|b| b.from).collect();
        assert_eq!(busy, [4, 8, 16], "nothing before the idlest");
    }

    proptest! {
        #[test]
        fn the_histogram_holds_every_owner_and_every_event(counts in prop::collection::vec(0usize..5000, 1..80)) {
            let events: usize = counts.iter().sum();
            let owners = counts.iter().filter(|&&count| count > 0).count();
            let Some(activity) = Activity::of(&counts) else {
                prop_assert_eq!(owners, 0);
                return Ok(());
            };
            prop_assert_eq!(activity.histogram.iter().map(|b| b.owners).sum::<usize>(), owners);
            prop_assert_eq!(activity.histogram.iter().map(|b| b.events).sum::<usize>(), events);
            for bucket in &activity.histogram {
                prop_assert!(bucket.owners * bucket.from <= bucket.events && bucket.events <= bucket.owners * bucket.to);
            }
            prop_assert!(activity.top_1_percent_share <= activity.top_10_percent_share);
            prop_assert!(activity.owners_of_half <= owners.div_ceil(2));
        }
    }
}
