//! Writes a trained model as ONNX, with as few nodes as it can be said in: each costs the runtime about half a
//! microsecond, which is what a ranking model's single row is made of.
//!
//! `ids` -> Gather(wide) -> `ReduceSum` is the wide part, and
//! `ids` -> Gather(embeddings) -> Reshape -> [Concat `dense`] -> (Gemm -> Relu)* -> Gemm -> Sigmoid the deep one, with
//! Gemm -> Mul -> Add for a cross layer, whose
//! last Gemm adds the wide part where a layer adds its bias. Measured with 100,000 rows, 16 numbers each, and layers of
//! 64 and 32 units on one core, in microseconds for a batch of 1 / 8 / 64 / 512 rows:
//!
//! | layout | 1 | 8 | 64 | 512 |
//! |---|---|---|---|---|
//! | wide and deep joined by an Add | 4.4 | 5.0 | 8.6 | 36.5 |
//! | joined by the last Gemm (this one) | 3.9 | 4.4 | 8.0 | 36.2 |
//! | wide weights as a column of the embeddings, carried through the layers | 3.3 | 4.0 | 8.1 | 40.6 |
//! | first layer multiplied into the table | 3.5 | 4.3 | 10.8 | 64.7 |
//!
//! Crosses have no embedding, so where there are any a Slice takes them off the ids first. Where there are lists, the ids
//! are cut into stretches: one of single ids goes on as above, and a list through Slice -> Gather -> `ReduceSum`, and where
//! it is a mean through a Div by the number of its ids that are above its padding, which is the first row of its range.
//! The embedding of the padding is zero, and its wide weight is its share of the bias. Large tables go to a file of their
//! own.

use std::{borrow::Cow, ops::Range, path::Path};

use millrace::{
    features::{ListColumns, Pooling},
    repository::manifest::Manifest,
};
use onnx_rs::ast::{
    Attribute, AttributeType, DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId, TensorProto,
    TensorShape, TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue, ValueInfo,
};

use crate::{
    model::{InputLayout, LayerKind, LayerWeights, Segment, WideDeep},
    onnx_file::{self, FileError},
};

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The files cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes `model` into `folder`, its tables of more than `max_inline_bytes` to a file of their own.
pub fn export(model: &WideDeep, folder: &Path, max_inline_bytes: u64) -> Result<(), ExportError> {
    let plan = Plan::of(model);
    let path = folder.join(Manifest::MODEL);
    onnx_file::write(&plan.model(), &path, max_inline_bytes, |index, to| {
        let written = to.write_all(plan.tensors[index].numbers.bytes());
        Ok(written.map_err(|source| FileError::Write { path: path.clone(), source })?)
    })
}

/// The graph with names and numbers of its own, which the syntax tree then borrows.
struct Plan<'m> {
    columns: usize,
    dense: usize,
    tensors: Vec<Tensor<'m>>,
    nodes: Vec<PlannedNode>,
}

struct Tensor<'m> {
    name: String,
    shape: Vec<i64>,
    numbers: Numbers<'m>,
}

/// What a tensor is made of. Tables are those of the model in training.
enum Numbers<'m> {
    Floats(Cow<'m, [f32]>),
    Integers(Vec<i64>),
    Ids(Vec<i32>),
}

struct PlannedNode {
    kind: OpType<'static>,
    inputs: Vec<String>,
    output: String,
    attributes: Vec<Attribute<'static>>,
}

impl<'m> Plan<'m> {
    fn of(model: &'m WideDeep) -> Self {
        let shape = model.shape();
        let mut plan =
            Self { columns: shape.columns, dense: shape.dense, tensors: Vec::new(), nodes: Vec::new() };
        let layers: Vec<_> = model.network().layers().collect();
        let (last, hidden) = layers.split_last().expect("there is an output layer");
        let wide = plan.wide(model, last.bias[0]);
        let deep = plan.deep_input(model);
        let deep = plan.hidden_layers(&deep, hidden);
        let weights = plan.floats("weights_last", &[last.inputs, last.outputs], last.weights);
        let logit = plan.node(OpType::Gemm, [deep, weights, wide], "logit");
        plan.node(OpType::Sigmoid, [logit], OUTPUT);
        plan
    }

    /// The embeddings of each row side by side, and the dense values after them.
    fn deep_input(&mut self, model: &'m WideDeep) -> String {
        let (shape, table, inputs) = (model.shape(), model.embeddings(), model.inputs());
        let embeddings = self.floats("embeddings", &[shape.deep_rows, table.dimension()], table.weights());
        let mut parts = match inputs.segments() {
            [Segment::Single(columns)] => vec![self.single_ids(&embeddings, columns.len(), inputs)],
            segments => self.segments(&embeddings, segments, inputs),
        };
        if shape.dense > 0 {
            parts.push(DENSE.to_owned());
        }
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let joined = self.node(OpType::Concat, parts, "deep_input");
        self.attribute(integer("axis", 1));
        joined
    }

