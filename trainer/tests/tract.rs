//! The exported files in tract, an implementation of ONNX that shares no code with ONNX Runtime: what both compute is
//! what the files say, and not what one of them makes of it.
//!
//! It takes some minutes to compile, so it is behind the feature `tract`, which `make test` turns on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use millrace::tensor::{Rows, Values};
use millrace_trainer::onnx_file::{MAX_INLINE_BYTES, OnnxFile};
use onnx_rs::ast::{Graph, Model, Node, OpType};
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, Tensor, onnx};

use crate::graphs::{Exported, distance};

const ROWS: usize = 10_000;
/// One file answers them all.
const BATCHES: [usize; 3] = [1, 7, 1024];

#[test]
fn single_precision_is_the_same_in_a_second_implementation() {
    for model in Exported::all(MAX_INLINE_BYTES) {
        let rows = model.rows(ROWS);
        let expected = model.score(&model.single(), &rows);
        for batch in BATCHES {
            let found = score(&model.single(), &rows, batch);
            assert!(distance(&found, &expected) < 1e-5, "{}: {}", model.name, distance(&found, &expected));
        }
    }
}

#[test]
fn half_precision_is_close_to_single_precision_in_a_second_implementation() {
    for model in Exported::all(MAX_INLINE_BYTES) {
        let rows = model.rows(ROWS);
        let single = model.score(&model.single(), &rows);
        let half = model.score(&model.half(), &rows);
        assert!(distance(&half, &single) < 2e-3, "{}: {}", model.name, distance(&half, &single));
        for batch in BATCHES {
            let found = score(&without_gemm(&model.half()), &rows, batch);
            assert!(distance(&found, &single) < 2e-3, "{}: {}", model.name, distance(&found, &single));
        }
    }
}

#[test]
fn tables_beside_the_model_are_found_by_a_second_implementation() {
    for model in Exported::all(256) {
        let rows = model.rows(100);
        let expected = model.score(&model.single(), &rows);
        for (file, tolerance) in [(model.single(), 1e-5), (without_gemm(&model.half()), 2e-3)] {
            let found = score(&file, &rows, 100);
            let distance = distance(&found, &expected);
            assert!(distance < tolerance, "{}: {distance}", model.name);
        }
    }
}

/// A copy of a file beside it with a `MatMul` and an `Add` in place of every Gemm of three inputs. ONNX means the same
/// by both; but tract 0.23 scales the third input of Gemm by a constant in single precision, even where it is 1, and so
/// refuses a Gemm in half precision: "Output mismatch after rewiring expansion for output #0: expected batch,16,F16 got
/// batch,16,F32". It runs all else of the file as it is.
fn without_gemm(path: &Path) -> PathBuf {
    let file = OnnxFile::read(path).expect("read");
    let model = file.model().expect("a model");
    let graph = model.graph.clone().expect("a graph");
    let products: Vec<String> = graph.node.iter().map(|node| format!("{}_product", node.name)).collect();
    let nodes = graph.node.iter().zip(&products).flat_map(|(node, product)| {
        let (OpType::Gemm, &[a, b, c]) = (&node.op_type, &*node.input) else { return vec![node.clone()] };
        assert!(node.attribute.is_empty(), "neither scaled nor transposed");
        let multiply = Node {
            name: product,
            op_type: OpType::MatMul,
            input: vec![a, b],
            output: vec![product],
            ..Node::default()
        };
        vec![multiply, Node { op_type: OpType::Add, input: vec![product, c], ..node.clone() }]
    });
    let graph = Some(Graph { node: nodes.collect(), ..graph.clone() });
    let copy = path.with_extension("tract.onnx");
    fs::write(&copy, onnx_rs::encode(&Model { graph, ..model.clone() })).expect("written");
    copy
}

/// The scores of `rows` by tract, in batches of `batch`.
fn score(file: &Path, rows: &Rows, batch: usize) -> Vec<f32> {
    let model = onnx().model_for_path(file).and_then(InferenceModelExt::into_optimized);
    let model = model.and_then(IntoRunnable::into_runnable).expect("a model that tract runs");
    let mut scores = Vec::with_capacity(rows.len());
    for start in (0..rows.len()).step_by(batch) {
        let range = start..rows.len().min(start + batch);
        let inputs = rows.columns().iter().map(|column| {
            let (shape, width) = ([range.len(), column.width()], column.width());
            let elements = range.start * width..range.end * width;
            let tensor = match column.values() {
                Values::I32(ids) => Tensor::from_shape(&shape, &ids[elements]),
                Values::F32(numbers) => Tensor::from_shape(&shape, &numbers[elements]),
            };
            tensor.expect("as many numbers as the shape says").into()
        });
        let answer = model.run(inputs.collect()).expect("scores");
        let answer = answer[0].to_plain_array_view::<f32>().expect("numbers in single precision");
        assert_eq!(answer.shape(), [range.len(), 1]);
        scores.extend(answer.iter());
    }
    scores
}
