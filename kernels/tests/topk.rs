//! The best items beside a sorted list.

use std::{cmp::Reverse, collections::BTreeSet};

use kernels::{TOPK_ITEMS, TOPK_TILE, item_of};
use proptest::{collection::vec, prelude::*};

use crate::emulator::{arguments, launch};

const POISON: u64 = u64::MAX / 3;

/// An item and its score's bits.
type Found = (u32, u32);

#[derive(Clone, Debug)]
struct Case {
    scores: Vec<f32>,
    /// Of these scores, so many are items.
    count: usize,
    excluded: BTreeSet<u32>,
    k: usize,
}

/// Few scores, so that many items have the same, and all that a score can be.
fn score() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => (-20_i16..20).prop_map(|score| f32::from(score) / 8.0),
        4 => any::<f32>(),
        1 => prop_oneof![Just(f32::NAN), Just(-0.0), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ]
}

prop_compose! {
    // Up to three tiles of them, and those around a whole one.
    fn cases()(
        scores in prop_oneof![vec(score(), 0..40), vec(score(), 2_030..2_070), vec(score(), 4_000..4_600)],
        k in prop_oneof![1_usize..12, Just(TOPK_ITEMS)],
        quarters in 0_usize..=4,
        excluded in vec(0_u32..4_700, 0..60),
    ) -> Case {
        Case { count: scores.len() * quarters / 4, scores, excluded: excluded.into_iter().collect(), k }
    }
}

impl Case {
    /// The items that are, by score and number.
    fn reference(&self) -> Vec<Found> {
        let items = (0_u32..).zip(&self.scores[..self.count]);
        let mut items: Vec<(u32, f32)> = items
            .filter(|(item, score)| !score.is_nan() && !self.excluded.contains(item))
            .map(|(item, &score)| (item, score))
            .collect();
        items.sort_by(|(left, a), (right, b)| b.total_cmp(a).then(left.cmp(right)));
        items.into_iter().take(self.k).map(|(item, score)| (item, score.to_bits())).collect()
    }

    fn is_finite(&self) -> bool {
        self.scores[..self.count].iter().all(|score| score.is_finite())
    }

    /// The items that are left, and whether a score was told of.
    fn found(&self) -> (Vec<Found>, bool) {
        let excluded: Vec<u32> = self.excluded.iter().copied().collect();
        let (count, mut fault) = (self.count as u32, 0_u32);
        let mut blocks = self.scores.len().div_ceil(TOPK_TILE).max(1);
        let mut best = vec![POISON; blocks * self.k];
        // SAFETY: The buffers have the shapes that topk.cu names.
        unsafe {
            launch(
                "topk_items",
                blocks as u32,
                64,
                &mut arguments![
                    std::ptr::from_ref(&count),
                    self.scores.as_ptr(),
                    excluded.as_ptr(),
                    excluded.len() as i32,
                    self.k as i32,
                    best.as_mut_ptr(),
                    std::ptr::from_mut(&mut fault),
                ],
            );
        }
        while blocks > 1 {
            let keys = best;
            blocks = keys.len().div_ceil(TOPK_TILE);
            best = vec![POISON; blocks * self.k];
            // SAFETY: The buffers have the shapes that topk.cu names.
            unsafe {
                launch(
                    "topk_keys",
                    blocks as u32,
                    96,
                    &mut arguments![keys.as_ptr(), keys.len() as u32, self.k as i32, best.as_mut_ptr(),],
                );
            }
        }
        assert!(best.is_sorted_by_key(|&key| Reverse(key)), "{best:?}");
        let best = best.into_iter().filter_map(item_of).map(|(item, score)| (item, score.to_bits()));
        (best.collect(), fault == 1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_best_items_come_in_order_and_no_excluded_one(case in cases()) {
        let (best, is_told) = case.found();
        prop_assert_eq!(best, case.reference());
        prop_assert_eq!(is_told, !case.is_finite());
    }
}
