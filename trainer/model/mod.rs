//! Wide & Deep: `probability = sigmoid(wide + deep)`. Wide is one weight for each table row that a row of the batch
//! names; deep is the embeddings of its categorical features, those of a list pooled into one, and its dense values,
//! through the layers, or through two towers.
//!
//! Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016.

mod adagrad;
mod adam;
mod deep;
mod embeddings;
mod ftrl;
mod inputs;
mod lazy_adam;
mod matrix;
mod network;
mod sparse;
mod state;
mod towers;

use std::{borrow::Cow, io, ops::Range};

use millrace::{
    features::{Encoder, ListColumns},
    tensor::{Rows, Values},
};
use rayon::prelude::*;

use self::deep::{DeepPass, Sight};
pub use self::{
    adagrad::{AdagradOptions, AdagradTable},
    deep::{Deep, Tower, TwoTowers},
    embeddings::Embeddings,
    ftrl::{FtrlOptions, FtrlWeights},
    inputs::InputLayout,
    lazy_adam::{LazyAdamOptions, LazyAdamTable},
    network::{LayerKind, LayerPlan, LayerWeights, Network},
    sparse::{Touch, touches},
    state::Visitor,
    towers::{TowerColumns, Towers},
};
use crate::{config::ModelConfig, random::Random};

/// The widths of a model's inputs and the sizes of its tables, all of which follow from the features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The columns that are a list together. Their paddings have a row of the tables which stays zero.
    pub lists: Vec<ListColumns>,
    /// Where the deep part is two towers, the columns that each of them sees.
    pub towers: Option<Towers>,
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
            lists: encoder.lists(),
            towers: None,
        }
    }

    /// The same with two towers.
    #[must_use]
    pub fn with_towers(self, towers: Towers) -> Self {
        Self { towers: Some(towers), ..self }
    }
}

/// A model in training.
#[derive(Debug)]
pub struct WideDeep {
    shape: ModelShape,
    wide: FtrlWeights,
    embeddings: Embeddings,
    deep: Deep,
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
    pass: DeepPass,
    by_logits: Vec<f32>,
    loss: f64,
}

impl WideDeep {
    /// A model that knows nothing but the share of positives, `base_rate`.
    pub fn new(shape: ModelShape, config: &ModelConfig, base_rate: f32, random: &mut Random) -> Self {
        let ftrl = FtrlOptions { alpha: config.wide_rate, beta: 1.0, l1: config.wide_l1, l2: config.wide_l2 };
        let base_rate = base_rate.clamp(1e-4, 1.0 - 1e-4);
        let bias = (base_rate / (1.0 - base_rate)).ln();
        let mut embeddings = Embeddings::new(shape.deep_rows, config, random);
        shape.lists.iter().for_each(|list| embeddings.clear(list.padding as usize));
        Self {
            wide: FtrlWeights::new(shape.wide_rows, ftrl),
            embeddings,
            deep: Deep::new(&shape, config, bias, random),
            shape,
            shards: Vec::new(),
        }
    }

    /// The shape.
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// The wide weights.
    pub fn wide(&self) -> &FtrlWeights {
        &self.wide
    }

