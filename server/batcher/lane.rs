//! Where batches run: inline on the workers, or on threads of their own; and which open batch a request joins.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    Batching, ScoreError, Scores, Terms,
    queue::Queue,
    shard::{EngineThread, Instance, Leader, ReplyFuture, Shard},
};
use crate::{
    engine::{BatchCost, Engine},
    metrics::VersionMetrics,
    tensor::Rows,
    workers,
};

/// Where the batches of a version run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// On the workers, in the task of the request that found an engine idle.
    Inline,
    /// On one thread for each engine instance.
    Threaded,
}

impl Lane {
    /// The lane for an engine whose largest batch costs `cost`: inline while that is within `budget`, the time for
    /// which one task may keep a worker from others.
    pub fn for_cost(cost: Duration, budget: Duration) -> Self {
        if cost <= budget { Self::Inline } else { Self::Threaded }
    }

    /// The lane's name, as configuration and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Threaded => "threaded",
        }
    }
}

/// What a lane is made of besides its engines.
#[derive(Clone)]
pub struct BatcherOptions {
    /// Where batches run.
    pub lane: Lane,
    /// How batches form, and the bounds of the queue.
    pub batching: Batching,
    /// What batches cost an engine while it warmed up, sizes ascending.
    pub costs: Vec<BatchCost>,
    /// Where to count.
    pub metrics: Arc<VersionMetrics>,
}

/// Joins requests into batches and gives each its scores.
pub struct Batcher {
    /// In the inline lane an open batch for each engine, so that every worker has its own where there are as many; in the
    /// threaded one a single batch, for whichever engine is free first.
    shards: Box<[Arc<Shard>]>,
    batching: Batching,
}

impl Batcher {
    /// A batcher over `engines`, which all have the same signature, and the threads that somebody has to run when
    /// the lane is threaded.
    ///
    /// # Panics
    /// When there are no engines.
    pub fn new(engines: Vec<Box<dyn Engine>>, options: BatcherOptions) -> (Self, Vec<EngineThread>) {
        let signature = engines.first().expect("at least one engine").signature().clone();
        let BatcherOptions { lane, batching, costs, metrics } = options;
        let count = engines.len();
        let instances = engines.into_iter();
        let open = |batching, engines, idle| {
            let queue = Queue::new(&signature, batching, engines, costs.clone());
            Arc::new(Shard::new(queue, idle, Arc::clone(&metrics)))
        };
        if lane == Lane::Inline {
            let share = batching.shared_by(count);
            let shards = instances.map(|engine| open(share, 1, Some(Instance::new(engine, 0)))).collect();
            return (Self { shards, batching }, Vec::new());
        }
        let shard = open(batching, count, None);
        let thread = |(number, engine)| EngineThread::new(Arc::clone(&shard), Instance::new(engine, number));
        let threads = instances.enumerate().map(thread).collect();
        (Self { shards: Box::new([shard]), batching }, threads)
    }

    /// How batches form, and the bounds of the queue.
    pub fn batching(&self) -> Batching {
        self.batching
    }

    /// Whether a request whose rows are not there yet has a chance to be answered on its terms. What this says no to need
    /// not be read.
    pub fn admits(&self, terms: Terms) -> Result<(), ScoreError> {
        self.shard().admits(terms)
    }

    /// The scores of `rows`, in their order. An empty request is scored without an engine.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the rows, unless their batch has closed already.
    pub async fn score(&self, rows: &Rows, terms: Terms) -> Result<Scores, ScoreError> {
        if rows.is_empty() {
            return Ok(Scores::default());
        }
        let (reply, leader) = self.submit(rows, terms)?;
        if let Some(leader) = leader {
            leader.lead().await;
        }
        match tokio::time::timeout_at(terms.deadline.into(), reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ScoreError::Lost),
            Err(_) => Err(ScoreError::Expired),
        }
    }

    fn submit(&self, rows: &Rows, terms: Terms) -> Result<(ReplyFuture, Option<Leader>), ScoreError> {
        self.shard().submit(rows, terms)
    }

    /// The open batch of the calling thread.
    fn shard(&self) -> &Arc<Shard> {
        &self.shards[workers::current() % self.shards.len()]
    }
}

