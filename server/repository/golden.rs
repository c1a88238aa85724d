//! Rows whose scores are known, `golden.json` in a version's folder: the proof, before a version becomes visible,
//! that schema, vocabularies, model file and engine together still answer what the trainer computed.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    engine::{Engine, EngineError},
    features::{Encoder, FeatureError, Value},
    tensor::Rows,
};

/// Why a version does not answer what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// The file is missing or unreadable.
    #[error("golden.json: cannot be read")]
    Read(#[source] io::Error),
    /// The file is not what this version of the program reads.
    #[error("golden.json: {0}")]
    Syntax(#[source] serde_json::Error),
    /// No rows, another number of scores than rows, or a tolerance that admits everything.
    #[error("golden.json: needs at least one row, a score for each, and a tolerance between 0 and 0.1")]
    Unusable,
    /// A row that the schema cannot encode.
    #[error("golden.json: row {row}")]
    Row {
        /// The row, from 0.
        row: usize,
        /// What is wrong with it.
        #[source]
        source: FeatureError,
    },
    /// The engine failed.
    #[error("the engine failed on the golden rows")]
    Engine(#[from] EngineError),
    /// A score is off.
    #[error("golden row {row}: scored {found}, expected {expected} within {tolerance}")]
    Differs {
        /// The row, from 0.
        row: usize,
        /// What the engine answered.
        found: f32,
        /// What the trainer computed.
        expected: f32,
        /// How far apart they may be.
        tolerance: f32,
    },
}

/// Rows and their scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// How far a score may be from the expected one.
    pub tolerance: f32,
    /// Positional rows, as a request would send them.
    pub input: Vec<Vec<Value>>,
    /// The expected score of each row.
    pub output: Vec<f32>,
}

impl Golden {
    /// The file's name in a version's folder.
    pub const FILE: &str = "golden.json";

    /// Reads the golden rows from a version's folder.
    pub fn read(folder: &Path) -> Result<Self, GoldenError> {
        let text = fs::read(folder.join(Self::FILE)).map_err(GoldenError::Read)?;
        let golden: Self = serde_json::from_slice(&text).map_err(GoldenError::Syntax)?;
        let usable = !golden.input.is_empty()
            && golden.input.len() == golden.output.len()
            && (0.0..=0.1).contains(&golden.tolerance);
        if usable { Ok(golden) } else { Err(GoldenError::Unusable) }
    }

    /// Writes the golden rows into a version's folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join(Self::FILE), serde_json::to_vec(self)?)
    }

    /// The rows in the model's input layout.
    pub fn encode(&self, encoder: &Encoder) -> Result<Rows, GoldenError> {
        let mut rows = Rows::new(encoder.signature());
        for (row, values) in self.input.iter().enumerate() {
            encoder
                .encode(values.iter().map(Value::raw), &mut rows)
                .map_err(|source| GoldenError::Row { row, source })?;
        }
        Ok(rows)
    }

    /// Runs `engine` on the encoded `rows` and compares every score.
    pub fn check(&self, engine: &mut dyn Engine, rows: &Rows) -> Result<(), GoldenError> {
        let mut scores = Vec::with_capacity(rows.len());
        engine.run(rows, &mut scores)?;
        let tolerance = self.tolerance;
        for (row, (&found, &expected)) in scores.iter().zip(&self.output).enumerate() {
            // Written so that a NaN on either side counts as a difference.
            let within = (found - expected).abs() <= tolerance;
            if !within {
                return Err(GoldenError::Differs { row, found, expected, tolerance });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        features::{Schema, Vocabulary},
        tensor::{Signature, Values},
    };

    /// Scores each row by its first id over ten.
    struct Tenths(Signature);

    impl Engine for Tenths {
        fn signature(&self) -> &Signature {
            &self.0
        }

        fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
            scores.clear();
            if let Values::I32(ids) = rows.columns()[0].values() {
                scores.extend(ids.iter().map(|&id| if id == 9 { f32::NAN } else { id as f32 / 10.0 }));
            }
            Ok(())
        }
    }

    fn check(golden: &Golden) -> Result<(), GoldenError> {
        let schema: Schema =
            toml::from_str(r#"feature = [{ name = "id", kind = "categorical", source = "vocabulary" }]"#)
                .expect("a schema");
        let ids: Vec<String> = (1..=9).map(|id| id.to_string()).collect();
        let vocabulary = Vocabulary::new(ids.iter().map(String::as_str)).expect("nine ids");
        let encoder = Encoder::new(schema, |_| Ok(vocabulary.clone())).expect("a layout");
        let rows = golden.encode(&encoder)?;
        golden.check(&mut Tenths(encoder.signature().clone()), &rows)
    }

    fn golden(id: i64, score: f32) -> Golden {
        Golden { tolerance: 1e-4, input: vec![vec![Value::Int(id)]], output: vec![score] }
    }

    #[test]
    fn scores_within_the_tolerance_pass_and_others_name_their_row() {
        check(&golden(3, 0.3)).expect("equal");
        check(&golden(3, 0.300_05)).expect("close");
        let error = check(&golden(3, 0.31)).expect_err("off");
        assert!(error.to_string().starts_with("golden row 0: scored 0.3, expected 0.31"), "{error}");
    }

    #[test]
    fn a_score_that_is_not_a_number_never_passes() {
        assert!(matches!(check(&golden(9, 0.9)), Err(GoldenError::Differs { .. })));
    }

    #[test]
    fn a_file_that_could_not_fail_a_version_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for golden in [
            Golden { tolerance: 1e-4, input: vec![], output: vec![] },
            Golden { tolerance: 1e-4, input: vec![vec![Value::Int(1)]], output: vec![] },
            Golden { tolerance: 5.0, ..golden(1, 0.1) },
        ] {
            golden.write(folder.path()).expect("written");
            assert!(matches!(Golden::read(folder.path()), Err(GoldenError::Unusable)), "{golden:?}");
        }
        golden(1, 0.1).write(folder.path()).expect("written");
        assert_eq!(Golden::read(folder.path()).expect("usable"), golden(1, 0.1));
    }
}
