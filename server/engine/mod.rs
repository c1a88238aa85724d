//! What computes scores from rows.
//!
//! [`Engine`] is the one seam between serving and computing: object safe and small, so that a batch does not know
//! whether ONNX Runtime, `TensorRT` or our own kernels answer it. An engine is one instance: it runs one batch at a
//! time, on the thread that calls it, and blocks that thread.

pub mod cuda;
pub mod network;
mod onnx;
pub mod tensorrt;
mod towers;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use self::{
    cuda::{DeviceError, PlanError, UploadError},
    tensorrt::TensorRtError,
};
pub use self::{
    network::{Network, NetworkError},
    onnx::{OnnxEngine, OnnxRuntime, Provider},
    towers::{PairEngine, Side, TowerEngine, Vectors},
};
use crate::tensor::{Rows, Signature};

/// Computes one F32 score a row.
pub trait Engine: Send {
    /// The inputs that [`Engine::run`] expects.
    fn signature(&self) -> &Signature;

    /// Replaces the contents of `scores` by one score for each of `rows`, in their order. On an error `scores` is
    /// unspecified, and the engine can be run again.
    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError>;
}

impl<E: Engine + ?Sized> Engine for Box<E> {
    fn signature(&self) -> &Signature {
        (**self).signature()
    }

    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
        (**self).run(rows, scores)
    }
}

/// Why an engine could not be made, or did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The runtime library is missing, or too old.
    #[error("ONNX Runtime cannot be loaded from {path}: {reason}")]
    Library {
        /// Where it was looked for.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// The runtime refused the model or a batch.
    #[error("ONNX Runtime: {0}")]
    Runtime(#[source] ort::Error),
    /// The model's inputs or outputs are not those that its manifest declares.
    #[error("the model does not fit its signature: {0}")]
    Signature(String),
    /// The engine answered another number of scores than there were rows.
    #[error("{scores} scores for {rows} rows")]
    Scores {
        /// Scores that came back.
        scores: usize,
        /// Rows that were asked for.
        rows: usize,
    },
    /// CUDA cannot be used on this machine.
    #[error("CUDA cannot be used: {0}")]
    Cuda(String),
    /// The model is none that our own engine computes.
    #[error("CUDA cannot compute the model")]
    Network(#[from] NetworkError),
    /// The model is too large to be counted.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The GPU's memory is too small, or has too much in it.
    #[error(
        "the model takes {needed} bytes of the GPU's memory, of which {free} are free and {reserved} stay so"
    )]
    Memory {
        /// Bytes that it takes, with all of its slots.
        needed: usize,
        /// Bytes that are free.
        free: usize,
        /// Bytes that must stay free.
        reserved: usize,
    },
    /// The GPU's memory is too small for a catalogue beside its model, or has too much in it.
    #[error(
        "the catalogue and what searches it take {needed} bytes of the GPU's memory, of which {free} are free and {reserved} stay so"
    )]
    CatalogueMemory {
        /// Bytes that they take, with all searches.
        needed: usize,
        /// Bytes that are free.
        free: usize,
        /// Bytes that must stay free.
        reserved: usize,
    },
    /// The model did not get into the GPU's memory.
    #[error("the model cannot be put into the GPU's memory")]
    Upload(#[from] UploadError),
    /// The GPU failed, maybe for good: what it answers from here on is worth nothing.
    #[error("the GPU failed: {0}; load the version again")]
    Device(DeviceError),
    /// More rows than the engine was opened for.
    #[error("{rows} rows; the engine was opened for {limit}")]
    TooManyRows {
        /// Rows of the batch.
        rows: usize,
        /// The most rows of one.
        limit: usize,
    },
    /// An engine of TensorRT's cannot be had.
    #[error(transparent)]
    TensorRt(#[from] TensorRtError),
    /// An id lies outside of its table, which no encoder makes.
    #[error("an id lies outside of its table")]
    Ids,
}

impl EngineError {
    /// Of rows that no engine of this signature takes.
    fn other_rows() -> Self {
        Self::Signature("the rows are of another one".to_owned())
    }
}

impl From<DeviceError> for EngineError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// What a batch of some rows costs, measured while an engine warmed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchCost {
    /// Rows in the batch.
    pub rows: usize,
    /// The fastest run, which is the one that the machine disturbed least.
    pub duration: Duration,
}

/// Runs `engine` on batches of `sample`'s rows repeated, for each size of the `ladder`, so that no request pays for
/// a first run of its batch size, and measures them.
///
/// # Panics
/// When `sample` is empty.
pub fn warm_up(
    engine: &mut dyn Engine,
    sample: &Rows,
    ladder: &[usize],
) -> Result<Vec<BatchCost>, EngineError> {
    const RUNS: usize = 5;
    assert!(!sample.is_empty(), "warm-up needs a row");
    let mut scores = Vec::new();
    let mut batch = Rows::new(engine.signature());
    let mut costs = Vec::with_capacity(ladder.len());
    for &rows in ladder {
        batch.clear();
        while batch.len() < rows {
            let missing = rows - batch.len();
            batch.extend_from(sample, 0..sample.len().min(missing));
        }
        let mut duration = Duration::MAX;
        for _ in 0..RUNS {
            let start = Instant::now();
            engine.run(&batch, &mut scores)?;
            duration = duration.min(start.elapsed());
        }
        costs.push(BatchCost { rows, duration });
    }
    Ok(costs)
}

/// Batch sizes to warm up: powers of four up to `max_rows`, and `max_rows` itself last.
pub fn ladder(max_rows: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1usize), |rows| rows.checked_mul(4));
    let mut ladder: Vec<usize> = powers.take_while(|&rows| rows < max_rows).collect();
    ladder.push(max_rows.max(1));
    ladder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_ends_with_the_largest_batch_and_names_no_size_twice() {
        assert_eq!(ladder(1), [1]);
        assert_eq!(ladder(64), [1, 4, 16, 64]);
        assert_eq!(ladder(100), [1, 4, 16, 64, 100]);
    }
}