    /// The embeddings of the first `columns` ids side by side.
    fn single_ids(&mut self, embeddings: &str, columns: usize, inputs: &InputLayout) -> String {
        let ids =
            if columns == self.columns { IDS.to_owned() } else { self.some_ids(0..columns, None, "deep") };
        let gathered = self.node(OpType::Gather, [embeddings.to_owned(), ids], "gathered");
        let flat_shape = self.integers("flat_shape", &[-1, size(columns * inputs.dimension())]);
        self.node(OpType::Reshape, [gathered, flat_shape], "flat")
    }

    /// What each stretch of ids comes to.
    fn segments(&mut self, embeddings: &str, segments: &[Segment], inputs: &InputLayout) -> Vec<String> {
        let axis = self.integers("columns_axis", &[1]);
        let mut parts = Vec::with_capacity(segments.len());
        for (index, segment) in segments.iter().enumerate() {
            let ids = self.some_ids(segment.columns(), Some(&axis), &format!("part_{index}"));
            let gathered = [embeddings.to_owned(), ids.clone()];
            let gathered = self.node(OpType::Gather, gathered, &format!("gathered_{index}"));
            parts.push(match segment {
                Segment::Single(columns) => {
                    let shape = [-1, size(columns.len() * inputs.dimension())];
                    let shape = self.integers(&format!("flat_shape_{index}"), &shape);
                    self.node(OpType::Reshape, [gathered, shape], &format!("flat_{index}"))
                }
                Segment::Pooled(list) => self.pooled(list, [&gathered, &ids, &axis], index),
            });
        }
        parts
    }

    /// The sum or the mean of a list's embeddings, whose padding adds nothing.
    fn pooled(&mut self, list: &ListColumns, [gathered, ids, axis]: [&str; 3], index: usize) -> String {
        let [gathered, ids, axis] = [gathered, ids, axis].map(str::to_owned);
        let sum = self.node(OpType::ReduceSum, [gathered, axis.clone()], &format!("sum_{index}"));
        self.attribute(integer("keepdims", 0));
        if list.list.pooling == Pooling::Sum {
            return sum;
        }
        let padding = i32::try_from(list.padding).expect("a row of a table that ids are of");
        let padding = self.tensor(&format!("padding_{index}"), &[1], Numbers::Ids(vec![padding]));
        let there = self.node(OpType::Greater, [ids, padding], &format!("is_value_{index}"));
        let ones = self.node(OpType::Cast, [there], &format!("values_{index}"));
        self.attribute(integer("to", DataType::Float as i64));
        let count = self.node(OpType::ReduceSum, [ones, axis], &format!("count_{index}"));
        self.attribute(integer("keepdims", 1));
        let one = self.floats(&format!("one_{index}"), &[1], vec![1.0]);
        let divisor = self.node(OpType::Max, [count, one], &format!("divisor_{index}"));
        self.node(OpType::Div, [sum, divisor], &format!("mean_{index}"))
    }

    /// The columns `columns` of the ids, under the name `<name>_ids`; `axis` is the tensor that says 1, where there is one.
    fn some_ids(&mut self, columns: Range<usize>, axis: Option<&str>, name: &str) -> String {
        let start = self.integers(&format!("{name}_start"), &[size(columns.start)]);
        let end = self.integers(&format!("{name}_end"), &[size(columns.end)]);
        let axis = match axis {
            Some(axis) => axis.to_owned(),
            None => self.integers(&format!("{name}_axis"), &[1]),
        };
        self.node(OpType::Slice, [IDS.to_owned(), start, end, axis], &format!("{name}_ids"))
    }

