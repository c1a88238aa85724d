//! The best items of a whole catalogue for a user: what `POST /api/recommend/{model}` answers.
//!
//! A version whose folder has a catalogue gets threads of their own for this, because to look at a million items takes
//! longer than a thread that serves may. They take questions from one bounded queue, a question each at a time.
//!
//! ```text
//! ask ─▶ queue ─▶ (a thread is free) ─▶ search: towers or whole rows, block by block ─▶ best ─▶ reply
//! ```
//!
//! Whichever way its pairs are scored, an answer is what scoring each of them by the model would have come to.

mod best;
mod rows;
mod search;
mod towers;

use std::{path::Path, sync::Arc, time::Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

pub use self::best::Scored;
use self::{
    rows::WholeRows,
    search::{Block, Pairs, search},
    towers::{Towers, item_vectors},
};
use crate::{
    engine::{Engine, EngineError, OnnxEngine, OnnxRuntime, PairEngine},
    features::{Catalogue, Encoder, PairError, Value},
    tensor::Rows,
};

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecommendError {
    /// As many questions wait as may.
    #[error("the model's queue of recommendations is full")]
    QueueFull,
    /// The deadline passed before the items were searched.
    #[error("the deadline passed before the model answered")]
    Expired,
    /// Nobody waits for the answer.
    #[error("the client went away")]
    Cancelled,
    /// The engine failed.
    #[error("the engine failed")]
    Engine(#[from] EngineError),
    /// The user's values, or an item's, cannot be encoded.
    #[error("a value cannot be encoded")]
    Pair(#[from] PairError),
    /// The engine answered something that is no score.
    #[error("the model's score for an item is not a finite number")]
    NotFinite,
    /// The thread went away while it searched, which only a panic inside it can cause.
    #[error("the search stopped")]
    Lost,
}

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
    /// Some item could not be scored.
    #[error("an item cannot be scored")]
    Score(#[from] RecommendError),
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
}

/// What is known of a version when it is loaded.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// What computes.
    pub runtime: &'a OnnxRuntime,
    /// The version's folder.
    pub folder: &'a Path,
    /// The model's file in it.
    pub model: &'a str,
    /// What encodes its rows.
    pub encoder: &'a Arc<Encoder>,
    /// Rows that the model takes, at least one, whose users stand for all.
    pub rows: &'a [Vec<Value>],
    /// How far the towers' probabilities may be from the model's.
    pub tolerance: f32,
    /// The most bytes that the items' vectors may take.
    pub max_bytes: usize,
}

/// What is asked of a catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// A positional row; what it says of an item does not count.
    pub row: Vec<Value>,
    /// How many items, from 1.
    pub k: usize,
    /// Items that are not to be answered, ascending.
    pub excluded: Vec<u32>,
    /// The only items to choose from, ascending, each once; the whole catalogue where `None`.
    pub candidates: Option<Vec<u32>>,
}

/// The items of a version, to be asked for the best.
pub struct Recommender {
    catalogue: Arc<Catalogue>,
    method: &'static str,
    questions: Sender<Question>,
}

/// One of the threads that answer; somebody has to run it. It ends once its [`Recommender`] is dropped.
pub struct RecommendThread {
    questions: Receiver<Question>,
    items: u32,
    pairs: Box<dyn Pairs>,
}

struct Question {
    query: Query,
    deadline: Instant,
    reply: oneshot::Sender<Result<Vec<Scored>, RecommendError>>,
}

/// How many answer, and how many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Threads, at least one.
    pub threads: usize,
    /// Questions that may wait for one of them.
    pub queue: usize,
}

