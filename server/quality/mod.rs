//! How good scores are and how far values have moved: pure functions, used by the trainer before a version is published
//! and by the server once it answers, so that both mean the same by a word.
//!
//! Scores are probabilities; a label is `true` where the event happened. All means are unweighted. A version brings the
//! [`Reference`] of its training rows along; a [`Tally`] counts other rows in the same bins, and [`psi`] says how far
//! they lie apart.

mod bins;
mod counts;
mod durations;
mod estimate;
mod interval;
mod observer;
mod psi;
mod ranking;
mod reference;
mod scores;

pub use self::{
    bins::{Bins, Counts, Distribution, Seen},
    counts::ScoreCounts,
    durations::Durations,
    estimate::{Estimate, Measure},
    interval::wilson,
    observer::Observer,
    psi::{psi, psi_by_chance},
    ranking::{hit_at, ndcg_at, recall_at},
    reference::{FeatureReference, Reference, ReferenceFault, Tally},
    scores::{accuracy, auc, brier, calibration_error, log_loss},
};
