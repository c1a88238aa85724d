//! Makes a version's catalogue ready to be searched, and holds what answers against the model first.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Query, RecommendError, RecommendThread, Recommender, Room,
    load::Load,
    rows::WholeRows,
    search::{Block, Pairs, search},
    towers::{Towers, item_vectors},
};
use crate::{
    engine::{Engine, EngineError, OnnxRuntime, PairEngine},
    features::{Catalogue, Encoder, FeatureError, Value},
    tensor::Rows,
};

/// Why a version's catalogue cannot be searched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The engine refused a file of the version.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The items' vectors would take more memory than they may.
    #[error(
        "the vectors of {items} items, {width} numbers and a bias each, would take more than max_catalogue_bytes ({limit})"
    )]
    TooLarge {
        /// Items.
        items: usize,
        /// Numbers in a vector.
        width: usize,
        /// Bytes that they may take.
        limit: usize,
    },
    /// Some number of an item's vector is none.
    #[error("the vector or the bias of an item is not finite")]
    NotFinite,
    /// A row that stands for users cannot be encoded.
    #[error("a golden row's user")]
    User(#[source] FeatureError),
    /// The catalogue could not be searched.
    #[error("the catalogue cannot be searched")]
    Search(#[from] RecommendError),
    /// The towers answer something else than the model.
    #[error("item {item}: the towers score it {found}, the model {expected}")]
    Differs {
        /// The item, from 0.
        item: u32,
        /// What the towers come to.
        found: f32,
        /// What the model answers.
        expected: f32,
    },
    /// The server stops.
    #[error("the server stops")]
    Stopped,
}

/// What is known of a version when it is loaded.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// What computes towers.
    pub runtime: &'a OnnxRuntime,
    /// The version's folder.
    pub folder: &'a Path,
    /// What encodes its rows.
    pub encoder: &'a Arc<Encoder>,
    /// Rows that the model takes, at least one, whose users stand for all.
    pub rows: &'a [Vec<Value>],
    /// How far apart towers and model may be, in probability where that is a half and in proportion elsewhere.
    pub tolerance: f32,
    /// The most rows of a batch.
    pub batch_rows: usize,
    /// The most bytes that the items' vectors may take.
    pub max_bytes: usize,
}

impl Recommender {
    /// Makes `catalogue` ready to be asked, with the threads that somebody has to run. `open` opens an engine of the model.
    /// After each block of items that was looked at, `between` says whether to go on.
    pub fn open<E: From<OpenError>>(
        source: Source<'_>,
        catalogue: Arc<Catalogue>,
        room: Room,
        mut open: impl FnMut() -> Result<Box<dyn Engine>, E>,
        mut between: impl FnMut() -> bool,
    ) -> Result<(Self, Vec<RecommendThread>), E> {
        let mut searchers: Vec<Box<dyn Pairs>> = Vec::with_capacity(room.threads);
        let has_towers = source.folder.join(PairEngine::FILE).is_file();
        if has_towers {
            let items = Arc::new(item_vectors(source, &catalogue, &mut between)?);
            for _ in 0..room.threads {
                searchers.push(Box::new(Towers::open(source, &catalogue, &items)?));
            }
        } else {
            for _ in 0..room.threads {
                let engine = open()?;
                searchers.push(Box::new(WholeRows::new(
                    source.encoder,
                    &catalogue,
                    engine,
                    source.batch_rows,
                )));
            }
        }
        let mut load = Load::new(room.threads, Duration::ZERO);
        if let Some(first) = searchers.first_mut() {
            let users = users(source, &catalogue)?;
            if has_towers {
                compare(source, (&catalogue, &users), &mut **first, &mut *open()?)?;
            }
            load = Load::new(room.threads, cost(&catalogue, &users[0], &mut **first, between)?);
        }
        let method = if has_towers { "towers" } else { "rows" };
        Ok(Self::new(catalogue, method, (searchers, load), room.queue))
    }
}

