//! An embedding table under row-wise Adagrad: one number of state for each row, and an update that touches the rows
//! of the batch and no others, however large the table is.

use rand::Rng;

use super::sparse::{RowGradient, RowGradients};
use crate::random::Random;

/// How the table learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdagradOptions {
    /// The step of a row whose gradients have a mean square of one.
    pub rate: f32,
    /// The penalty on a weight's square, for each example that gathers its row.
    pub l2: f32,
}

/// The table and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct AdagradTable {
    options: AdagradOptions,
    dimension: usize,
    weights: Vec<f32>,
    /// For each row the sum over its updates of the gradient's mean square.
    squares: Vec<f32>,
}

impl AdagradTable {
    /// A table of small random weights.
    pub fn new(rows: usize, dimension: usize, options: AdagradOptions, random: &mut Random) -> Self {
        let weights = (0..rows * dimension).map(|_| random.random_range(-FIRST_WEIGHT..FIRST_WEIGHT));
        Self { options, dimension, weights: weights.collect(), squares: vec![FIRST_SQUARE; rows] }
    }

    /// Numbers in a row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The weights of `row`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.weights[row * self.dimension..(row + 1) * self.dimension]
    }

    /// All weights, row by row.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Takes one step against `gradients`.
    ///
    /// Source: Duchi, Hazan and Singer, 2011, with the mean square of a row in place of each weight's own.
    pub fn step(&mut self, gradients: &RowGradients) {
        gradients.iter().for_each(|gradient| self.step_row(gradient));
    }

    fn step_row(&mut self, gradient: RowGradient<'_>) {
        let AdagradOptions { rate, l2 } = self.options;
        let weights = &mut self.weights[gradient.row * self.dimension..][..self.dimension];
        let penalty = l2 * gradient.count as f32;
        let full = |(value, weight): (&f32, &f32)| value + penalty * weight;
        let square: f32 = gradient.values.iter().zip(&*weights).map(full).map(|g| g * g).sum();
        self.squares[gradient.row] += square / self.dimension as f32;
        let step = rate / self.squares[gradient.row].sqrt();
        for (weight, value) in weights.iter_mut().zip(gradient.values) {
            *weight -= step * (value + penalty * *weight);
        }
    }
}

/// First weights are drawn evenly from both sides of zero up to here.
const FIRST_WEIGHT: f32 = 0.05;
/// Keeps the first steps of a row from being of full size whatever its gradient.
const FIRST_SQUARE: f32 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, random};

    fn table(rows: usize, options: AdagradOptions) -> AdagradTable {
        AdagradTable::new(rows, 2, options, &mut random(7, Purpose::Weights, 0))
    }

    fn near(found: &[f32], expected: [f32; 2]) {
        assert!(
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6),
            "{found:?} is not {expected:?}"
        );
    }

    #[test]
    fn two_steps_follow_the_formula() {
        let mut table = table(1, AdagradOptions { rate: 0.5, l2: 0.0 });
        table.weights = vec![1.0, -1.0];
        // Mean square (9 + 16) / 2 = 12.5; with the first 0.1 the root is 3.549648.
        table.step(&RowGradients::sum(&[0], &[3.0, 4.0], 2));
        near(table.row(0), [1.0 - 0.5 * 3.0 / 3.549_648, -1.0 - 0.5 * 4.0 / 3.549_648]);
        let before = [table.row(0)[0], table.row(0)[1]];
        // A second mean square of 0.5 makes the root 3.619392.
        table.step(&RowGradients::sum(&[0], &[1.0, 0.0], 2));
        near(table.row(0), [before[0] - 0.5 / 3.619_392, before[1]]);
    }

    #[test]
    fn the_penalty_counts_each_example() {
        let mut table = table(1, AdagradOptions { rate: 1.0, l2: 0.1 });
        table.weights = vec![2.0, 0.0];
        // Twice 0.1 * 2.0 is a gradient of 0.4; mean square 0.08, with the first 0.1 a root of 0.424264.
        table.step(&RowGradients::sum(&[0, 0], &[0.0; 4], 2));
        near(table.row(0), [2.0 - 0.4 / 0.424_264, 0.0]);
    }

    #[test]
    fn a_large_table_is_touched_in_the_rows_of_the_batch_alone() {
        let mut table = table(200_000, AdagradOptions { rate: 0.5, l2: 0.01 });
        let before = table.clone();
        table.step(&RowGradients::sum(&[7, 150_000, 7], &[1.0; 6], 2));
        for row in 0..200_000 {
            let touched = row == 7 || row == 150_000;
            assert_eq!(table.row(row) != before.row(row), touched, "row {row}");
            let moved = table.squares[row].to_bits() != before.squares[row].to_bits();
            assert_eq!(moved, touched, "row {row}");
        }
    }
}