impl Drop for Batcher {
    /// Lets the engine threads end once they have computed what waits.
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        num::NonZeroUsize,
        pin::pin,
        sync::mpsc,
        task::Poll,
        thread::{self, JoinHandle},
        time::Instant,
    };

    use proptest::prelude::*;
    use tokio::task::{JoinSet, yield_now};

    use super::{
        super::fake::{Counts, FAILS, FakeEngine, Gate, Log, PANICS, rows, scores, until, whenever},
        *,
    };
    use crate::workers::Workers;

    /// A batcher, the threads of its lane if it has any, and what its engines and metrics saw.
    struct Bench {
        batcher: Arc<Batcher>,
        threads: Vec<EngineThread>,
        running: Vec<JoinHandle<()>>,
        log: Log,
        counts: Counts,
    }

    impl Bench {
        fn new(lane: Lane) -> Self {
            let (engine, log) = FakeEngine::new();
            Self::with(lane, vec![engine], log)
        }

        /// With an engine that a gate holds in the middle of each batch.
        fn gated(lane: Lane) -> (Self, Gate) {
            let (engine, log) = FakeEngine::new();
            let (engine, gate) = engine.gated();
            (Self::with(lane, vec![engine], log), gate)
        }

        fn with(lane: Lane, engines: Vec<FakeEngine>, log: Log) -> Self {
            Self::with_delay(lane, engines, log, Duration::ZERO)
        }

        fn with_delay(lane: Lane, engines: Vec<FakeEngine>, log: Log, max_queue_delay: Duration) -> Self {
            let count = |rows| NonZeroUsize::new(rows).expect("above zero");
            let batching = Batching {
                max_batch_rows: count(16),
                preferred_batch_rows: count(3),
                max_queue_delay,
                max_queue_rows: count(1_000),
                standing_wait: Duration::from_secs(1),
            };
            let counts = Counts::new();
            let metrics = Arc::clone(&counts.version);
            let options = BatcherOptions { lane, batching, costs: Vec::new(), metrics };
            let engines = engines.into_iter().map(|engine| Box::new(engine) as Box<dyn Engine>).collect();
            let (batcher, threads) = Batcher::new(engines, options);
            Self { batcher: Arc::new(batcher), threads, running: Vec::new(), log, counts }
        }

        /// Runs the threads of the lane.
        fn start(&mut self) {
            let run = |engine: EngineThread| thread::spawn(move || engine.run());
            self.running.extend(self.threads.drain(..).map(run));
        }

        /// Drops the batcher and waits for the threads of the lane to end.
        fn end(self) -> (Log, Counts) {
            drop(self.batcher);
            for thread in self.running {
                thread.join().expect("no panic gets out");
            }
            (self.log, self.counts)
        }

        /// Lets rows join without running the leader that this may call for.
        fn submit(&self, numbers: &[i32]) -> (ReplyFuture, Option<Leader>) {
            self.batcher.submit(&rows(numbers), whenever()).expect("room")
        }

        async fn score(&self, numbers: &[i32]) -> Result<Vec<f32>, ScoreError> {
            score(&self.batcher, numbers).await
        }
    }

    async fn score(batcher: &Batcher, numbers: &[i32]) -> Result<Vec<f32>, ScoreError> {
        batcher.score(&rows(numbers), whenever()).await.map(|scores| scores.to_vec())
    }

    /// What came to `reply`; nothing is `Lost`, as for a request.
    async fn answer(reply: ReplyFuture) -> Result<Vec<f32>, ScoreError> {
        reply.await.unwrap_or(Err(ScoreError::Lost)).map(|scores| scores.to_vec())
    }

    /// Looks at `future` once and drops it, as when a client goes away.
    async fn look_once(future: impl Future) {
        let mut future = pin!(future);
        let _pending = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await;
    }

    #[tokio::test]
    async fn everything_that_the_event_loop_holds_joins_one_batch() {
        let bench = Bench::new(Lane::Inline);
        let mut requests = JoinSet::new();
        // The leader stands in the event loop before the others, and must let them go first.
        let (first, leader) = bench.submit(&[0]);
        requests.spawn(leader.expect("the engine was idle").lead());
        for number in 1..10 {
            let batcher = Arc::clone(&bench.batcher);
            requests.spawn(async move {
                assert_eq!(score(&batcher, &[number]).await.expect("scores"), scores(&[number]));
            });
        }
        requests.join_all().await;
        assert_eq!(answer(first).await.expect("scores"), scores(&[0]));
        assert_eq!(bench.log.sizes(), [10]);
        assert_eq!(bench.counts.of("batches_total", "engine_idle"), 1);
        assert_eq!(bench.counts.of("queue_rows", ""), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_that_come_while_the_engine_runs_are_the_next_batch() {
        let (bench, gate) = Bench::gated(Lane::Inline);
        let (first, leader) = bench.submit(&[0]);
        let leader = tokio::spawn(leader.expect("the engine was idle").lead());
        gate.wait_until_busy();
        let later: Vec<_> = (1..=5).map(|number| (number, bench.submit(&[number]))).collect();
        assert!(later.iter().all(|(_, (_, leader))| leader.is_none()), "the one engine is taken");
        assert_eq!(bench.counts.of("queue_rows", ""), 5);
        gate.open();
        gate.open();
        leader.await.expect("ends with its batch");
        assert_eq!(answer(first).await.expect("scores"), scores(&[0]));
        for (number, (reply, _)) in later {
            assert_eq!(answer(reply).await.expect("scores"), scores(&[number]));
        }
        assert_eq!(bench.log.sizes(), [1, 5]);
        assert_eq!(bench.counts.of("batches_total", "engine_idle"), 1);
        // A batch is counted after its members have their answers, by another thread here.
        let counted = async {
            while bench.counts.of("batches_total", "engine_freed") == 0 {
                yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), counted).await.expect("the second batch is counted");
    }

    #[tokio::test]
    async fn full_batches_and_what_is_left_are_computed_without_another_request() {
        let bench = Bench::new(Lane::Inline);
        let (first, leader) = bench.submit(&[1; 10]);
        let (second, none) = bench.submit(&[2; 10]);
        assert!(none.is_none());
        leader.expect("the engine was idle").lead().await;
        assert_eq!(answer(first).await.expect("scores"), scores(&[1; 10]));
        assert_eq!(answer(second).await.expect("scores"), scores(&[2; 10]));
        assert_eq!(bench.log.sizes(), [10, 10]);
        assert_eq!(bench.counts.of("batches_total", "full"), 1);
        assert_eq!(bench.counts.of("batches_total", "engine_freed"), 1);
    }

    #[test]
    fn each_worker_has_an_open_batch_and_an_engine_of_its_own() {
        let (one, log) = FakeEngine::new();
        let (one, one_gate) = one.gated();
        let (other, other_gate) = FakeEngine::with_log(&log).gated();
        let bench = Bench::with(Lane::Inline, vec![one, other], log);
        let workers = Workers::start(NonZeroUsize::new(2).expect("above zero")).expect("threads");
        let (answered, answers) = mpsc::channel();
        let start = |numbers: &'static [i32], gate: &Gate| {
            let (batcher, answered) = (Arc::clone(&bench.batcher), answered.clone());
            workers.spawner().spawn(async move {
                answered.send(score(&batcher, numbers).await).expect("heard");
            });
            gate.wait_until_busy();
        };
        start(&[1], &one_gate);
        start(&[2, 3], &other_gate);
        assert_eq!(bench.log.batches(), [&[1][..], &[2, 3]], "the one does not wait for the other");
        for (gate, numbers) in [(other_gate, &[2, 3][..]), (one_gate, &[1])] {
            gate.open();
            let answer = answers.recv().expect("an answer");
            assert_eq!(answer.expect("scores"), scores(numbers));
        }
        assert_eq!(bench.counts.of("queue_rows", ""), 0);
        workers.stop();
    }

    #[tokio::test]
    async fn a_dropped_request_withdraws_its_rows() {
        let bench = Bench::new(Lane::Inline);
        let (first, leader) = bench.submit(&[1]);
        look_once(bench.score(&[2, 3])).await;
        let (last, _) = bench.submit(&[4]);
        leader.expect("the engine was idle").lead().await;
        assert_eq!(bench.log.batches(), [[1, 4]]);
        assert_eq!(bench.counts.of("dropped_requests_total", "cancelled"), 1);
        assert_eq!(answer(first).await.expect("scores"), scores(&[1]));
        assert_eq!(answer(last).await.expect("scores"), scores(&[4]));
    }

    #[tokio::test]
    async fn the_others_in_its_batch_do_not_need_the_request_that_leads() {
        let bench = Bench::new(Lane::Inline);
        let mut leading = Box::pin(bench.score(&[1]));
        let pending = poll_fn(|context| Poll::Ready(leading.as_mut().poll(context).is_pending())).await;
        let (other, none) = bench.submit(&[2]);
        assert!(pending && none.is_none(), "it leads, and the other has joined");
        drop(leading);
        assert_eq!(answer(other).await.expect("scores"), scores(&[2]));
        assert_eq!(bench.log.batches(), [[2]]);
    }

    #[tokio::test]
    async fn a_batch_of_nothing_but_dropped_requests_costs_no_run() {
        let bench = Bench::new(Lane::Inline);
        look_once(bench.score(&[1, 2])).await;
        // The leader stands in the event loop. A batch of its own would be computed by now.
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(bench.log.sizes().is_empty());
        assert_eq!(bench.counts.of("queue_rows", ""), 0);
        assert_eq!(bench.score(&[3]).await.expect("scores"), scores(&[3]));
        assert_eq!(bench.log.sizes(), [1]);
    }

    #[tokio::test]
    async fn a_request_that_comes_too_late_is_told_and_not_computed() {
        let bench = Bench::new(Lane::Inline);
        let late = bench.batcher.score(&rows(&[1]), until(Instant::now())).await;
        assert!(matches!(late, Err(ScoreError::Expired)), "{late:?}");
        assert_eq!(bench.score(&[2]).await.expect("scores"), scores(&[2]));
        assert_eq!(bench.log.batches(), [[2]]);
        assert_eq!(bench.counts.of("dropped_requests_total", "expired"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_deadline_passes_while_it_waits_is_told_at_its_deadline() {
        let bench = Bench::new(Lane::Inline);
        let (_first, leader) = bench.submit(&[1]);
        let start = tokio::time::Instant::now();
        let deadline = start + Duration::from_mins(10);
        let late = bench.batcher.score(&rows(&[2]), until(deadline.into_std())).await;
        assert!(matches!(late, Err(ScoreError::Expired)), "{late:?}");
        // The clock is tokio's and jumps; it counts in milliseconds.
        assert!(deadline.elapsed() < Duration::from_millis(2));
        leader.expect("the engine was idle").lead().await;
        assert_eq!(bench.log.batches(), [[1]]);
    }

    /// A batcher whose batches of fewer than three rows wait for more for a while.
    fn patient(lane: Lane, delay: Duration) -> Bench {
        let (engine, log) = FakeEngine::new();
        Bench::with_delay(lane, vec![engine], log, delay)
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_batch_waits_until_its_delay_has_passed() {
        let bench = patient(Lane::Inline, Duration::from_millis(50));
        let start = tokio::time::Instant::now();
        let batcher = Arc::clone(&bench.batcher);
        let first = tokio::spawn(async move { score(&batcher, &[1]).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(bench.log.sizes().is_empty());
        assert_eq!(bench.score(&[2]).await.expect("scores"), scores(&[2]));
        assert_eq!(first.await.expect("no panic").expect("scores"), scores(&[1]));
        assert_eq!(bench.log.batches(), [[1, 2]]);
        assert_eq!(start.elapsed(), Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_large_enough_waits_no_longer() {
        let bench = patient(Lane::Inline, Duration::from_millis(50));
        let start = tokio::time::Instant::now();
        let batcher = Arc::clone(&bench.batcher);
        let first = tokio::spawn(async move { score(&batcher, &[1]).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(bench.score(&[2, 3]).await.expect("scores"), scores(&[2, 3]));
        assert_eq!(first.await.expect("no panic").expect("scores"), scores(&[1]));
        assert_eq!(start.elapsed(), Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_less_time_shortens_the_wait_of_all() {
        let bench = patient(Lane::Inline, Duration::from_secs(1));
        let start = tokio::time::Instant::now();
        let batcher = Arc::clone(&bench.batcher);
        let first = tokio::spawn(async move { score(&batcher, &[1]).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let soon = until((tokio::time::Instant::now() + Duration::from_millis(20)).into_std());
        let hasty = bench.batcher.score(&rows(&[2]), soon).await.expect("in time");
        assert_eq!(hasty.to_vec(), scores(&[2]));
        assert_eq!(first.await.expect("no panic").expect("scores"), scores(&[1]));
        assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn an_engine_thread_waits_for_more_rows_too_but_not_at_the_end() {
        let mut bench = patient(Lane::Threaded, Duration::from_hours(1));
        bench.start();
        let (first, _) = bench.submit(&[1]);
        let (second, _) = bench.submit(&[2, 3]);
        assert_eq!(answer(first).await.expect("scores"), scores(&[1]));
        assert_eq!(answer(second).await.expect("scores"), scores(&[2, 3]));
        let (last, _) = bench.submit(&[4]);
        let (log, _) = bench.end();
        assert_eq!(answer(last).await.expect("scores"), scores(&[4]));
        assert_eq!(log.batches(), [&[1, 2, 3][..], &[4]]);
    }

    #[tokio::test]
    async fn a_request_without_rows_needs_no_engine() {
        let bench = Bench::new(Lane::Threaded);
        assert_eq!(bench.score(&[]).await.expect("no scores"), [0.0; 0]);
    }

    #[tokio::test]
    async fn what_the_queue_refuses_is_not_computed_and_leaves_the_engine_idle() {
        let bench = Bench::new(Lane::Inline);
        let refused = bench.score(&[1; 17]).await;
        assert!(matches!(refused, Err(ScoreError::TooManyRows { rows: 17, limit: 16 })), "{refused:?}");
        assert_eq!(bench.score(&[1]).await.expect("scores"), scores(&[1]));
        assert_eq!(bench.log.sizes(), [1]);
    }

    #[tokio::test]
    async fn a_panicking_engine_loses_its_batch_and_the_inline_lane_goes_on() {
        let bench = Bench::new(Lane::Inline);
        for _ in 0..3 {
            let (lost, leader) = bench.submit(&[PANICS]);
            let (lost_too, _) = bench.submit(&[1]);
            leader.expect("the engine is idle again").lead().await;
            for reply in [lost, lost_too] {
                let answer = answer(reply).await;
                assert!(matches!(answer, Err(ScoreError::Lost)), "{answer:?}");
            }
        }
        assert_eq!(bench.score(&[2]).await.expect("scores"), scores(&[2]));
        let lost = bench.score(&[PANICS]).await;
        assert!(matches!(lost, Err(ScoreError::Lost)), "{lost:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_behind_a_panic_is_computed() {
        for lane in [Lane::Inline, Lane::Threaded] {
            let (mut bench, gate) = Bench::gated(lane);
            bench.start();
            let (lost, leader) = bench.submit(&[PANICS]);
            let leader = leader.map(|leader| tokio::spawn(leader.lead()));
            assert_eq!(leader.is_some(), lane == Lane::Inline);
            gate.wait_until_busy();
            let (behind, _) = bench.submit(&[1, 2]);
            gate.open();
            gate.open();
            let lost = answer(lost).await;
            assert!(matches!(lost, Err(ScoreError::Lost)), "{lost:?}");
            assert_eq!(answer(behind).await.expect("scores"), scores(&[1, 2]));
            bench.end();
        }
    }

    /// The engine cannot be trusted with the rest of a batch after a panic, so those who come behind it are lost too.
    #[tokio::test]
    async fn a_panic_while_members_run_singly_keeps_what_was_answered_before_it() {
        let bench = Bench::new(Lane::Inline);
        let (replies, mut leaders): (Vec<_>, Vec<_>) =
            [&[1][..], &[FAILS], &[PANICS], &[2]].map(|numbers| bench.submit(numbers)).into_iter().unzip();
        leaders.swap_remove(0).expect("the engine was idle").lead().await;
        let mut found = Vec::new();
        for reply in replies {
            found.push(answer(reply).await);
        }
        assert!(matches!(&found[0], Ok(found) if *found == scores(&[1])), "{found:?}");
        assert!(matches!(&found[1], Err(ScoreError::Engine(_))), "{found:?}");
        assert!(found[2..].iter().all(|answer| matches!(answer, Err(ScoreError::Lost))), "{found:?}");
        assert_eq!(bench.score(&[3]).await.expect("scores"), scores(&[3]));
    }

    #[tokio::test]
    async fn an_engine_thread_computes_what_waits_and_ends_once_the_batcher_is_dropped() {
        let bench = Bench::new(Lane::Threaded);
        let Bench { batcher, threads, log, .. } = bench;
        let (first, leader) = batcher.submit(&rows(&[1; 10]), whenever()).expect("room");
        assert!(leader.is_none(), "requests of the threaded lane run nothing themselves");
        let (second, _) = batcher.submit(&rows(&[2; 10]), whenever()).expect("room");
        assert!(log.sizes().is_empty());
        drop(batcher);
        threads.into_iter().for_each(EngineThread::run);
        assert_eq!(log.sizes(), [10, 10]);
        assert_eq!(answer(first).await.expect("scores"), scores(&[1; 10]));
        assert_eq!(answer(second).await.expect("scores"), scores(&[2; 10]));
    }

    #[tokio::test]
    async fn a_waiting_engine_thread_is_woken_by_a_request_and_by_the_end() {
        let mut bench = Bench::new(Lane::Threaded);
        bench.start();
        for number in 0..100 {
            assert_eq!(bench.score(&[number]).await.expect("scores"), scores(&[number]));
        }
        let (log, _) = bench.end();
        assert_eq!(log.sizes(), [1; 100]);
    }

    #[tokio::test]
    async fn requests_gather_while_the_engine_thread_is_busy() {
        let (mut bench, gate) = Bench::gated(Lane::Threaded);
        bench.start();
        let (first, _) = bench.submit(&[0]);
        gate.wait_until_busy();
        let later: Vec<_> = (1..=5).map(|number| bench.submit(&[number]).0).collect();
        gate.open();
        gate.open();
        assert_eq!(answer(first).await.expect("scores"), scores(&[0]));
        for (number, reply) in (1..).zip(later) {
            assert_eq!(answer(reply).await.expect("scores"), scores(&[number]));
        }
        let (log, counts) = bench.end();
        assert_eq!(log.sizes(), [1, 5]);
        assert_eq!(counts.of("batches_total", "engine_idle"), 1);
        assert_eq!(counts.of("batches_total", "engine_freed"), 1);
    }

    #[tokio::test]
    async fn engine_threads_compute_side_by_side() {
        let (one, log) = FakeEngine::new();
        let (one, one_gate) = one.gated();
        let (other, other_gate) = FakeEngine::with_log(&log).gated();
        let mut bench = Bench::with(Lane::Threaded, vec![one, other], log);
        bench.start();
        let (first, _) = bench.submit(&[1; 16]);
        let (second, _) = bench.submit(&[2; 16]);
        one_gate.wait_until_busy();
        other_gate.wait_until_busy();
        one_gate.open();
        other_gate.open();
        assert_eq!(answer(first).await.expect("scores"), scores(&[1; 16]));
        assert_eq!(answer(second).await.expect("scores"), scores(&[2; 16]));
        bench.end();
    }

    #[test]
    fn an_engine_is_inline_as_long_as_it_stays_within_the_budget() {
        let budget = Duration::from_millis(1);
        assert_eq!(Lane::for_cost(budget, budget), Lane::Inline);
        assert_eq!(Lane::for_cost(budget + Duration::from_nanos(1), budget), Lane::Threaded);
    }

    /// Requests that one client sends one after the other: the rows of each, and whether it goes away at once.
    fn client() -> impl Strategy<Value = Vec<(Vec<i32>, bool)>> {
        let numbers = prop::collection::vec(0..1_000_000, 1..=16);
        prop::collection::vec((numbers, prop::bool::weighted(0.1)), 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_caller_gets_the_scores_of_exactly_its_rows(
            clients in prop::collection::vec(client(), 1..12),
            lane in prop_oneof![Just(Lane::Inline), Just(Lane::Threaded)],
            instances in 1usize..=2,
        ) {
            let log = Log::default();
            let engines = (0..instances).map(|_| FakeEngine::with_log(&log)).collect();
            let mut bench = Bench::with(lane, engines, log);
            bench.start();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
            runtime.expect("two threads").block_on(async {
                let mut tasks = JoinSet::new();
                for requests in clients {
                    let batcher = Arc::clone(&bench.batcher);
                    tasks.spawn(async move {
                        for (numbers, goes_away) in requests {
                            if goes_away {
                                look_once(score(&batcher, &numbers)).await;
                            } else {
                                assert_eq!(score(&batcher, &numbers).await.expect("scores"), scores(&numbers));
                            }
                        }
                    });
                }
                // A client that got somebody else's scores has panicked, which fails the test here.
                tasks.join_all().await;
            });
            let (log, _) = bench.end();
            prop_assert!(log.sizes().iter().all(|size| (1..=16).contains(size)));
        }
    }
}
