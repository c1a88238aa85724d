//! The deep part's layers, on candle: tensors and derivatives are its, the embeddings that go in are not, for the
//! derivative of its gather is as large as the table.

use candle_core::{Device, Result, Tensor, Var, backprop::GradStore};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand_distr::{Distribution, Normal};

use crate::random::Random;

/// The layers, and Adam's state of them.
#[derive(Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
    adam: AdamW,
}

/// The weights of one layer, for export.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeights {
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
    /// The weights `[inputs, outputs]`, row-major.
    pub weights: Vec<f32>,
    /// The bias of each output.
    pub bias: Vec<f32>,
}

#[derive(Debug)]
struct Layer {
    weights: Var,
    bias: Var,
}

impl Mlp {
    /// Layers from `inputs` through the `hidden` ones to a single output, whose bias starts at `bias`.
    pub fn new(inputs: usize, hidden: &[usize], rate: f64, bias: f32, random: &mut Random) -> Result<Self> {
        let mut layers = Vec::with_capacity(hidden.len() + 1);
        let mut width = inputs;
        for &units in hidden {
            layers.push(Layer::new(width, units, 0.0, random)?);
            width = units;
        }
        layers.push(Layer::new(width, 1, bias, random)?);
        let variables = layers.iter().flat_map(|layer| [layer.weights.clone(), layer.bias.clone()]).collect();
        let adam = AdamW::new(variables, ParamsAdamW { lr: rate, weight_decay: 0.0, ..Default::default() })?;
        Ok(Self { layers, adam })
    }

    /// The output `[rows, 1]` for the input `[rows, inputs]`.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let (last, hidden) = self.layers.split_last().expect("there is an output layer");
        let through = |input: Tensor, layer: &Layer| layer.forward(&input)?.relu();
        let last_input = hidden.iter().try_fold(input.clone(), through)?;
        last.forward(&last_input)
    }

    /// Takes one step against the gradients.
    pub fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.adam.step(gradients)
    }

    /// The weights of each layer in order.
    pub fn weights(&self) -> Result<Vec<LayerWeights>> {
        self.layers.iter().map(Layer::weights).collect()
    }
}

impl Layer {
    /// Source of the weights' scale: He et al., 2015.
    fn new(inputs: usize, outputs: usize, bias: f32, random: &mut Random) -> Result<Self> {
        let scale = (2.0 / inputs as f32).sqrt();
        let normal = Normal::new(0.0, scale).expect("the scale is finite");
        let weights: Vec<f32> = (0..inputs * outputs).map(|_| normal.sample(random)).collect();
        Ok(Self {
            weights: Var::from_vec(weights, (inputs, outputs), &Device::Cpu)?,
            bias: Var::from_vec(vec![bias; outputs], outputs, &Device::Cpu)?,
        })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        input.matmul(self.weights.as_tensor())?.broadcast_add(self.bias.as_tensor())
    }

    fn weights(&self) -> Result<LayerWeights> {
        let (inputs, outputs) = self.weights.dims2()?;
        Ok(LayerWeights {
            inputs,
            outputs,
            weights: self.weights.flatten_all()?.to_vec1()?,
            bias: self.bias.to_vec1()?,
        })
    }
}

#[cfg(test)]
impl Mlp {
    /// All variables, for the test of their derivatives.
    pub(super) fn variables(&self) -> Vec<Var> {
        self.layers.iter().flat_map(|layer| [layer.weights.clone(), layer.bias.clone()]).collect()
    }
}
