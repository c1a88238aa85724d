//! A network, rows for it, and what the first of them come to in double precision.

use std::ops::Range;

use millrace::{
    engine::{Network, OnnxEngine},
    tensor::{Rows, Signature},
};

/// What is checked and measured.
pub(crate) struct Subject {
    pub(crate) shape: String,
    pub(crate) network: Network,
    pub(crate) signature: Signature,
    /// The ids that each column has.
    pub(crate) id_ranges: Vec<Range<i32>>,
    /// ONNX Runtime on the processor, where there is a model file.
    pub(crate) onnx: Option<OnnxEngine>,
}

/// Rows and their scores, which are computed once, as that is slow, and repeated to batches of any size.
pub(crate) struct Pool {
    rows: Rows,
    scores: Vec<f64>,
}

impl Subject {
    /// Rows at random, of ids that there are; others for another seed.
    pub(crate) fn rows(&self, count: usize, seed: u64) -> Rows {
        let mut rows = Rows::new(&self.signature);
        let mut chance = Chance(seed);
        for _ in 0..count {
            rows.push_zeroed();
            let ids = rows.last_i32(0).iter_mut().zip(&self.id_ranges);
            ids.for_each(|(id, range)| *id = range.start + chance.below(range.end - range.start));
            rows.last_f32(1).fill_with(|| chance.number());
        }
        rows
    }

    /// The rows whose scores are known.
    pub(crate) fn pool(&self) -> anyhow::Result<Pool> {
        let rows = self.rows(POOL_ROWS, 1);
        let scores = self.network.score(&rows)?;
        Ok(Pool { rows, scores })
    }
}

impl Pool {
    /// A batch of them, again and again from the first one on.
    pub(crate) fn batch(&self, signature: &Signature, count: usize) -> Rows {
        let mut batch = Rows::new(signature);
        while batch.len() < count {
            batch.extend_from(&self.rows, 0..self.rows.len().min(count - batch.len()));
        }
        batch
    }

    /// What the rows of a batch come to.
    pub(crate) fn scores(&self) -> impl Iterator<Item = f64> {
        self.scores.iter().copied().cycle()
    }
}

/// Numbers that look like chance and are always the same.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// Knuth's constants.
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap_or(0)
    }

    pub(crate) fn below(&mut self, end: i32) -> i32 {
        i32::try_from(self.next()).unwrap_or(0) % end.max(1)
    }

    /// Between -1 and 1.
    pub(crate) fn number(&mut self) -> f32 {
        self.next() as f32 / (1_u32 << 30) as f32 - 1.0
    }
}

const POOL_ROWS: usize = 256;
