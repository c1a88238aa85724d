//! What a decision about a version is made by: the numbers of both sides of a trial, as the journal keeps them, so that whoever
//! reads it can decide again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Rules;
use crate::{
    quality::{Estimate, Measure, ScoreCounts},
    repository::{Tallied, TrialStage},
};

/// What is known of both versions since a trial began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// How long ago it began.
    pub age_ms: u64,
    /// How the candidate is tried.
    pub stage: TrialStage,
    /// What labels are compared by.
    pub measure: Measure,
    /// The version that answers the others.
    pub stable: Side,
    /// The version that is tried.
    pub candidate: Side,
    /// Answers of the candidate that took longer than it may, by what 99 of 100 of the stable version's took.
    pub slow: u64,
    /// How much better the candidate is by labels, at least and at most.
    pub gain: Option<[f64; 2]>,
    /// What was copied to it, where it is a shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Copied>,
}

/// Requests that were copied to a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copied {
    /// Rows that both versions have scored.
    pub rows: u64,
    /// Requests that were not copied, or whose copies the version had no room or time for.
    pub dropped: u64,
    /// How far apart the scores of both are in the mean.
    pub distance: Option<f64>,
}

/// One of both versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Requests that it answered.
    pub answered: u64,
    /// Requests that it did not.
    pub faults: u64,
    /// What 99 of 100 answers did not take longer than.
    pub p99_ms: Option<f64>,
    /// Labelled rows that have had time to get their labels.
    pub labels: u64,
    /// The measure over them.
    pub quality: Option<f64>,
    /// Its variance.
    pub variance: Option<f64>,
}

impl Evidence {
    /// What a trial that is `age` old comes to, by what both sides have answered and the labels that came back to it.
    pub fn new(
        rules: &Rules,
        (stage, age): (TrialStage, Duration),
        [stable, candidate]: [(&Tallied, Option<&ScoreCounts>); 2],
        copied: Option<Copied>,
    ) -> Self {
        let longest = stable.0.durations.quantile(0.99).map(|p99| p99.mul_f64(rules.max_latency_ratio));
        let slow = longest.map_or(0, |longest| candidate.0.durations.longer(longest));
        let estimate = |scores: Option<&ScoreCounts>| scores?.estimate(rules.measure);
        let gain = estimate(candidate.1).zip(estimate(stable.1)).map(|(candidate, stable)| {
            let half = candidate.above(&stable).radius(rules.min_labels);
            let gain = rules.measure.gain(candidate.value, stable.value);
            [gain - half, gain + half]
        });
        Self {
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            stage,
            measure: rules.measure,
            stable: Side::new(stable.0, stable.1, rules.measure),
            candidate: Side::new(candidate.0, candidate.1, rules.measure),
            slow,
            gain,
            copied,
        }
    }
}

impl Side {
    fn new(tallied: &Tallied, scores: Option<&ScoreCounts>, measure: Measure) -> Self {
        let estimate = scores.and_then(|scores| scores.estimate(measure));
        Self {
            answered: tallied.answered,
            faults: tallied.faults,
            p99_ms: tallied.durations.quantile(0.99).map(|p99| p99.as_secs_f64() * 1e3),
            labels: scores.map_or(0, ScoreCounts::rows),
            quality: estimate.map(|estimate| estimate.value),
            variance: estimate.map(|estimate| estimate.variance),
        }
    }

    /// The share of its requests that it did not answer; `None` without any.
    pub fn fault_share(&self) -> Option<Estimate> {
        Estimate::share(self.faults, self.faults + self.answered)
    }
}
