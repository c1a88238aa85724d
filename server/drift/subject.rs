//! A version whose rows are held against its training rows: what that takes, from its folder and from the configuration.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::lot::Lot;
use crate::{
    features::{CategoricalSource, Encoder, Feature, FeatureKind, SchemaError},
    quality::{Observer, Reference},
};

/// The most features of a version that are watched, which bounds the series that they make.
pub const MAX_FEATURES: usize = 256;

/// How a version is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriftOptions {
    /// Rows a second that are looked at.
    pub rows_per_second: NonZeroU32,
    /// How much time is held against the training rows at once.
    pub window: Duration,
    /// Requests without which nothing is said: rows of one request are too much alike to be counted for many.
    pub min_requests: u64,
}

/// A version that is watched.
#[derive(Debug)]
pub struct Subject {
    model: String,
    version: u64,
    reference: Reference,
    observer: Observer<Arc<Encoder>>,
    /// Of each feature that is watched, the time after which its values come around, where they do.
    cycles: Vec<Option<Duration>>,
    options: DriftOptions,
    pub(super) lot: Lot,
}

impl Subject {
    /// `version` of `model`, whose rows `encoder` encodes, and whose training rows looked like `reference`, which must be
    /// of that encoder. Of more than [`MAX_FEATURES`] features the first are watched.
    pub fn new(
        (model, version): (&str, u64),
        encoder: Arc<Encoder>,
        mut reference: Reference,
        options: DriftOptions,
    ) -> Result<Self, SchemaError> {
        let features = reference.features.len();
        if features > MAX_FEATURES {
            tracing::warn!(%model, version, features, "only the first {MAX_FEATURES} are watched for drift");
            reference.features.truncate(MAX_FEATURES);
        }
        let cycles = encoder.sent().take(MAX_FEATURES).map(cycle).collect();
        let lot = Lot::new(options.rows_per_second);
        let observer = Observer::new(encoder)?;
        Ok(Self { model: model.to_owned(), version, reference, observer, cycles, options, lot })
    }

    /// The model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(super) fn observer(&self) -> &Observer<Arc<Encoder>> {
        &self.observer
    }

    pub(super) fn cycles(&self) -> impl Iterator<Item = Option<Duration>> {
        self.cycles.iter().copied()
    }

    pub(super) fn options(&self) -> DriftOptions {
        self.options
    }
}

/// The hours of less than a day are never those of the training rows, and neither are the days of less than a week.
fn cycle(feature: &Feature) -> Option<Duration> {
    match feature.kind {
        FeatureKind::Categorical { source: CategoricalSource::HourOfDay } => Some(Duration::from_hours(24)),
        FeatureKind::Categorical { source: CategoricalSource::DayOfWeek } => {
            Some(Duration::from_hours(7 * 24))
        }
        _ => None,
    }
}
