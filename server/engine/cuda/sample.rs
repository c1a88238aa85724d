//! Networks for tests, of every shape that there is, and rows for them.

use crate::{
    engine::{
        Network,
        network::{Field, Layer, LayerKind, Pooling, Table},
    },
    tensor::{DType, Rows, Signature, TensorSpec},
};

/// One of each kind.
pub(super) fn all() -> Vec<Network> {
    vec![wide_and_deep(), deep_and_cross(), lists(), without_layers()]
}

/// Three ids with embeddings, a fourth with a wide weight alone, two dense values, two layers.
pub(super) fn wide_and_deep() -> Network {
    let fields = (0..3).map(single).collect();
    network(fields, [4, 2, 5], &[(LayerKind::Relu, 9), (LayerKind::Relu, 6)])
}

/// Two cross layers, and one of units behind them.
pub(super) fn deep_and_cross() -> Network {
    let fields = (0..2).map(single).collect();
    network(fields, [2, 1, 3], &[(LayerKind::Cross, 7), (LayerKind::Cross, 7), (LayerKind::Relu, 4)])
}

/// A mean and a sum of lists behind an id, and no dense values.
pub(super) fn lists() -> Network {
    let mean = Field { first_column: 1, columns: 3, pooling: Pooling::Mean { padding: 4 } };
    let sum = Field { first_column: 4, columns: 2, pooling: Pooling::Sum };
    network(vec![single(0), mean, sum], [6, 0, 4], &[(LayerKind::Relu, 5)])
}

/// The last layer alone.
pub(super) fn without_layers() -> Network {
    network(vec![single(0)], [1, 1, 8], &[])
}

/// The rows that a table has.
pub(super) const TABLE_ROWS: usize = 20;

/// The signature of `network`.
pub(super) fn signature(network: &Network) -> Signature {
    let spec = |name: &str, dtype, width| TensorSpec { name: name.into(), dtype, width };
    let mut inputs = vec![spec("ids", DType::I32, network.id_columns)];
    if network.dense_columns > 0 {
        inputs.push(spec("dense", DType::F32, network.dense_columns));
    }
    Signature { inputs, output: "probability".into() }
}

/// So many rows that differ.
pub(super) fn rows(network: &Network, count: usize) -> Rows {
    let mut rows = Rows::new(&signature(network));
    let mut numbers = Numbers(17);
    for _ in 0..count {
        rows.push_zeroed();
        let ids = rows.last_i32(0);
        ids.fill_with(|| i32::try_from(numbers.below(TABLE_ROWS)).expect("small"));
        rows.last_f32(1).fill_with(|| numbers.number());
    }
    rows
}

fn single(first_column: usize) -> Field {
    Field { first_column, columns: 1, pooling: Pooling::Sum }
}

/// A network of these fields; the others are columns of ids, dense columns and numbers in an embedding.
fn network(
    fields: Vec<Field>,
    [id_columns, dense_columns, dimension]: [usize; 3],
    layers: &[(LayerKind, usize)],
) -> Network {
    let mut numbers = Numbers(5);
    let mut width = fields.len() * dimension + dense_columns;
    let embeddings = Table::new(dimension, numbers.take(TABLE_ROWS * dimension));
    let wide = Table::new(1, numbers.take(TABLE_ROWS));
    let mut layer = |&(kind, outputs): &(LayerKind, usize)| {
        let inputs = std::mem::replace(&mut width, outputs);
        let (weights, bias) = (numbers.take(inputs * outputs), numbers.take(outputs));
        Layer { kind, inputs, outputs, weights, bias }
    };
    let layers = layers.iter().map(&mut layer).collect();
    let last = numbers.take(width);
    Network { id_columns, dense_columns, fields, embeddings, wide, layers, last }
}

/// Numbers that look like chance and are always the same.
struct Numbers(u64);

impl Numbers {
    /// Knuth's constants.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }

    /// Between -1 and 1.
    fn number(&mut self) -> f32 {
        self.below(2001) as f32 / 1000.0 - 1.0
    }

    fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number() / 2.0).collect()
    }
}
