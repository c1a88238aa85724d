//! An open batch and whoever computes it: the leader of the inline lane, or engine threads. The queue decides, this waits
//! and computes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
};

use super::{
    ScoreError, Scores, Terms, now,
    queue::{Closed, Queue},
};
use crate::{
    engine::Engine,
    metrics::{CloseReason, VersionMetrics},
    tensor::Rows,
};

/// Where a request's scores come to.
pub(super) type ReplyFuture = oneshot::Receiver<Result<Scores, ScoreError>>;

/// The request that found an engine of the inline lane idle, which it owns until its batch has run. It leads in its own
/// task: handing the batch to another task costs a wake-up of another core, which is dearer than the batch itself.
pub(super) struct Leader {
    shard: Arc<Shard>,
    instance: Option<Instance>,
}

impl Leader {
    /// Computes the open batch once every request that the event loop already holds has joined it, and those that it may
    /// wait for. What joined while it ran is left to a task of its own, for the request that leads has its answer by
    /// then.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the batch to a task as well: others are in it.
    pub(super) async fn lead(mut self) {
        self.shard.gather().await;
        let instance = self.instance.take().expect("it is taken here or by the drop");
        if let Some(instance) = self.shard.run_next(instance, CloseReason::EngineIdle) {
            tokio::spawn(run_until_idle(Arc::clone(&self.shard), instance, CloseReason::EngineFreed));
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let Some(instance) = self.instance.take() else { return };
        // Without a runtime nobody waits for the batch either.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(run_until_idle(Arc::clone(&self.shard), instance, CloseReason::EngineIdle));
        }
    }
}

/// Computes batches on an engine of the inline lane until nothing waits.
async fn run_until_idle(shard: Arc<Shard>, mut instance: Instance, mut free: CloseReason) {
    loop {
        // A batch is within the budget for which a task may keep its thread; a second one in a row is not.
        shard.gather().await;
        match shard.run_next(instance, free) {
            Some(busy) => instance = busy,
            None => return,
        }
        free = CloseReason::EngineFreed;
    }
}

/// A thread of the threaded lane: owns an engine until the batcher is dropped.
pub struct EngineThread {
    shard: Arc<Shard>,
    instance: Instance,
}

impl EngineThread {
    pub(super) fn new(shard: Arc<Shard>, instance: Instance) -> Self {
        Self { shard, instance }
    }

    /// Computes batches on the calling thread until the batcher is dropped and nothing waits.
    pub fn run(mut self) {
        let mut free = CloseReason::EngineIdle;
        while let Some(closed) = self.shard.wait(self.instance.number, free) {
            self.shard.compute(&mut self.instance, closed);
            free = CloseReason::EngineFreed;
        }
    }
}

/// An engine and the memory that it answers into.
pub(super) struct Instance {
    engine: Box<dyn Engine>,
    /// Which of the engines that share an open batch it is.
    number: usize,
    scores: Vec<f32>,
}

impl Instance {
    pub(super) fn new(engine: Box<dyn Engine>, number: usize) -> Self {
        Self { engine, number, scores: Vec::new() }
    }
}

/// An open batch, its queue, and where they wait for an engine.
pub(super) struct Shard {
    state: Mutex<State>,
    /// Signals engine threads that there is work, or that there will be none.
    work: Condvar,
    /// Whether a small batch waits for more rows.
    is_patient: bool,
    /// Signals whoever waits for them in the inline lane that there are some.
    joined: Notify,
    metrics: Arc<VersionMetrics>,
}

struct State {
    queue: Queue,
    /// The inline lane's engine, unless a leader owns it. While it is here, nothing waits in the queue.
    idle: Option<Instance>,
    /// Engine threads that wait for work.
    waiting: usize,
    closed: bool,
}

