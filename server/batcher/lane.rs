//! Where batches run: inline on the runtime, or on threads of their own. The queue decides, this waits and computes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::sync::oneshot;

use super::{
    Limits, ScoreError, Scores,
    batch::{Batch, Member},
    queue::Queue,
};
use crate::{
    engine::Engine,
    metrics::{CloseReason, VersionMetrics},
    tensor::Rows,
};

/// Where the batches of a version run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// On the runtime's own threads, in the task of the request that found an engine idle.
    Inline,
    /// On one thread for each engine instance.
    Threaded,
}

impl Lane {
    /// The lane for an engine whose largest batch costs `cost`: inline while that is within `budget`, the time for
    /// which one task may keep a thread of the runtime from others.
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
    /// The bounds of the queue.
    pub limits: Limits,
    /// Where to count.
    pub metrics: Arc<VersionMetrics>,
}

/// Joins requests into batches and gives each its scores.
pub struct Batcher {
    shared: Arc<Shared>,
    limits: Limits,
}

impl Batcher {
    /// A batcher over `engines`, which all have the same signature, and the threads that somebody has to run when
    /// the lane is threaded.
    ///
    /// # Panics
    /// When there are no engines.
    pub fn new(engines: Vec<Box<dyn Engine>>, options: BatcherOptions) -> (Self, Vec<EngineThread>) {
        let signature = engines.first().expect("at least one engine").signature();
        let queue = Queue::new(signature, options.limits);
        let instances = engines.into_iter().map(|engine| Instance { engine, scores: Vec::new() });
        let (idle, threaded) = match options.lane {
            Lane::Inline => (instances.collect(), Vec::new()),
            Lane::Threaded => (Vec::new(), instances.collect()),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State { queue, idle, closed: false }),
            work: Condvar::new(),
            metrics: options.metrics,
        });
        let thread = |instance| EngineThread { shared: Arc::clone(&shared), instance };
        let threads = threaded.into_iter().map(thread).collect();
        (Self { shared, limits: options.limits }, threads)
    }

    /// The bounds of the queue.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The scores of `rows`, in their order. An empty request is scored without an engine.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the rows, unless their batch has closed already.
    pub async fn score(&self, rows: &Rows, deadline: Instant) -> Result<Scores, ScoreError> {
        if rows.is_empty() {
            return Ok(Scores::default());
        }
        let (reply, leader) = self.submit(rows, deadline)?;
        if let Some(leader) = leader {
            tokio::spawn(leader.run());
        }
        match tokio::time::timeout_at(deadline.into(), reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ScoreError::Lost),
            Err(_) => Err(ScoreError::Expired),
        }
    }

    /// Lets the rows join the open batch. Where that finds an idle engine of the inline lane, the caller has to run
    /// the leader that comes back.
    fn submit(&self, rows: &Rows, deadline: Instant) -> Result<(ReplyFuture, Option<Leader>), ScoreError> {
        let (reply, scores) = oneshot::channel();
        let mut state = self.shared.state();
        state.queue.push(rows, || Member { rows: rows.len(), joined: Instant::now(), deadline, reply })?;
        self.shared.metrics.series().queue_rows(state.queue.rows());
        let instance = state.idle.pop();
        drop(state);
        // Without a waiting thread, as always in the inline lane, this is one load.
        self.shared.work.notify_one();
        let leader = instance.map(|instance| Leader { shared: Arc::clone(&self.shared), instance });
        Ok((scores, leader))
    }
}

impl Drop for Batcher {
    /// Lets the engine threads end once they have computed what waits.
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.work.notify_all();
    }
}

type ReplyFuture = oneshot::Receiver<Result<Scores, ScoreError>>;

/// A task of the inline lane: owns an engine until nothing waits.
struct Leader {
    shared: Arc<Shared>,
    instance: Instance,
}

impl Leader {
    async fn run(self) {
        let Self { shared, mut instance } = self;
        let mut free = CloseReason::EngineIdle;
        loop {
            // Every request that the event loop already holds gets in before the batch closes.
            tokio::task::yield_now().await;
            let Some((batch, reason, mut busy)) = shared.next_or_idle(instance, free) else { return };
            shared.compute(&mut busy, batch, reason);
            instance = busy;
            free = CloseReason::EngineFreed;
        }
    }
}

/// A thread of the threaded lane: owns an engine until the batcher is dropped.
pub struct EngineThread {
    shared: Arc<Shared>,
    instance: Instance,
}

impl EngineThread {
    /// Computes batches on the calling thread until the batcher is dropped and nothing waits.
    pub fn run(mut self) {
        let mut free = CloseReason::EngineIdle;
        while let Some((batch, reason)) = self.shared.wait(free) {
            self.shared.compute(&mut self.instance, batch, reason);
            free = CloseReason::EngineFreed;
        }
    }
}

/// An engine and the memory that it answers into.
struct Instance {
    engine: Box<dyn Engine>,
    scores: Vec<f32>,
}

struct Shared {
    state: Mutex<State>,
    /// Signals engine threads that there is work, or that there will be none.
    work: Condvar,
    metrics: Arc<VersionMetrics>,
}

struct State {
    queue: Queue,
    /// The inline lane's engines that no leader owns. While all of them are here, nothing waits in the queue.
    idle: Vec<Instance>,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the next batch for a leader; when nothing waits, its engine goes idle under the same lock, so that no
    /// request can slip in between.
    fn next_or_idle(&self, instance: Instance, free: CloseReason) -> Option<(Batch, CloseReason, Instance)> {
        let mut state = self.state();
        let Some((batch, reason)) = self.close(&mut state, free) else {
            state.idle.push(instance);
            return None;
        };
        Some((batch, reason, instance))
    }

    /// Waits until a batch can be closed for an engine thread; `None` when there will be no more.
    fn wait(&self, mut free: CloseReason) -> Option<(Batch, CloseReason)> {
        let mut state = self.state();
        loop {
            if let Some(closed) = self.close(&mut state, free) {
                return Some(closed);
            }
            if state.closed {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            free = CloseReason::EngineIdle;
        }
    }

    fn close(&self, state: &mut State, free: CloseReason) -> Option<(Batch, CloseReason)> {
        let closed = state.queue.close(free);
        self.metrics.series().queue_rows(state.queue.rows());
        closed
    }

    /// Runs a batch on an engine, without the requests that nobody waits for any more: under overload those are many,
    /// so they are sorted out here, where no lock is held. A panic inside the engine fails the batch and nothing else:
    /// its members learn of it by their dropped replies.
    fn compute(&self, instance: &mut Instance, mut batch: Batch, reason: CloseReason) {
        let metrics = self.metrics.series();
        let now = Instant::now();
        batch.drop_dead(now, &metrics);
        if batch.len() > 0 {
            batch.waits(now).for_each(|wait| metrics.queued(wait));
            let rows = batch.len();
            let Instance { engine, scores } = instance;
            let run = AssertUnwindSafe(|| batch.run(engine.as_mut(), scores, &metrics));
            let Ok(duration) = catch_unwind(run) else { return };
            metrics.batch(reason, rows, duration);
        }
        self.state().queue.recycle(batch);
    }
}
