//! The scheduling policy of a lane, pure: which batch a request joins, when there is no room or no time for it, what
//! runs next.
//!
//! Each priority has a line: its open batch and, before that, nothing but batches that closed because they were full, or
//! because another member would have cost one of theirs its deadline. Time is an argument, so tests drive it by hand.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use super::{
    Priority, ScoreError, Terms,
    batch::{Batch, Member, Reply},
    codel::Codel,
    cost::Costs,
};
use crate::{
    engine::BatchCost,
    metrics::CloseReason,
    tensor::{Rows, Signature},
};

/// How a lane forms batches, and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows that one batch may hold, and so one request.
    pub max_batch_rows: NonZeroUsize,
    /// Rows that a batch need not wait to exceed.
    pub preferred_batch_rows: NonZeroUsize,
    /// How long a batch that is smaller waits for more rows although an engine is free.
    pub max_queue_delay: Duration,
    /// Rows that may wait, the open batches among them, as a request sees them: those that do not go behind it. One that
    /// sees none is always let in.
    pub max_queue_rows: NonZeroUsize,
    /// The longest wait that may be everybody's: where no batch closes with a shorter one for a while, the queue
    /// stands, and rows that would wait for more than twice as long are refused.
    pub standing_wait: Duration,
}

impl Batching {
    /// The bounds of one of `shards` queues that have these together.
    pub(super) fn shared_by(self, shards: usize) -> Self {
        let rows = self.max_queue_rows.get().div_ceil(shards.max(1));
        Self { max_queue_rows: NonZeroUsize::new(rows).unwrap_or(NonZeroUsize::MIN), ..self }
    }
}

/// The requests that wait for an engine.
#[derive(Debug)]
pub(super) struct Queue {
    signature: Signature,
    batching: Batching,
    costs: Costs,
    /// By priority.
    lines: [Line; 3],
    /// When each engine should be done with its batch; `None` for one that is idle.
    engines: Vec<Option<Instant>>,
    spare: Vec<Batch>,
    rows: usize,
}

/// The requests of one priority.
#[derive(Debug)]
struct Line {
    open: Batch,
    /// Closed batches, oldest first.
    closed: VecDeque<Closed>,
    /// Rows in all of these.
    rows: usize,
    codel: Codel,
}

/// A batch that nobody joins any more.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) batch: Batch,
    pub(super) reason: CloseReason,
    /// What it was expected to cost.
    cost: Duration,
    /// Members that have waited for longer are not computed, for the queue stands.
    pub(super) longest_wait: Option<Duration>,
}

/// Where a request's rows would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Into the open batch.
    Open,
    /// Into one behind it, for this reason.
    Behind(CloseReason),
}

impl Line {
    fn new(signature: &Signature, batching: &Batching) -> Self {
        // Whoever is made to wait for more rows does not stand in line.
        let codel = Codel::new(batching.standing_wait.saturating_add(batching.max_queue_delay));
        Self { open: Batch::new(signature), closed: VecDeque::new(), rows: 0, codel }
    }

    /// The batch that is next to be computed; `None` when nothing waits.
    fn next(&self) -> Option<&Batch> {
        let next = self.closed.front().map_or(&self.open, |closed| &closed.batch);
        (next.len() > 0).then_some(next)
    }
}

impl Queue {
    /// An empty queue before so many idle engines, whose batches cost what warm-up has `measured`.
    pub(super) fn new(
        signature: &Signature,
        batching: Batching,
        engines: usize,
        measured: Vec<BatchCost>,
    ) -> Self {
        Self {
            signature: signature.clone(),
            batching,
            costs: Costs::new(measured),
            lines: [(); 3].map(|()| Line::new(signature, &batching)),
            engines: vec![None; engines],
            spare: Vec::new(),
            rows: 0,
        }
    }

    /// Whether a small batch may wait for more rows.
    pub(super) fn is_patient(&self) -> bool {
        !self.batching.max_queue_delay.is_zero()
    }

    /// Rows that wait.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether a request that still has to come in could be let in, if it had a single row.
    pub(super) fn admits(&self, now: Instant, terms: Terms) -> Result<(), ScoreError> {
        self.place(now, 1, terms).map(drop)
    }

