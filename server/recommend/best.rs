//! The best of many items, as their scores come in.

use std::cmp::Ordering;

/// An item by its number in the catalogue, and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The item.
    pub item: u32,
    /// Its score, a finite number.
    pub score: f32,
}

impl Scored {
    /// Better items first; of two with one score, the one with the smaller number.
    fn order(self, other: Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.item.cmp(&other.item))
    }
}

/// The best `k` of the items that it was offered, and as many again that may turn out not to be.
#[derive(Debug)]
pub(super) struct Best {
    k: usize,
    found: Vec<Scored>,
    /// Nothing below it is among the best.
    least: f32,
}

impl Best {
    pub(super) fn new(k: usize) -> Self {
        Self { k, found: Vec::with_capacity(2 * k), least: f32::NEG_INFINITY }
    }

    /// Whether an item of this score may be among the best.
    pub(super) fn may_take(&self, score: f32) -> bool {
        score >= self.least
    }

    pub(super) fn offer(&mut self, scored: Scored) {
        self.found.push(scored);
        if self.found.len() >= 2 * self.k {
            self.shrink();
        }
    }

    /// The best items, best first.
    pub(super) fn into_sorted(mut self) -> Vec<Scored> {
        self.found.sort_unstable_by(|one, other| one.order(*other));
        self.found.truncate(self.k);
        self.found
    }

    fn shrink(&mut self) {
        let (_, last, _) = self.found.select_nth_unstable_by(self.k - 1, |one, other| one.order(*other));
        self.least = last.score;
        self.found.truncate(self.k);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn best(k: usize, scores: &[f32]) -> Vec<Scored> {
        let mut best = Best::new(k);
        for (item, &score) in (0..).zip(scores) {
            if best.may_take(score) {
                best.offer(Scored { item, score });
            }
        }
        best.into_sorted()
    }

    #[test]
    fn of_equal_scores_the_earlier_item_is_better() {
        let items: Vec<u32> =
            best(3, &[0.5, 0.9, 0.5, 0.9, 0.5, 0.9, 0.9]).iter().map(|best| best.item).collect();
        assert_eq!(items, [1, 3, 5]);
    }

    #[test]
    fn where_there_are_fewer_items_all_of_them_come_back() {
        assert_eq!(best(9, &[0.25]), [Scored { item: 0, score: 0.25 }]);
    }

    proptest! {
        #[test]
        fn they_are_those_that_sorting_all_of_them_finds(
            k in 1..20_usize,
            scores in proptest::collection::vec((-20..20_i8).prop_map(f32::from), 0..200),
        ) {
            let mut all: Vec<Scored> =
                (0..).zip(&scores).map(|(item, &score)| Scored { item, score }).collect();
            all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
            all.truncate(k);
            prop_assert_eq!(best(k, &scores), all);
        }
    }
}
