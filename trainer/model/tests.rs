//! Tests of the model as a whole: its derivatives, its updates and its determinism.

use millrace::tensor::{DType, Signature, TensorSpec};

use super::*;
use crate::random::{Purpose, random};

const SHAPE: ModelShape = ModelShape { columns: 3, deep_columns: 2, dense: 1, deep_rows: 8, wide_rows: 12 };

fn config() -> ModelConfig {
    ModelConfig { embedding_dimension: 4, hidden_units: vec![5], ..ModelConfig::default() }
}

fn model(shape: ModelShape) -> WideDeep {
    WideDeep::new(shape, &config(), 0.3, &mut random(7, Purpose::Weights, 0)).expect("a model")
}

fn rows(values: &[([i32; 3], f32)]) -> Rows {
    let mut rows = Rows::new(&Signature {
        inputs: vec![
            TensorSpec { name: "ids".into(), dtype: DType::I32, width: 3 },
            TensorSpec { name: "dense".into(), dtype: DType::F32, width: 1 },
        ],
        output: "probability".into(),
    });
    for (ids, dense) in values {
        rows.push_zeroed();
        rows.last_i32(0).copy_from_slice(ids);
        rows.last_f32(1).copy_from_slice(&[*dense]);
    }
    rows
}

fn batch() -> Rows {
    rows(&[([0, 4, 8], 0.5), ([1, 5, 9], -1.0), ([0, 5, 10], 2.0)])
}

const TARGETS: Targets<'_> = Targets { labels: &[1.0, 0.0, 1.0], weights: &[1.0, 0.5, 2.0] };

fn loss_of(model: &WideDeep, gathered: &Gathered) -> f32 {
    let rows = batch();
    let logits = model.logits(&Batch::new(&rows, 0..3, SHAPE), gathered).expect("logits");
    loss(&logits, TARGETS).and_then(|loss| loss.to_scalar()).expect("a loss")
}

/// The gradient by each element of `variable`, by central differences.
fn differences(model: &WideDeep, gathered: &Gathered, variable: &Var) -> Vec<f32> {
    const STEP: f32 = 1e-2;
    let original = variable.flatten_all().and_then(|all| all.to_vec1::<f32>()).expect("values");
    let shape = variable.shape().clone();
    let set = |values: Vec<f32>| {
        let values = Tensor::from_vec(values, shape.clone(), &Device::Cpu).expect("a tensor");
        variable.set(&values).expect("set");
    };
    let moved = |position: usize, by: f32| {
        let mut values = original.clone();
        values[position] += by;
        set(values);
        loss_of(model, gathered)
    };
    let slope = |position| (moved(position, STEP) - moved(position, -STEP)) / (2.0 * STEP);
    let slopes = (0..original.len()).map(slope).collect();
    set(original);
    slopes
}

#[test]
fn every_gradient_agrees_with_finite_differences() {
    let model = model(SHAPE);
    let rows = batch();
    let batch = Batch::new(&rows, 0..3, SHAPE);
    let gathered = model.gather(&batch).expect("gathered");
    let logits = model.logits(&batch, &gathered).expect("logits");
    let gradients = loss(&logits, TARGETS).and_then(|loss| loss.backward()).expect("gradients");
    let layers = model.mlp.variables();
    for variable in [&gathered.wide, &gathered.embeddings].into_iter().chain(&layers) {
        let exact = gradients.get(variable).and_then(|all| all.flatten_all().ok()).expect("a gradient");
        let exact = exact.to_vec1::<f32>().expect("values");
        let estimated = differences(&model, &gathered, variable);
        for (exact, estimated) in exact.iter().zip(&estimated) {
            assert!((exact - estimated).abs() < 5e-3, "{exact} is not {estimated}");
        }
    }
}

#[test]
fn the_loss_is_the_weighted_negative_log_likelihood() {
    let logits = Tensor::from_slice(&[0.0_f32, 80.0, -80.0], 3, &Device::Cpu).expect("a tensor");
    let found: f32 = loss(&logits, TARGETS).and_then(|loss| loss.to_scalar()).expect("a loss");
    // ln 2, then half of 80, then twice 80.
    assert!((found - (std::f32::consts::LN_2 + 40.0 + 160.0)).abs() < 1e-3, "{found}");
}

#[test]
fn a_step_moves_the_rows_of_the_batch_and_no_others() {
    let shape = ModelShape { deep_rows: 5000, wide_rows: 9000, ..SHAPE };
    let mut model = model(shape);
    let (wide, embeddings) = (model.wide.clone(), model.embeddings.clone());
    let rows = rows(&[([3, 4000, 5000], 0.5), ([3, 4001, 8999], 0.1)]);
    model.step(&rows, 0..2, Targets { labels: &[1.0, 0.0], weights: &[1.0, 1.0] }).expect("a step");
    let moved = |row: &usize| model.wide.weights()[*row].to_bits() != wide.weights()[*row].to_bits();
    assert_eq!((0..9000).filter(moved).collect::<Vec<_>>(), [3, 4000, 4001, 5000, 8999]);
    let moved = |row: &usize| model.embeddings.row(*row) != embeddings.row(*row);
    assert_eq!((0..5000).filter(moved).collect::<Vec<_>>(), [3, 4000, 4001]);
}

#[test]
fn training_lowers_the_loss_and_repeats_exactly_for_a_seed() {
    let run = || {
        let mut model = model(SHAPE);
        let losses: Vec<f32> =
            (0..60).map(|_| model.step(&batch(), 0..3, TARGETS).expect("a step")).collect();
        (losses, model.score(&batch()).expect("scores"))
    };
    let (losses, scores) = run();
    assert!(losses[59] < losses[0] / 2.0, "{} to {}", losses[0], losses[59]);
    assert_eq!((losses, scores), run());
}

#[test]
fn an_untrained_model_answers_about_the_base_rate() {
    let scores = model(SHAPE).score(&rows(&[([2, 6, 11], 0.0)])).expect("scores");
    assert!((scores[0] - 0.3).abs() < 0.05, "{scores:?}");
}
