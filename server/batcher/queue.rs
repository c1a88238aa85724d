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
