//! Tests of the model as a whole: its derivatives, its updates and its determinism.

use millrace::tensor::{DType, Signature, TensorSpec};
use rand::Rng;

use super::*;
use crate::{
    config::EmbeddingOptimizer,
    random::{Purpose, random},
};

const SHAPE: ModelShape = ModelShape { columns: 3, deep_columns: 2, dense: 1, deep_rows: 8, wide_rows: 12 };

fn config() -> ModelConfig {
    ModelConfig { embedding_dimension: 4, hidden_units: vec![5], ..ModelConfig::default() }
}

fn model(shape: ModelShape) -> WideDeep {
    WideDeep::new(shape, &config(), 0.3, &mut random(7, Purpose::Weights, 0))
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

/// A network on its own, with an input, and the sum of its logits, each times a number of its row.
struct Slope {
    network: Network,
    input: Vec<f32>,
}

impl Slope {
    const BY_LOGITS: [f32; 3] = [1.0, -0.5, 2.0];

    fn new(cross_layers: usize) -> Self {
        let mut draws = random(7, Purpose::Weights, 0);
        let network = Network::new(4, (cross_layers, &[6, 3]), 0.01, 0.2, &mut draws);
        let input = (0..12).map(|_| draws.random_range(-1.0..1.0)).collect();
        Self { network, input }
    }

    fn pass(&self) -> Pass {
        let mut pass = Pass::default();
        pass.input().clone_from(&self.input);
        self.network.forward(&mut pass);
        pass
    }

    fn value(&self) -> f32 {
        self.pass().logits().iter().zip(Self::BY_LOGITS).map(|(logit, by)| logit * by).sum()
    }

    /// The derivative by the number that `number` finds, by central differences.
    fn difference(&mut self, number: impl Fn(&mut Self) -> &mut f32) -> f32 {
        // Small enough for hardly any rectifier to change its side.
        const STEP: f32 = 1e-3;
        let original = *number(self);
        let mut moved = |by| {
            *number(self) = original + by;
            self.value()
        };
        let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        *number(self) = original;
        slope
    }
}

#[test]
fn every_derivative_of_the_layers_agrees_with_finite_differences() {
    for cross_layers in [0, 2] {
        let mut slope = Slope::new(cross_layers);
        let mut pass = slope.pass();
        slope.network.backward(&mut pass, &Slope::BY_LOGITS);
        let near = |exact: f32, estimated: f32| {
            assert!(
                (exact - estimated).abs() < 5e-3,
                "{exact} is not {estimated}, {cross_layers} cross layers"
            );
        };
        assert!(pass.gradient().iter().filter(|by| by.abs() > 0.01).count() > 20, "derivatives to compare");
        for (position, &by) in pass.gradient().iter().enumerate() {
            near(by, slope.difference(|slope| &mut slope.network.parameters()[position]));
        }
        for (position, &by) in pass.by_input().iter().enumerate() {
            near(by, slope.difference(|slope| &mut slope.input[position]));
        }
    }
}

#[test]
fn the_derivative_of_the_loss_is_the_slope_of_the_loss() {
    for (logit, label) in [(0.0, 1.0), (-1.5, 1.0), (2.0, 0.0), (0.3, 0.0)] {
        let slope = (loss_of(logit + 1e-2, label) - loss_of(logit - 1e-2, label)) / 2e-2;
        assert!((slope - (sigmoid(logit) - label)).abs() < 1e-3, "at {logit}");
    }
}

#[test]
fn the_loss_is_the_negative_log_likelihood_without_overflow() {
    let near =
        |found: f32, expected: f32| assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    near(loss_of(0.0, 1.0), std::f32::consts::LN_2);
    near(loss_of(80.0, 0.0), 80.0);
    near(loss_of(-80.0, 1.0), 80.0);
    near(loss_of(80.0, 1.0), 0.0);
}

#[test]
fn a_step_counts_rows_by_their_weights() {
    let (one, two) = (rows(&[([0, 4, 8], 0.5)]), rows(&[([0, 4, 8], 0.5), ([0, 4, 8], 0.5)]));
    let losses = [(&one, &[1.0_f32][..], &[2.0_f32][..]), (&two, &[1.0, 1.0], &[1.0, 1.0])].map(
        |(rows, labels, weights)| {
            let mut model = model(SHAPE);
            let loss = model.step(rows, 0..rows.len(), Targets { labels, weights });
            (loss, model.score(&batch()))
        },
    );
    assert_eq!(losses[0], losses[1]);
}

#[test]
fn a_step_moves_the_rows_of_the_batch_and_no_others() {
    let shape = ModelShape { deep_rows: 5000, wide_rows: 9000, ..SHAPE };
    let mut model = model(shape);
    let (wide, embeddings) = (model.wide.clone(), model.embeddings.clone());
    let rows = rows(&[([3, 4000, 5000], 0.5), ([3, 4001, 8999], 0.1)]);
    model.step(&rows, 0..2, Targets { labels: &[1.0, 0.0], weights: &[1.0, 1.0] });
    let moved = |row: &usize| model.wide.weights()[*row].to_bits() != wide.weights()[*row].to_bits();
    assert_eq!((0..9000).filter(moved).collect::<Vec<_>>(), [3, 4000, 4001, 5000, 8999]);
    let row = |table: &Embeddings, row: usize| table.weights()[row * 4..][..4].to_vec();
    let moved = |at: &usize| row(&model.embeddings, *at) != row(&embeddings, *at);
    assert_eq!((0..5000).filter(moved).collect::<Vec<_>>(), [3, 4000, 4001]);
}

/// Trains on several shards a batch and says what the model then answers.
fn trained_on(threads: usize, config: &ModelConfig) -> Vec<f32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    pool.install(|| {
        let mut draws = random(7, Purpose::Training, 0);
        let count = 3 * SHARD_ROWS + 5;
        let values: Vec<([i32; 3], f32)> = (0..count)
            .map(|_| {
                let id = |from: i32, draws: &mut Random| draws.random_range(from..from + 4);
                ([id(0, &mut draws), id(4, &mut draws), id(8, &mut draws)], draws.random_range(-1.0..1.0))
            })
            .collect();
        let rows = rows(&values);
        let labels: Vec<f32> = (0..count).map(|_| f32::from(u8::from(draws.random_bool(0.3)))).collect();
        let mut model = WideDeep::new(SHAPE, config, 0.3, &mut random(7, Purpose::Weights, 0));
        for _ in 0..5 {
            model.step(&rows, 0..count, Targets { labels: &labels, weights: &vec![1.0; count] });
        }
        model.score(&rows)
    })
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for embedding_optimizer in [EmbeddingOptimizer::Adagrad, EmbeddingOptimizer::Adam] {
        let config = ModelConfig { embedding_optimizer, ..config() };
        let one = trained_on(1, &config);
        assert_eq!(one, trained_on(2, &config));
        assert_eq!(one, trained_on(5, &config));
    }
}

#[test]
fn training_lowers_the_loss() {
    let mut model = model(SHAPE);
    let losses: Vec<f64> = (0..60).map(|_| model.step(&batch(), 0..3, TARGETS)).collect();
    assert!(losses[59] < losses[0] / 2.0, "{} to {}", losses[0], losses[59]);
}

#[test]
fn an_untrained_model_answers_about_the_base_rate() {
    let scores = model(SHAPE).score(&rows(&[([2, 6, 11], 0.0)]));
    assert!((scores[0] - 0.3).abs() < 0.05, "{scores:?}");
}
