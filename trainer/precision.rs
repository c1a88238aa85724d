//! A version in half precision beside the one in single precision, and what that costs: both files score the held-out
//! rows through ONNX Runtime, and their figures and the distances between their scores are recorded.
//!
//! The CPU has no arithmetic in half precision, so the runtime computes there with the rounded tables and layers but
//! rounds less in between than a GPU does.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use millrace::{
    engine::{OnnxEngine, OnnxRuntime},
    repository::manifest::Manifest,
};

use crate::{
    artifact::{Artifact, ArtifactError},
    check::{CheckError, Opened},
    evaluate::RowFigures,
    half_precision::{HalfError, HalfPrecision},
    onnx_file::{self, FileError, OnnxFile},
};

/// Why there is no version in half precision.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrecisionError {
    /// The model's files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model cannot be had in half precision.
    #[error("in half precision")]
    Half(#[from] HalfError),
    /// A file does not answer.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The held-out rows are all of one label, so that nothing can be judged.
    #[error("the held-out rows need both labels")]
    OneLabel,
    /// A layer leaves the range of half precision.
    #[error("row {row}: half precision answers {half}, single precision {single}")]
    Overflow {
        /// The row of the held-out rows.
        row: usize,
        /// The score in half precision.
        half: f32,
        /// The score in single precision.
        single: f32,
    },
    /// What was measured cannot be recorded.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// The file in half precision, in a version's folder.
pub const HALF_MODEL: &str = "model.fp16.onnx";

/// What half precision costs, on rows that the training never saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionLoss {
    /// The figures of single precision.
    pub single: RowFigures,
    /// The figures of half precision.
    pub half: RowFigures,
    /// The largest distance between two scores of a row.
    pub max_error: f64,
    /// The mean distance between the scores of a row.
    pub mean_error: f64,
}

/// Writes the artifact's model in half precision beside it, measures what that costs and puts it into the artifact's
/// summary, which the caller writes. Tables of more than `max_inline_bytes` lie in a file of their own. Where it fails, neither a file nor a figure
/// is left, of an earlier one either.
pub fn add_half(
    artifact: &mut Artifact,
    runtime: &OnnxRuntime,
    max_inline_bytes: u64,
) -> Result<PrecisionLoss, PrecisionError> {
    let version = artifact.version();
    let loss = write_half(&version, max_inline_bytes).and_then(|()| measure(artifact, runtime));
    let metrics = &mut artifact.summary.metrics;
    metrics.retain(|name, _| !name.starts_with("fp16_"));
    if let Ok(loss) = &loss {
        metrics.extend(loss.metrics());
    } else {
        let model = version.join(HALF_MODEL);
        // What is there is no model; the error that is returned says why, and not why it could not be removed.
        let _ = fs::remove_file(onnx_file::tables_path(&model));
        let _ = fs::remove_file(model);
    }
    loss
}

/// Writes the model in the folder `version` in half precision, beside it.
pub fn write_half(version: &Path, max_inline_bytes: u64) -> Result<(), PrecisionError> {
    let file = OnnxFile::read(&version.join(Manifest::MODEL))?;
    let source = file.model()?;
    let half = HalfPrecision::of(&source)?;
    onnx_file::write(&half.model(), &version.join(HALF_MODEL), max_inline_bytes, |index, to| {
        half.copy(index, |tensor| Ok::<_, PrecisionError>(file.open(tensor)?), to)
    })
}

fn measure(artifact: &Artifact, runtime: &OnnxRuntime) -> Result<PrecisionLoss, PrecisionError> {
    let version = artifact.version();
    let mut opened = Opened::open(runtime, &version)?;
    let single = opened.score(&artifact.holdout)?;
    let file = version.join(HALF_MODEL);
    opened.engine = OnnxEngine::open(runtime, &file, opened.encoder.signature()).map_err(CheckError::from)?;
    let half = opened.score(&artifact.holdout)?;
    PrecisionLoss::of(&single, &half, &artifact.holdout.label)
}

impl PrecisionLoss {
    /// Compares the scores of both precisions, row by row.
    pub fn of(single: &[f32], half: &[f32], labels: &[bool]) -> Result<Self, PrecisionError> {
        let (mut max_error, mut sum) = (0.0_f64, 0.0_f64);
        for (row, (&single, &half)) in single.iter().zip(half).enumerate() {
            let distance = (f64::from(half) - f64::from(single)).abs();
            if !distance.is_finite() {
                return Err(PrecisionError::Overflow { row, half, single });
            }
            max_error = max_error.max(distance);
            sum += distance;
        }
        let figures = |scores| RowFigures::of(scores, labels).ok_or(PrecisionError::OneLabel);
        Ok(Self {
            single: figures(single)?,
            half: figures(half)?,
            max_error,
            mean_error: sum / labels.len() as f64,
        })
    }

    /// The figures by name, as a manifest carries them beside those of single precision.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let named = [
            ("fp16_max_error", self.max_error),
            ("fp16_mean_error", self.mean_error),
            ("fp16_auc", self.half.auc),
            ("fp16_log_loss", self.half.log_loss),
            ("fp16_accuracy", self.half.accuracy),
        ];
        named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl fmt::Display for PrecisionLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { single, half, max_error, mean_error } = self;
        write!(f, "half precision is off by {max_error:.1e} at most and {mean_error:.1e} on average ")?;
        write!(
            f,
            "over {} held-out rows: AUC {:.5} (single precision {:.5}), ",
            half.rows, half.auc, single.auc
        )?;
        write!(f, "log loss {:.5} ({:.5}), ", half.log_loss, single.log_loss)?;
        write!(f, "accuracy {:.5} ({:.5})", half.accuracy, single.accuracy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_the_distance_between_the_scores_of_a_row() {
        let loss = PrecisionLoss::of(&[0.75, 0.25, 0.5], &[0.5, 0.25, 0.625], &[true, false, false]);
        let loss = loss.expect("both labels");
        assert_eq!((loss.max_error, loss.mean_error), (0.25, 0.125));
        assert_eq!((loss.single.auc, loss.half.auc), (1.0, 0.5));
        assert_eq!(loss.metrics()["fp16_auc"].to_bits(), 0.5_f64.to_bits());
    }

    #[test]
    fn a_score_that_is_no_number_is_refused_with_its_row() {
        let error = PrecisionLoss::of(&[0.5, 0.5], &[0.5, f32::NAN], &[true, false]).expect_err("no number");
        assert_eq!(error.to_string(), "row 1: half precision answers NaN, single precision 0.5");
    }

    #[test]
    fn rows_of_one_label_say_nothing() {
        let error = PrecisionLoss::of(&[0.5], &[0.5], &[true]).expect_err("one label");
        assert!(matches!(error, PrecisionError::OneLabel));
    }
}