impl Recommender {
    /// Makes `catalogue` ready to be asked, with the threads that somebody has to run. `between` is called after each block
    /// of items that was looked at.
    pub fn open(
        source: Source<'_>,
        catalogue: Arc<Catalogue>,
        room: Room,
        between: impl FnMut(),
    ) -> Result<(Self, Vec<RecommendThread>), OpenError> {
        let (sender, receiver) = bounded(room.queue);
        let has_towers = source.folder.join(PairEngine::FILE).is_file();
        let searched = if has_towers {
            by_towers(source, &catalogue, room.threads, between)?
        } else {
            by_rows(source, &catalogue, room.threads)?
        };
        let thread = |pairs| RecommendThread { questions: receiver.clone(), items: catalogue.count(), pairs };
        let threads = searched.into_iter().map(thread).collect();
        let method = if has_towers { "towers" } else { "rows" };
        Ok((Self { catalogue, method, questions: sender }, threads))
    }

    /// What it can recommend.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// How pairs are scored: by `towers`, or as whole `rows`.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// The best items for `query`, best first, with their probabilities.
    ///
    /// # Cancel safety
    /// Dropping the future ends the search after the block that is being scored.
    pub async fn ask(&self, query: Query, deadline: Instant) -> Result<Vec<Scored>, RecommendError> {
        let (reply, answer) = oneshot::channel();
        match self.questions.try_send(Question { query, deadline, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(RecommendError::QueueFull),
            Err(TrySendError::Disconnected(_)) => return Err(RecommendError::Lost),
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RecommendError::Lost),
            Err(_) => Err(RecommendError::Expired),
        }
    }
}

impl RecommendThread {
    /// Answers what is asked until nobody can ask any more.
    pub fn run(mut self) {
        while let Ok(Question { query, deadline, reply }) = self.questions.recv() {
            let go_on = || {
                if reply.is_closed() {
                    return Err(RecommendError::Cancelled);
                }
                if Instant::now() >= deadline { Err(RecommendError::Expired) } else { Ok(()) }
            };
            let best = search(&mut *self.pairs, self.items, &query, go_on);
            // Whoever asked may have gone away since.
            let _ = reply.send(best);
        }
    }
}

impl Source<'_> {
    fn engine(&self) -> Result<OnnxEngine, EngineError> {
        OnnxEngine::open(self.runtime, &self.folder.join(self.model), self.encoder.signature())
    }
}

/// So many searchers by towers, which share the items' vectors and were held against the model.
fn by_towers(
    source: Source<'_>,
    catalogue: &Arc<Catalogue>,
    threads: usize,
    between: impl FnMut(),
) -> Result<Vec<Box<dyn Pairs>>, OpenError> {
    let items = Arc::new(item_vectors(source, catalogue, between)?);
    let open = |_| Towers::open(source, catalogue, &items);
    let mut towers = (0..threads).map(open).collect::<Result<Vec<_>, _>>()?;
    if let Some(first) = towers.first_mut() {
        compare(source, catalogue, first, &mut source.engine()?)?;
    }
    Ok(towers.into_iter().map(|towers| Box::new(towers) as Box<dyn Pairs>).collect())
}

/// So many searchers with an engine each.
fn by_rows(
    source: Source<'_>,
    catalogue: &Arc<Catalogue>,
    threads: usize,
) -> Result<Vec<Box<dyn Pairs>>, OpenError> {
    let open = |_| -> Result<Box<dyn Pairs>, OpenError> {
        let engine = Box::new(source.engine()?);
        Ok(Box::new(WholeRows::new(source.encoder, catalogue, engine)))
    };
    (0..threads).map(open).collect()
}

