//! The layers between a network's input and what it comes to, a logit or a vector; their derivatives and their optimiser.
//!
//! All parameters lie in one vector, layer by layer, the weights `[inputs, outputs]` and then the bias of each: gradients
//! and the optimiser's state have the same layout, and a sum over them is a sum over a vector.

use std::io;

use rand_distr::{Distribution, Normal};

use super::{
    adam::Adam,
    matrix::{Keep, multiply, rows_of},
    state::Visitor,
};
use crate::random::Random;

/// What a layer does with `sum = input * weights + bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// `first * sum + input`, where `first` is the network's input: a cross layer of DCN-v2.
    ///
    /// Source: Wang et al., "DCN V2: Improved Deep & Cross Network", 2021, with full matrices.
    Cross,
    /// `max(sum, 0)`.
    Relu,
    /// `sum`, what the network comes to.
    Linear,
}

/// The weights of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerWeights<'a> {
    /// What it does.
    pub kind: LayerKind,
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
    /// The weights `[inputs, outputs]`, row-major.
    pub weights: &'a [f32],
    /// The bias of each output.
    pub bias: &'a [f32],
}

/// The layers, their parameters and Adam's state of them.
#[derive(Clone, Debug)]
pub struct Network {
    layers: Vec<Layer>,
    parameters: Vec<f32>,
    adam: Adam,
}

#[derive(Clone, Copy, Debug)]
struct Layer {
    kind: LayerKind,
    inputs: usize,
    outputs: usize,
    /// Where its parameters start.
    start: usize,
}

/// One pass of some rows through a network, forward and back. Kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// The input `[rows, inputs]`, and after it each layer's output.
    values: Vec<Vec<f32>>,
    /// The sums of the cross layers, which their derivatives need.
    sums: Vec<Vec<f32>>,
    /// The derivative of the loss by the layer's output on the way back, and room for the next.
    by: Vec<f32>,
    by_sum: Vec<f32>,
    by_first: Vec<f32>,
    /// The derivative by each parameter.
    gradient: Vec<f32>,
}

impl Pass {
    /// The input of the next pass, to be filled.
    pub(super) fn input(&mut self) -> &mut Vec<f32> {
        if self.values.is_empty() {
            self.values.push(Vec::new());
        }
        &mut self.values[0]
    }

    /// What each row comes to `[rows, outputs]`, after [`Network::forward`].
    pub(super) fn outputs(&self) -> &[f32] {
        self.values.last().map_or(&[], |outputs| outputs)
    }

    /// The derivative of the loss by each parameter, after [`Network::backward`].
    #[cfg(test)]
    pub(super) fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    /// The derivative of the loss by the input `[rows, inputs]`, after [`Network::backward`].
    pub(super) fn by_input(&self) -> &[f32] {
        &self.by
    }

    /// The same, to be refined.
    pub(super) fn by_input_mut(&mut self) -> &mut [f32] {
        &mut self.by
    }
}

/// The layers of a network.
#[derive(Clone, Copy, Debug)]
pub struct LayerPlan<'a> {
    /// Cross layers, which come first.
    pub cross_layers: usize,
    /// The units of each hidden layer.
    pub hidden: &'a [usize],
    /// What comes of a row: numbers in a vector, or 1 for a logit.
    pub outputs: usize,
}

impl Network {
    /// A network from `inputs` through the layers of `plan`, of which the last has a bias that starts at `bias`.
    pub fn new(inputs: usize, plan: LayerPlan<'_>, rate: f32, bias: f32, random: &mut Random) -> Self {
        let LayerPlan { cross_layers, hidden, outputs } = plan;
        let crosses = (0..cross_layers).map(|_| (LayerKind::Cross, inputs));
        let relus = hidden.iter().map(|&units| (LayerKind::Relu, units));
        let kinds = crosses.chain(relus).chain([(LayerKind::Linear, outputs)]);
        let (mut layers, mut parameters, mut width) = (Vec::new(), Vec::new(), inputs);
        for (kind, outputs) in kinds {
            layers.push(Layer { kind, inputs: width, outputs, start: parameters.len() });
            parameters.extend(first_weights(kind, width, outputs, random));
            parameters.extend(std::iter::repeat_n(0.0, outputs));
            width = outputs;
        }
        let ends = parameters.len();
        parameters[ends - outputs..].fill(bias);
        let adam = Adam::new(ends, rate);
        Self { layers, parameters, adam }
    }

    /// The network of one input and one output that starts as `scale * input + bias`.
    pub fn line(scale: f32, bias: f32, rate: f32) -> Self {
        let layer = Layer { kind: LayerKind::Linear, inputs: 1, outputs: 1, start: 0 };
        Self { layers: vec![layer], parameters: vec![scale, bias], adam: Adam::new(2, rate) }
    }

