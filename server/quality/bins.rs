//! Bins that values are counted in. They are fixed once, on the rows that a version was trained on, so that whatever is
//! counted in them later can be compared; counts of parts add up to those of the whole, in any order.

use serde::{Deserialize, Serialize};

/// What the bins of one quantity are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bins {
    /// Of numbers: below the first of these ascending boundaries, from each up to the next, from the last on; then one
    /// for missing ones.
    Boundaries(Vec<f64>),
    /// Of ids: one for each of these; then one for the others that the model knows, one for those that it does not, and
    /// one for missing ones.
    Ids(Vec<String>),
    /// Of what is one of so many parts, an hour of the day say; then one for missing ones.
    Parts(u32),
}

/// A value as bins see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen<'a> {
    /// A number.
    Number(f64),
    /// An id.
    Id {
        /// Its text.
        id: &'a str,
        /// Whether the model tells it from ids that it never saw.
        is_known: bool,
    },
    /// A part, from 0.
    Part(u32),
    /// Nothing.
    Missing,
}

/// How many values fell into each bin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counts(Vec<u64>);

/// Bins and what was counted in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// The bins.
    pub bins: Bins,
    /// One for each bin.
    pub counts: Counts,
}

impl Bins {
    /// The number of bins.
    pub fn count(&self) -> usize {
        match self {
            Self::Boundaries(boundaries) => boundaries.len() + 2,
            Self::Ids(ids) => ids.len() + 3,
            Self::Parts(parts) => *parts as usize + 1,
        }
    }

    /// The bin of a value, below [`Bins::count`]. `None` for a value that is not of their kind, or no number at all.
    pub fn place(&self, value: Seen<'_>) -> Option<usize> {
        match (self, value) {
            (_, Seen::Missing) => Some(self.missing()),
            (Self::Boundaries(boundaries), Seen::Number(number)) => {
                (!number.is_nan()).then(|| boundaries.partition_point(|&boundary| boundary <= number))
            }
            // They are few, and the most frequent come first.
            (Self::Ids(ids), Seen::Id { id, is_known }) => {
                let other = ids.len() + usize::from(!is_known);
                Some(ids.iter().position(|listed| listed == id).unwrap_or(other))
            }
            (Self::Parts(parts), Seen::Part(part)) => (part < *parts).then_some(part as usize),
            _ => None,
        }
    }

    /// The bin of ids that the model does not know; `None` where the values are no ids.
    pub fn unknown(&self) -> Option<usize> {
        if let Self::Ids(ids) = self { Some(ids.len() + 1) } else { None }
    }

    /// The bin of missing values.
    pub fn missing(&self) -> usize {
        self.count() - 1
    }

    /// Whether boundaries ascend and ids differ, which [`Bins::place`] needs.
    pub fn are_distinct(&self) -> bool {
        match self {
            Self::Boundaries(boundaries) => {
                boundaries.iter().all(|boundary| boundary.is_finite())
                    && boundaries.windows(2).all(|pair| pair[0] < pair[1])
            }
            Self::Ids(ids) => ids.iter().enumerate().all(|(at, id)| !ids[..at].contains(id)),
            Self::Parts(_) => true,
        }
    }
}

impl Counts {
    /// Nothing in any of so many bins.
    pub fn none(bins: usize) -> Self {
        Self(vec![0; bins])
    }

    /// Counts a value of `bin`.
    ///
    /// # Panics
    /// When there is no such bin.
    pub fn add(&mut self, bin: usize) {
        self.0[bin] += 1;
    }

    /// Adds what was counted elsewhere in the same bins.
    ///
    /// # Panics
    /// When the bins are others.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.0.len(), other.0.len(), "counts of the same bins");
        self.0.iter_mut().zip(&other.0).for_each(|(count, more)| *count += more);
    }

    /// The count of each bin.
    pub fn each(&self) -> &[u64] {
        &self.0
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The share of `bin`; 0 of nothing.
    pub fn share(&self, bin: usize) -> f64 {
        self.0[bin] as f64 / self.total().max(1) as f64
    }
}

impl Distribution {
    /// The distribution of `values`; those that have no bin are left out.
    pub fn of<'a>(bins: Bins, values: impl Iterator<Item = Seen<'a>>) -> Self {
        let mut counts = Counts::none(bins.count());
        values.filter_map(|value| bins.place(value)).for_each(|bin| counts.add(bin));
        Self { bins, counts }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(id: &str, is_known: bool) -> Seen<'_> {
        Seen::Id { id, is_known }
    }

    #[test]
    fn each_value_has_the_bin_that_the_declaration_says() {
        let numbers = Bins::Boundaries(vec![0.0, 10.0]);
        let found = [f64::MIN, -0.1, 0.0, 9.9, 10.0, f64::MAX].map(|x| numbers.place(Seen::Number(x)));
        assert_eq!(found, [0, 0, 1, 1, 2, 2].map(Some));
        assert_eq!(numbers.place(Seen::Missing), Some(3));
        assert_eq!(numbers.place(Seen::Number(f64::NAN)), None);
        let ids = Bins::Ids(vec!["x".into(), "y".into()]);
        let found = [id("y", true), id("z", true), id("z", false), Seen::Missing].map(|id| ids.place(id));
        assert_eq!(found, [1, 2, 3, 4].map(Some));
        assert_eq!((ids.unknown(), numbers.unknown()), (Some(3), None));
        let hours = Bins::Parts(24);
        let found = [Seen::Part(23), Seen::Part(24), Seen::Missing].map(|part| hours.place(part));
        assert_eq!(found, [Some(23), None, Some(24)]);
        assert_eq!(hours.place(id("x", true)), None);
    }

    #[test]
    fn bins_that_overlap_are_told() {
        assert!(Bins::Boundaries(vec![1.0, 2.0]).are_distinct());
        for boundaries in [vec![2.0, 2.0], vec![2.0, 1.0], vec![f64::NAN], vec![f64::INFINITY]] {
            assert!(!Bins::Boundaries(boundaries).are_distinct());
        }
        assert!(!Bins::Ids(vec!["x".into(), "y".into(), "x".into()]).are_distinct());
    }

    #[test]
    fn what_is_written_is_read() {
        let distribution = Distribution::of(Bins::Ids(vec!["7".into()]), [id("7", true)].into_iter());
        let text = serde_json::to_string(&distribution).expect("JSON");
        assert_eq!(text, r#"{"bins":{"ids":["7"]},"counts":[1,0,0,0]}"#);
        assert_eq!(serde_json::from_str::<Distribution>(&text).expect("a distribution"), distribution);
    }

    proptest! {
        #[test]
        fn counts_of_parts_add_up_to_those_of_the_whole(
            numbers in prop::collection::vec(prop::option::of(-10.0f64..10.0), 0..60), cut: prop::sample::Index,
        ) {
            let bins = Bins::Boundaries(vec![-5.0, 0.0, 2.5]);
            let observed = |number: &Option<f64>| number.map_or(Seen::Missing, Seen::Number);
            let count = |numbers: &[Option<f64>]| {
                Distribution::of(bins.clone(), numbers.iter().map(observed)).counts
            };
            let (some, others) = numbers.split_at(cut.index(numbers.len() + 1));
            let (mut forth, mut back) = (count(some), count(others));
            forth.merge(&count(others));
            back.merge(&count(some));
            prop_assert_eq!(&forth, &count(&numbers));
            prop_assert_eq!(&back, &forth);
            prop_assert_eq!(forth.total(), numbers.len() as u64);
        }
    }
}
