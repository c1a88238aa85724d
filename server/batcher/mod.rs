//! Requests join an open batch, which closes when an engine instance is free, unless it was told to wait for more rows; the
//! queue lets in who can be answered in time. In the inline lane each
//! worker has an open batch of a version, and an instance for it; in the threaded one a version has a single one.
//!
//! ```text
//! submit ─▶ open batch ─▶ (an engine is free) ─▶ run ─▶ each member's reply
//!            └─ full? a new one opens behind it
//! ```
//!
//! When an engine is idle, the request that finds it so leads: its lane closes the batch as soon as every
//! request that the event loop already holds has joined. While all engines are busy, requests only join, and
//! the batch grows by itself with the load.
//!
//! - The **inline** lane is for engines whose full batch is cheap: the request that leads runs the batch in its own
//!   task. No queue between threads, no hop.
//! - The **threaded** lane is for the others: threads of their own take the batch, so that no worker
//!   blocks.
//!
//! Nothing here knows HTTP or JSON: rows come in encoded, scores go out.

mod batch;
mod codel;
mod cost;
#[cfg(test)]
mod fake;
mod lane;
mod queue;
mod shard;
mod terms;

pub use self::{
    batch::Scores,
    lane::{Batcher, BatcherOptions, Lane},
    queue::Batching,
    shard::EngineThread,
    terms::{Priority, Terms},
};

/// Why rows got no scores.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// More rows than one batch may hold.
    #[error("{rows} rows; one request may carry {limit}")]
    TooManyRows {
        /// Rows in the request.
        rows: usize,
        /// Rows that a batch may hold.
        limit: usize,
    },
    /// The queue holds as many rows as it may.
    #[error("the model's queue is full")]
    QueueFull,
    /// By what batches cost, the scores would come too late.
    #[error("the model has too much to do to answer before the deadline")]
    NoTime,
    /// The queue has been too long for too long.
    #[error("the model has had too much to do for too long")]
    Overloaded,
    /// The deadline passed before the rows were computed.
    #[error("the deadline passed before the model answered")]
    Expired,
    /// The engine failed on these rows.
    #[error("the engine failed")]
    Engine(#[from] crate::engine::EngineError),
    /// The engine answered something that is no score.
    #[error("the model's score for row {row} is not a finite number")]
    NotFinite {
        /// The row, from 0.
        row: usize,
    },
    /// The engine went away while it ran the batch, which only a panic inside it can cause.
    #[error("the engine stopped while it ran the batch")]
    Lost,
}

/// The time of the event loop's clock, which tests can stop.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
