//! Tests of the model as a whole: its derivatives, its updates and its determinism.

use millrace::{
    features::{List, Pooling},
    tensor::{DType, Signature, TensorSpec},
};
use rand::Rng;

use super::{network::Pass, *};
use crate::{
    config::EmbeddingOptimizer,
    random::{Purpose, random},
};

const SHAPE: ModelShape = ModelShape {
    columns: 3,
    deep_columns: 2,
    dense: 1,
    deep_rows: 8,
    wide_rows: 12,
    lists: Vec::new(),
    towers: None,
};

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
        let plan = LayerPlan { cross_layers, hidden: &[6, 3], outputs: 1 };
        let network = Network::new(4, plan, 0.01, 0.2, &mut draws);
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
        self.pass().outputs().iter().zip(Self::BY_LOGITS).map(|(logit, by)| logit * by).sum()
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

/// One id, a mean of at most three, a sum of at most two, and a cross behind them.
fn shape_of_lists() -> ModelShape {
    let list = |first, max, padding, pooling| ListColumns { first, list: List { max, pooling }, padding };
    ModelShape {
        columns: 7,
        deep_columns: 6,
        dense: 1,
        deep_rows: 14,
        wide_rows: 16,
        lists: vec![list(1, 3, 4, Pooling::Mean), list(4, 2, 10, Pooling::Sum)],
        towers: None,
    }
}

/// The same with two towers: the user has the id, the sum and the cross, the item the mean and the dense value.
fn shape_of_towers() -> ModelShape {
    let user = TowerColumns { ids: vec![0, 4, 5], crosses: vec![6], dense: Vec::new() };
    let item = TowerColumns { ids: vec![1, 2, 3], crosses: Vec::new(), dense: vec![0] };
    shape_of_lists().with_towers(Towers { user, item })
}

/// A model of one of these shapes which has learnt enough for vectors and their product to matter.
fn learnt(shape: ModelShape) -> WideDeep {
    let rates = ModelConfig { embedding_rate: 0.5, mlp_rate: 0.02, ..config() };
    let config = ModelConfig { output_dimension: Some(3), hidden_units: vec![8], ..rates };
    let mut model = WideDeep::new(shape, &config, 0.3, &mut random(7, Purpose::Weights, 0));
    for _ in 0..6 {
        model.step(&batch_of_lists(), 0..4, TARGETS_OF_LISTS);
    }
    model
}

/// Lists of every length, one id twice in one of them, and the same ids in several rows.
fn batch_of_lists() -> Rows {
    let mut rows = Rows::new(&Signature {
        inputs: vec![
            TensorSpec { name: "ids".into(), dtype: DType::I32, width: 7 },
            TensorSpec { name: "dense".into(), dtype: DType::F32, width: 1 },
        ],
        output: "probability".into(),
    });
    for (ids, dense) in [
        ([0, 5, 6, 7, 11, 12, 14], 0.5),
        ([1, 6, 4, 4, 13, 10, 15], -1.0),
        ([0, 5, 5, 4, 10, 10, 14], 2.0),
        ([2, 4, 4, 4, 12, 12, 15], 0.1),
    ] {
        rows.push_zeroed();
        rows.last_i32(0).copy_from_slice(&ids);
        rows.last_f32(1).copy_from_slice(&[dense]);
    }
    rows
}

/// A weight of a table, or a parameter of one of the networks.
#[derive(Clone, Copy, Debug)]
enum Weight {
    Embedding(usize),
    Wide(usize),
    Network { network: usize, at: usize },
}

impl Weight {
    fn of(self, model: &mut WideDeep) -> &mut f32 {
        match self {
            Self::Embedding(at) => model.embeddings.weight_mut(at),
            Self::Wide(at) => model.wide.weight_mut(at),
            Self::Network { network, at } => &mut model.deep.network_mut(network).parameters()[at],
        }
    }

    /// The derivative of the loss of a batch of lists by it, by central differences.
    fn difference(self, model: &mut WideDeep) -> f64 {
        // Small enough for hardly any rectifier to change its side.
        const STEP: f32 = 1e-3;
        let original = *self.of(model);
        let mut moved = |by| {
            *self.of(model) = original + by;
            let (mut shard, rows) = (Shard::default(), batch_of_lists());
            model.derive(&mut shard, &Batch::new(&rows, 0..4, &model.shape), TARGETS_OF_LISTS);
            shard.loss
        };
        let slope = (moved(STEP) - moved(-STEP)) / (2.0 * f64::from(STEP));
        *self.of(model) = original;
        slope
    }
}

const TARGETS_OF_LISTS: Targets<'_> =
    Targets { labels: &[1.0, 0.0, 1.0, 0.0], weights: &[1.0, 0.5, 2.0, 1.0] };

#[test]
fn every_derivative_by_tables_and_towers_agrees_with_finite_differences() {
    for shape in [shape_of_lists(), shape_of_towers()] {
        let mut model = learnt(shape);
        let found = derivatives(&mut model);
        let large = found.iter().filter(|(_, exact)| exact.abs() > 0.005).count();
        assert!(large > 50, "derivatives to compare: {large}");
        for (weight, exact) in found {
            let difference = weight.difference(&mut model);
            assert!((f64::from(exact) - difference).abs() < 1e-3, "{exact} is not {difference}, {weight:?}");
        }
    }
}