    /// Lets a request in with all of `rows`, or says why not.
    pub(super) fn push(
        &mut self,
        now: Instant,
        rows: &Rows,
        terms: Terms,
        reply: Reply,
    ) -> Result<(), ScoreError> {
        let place = self.place(now, rows.len(), terms)?;
        let Terms { deadline, priority } = terms;
        if let Place::Behind(reason) = place {
            let closed = self.open_another(priority as usize, reason);
            self.lines[priority as usize].closed.push_back(closed);
        }
        let line = &mut self.lines[priority as usize];
        line.open.join(rows, Member { rows: rows.len(), joined: now, deadline, reply });
        line.rows += rows.len();
        self.rows += rows.len();
        Ok(())
    }

    /// How much longer the next batch waits for more rows although an engine is free; zero when it should close.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let Batching { preferred_batch_rows, max_batch_rows, max_queue_delay, .. } = self.batching;
        let enough = preferred_batch_rows.min(max_batch_rows).get();
        if !self.is_patient() || self.rows >= enough {
            return Duration::ZERO;
        }
        let ends = self.lines.iter().filter_map(|line| {
            let next = line.next()?;
            let end = next.oldest()? + max_queue_delay;
            let latest = next.deadline()?.checked_sub(self.costs.cautious(self.rows) + TIMER_IS_LATE);
            Some(latest.map_or(now, |latest| latest.min(end)))
        });
        ends.min().map_or(Duration::ZERO, |end| end.saturating_duration_since(now))
    }

    /// Closes the next batch for an engine that is free; `None` when nothing waits. A batch that was still open closes
    /// for the reason `free`.
    pub(super) fn close(&mut self, now: Instant, engine: usize, free: CloseReason) -> Option<Closed> {
        let first = self.lines.iter().position(|line| line.next().is_some())?;
        let mut next = self.take(now, first, free);
        next.longest_wait = self.lines[first].codel.wait_to_stay(now);
        // As long as nobody who goes before them is left to wait for it.
        for line in first + 1..self.lines.len() {
            if self.lines[line - 1].next().is_some() {
                break;
            }
            while self.lines[line].next().is_some_and(|other| self.may_share(now, &next.batch, other)) {
                let mut other = self.take(now, line, free);
                next.batch.append(&mut other.batch);
                self.keep(other.batch);
            }
        }
        self.rows -= next.batch.len();
        self.engines[engine] = Some(now + self.costs.expected(next.batch.len()));
        Some(next)
    }

    /// Learns that of the batch that an engine has in hand only so many rows are left to be computed.
    pub(super) fn shrank(&mut self, now: Instant, engine: usize, rows: usize) {
        self.engines[engine] = Some(now + self.costs.expected(rows));
    }

    /// Takes a batch back, for its memory, whose rows an engine has computed in `cost`: `None` where that says nothing
    /// of what batches cost.
    pub(super) fn ran(&mut self, engine: usize, batch: Batch, cost: Option<(usize, Duration)>) {
        self.engines[engine] = None;
        if let Some((rows, took)) = cost {
            self.costs.learn(rows, took);
        }
        self.keep(batch);
    }

    /// Where so many rows would go that come in now, so that their scores are there in time and those of nobody who has
    /// the same priority come too late for them; or why there is no place.
    ///
    /// Whoever finds an engine idle and nothing waiting is let in whatever it is expected to cost: its batch shows what
    /// is true. Where batches wait already, one that opens behind another is expected to grow as large as that: else the last
    /// batches of a queue that gets longer and longer are small ones, which are dear.
    fn place(&self, now: Instant, rows: usize, terms: Terms) -> Result<Place, ScoreError> {
        let Terms { deadline, priority } = terms;
        let limit = self.batching.max_batch_rows.get();
        if rows > limit {
            return Err(ScoreError::TooManyRows { rows, limit });
        }
        if self.rows == 0 && self.engines.iter().any(Option::is_none) {
            return Ok(Place::Open);
        }
        let line = &self.lines[priority as usize];
        let waiting: usize = self.lines[..=priority as usize].iter().map(|line| line.rows).sum();
        if waiting > 0 && waiting + rows > self.batching.max_queue_rows.get() {
            return Err(ScoreError::QueueFull);
        }
        let start = self.start(now, priority, 0);
        if line.codel.wait_to_enter(now).is_some_and(|longest| start > now + longest) {
            return Err(ScoreError::Overloaded);
        }
        let open = &line.open;
        let together = open.len() + rows;
        let earliest = open.deadline().map_or(deadline, |earliest| earliest.min(deadline));
        let reason = if together > limit {
            CloseReason::Full
        } else if start + self.costs.cautious(together) <= earliest {
            return Ok(Place::Open);
        } else {
            CloseReason::Deadline
        };
        let start = self.start(now, priority, open.len());
        let grows = if line.closed.is_empty() { rows } else { rows.max(open.len()) };
        let is_in_time = open.len() > 0 && start + self.costs.cautious(grows) <= deadline;
        if is_in_time { Ok(Place::Behind(reason)) } else { Err(ScoreError::NoTime) }
    }

    /// When a batch of this priority should start to be computed, if it is the next to close but for those that have and
    /// one of `open` rows, and nothing more urgent comes in.
    fn start(&self, now: Instant, priority: Priority, open: usize) -> Instant {
        let closed =
            self.lines[..=priority as usize].iter().flat_map(|line| &line.closed).map(|closed| closed.cost);
        let urgent = self.lines[..priority as usize].iter().map(|line| line.open.len());
        let costs = closed.chain(urgent.chain([open]).map(|rows| self.costs.expected(rows)));
        let free = |end: &Option<Instant>| end.map_or(now, |end| end.max(now));
        if let [end] = self.engines.as_slice() {
            return free(end) + costs.sum::<Duration>();
        }
        // Each goes to the engine that is free first.
        let mut engines: Vec<Instant> = self.engines.iter().map(free).collect();
        for cost in costs {
            if let Some(first) = engines.iter_mut().min() {
                *first += cost;
            }
        }
        engines.into_iter().min().unwrap_or(now)
    }

    /// Whether two batches can be computed together, without being late for anybody.
    fn may_share(&self, now: Instant, first: &Batch, other: &Batch) -> bool {
        let together = first.len() + other.len();
        let end = now + self.costs.cautious(together);
        let in_time = |batch: &Batch| batch.deadline().is_none_or(|deadline| end <= deadline);
        together <= self.batching.max_batch_rows.get() && in_time(first) && in_time(other)
    }

    /// Takes the next batch of a line out of it.
    fn take(&mut self, now: Instant, line: usize, free: CloseReason) -> Closed {
        let next = match self.lines[line].closed.pop_front() {
            Some(closed) => closed,
            None => self.open_another(line, free),
        };
        self.lines[line].rows -= next.batch.len();
        self.lines[line].codel.see(now, next.batch.shortest_wait(now));
        next
    }

    /// Puts an empty batch in place of the open one, which closes.
    fn open_another(&mut self, line: usize, reason: CloseReason) -> Closed {
        let empty = self.spare.pop().unwrap_or_else(|| Batch::new(&self.signature));
        let batch = std::mem::replace(&mut self.lines[line].open, empty);
        let cost = self.costs.expected(batch.len());
        Closed { batch, reason, cost, longest_wait: None }
    }

    /// Keeps an empty batch for its memory.
    fn keep(&mut self, batch: Batch) {
        debug_assert_eq!((batch.len(), batch.deadline()), (0, None), "nobody is in it any more");
        if self.spare.len() < MAX_SPARE {
            self.spare.push(batch);
        }
    }
}

