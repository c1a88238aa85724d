//! An embedding table under Adam, lazily: a step reads and writes the rows of the batch and no others. The two moments
//! of every weight make it three times the size of its weights.
//!
//! Moments start from zero, and the correction of that depends on how many gradients went into them. Here each row counts
//! its own, which is algorithm 1 of the paper over the gradients that the row has had. Sparse implementations elsewhere
//! (`SparseAdam` of `PyTorch`, `LazyAdam` of `TensorFlow` Addons) count the batches in place of that: the correction has
//! long faded by the time at which a rare row is first seen, and its first step is `0.1 / sqrt(0.001)`, which is three
//! times the rate. Rare ids are what a shop has most of. The price is a number a row.
//!
//! Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.

use std::io;

use super::{
    adagrad,
    adam::Moments,
    sparse::{self, Stretch, Touch},
    state::Visitor,
};
use crate::random::Random;

/// How the table learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LazyAdamOptions {
    /// The size of a step.
    pub rate: f32,
    /// The penalty on a weight's square, for each example that gathers its row.
    pub l2: f32,
}

/// The table and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct LazyAdamTable {
    options: LazyAdamOptions,
    dimension: usize,
    weights: Vec<f32>,
    /// The moments of each weight.
    first: Vec<f32>,
    second: Vec<f32>,
    /// The steps that each row has taken.
    steps: Vec<i32>,
}

impl LazyAdamTable {
    /// A table of small random weights, the same that Adagrad's starts from.
    pub fn new(rows: usize, dimension: usize, options: LazyAdamOptions, random: &mut Random) -> Self {
        let weights = adagrad::first_weights(rows * dimension, random);
        let (first, second) = (vec![0.0; weights.len()], vec![0.0; weights.len()]);
        Self { options, dimension, weights, first, second, steps: vec![0; rows] }
    }

    /// Numbers in a row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// All weights, row by row.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    pub(super) fn visit(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        for numbers in [&mut self.weights, &mut self.first, &mut self.second] {
            visitor.numbers(numbers)?;
        }
        self.steps.iter_mut().try_for_each(|steps| visitor.count(steps))
    }

    /// Makes the weights of `row` zero.
    pub(super) fn clear(&mut self, row: usize) {
        self.weights[row * self.dimension..][..self.dimension].fill(0.0);
    }

    /// A weight, for the test of its derivative.
    #[cfg(test)]
    pub(super) fn weight_mut(&mut self, at: usize) -> &mut f32 {
        &mut self.weights[at]
    }

    /// Takes one step against `gradient`, which knows the derivative by the embedding gathered at each touched place.
    pub fn step<'a>(&mut self, touches: &[Touch], gradient: impl Fn(usize) -> &'a [f32] + Sync) {
        let stretch = TableStretch {
            options: self.options,
            dimension: self.dimension,
            first_row: 0,
            weights: &mut self.weights,
            first: &mut self.first,
            second: &mut self.second,
            steps: &mut self.steps,
            gradient: &gradient,
            sum: vec![0.0; self.dimension],
        };
        sparse::step(stretch, touches);
    }
}

/// Some rows of a table and where their gradients are.
struct TableStretch<'a, G> {
    options: LazyAdamOptions,
    dimension: usize,
    first_row: usize,
    weights: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    steps: &'a mut [i32],
    gradient: &'a G,
    /// Room for the sum of a row's gradients.
    sum: Vec<f32>,
}

