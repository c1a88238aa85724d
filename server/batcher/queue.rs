//! The scheduling policy of a lane, pure: which batch a request joins, when there is no room, what runs next.
//!
//! It is the open batch and, before it, nothing but batches that closed because they were full. It knows no time and
//! no locks, so tests drive it by hand.

use std::{collections::VecDeque, num::NonZeroUsize};

use super::{
    ScoreError,
    batch::{Batch, Member},
};
use crate::{
    metrics::CloseReason,
    tensor::{Rows, Signature},
};

/// The bounds of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows that one batch may hold, and so one request.
    pub max_batch_rows: NonZeroUsize,
    /// Rows that may wait, the open batch among them. A request that finds an empty queue is always let in.
    pub max_queue_rows: NonZeroUsize,
}

impl Limits {
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
    limits: Limits,
    open: Batch,
    full: VecDeque<Batch>,
    spare: Vec<Batch>,
    rows: usize,
}

impl Queue {
    pub(super) fn new(signature: &Signature, limits: Limits) -> Self {
        Self {
            signature: signature.clone(),
            limits,
            open: Batch::new(signature),
            full: VecDeque::new(),
            spare: Vec::new(),
            rows: 0,
        }
    }

    /// Rows that wait.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Lets a request in with all of `rows`, or says why not. `member` is asked for only when there is room.
    pub(super) fn push(&mut self, rows: &Rows, member: impl FnOnce() -> Member) -> Result<(), ScoreError> {
        let limit = self.limits.max_batch_rows.get();
        if rows.len() > limit {
            return Err(ScoreError::TooManyRows { rows: rows.len(), limit });
        }
        if self.rows > 0 && self.rows + rows.len() > self.limits.max_queue_rows.get() {
            return Err(ScoreError::QueueFull);
        }
        if self.open.len() + rows.len() > limit {
            let closed = self.open_another();
            self.full.push_back(closed);
        }
        self.open.join(rows, member());
        self.rows += rows.len();
        Ok(())
    }

    /// Closes the next batch for an engine that is free; `None` when nothing waits. A batch that was still open closes
    /// for the reason `free`.
    pub(super) fn close(&mut self, free: CloseReason) -> Option<(Batch, CloseReason)> {
        let closed = match self.full.pop_front() {
            Some(batch) => (batch, CloseReason::Full),
            None if self.open.len() > 0 => (self.open_another(), free),
            None => return None,
        };
        self.rows -= closed.0.len();
        Some(closed)
    }

    /// Takes back a batch that has run, for its memory.
    pub(super) fn recycle(&mut self, batch: Batch) {
        debug_assert_eq!(batch.len(), 0, "a batch that has run is empty");
        if self.spare.len() < MAX_SPARE {
            self.spare.push(batch);
        }
    }

    /// Puts an empty batch in place of the open one, which is returned.
    fn open_another(&mut self) -> Batch {
        let empty = self.spare.pop().unwrap_or_else(|| Batch::new(&self.signature));
        std::mem::replace(&mut self.open, empty)
    }
}