    /// The embedding table.
    pub fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }

    /// The layers, or the towers.
    pub fn deep(&self) -> &Deep {
        &self.deep
    }

    /// Goes over everything that training changes.
    pub fn visit(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        self.wide.visit(visitor)?;
        self.embeddings.visit(visitor)?;
        self.deep.visit(visitor)
    }

    /// The probability of each of `rows`.
    pub fn score(&self, rows: &Rows) -> Vec<f32> {
        let mut scores = vec![0.0; rows.len()];
        let shards =
            scores.par_chunks_mut(SHARD_ROWS).zip((0..rows.len()).into_par_iter().step_by(SHARD_ROWS));
        shards.for_each_init(DeepPass::default, |pass, (scores, start)| {
            let batch = Batch::new(rows, start..start + scores.len(), &self.shape);
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
        let batch = Batch::new(rows, range, &self.shape);
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
        self.deep.backward(batch, pass, by_logits);
    }

    /// Moves everything that the batch touches against the derivatives in its shards.
    fn update(&mut self, batch: &Batch<'_>, shards: &[Shard]) {
        let Self { shape, wide, embeddings, deep, .. } = self;
        let paddings: Vec<u32> = shape.lists.iter().map(|list| list.padding).collect();
        let touches = sparse::touches_but(&batch.ids, &paddings);
        let (sight, networks) = deep.split();
        let slopes = Slopes { shards, sight, columns: shape.columns };
        let tables = || {
            embeddings.step(sparse::below(&touches, shape.deep_rows), |place| slopes.by_embedding(place));
            wide.step(&touches, |place| slopes.by_weight(place));
        };
        let passes: Vec<&DeepPass> = shards.iter().map(|shard| &shard.pass).collect();
        rayon::join(tables, || networks.step(&passes));
    }

    /// Writes the logit of each row of `batch` to `logits`.
    fn logits(&self, batch: &Batch<'_>, pass: &mut DeepPass, logits: &mut [f32]) {
        self.deep.forward(batch, self.embeddings.weights(), pass);
        let weights = self.wide.weights();
        let rows = batch.rows().zip(self.deep.logits(pass));
        for (logit, ((ids, _), deep)) in logits.iter_mut().zip(rows) {
            *logit = deep + ids.iter().map(|&id| weights[id as usize]).sum::<f32>();
        }
    }
}

/// The derivatives in the shards of a batch, by its places.
struct Slopes<'a> {
    shards: &'a [Shard],
    sight: Sight<'a>,
    columns: usize,
}

impl<'a> Slopes<'a> {
    /// The shard that holds a place, and its row and column there.
    fn place(&self, place: usize) -> (&'a Shard, usize, usize) {
        let row = place / self.columns;
        (&self.shards[row / SHARD_ROWS], row % SHARD_ROWS, place % self.columns)
    }

    /// The derivative of the loss by the embedding of the id at `place`.
    fn by_embedding(&self, place: usize) -> &'a [f32] {
        let (shard, row, column) = self.place(place);
        self.sight.by_embedding(&shard.pass, row, column)
    }

    /// The derivative of the loss by the wide weight of the id at `place`. Each of a row's wide weights enters its logit
    /// once, so it is that by the logit.
    fn by_weight(&self, place: usize) -> f32 {
        let (shard, row, _) = self.place(place);
        shard.by_logits[row]
    }
}

impl<'a> Targets<'a> {
    fn of(self, range: Range<usize>) -> Targets<'a> {
        Targets { labels: &self.labels[range.clone()], weights: &self.weights[range] }
    }
}

/// Some rows, in the layout that the tables want.
struct Batch<'a> {
    columns: usize,
    dense_columns: usize,
    len: usize,
    ids: Cow<'a, [u32]>,
    dense: &'a [f32],
}

impl<'a> Batch<'a> {
    fn new(rows: &'a Rows, range: Range<usize>, shape: &ModelShape) -> Self {
        let (columns, dense_columns) = (shape.columns, shape.dense);
        let mut batch = Self { columns, dense_columns, len: range.len(), ids: Cow::default(), dense: &[] };
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
        let &Self { columns, dense_columns, .. } = self;
        Batch {
            columns,
            dense_columns,
            len: range.len(),
            ids: Cow::Borrowed(&self.ids[range.start * columns..range.end * columns]),
            dense: &self.dense[range.start * dense_columns..range.end * dense_columns],
        }
    }

    /// The ids and the dense values of each row.
    fn rows(&self) -> impl Iterator<Item = (&[u32], &[f32])> {
        let dense = (0..self.len).map(|row| &self.dense[row * self.dense_columns..][..self.dense_columns]);
        self.ids.chunks_exact(self.columns).zip(dense)
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
