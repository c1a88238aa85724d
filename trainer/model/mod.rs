//! Wide & Deep: `probability = sigmoid(wide + deep)`. Wide is one weight for each table row that a row of the batch
//! names; deep is the embeddings of its categorical features, and its dense values, through the layers.
//!
//! Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016.

mod adagrad;
mod adam;
mod embeddings;
mod ftrl;
mod lazy_adam;
mod matrix;
mod network;
mod sparse;

use std::{borrow::Cow, ops::Range};

use millrace::{
    features::Encoder,
    tensor::{Rows, Values},
};
use rayon::prelude::*;

use self::network::Pass;
pub use self::{
    adagrad::{AdagradOptions, AdagradTable},
    embeddings::Embeddings,
    ftrl::{FtrlOptions, FtrlWeights},
    lazy_adam::{LazyAdamOptions, LazyAdamTable},
    network::{LayerKind, LayerWeights, Network},
    sparse::{Touch, touches},
};
use crate::{config::ModelConfig, random::Random};

/// The widths of a model's inputs and the sizes of its tables, all of which follow from the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Columns of ids, the crosses among them.
    pub columns: usize,
    /// Columns of ids that have an embedding; they come first.
    pub deep_columns: usize,
    /// Dense values.
    pub dense: usize,
    /// Rows of the embedding table.
    pub deep_rows: usize,
    /// Rows of the wide table.
    pub wide_rows: usize,
}

impl ModelShape {
    /// The shape for the inputs of `encoder`.
    pub fn of(encoder: &Encoder) -> Self {
        let widths: Vec<usize> = encoder.signature().inputs.iter().map(|input| input.width).collect();
        Self {
            columns: widths[0],
            deep_columns: encoder.deep_columns(),
            dense: widths.get(1).copied().unwrap_or(0),
            deep_rows: encoder.deep_rows(),
            wide_rows: encoder.wide_rows(),
        }
    }
}

/// A model in training.
#[derive(Debug)]
pub struct WideDeep {
    shape: ModelShape,
    wide: FtrlWeights,
    embeddings: Embeddings,
    network: Network,
    /// Kept for their memory.
    shards: Vec<Shard>,
}

/// Labels and weights of a batch's rows.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// 1 where it happened, else 0.
    pub labels: &'a [f32],
    /// How much each row counts.
    pub weights: &'a [f32],
}

/// [`SHARD_ROWS`] rows of a batch, fewer in its last shard, on their way through the model. Where a batch is cut does
/// not depend on the number of threads, and what comes of the shards is added up in their order.
#[derive(Debug, Default)]
struct Shard {
    pass: Pass,
    by_logits: Vec<f32>,
    loss: f64,
}

impl WideDeep {
    /// A model that knows nothing but the share of positives, `base_rate`.
    pub fn new(shape: ModelShape, config: &ModelConfig, base_rate: f32, random: &mut Random) -> Self {
        let ftrl = FtrlOptions { alpha: config.wide_rate, beta: 1.0, l1: config.wide_l1, l2: config.wide_l2 };
        let inputs = shape.deep_columns * config.embedding_dimension + shape.dense;
        let base_rate = base_rate.clamp(1e-4, 1.0 - 1e-4);
        let bias = (base_rate / (1.0 - base_rate)).ln();
        let layers = (config.cross_layers, config.hidden_units.as_slice());
        Self {
            shape,
            wide: FtrlWeights::new(shape.wide_rows, ftrl),
            embeddings: Embeddings::new(shape.deep_rows, config, random),
            network: Network::new(inputs, layers, config.mlp_rate, bias, random),
            shards: Vec::new(),
        }
    }

    /// The shape.
    pub fn shape(&self) -> ModelShape {
        self.shape
    }

    /// The wide weights.
    pub fn wide(&self) -> &FtrlWeights {
        &self.wide
    }

