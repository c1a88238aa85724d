//! Wide & Deep: `probability = sigmoid(wide + deep)`. Wide is one weight for each table row that a row of the batch
//! names; deep is the embeddings of its categorical features, and its dense values, through the layers.
//!
//! Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016.

mod adagrad;
mod ftrl;
mod mlp;
mod sparse;

use std::ops::Range;

use candle_core::{Device, Result, Tensor, Var};
use millrace::{
    features::Encoder,
    tensor::{Rows, Values},
};

pub use self::{
    adagrad::{AdagradOptions, AdagradTable},
    ftrl::{FtrlOptions, FtrlWeights},
    mlp::{LayerWeights, Mlp},
    sparse::{RowGradient, RowGradients},
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
    embeddings: AdagradTable,
    mlp: Mlp,
}

/// Labels and weights of a batch's rows.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// 1 where it happened, else 0.
    pub labels: &'a [f32],
    /// How much each row counts.
    pub weights: &'a [f32],
}

/// The derivatives of a batch's loss by what was gathered for it.
struct Gathered {
    wide: Var,
    embeddings: Var,
}

impl WideDeep {
    /// A model that knows nothing but the share of positives, `base_rate`.
    pub fn new(shape: ModelShape, config: &ModelConfig, base_rate: f32, random: &mut Random) -> Result<Self> {
        let adagrad = AdagradOptions { rate: config.embedding_rate, l2: config.embedding_l2 };
        let ftrl = FtrlOptions { alpha: config.wide_rate, beta: 1.0, l1: config.wide_l1, l2: config.wide_l2 };
        let inputs = shape.deep_columns * config.embedding_dimension + shape.dense;
        let base_rate = base_rate.clamp(1e-4, 1.0 - 1e-4);
        let bias = (base_rate / (1.0 - base_rate)).ln();
        Ok(Self {
            shape,
            wide: FtrlWeights::new(shape.wide_rows, ftrl),
            embeddings: AdagradTable::new(shape.deep_rows, config.embedding_dimension, adagrad, random),
            mlp: Mlp::new(inputs, &config.hidden_units, config.mlp_rate, bias, random)?,
        })
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
    pub fn embeddings(&self) -> &AdagradTable {
        &self.embeddings
    }

    /// The layers.
    pub fn mlp(&self) -> &Mlp {
        &self.mlp
    }

    /// The probability of each of `rows`.
    pub fn score(&self, rows: &Rows) -> Result<Vec<f32>> {
        const CHUNK_ROWS: usize = 8192;
        let mut scores = Vec::with_capacity(rows.len());
        for start in (0..rows.len()).step_by(CHUNK_ROWS) {
            let batch = Batch::new(rows, start..rows.len().min(start + CHUNK_ROWS), self.shape);
            let logits = self.logits(&batch, &self.gather(&batch)?)?.to_vec1::<f32>()?;
            scores.extend(logits.into_iter().map(|logit| 1.0 / (1.0 + (-logit).exp())));
        }
        Ok(scores)
    }

    /// Takes one step against the weighted loss of the rows `range` of `rows`, and returns that loss before the step,
    /// summed over the rows.
    pub fn step(&mut self, rows: &Rows, range: Range<usize>, targets: Targets<'_>) -> Result<f32> {
        let batch = Batch::new(rows, range, self.shape);
        let gathered = self.gather(&batch)?;
        let loss = loss(&self.logits(&batch, &gathered)?, targets)?;
        let gradients = loss.backward()?;
        let by = |variable: &Var| match gradients.get(variable) {
            Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>(),
            None => Ok(vec![0.0; variable.elem_count()]),
        };
        let (by_wide, by_embeddings) = (by(&gathered.wide)?, by(&gathered.embeddings)?);
        self.mlp.step(&gradients)?;
        self.embeddings.step(&RowGradients::sum(
            &batch.deep_ids(),
            &by_embeddings,
            self.embeddings.dimension(),
        ));
        // Each of a row's wide weights enters its logit once, so the derivative by each is that by their sum.
        let columns = self.shape.columns;
        let by_wide: Vec<f32> = by_wide.iter().flat_map(|&by| std::iter::repeat_n(by, columns)).collect();
        self.wide.step(&RowGradients::sum(&batch.ids, &by_wide, 1));
        loss.to_scalar()
    }

    fn gather(&self, batch: &Batch<'_>) -> Result<Gathered> {
        let weights = self.wide.weights();
        let sums = batch.ids.chunks_exact(self.shape.columns);
        let sums = sums.map(|ids| ids.iter().map(|&id| weights[id as usize]).sum());
        let deep = batch.deep_ids();
        let embeddings: Vec<f32> =
            deep.iter().flat_map(|&id| self.embeddings.row(id as usize)).copied().collect();
        let width = self.shape.deep_columns * self.embeddings.dimension();
        Ok(Gathered {
            wide: Var::from_vec(sums.collect::<Vec<f32>>(), batch.len, &Device::Cpu)?,
            embeddings: Var::from_vec(embeddings, (batch.len, width), &Device::Cpu)?,
        })
    }

    fn logits(&self, batch: &Batch<'_>, gathered: &Gathered) -> Result<Tensor> {
        let input = if self.shape.dense == 0 {
            gathered.embeddings.as_tensor().clone()
        } else {
            let dense = Tensor::from_slice(batch.dense, (batch.len, self.shape.dense), &Device::Cpu)?;
            Tensor::cat(&[gathered.embeddings.as_tensor(), &dense], 1)?
        };
        self.mlp.forward(&input)?.squeeze(1)? + gathered.wide.as_tensor()
    }
}

/// Some rows, in the layout that the tables want.
struct Batch<'a> {
    shape: ModelShape,
    len: usize,
    ids: Vec<u32>,
    dense: &'a [f32],
}

impl<'a> Batch<'a> {
    fn new(rows: &'a Rows, range: Range<usize>, shape: ModelShape) -> Self {
        let mut batch = Self { shape, len: range.len(), ids: Vec::new(), dense: &[] };
        for column in rows.columns() {
            let elements = range.start * column.width()..range.end * column.width();
            match column.values() {
                Values::I32(ids) => {
                    let ids = ids[elements].iter().map(|&id| u32::try_from(id));
                    batch.ids = ids.collect::<std::result::Result<_, _>>().expect("ids count from 0");
                }
                Values::F32(dense) => batch.dense = &dense[elements],
            }
        }
        batch
    }

    fn deep_ids(&self) -> Vec<u32> {
        let rows = self.ids.chunks_exact(self.shape.columns);
        rows.flat_map(|ids| &ids[..self.shape.deep_columns]).copied().collect()
    }
}

/// The weighted sum of the negative log likelihoods in nats: `softplus(logit) - label * logit`, in the form that does
/// not overflow.
fn loss(logits: &Tensor, targets: Targets<'_>) -> Result<Tensor> {
    let column = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
    let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let losses = (softplus - (logits * column(targets.labels)?)?)?;
    (losses * column(targets.weights)?)?.sum_all()
}

#[cfg(test)]
mod tests;
