//! The wide part's weights under FTRL-proximal: one weight a table row, most of them exactly zero where the penalty
//! asks for it, and an update that touches the rows of the batch alone.

use std::io;

use super::{
    sparse::{self, Stretch, Touch},
    state::Visitor,
};

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

    /// A weight, for the test of its derivative.
    #[cfg(test)]
    pub(super) fn weight_mut(&mut self, at: usize) -> &mut f32 {
        &mut self.weights[at]
    }

    pub(super) fn visit(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        [&mut self.weights, &mut self.z, &mut self.n]
            .into_iter()
            .try_for_each(|numbers| visitor.numbers(numbers))
    }

    /// Takes one step against `gradient`, which knows the derivative by the weight gathered at each touched place.
    ///
    /// Source: "Ad Click Prediction: a View from the Trenches", KDD 2013, algorithm 1.
    pub fn step(&mut self, touches: &[Touch], gradient: impl Fn(usize) -> f32 + Sync) {
        let Self { options, weights, z, n } = self;
        let stretch = WeightStretch { options: *options, first: 0, weights, z, n, gradient: &gradient };
        sparse::step(stretch, touches);
    }
}

/// Some of the weights and where their gradients are.
struct WeightStretch<'a, G> {
    options: FtrlOptions,
    first: usize,
    weights: &'a mut [f32],
    z: &'a mut [f32],
    n: &'a mut [f32],
    gradient: &'a G,
}

impl<G: Fn(usize) -> f32 + Sync> Stretch for WeightStretch<'_, G> {
    fn split(self, row: usize) -> (Self, Self) {
        let Self { options, first, gradient, .. } = self;
        let (low_weights, high_weights) = self.weights.split_at_mut(row - first);
        let (low_z, high_z) = self.z.split_at_mut(row - first);
        let (low_n, high_n) = self.n.split_at_mut(row - first);
        let part = |first, weights, z, n| Self { options, first, weights, z, n, gradient };
        (part(first, low_weights, low_z, low_n), part(row, high_weights, high_z, high_n))
    }

    fn step(&mut self, row: usize, places: &[Touch]) {
        let FtrlOptions { alpha, beta, l1, l2 } = self.options;
        let row = row - self.first;
        let (weight, z, n) = (&mut self.weights[row], &mut self.z[row], &mut self.n[row]);
        let gradient: f32 = places.iter().map(|touch| (self.gradient)(touch.place())).sum();
        let square = gradient * gradient;
        let sigma = ((*n + square).sqrt() - n.sqrt()) / alpha;
        *z += gradient - sigma * *weight;
        *n += square;
        *weight =
            if z.abs() <= l1 { 0.0 } else { -(*z - z.signum() * l1) / ((beta + n.sqrt()) / alpha + l2) };
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sparse::touches, *};

    const OPTIONS: FtrlOptions = FtrlOptions { alpha: 0.5, beta: 1.0, l1: 0.0, l2: 0.0 };

    fn step(weights: &mut FtrlWeights, row: u32, gradient: f32) {
        weights.step(&touches(&[row]), |_| gradient);
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
