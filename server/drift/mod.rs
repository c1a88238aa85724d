//! How far the rows that a version scores have moved away from those that it learnt from, while it serves.
//!
//! ```text
//! predict ─▶ lot: which rows ─▶ sampler: a copy of the body, the scores ─▶ queue ─▶ window: counts in the reference's bins ─▶ metrics
//! ```
//!
//! A request leaves what was drawn of it and waits for nothing; all the rest is the thread's. The values that count are
//! those that callers send, so rows that come encoded show no more than their scores, and recommendations nothing.

mod lot;
mod sampler;
mod subject;
mod window;

pub use self::{
    sampler::{Drawn, Sampler, SamplerThread},
    subject::{DriftOptions, MAX_FEATURES, Subject},
};
