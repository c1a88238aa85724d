//! The deep part: from the embeddings and the dense values of a row to a logit, by the layers of one network, or by two
//! towers.
//!
//! Two towers are two networks, each of which sees one side alone, the user's or the item's, and makes a vector of it:
//! `logit = scale * (user . item) + bias`. A vector of an item is the same for every user, so that a catalogue's can be made
//! before anyone asks. The scale starts from `1 / sqrt(numbers in a vector)`, where the product of vectors of independent
//! numbers has the variance of one of them.
//!
//! Sources: Huang et al., "Learning Deep Structured Semantic Models for Web Search", 2013; Yi et al., "Sampling-Bias-
//! Corrected Neural Modeling for Large Corpus Item Recommendations", 2019; of the scale: Vaswani et al., 2017.

use std::io;

use super::{
    Batch, InputLayout, ModelShape,
    network::{LayerPlan, Network, Pass},
    state::Visitor,
    towers::TowerColumns,
};
use crate::{config::ModelConfig, random::Random};

/// The deep part of a model.
#[derive(Clone, Debug)]
pub enum Deep {
    /// One network that sees everything and ends in the logit.
    Layers(Box<Tower>),
    /// Two that see a side each.
    Towers(Box<TwoTowers>),
}

/// A network and what it sees of a row.
#[derive(Clone, Debug)]
pub struct Tower {
    inputs: InputLayout,
    network: Network,
}

/// Two networks that end in vectors of the same length, and a layer from the product of these to the logit.
#[derive(Clone, Debug)]
pub struct TwoTowers {
    user: Tower,
    item: Tower,
    head: Network,
}

/// One pass of some rows through the deep part, forward and back. Kept for its memory.
#[derive(Debug, Default)]
pub(super) struct DeepPass {
    /// Through the one network, or through the user's and the item's.
    towers: [Pass; 2],
    head: Pass,
    /// The derivative by a tower's vectors.
    by_vectors: Vec<f32>,
}

impl Deep {
    /// The deep part for `shape`, whose logits start about `bias`.
    pub fn new(shape: &ModelShape, config: &ModelConfig, bias: f32, random: &mut Random) -> Self {
        let (dimension, rate, hidden) =
            (config.embedding_dimension, config.mlp_rate, config.hidden_units.as_slice());
        let Some(towers) = &shape.towers else {
            let inputs = InputLayout::new(0..shape.deep_columns, &shape.lists, 0..shape.dense, dimension);
            let plan = LayerPlan { cross_layers: config.cross_layers, hidden, outputs: 1 };
            let network = Network::new(inputs.width(), plan, rate, bias, random);
            return Self::Layers(Box::new(Tower { inputs, network }));
        };
        let outputs = config.output_dimension();
        let mut tower = |TowerColumns { ids, dense, .. }: &TowerColumns| {
            let (ids, dense) = (ids.iter().copied(), dense.iter().copied());
            let inputs = InputLayout::new(ids, &shape.lists, dense, dimension);
            let plan = LayerPlan { cross_layers: 0, hidden, outputs };
            let network = Network::new(inputs.width(), plan, rate, 0.0, random);
            Tower { inputs, network }
        };
        let (user, item) = (tower(&towers.user), tower(&towers.item));
        let scale = 1.0 / (outputs as f32).sqrt();
        Self::Towers(Box::new(TwoTowers { user, item, head: Network::line(scale, bias, rate) }))
    }

    pub(super) fn visit(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        self.split().1.0.into_iter().try_for_each(|part| part.network.visit(visitor))
    }

    /// Writes the input of each row of `batch` and sends it to the logits.
    pub(super) fn forward(&self, batch: &Batch<'_>, table: &[f32], pass: &mut DeepPass) {
        let DeepPass { towers: [one, other], head, .. } = pass;
        match self {
            Self::Layers(tower) => tower.forward(batch, table, one),
            Self::Towers(towers) => {
                towers.user.forward(batch, table, one);
                towers.item.forward(batch, table, other);
                let outputs = towers.outputs();
                let vectors = one.outputs().chunks_exact(outputs).zip(other.outputs().chunks_exact(outputs));
                let product = |(user, item): (&[f32], &[f32])| -> f32 {
                    user.iter().zip(item).map(|(user, item)| user * item).sum()
                };
                head.input().clear();
                head.input().extend(vectors.map(product));
                towers.head.forward(head);
            }
        }
    }

