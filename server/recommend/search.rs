//! The search for the best items: pure, over whatever scores them.

use std::ops::Range;

use super::{
    Query, RecommendError,
    best::{Best, Scored},
};
use crate::tensor::Rows;

/// Scores one user with many items.
pub(super) trait Pairs: Send {
    /// Begins with `user`, a row of one without an item.
    fn begin(&mut self, user: &Rows) -> Result<(), RecommendError>;

    /// Replaces the contents of `scores` by one score for each item of `block`, in their order. The better the greater.
    fn score(&mut self, block: &Block<'_>, scores: &mut Vec<f32>) -> Result<(), RecommendError>;

    /// The best for `query` of a whole catalogue at once, with their scores, after [`Pairs::begin`] with its user; `None` where
    /// they are to be found block by block. Every now and then `go_on` is asked.
    fn best(&mut self, query: &Query, go_on: &mut GoOn<'_>) -> Option<Result<Vec<Scored>, RecommendError>> {
        let _ = (query, go_on);
        None
    }

    /// The most items of a block.
    fn block_items(&self) -> usize;

    /// The probability that a score stands for.
    fn probability(&self, score: f32) -> f32;
}

/// Whether anybody still waits.
pub(super) type GoOn<'a> = dyn FnMut() -> Result<(), RecommendError> + 'a;

/// Items that are scored together.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Block<'a> {
    /// All of a range.
    Range(Range<u32>),
    /// These.
    Chosen(&'a [u32]),
}

impl Block<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Chosen(items) => items.len(),
        }
    }

    /// The item at `place`, below the length.
    pub(super) fn item(&self, place: usize) -> u32 {
        match self {
            // A place in a range of numbers is one of them.
            Self::Range(range) => range.start + u32::try_from(place).unwrap_or(u32::MAX),
            Self::Chosen(items) => items[place],
        }
    }
}

/// The best items for `query` in a catalogue of so many, best first, with their probabilities. Before each block `go_on` is
/// asked whether anybody still waits.
pub(super) fn search(
    pairs: &mut dyn Pairs,
    items: u32,
    query: &Query,
    mut go_on: impl FnMut() -> Result<(), RecommendError>,
) -> Result<Vec<Scored>, RecommendError> {
    go_on()?;
    pairs.begin(&query.user)?;
    let mut best = match pairs.best(query, &mut go_on) {
        Some(best) => best?,
        None => best_of_blocks(pairs, items, query, &mut go_on)?,
    };
    for scored in &mut best {
        scored.score = pairs.probability(scored.score);
    }
    Ok(best)
}

/// The best items, best first, with their scores.
fn best_of_blocks(
    pairs: &mut dyn Pairs,
    items: u32,
    query: &Query,
    go_on: &mut GoOn<'_>,
) -> Result<Vec<Scored>, RecommendError> {
    let (mut best, mut scores) = (Best::new(query.k), Vec::new());
    for block in blocks(query.candidates.as_deref(), items, pairs.block_items()) {
        go_on()?;
        pairs.score(&block, &mut scores)?;
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(RecommendError::NotFinite);
        }
        for (place, &score) in scores.iter().enumerate() {
            // Most are not, which is all that they cost.
            if best.may_take(score) {
                let item = block.item(place);
                if query.excluded.binary_search(&item).is_err() {
                    best.offer(Scored { item, score });
                }
            }
        }
    }
    Ok(best.into_sorted())
}

/// The candidates, or all items, in blocks of a size.
fn blocks(candidates: Option<&[u32]>, items: u32, size: usize) -> Box<dyn Iterator<Item = Block<'_>> + '_> {
    match candidates {
        Some(candidates) => Box::new(candidates.chunks(size).map(Block::Chosen)),
        None => Box::new(ranges(items, size).map(Block::Range)),
    }
}

