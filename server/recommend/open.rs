//! Makes a version's catalogue ready to be searched, and holds what answers against the model first.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Query, RecommendError, RecommendThread, Recommender, Room, Takes,
    gpu::{self, OnGpu},
    load::Load,
    rows::WholeRows,
    search::{Block, Pairs, search},
    towers::{Towers, item_vectors},
};
use crate::{
    engine::{
        Engine, EngineError, OnnxRuntime, PairEngine, Vectors,
        cuda::{CudaItems, CudaModel},
    },
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
    /// What searches the catalogue answers something else than the model.
    #[error("item {item}: the {by} score it {found}, the model {expected}")]
    Differs {
        /// The item, from 0.
        item: u32,
        /// What searches.
        by: &'static str,
        /// What that comes to.
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
    /// The model, where our own engine serves it from a GPU.
    pub gpu: Option<&'a CudaModel>,
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
        let way = Way::choose(source, &catalogue, room.threads, &mut between)?;
        let mut searchers: Vec<Box<dyn Pairs>> = Vec::with_capacity(room.threads);
        for _ in 0..room.threads {
            searchers.push(match &way {
                Way::Gpu(items) => Box::new(OnGpu::open(source, &catalogue, items)?),
                Way::Towers(items) => Box::new(Towers::open(source, &catalogue, items)?),
                Way::Rows => Box::new(WholeRows::new(source.encoder, &catalogue, open()?, source.batch_rows)),
            });
        }
        let mut load = Load::new(room.threads, Duration::ZERO);
        if let Some(first) = searchers.first_mut() {
            let users = users(source, &catalogue)?;
            match way {
                Way::Gpu(_) => compare_best(source.tolerance, (&catalogue, &users), &mut **first)?,
                Way::Towers(_) => compare(source, (&catalogue, &users), &mut **first, &mut *open()?)?,
                Way::Rows => {}
            }
            load = Load::new(room.threads, cost(&catalogue, &users[0], &mut **first, between)?);
        }
        let (mut recommender, threads) = Self::new(catalogue, way.name(), (searchers, load), room.queue);
        recommender.takes = way.takes(room.threads);
        Ok((recommender, threads))
    }
}

/// How pairs are scored, with what is held of the items.
enum Way {
    Gpu(CudaItems),
    Towers(Arc<Vectors>),
    Rows,
}

impl Way {
    /// On the GPU where the model is there and each column is the user's or the item's; by towers where the version has some.
    fn choose(
        source: Source<'_>,
        catalogue: &Catalogue,
        threads: usize,
        mut between: impl FnMut() -> bool,
    ) -> Result<Self, OpenError> {
        if let Some(model) = source.gpu.filter(|_| threads > 0)
            && let Some(items) =
                gpu::items(model, (source.encoder, source.rows), (catalogue, threads), &mut between)?
        {
            return Ok(Self::Gpu(items));
        }
        if source.folder.join(PairEngine::FILE).is_file() {
            return Ok(Self::Towers(Arc::new(item_vectors(source, catalogue, between)?)));
        }
        Ok(Self::Rows)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Gpu(_) => "gpu",
            Self::Towers(_) => "towers",
            Self::Rows => "rows",
        }
    }

    /// What so many threads take for themselves.
    fn takes(&self, threads: usize) -> Takes {
        match self {
            Self::Gpu(items) => Takes { engines: 0, gpu_bytes: items.bytes(threads) },
            Self::Towers(_) => Takes::default(),
            Self::Rows => Takes { engines: threads, gpu_bytes: 0 },
        }
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
                    return Err(OpenError::Differs { item, by: "towers", found, expected });
                }
            }
        }
    }
    Ok(())
}

/// Asks for the best items of all, and for whole rows of the same items: what lies on the GPU must come to what is encoded
/// here. The rows are filled up to a block, which is computed by the same products as a block of the search.
fn compare_best(
    tolerance: f32,
    (catalogue, users): (&Catalogue, &[Rows]),
    pairs: &mut dyn Pairs,
) -> Result<(), OpenError> {
    let block = catalogue.len().min(pairs.block_items());
    let mut expected = Vec::new();
    for user in users {
        let k = COMPARED_ITEMS.min(block);
        let query = Query { user: user.clone(), k, excluded: Vec::new(), candidates: None };
        let best = search(pairs, catalogue.count(), &query, || Ok(()))?;
        let items = best.iter().map(|scored| scored.item).chain(0..catalogue.count());
        let items: Vec<u32> = items.take(block).collect();
        pairs.begin(user)?;
        pairs.score(&Block::Chosen(&items), &mut expected)?;
        for (scored, &expected) in best.iter().zip(&expected) {
            let found = scored.score;
            let expected = pairs.probability(expected);
            if !agree(found, expected, tolerance) {
                return Err(OpenError::Differs {
                    item: scored.item,
                    by: "items on the GPU",
                    found,
                    expected,
                });
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
    use crate::{
        features::{Schema, Vocabulary},
        recommend::{Scored, search::GoOn},
    };

    /// Scores every item 0.5 as a row, and at once what it says.
    struct AtOnce(f32);

    impl Pairs for AtOnce {
        fn begin(&mut self, _: &Rows) -> Result<(), RecommendError> {
            Ok(())
        }

        fn score(&mut self, block: &Block<'_>, scores: &mut Vec<f32>) -> Result<(), RecommendError> {
            assert_eq!(block.len(), self.block_items(), "as many rows as in a block of the search");
            scores.clear();
            scores.resize(block.len(), 0.5);
            Ok(())
        }

        fn best(&mut self, query: &Query, _: &mut GoOn<'_>) -> Option<Result<Vec<Scored>, RecommendError>> {
            let items = [7, 3].into_iter().take(query.k);
            Some(Ok(items.map(|item| Scored { item, score: self.0 }).collect()))
        }

        fn block_items(&self) -> usize {
            8
        }

        fn probability(&self, score: f32) -> f32 {
            score
        }
    }

    #[test]
    fn what_is_searched_at_once_is_held_against_whole_rows() {
        let schema = r#"
            feature = [
              { name = "user", kind = "categorical", source = { hash = 9 } },
              { name = "item", kind = "categorical", source = { hash = 9 } },
            ]
        "#;
        let schema: Schema = toml::from_str(schema).expect("a schema");
        let encoder = Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout");
        let items = (0..9).map(|item| vec![Value::Int(item)]).collect();
        let catalogue = Catalogue::new(&encoder, "item".into(), &["item".into()], items).expect("items");
        let users = [catalogue.user(&encoder, &[Value::Int(1), Value::Missing]).expect("a user")];
        let compare = |score| compare_best(1e-4, (&catalogue, &users), &mut AtOnce(score));
        compare(0.500_09).expect("as near as it may be");
        let error = compare(0.500_2).expect_err("further away").to_string();
        assert_eq!(error, "item 7: the items on the GPU score it 0.5002, the model 0.5");
    }

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
