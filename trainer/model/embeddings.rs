//! The embedding table under the optimiser that the pipeline names.

use std::io;

use super::{
    adagrad::{AdagradOptions, AdagradTable},
    lazy_adam::{LazyAdamOptions, LazyAdamTable},
    sparse::Touch,
    state::Visitor,
};
use crate::{
    config::{EmbeddingOptimizer, ModelConfig},
    random::Random,
};

/// An embedding table and its optimiser's state.
#[derive(Clone, Debug, PartialEq)]
pub enum Embeddings {
    /// Under row-wise Adagrad.
    Adagrad(AdagradTable),
    /// Under lazy Adam.
    Adam(LazyAdamTable),
}

impl Embeddings {
    /// A table of so many rows of small random weights.
    pub fn new(rows: usize, config: &ModelConfig, random: &mut Random) -> Self {
        let (dimension, rate, l2) = (config.embedding_dimension, config.embedding_rate, config.embedding_l2);
        match config.embedding_optimizer {
            EmbeddingOptimizer::Adagrad => {
                Self::Adagrad(AdagradTable::new(rows, dimension, AdagradOptions { rate, l2 }, random))
            }
            EmbeddingOptimizer::Adam => {
                Self::Adam(LazyAdamTable::new(rows, dimension, LazyAdamOptions { rate, l2 }, random))
            }
        }
    }

    /// Numbers in a row.
    pub fn dimension(&self) -> usize {
        match self {
            Self::Adagrad(table) => table.dimension(),
            Self::Adam(table) => table.dimension(),
        }
    }

    /// All weights, row by row.
    pub fn weights(&self) -> &[f32] {
        match self {
            Self::Adagrad(table) => table.weights(),
            Self::Adam(table) => table.weights(),
        }
    }

    pub(super) fn visit(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        match self {
            Self::Adagrad(table) => table.visit(visitor),
            Self::Adam(table) => table.visit(visitor),
        }
    }

    /// Makes the weights of `row` zero.
    pub(super) fn clear(&mut self, row: usize) {
        match self {
            Self::Adagrad(table) => table.clear(row),
            Self::Adam(table) => table.clear(row),
        }
    }

    /// A weight, for the test of its derivative.
    #[cfg(test)]
    pub(super) fn weight_mut(&mut self, at: usize) -> &mut f32 {
        match self {
            Self::Adagrad(table) => table.weight_mut(at),
            Self::Adam(table) => table.weight_mut(at),
        }
    }

    /// Takes one step against `gradient`, which knows the derivative by the embedding gathered at each touched place.
    pub fn step<'a>(&mut self, touches: &[Touch], gradient: impl Fn(usize) -> &'a [f32] + Sync) {
        match self {
            Self::Adagrad(table) => table.step(touches, gradient),
            Self::Adam(table) => table.step(touches, gradient),
        }
    }
}