/// How much later than it was set for a timer may go off: those of the event loop count in milliseconds.
const TIMER_IS_LATE: Duration = Duration::from_millis(2);

/// Batches kept for their memory: one that runs and one that is open take turns, and a burst may add some.
const MAX_SPARE: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::{
        super::fake::{Counts, FakeEngine, rows, signature, until, whenever},
        *,
    };

    const IDLE: CloseReason = CloseReason::EngineIdle;
    const FULL: CloseReason = CloseReason::Full;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A queue before one engine, and the time there.
    struct Bench {
        queue: Queue,
        now: Instant,
    }

    impl Bench {
        /// Of batches that cost nothing.
        fn new(max_batch_rows: usize, max_queue_rows: usize) -> Self {
            Self::with_costs(max_batch_rows, max_queue_rows, Vec::new())
        }

        /// Of batches that cost ten milliseconds a row.
        fn slow(max_batch_rows: usize) -> Self {
            Self::with_costs(max_batch_rows, 1_000, vec![BatchCost { rows: 1, duration: ms(10) }])
        }

        fn with_costs(max_batch_rows: usize, max_queue_rows: usize, costs: Vec<BatchCost>) -> Self {
            let count = |rows| NonZeroUsize::new(rows).expect("above zero");
            let batching = Batching {
                max_batch_rows: count(max_batch_rows),
                preferred_batch_rows: count(max_batch_rows),
                max_queue_delay: Duration::ZERO,
                max_queue_rows: count(max_queue_rows),
                standing_wait: ms(100),
            };
            Self { queue: Queue::new(&signature(), batching, 1, costs), now: Instant::now() }
        }

        fn push(&mut self, numbers: &[i32]) -> Result<(), ScoreError> {
            self.push_on(numbers, whenever())
        }

        /// Pushes rows that are worth something for so long.
        fn push_within(&mut self, numbers: &[i32], time: Duration) -> Result<(), ScoreError> {
            self.push_on(numbers, until(self.now + time))
        }

        fn push_on(&mut self, numbers: &[i32], terms: Terms) -> Result<(), ScoreError> {
            // Nobody waits for the answer, which only matters to those who drop what is dead.
            self.queue.push(self.now, &rows(numbers), terms, oneshot::channel().0)
        }

        /// Closes the next batch for the engine.
        fn start(&mut self) -> Option<Closed> {
            self.queue.close(self.now, 0, IDLE)
        }

        /// Computes a batch, which takes `took` if that is to be learnt: which rows were in it.
        fn finish(&mut self, closed: Closed, took: Option<Duration>) -> Vec<i32> {
            let Closed { mut batch, .. } = closed;
            let (mut engine, log) = FakeEngine::new();
            let cost = took.map(|took| (batch.len(), took));
            let _ = batch.run(&mut engine, &mut Vec::new(), &Counts::new().version.series());
            self.queue.ran(0, batch, cost);
            log.batches().pop().unwrap_or_default()
        }

        /// Closes and computes the next batch in no time: which rows were in it, and why it closed.
        fn close(&mut self) -> Option<(Vec<i32>, CloseReason)> {
            let closed = self.start()?;
            let reason = closed.reason;
            Some((self.finish(closed, None), reason))
        }
    }

    #[test]
    fn requests_share_the_open_batch_up_to_its_limit_and_the_next_opens_another() {
        let mut bench = Bench::new(4, 100);
        for numbers in [&[1][..], &[2, 3], &[4], &[5]] {
            bench.push(numbers).expect("room");
        }
        assert_eq!(bench.close(), Some((vec![1, 2, 3, 4], FULL)));
        assert_eq!(bench.close(), Some((vec![5], IDLE)));
        assert_eq!(bench.close(), None);
    }

    #[test]
    fn a_request_that_does_not_fit_is_not_torn_and_nothing_joins_the_batch_before_it() {
        let mut bench = Bench::new(4, 100);
        for numbers in [&[1, 2, 3][..], &[4, 5], &[6]] {
            bench.push(numbers).expect("room");
        }
        assert_eq!(bench.close(), Some((vec![1, 2, 3], FULL)));
        assert_eq!(bench.close(), Some((vec![4, 5, 6], IDLE)));
    }

    #[test]
    fn batches_close_in_the_order_in_which_they_filled_and_the_open_one_last() {
        let mut bench = Bench::new(2, 100);
        for numbers in [&[1, 2][..], &[3, 4], &[5, 6], &[7]] {
            bench.push(numbers).expect("room");
        }
        let closed: Vec<_> = std::iter::from_fn(|| bench.close()).collect();
        assert_eq!(closed, [(vec![1, 2], FULL), (vec![3, 4], FULL), (vec![5, 6], FULL), (vec![7], IDLE)]);
        assert_eq!(bench.queue.lines[1].rows, 0);
    }

    #[test]
    fn an_open_batch_closes_for_the_reason_why_its_engine_is_free() {
        for free in [CloseReason::EngineIdle, CloseReason::EngineFreed] {
            let mut bench = Bench::new(2, 100);
            bench.push(&[1]).expect("room");
            assert_eq!(bench.queue.close(bench.now, 0, free).map(|closed| closed.reason), Some(free));
        }
    }

    #[test]
    fn more_rows_than_a_batch_may_hold_are_refused() {
        let mut bench = Bench::new(4, 100);
        let refused = bench.push(&[1, 2, 3, 4, 5]);
        assert!(matches!(refused, Err(ScoreError::TooManyRows { rows: 5, limit: 4 })), "{refused:?}");
        assert_eq!(bench.queue.rows(), 0);
    }

    #[test]
    fn a_full_queue_refuses_until_a_batch_closes() {
        let mut bench = Bench::new(4, 6);
        bench.push(&[1, 2, 3, 4]).expect("room");
        bench.push(&[5, 6]).expect("room");
        let refused = bench.push(&[7]);
        assert!(matches!(refused, Err(ScoreError::QueueFull)), "{refused:?}");
        let refused = bench.queue.admits(bench.now, whenever());
        assert!(matches!(refused, Err(ScoreError::QueueFull)), "{refused:?}");
        assert_eq!(bench.queue.rows(), 6);
        bench.close().expect("four rows");
        bench.queue.admits(bench.now, whenever()).expect("room again");
        bench.push(&[7]).expect("room again");
        assert_eq!(bench.close(), Some((vec![5, 6, 7], IDLE)), "without a trace of what was refused");
    }

    #[test]
    fn an_empty_queue_lets_any_request_in_that_fits_a_batch() {
        let mut bench = Bench::new(4, 1);
        bench.push(&[1, 2, 3, 4]).expect("nothing waits");
        assert!(matches!(bench.push(&[5]), Err(ScoreError::QueueFull)));
    }

    #[test]
    fn batches_that_have_run_are_used_again_and_only_a_few_are_kept() {
        let mut bench = Bench::new(1, 100);
        for number in 0..20 {
            bench.push(&[number]).expect("room");
        }
        while bench.close().is_some() {}
        assert_eq!(bench.queue.spare.len(), MAX_SPARE);
        bench.push(&[1]).expect("room");
        bench.push(&[2]).expect("room");
        assert_eq!(bench.queue.spare.len(), MAX_SPARE - 1, "the batch behind the first is a spare one");
    }

    #[test]
    fn what_could_not_be_answered_in_time_is_refused() {
        let mut bench = Bench::slow(4);
        bench.push_within(&[1, 2], ms(20)).expect("the engine is idle");
        bench.start().expect("two rows, until 20 ms from now");
        bench.push_within(&[3], ms(30)).expect("from 20 ms to 30 ms");
        let late = bench.push_within(&[4], ms(39));
        assert!(matches!(late, Err(ScoreError::NoTime)), "{late:?}");
        let late = bench.queue.admits(bench.now, until(bench.now + ms(39)));
        assert!(matches!(late, Err(ScoreError::NoTime)), "{late:?}");
        bench.push_within(&[5], ms(40)).expect("from 30 ms to 40 ms");
        bench.now += ms(15);
        bench.push_within(&[6, 7], ms(45)).expect("from 25 ms to 45 ms");
        let late = bench.push_within(&[8], ms(30));
        assert!(matches!(late, Err(ScoreError::NoTime)), "{late:?}");
    }

    #[test]
    fn behind_batches_there_must_be_time_for_another_of_their_size() {
        let mut bench = Bench::slow(4);
        bench.push(&[1, 2, 3, 4]).expect("the engine is idle");
        bench.push_within(&[5], ms(50)).expect("from 40 ms to 50, for nothing says that more will come");

        let mut bench = Bench::slow(4);
        bench.push(&[1, 2, 3, 4]).expect("the engine is idle");
        bench.push(&[5, 6, 7, 8]).expect("there is room");
        let late = bench.push_within(&[9], ms(119));
        assert!(
            matches!(late, Err(ScoreError::NoTime)),
            "four rows from 80 ms would be there at 120: {late:?}"
        );
        bench.push_within(&[9], ms(120)).expect("the first of four");
        assert_eq!(bench.close(), Some((vec![1, 2, 3, 4], CloseReason::Full)));
    }

    #[test]
    fn an_idle_engine_is_tried_whatever_the_costs_say() {
        let mut bench = Bench::slow(4);
        for _ in 0..50 {
            bench.push_within(&[1, 2], ms(5)).expect("nothing else is to be done");
            let closed = bench.start().expect("a batch");
            assert_eq!(bench.finish(closed, Some(ms(2))), [1, 2]);
        }
        bench.push_within(&[3], ms(5)).expect("the engine is idle");
        bench.push_within(&[4], ms(5)).expect("two rows cost two milliseconds, as was learnt");
    }

    #[test]
    fn nobody_joins_a_batch_that_would_then_be_late_for_another_member() {
        let mut bench = Bench::slow(4);
        bench.push_within(&[1], ms(15)).expect("the engine is idle");
        bench.push_within(&[2], ms(100)).expect("there is time");
        bench.push_within(&[3], ms(100)).expect("there is time");
        assert_eq!(bench.close(), Some((vec![1], CloseReason::Deadline)));
        assert_eq!(bench.close(), Some((vec![2, 3], IDLE)));
    }

    #[test]
    fn several_engines_get_more_done() {
        for (engines, enough) in [(1, 40), (2, 30), (3, 20)] {
            let mut bench = Bench::slow(1);
            bench.queue.engines = vec![None; engines];
            for engine in 0..engines {
                bench.push(&[0]).expect("room");
                bench
                    .queue
                    .close(bench.now, engine, IDLE)
                    .expect("a batch for each engine, until 10 ms from now");
            }
            bench.push(&[1]).expect("room");
            bench.push(&[2]).expect("room");
            assert!(bench.push_within(&[3], ms(enough - 1)).is_err(), "with {engines}");
            bench.push_within(&[3], ms(enough)).expect("there is time");
        }
    }

    #[test]
    fn what_is_urgent_goes_first_and_others_ride_along_where_there_is_room() {
        let mut bench = Bench::new(4, 100);
        for (number, priority) in [(1, Priority::Low), (2, Priority::Normal), (3, Priority::High)] {
            bench.push_on(&[number; 2], Terms { priority, ..whenever() }).expect("room");
        }
        bench.push_on(&[4], Terms { priority: Priority::High, ..whenever() }).expect("room");
        assert_eq!(bench.close(), Some((vec![3, 3, 4], IDLE)), "two more would be too many");
        assert_eq!(bench.close(), Some((vec![2, 2, 1, 1], IDLE)));
        assert_eq!(bench.close(), None);
    }

    #[test]
    fn nobody_rides_along_past_those_who_go_before_them() {
        let mut bench = Bench::new(4, 100);
        let on = |priority| Terms { priority, ..whenever() };
        bench.push_on(&[1, 1], on(Priority::High)).expect("room");
        bench.push_on(&[2, 2, 2], on(Priority::Normal)).expect("room");
        bench.push_on(&[3], on(Priority::Low)).expect("room");
        assert_eq!(
            bench.close(),
            Some((vec![1, 1], IDLE)),
            "three more are too many, and one may not go first"
        );
        assert_eq!(bench.close(), Some((vec![2, 2, 2, 3], IDLE)));
    }

    #[test]
    fn what_goes_behind_a_request_takes_no_room_from_it() {
        let mut bench = Bench::new(4, 6);
        let low = Terms { priority: Priority::Low, ..whenever() };
        for _ in 0..6 {
            bench.push_on(&[1], low).expect("room");
        }
        assert!(matches!(bench.push_on(&[1], low), Err(ScoreError::QueueFull)));
        bench.push(&[2]).expect("six rows that go behind it");
    }

    #[test]
    fn a_batch_that_everybody_has_left_is_as_good_as_new() {
        let mut bench = Bench::slow(4);
        bench.push_within(&[1, 2], ms(20)).expect("the engine is idle");
        let mut closed = bench.start().expect("a batch");
        bench.now += ms(50);
        closed.batch.drop_dead(bench.now, None, &Counts::new().version.series());
        bench.queue.shrank(bench.now, 0, 0);
        bench.finish(closed, None);
        bench.push(&[3]).expect("the engine is idle");
        bench.start().expect("a batch, until 10 ms from now");
        bench.push_within(&[4], ms(20)).expect("from 10 ms to 20 ms");
        bench.push_within(&[5], ms(30)).expect("there is time for a batch of its own");
    }

    #[test]
    fn nobody_rides_along_who_would_make_the_batch_late() {
        let mut bench = Bench::slow(4);
        let (soon, low) = (until(bench.now + ms(15)), Terms { priority: Priority::Low, ..whenever() });
        bench.push_on(&[1], soon).expect("the engine is idle");
        bench.push_on(&[2], low).expect("there is time");
        assert_eq!(bench.close(), Some((vec![1], IDLE)));
        assert_eq!(bench.close(), Some((vec![2], IDLE)));
    }

    #[test]
    fn what_goes_first_is_in_the_way_of_the_rest_alone() {
        let mut bench = Bench::slow(4);
        bench.push(&[0]).expect("the engine is idle");
        bench.start().expect("a batch, until 10 ms from now");
        bench.push(&[1, 2]).expect("from 10 ms to 30 ms");
        for (priority, can) in [(Priority::High, true), (Priority::Normal, false), (Priority::Low, false)] {
            let terms = Terms { deadline: bench.now + ms(20), priority };
            assert_eq!(bench.queue.admits(bench.now, terms).is_ok(), can, "{priority:?}");
        }
        let low = Terms { deadline: bench.now + ms(40), priority: Priority::Low };
        bench.push_on(&[3], low).expect("from 30 ms to 40 ms");
    }

    #[test]
    fn a_small_batch_waits_for_more_rows_as_long_as_it_may() {
        let mut bench = Bench::slow(8);
        bench.queue.batching.preferred_batch_rows = NonZeroUsize::new(3).expect("above zero");
        assert_eq!(bench.queue.patience(bench.now), Duration::ZERO, "nothing waits");
        bench.push(&[1]).expect("the engine is idle");
        assert_eq!(bench.queue.patience(bench.now), Duration::ZERO, "nobody asked for it");
        bench.queue.batching.max_queue_delay = ms(30);
        assert_eq!(bench.queue.patience(bench.now), ms(30));
        bench.now += ms(10);
        bench.push_within(&[2], ms(100)).expect("there is time");
        assert_eq!(bench.queue.patience(bench.now), ms(20), "the first has waited for ten");
        assert_eq!(bench.queue.patience(bench.now + ms(20)), Duration::ZERO);
        bench.push(&[3]).expect("there is time");
        assert_eq!(bench.queue.patience(bench.now), Duration::ZERO, "these are enough");
    }

    #[test]
    fn a_batch_does_not_wait_for_more_rows_than_its_deadline_allows() {
        let mut bench = Bench::slow(8);
        bench.queue.batching.max_queue_delay = ms(30);
        bench.push_within(&[1, 2], ms(25)).expect("the engine is idle");
        assert_eq!(
            bench.queue.patience(bench.now),
            ms(3),
            "two rows take 20 of the 25, and timers may be late"
        );
    }

    #[test]
    fn a_queue_that_stands_refuses_and_drops_what_would_only_make_it_longer() {
        let mut bench = Bench::slow(4);
        let mut number = 0;
        let mut push = |bench: &mut Bench| {
            number += 1;
            bench.push(&[number])
        };
        // Eight rows in the time of four, and everybody has the patience of a saint.
        let mut longest = None;
        for _ in 0..40 {
            for _ in 0..8 {
                if push(&mut bench).is_err() {
                    break;
                }
            }
            let closed = bench.start().expect("a batch");
            longest = closed.longest_wait.or(longest);
            bench.now += ms(40);
            bench.finish(closed, Some(ms(40)));
        }
        assert_eq!(longest, Some(ms(300)), "three times the standing wait");
        let refused = (0..8).find_map(|_| push(&mut bench).err()).expect("the queue stands");
        assert!(matches!(refused, ScoreError::Overloaded), "{refused:?}");
        assert!((20..=28).contains(&bench.queue.rows()), "200 ms of work: {} rows", bench.queue.rows());
        // The flood has ended.
        while let Some(closed) = bench.start() {
            bench.now += ms(40);
            bench.finish(closed, Some(ms(40)));
        }
        for _ in 0..8 {
            push(&mut bench).expect("the queue stands no more");
        }
    }

    /// Requests that come one after the other: the milliseconds since the one before, rows, and milliseconds that they
    /// have.
    fn requests() -> impl Strategy<Value = Vec<(u64, usize, u64)>> {
        prop::collection::vec((0..30u64, 1..=4usize, 1..200u64), 1..80)
    }

    proptest! {
        /// As long as batches cost what they are expected to.
        #[test]
        fn what_is_let_in_is_answered_in_time(requests in requests()) {
            let mut bench = Bench::slow(4);
            let (mut busy, mut promised, mut late) = (None::<(Closed, Instant)>, 0, 0);
            let end = [(1_000_000, 0, 0)];
            for (pause, size, time) in requests.into_iter().chain(end) {
                let arrival = bench.now + ms(pause);
                // The engine works until the request comes.
                loop {
                    if let Some((closed, end)) = busy.take() {
                        if end > arrival {
                            busy = Some((closed, end));
                            break;
                        }
                        bench.now = bench.now.max(end);
                        late += usize::from(closed.batch.deadline().is_some_and(|deadline| deadline < end));
                        let took = ms(10 * closed.batch.len() as u64);
                        bench.finish(closed, Some(took));
                    }
                    match bench.start() {
                        Some(closed) => {
                            let end = bench.now + ms(10 * closed.batch.len() as u64);
                            busy = Some((closed, end));
                        }
                        None => break,
                    }
                }
                bench.now = arrival;
                // What finds the engine idle is let in without a promise, so it gets time enough.
                let idle = busy.is_none();
                if size > 0 && bench.push_within(&vec![1; size], ms(if idle { 1_000 } else { time })).is_ok() {
                    promised += 1;
                }
            }
            prop_assert!(busy.is_none() && bench.queue.rows() == 0);
            prop_assert!(promised > 0);
            prop_assert_eq!(late, 0);
        }

        #[test]
        fn requests_run_in_their_order_within_every_bound(
            steps in prop::collection::vec(prop_oneof![2 => (1usize..=5).prop_map(Some), 1 => Just(None)], 0..60),
        ) {
            const BATCH: usize = 4;
            const QUEUE: usize = 9;
            let mut bench = Bench::new(BATCH, QUEUE);
            let (mut next, mut waiting) = (0.., VecDeque::new());
            for step in steps {
                if let Some(size) = step {
                    let fits = size <= BATCH && (waiting.is_empty() || waiting.len() + size <= QUEUE);
                    let numbers: Vec<i32> = next.by_ref().take(size).collect();
                    prop_assert_eq!(bench.push(&numbers).is_ok(), fits);
                    if fits {
                        waiting.extend(numbers);
                    }
                } else {
                    let closed = bench.close().map(|(numbers, _)| numbers);
                    prop_assert_eq!(closed.is_none(), waiting.is_empty());
                    let closed = closed.unwrap_or_default();
                    prop_assert!(closed.len() <= BATCH);
                    prop_assert_eq!(&closed, &waiting.drain(..closed.len()).collect::<Vec<_>>());
                }
                prop_assert_eq!(bench.queue.rows(), waiting.len());
            }
        }
    }
}
