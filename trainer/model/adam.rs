//! Adam: its formula, and its state over a vector of parameters that every batch touches whole, which the layers' are.

use std::io;

use super::state::Visitor;

/// The moments of a vector of parameters.
#[derive(Clone, Debug)]
pub(super) struct Adam {
    rate: f32,
    steps: i32,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Adam {
    /// No moments yet of so many parameters; `rate` is the size of a step.
    pub(super) fn new(parameters: usize, rate: f32) -> Self {
        Self { rate, steps: 0, first: vec![0.0; parameters], second: vec![0.0; parameters] }
    }

    pub(super) fn visit(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        visitor.count(&mut self.steps)?;
        visitor.numbers(&mut self.first)?;
        visitor.numbers(&mut self.second)
    }

    /// Moves `parameters` against `gradient`.
    pub(super) fn step(&mut self, parameters: &mut [f32], gradient: &[f32]) {
        self.steps = self.steps.saturating_add(1);
        let moments = Moments { steps: self.steps, first: &mut self.first, second: &mut self.second };
        moments.step(self.rate, parameters, gradient);
    }
}

/// The moments of some parameters that are stepped together.
pub(super) struct Moments<'a> {
    /// Steps that they have taken, the coming one among them.
    pub(super) steps: i32,
    /// The running mean of each gradient.
    pub(super) first: &'a mut [f32],
    /// The running mean of each gradient's square.
    pub(super) second: &'a mut [f32],
}

impl Moments<'_> {
    /// Moves `parameters` against `gradient`; `rate` is the size of a step.
    ///
    /// Source: Kingma and Ba, 2015, algorithm 1, with the correction of both moments drawn into the rate.
    pub(super) fn step(self, rate: f32, parameters: &mut [f32], gradient: &[f32]) {
        let correct_second = (1.0 - SECOND.powi(self.steps)).sqrt();
        let rate = rate * correct_second / (1.0 - FIRST.powi(self.steps));
        let moments = self.first.iter_mut().zip(self.second);
        for ((parameter, &by), (first, second)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *first = FIRST * *first + (1.0 - FIRST) * by;
            *second = SECOND * *second + (1.0 - SECOND) * by * by;
            *parameter -= rate * *first / (second.sqrt() + EPSILON * correct_second);
        }
    }
}

/// What stays of the first moment at a step, and of the second.
const FIRST: f32 = 0.9;
const SECOND: f32 = 0.999;
const EPSILON: f32 = 1e-8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_follow_the_formula() {
        let mut adam = Adam::new(2, 0.1);
        let mut parameters = [1.0, -2.0];
        // Corrected, the first moments are the gradient and its square, whatever its size.
        adam.step(&mut parameters, &[4.0, -0.5]);
        let near =
            |found: f32, expected: f32| assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        near(parameters[0], 0.9);
        near(parameters[1], -1.9);
        // First: (0.1 * 0.9 * 4 + 0.1 * 2) / 0.19 = 2.947368; second: (0.001 * 0.999 * 16 + 0.001 * 4) / 0.001999 = 9.997.
        adam.step(&mut parameters, &[2.0, -0.5]);
        near(parameters[0], 0.9 - 0.1 * 2.947_368 / 9.996_998_f32.sqrt());
        near(parameters[1], -1.8);
    }
}