    /// The embedding table.
    pub fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }

    /// The layers.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The probability of each of `rows`.
    pub fn score(&self, rows: &Rows) -> Vec<f32> {
        let mut scores = vec![0.0; rows.len()];
        let shards =
            scores.par_chunks_mut(SHARD_ROWS).zip((0..rows.len()).into_par_iter().step_by(SHARD_ROWS));
        shards.for_each_init(Pass::default, |pass, (scores, start)| {
            let batch = Batch::new(rows, start..start + scores.len(), self.shape);
            self.logits(&batch, pass, scores);
            for score in scores {
                *score = sigmoid(*score);
            }
        });
        scores
    }

    /// Takes one step against the weighted loss of the rows `range` of `rows`, and returns that loss before the step,
    /// summed over the rows, in nats.
    pub fn step(&mut self, rows: &Rows, range: Range<usize>, targets: Targets<'_>) -> f64 {
        let batch = Batch::new(rows, range, self.shape);
        let count = batch.len.div_ceil(SHARD_ROWS);
        let mut shards = std::mem::take(&mut self.shards);
        shards.resize_with(shards.len().max(count), Shard::default);
        let of_batch = &mut shards[..count];
        of_batch.par_iter_mut().enumerate().for_each(|(index, shard)| {
            let range = index * SHARD_ROWS..batch.len.min((index + 1) * SHARD_ROWS);
            self.derive(shard, &batch.part(range.clone()), targets.of(range));
        });
        self.update(&batch, of_batch);
        let loss = of_batch.iter().map(|shard| shard.loss).sum();
        self.shards = shards;
        loss
    }

    /// The loss of some rows and its derivatives.
    fn derive(&self, shard: &mut Shard, batch: &Batch<'_>, targets: Targets<'_>) {
        let Shard { pass, by_logits, loss } = shard;
        by_logits.clear();
        by_logits.resize(batch.len, 0.0);
        self.logits(batch, pass, by_logits);
        *loss = 0.0;
        for ((logit, &label), &weight) in by_logits.iter_mut().zip(targets.labels).zip(targets.weights) {
            *loss += f64::from(weight * loss_of(*logit, label));
            *logit = weight * (sigmoid(*logit) - label);
        }
        self.network.backward(pass, by_logits);
    }

    /// Moves everything that the batch touches against the derivatives in its shards.
    fn update(&mut self, batch: &Batch<'_>, shards: &[Shard]) {
        let Self { shape, wide, embeddings, network, .. } = self;
        let touches = touches(&batch.ids);
        let dimension = embeddings.dimension();
        let width = shape.deep_columns * dimension + shape.dense;
        let columns = shape.columns;
        let place = |place: usize| {
            let row = place / columns;
            (&shards[row / SHARD_ROWS], row % SHARD_ROWS, place % columns)
        };
        let by_embedding = |touched| {
            let (shard, row, column) = place(touched);
            &shard.pass.by_input()[row * width + column * dimension..][..dimension]
        };
        // Each of a row's wide weights enters its logit once, so the derivative by each is that by the logit.
        let by_weight = |touched| {
            let (shard, row, _) = place(touched);
            shard.by_logits[row]
        };
        let tables = || {
            embeddings.step(sparse::below(&touches, shape.deep_rows), by_embedding);
            wide.step(&touches, by_weight);
        };
        rayon::join(tables, || network.step(shards.iter().map(|shard| &shard.pass)));
    }

    /// Writes the logit of each row of `batch` to `logits`.
    fn logits(&self, batch: &Batch<'_>, pass: &mut Pass, logits: &mut [f32]) {
        let ModelShape { columns, deep_columns, dense, .. } = self.shape;
        let (table, dimension) = (self.embeddings.weights(), self.embeddings.dimension());
        let input = pass.input();
        input.clear();
        for (row, ids) in batch.ids.chunks_exact(columns).enumerate() {
            for &id in &ids[..deep_columns] {
                input.extend_from_slice(&table[id as usize * dimension..][..dimension]);
            }
            input.extend_from_slice(&batch.dense[row * dense..][..dense]);
        }
        self.network.forward(pass);
        let weights = self.wide.weights();
        let rows = batch.ids.chunks_exact(columns).zip(pass.logits());
        for (logit, (ids, deep)) in logits.iter_mut().zip(rows) {
            *logit = deep + ids.iter().map(|&id| weights[id as usize]).sum::<f32>();
        }
    }
}

impl<'a> Targets<'a> {
    fn of(self, range: Range<usize>) -> Targets<'a> {
        Targets { labels: &self.labels[range.clone()], weights: &self.weights[range] }
    }
}

/// Some rows, in the layout that the tables want.
struct Batch<'a> {
    shape: ModelShape,
    len: usize,
    ids: Cow<'a, [u32]>,
    dense: &'a [f32],
}

impl<'a> Batch<'a> {
    fn new(rows: &'a Rows, range: Range<usize>, shape: ModelShape) -> Self {
        let mut batch = Self { shape, len: range.len(), ids: Cow::default(), dense: &[] };
        for column in rows.columns() {
            let elements = range.start * column.width()..range.end * column.width();
            match column.values() {
                Values::I32(ids) => {
                    let ids = ids[elements].iter().map(|&id| u32::try_from(id).expect("ids count from 0"));
                    batch.ids = Cow::Owned(ids.collect());
                }
                Values::F32(dense) => batch.dense = &dense[elements],
            }
        }
        batch
    }

    /// The rows `range` of these.
    fn part(&self, range: Range<usize>) -> Batch<'_> {
        let ModelShape { columns, dense, .. } = self.shape;
        Batch {
            shape: self.shape,
            len: range.len(),
            ids: Cow::Borrowed(&self.ids[range.start * columns..range.end * columns]),
            dense: &self.dense[range.start * dense..range.end * dense],
        }
    }
}

/// The negative log likelihood in nats, `softplus(logit) - label * logit`, in the form that does not overflow.
fn loss_of(logit: f32, label: f32) -> f32 {
    logit.max(0.0) + (-logit.abs()).exp().ln_1p() - label * logit
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Enough rows for the products to be fast, few enough for a batch to keep several threads busy.
const SHARD_ROWS: usize = 256;

#[cfg(test)]
mod tests;