/// Batches kept for their memory: one that runs and one that is open take turns, and a burst may add some.
const MAX_SPARE: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::fake::{self, Counts, FakeEngine, never, rows, signature},
        *,
    };

    const IDLE: CloseReason = CloseReason::EngineIdle;
    const FULL: CloseReason = CloseReason::Full;

    fn queue(max_batch_rows: usize, max_queue_rows: usize) -> Queue {
        let count = |rows| NonZeroUsize::new(rows).expect("above zero");
        let limits = Limits { max_batch_rows: count(max_batch_rows), max_queue_rows: count(max_queue_rows) };
        Queue::new(&signature(), limits)
    }

    fn push(queue: &mut Queue, numbers: &[i32]) -> Result<(), ScoreError> {
        // Nobody waits for the answer, which only matters to those who drop what is dead.
        queue.push(&rows(numbers), || fake::member(numbers.len(), never()).0)
    }

    /// Closes the next batch and says which rows are in it, and why it closed.
    fn close(queue: &mut Queue) -> Option<(Vec<i32>, CloseReason)> {
        let (mut batch, reason) = queue.close(IDLE)?;
        let (mut engine, log) = FakeEngine::new();
        batch.run(&mut engine, &mut Vec::new(), &Counts::new().version.series());
        queue.recycle(batch);
        log.batches().pop().map(|numbers| (numbers, reason))
    }

    #[test]
    fn requests_share_the_open_batch_up_to_its_limit_and_the_next_opens_another() {
        let mut queue = queue(4, 100);
        for numbers in [&[1][..], &[2, 3], &[4], &[5]] {
            push(&mut queue, numbers).expect("room");
        }
        assert_eq!(close(&mut queue), Some((vec![1, 2, 3, 4], FULL)));
        assert_eq!(close(&mut queue), Some((vec![5], IDLE)));
        assert_eq!(close(&mut queue), None);
    }

    #[test]
    fn a_request_that_does_not_fit_is_not_torn_and_nothing_joins_the_batch_before_it() {
        let mut queue = queue(4, 100);
        for numbers in [&[1, 2, 3][..], &[4, 5], &[6]] {
            push(&mut queue, numbers).expect("room");
        }
        assert_eq!(close(&mut queue), Some((vec![1, 2, 3], FULL)));
        assert_eq!(close(&mut queue), Some((vec![4, 5, 6], IDLE)));
    }

    #[test]
    fn batches_close_in_the_order_in_which_they_filled_and_the_open_one_last() {
        let mut queue = queue(2, 100);
        for numbers in [&[1, 2][..], &[3, 4], &[5, 6], &[7]] {
            push(&mut queue, numbers).expect("room");
        }
        let closed: Vec<_> = std::iter::from_fn(|| close(&mut queue)).collect();
        assert_eq!(closed, [(vec![1, 2], FULL), (vec![3, 4], FULL), (vec![5, 6], FULL), (vec![7], IDLE)]);
    }

    #[test]
    fn an_open_batch_closes_for_the_reason_why_its_engine_is_free() {
        for free in [CloseReason::EngineIdle, CloseReason::EngineFreed] {
            let mut queue = queue(2, 100);
            push(&mut queue, &[1]).expect("room");
            assert_eq!(queue.close(free).map(|(_, reason)| reason), Some(free));
        }
    }

    #[test]
    fn more_rows_than_a_batch_may_hold_are_refused_before_a_member_is_made() {
        let mut queue = queue(4, 100);
        let refused = queue.push(&rows(&[1, 2, 3, 4, 5]), || unreachable!("there is no room"));
        assert!(matches!(refused, Err(ScoreError::TooManyRows { rows: 5, limit: 4 })), "{refused:?}");
        assert_eq!(queue.rows(), 0);
    }

    #[test]
    fn a_full_queue_refuses_until_a_batch_closes() {
        let mut queue = queue(4, 6);
        push(&mut queue, &[1, 2, 3, 4]).expect("room");
        push(&mut queue, &[5, 6]).expect("room");
        let refused = push(&mut queue, &[7]);
        assert!(matches!(refused, Err(ScoreError::QueueFull)), "{refused:?}");
        assert_eq!(queue.rows(), 6);
        close(&mut queue).expect("four rows");
        push(&mut queue, &[7]).expect("room again");
        assert_eq!(close(&mut queue), Some((vec![5, 6, 7], IDLE)), "without a trace of what was refused");
    }

    #[test]
    fn an_empty_queue_lets_any_request_in_that_fits_a_batch() {
        let mut queue = queue(4, 1);
        push(&mut queue, &[1, 2, 3, 4]).expect("nothing waits");
        assert!(matches!(push(&mut queue, &[5]), Err(ScoreError::QueueFull)));
    }

    #[test]
    fn batches_that_have_run_are_used_again_and_only_a_few_are_kept() {
        let mut queue = queue(1, 100);
        for number in 0..20 {
            push(&mut queue, &[number]).expect("room");
        }
        while close(&mut queue).is_some() {}
        assert_eq!(queue.spare.len(), MAX_SPARE);
        push(&mut queue, &[1]).expect("room");
        push(&mut queue, &[2]).expect("room");
        assert_eq!(queue.spare.len(), MAX_SPARE - 1, "the batch behind the first is a spare one");
    }

    proptest! {
        #[test]
        fn requests_run_in_their_order_within_every_bound(
            steps in prop::collection::vec(prop_oneof![2 => (1usize..=5).prop_map(Some), 1 => Just(None)], 0..60),
        ) {
            const BATCH: usize = 4;
            const QUEUE: usize = 9;
            let mut queue = queue(BATCH, QUEUE);
            let (mut next, mut waiting) = (0.., VecDeque::new());
            for step in steps {
                if let Some(size) = step {
                    let fits = size <= BATCH && (waiting.is_empty() || waiting.len() + size <= QUEUE);
                    let numbers: Vec<i32> = next.by_ref().take(size).collect();
                    prop_assert_eq!(push(&mut queue, &numbers).is_ok(), fits);
                    if fits {
                        waiting.extend(numbers);
                    }
                } else {
                    let closed = close(&mut queue).map(|(numbers, _)| numbers);
                    prop_assert_eq!(closed.is_none(), waiting.is_empty());
                    let closed = closed.unwrap_or_default();
                    prop_assert!(closed.len() <= BATCH);
                    prop_assert_eq!(&closed, &waiting.drain(..closed.len()).collect::<Vec<_>>());
                }
                prop_assert_eq!(queue.rows(), waiting.len());
            }
        }
    }
}