    /// What comes of a row: numbers in a vector, or 1 for a logit.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.outputs)
    }

    pub(super) fn visit(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        visitor.numbers(&mut self.parameters)?;
        self.adam.visit(visitor)
    }

    /// Each layer in order.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = LayerWeights<'_>> {
        self.layers.iter().map(|layer| layer.of(&self.parameters))
    }

    /// Sends the rows in the pass's input through the layers.
    pub(super) fn forward(&self, pass: &mut Pass) {
        let Pass { values, sums, .. } = pass;
        values.resize_with(self.layers.len() + 1, Vec::new);
        sums.resize_with(self.layers.len(), Vec::new);
        for (index, layer) in self.layers.iter().enumerate() {
            let (before, after) = values.split_at_mut(index + 1);
            let (input, out) = (&before[index], &mut after[0]);
            let LayerWeights { weights, bias, outputs, inputs, kind } = layer.of(&self.parameters);
            let rows = input.len() / inputs;
            out.clear();
            (0..rows).for_each(|_| out.extend_from_slice(bias));
            multiply(&rows_of(input, inputs), &rows_of(weights, outputs), out, Keep::Sum);
            match kind {
                LayerKind::Linear => {}
                LayerKind::Relu => out.iter_mut().for_each(|value| *value = value.max(0.0)),
                LayerKind::Cross => {
                    sums[index].clone_from(out);
                    for ((value, first), input) in out.iter_mut().zip(&before[0]).zip(input) {
                        *value = first * *value + input;
                    }
                }
            }
        }
    }

    /// Follows the pass back from `by_outputs`, the derivative of the loss by what each row comes to.
    pub(super) fn backward(&self, pass: &mut Pass, by_outputs: &[f32]) {
        let Pass { values, sums, by, by_sum, by_first, gradient } = pass;
        gradient.resize(self.parameters.len(), 0.0);
        by.clear();
        by.extend_from_slice(by_outputs);
        by_first.clear();
        by_first.resize(values[0].len(), 0.0);
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let (input, out) = (&values[index], &values[index + 1]);
            let LayerWeights { weights, outputs, inputs, kind, .. } = layer.of(&self.parameters);
            by_sum.clear();
            match kind {
                LayerKind::Linear => by_sum.extend_from_slice(by),
                LayerKind::Relu => {
                    by_sum.extend(by.iter().zip(out).map(|(&by, &out)| if out > 0.0 { by } else { 0.0 }));
                }
                LayerKind::Cross => {
                    by_sum.extend(by.iter().zip(&values[0]).map(|(by, first)| by * first));
                    let by_its_first = by.iter().zip(&sums[index]).map(|(by, sum)| by * sum);
                    by_first.iter_mut().zip(by_its_first).for_each(|(total, by)| *total += by);
                }
            }
            let (by_weights, by_bias) = layer.range_of(gradient);
            multiply(
                &rows_of(input, inputs).reversed_axes(),
                &rows_of(by_sum, outputs),
                by_weights,
                Keep::Nothing,
            );
            by_bias.fill(0.0);
            for row in by_sum.chunks_exact(outputs) {
                by_bias.iter_mut().zip(row).for_each(|(sum, by)| *sum += by);
            }
            // A cross layer hands its input on beside the product, and the derivative comes back beside it.
            let keep = if kind == LayerKind::Cross { Keep::Sum } else { Keep::Nothing };
            by.resize(input.len(), 0.0);
            multiply(&rows_of(by_sum, outputs), &rows_of(weights, outputs).reversed_axes(), by, keep);
        }
        by.iter_mut().zip(&*by_first).for_each(|(by, by_first)| *by += by_first);
    }

    /// Takes one step against the sum of the passes' gradients, in their order.
    pub(super) fn step<'a>(&mut self, passes: impl IntoIterator<Item = &'a Pass>) {
        let mut passes = passes.into_iter();
        let Some(first) = passes.next() else { return };
        let mut sum = first.gradient.clone();
        for pass in passes {
            sum.iter_mut().zip(&pass.gradient).for_each(|(sum, by)| *sum += by);
        }
        self.adam.step(&mut self.parameters, &sum);
    }
}

impl Layer {
    fn of<'a>(&self, parameters: &'a [f32]) -> LayerWeights<'a> {
        let &Self { kind, inputs, outputs, start } = self;
        let (weights, bias) = parameters[start..][..inputs * outputs + outputs].split_at(inputs * outputs);
        LayerWeights { kind, inputs, outputs, weights, bias }
    }

    /// Its weights and its bias in a vector that is laid out like the parameters.
    fn range_of<'a>(&self, parameters: &'a mut [f32]) -> (&'a mut [f32], &'a mut [f32]) {
        let &Self { inputs, outputs, start, .. } = self;
        parameters[start..][..inputs * outputs + outputs].split_at_mut(inputs * outputs)
    }
}

/// Source of the scale after a rectifier: He et al., 2015; of a cross layer, which should start as little more than the
/// identity: Glorot and Bengio, 2010.
fn first_weights(kind: LayerKind, inputs: usize, outputs: usize, random: &mut Random) -> Vec<f32> {
    let scale = match kind {
        LayerKind::Cross => (1.0 / inputs as f32).sqrt(),
        LayerKind::Relu | LayerKind::Linear => (2.0 / inputs as f32).sqrt(),
    };
    let normal = Normal::new(0.0, scale).expect("the scale is finite");
    (0..inputs * outputs).map(|_| normal.sample(random)).collect()
}

#[cfg(test)]
impl Network {
    /// The parameters, for the test of their derivatives.
    pub(super) fn parameters(&mut self) -> &mut [f32] {
        &mut self.parameters
    }
}
