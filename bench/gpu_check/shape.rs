//! Networks of given shapes, of numbers at random: what is measured is how large they are.

use clap::ValueEnum;
use millrace::{
    engine::{
        Network,
        network::{Field, Layer, LayerKind, Pooling, Table},
    },
    tensor::{DType, Signature, TensorSpec},
};

use crate::subject::{Chance, Subject};

/// A shape of Wide & Deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// 26 ids with embeddings of 64 numbers and 13 dense values, layers of 1024, 512 and 256 units.
    Ranking,
    /// About NVIDIA's own, whose embeddings come to 976 numbers: 15 ids of 64 numbers and 13 dense values, five layers of 1024.
    Nvidia,
}

impl Shape {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ranking => "ranking",
            Self::Nvidia => "nvidia",
        }
    }

    fn columns(self) -> usize {
        match self {
            Self::Ranking => 26,
            Self::Nvidia => 15,
        }
    }

    fn units(self) -> &'static [usize] {
        match self {
            Self::Ranking => &[1024, 512, 256],
            Self::Nvidia => &[1024; 5],
        }
    }

    /// The network with rows for it; every column has the ids of its own share of the table.
    pub(crate) fn subject(self, table_rows: usize) -> anyhow::Result<Subject> {
        let share = i32::try_from(table_rows / self.columns())?;
        let spec = |name: &str, dtype, width| TensorSpec { name: name.to_owned(), dtype, width };
        let inputs = vec![spec("ids", DType::I32, self.columns()), spec("dense", DType::F32, DENSE)];
        let starts = (0..).step_by(usize::try_from(share.max(1))?).take(self.columns());
        let (columns, units) = (self.columns(), self.units());
        Ok(Subject {
            shape: format!("{columns} x {DIMENSION} + {DENSE}, {units:?}, {table_rows} rows of tables"),
            network: self.network(table_rows),
            signature: Signature { inputs, output: "probability".to_owned() },
            id_ranges: starts.map(|start| start..start + share).collect(),
            onnx: None,
        })
    }

    /// Numbers at random, in a size that leaves every layer's sums about as large as its input.
    pub(crate) fn network(self, table_rows: usize) -> Network {
        let mut chance = Chance(7);
        let single = |first_column| Field { first_column, columns: 1, pooling: Pooling::Sum };
        let embeddings = Table::new(DIMENSION, numbers(&mut chance, table_rows * DIMENSION, 1.0));
        let wide = Table::new(1, numbers(&mut chance, table_rows, 0.2));
        let mut inputs = self.columns() * DIMENSION + DENSE;
        let mut layers = Vec::with_capacity(self.units().len());
        for &outputs in self.units() {
            layers.push(layer(&mut chance, inputs, outputs));
            inputs = outputs;
        }
        let last = numbers(&mut chance, inputs, (3.0 / inputs as f32).sqrt());
        let fields = (0..self.columns()).map(single).collect();
        Network { id_columns: self.columns(), dense_columns: DENSE, fields, embeddings, wide, layers, last }
    }
}

fn layer(chance: &mut Chance, inputs: usize, outputs: usize) -> Layer {
    // A uniform number within `size` has a variance of a third of its square, and half of the units are zero.
    let size = (6.0 / inputs as f32).sqrt();
    let (weights, bias) = (numbers(chance, inputs * outputs, size), numbers(chance, outputs, 0.1));
    Layer { kind: LayerKind::Relu, inputs, outputs, weights, bias }
}

/// Numbers within `size` of zero.
fn numbers(chance: &mut Chance, count: usize, size: f32) -> Vec<f32> {
    (0..count).map(|_| chance.number() * size).collect()
}

const DIMENSION: usize = 64;
const DENSE: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_differ_and_are_neither_0_nor_1() {
        for shape in [Shape::Ranking, Shape::Nvidia] {
            let subject = shape.subject(1000).expect("small");
            let scores = subject.network.score(&subject.rows(32, 3)).expect("in memory");
            let within = scores.iter().filter(|score| (0.02..0.98).contains(*score)).count();
            let mean = scores.iter().sum::<f64>() / 32.0;
            assert!(within >= 28, "{scores:?}");
            assert!(scores.iter().any(|score| (score - mean).abs() > 0.01), "{scores:?}");
        }
    }
}