    /// The logit of each row, after [`Deep::forward`].
    pub(super) fn logits<'p>(&self, pass: &'p DeepPass) -> &'p [f32] {
        match self {
            Self::Layers(_) => pass.towers[0].outputs(),
            Self::Towers(_) => pass.head.outputs(),
        }
    }

    /// Follows the pass back from `by_logits`, the derivative of the loss by each row's logit.
    pub(super) fn backward(&self, batch: &Batch<'_>, pass: &mut DeepPass, by_logits: &[f32]) {
        let DeepPass { towers: [one, other], head, by_vectors } = pass;
        match self {
            Self::Layers(tower) => tower.backward(batch, one, by_logits),
            Self::Towers(towers) => {
                towers.head.backward(head, by_logits);
                let by_products = head.by_input();
                by_vector(by_products, other.outputs(), by_vectors);
                towers.user.backward(batch, one, by_vectors);
                by_vector(by_products, one.outputs(), by_vectors);
                towers.item.backward(batch, other, by_vectors);
            }
        }
    }

    /// Where the embeddings are in what the networks see, and beside it the networks, to be stepped meanwhile.
    pub(super) fn split(&mut self) -> (Sight<'_>, Networks<'_>) {
        match self {
            Self::Layers(tower) => {
                let Tower { inputs, network } = &mut **tower;
                (Sight([inputs; 2]), Networks(vec![Part { network, pass: |pass| &pass.towers[0] }]))
            }
            Self::Towers(towers) => {
                let TwoTowers { user, item, head } = &mut **towers;
                let networks = vec![
                    Part { network: &mut user.network, pass: |pass| &pass.towers[0] },
                    Part { network: &mut item.network, pass: |pass| &pass.towers[1] },
                    Part { network: head, pass: |pass| &pass.head },
                ];
                (Sight([&user.inputs, &item.inputs]), Networks(networks))
            }
        }
    }
}

/// What the two towers see; where there is one network, twice what that sees.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a>([&'a InputLayout; 2]);

impl Sight<'_> {
    /// The derivative of the loss by the embedding of the id in `column` of `row`, after [`Deep::backward`].
    pub(super) fn by_embedding<'p>(&self, pass: &'p DeepPass, row: usize, column: usize) -> &'p [f32] {
        let side = usize::from(!self.0[0].has(column));
        let inputs = self.0[side];
        &pass.towers[side].by_input()[row * inputs.width()..][inputs.embedding(column)]
    }
}

/// The networks of a deep part.
pub(super) struct Networks<'a>(Vec<Part<'a>>);

/// A network, and its part of a pass.
struct Part<'a> {
    network: &'a mut Network,
    pass: fn(&DeepPass) -> &Pass,
}

impl Networks<'_> {
    /// The derivative by each parameter of each network.
    #[cfg(test)]
    pub(super) fn gradients(&self, pass: &DeepPass) -> Vec<Vec<f32>> {
        self.0.iter().map(|part| (part.pass)(pass).gradient().to_vec()).collect()
    }

    /// Takes one step in each against the sum of the passes' gradients, in their order.
    pub(super) fn step(self, passes: &[&DeepPass]) {
        for Part { network, pass } in self.0 {
            network.step(passes.iter().map(|passes| pass(passes)));
        }
    }
}

#[cfg(test)]
impl Deep {
    /// A network by its place, for the test of its derivatives.
    pub(super) fn network_mut(&mut self, network: usize) -> &mut Network {
        self.split().1.0.swap_remove(network).network
    }
}

impl Tower {
    /// What the network sees.
    pub fn inputs(&self) -> &InputLayout {
        &self.inputs
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    fn forward(&self, batch: &Batch<'_>, table: &[f32], pass: &mut Pass) {
        self.inputs.fill(batch, table, pass.input());
        self.network.forward(pass);
    }

    fn backward(&self, batch: &Batch<'_>, pass: &mut Pass, by_outputs: &[f32]) {
        self.network.backward(pass, by_outputs);
        self.inputs.share(batch, pass.by_input_mut());
    }
}

impl TwoTowers {
    /// The user's tower.
    pub fn user(&self) -> &Tower {
        &self.user
    }

    /// The item's.
    pub fn item(&self) -> &Tower {
        &self.item
    }

    /// What the product of the vectors is multiplied by, and what is added to it.
    pub fn scale_and_bias(&self) -> (f32, f32) {
        let line = self.head.layers().next().expect("a layer");
        (line.weights[0], line.bias[0])
    }

    /// Numbers in a vector.
    pub fn outputs(&self) -> usize {
        self.user.network.outputs()
    }
}

/// The derivative by the vectors of one side: that by the product of each row, times the vector of the other side.
fn by_vector(by_products: &[f32], others: &[f32], by: &mut Vec<f32>) {
    let outputs = others.len() / by_products.len().max(1);
    by.clear();
    for (by_product, other) in by_products.iter().zip(others.chunks_exact(outputs.max(1))) {
        by.extend(other.iter().map(|other| by_product * other));
    }
}
