//! What an engine takes and answers, by its record or by its own word, held against what a version's rows are. Pure.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::TensorRtError;
use crate::{
    engine::EngineError,
    tensor::{DType, Signature, TensorSpec},
};

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// The name in the ONNX graph.
    pub name: String,
    /// The element type, `f32` or `i32` say.
    pub dtype: String,
    /// The shape; -1 are the rows of a batch.
    pub shape: Vec<i64>,
}

impl fmt::Display for TensorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {} {:?}", self.name, self.dtype, self.shape)
    }
}

/// The shapes that an input can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeRange {
    /// The smallest.
    pub min: Vec<i64>,
    /// The one that kernels were chosen for.
    pub opt: Vec<i64>,
    /// The largest.
    pub max: Vec<i64>,
}

/// Whether an engine takes rows of `signature`, in whatever order, and answers its output and no other.
pub fn check_tensors(
    inputs: &[TensorRecord],
    outputs: &[TensorRecord],
    signature: &Signature,
) -> Result<(), EngineError> {
    let is_declared = |declared: &TensorSpec| inputs.iter().any(|input| is_input(input, declared));
    if inputs.len() != signature.inputs.len() || !signature.inputs.iter().all(is_declared) {
        let declared: Vec<_> = signature.inputs.iter().map(recorded).collect();
        let text = format!("inputs {}; declared {}", list(inputs), list(&declared));
        return Err(EngineError::Signature(text));
    }
    let is_score = |output: &TensorRecord| {
        let one_a_row = matches!(output.shape[..], [-1] | [-1, 1]);
        output.name == signature.output && output.dtype == "f32" && one_a_row
    };
    match outputs {
        [output] if is_score(output) => Ok(()),
        outputs => {
            let declared = &signature.output;
            let text = format!("outputs {}; declared `{declared}` f32 [-1]", list(outputs));
            Err(EngineError::Signature(text))
        }
    }
}

/// Whether every input can have any number of rows from 1 to `max_rows`.
pub fn check_rows(
    ranges: &BTreeMap<String, ShapeRange>,
    signature: &Signature,
    max_rows: usize,
) -> Result<(), EngineError> {
    let needed = i64::try_from(max_rows).unwrap_or(i64::MAX);
    for declared in &signature.inputs {
        let width = width(declared);
        let range = ranges.get(&declared.name);
        let rows = range.and_then(|range| match (&range.min[..], &range.max[..]) {
            (&[fewest, narrowest], &[most, widest]) if narrowest == width && widest == width => {
                Some((fewest, most))
            }
            _ => None,
        });
        let Some((fewest, most)) = rows else {
            let text = format!("the engine has no range of batches for the input `{}`", declared.name);
            return Err(EngineError::Signature(text));
        };
        if fewest > 1 || most < needed {
            return Err(TensorRtError::Rows { fewest, most, needed: max_rows }.into());
        }
    }
    Ok(())
}

fn is_input(input: &TensorRecord, declared: &TensorSpec) -> bool {
    *input == recorded(declared)
}

/// An input as an engine's record would have it.
fn recorded(declared: &TensorSpec) -> TensorRecord {
    let dtype = match declared.dtype {
        DType::F32 => "f32",
        DType::I32 => "i32",
    };
    TensorRecord { name: declared.name.clone(), dtype: dtype.to_owned(), shape: vec![-1, width(declared)] }
}

fn width(declared: &TensorSpec) -> i64 {
    i64::try_from(declared.width).unwrap_or(i64::MAX)
}

fn list(tensors: &[TensorRecord]) -> String {
    tensors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dtype: &str, shape: &[i64]) -> TensorRecord {
        TensorRecord { name: name.into(), dtype: dtype.into(), shape: shape.into() }
    }

    fn signature() -> Signature {
        let input = |name: &str, dtype, width| TensorSpec { name: name.into(), dtype, width };
        let inputs = vec![input("ids", DType::I32, 3), input("dense", DType::F32, 2)];
        Signature { inputs, output: "probability".into() }
    }

    #[test]
    fn an_engine_must_take_the_rows_and_answer_a_score_for_each() {
        let (ids, dense) = (tensor("ids", "i32", &[-1, 3]), tensor("dense", "f32", &[-1, 2]));
        let score = tensor("probability", "f32", &[-1, 1]);
        let check = |inputs: &[TensorRecord], outputs: &[TensorRecord]| {
            check_tensors(inputs, outputs, &signature()).map_err(|error| error.to_string())
        };
        let inputs = [ids.clone(), dense.clone()];
        assert_eq!(check(&inputs, std::slice::from_ref(&score)), Ok(()));
        assert_eq!(check(&[dense.clone(), ids.clone()], &[tensor("probability", "f32", &[-1])]), Ok(()));
        let declared = "declared `ids` i32 [-1, 3], `dense` f32 [-1, 2]";
        for (inputs, said) in [
            (vec![ids.clone()], "inputs `ids` i32 [-1, 3]"),
            (vec![ids.clone(), ids.clone()], "inputs `ids` i32 [-1, 3], `ids` i32 [-1, 3]"),
            (
                vec![tensor("ids", "i64", &[-1, 3]), dense.clone()],
                "inputs `ids` i64 [-1, 3], `dense` f32 [-1, 2]",
            ),
            (
                vec![tensor("ids", "i32", &[-1, 4]), dense.clone()],
                "inputs `ids` i32 [-1, 4], `dense` f32 [-1, 2]",
            ),
            (
                vec![tensor("ids", "i32", &[8, 3]), dense.clone()],
                "inputs `ids` i32 [8, 3], `dense` f32 [-1, 2]",
            ),
        ] {
            let expected = format!("the model does not fit its signature: {said}; {declared}");
            assert_eq!(check(&inputs, std::slice::from_ref(&score)), Err(expected));
        }
        for outputs in [
            vec![],
            vec![tensor("logit", "f32", &[-1])],
            vec![tensor("probability", "f16", &[-1])],
            vec![tensor("probability", "f32", &[-1, 2])],
            vec![score.clone(), score],
        ] {
            let error = check(&inputs, &outputs).expect_err("refused");
            assert!(error.ends_with("; declared `probability` f32 [-1]"), "{error}");
        }
    }

    #[test]
    fn an_engine_must_take_every_batch_that_the_model_can_have() {
        let ranges = |min: &[i64], max: &[i64]| {
            let range = |width| ShapeRange { min: vec![1, width], opt: vec![8, width], max: vec![64, width] };
            let ids = ShapeRange { min: min.into(), max: max.into(), ..range(3) };
            BTreeMap::from([("ids".to_owned(), ids), ("dense".to_owned(), range(2))])
        };
        let check = |ranges: &BTreeMap<String, ShapeRange>, max_rows| {
            check_rows(ranges, &signature(), max_rows).map_err(|error| error.to_string())
        };
        assert_eq!(check(&ranges(&[1, 3], &[64, 3]), 64), Ok(()));
        assert_eq!(
            check(&ranges(&[1, 3], &[64, 3]), 65),
            Err("the engine is for batches of 1 to 64 rows, and the model's have up to 65".into())
        );
        assert_eq!(
            check(&ranges(&[2, 3], &[64, 3]), 64),
            Err("the engine is for batches of 2 to 64 rows, and the model's have up to 64".into())
        );
        for none in [BTreeMap::new(), ranges(&[1, 4], &[64, 4]), ranges(&[1], &[64])] {
            let error = check(&none, 1).expect_err("no range");
            assert!(error.ends_with("no range of batches for the input `ids`"), "{error}");
        }
    }
}