impl<'g, G: Fn(usize) -> &'g [f32] + Sync> Stretch for TableStretch<'_, G> {
    fn split(self, row: usize) -> (Self, Self) {
        let Self { options, dimension, first_row, gradient, sum, .. } = self;
        let cut = (row - first_row) * dimension;
        let (low_weights, high_weights) = self.weights.split_at_mut(cut);
        let (low_first, high_first) = self.first.split_at_mut(cut);
        let (low_second, high_second) = self.second.split_at_mut(cut);
        let (low_steps, high_steps) = self.steps.split_at_mut(row - first_row);
        let part = |first_row, weights, (first, second), steps, sum| Self {
            options,
            dimension,
            first_row,
            weights,
            first,
            second,
            steps,
            gradient,
            sum,
        };
        let high = part(row, high_weights, (high_first, high_second), high_steps, sum.clone());
        (part(first_row, low_weights, (low_first, low_second), low_steps, sum), high)
    }

    fn step(&mut self, row: usize, places: &[Touch]) {
        let row = row - self.first_row;
        let weights = row * self.dimension..(row + 1) * self.dimension;
        let steps = &mut self.steps[row];
        *steps = steps.saturating_add(1);
        let moments = Moments {
            steps: *steps,
            first: &mut self.first[weights.clone()],
            second: &mut self.second[weights.clone()],
        };
        let weights = &mut self.weights[weights];
        adagrad::sum_gradients(&mut self.sum, weights, self.options.l2, places, self.gradient);
        moments.step(self.options.rate, weights, &self.sum);
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::{super::sparse::touches, *};
    use crate::random::{Purpose, random};

    const OPTIONS: LazyAdamOptions = LazyAdamOptions { rate: 0.05, l2: 0.0 };

    fn table(rows: usize, options: LazyAdamOptions) -> LazyAdamTable {
        LazyAdamTable::new(rows, 2, options, &mut random(7, Purpose::Weights, 0))
    }

    fn row(table: &LazyAdamTable, row: usize) -> [f64; 2] {
        [table.weights[row * 2], table.weights[row * 2 + 1]].map(f64::from)
    }

    /// One row by the letter of algorithm 1, in double precision.
    struct Reference {
        weights: [f64; 2],
        first: [f64; 2],
        second: [f64; 2],
        steps: i32,
    }

    impl Reference {
        fn step(&mut self, options: LazyAdamOptions, gradients: &[[f32; 2]]) {
            self.steps += 1;
            for column in 0..2 {
                let data: f64 = gradients.iter().map(|gradient| f64::from(gradient[column])).sum();
                let penalty = f64::from(options.l2) * gradients.len() as f64 * self.weights[column];
                let by = data + penalty;
                self.first[column] = 0.9 * self.first[column] + 0.1 * by;
                self.second[column] = 0.999 * self.second[column] + 0.001 * by * by;
                let first = self.first[column] / (1.0 - 0.9_f64.powi(self.steps));
                let second = self.second[column] / (1.0 - 0.999_f64.powi(self.steps));
                self.weights[column] -= f64::from(options.rate) * first / (second.sqrt() + 1e-8);
            }
        }
    }

    #[test]
    fn every_row_follows_the_formula_over_its_own_gradients() {
        const ROWS: usize = 6;
        for options in [OPTIONS, LazyAdamOptions { l2: 0.1, ..OPTIONS }] {
            let mut table = table(ROWS, options);
            let reference =
                |at| Reference { weights: row(&table, at), first: [0.0; 2], second: [0.0; 2], steps: 0 };
            let mut references: Vec<Reference> = (0..ROWS).map(reference).collect();
            let mut draws = random(7, Purpose::Training, 0);
            for _ in 0..300 {
                // The later a row is, the rarer it is.
                let ids: Vec<u32> =
                    (0..4).map(|_| draws.random_range(0..6) * draws.random_range(0..6) / 5).collect();
                let gradients: Vec<[f32; 2]> = ids
                    .iter()
                    .map(|_| [draws.random_range(-2.0..3.0), draws.random_range(-0.1..0.1)])
                    .collect();
                table.step(&touches(&ids), |place| &gradients[place]);
                for (row, reference) in (0..).zip(&mut references) {
                    let of_row = ids.iter().zip(&gradients).filter(|(id, _)| **id == row);
                    let of_row: Vec<[f32; 2]> = of_row.map(|(_, gradient)| *gradient).collect();
                    if !of_row.is_empty() {
                        reference.step(options, &of_row);
                    }
                }
            }
            for (at, reference) in references.iter().enumerate() {
                assert!(reference.steps > 0 && table.steps[at] == reference.steps, "row {at}");
                for (found, expected) in row(&table, at).into_iter().zip(reference.weights) {
                    assert!((found - expected).abs() < 1e-4, "row {at}: {found} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn the_first_step_of_a_row_is_of_the_rate_however_late_it_comes() {
        let mut table = table(2, OPTIONS);
        for _ in 0..2000 {
            table.step(&touches(&[0]), |_| &[1.0, -1.0]);
        }
        let before = row(&table, 1);
        table.step(&touches(&[1]), |_| &[0.001, -500.0]);
        let after = row(&table, 1);
        assert!((before[0] - after[0] - 0.05).abs() < 1e-4 && (after[1] - before[1] - 0.05).abs() < 1e-4);
    }

    #[test]
    fn a_large_table_is_touched_in_the_rows_of_the_batch_alone() {
        let mut table = table(200_000, LazyAdamOptions { l2: 0.01, ..OPTIONS });
        for _ in 0..2 {
            let before = table.clone();
            table.step(&touches(&[7, 150_000, 7]), |_| &[1.0, 1.0]);
            let moved = |now: &[f32], then: &[f32], row: usize| {
                (row * 2..row * 2 + 2).any(|at| now[at].to_bits() != then[at].to_bits())
            };
            for row in 0..200_000 {
                let touched = row == 7 || row == 150_000;
                assert_eq!(moved(&table.weights, &before.weights, row), touched, "row {row}");
                assert_eq!(moved(&table.first, &before.first, row), touched, "row {row}");
                assert_eq!(moved(&table.second, &before.second, row), touched, "row {row}");
                assert_eq!(table.steps[row] != before.steps[row], touched, "row {row}");
            }
        }
    }
}