/// The derivative of the loss of a batch of lists by every weight, those of the padding left out, for they are no weights.
fn derivatives(model: &mut WideDeep) -> Vec<(Weight, f32)> {
    let rows = batch_of_lists();
    let mut shards = [Shard::default()];
    let batch = Batch::new(&rows, 0..4, &model.shape);
    model.derive(&mut shards[0], &batch, TARGETS_OF_LISTS);
    let (sight, networks) = model.deep.split();
    let slopes = Slopes { shards: &shards, sight, columns: 7 };
    let (mut by_embeddings, mut by_weights) = (vec![0.0; 14 * 4], vec![0.0; 16]);
    for touch in sparse::touches_but(&batch.ids, &[4, 10]) {
        by_weights[touch.row()] += slopes.by_weight(touch.place());
        if touch.row() < 14 {
            let sum = &mut by_embeddings[touch.row() * 4..][..4];
            sum.iter_mut().zip(slopes.by_embedding(touch.place())).for_each(|(sum, by)| *sum += by);
        }
    }
    let padding = |row: usize| [4, 10].contains(&row);
    let embeddings = by_embeddings.into_iter().enumerate().filter(|(at, _)| !padding(at / 4));
    let wide = by_weights.into_iter().enumerate().filter(|&(at, _)| !padding(at));
    let networks =
        networks.gradients(&shards[0].pass).into_iter().enumerate().flat_map(|(network, gradient)| {
            gradient.into_iter().enumerate().map(move |(at, by)| (Weight::Network { network, at }, by))
        });
    let tables = embeddings
        .map(|(at, by)| (Weight::Embedding(at), by))
        .chain(wide.map(|(at, by)| (Weight::Wide(at), by)));
    tables.chain(networks).collect()
}

#[test]
fn the_padding_is_zero_and_stays_so_to_the_bit() {
    for embedding_optimizer in [EmbeddingOptimizer::Adagrad, EmbeddingOptimizer::Adam] {
        let config = ModelConfig { embedding_optimizer, embedding_l2: 0.1, ..config() };
        let mut model = WideDeep::new(shape_of_lists(), &config, 0.3, &mut random(7, Purpose::Weights, 0));
        let before = model.embeddings.clone();
        for _ in 0..50 {
            model.step(&batch_of_lists(), 0..4, TARGETS_OF_LISTS);
        }
        for padding in [4, 10] {
            assert_eq!(
                model.embeddings.weights()[padding * 4..][..4].iter().map(|w| w.to_bits()).max(),
                Some(0)
            );
            assert_eq!(model.wide.weights()[padding].to_bits(), 0);
        }
        assert_ne!(model.embeddings.weights()[5 * 4..], before.weights()[5 * 4..]);
    }
}

#[test]
fn the_order_of_a_list_changes_nothing_and_an_empty_one_says_nothing() {
    let mut model = WideDeep::new(shape_of_lists(), &config(), 0.3, &mut random(7, Purpose::Weights, 0));
    for _ in 0..20 {
        model.step(&batch_of_lists(), 0..4, TARGETS_OF_LISTS);
    }
    let score = |ids: [i32; 7]| {
        let mut rows = batch_of_lists();
        rows.resize(1);
        rows.last_i32(0).copy_from_slice(&ids);
        model.score(&rows)[0]
    };
    let near = |one: f32, other: f32| assert!((one - other).abs() < 1e-6, "{one} is not {other}");
    near(score([0, 5, 6, 7, 11, 12, 14]), score([0, 7, 5, 6, 12, 11, 14]));
    // A mean of equal ids is the id's, and a sum of them is not.
    let wide = model.wide.weights();
    let logit = |score: f32| (score / (1.0 - score)).ln();
    let (one, two) = (score([0, 6, 4, 4, 10, 10, 14]), score([0, 6, 6, 4, 10, 10, 14]));
    assert!((logit(two) - logit(one) - wide[6]).abs() < 1e-4, "only the wide part counts it twice");
    assert!((score([0, 4, 4, 4, 12, 12, 14]) - score([0, 4, 4, 4, 12, 10, 14])).abs() > 1e-3);
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
fn trained_on(threads: usize, config: &ModelConfig, shape: &ModelShape) -> Vec<f32> {
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
        let mut model = WideDeep::new(shape.clone(), config, 0.3, &mut random(7, Purpose::Weights, 0));
        for _ in 0..5 {
            model.step(&rows, 0..count, Targets { labels: &labels, weights: &vec![1.0; count] });
        }
        model.score(&rows)
    })
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let user = TowerColumns { ids: vec![0], crosses: Vec::new(), dense: vec![0] };
    let item = TowerColumns { ids: vec![1], crosses: vec![2], dense: Vec::new() };
    let towers = SHAPE.with_towers(Towers { user, item });
    for (embedding_optimizer, shape) in [
        (EmbeddingOptimizer::Adagrad, SHAPE),
        (EmbeddingOptimizer::Adam, SHAPE),
        (EmbeddingOptimizer::Adam, towers),
    ] {
        let config = ModelConfig { embedding_optimizer, ..config() };
        let one = trained_on(1, &config, &shape);
        assert_eq!(one, trained_on(2, &config, &shape));
        assert_eq!(one, trained_on(5, &config, &shape));
    }
}

