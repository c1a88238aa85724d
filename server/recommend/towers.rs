//! Scores by the towers of a version: the vector of each item is there from the start, so that a request costs the user's
//! vector once and a product an item.

use std::sync::Arc;

use super::{
    OpenError, RecommendError, Source,
    search::{Block, MOST_BLOCK_ITEMS, Pairs, ranges},
};
use crate::{
    engine::{EngineError, PairEngine, Side, TowerEngine, Vectors},
    features::{Catalogue, Encoder, Value},
    tensor::Rows,
};

/// The towers of a version.
pub(super) struct Towers {
    encoder: Arc<Encoder>,
    catalogue: Arc<Catalogue>,
    tower: TowerEngine,
    pairs: PairEngine,
    /// Of all items.
    items: Arc<Vectors>,
    /// Of the user who asks.
    user: Vectors,
    /// Of items that do not lie side by side.
    chosen: Vectors,
    rows: Rows,
}

impl Towers {
    /// The user's tower of a version beside the vectors of its items.
    pub(super) fn open(
        source: Source<'_>,
        catalogue: &Arc<Catalogue>,
        items: &Arc<Vectors>,
    ) -> Result<Self, OpenError> {
        let Source { runtime, folder, encoder, .. } = source;
        let tower = TowerEngine::open(runtime, folder, Side::User, encoder.signature())?;
        let width = tower.width();
        if items.vectors.len() != items.biases.len() * width {
            let text = format!("the towers' vectors are of {width} and other numbers");
            return Err(EngineError::Signature(text).into());
        }
        Ok(Self {
            encoder: Arc::clone(encoder),
            catalogue: Arc::clone(catalogue),
            pairs: PairEngine::open(runtime, folder, width)?,
            tower,
            items: Arc::clone(items),
            user: Vectors::default(),
            chosen: Vectors::default(),
            rows: Rows::new(encoder.signature()),
        })
    }
}

/// The vectors of all items; `between` is called after each block of them.
pub(super) fn item_vectors(
    source: Source<'_>,
    catalogue: &Catalogue,
    mut between: impl FnMut(),
) -> Result<Vectors, OpenError> {
    let Source { runtime, folder, encoder, rows: users, max_bytes, .. } = source;
    let user = users.first().expect("a row stands for the user");
    let mut tower = TowerEngine::open(runtime, folder, Side::Item, encoder.signature())?;
    let (items, width) = (catalogue.len(), tower.width());
    let bytes = items.checked_mul(width + 1).and_then(|numbers| numbers.checked_mul(size_of::<f32>()));
    let bytes = bytes.filter(|&bytes| bytes <= max_bytes);
    bytes.ok_or(OpenError::TooLarge { items, width, limit: max_bytes })?;
    let mut vectors =
        Vectors { vectors: Vec::with_capacity(items * width), biases: Vec::with_capacity(items) };
    let mut rows = Rows::new(encoder.signature());
    for block in ranges(catalogue.count(), MOST_BLOCK_ITEMS) {
        rows.clear();
        catalogue.encode(encoder, user, block, &mut rows).map_err(RecommendError::Pair)?;
        tower.run(&rows, &mut vectors)?;
        between();
    }
    Ok(vectors)
}

impl Pairs for Towers {
    fn begin(&mut self, row: &[Value]) -> Result<(), RecommendError> {
        self.rows.clear();
        // Any item does, for the user's tower does not look at it.
        self.catalogue.encode(&self.encoder, row, [0], &mut self.rows).map_err(RecommendError::Pair)?;
        self.user.clear();
        Ok(self.tower.run(&self.rows, &mut self.user)?)
    }

    fn score(&mut self, block: &Block<'_>, scores: &mut Vec<f32>) -> Result<(), RecommendError> {
        let items = match block {
            Block::Range(range) => self.items.slice(range.start as usize..range.end as usize),
            Block::Chosen(items) => {
                self.chosen.choose(&self.items, items);
                self.chosen.slice(0..items.len())
            }
        };
        Ok(self.pairs.run(&self.user, items, scores)?)
    }

    fn block_items(&self) -> usize {
        (BLOCK_NUMBERS / self.tower.width()).clamp(1, MOST_BLOCK_ITEMS)
    }

    /// Scores are logits, which tell apart what as probabilities would all be one.
    fn probability(&self, score: f32) -> f32 {
        1.0 / (1.0 + (-score).exp())
    }
}

/// Numbers in the vectors of a block, so that what the layers make of it on the way stays in a core's cache: with 1024 numbers
/// a vector, 256 items at a time take two thirds of the time of 4096.
const BLOCK_NUMBERS: usize = 1 << 18;