/// The numbers below `items` in ranges of a size.
pub(super) fn ranges(items: u32, size: usize) -> impl Iterator<Item = Range<u32>> {
    let length = u32::try_from(size).unwrap_or(u32::MAX);
    (0..items).step_by(size).map(move |first| first..items.min(first.saturating_add(length)))
}

/// The most items that are scored together.
pub(super) const MOST_BLOCK_ITEMS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, Signature, TensorSpec, Values};

    /// Scores an item by what `score` says of it and the user's number; its probability is half of that.
    struct Numbers(fn(i32, u32) -> f32, i32);

    impl Pairs for Numbers {
        fn begin(&mut self, user: &Rows) -> Result<(), RecommendError> {
            let Values::I32(ids) = user.columns()[0].values() else { panic!("an id") };
            self.1 = ids[0];
            Ok(())
        }

        fn score(&mut self, block: &Block<'_>, scores: &mut Vec<f32>) -> Result<(), RecommendError> {
            assert!(block.len() <= self.block_items());
            scores.clear();
            scores.extend((0..block.len()).map(|place| self.0(self.1, block.item(place))));
            Ok(())
        }

        fn block_items(&self) -> usize {
            4000
        }

        fn probability(&self, score: f32) -> f32 {
            score / 2.0
        }
    }

    fn query(k: usize) -> Query {
        let input = TensorSpec { name: "ids".into(), dtype: DType::I32, width: 1 };
        let mut user = Rows::new(&Signature { inputs: vec![input], output: "score".into() });
        user.push_zeroed();
        user.last_i32(0)[0] = 3;
        Query { user, k, excluded: Vec::new(), candidates: None }
    }

    fn items(score: fn(i32, u32) -> f32, query: &Query) -> Vec<u32> {
        let found = search(&mut Numbers(score, 0), 10_000, query, || Ok(())).expect("items");
        found.iter().map(|scored| scored.item).collect()
    }

    /// Far apart items are the best, so that they are in several blocks.
    fn scattered(user: i32, item: u32) -> f32 {
        (u64::from(item) * u64::from(7919 + user.unsigned_abs()) % 10_007) as f32
    }

    #[test]
    fn the_best_of_all_blocks_are_found() {
        let mut all: Vec<u32> = (0..10_000).collect();
        all.sort_by(|&a, &b| scattered(3, b).total_cmp(&scattered(3, a)).then(a.cmp(&b)));
        assert_eq!(items(scattered, &query(20)), all[..20]);
        let mut excluded = all[..5].to_vec();
        excluded.sort_unstable();
        assert_eq!(items(scattered, &Query { excluded, ..query(20) }), all[5..25]);
        let candidates: Vec<u32> = (0..10_000).step_by(2).collect();
        let mut even = all.clone();
        even.retain(|item| item % 2 == 0);
        assert_eq!(items(scattered, &Query { candidates: Some(candidates), ..query(20) }), even[..20]);
    }

    #[test]
    fn scores_come_back_as_probabilities() {
        let found = search(&mut Numbers(|_, item| item as f32, 0), 3, &query(1), || Ok(()));
        assert_eq!(found.expect("an item"), [Scored { item: 2, score: 1.0 }]);
    }

    #[test]
    fn a_score_that_is_no_number_fails_the_search() {
        let score = |_, item| if item == 9_999 { f32::NAN } else { 1.0 };
        let found = search(&mut Numbers(score, 0), 10_000, &query(1), || Ok(()));
        assert!(matches!(found, Err(RecommendError::NotFinite)), "{found:?}");
    }

    #[test]
    fn the_search_ends_where_nobody_waits() {
        let mut blocks_left = 2;
        let go_on = || {
            blocks_left -= 1;
            if blocks_left == 0 { Err(RecommendError::Cancelled) } else { Ok(()) }
        };
        let found = search(&mut Numbers(scattered, 0), 10_000, &query(1), go_on);
        assert!(matches!(found, Err(RecommendError::Cancelled)), "{found:?}");
        assert_eq!(blocks_left, 0);
    }
}
