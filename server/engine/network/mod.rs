//! A ranking network as plain tables and layers: what an engine of our own computes, read from an artifact's
//! `model.onnx`.
//!
//! Only the graphs that the trainer writes for Wide & Deep and DCN-v2 are read, and recognised by what their nodes do,
//! whatever those are called. Everything else is refused with what is in the way. Nothing here knows a device, and
//! nothing is computed but the reference that engines are held against.
//!
//! | file | holds |
//! |---|---|
//! | `file` | tensors, inside the model or in the file of tables beside it |
//! | `graph` | the walk from the graph's output to its inputs |
//! | `reference` | a network's scores in double precision |

mod file;
mod graph;
mod reference;

use std::{io, path::PathBuf};

pub use self::file::Table;

/// Why a model is no network that is computed here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A file is missing or unreadable.
    #[error("{path}: cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no ONNX model.
    #[error("{path}: is no ONNX model")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: onnx_rs::Error,
    },
    /// The graph is another one.
    #[error("the graph is neither Wide & Deep nor DCN-v2 as the trainer writes them: {0}")]
    Graph(String),
    /// A tensor is not what its place in the graph asks for.
    #[error("the tensor `{tensor}` {what}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
}

/// A network: every row's ids name embeddings, which with the dense values are the first layer's input, and weights,
/// which are the wide part.
#[derive(Debug)]
pub struct Network {
    /// Ids of a row.
    pub id_columns: usize,
    /// Dense values of a row, which stand behind the embeddings in the first layer's input.
    pub dense_columns: usize,
    /// What makes an embedding each, in their order in the first layer's input; at least one.
    pub fields: Vec<Field>,
    /// The embeddings `[rows, dimension]`.
    pub embeddings: Table,
    /// The wide weights `[rows, 1]`. Each carries its share of the model's bias, as every row names as many of them.
    pub wide: Table,
    /// The layers before the last one.
    pub layers: Vec<Layer>,
    /// The last layer's weights, one a unit before it. Its sum and the wide part are the logit.
    pub last: Vec<f32>,
}

/// Columns of ids that make one embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The first of them.
    pub first_column: usize,
    /// How many there are, at least one.
    pub columns: usize,
    /// What becomes of their embeddings.
    pub pooling: Pooling,
}

/// How embeddings become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their sum; of a single one, that itself.
    Sum,
    /// Their sum over the number of ids that are above the padding, or over one where none is.
    Mean {
        /// The id that stands for none.
        padding: i32,
    },
}

/// A layer `[inputs, outputs]` and what it does with `sum = input * weights + bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// What it does.
    pub kind: LayerKind,
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
    /// The weights, row-major.
    pub weights: Vec<f32>,
    /// The bias of each output.
    pub bias: Vec<f32>,
}

/// What a layer does with its sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// `max(sum, 0)`.
    Relu,
    /// `first * sum + input`, where `first` is the first layer's input.
    ///
    /// Source: Wang et al., "DCN V2: Improved Deep & Cross Network", 2021, with full matrices.
    Cross,
}

impl Network {
    /// Numbers in the first layer's input, which sizes of a network that was read cannot make overflow.
    pub fn input_width(&self) -> usize {
        self.fields.len() * self.embeddings.dimension() + self.dense_columns
    }
}
