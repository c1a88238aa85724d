//! The metrics of how far a version's rows have moved away from those that it learnt from.

use metrics::Label;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::gauge;

/// How far the rows of a version have moved, of one window.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftFacts<'a> {
    /// Requests and rows that were looked at, by what of them was seen.
    pub sampled: [(&'static str, u64, u64); 2],
    /// How far scores have moved.
    pub score: Psi,
    /// How far values have moved.
    pub features: Vec<FeatureDrift<'a>>,
}

/// How far the values of a feature have moved.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureDrift<'a> {
    /// The feature.
    pub feature: &'a str,
    /// How far.
    pub psi: Psi,
    /// The share of unknown ids, by which rows; `None` for a feature that knows no ids.
    pub unknown: Option<[(&'static str, Option<f64>); 2]>,
    /// The share of missing values.
    pub missing: [(&'static str, Option<f64>); 2],
}

/// A population stability index; `None` where there are too few rows for one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Psi {
    /// The index.
    pub found: Option<f64>,
    /// What it would be on the mean if nothing had moved.
    pub by_chance: Option<f64>,
}

impl DriftFacts<'_> {
    pub(super) fn record(&self, recorder: &PrometheusRecorder, labels: &[Label; 2]) {
        // What cannot be said any more must not stay as it was.
        let set = |name, more: &[Label], value: Option<f64>| {
            let labels = [labels, more].concat();
            gauge(recorder, name, &labels).set(value.unwrap_or(f64::NAN));
        };
        let set_psi = |more: &[Label], psi: Psi| {
            set("millrace_drift_psi", more, psi.found);
            set("millrace_drift_psi_by_chance", more, psi.by_chance);
        };
        for (of, requests, rows) in self.sampled {
            let of = [Label::new("of", of)];
            set("millrace_drift_requests", &of, Some(requests as f64));
            set("millrace_drift_rows", &of, Some(rows as f64));
        }
        set_psi(&[Label::new("of", "score")], self.score);
        for FeatureDrift { feature, psi, unknown, missing } in &self.features {
            let feature = Label::new("feature", (*feature).to_owned());
            set_psi(&[Label::new("of", "feature"), feature.clone()], *psi);
            for (rows, share) in unknown.iter().flatten() {
                set("millrace_drift_unknown_ratio", &[feature.clone(), Label::new("rows", *rows)], *share);
            }
            for (rows, share) in missing {
                set("millrace_drift_missing_ratio", &[feature.clone(), Label::new("rows", *rows)], *share);
            }
        }
    }
}
