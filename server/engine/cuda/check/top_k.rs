//! `topk.cu` on a device, beside a sorted list.

use super::{
    Bench, Checked, POISON,
    numbers::{Numbers, encode, words},
};
use crate::engine::cuda::device::{Argument, DeviceError, Launch, Precision, signed};

impl Bench {
    pub(super) fn check_top_k(&mut self, max_rows: usize) -> Checked {
        // Keys are integers, which are right or are not.
        let mut checked = Checked::new("topk", 0.0);
        for (count, bucket) in
            ITEMS.into_iter().filter(|&(_, bucket)| bucket <= max_rows.max(kernels::TOPK_TILE))
        {
            for k in [1, 10, kernels::TOPK_ITEMS] {
                let case = TopK::new(count, bucket, k);
                checked.begin(format!("the best {k} of {count} of {bucket} items"));
                let found = self.top_k(&case).map(|found| {
                    checked.expect(found.0 == case.expected(), "other items, or in another order");
                    checked.expect(found.1 != case.is_finite(), "a score that is no number was not told of");
                });
                checked.end(found);
            }
        }
        checked
    }

    /// The keys of the best items, of each tile first and then of what that leaves, and whether a score was told of.
    fn top_k(&mut self, case: &TopK) -> Result<(Vec<u64>, bool), DeviceError> {
        let [count, scores] =
            [self.put(&words(&[case.count]))?, self.put(&encode(Precision::Single, &case.scores))?];
        let excluded: Vec<u8> = case.excluded.iter().flat_map(|item| item.to_le_bytes()).collect();
        let [excluded, fault] = [self.put(&excluded)?, self.put(&[0; 4])?];
        let mut blocks = case.scores.len().div_ceil(TILE);
        let mut best = self.put(&vec![POISON; blocks * case.k * 8])?;
        let arguments = [
            Argument::Memory(count.at(0)),
            Argument::Memory(scores.at(0)),
            Argument::Memory(excluded.at(0)),
            signed(case.excluded.len()),
            signed(case.k),
            Argument::Memory(best.at(0)),
            Argument::Memory(fault.at(0)),
        ];
        self.launch("topk_items", blocks * Launch::BLOCK as usize, &arguments)?;
        while blocks > 1 {
            let keys = blocks * case.k;
            blocks = keys.div_ceil(TILE);
            let fewer = self.put(&vec![POISON; blocks * case.k * 8])?;
            let arguments = [
                Argument::Memory(best.at(0)),
                Argument::Unsigned(u32::try_from(keys).expect("a few")),
                signed(case.k),
                Argument::Memory(fewer.at(0)),
            ];
            self.launch("topk_keys", blocks * Launch::BLOCK as usize, &arguments)?;
            best = fewer;
        }
        let found = self.fetch(best.at(0), case.k * 8)?;
        let found = found.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
        Ok((found, self.fetch(fault.at(0), 4)? != [0; 4]))
    }
}

/// Items that there are, of how many the launch is made for: around a tile's, and more than one turn leaves over.
const ITEMS: [(usize, usize); 7] =
    [(0, 10), (1, 1), (9, 10), (2047, 2048), (2048, 2048), (2049, 4096), (9000, 9000)];
const TILE: usize = kernels::TOPK_TILE;

/// Items of which the best are asked for.
struct TopK {
    count: usize,
    k: usize,
    scores: Vec<f32>,
    /// In ascending order.
    excluded: Vec<u32>,
}

impl TopK {
    fn new(count: usize, bucket: usize, k: usize) -> Self {
        let mut numbers = Numbers(13);
        // Few scores, so that many items have the same, and some that are no number.
        let mut score = || match numbers.below(12) {
            0 => f32::NAN,
            number => (number as f32 - 6.0) / 4.0,
        };
        let scores = (0..bucket).map(|_| score()).collect();
        let excluded = (0..u32::try_from(bucket).expect("a few")).filter(|item| item % 7 == 3).collect();
        Self { count, k, scores, excluded }
    }

    fn is_finite(&self) -> bool {
        self.scores[..self.count].iter().all(|score| score.is_finite())
    }

    /// The keys of the best items, and zeros where there are no more.
    fn expected(&self) -> Vec<u64> {
        let items = (0_u32..).zip(&self.scores[..self.count]);
        let items = items.filter(|(item, score)| !score.is_nan() && !self.excluded.contains(item));
        let mut items: Vec<(u32, f32)> = items.map(|(item, &score)| (item, score)).collect();
        items.sort_by(|(left, a), (right, b)| b.total_cmp(a).then(left.cmp(right)));
        let key = |(item, score): (u32, f32)| {
            let bits = score.to_bits();
            let ordered = if score.is_sign_negative() { !bits } else { bits | 1 << 31 };
            u64::from(ordered) << 32 | u64::from(!item)
        };
        let mut keys: Vec<u64> = items.into_iter().take(self.k).map(key).collect();
        keys.resize(self.k, 0);
        keys
    }
}