/// Some users.
fn users(source: Source<'_>, catalogue: &Catalogue) -> Result<Vec<Rows>, OpenError> {
    let users = source.rows.iter().take(COMPARED_USERS);
    users.map(|row| catalogue.user(source.encoder, row).map_err(OpenError::User)).collect()
}

/// Asks the towers and the model for the same pairs: those of some users with items from all over the catalogue, and with
/// the first ones, which lie side by side as in a search of all.
fn compare(
    source: Source<'_>,
    (catalogue, users): (&Catalogue, &[Rows]),
    pairs: &mut dyn Pairs,
    engine: &mut dyn Engine,
) -> Result<(), OpenError> {
    let count = catalogue.count();
    let spread: Vec<u32> = (0..count).step_by(catalogue.len().div_ceil(COMPARED_ITEMS)).collect();
    let first = u32::try_from(COMPARED_ITEMS.min(pairs.block_items())).unwrap_or(1);
    let (mut found, mut expected, mut rows) = (Vec::new(), Vec::new(), Rows::new(source.encoder.signature()));
    for user in users {
        pairs.begin(user)?;
        for block in [Block::Chosen(&spread), Block::Range(0..count.min(first))] {
            let items = (0..block.len()).map(|place| block.item(place));
            pairs.score(&block, &mut found)?;
            rows.clear();
            catalogue.encode(source.encoder, user, items.clone(), &mut rows);
            engine.run(&rows, &mut expected)?;
            for ((item, &score), &expected) in items.zip(&found).zip(&expected) {
                let found = pairs.probability(score);
                if !agree(found, expected, source.tolerance) {
                    return Err(OpenError::Differs { item, found, expected });
                }
            }
        }
    }
    Ok(())
}

/// Whether two probabilities are the same up to rounding. Near 0 and 1 the same distance is one between quite different
/// rows, so it is to be smaller there, as the sigmoid is flatter.
fn agree(found: f32, expected: f32, tolerance: f32) -> bool {
    let steepness = 4.0 * expected * (1.0 - expected);
    // Written so that a NaN on either side counts as a difference.
    (found - expected).abs() <= tolerance * steepness.max(0.0) + ROUNDING
}

/// What an item costs, by a search of all.
fn cost(
    catalogue: &Catalogue,
    user: &Rows,
    pairs: &mut dyn Pairs,
    mut between: impl FnMut() -> bool,
) -> Result<Duration, OpenError> {
    let query = Query { user: user.clone(), k: 1, excluded: Vec::new(), candidates: None };
    // Where it rests in between does not count.
    let (mut computed, mut since) = (Duration::ZERO, Instant::now());
    let found = search(pairs, catalogue.count(), &query, || {
        computed += since.elapsed();
        let go_on = between();
        since = Instant::now();
        if go_on { Ok(()) } else { Err(RecommendError::Cancelled) }
    });
    match found {
        Err(RecommendError::Cancelled) => Err(OpenError::Stopped),
        Err(error) => Err(error.into()),
        Ok(_) => Ok((computed + since.elapsed()) / catalogue.count()),
    }
}

/// Items that towers and model are compared on, about.
const COMPARED_ITEMS: usize = 64;
/// Users that they are compared on, at most.
const COMPARED_USERS: usize = 8;
/// What rounding may do to a probability that is all but 0 or 1.
const ROUNDING: f32 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_sigmoid_is_flat_the_same_distance_is_a_greater_one() {
        for (found, expected, agrees) in [
            (0.5, 0.500_09, true),
            (0.5, 0.500_2, false),
            (0.0016, 0.001_601, true),
            (0.0016, 0.001_65, false),
            (0.999_999_9, 1.0, true),
            (0.999, 1.0, false),
            (f32::NAN, 0.5, false),
            (0.5, f32::NAN, false),
        ] {
            assert_eq!(agree(found, expected, 1e-4), agrees, "{found} {expected}");
        }
    }
}
