//! An embedding table under row-wise Adagrad: one number of state for each row, and an update that touches the rows
//! of the batch and no others, however large the table is.

use std::io;

use rand::Rng;

use super::{
    sparse::{self, Stretch, Touch},
    state::Visitor,
};
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
        let weights = first_weights(rows * dimension, random);
        Self { options, dimension, weights, squares: vec![FIRST_SQUARE; rows] }
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

    /// Makes the weights of `row` zero.
    pub(super) fn clear(&mut self, row: usize) {
        self.weights[row * self.dimension..][..self.dimension].fill(0.0);
    }

    /// A weight, for the test of its derivative.
    #[cfg(test)]
    pub(super) fn weight_mut(&mut self, at: usize) -> &mut f32 {
        &mut self.weights[at]
    }

    pub(super) fn visit(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        visitor.numbers(&mut self.weights)?;
        visitor.numbers(&mut self.squares)
    }

    /// Takes one step against `gradient`, which knows the derivative by the embedding gathered at each touched place.
    ///
    /// Source: Duchi, Hazan and Singer, 2011, with the mean square of a row in place of each weight's own.
    pub fn step<'a>(&mut self, touches: &[Touch], gradient: impl Fn(usize) -> &'a [f32] + Sync) {
        let stretch = TableStretch {
            options: self.options,
            dimension: self.dimension,
            first: 0,
            weights: &mut self.weights,
            squares: &mut self.squares,
            gradient: &gradient,
            sum: vec![0.0; self.dimension],
        };
        sparse::step(stretch, touches);
    }
}

/// Some rows of a table and where their gradients are.
struct TableStretch<'a, G> {
    options: AdagradOptions,
    dimension: usize,
    first: usize,
    weights: &'a mut [f32],
    squares: &'a mut [f32],
    gradient: &'a G,
    /// Room for the sum of a row's gradients.
    sum: Vec<f32>,
}

impl<'g, G: Fn(usize) -> &'g [f32] + Sync> Stretch for TableStretch<'_, G> {
    fn split(self, row: usize) -> (Self, Self) {
        let Self { options, dimension, first, gradient, sum, .. } = self;
        let (low_weights, high_weights) = self.weights.split_at_mut((row - first) * dimension);
        let (low_squares, high_squares) = self.squares.split_at_mut(row - first);
        let part = |first, weights, squares, sum| Self {
            options,
            dimension,
            first,
            weights,
            squares,
            gradient,
            sum,
        };
        let high = part(row, high_weights, high_squares, sum.clone());
        (part(first, low_weights, low_squares, sum), high)
    }

    fn step(&mut self, row: usize, places: &[Touch]) {
        let Self { options: AdagradOptions { rate, l2 }, dimension, sum, .. } = self;
        let row = row - self.first;
        let weights = &mut self.weights[row * *dimension..][..*dimension];
        sum_gradients(sum, weights, *l2, places, self.gradient);
        let square: f32 = sum.iter().map(|by| by * by).sum();
        self.squares[row] += square / *dimension as f32;
        let step = *rate / self.squares[row].sqrt();
        weights.iter_mut().zip(&*sum).for_each(|(weight, by)| *weight -= step * by);
    }
}

/// The first weights of a table.
pub(super) fn first_weights(count: usize, random: &mut Random) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-FIRST_WEIGHT..FIRST_WEIGHT)).collect()
}

/// Writes the gradient of a row to `sum`: the penalty on its `weights`, once for each of `places`, and the gradients of
/// the places in their order.
pub(super) fn sum_gradients<'g>(
    sum: &mut [f32],
    weights: &[f32],
    l2: f32,
    places: &[Touch],
    gradient: &impl Fn(usize) -> &'g [f32],
) {
    let penalty = l2 * places.len() as f32;
    sum.iter_mut().zip(weights).for_each(|(sum, weight)| *sum = penalty * weight);
    for touch in places {
        sum.iter_mut().zip(gradient(touch.place())).for_each(|(sum, by)| *sum += by);
    }
}

/// First weights are drawn evenly from both sides of zero up to here.
const FIRST_WEIGHT: f32 = 0.05;
/// Keeps the first steps of a row from being of full size whatever its gradient.
const FIRST_SQUARE: f32 = 0.1;

#[cfg(test)]
mod tests {
    use super::{super::sparse::touches, *};
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
        table.step(&touches(&[0]), |_| &[3.0, 4.0]);
        near(table.row(0), [1.0 - 0.5 * 3.0 / 3.549_648, -1.0 - 0.5 * 4.0 / 3.549_648]);
        let before = [table.row(0)[0], table.row(0)[1]];
        // A second mean square of 0.5 makes the root 3.619392.
        table.step(&touches(&[0]), |_| &[1.0, 0.0]);
        near(table.row(0), [before[0] - 0.5 / 3.619_392, before[1]]);
    }

    #[test]
    fn the_gradients_of_all_places_are_summed() {
        let options = AdagradOptions { rate: 0.5, l2: 0.0 };
        let (mut twice, mut once) = (table(1, options), table(1, options));
        let gradients = [[1.0, 2.0], [3.0, -5.0]];
        twice.step(&touches(&[0, 0]), |place| &gradients[place]);
        once.step(&touches(&[0]), |_| &[4.0, -3.0]);
        assert_eq!(twice, once);
    }

    #[test]
    fn the_penalty_counts_each_example() {
        let mut table = table(1, AdagradOptions { rate: 1.0, l2: 0.1 });
        table.weights = vec![2.0, 0.0];
        // Twice 0.1 * 2.0 is a gradient of 0.4; mean square 0.08, with the first 0.1 a root of 0.424264.
        table.step(&touches(&[0, 0]), |_| &[0.0, 0.0]);
        near(table.row(0), [2.0 - 0.4 / 0.424_264, 0.0]);
    }

    #[test]
    fn a_large_table_is_touched_in_the_rows_of_the_batch_alone() {
        let mut table = table(200_000, AdagradOptions { rate: 0.5, l2: 0.01 });
        let before = table.clone();
        table.step(&touches(&[7, 150_000, 7]), |_| &[1.0, 1.0]);
        for row in 0..200_000 {
            let touched = row == 7 || row == 150_000;
            assert_eq!(table.row(row) != before.row(row), touched, "row {row}");
            let moved = table.squares[row].to_bits() != before.squares[row].to_bits();
            assert_eq!(moved, touched, "row {row}");
        }
    }
}
