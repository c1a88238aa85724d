//! The best items of a whole catalogue for a user: what `POST /api/recommend/{model}` answers.
//!
//! A version whose folder has a catalogue gets threads of their own for this, because to look at a million items takes
//! longer than a thread that serves may. They take questions from one bounded queue, a question each at a time.
//!
//! ```text
//! ask ─▶ queue ─▶ (a thread is free) ─▶ search: towers or whole rows, block by block ─▶ best ─▶ reply
//!                                           └─ or on the gpu, all at once ────────────────┘
//! ```
//!
//! Whichever way its pairs are scored, an answer is what scoring each of them by the model would have come to.

mod best;
mod gpu;
mod load;
mod open;
mod rows;
mod search;
mod towers;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

pub use self::{
    best::Scored,
    open::{OpenError, Source},
};
use self::{
    load::Load,
    search::{Pairs, search},
};
use crate::{engine::EngineError, features::Catalogue, metrics::VersionMetrics, tensor::Rows};

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecommendError {
    /// As many questions wait as may.
    #[error("the model's queue of recommendations is full")]
    QueueFull,
    /// By what searches cost, the answer would come too late.
    #[error("the model has too much to search to answer before the deadline")]
    NoTime,
    /// The deadline passed before the items were searched.
    #[error("the deadline passed before the model answered")]
    Expired,
    /// Nobody waits for the answer.
    #[error("the client went away")]
    Cancelled,
    /// The engine failed.
    #[error("the engine failed")]
    Engine(#[from] EngineError),
    /// The engine answered something that is no score.
    #[error("the model's score for an item is not a finite number")]
    NotFinite,
    /// The search ended without an answer, which only a panic in it can cause.
    #[error("the search stopped")]
    Lost,
}

/// What is asked of a catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// A row of one, with what callers say of the user and nothing of an item.
    pub user: Rows,
    /// How many items, from 1.
    pub k: usize,
    /// Items that are not to be answered, ascending.
    pub excluded: Vec<u32>,
    /// The only items to choose from, ascending, each once; the whole catalogue where `None`.
    pub candidates: Option<Vec<u32>>,
}

impl Query {
    /// The items that are to be scored, of a catalogue of so many.
    fn items(&self, catalogue: usize) -> usize {
        self.candidates.as_ref().map_or(catalogue, Vec::len)
    }
}

/// How many answer, and how many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Threads; where there are none, nothing is recommended.
    pub threads: usize,
    /// Questions that may wait for one of them.
    pub queue: usize,
}

/// The items of a version, to be asked for the best.
pub struct Recommender {
    catalogue: Arc<Catalogue>,
    method: &'static str,
    questions: Sender<Question>,
    load: Arc<Load>,
    takes: Takes,
}

/// What searches of a version take beside what serves its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// Engines of the model.
    pub engines: usize,
    /// Bytes of the GPU beside those engines.
    pub gpu_bytes: usize,
}

/// One of the threads that answer; somebody has to run it. It ends once its [`Recommender`] is dropped.
pub struct RecommendThread {
    questions: Receiver<Question>,
    items: u32,
    pairs: Box<dyn Pairs>,
    load: Arc<Load>,
}

struct Question {
    query: Query,
    asked: Instant,
    deadline: Instant,
    reply: oneshot::Sender<Result<Vec<Scored>, RecommendError>>,
}

impl Recommender {
    /// Puts together what was opened, with the threads that somebody has to run.
    fn new(
        catalogue: Arc<Catalogue>,
        method: &'static str,
        (searchers, load): (Vec<Box<dyn Pairs>>, Load),
        queue: usize,
    ) -> (Self, Vec<RecommendThread>) {
        let (questions, receiver) = bounded(queue);
        let load = Arc::new(load);
        let thread = |pairs| {
            let (questions, load) = (receiver.clone(), Arc::clone(&load));
            RecommendThread { questions, items: catalogue.count(), pairs, load }
        };
        let threads = searchers.into_iter().map(thread).collect();
        (Self { catalogue, method, questions, load, takes: Takes::default() }, threads)
    }

    /// What it can recommend.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// How pairs are scored: on the `gpu`, by `towers`, or as whole `rows`.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// What its searches take.
    pub fn takes(&self) -> Takes {
        self.takes
    }

    /// Whether there is room for a question that was not read yet. What this says no to need not be read.
    pub fn admits(&self) -> Result<(), RecommendError> {
        if self.questions.is_full() { Err(RecommendError::QueueFull) } else { Ok(()) }
    }

