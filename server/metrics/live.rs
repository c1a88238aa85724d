//! The metrics of how good answers are while a version serves.

use metrics::Label;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::gauge;

/// How good the answers of a version are, of one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveFacts {
    /// Numbers of rows by what they are.
    pub rows: Vec<(&'static str, u64)>,
    /// Measures by name; `None` where there are too few rows for one.
    pub measures: Vec<(&'static str, Option<f64>)>,
    /// Quantiles of the time that labels took, in seconds.
    pub delays: Vec<(&'static str, Option<f64>)>,
}

impl LiveFacts {
    pub(super) fn record(&self, recorder: &PrometheusRecorder, labels: &[Label; 3]) {
        let set = |name, more: &[(&'static str, &'static str)], value| {
            let more = more.iter().map(|&(key, value)| Label::new(key, value));
            let labels: Vec<Label> = labels.iter().cloned().chain(more).collect();
            gauge(recorder, name, &labels).set(value);
        };
        for &(of, rows) in &self.rows {
            set("millrace_live_rows", &[("of", of)], rows as f64);
        }
        // What cannot be said any more must not stay as it was.
        for &(measure, value) in &self.measures {
            set("millrace_live_quality", &[("measure", measure)], value.unwrap_or(f64::NAN));
        }
        for &(quantile, value) in &self.delays {
            set("millrace_live_label_delay_seconds", &[("quantile", quantile)], value.unwrap_or(f64::NAN));
        }
    }
}
