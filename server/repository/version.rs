//! One loaded version of a model: what a request needs from raw values to scores.

use std::{sync::Arc, time::Duration};

use crossbeam::queue::ArrayQueue;

use super::{Choice, Reaped, VersionNumber, manifest::Manifest};
use crate::{
    batcher::Batcher,
    drift::Subject,
    features::{Encoder, Value},
    metrics::{Metrics, VersionMetrics},
    recommend::Recommender,
    tensor::Rows,
};

/// A version that is ready to serve. Requests hold an `Arc` of it from their first look to their answer, so it
/// outlives its place in the repository for as long as it is needed.
pub struct Version {
    pub(super) manifest: Manifest,
    /// The threads that recommend have it as well.
    pub(super) encoder: Reaped<Arc<Encoder>>,
    pub(super) batcher: Batcher,
    pub(super) drift: Option<Reaped<Arc<Subject>>>,
    pub(super) recommender: Option<Reaped<Recommender>>,
    pub(super) metrics: Arc<VersionMetrics>,
    pub(super) request_timeout: Duration,
    pub(super) receipts: bool,
    pub(super) choice: Choice,
    pub(super) example: Vec<Value>,
    pub(super) buffers: ArrayQueue<Rows>,
    /// Declared last, so that it reaches the reaper after everything that takes memory. The threads that recommend keep it as
    /// well, until they have let go of what they search.
    pub(super) _in_memory: Arc<Reaped<InMemory>>,
}

/// A version that takes memory, as the metrics count it, until this is dropped.
pub(super) struct InMemory(Arc<Metrics>);

impl InMemory {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.versions_in_memory.increment(1.0);
        Self(metrics)
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        self.0.versions_in_memory.decrement(1.0);
    }
}

impl Version {
    /// Buffers kept for requests that come and go; more are made, and dropped, under a burst.
    pub(super) const BUFFERS: usize = 256;

    /// The version's number.
    pub fn number(&self) -> VersionNumber {
        self.manifest.version
    }

    /// What the version says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Turns raw rows into the model's inputs.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Turns inputs into scores.
    pub fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    /// The version as its rows are held against its training rows, where they are.
    pub fn drift(&self) -> Option<&Arc<Subject>> {
        self.drift.as_deref()
    }

    /// Recommends items, where the version has a catalogue.
    pub fn recommender(&self) -> Option<&Recommender> {
        self.recommender.as_deref()
    }

    /// Where to count.
    pub fn metrics(&self) -> &VersionMetrics {
        &self.metrics
    }

    /// How long a request may take, unless it says so itself.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Whether answers have a receipt, unless the request says so itself.
    pub fn receipts(&self) -> bool {
        self.receipts
    }

    /// Which engine serves it, and why.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// A row that the model is known to score, for people who want to try it.
    pub fn example(&self) -> &[Value] {
        &self.example
    }

    /// An empty buffer for a request's rows.
    pub fn take_buffer(&self) -> Rows {
        self.buffers.pop().unwrap_or_else(|| Rows::new(self.encoder.signature()))
    }

    /// Takes a buffer back, for its memory.
    pub fn return_buffer(&self, mut rows: Rows) {
        rows.clear();
        // A full pool drops the buffer.
        drop(self.buffers.push(rows));
    }
}