    /// The best items for `query`, best first, with their probabilities.
    ///
    /// # Cancel safety
    /// Dropping the future ends the search after the block that is being scored.
    pub async fn ask(&self, query: Query, deadline: Instant) -> Result<Vec<Scored>, RecommendError> {
        let items = query.items(self.catalogue.len());
        let now = tokio::time::Instant::now().into_std();
        if now + self.load.expected(items) > deadline {
            return Err(RecommendError::NoTime);
        }
        let (reply, answer) = oneshot::channel();
        self.load.add(items);
        if let Err(error) = self.questions.try_send(Question { query, asked: now, deadline, reply }) {
            self.load.remove(items);
            return Err(match error {
                TrySendError::Full(_) => RecommendError::QueueFull,
                TrySendError::Disconnected(_) => RecommendError::Lost,
            });
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
    pub fn run(mut self, metrics: &VersionMetrics) {
        while let Ok(question) = self.questions.recv() {
            let items = question.query.items(self.items as usize);
            let (waited, start) = (question.asked.elapsed(), Instant::now());
            self.answer(question, items);
            metrics.series().searched(waited, start.elapsed());
            self.load.remove(items);
        }
    }

    fn answer(&mut self, Question { query, deadline, reply, .. }: Question, items: usize) {
        let go_on = || {
            if reply.is_closed() {
                return Err(RecommendError::Cancelled);
            }
            if Instant::now() >= deadline { Err(RecommendError::Expired) } else { Ok(()) }
        };
        let start = Instant::now();
        // A search begins anew whatever the one before has left behind, so a panic in one ends that one alone.
        let best = AssertUnwindSafe(|| search(&mut *self.pairs, self.items, &query, go_on));
        let best = panic::catch_unwind(best).unwrap_or(Err(RecommendError::Lost));
        if best.is_ok() {
            self.load.learn(items, start.elapsed());
        }
        // Whoever asked may have gone away since.
        let _ = reply.send(best);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::search::Block;
    use super::*;
    use crate::{
        features::{Encoder, Schema, Value, Vocabulary},
        metrics::{Metrics, VersionFacts},
        tensor::{DType, Signature, TensorSpec},
    };

    /// Scores items by their numbers.
    struct ByNumber;

    impl Pairs for ByNumber {
        fn begin(&mut self, user: &Rows) -> Result<(), RecommendError> {
            assert_eq!(user.len(), 1, "a row of one");
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
        let load = Load::new(1, Duration::from_millis(1));
        let searchers: (Vec<Box<dyn Pairs>>, _) = (vec![Box::new(ByNumber)], load);
        let (recommender, mut threads) = Recommender::new(Arc::new(catalogue), "rows", searchers, 1);
        (recommender, threads.remove(0))
    }

    fn query() -> Query {
        let input = TensorSpec { name: "ids".into(), dtype: DType::I32, width: 2 };
        let mut user = Rows::new(&Signature { inputs: vec![input], output: "score".into() });
        user.push_zeroed();
        Query { user, k: 1, excluded: Vec::new(), candidates: None }
    }

    fn metrics() -> Arc<VersionMetrics> {
        Metrics::new("test").version("shop", 1, VersionFacts::default())
    }

    fn soon() -> Instant {
        tokio::time::Instant::now().into_std() + Duration::from_mins(1)
    }

    #[tokio::test]
    async fn a_question_is_answered_by_the_thread() {
        let (recommender, thread) = recommender();
        let searching = std::thread::spawn(|| thread.run(&metrics()));
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

    #[tokio::test]
    async fn a_search_that_panics_is_lost_alone() {
        let (recommender, thread) = recommender();
        let searching = std::thread::spawn(|| thread.run(&metrics()));
        let no_user =
            Query { user: Rows::new(&Signature { inputs: vec![], output: String::new() }), ..query() };
        let lost = recommender.ask(no_user, soon()).await;
        assert!(matches!(lost, Err(RecommendError::Lost)), "{lost:?}");
        recommender.ask(query(), soon()).await.expect("an item");
        drop(recommender);
        searching.join().expect("it goes on");
    }

    #[tokio::test]
    async fn who_could_not_be_answered_in_time_is_told_so_at_once() {
        let (recommender, _thread) = recommender();
        // Three items take three milliseconds.
        let now = Instant::now();
        let answer = recommender.ask(query(), now + Duration::from_millis(2)).await;
        assert!(matches!(answer, Err(RecommendError::NoTime)), "{answer:?}");
        assert!(recommender.admits().is_ok());
    }
}
