//! Scores each pair as a request to predict would be: encoded, and computed in batches. This is for models that look at a
//! user and an item together.

use std::sync::Arc;

use super::{
    RecommendError,
    search::{Block, MOST_BLOCK_ITEMS, Pairs},
};
use crate::{
    engine::Engine,
    features::{Catalogue, Encoder},
    tensor::Rows,
};

/// A model that takes whole rows, and the user who asks.
pub(super) struct WholeRows<E> {
    encoder: Arc<Encoder>,
    catalogue: Arc<Catalogue>,
    engine: E,
    user: Rows,
    /// The most rows that the engine takes at once.
    batch_rows: usize,
    rows: Rows,
}

impl<E: Engine> WholeRows<E> {
    /// The model that `engine` computes.
    pub(super) fn new(
        encoder: &Arc<Encoder>,
        catalogue: &Arc<Catalogue>,
        engine: E,
        batch_rows: usize,
    ) -> Self {
        Self {
            encoder: Arc::clone(encoder),
            catalogue: Arc::clone(catalogue),
            user: Rows::new(engine.signature()),
            batch_rows,
            rows: Rows::new(engine.signature()),
            engine,
        }
    }

    pub(super) fn engine(&mut self) -> &mut E {
        &mut self.engine
    }

    /// The row of the user with the item of this number.
    pub(super) fn pair(&mut self, item: u32) -> &Rows {
        self.rows.clear();
        self.catalogue.encode(&self.encoder, &self.user, [item], &mut self.rows);
        &self.rows
    }
}

impl<E: Engine> Pairs for WholeRows<E> {
    fn begin(&mut self, user: &Rows) -> Result<(), RecommendError> {
        self.user.clone_from(user);
        Ok(())
    }

    fn score(&mut self, block: &Block<'_>, scores: &mut Vec<f32>) -> Result<(), RecommendError> {
        self.rows.clear();
        let items = (0..block.len()).map(|place| block.item(place));
        self.catalogue.encode(&self.encoder, &self.user, items, &mut self.rows);
        Ok(self.engine.run(&self.rows, scores)?)
    }

    fn block_items(&self) -> usize {
        self.batch_rows.min(MOST_BLOCK_ITEMS)
    }

    /// It is what the model answers.
    fn probability(&self, score: f32) -> f32 {
        score
    }
}