impl Shard {
    /// With the engine of the inline lane, or `None` for engine threads.
    pub(super) fn new(queue: Queue, idle: Option<Instance>, metrics: Arc<VersionMetrics>) -> Self {
        let is_patient = queue.is_patient();
        let state = State { queue, idle, waiting: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), is_patient, joined: Notify::new(), metrics }
    }

    /// Whether a request whose rows are not there yet has a chance to be answered on its terms.
    pub(super) fn admits(&self, terms: Terms) -> Result<(), ScoreError> {
        self.state().queue.admits(now(), terms)
    }

    /// Lets the rows join the open batch. Where that finds an idle engine of the inline lane, the caller has to run
    /// the leader that comes back.
    pub(super) fn submit(
        self: &Arc<Self>,
        rows: &Rows,
        terms: Terms,
    ) -> Result<(ReplyFuture, Option<Leader>), ScoreError> {
        let (reply, scores) = oneshot::channel();
        let mut state = self.state();
        state.queue.push(now(), rows, terms, reply)?;
        self.metrics.series().rows_joined(rows.len());
        let instance = state.idle.take();
        // Signalling costs a system call whether or not anybody waits, and in the inline lane nobody ever does.
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.work.notify_one();
        }
        if self.is_patient {
            self.joined.notify_one();
        }
        let leader = instance.map(|instance| Leader { shard: Arc::clone(self), instance: Some(instance) });
        Ok((scores, leader))
    }

    /// Lets the engine threads end once they have computed what waits.
    pub(super) fn end(&self) {
        self.state().closed = true;
        self.work.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the requests in that the event loop holds, and those that a small batch waits for.
    async fn gather(&self) {
        tokio::task::yield_now().await;
        if !self.is_patient {
            return;
        }
        loop {
            let patience = self.state().queue.patience(now());
            if patience.is_zero() {
                return;
            }
            // Both ways out lead back to the queue, which knows.
            let _ = tokio::time::timeout(patience, self.joined.notified()).await;
        }
    }

    /// Runs the next batch on an engine of the inline lane. When nothing waits then, the engine goes idle under the same
    /// lock, so that no request can slip in between; else it comes back.
    fn run_next(&self, mut instance: Instance, free: CloseReason) -> Option<Instance> {
        let closed = self.close(&mut self.state(), instance.number, free);
        if let Some(closed) = closed {
            self.compute(&mut instance, closed);
        }
        let mut state = self.state();
        if state.queue.rows() > 0 {
            return Some(instance);
        }
        state.idle = Some(instance);
        None
    }

    /// Waits until a batch can be closed for an engine thread; `None` when there will be no more.
    fn wait(&self, engine: usize, mut free: CloseReason) -> Option<Closed> {
        let mut state = self.state();
        loop {
            let patience = if state.closed { Duration::ZERO } else { state.queue.patience(now()) };
            if patience.is_zero() {
                if let Some(closed) = self.close(&mut state, engine, free) {
                    // Whoever is woken for it looks after what is left, and for how long that may wait.
                    if state.queue.rows() > 0 && state.waiting > 0 {
                        self.work.notify_one();
                    }
                    return Some(closed);
                }
                if state.closed {
                    return None;
                }
            }
            state.waiting += 1;
            state = if patience.is_zero() {
                self.work.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.work.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0
            };
            state.waiting -= 1;
            free = CloseReason::EngineIdle;
        }
    }

    fn close(&self, state: &mut State, engine: usize, free: CloseReason) -> Option<Closed> {
        let closed = state.queue.close(now(), engine, free);
        if let Some(closed) = &closed {
            self.metrics.series().rows_left(closed.batch.len());
        }
        closed
    }

    /// Runs a batch on an engine, without the requests that nobody waits for any more: under overload those are many,
    /// so they are sorted out here, where no lock is held. A panic inside the engine fails the batch and nothing else:
    /// its members learn of it by their dropped replies.
    fn compute(&self, instance: &mut Instance, closed: Closed) {
        let Closed { mut batch, reason, longest_wait, .. } = closed;
        let metrics = self.metrics.series();
        let now = now();
        let before = batch.len();
        batch.drop_dead(now, longest_wait, &metrics);
        let rows = batch.len();
        if rows < before {
            self.state().queue.shrank(now, instance.number, rows);
        }
        let mut cost = None;
        if rows > 0 {
            batch.waits(now).for_each(|wait| metrics.queued(wait));
            let Instance { engine, scores, .. } = &mut *instance;
            match catch_unwind(AssertUnwindSafe(|| batch.run(engine.as_mut(), scores, &metrics))) {
                Ok(took) => {
                    let (Ok(duration) | Err(duration)) = took;
                    metrics.batch(reason, rows, duration);
                    cost = took.ok().map(|duration| (rows, duration));
                }
                Err(_) => batch.clear(),
            }
        }
        self.state().queue.ran(instance.number, batch, cost);
    }
}
