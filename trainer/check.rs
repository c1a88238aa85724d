//! The proof that a version's files answer what the trainer computed: read back as a server would read them, run
//! through ONNX Runtime on the held-out rows, and compared with the trainer's own forward pass, score by score.

use std::{io, path::Path};

use millrace::{
    engine::{EngineError, OnnxEngine, OnnxRuntime},
    features::{Encoder, FeatureError, RawKind, SchemaError, Value},
    repository::{
        golden::{Golden, GoldenError},
        manifest::Manifest,
    },
};

use crate::artifact::{self, Holdout};

/// Why the files of a version were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The features cannot be read back.
    #[error("the exported features")]
    Features(#[from] SchemaError),
    /// A row that was encoded in training is refused now.
    #[error("a held-out row")]
    Row(#[from] FeatureError),
    /// The engine refused the model or failed.
    #[error("the exported model")]
    Engine(#[from] EngineError),
    /// A score is off.
    #[error("row {row}: the exported model answers {found}, the trainer {expected}")]
    Differs {
        /// The row of the held-out rows.
        row: usize,
        /// What the exported model answered.
        found: f32,
        /// What the trainer computed.
        expected: f32,
    },
    /// The golden rows cannot be written.
    #[error("golden.json: cannot be written")]
    Write(#[source] io::Error),
    /// The golden rows are not answered.
    #[error(transparent)]
    Golden(#[from] GoldenError),
}

/// A version's files, opened as a server opens them.
pub struct Opened {
    /// The features.
    pub encoder: Encoder,
    /// The model.
    pub engine: OnnxEngine,
}

impl Opened {
    /// Opens the files in `version`.
    pub fn open(runtime: &OnnxRuntime, version: &Path) -> Result<Self, CheckError> {
        let encoder = Encoder::read(&version.join(Manifest::FEATURES))?;
        let engine = OnnxEngine::open(runtime, &version.join(Manifest::MODEL), encoder.signature())?;
        Ok(Self { encoder, engine })
    }

    /// The scores of raw rows.
    pub fn score(&mut self, holdout: &Holdout) -> Result<Vec<f32>, CheckError> {
        let rows = holdout.encode(&self.encoder)?;
        Ok(artifact::score(&mut self.engine, &rows)?)
    }

    /// Fails where the files answer a held-out row otherwise than the trainer did. Returns the largest difference.
    pub fn compare(&mut self, holdout: &Holdout, expected: &[f32]) -> Result<f32, CheckError> {
        let found = self.score(holdout)?;
        let mut largest = 0.0_f32;
        for (row, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let difference = (found - expected).abs();
            // Written so that a NaN on either side counts as a difference.
            let within = difference <= TOLERANCE;
            if !within {
                return Err(CheckError::Differs { row, found, expected });
            }
            largest = largest.max(difference);
        }
        Ok(largest)
    }
}

/// Rows for `golden.json`: some of the held-out ones, evenly spread, and one whose ids nobody has ever seen. `sent` is
/// what each value of a row is.
pub fn golden_input(holdout: &Holdout, sent: &[RawKind]) -> Vec<Vec<Value>> {
    let step = holdout.input.len().div_ceil(GOLDEN_ROWS).max(1);
    let mut input: Vec<Vec<Value>> = holdout.input.iter().step_by(step).cloned().collect();
    // A small log has fewer rows than are wanted; repeating them keeps the file's promise.
    input = input.iter().cycle().take(if input.is_empty() { 0 } else { GOLDEN_ROWS }).cloned().collect();
    let strange = |(value, kind): (&Value, &RawKind)| match kind {
        RawKind::Id => Value::Text(STRANGER.into()),
        RawKind::Number | RawKind::Moment => value.clone(),
    };
    let stranger = input.first().map(|row| row.iter().zip(sent).map(strange).collect());
    input.extend(stranger);
    input
}

/// Writes `golden.json` with the trainer's own scores, once the files in `version` answer them.
pub fn write_golden(opened: &mut Opened, version: &Path, golden: &Golden) -> Result<(), CheckError> {
    let rows = golden.encode(&opened.encoder)?;
    golden.check(&mut opened.engine, &rows)?;
    golden.write(version).map_err(CheckError::Write)
}

/// How far an exported model's score may be from the trainer's: both are single precision, and sum in other orders.
pub const TOLERANCE: f32 = 1e-4;
/// Rows of `golden.json` beside the one with unknown ids.
const GOLDEN_ROWS: usize = 16;
/// An id that no vocabulary holds.
const STRANGER: &str = "(an id that no log has)";

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: [RawKind; 2] = [RawKind::Id, RawKind::Number];

    fn holdout(rows: i64) -> Holdout {
        Holdout {
            input: (0..rows).map(|row| vec![Value::Int(row), Value::Float(0.5)]).collect(),
            label: vec![true; usize::try_from(rows).expect("small")],
            user: Vec::new(),
        }
    }

    #[test]
    fn golden_rows_are_spread_over_the_holdout_and_end_with_a_stranger() {
        let input = golden_input(&holdout(160), &SENT);
        assert_eq!(input.len(), 17);
        assert_eq!(input[1], [Value::Int(10), Value::Float(0.5)]);
        assert_eq!(input[16], [Value::Text(STRANGER.into()), Value::Float(0.5)]);
    }

    #[test]
    fn a_small_holdout_still_fills_the_golden_rows() {
        assert_eq!(golden_input(&holdout(3), &SENT).len(), 17);
        assert!(golden_input(&holdout(0), &SENT).is_empty());
    }
}
