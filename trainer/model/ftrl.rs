//! The wide part's weights under FTRL-proximal: one weight a table row, most of them exactly zero where the penalty
//! asks for it, and an update that touches the rows of the batch alone.

use super::sparse::RowGradients;

/// How the weights learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FtrlOptions {
    /// The learning rate's scale.
    pub alpha: f32,
    /// Smooths the rate of rarely seen rows.
    pub beta: f32,
    /// The penalty on a weight's size.
    pub l1: f32,
    /// The penalty on a weight's square.
    pub l2: f32,
}

/// The weights and their state.
#[derive(Clone, Debug, PartialEq)]
pub struct FtrlWeights {
    options: FtrlOptions,
    weights: Vec<f32>,
    z: Vec<f32>,
    n: Vec<f32>,
}

impl FtrlWeights {
    /// `rows` weights of zero.
    pub fn new(rows: usize, options: FtrlOptions) -> Self {
        Self { options, weights: vec![0.0; rows], z: vec![0.0; rows], n: vec![0.0; rows] }
    }

    /// All weights.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Takes one step against `gradients`, which are one wide.
    ///
    /// Source: "Ad Click Prediction: a View from the Trenches", KDD 2013, algorithm 1.
    pub fn step(&mut self, gradients: &RowGradients) {
        gradients.iter().for_each(|gradient| self.step_row(gradient.row, gradient.values[0]));
    }

    fn step_row(&mut self, row: usize, gradient: f32) {
        let square = gradient * gradient;
        let sigma = ((self.n[row] + square).sqrt() - self.n[row].sqrt()) / self.options.alpha;
        self.z[row] += gradient - sigma * self.weights[row];
        self.n[row] += square;
        self.weights[row] = self.solve(row);
    }

    fn solve(&self, row: usize) -> f32 {
        let FtrlOptions { alpha, beta, l1, l2 } = self.options;
        let z = self.z[row];
        if z.abs() <= l1 {
            return 0.0;
        }
        -(z - z.signum() * l1) / ((beta + self.n[row].sqrt()) / alpha + l2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: FtrlOptions = FtrlOptions { alpha: 0.5, beta: 1.0, l1: 0.0, l2: 0.0 };

    fn step(weights: &mut FtrlWeights, row: u32, gradient: f32) {
        weights.step(&RowGradients::sum(&[row], &[gradient], 1));
    }

    fn near(found: f32, expected: f32) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn two_steps_follow_the_formula() {
        let mut weights = FtrlWeights::new(1, OPTIONS);
        step(&mut weights, 0, 3.0);
        // z = 3, n = 9: w = -3 / ((1 + 3) / 0.5) = -0.375.
        near(weights.weights()[0], -0.375);
        step(&mut weights, 0, 4.0);
        // sigma = (5 - 3) / 0.5 = 4; z = 3 + 4 + 4 * 0.375 = 8.5; w = -8.5 / ((1 + 5) / 0.5).
        near(weights.weights()[0], -8.5 / 12.0);
    }

    #[test]
    fn the_penalties_shrink_and_the_first_of_them_to_zero() {
        let mut weights = FtrlWeights::new(2, FtrlOptions { l1: 1.0, l2: 2.0, ..OPTIONS });
        step(&mut weights, 0, 0.9);
        step(&mut weights, 1, -3.0);
        near(weights.weights()[0], 0.0);
        // z = -3 loses 1 to l1: w = 2 / ((1 + 3) / 0.5 + 2).
        near(weights.weights()[1], 0.2);
    }

    #[test]
    fn a_large_table_is_touched_in_the_rows_of_the_batch_alone() {
        let mut weights = FtrlWeights::new(1_000_000, OPTIONS);
        step(&mut weights, 77, 1.0);
        let touched: Vec<usize> =
            (0..1_000_000).filter(|&row| weights.weights[row] != 0.0 || weights.n[row] != 0.0).collect();
        assert_eq!(touched, [77]);
    }
}