    fn hidden_layers(&mut self, first: &str, layers: &[LayerWeights<'m>]) -> String {
        let mut input = first.to_owned();
        for (index, layer) in layers.iter().enumerate() {
            let weights =
                self.floats(&format!("weights_{index}"), &[layer.inputs, layer.outputs], layer.weights);
            let bias = self.floats(&format!("bias_{index}"), &[layer.outputs], layer.bias);
            let sum = self.node(OpType::Gemm, [input.clone(), weights, bias], &format!("layer_{index}"));
            input = match layer.kind {
                LayerKind::Relu => self.node(OpType::Relu, [sum], &format!("active_{index}")),
                LayerKind::Cross => {
                    let product =
                        self.node(OpType::Mul, [first.to_owned(), sum], &format!("product_{index}"));
                    self.node(OpType::Add, [product, input], &format!("crossed_{index}"))
                }
                LayerKind::Logit => unreachable!("the logit's layer is the last"),
            };
        }
        input
    }

    /// The sum of a row's wide weights and the model's bias. Every row names as many of them as there are columns, so
    /// each carries its share of the bias.
    fn wide(&mut self, model: &WideDeep, bias: f32) -> String {
        let share = bias / self.columns as f32;
        let weights: Vec<f32> = model.wide().weights().iter().map(|weight| weight + share).collect();
        let weights = self.floats("wide", &[weights.len()], weights);
        let gathered = self.node(OpType::Gather, [weights, IDS.to_owned()], "wide_weights");
        let axis = self.integers("wide_axis", &[1]);
        let sum = self.node(OpType::ReduceSum, [gathered, axis], "wide_sum");
        self.attribute(integer("keepdims", 1));
        sum
    }

    fn node(&mut self, kind: OpType<'static>, inputs: impl Into<Vec<String>>, output: &str) -> String {
        let node =
            PlannedNode { kind, inputs: inputs.into(), output: output.to_owned(), attributes: Vec::new() };
        self.nodes.push(node);
        output.to_owned()
    }

    /// Adds an attribute to the node that came last.
    fn attribute(&mut self, attribute: Attribute<'static>) {
        self.nodes.last_mut().expect("an attribute follows its node").attributes.push(attribute);
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: impl Into<Cow<'m, [f32]>>) -> String {
        self.tensor(name, shape, Numbers::Floats(values.into()))
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.tensor(name, &[values.len()], Numbers::Integers(values.to_vec()))
    }

    fn tensor(&mut self, name: &str, shape: &[usize], numbers: Numbers<'m>) -> String {
        let shape = shape.iter().map(|&length| size(length)).collect();
        self.tensors.push(Tensor { name: name.to_owned(), shape, numbers });
        name.to_owned()
    }

    fn model(&self) -> Model<'_> {
        let mut input = vec![value(IDS, DataType::Int32, self.columns)];
        if self.dense > 0 {
            input.push(value(DENSE, DataType::Float, self.dense));
        }
        let graph = Graph {
            name: "ranking",
            node: self.nodes.iter().map(PlannedNode::node).collect(),
            initializer: self.tensors.iter().map(Tensor::proto).collect(),
            doc_string: "The probability that it happens, for each row of a batch.",
            input,
            output: vec![value(OUTPUT, DataType::Float, 1)],
            ..Graph::default()
        };
        Model {
            ir_version: 8,
            opset_import: vec![OperatorSetId { domain: "", version: 17 }],
            producer_name: "millrace-trainer",
            producer_version: env!("CARGO_PKG_VERSION"),
            doc_string: "Wide & Deep, trained for Millrace.",
            graph: Some(graph),
            ..Model::default()
        }
    }
}

impl Tensor<'_> {
    fn proto(&self) -> TensorProto<'_> {
        let kind = match self.numbers {
            Numbers::Floats(_) => DataType::Float,
            Numbers::Integers(_) => DataType::Int64,
            Numbers::Ids(_) => DataType::Int32,
        };
        TensorProto::from_raw(&self.name, self.shape.clone(), kind, self.numbers.bytes())
    }
}

impl Numbers<'_> {
    fn bytes(&self) -> &[u8] {
        const { assert!(cfg!(target_endian = "little"), "ONNX keeps numbers in the order of this machine") };
        match self {
            Self::Floats(values) => bytemuck::cast_slice(values),
            Self::Integers(values) => bytemuck::cast_slice(values),
            Self::Ids(values) => bytemuck::cast_slice(values),
        }
    }
}

impl PlannedNode {
    fn node(&self) -> Node<'_> {
        Node {
            name: &self.output,
            op_type: self.kind.clone(),
            input: self.inputs.iter().map(String::as_str).collect(),
            output: vec![&self.output],
            attribute: self.attributes.clone(),
            ..Node::default()
        }
    }
}

fn integer(name: &'static str, value: i64) -> Attribute<'static> {
    Attribute { name, r#type: AttributeType::Int, i: value, ..Attribute::default() }
}

/// A tensor `[batch, width]` at the graph's edge.
fn value(name: &str, kind: DataType, width: usize) -> ValueInfo<'_> {
    let dimension = |value| TensorShapeDimension { value, ..TensorShapeDimension::default() };
    let dim = vec![dimension(Dimension::Param("batch")), dimension(Dimension::Value(size(width)))];
    let tensor = TensorTypeProto { elem_type: kind, shape: Some(TensorShape { dim }) };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() };
    ValueInfo { name, r#type: Some(kind), ..ValueInfo::default() }
}

fn size(length: usize) -> i64 {
    i64::try_from(length).expect("the size of a table in memory")
}

/// The names at the graph's edge are those of [`millrace::features::Encoder::signature`].
const IDS: &str = "ids";
const DENSE: &str = "dense";
const OUTPUT: &str = "probability";
