//! How good scores are on held-out rows, by the definitions that the server uses as well.

use std::{collections::BTreeMap, fmt};

use millrace::quality;
use serde::{Deserialize, Serialize};

/// Figures over held-out rows, each with a label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowFigures {
    /// The number of rows.
    pub rows: usize,
    /// The share of the more frequent label: the accuracy of always answering it.
    pub majority: f64,
    /// The share of rows on the right side of 0.5.
    pub accuracy: f64,
    /// The area under the ROC curve.
    pub auc: f64,
    /// The mean negative log likelihood, in nats.
    pub log_loss: f64,
    /// The expected calibration error over ten bins.
    pub calibration_error: f64,
}

impl RowFigures {
    /// The figures of `scores`. `None` unless both labels occur.
    pub fn of(scores: &[f32], labels: &[bool]) -> Option<Self> {
        let positives = labels.iter().filter(|&&label| label).count();
        let share = positives as f64 / labels.len().max(1) as f64;
        Some(Self {
            rows: labels.len(),
            majority: share.max(1.0 - share),
            accuracy: quality::accuracy(scores, labels, 0.5)?,
            auc: quality::auc(scores, labels)?,
            log_loss: quality::log_loss(scores, labels)?,
            calibration_error: quality::calibration_error(scores, labels)?,
        })
    }

    /// The figures by name, as a manifest carries them.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let named = [
            ("majority", self.majority),
            ("accuracy", self.accuracy),
            ("auc", self.auc),
            ("log_loss", self.log_loss),
            ("calibration_error", self.calibration_error),
        ];
        named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl fmt::Display for RowFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, majority, accuracy, auc, log_loss, calibration_error } = self;
        write!(f, "{rows} held-out rows: accuracy {accuracy:.4} (majority {majority:.4}), AUC {auc:.4}, ")?;
        write!(f, "log loss {log_loss:.4}, calibration error {calibration_error:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_is_the_more_frequent_label() {
        let figures = RowFigures::of(&[0.9, 0.2, 0.6], &[true, false, false]).expect("both labels");
        assert!((figures.majority - 2.0 / 3.0).abs() < 1e-9);
        assert!((figures.accuracy - 2.0 / 3.0).abs() < 1e-9);
        assert!((figures.auc - 1.0).abs() < 1e-9);
        assert_eq!(figures.metrics().len(), 5);
    }

    #[test]
    fn one_label_alone_has_no_figures() {
        assert_eq!(RowFigures::of(&[0.9], &[true]), None);
        assert_eq!(RowFigures::of(&[], &[]), None);
    }
}
