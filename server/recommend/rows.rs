//! Scores each pair as a request to predict would be: encoded, and computed in batches. This is for models that look at a
//! user and an item together.

use std::sync::Arc;

use super::{
    RecommendError,
    search::{Block, MOST_BLOCK_ITEMS, Pairs},
};
use crate::{
    engine::Engine,
    features::{Catalogue, Encoder, Value},
    tensor::Rows,
};

/// A model that takes whole rows, and the user who asks.
pub(super) struct WholeRows {
    encoder: Arc<Encoder>,
    catalogue: Arc<Catalogue>,
    engine: Box<dyn Engine>,
    user: Vec<Value>,
    rows: Rows,
}

impl WholeRows {
    /// The model that `engine` computes.
    pub(super) fn new(encoder: &Arc<Encoder>, catalogue: &Arc<Catalogue>, engine: Box<dyn Engine>) -> Self {
        Self {
            encoder: Arc::clone(encoder),
            catalogue: Arc::clone(catalogue),
            rows: Rows::new(engine.signature()),
            engine,
            user: Vec::new(),
        }
    }
}

impl Pairs for WholeRows {
    fn begin(&mut self, row: &[Value]) -> Result<(), RecommendError> {
        self.user.clear();
        self.user.extend_from_slice(row);
        Ok(())
    }

    fn score(&mut self, block: &Block<'_>, scores: &mut Vec<f32>) -> Result<(), RecommendError> {
        self.rows.clear();
        let items = (0..block.len()).map(|place| block.item(place));
        self.catalogue.encode(&self.encoder, &self.user, items, &mut self.rows)?;
        Ok(self.engine.run(&self.rows, scores)?)
    }

    fn block_items(&self) -> usize {
        MOST_BLOCK_ITEMS
    }

    /// It is what the model answers.
    fn probability(&self, score: f32) -> f32 {
        score
    }
}