#[test]
fn the_logit_of_two_towers_is_what_either_side_says_and_the_product_of_both() {
    let model = learnt(shape_of_towers());
    let logit = |ids: [i32; 7], dense: f32| {
        let mut rows = batch_of_lists();
        rows.resize(1);
        rows.last_i32(0).copy_from_slice(&ids);
        rows.last_f32(1).copy_from_slice(&[dense]);
        let score = model.score(&rows)[0];
        (score / (1.0 - score)).ln()
    };
    // Four users and four items: the matrix of logits without its biases is a product of three columns, as the vectors
    // have three numbers, so that its determinant is zero. That of any four by four numbers is not.
    let users = [[0, 11, 12, 14], [1, 13, 10, 15], [2, 11, 10, 15], [3, 12, 13, 14]];
    let items = [([5, 6, 7], 0.5), ([6, 4, 4], -1.0), ([7, 5, 4], 2.0), ([5, 4, 4], 0.0)];
    let biases = |ids: &[i32]| -> f32 {
        ids.iter().map(|&id| model.wide.weights()[usize::try_from(id).expect("an id")]).sum()
    };
    let Deep::Towers(towers) = &model.deep else { panic!("two towers") };
    let (scale, bias) = towers.scale_and_bias();
    assert!(scale > 0.0);
    let matrix = users.map(|[user, one, other, cross]| {
        items.map(|([a, b, c], dense)| {
            let wide = biases(&[user, one, other, cross, a, b, c]);
            f64::from(logit([user, a, b, c, one, other, cross], dense) - wide - bias)
        })
    });
    let largest = matrix.iter().flatten().fold(0.0_f64, |largest, number| largest.max(number.abs()));
    assert!(largest > 0.05, "{matrix:?}");
    assert!(determinant(&matrix).abs() < 1e-4 * largest.powi(4), "{}: {matrix:?}", determinant(&matrix));
}

fn determinant(matrix: &[[f64; 4]; 4]) -> f64 {
    let three = |skipped: usize| {
        let columns: Vec<usize> = (0..4).filter(|&column| column != skipped).collect();
        let at = |row: usize, column: usize| matrix[row][columns[column]];
        at(1, 0) * (at(2, 1) * at(3, 2) - at(2, 2) * at(3, 1))
            - at(1, 1) * (at(2, 0) * at(3, 2) - at(2, 2) * at(3, 0))
            + at(1, 2) * (at(2, 0) * at(3, 1) - at(2, 1) * at(3, 0))
    };
    (0..4).map(|column| if column % 2 == 0 { 1.0 } else { -1.0 } * matrix[0][column] * three(column)).sum()
}

/// Writes a model's state down, or puts it back.
#[derive(Default)]
struct Copied {
    numbers: Vec<f32>,
    counts: Vec<i32>,
    restores: bool,
}

impl Visitor for Copied {
    fn numbers(&mut self, numbers: &mut [f32]) -> io::Result<()> {
        if self.restores {
            numbers.copy_from_slice(&self.numbers.drain(..numbers.len()).collect::<Vec<_>>());
        } else {
            self.numbers.extend_from_slice(numbers);
        }
        Ok(())
    }

    fn count(&mut self, count: &mut i32) -> io::Result<()> {
        if self.restores {
            *count = self.counts.remove(0);
        } else {
            self.counts.push(*count);
        }
        Ok(())
    }
}

#[test]
fn what_is_visited_is_all_that_training_changes() {
    for (embedding_optimizer, shape) in
        [(EmbeddingOptimizer::Adagrad, shape_of_lists()), (EmbeddingOptimizer::Adam, shape_of_towers())]
    {
        let config = ModelConfig { embedding_optimizer, ..config() };
        let of_seed =
            |seed| WideDeep::new(shape.clone(), &config, 0.3, &mut random(seed, Purpose::Weights, 0));
        let mut one = of_seed(7);
        let step = |model: &mut WideDeep| model.step(&batch_of_lists(), 0..4, TARGETS_OF_LISTS);
        for _ in 0..3 {
            step(&mut one);
        }
        let mut copied = Copied::default();
        one.visit(&mut copied).expect("written down");
        let mut other = of_seed(8);
        copied.restores = true;
        other.visit(&mut copied).expect("put back");
        assert!(copied.numbers.is_empty() && copied.counts.is_empty(), "all of it");
        for _ in 0..3 {
            assert_eq!(step(&mut one).to_bits(), step(&mut other).to_bits());
        }
        assert_eq!(one.score(&batch_of_lists()), other.score(&batch_of_lists()));
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