/// Asks the towers and the model for the same pairs: those of some users with items from all over the catalogue.
fn compare(
    source: Source<'_>,
    catalogue: &Catalogue,
    pairs: &mut dyn Pairs,
    engine: &mut dyn Engine,
) -> Result<(), OpenError> {
    let Source { encoder, tolerance, .. } = source;
    let count = catalogue.count();
    let items: Vec<u32> = (0..count).step_by(catalogue.len().div_ceil(COMPARED_ITEMS)).collect();
    let (mut found, mut expected, mut rows) = (Vec::new(), Vec::new(), Rows::new(encoder.signature()));
    for row in source.rows.iter().take(COMPARED_USERS) {
        pairs.begin(row)?;
        pairs.score(&Block::Chosen(&items), &mut found)?;
        rows.clear();
        catalogue.encode(encoder, row, items.iter().copied(), &mut rows).map_err(RecommendError::Pair)?;
        engine.run(&rows, &mut expected)?;
        for ((&item, &score), &expected) in items.iter().zip(&found).zip(&expected) {
            let found = pairs.probability(score);
            // Written so that a NaN on either side counts as a difference.
            let within = (found - expected).abs() <= tolerance;
            if !within {
                return Err(OpenError::Differs { item, found, expected });
            }
        }
    }
    Ok(())
}

/// Items that towers and model are compared on, about.
const COMPARED_ITEMS: usize = 64;
/// Users that they are compared on, at most.
const COMPARED_USERS: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::features::{Schema, Vocabulary};

    /// Scores items by their numbers.
    struct ByNumber;

    impl Pairs for ByNumber {
        fn begin(&mut self, _: &[Value]) -> Result<(), RecommendError> {
            Ok(())
        }

        fn score(&mut self, block: &Block<'_>, scores: &mut Vec<f32>) -> Result<(), RecommendError> {
            scores.clear();
            scores.extend((0..block.len()).map(|place| block.item(place) as f32));
            Ok(())
        }

        fn block_items(&self) -> usize {
            2
        }

        fn probability(&self, score: f32) -> f32 {
            score
        }
    }

    /// A recommender of three items with room for one question, and its thread, which nobody runs yet.
    fn recommender() -> (Recommender, RecommendThread) {
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "user", kind = "categorical", source = { hash = 9 } },
              { name = "item", kind = "categorical", source = { hash = 9 } },
            ]
            "#,
        )
        .expect("a schema");
        let encoder = Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout");
        let items = (0..3).map(|item| vec![Value::Int(item)]).collect();
        let catalogue = Catalogue::new(&encoder, "item".into(), &["item".into()], items).expect("items");
        let (sender, questions) = bounded(1);
        let thread = RecommendThread { questions, items: catalogue.count(), pairs: Box::new(ByNumber) };
        (Recommender { catalogue: Arc::new(catalogue), method: "rows", questions: sender }, thread)
    }

    fn query() -> Query {
        Query { row: vec![Value::Int(1), Value::Missing], k: 1, excluded: Vec::new(), candidates: None }
    }

    fn soon() -> Instant {
        tokio::time::Instant::now().into_std() + Duration::from_mins(1)
    }

    #[tokio::test]
    async fn a_question_is_answered_by_the_thread() {
        let (recommender, thread) = recommender();
        let searching = std::thread::spawn(|| thread.run());
        let best = recommender.ask(query(), soon()).await.expect("an item");
        assert_eq!(best, [Scored { item: 2, score: 2.0 }]);
        drop(recommender);
        searching.join().expect("it ends with its recommender");
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_the_queue_full_is_sent_away_and_who_waits_too_long_is_told() {
        let (recommender, thread) = recommender();
        let waiting = recommender.ask(query(), soon());
        let refused = async {
            tokio::task::yield_now().await;
            recommender.ask(query(), soon()).await
        };
        let (waited, refused) = tokio::join!(waiting, refused);
        assert!(matches!(refused, Err(RecommendError::QueueFull)), "{refused:?}");
        assert!(matches!(waited, Err(RecommendError::Expired)), "{waited:?}");
        drop(thread);
    }

    #[tokio::test]
    async fn a_thread_that_went_away_is_no_silence() {
        let (recommender, thread) = recommender();
        drop(thread);
        let answer = recommender.ask(query(), soon()).await;
        assert!(matches!(answer, Err(RecommendError::Lost)), "{answer:?}");
    }
}
