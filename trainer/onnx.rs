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
//! Crosses have no embedding, so where there are any a Slice takes them off the ids first. A list goes from the ids
//! through Slice -> Gather -> `ReduceSum`, and where it is a mean through a Div by the number of its ids that are above
//! its padding, which is the first row of its range. The embedding of the padding is zero, and its wide weight is its
//! share of the bias.
//!
//! Two towers are apart until they are multiplied: what the user's needs is called `user_...`, ends in `user_vector`
//! and `user_bias`, and reads the columns of the user alone, and so with the item's. The logit is the product of the
//! vectors and both biases; the scale is in the user's vector. Large tables go to a file of their own.
//!
//! Wide & Deep whose columns are each the user's or the item's alone can be taken apart as well, at its first layer, which is
//! the sum of what it makes of either side. So written beside the model, what an item comes to need not be computed again
//! for each user.

use std::{borrow::Cow, path::Path};

use millrace::{
    engine::PairEngine,
    features::{ListColumns, Pooling},
    repository::manifest::Manifest,
};
use onnx_rs::ast::{
    Attribute, AttributeType, DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId, TensorProto,
    TensorShape, TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue, ValueInfo,
};

use crate::{
    model::{Deep, InputLayout, LayerKind, LayerWeights, ModelShape, Tower, Towers, TwoTowers, WideDeep},
    onnx_file::{self, FileError},
    tower_files::{self, Sides},
};

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The files cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes `model` into `folder`, its tables of more than `max_inline_bytes` to a file of their own; and where it knows its
/// users and items apart, which `sides` tells of a model that has no towers, what each side comes to, and what both together,
/// to files as well.
pub fn export(
    model: &WideDeep,
    sides: Option<&Towers>,
    folder: &Path,
    max_inline_bytes: u64,
) -> Result<(), ExportError> {
    let plan = Plan::of(model);
    let path = folder.join(Manifest::MODEL);
    onnx_file::write::<ExportError>(&plan.model(), &path, max_inline_bytes, |index, to| {
        let written = to.write_all(plan.tensors[index].numbers.bytes());
        Ok(written.map_err(|source| FileError::Write { path: path.clone(), source })?)
    })?;
    if let Some(split) = Split::of(model, sides) {
        let (whole, pairs, width) = (&split.whole.model(), &split.pairs.model(), split.width);
        tower_files::write(folder, &Sides { whole, pairs, width })?;
    }
    Ok(())
}

/// A model with its sides apart: the graph that makes the vector and the bias of each, and the one that goes on from those
/// of a user and of many items.
struct Split<'m> {
    whole: Plan<'m>,
    pairs: Plan<'m>,
    /// Numbers in a vector.
    width: usize,
}

impl<'m> Split<'m> {
    /// `None` where the model looks at both sides together: it crosses them, or it has features of one alone.
    fn of(model: &'m WideDeep, sides: Option<&Towers>) -> Option<Self> {
        match model.deep() {
            Deep::Towers(towers) => {
                let width = towers.outputs();
                Some(Self { whole: Plan::of(model), pairs: Plan::products(width), width })
            }
            Deep::Layers(tower) => Self::of_layers(model, tower, sides?),
        }
    }

    /// The first layer is a sum over its inputs, and so the sum of what it makes of the user's and of the item's.
    fn of_layers(model: &'m WideDeep, tower: &'m Tower, sides: &Towers) -> Option<Self> {
        let layers: Vec<_> = tower.network().layers().collect();
        let (first, rest) = layers.split_first().filter(|(first, _)| first.kind == LayerKind::Relu)?;
        let shape = model.shape();
        let dimension = model.embeddings().dimension();
        let inputs = [&sides.user, &sides.item].map(|side| {
            InputLayout::new(side.ids.iter().copied(), &shape.lists, side.dense.iter().copied(), dimension)
        });
        let is_whole = inputs.iter().all(|inputs| inputs.width() > 0)
            && [&sides.user, &sides.item].iter().all(|side| !side.wide().is_empty());
        if !is_whole {
            return None;
        }
        let mut whole = Plan::new("Wide & Deep with its sides apart, trained for Millrace.", shape);
        let last = rest.last().expect("there is an output layer");
        let wide = whole.wide(model, last.bias[0]);
        let embeddings = whole.embeddings(model);
        let nothing = vec![0.0; first.outputs];
        let parts = [("user_", &sides.user, first.bias.to_vec()), ("item_", &sides.item, nothing)];
        for ((prefix, side, bias), inputs) in parts.into_iter().zip(&inputs) {
            let deep = whole.deep_input(&embeddings, inputs, prefix);
            let places = tower.inputs().places_of(inputs).into_iter();
            let weights: Vec<f32> = places
                .flat_map(|place| &first.weights[place * first.outputs..][..first.outputs])
                .copied()
                .collect();
            let shape = [inputs.width(), first.outputs];
            let weights = whole.floats(&format!("{prefix}weights_0"), &shape, weights);
            let bias = whole.floats(&format!("{prefix}bias_0"), &[first.outputs], bias);
            whole.node(OpType::Gemm, [deep, weights, bias], &format!("{prefix}vector"));
            whole.wide_sum(&wide, &side.wide(), (prefix, &format!("{prefix}bias")));
        }
        let width = first.outputs;
        Some(Self { whole, pairs: Plan::layers_of_pairs(width, rest), width })
    }
}

/// The graph with names and numbers of its own, which the syntax tree then borrows.
struct Plan<'m> {
    doc: &'static str,
    /// The names, types and widths of the inputs, and whether each is of one row alone.
    inputs: Vec<PlannedInput>,
    output: &'static str,
    columns: usize,
    dense: usize,
    tensors: Vec<Tensor<'m>>,
    nodes: Vec<PlannedNode>,
}

struct PlannedInput {
    name: &'static str,
    kind: DataType,
    width: usize,
    /// Whether it is of one row, and not of a batch.
    is_single: bool,
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
        let doc = match model.deep() {
            Deep::Layers(_) => "Wide & Deep, trained for Millrace.",
            Deep::Towers(_) => "Two towers, trained for Millrace.",
        };
        let mut plan = Self::new(doc, shape);
        let logit = match model.deep() {
            Deep::Layers(tower) => plan.layers(model, tower),
            Deep::Towers(towers) => plan.towers(model, towers),
        };
        plan.node(OpType::Sigmoid, [logit], OUTPUT);
        plan
    }

    /// A graph of nothing yet, which takes rows.
    fn new(doc: &'static str, shape: &ModelShape) -> Self {
        let batch = |name, kind, width| PlannedInput { name, kind, width, is_single: false };
        let mut inputs = vec![batch(IDS, DataType::Int32, shape.columns)];
        if shape.dense > 0 {
            inputs.push(batch(DENSE, DataType::Float, shape.dense));
        }
        let (columns, dense) = (shape.columns, shape.dense);
        Self { doc, inputs, output: OUTPUT, columns, dense, tensors: Vec::new(), nodes: Vec::new() }
    }

    /// A graph of nothing yet, which takes the vector of a user and those of items, of so many numbers, with their biases.
    fn of_pairs(width: usize) -> Self {
        let [user_vector, user_bias, item_vector, item_bias] = PairEngine::INPUTS;
        let input = |name, width, is_single| PlannedInput { name, kind: DataType::Float, width, is_single };
        let inputs = vec![
            input(user_vector, width, true),
            input(user_bias, 1, true),
            input(item_vector, width, false),
            input(item_bias, 1, false),
        ];
        let doc = "The logits of a user with items, trained for Millrace.";
        let (tensors, nodes) = (Vec::new(), Vec::new());
        Self { doc, inputs, output: PairEngine::OUTPUT, columns: 0, dense: 0, tensors, nodes }
    }

    /// The biases of a user with each item.
    fn pair_biases(&mut self) -> String {
        let [_, user_bias, _, item_bias] = PairEngine::INPUTS.map(str::to_owned);
        self.node(OpType::Add, [item_bias, user_bias], "biases")
    }

    /// The logits of two towers: a product with each item's vector.
    fn products(width: usize) -> Self {
        let mut plan = Self::of_pairs(width);
        let biases = plan.pair_biases();
        let [user_vector, _, item_vector, _] = PairEngine::INPUTS.map(str::to_owned);
        plan.node(OpType::Gemm, [item_vector, user_vector, biases], PairEngine::OUTPUT);
        plan.attribute(integer("transB", 1));
        plan
    }

    /// The logits of the layers behind the first one, which the vectors are the halves of.
    fn layers_of_pairs(width: usize, rest: &[LayerWeights<'m>]) -> Self {
        let (last, hidden) = rest.split_last().expect("there is an output layer");
        let mut plan = Self::of_pairs(width);
        let [user_vector, _, item_vector, _] = PairEngine::INPUTS.map(str::to_owned);
        let sum = plan.node(OpType::Add, [item_vector, user_vector], "layer_0");
        let first = plan.node(OpType::Relu, [sum], "active_0");
        let deep = plan.hidden_layers(&first, hidden, "pair_");
        let weights = plan.floats("weights_last", &[last.inputs, last.outputs], last.weights);
        let biases = plan.pair_biases();
        plan.node(OpType::Gemm, [deep, weights, biases], PairEngine::OUTPUT);
        plan
    }

    /// The logit of a model of one network.
    fn layers(&mut self, model: &'m WideDeep, tower: &'m Tower) -> String {
        let layers: Vec<_> = tower.network().layers().collect();
        let (last, hidden) = layers.split_last().expect("there is an output layer");
        let wide = self.wide(model, last.bias[0]);
        let columns: Vec<usize> = (0..self.columns).collect();
        let wide = self.wide_sum(&wide, &columns, ("", "wide_sum"));
        let embeddings = self.embeddings(model);
        let deep = self.deep_input(&embeddings, tower.inputs(), "");
        let deep = self.hidden_layers(&deep, hidden, "");
        let weights = self.floats("weights_last", &[last.inputs, last.outputs], last.weights);
        self.node(OpType::Gemm, [deep, weights, wide], "logit")
    }

    /// The logit of a model of two towers: the products of their numbers added up by a Gemm, which adds the biases of both
    /// sides as well. (TensorRT-RTX 1.7.1 cannot compile a `ReduceSum` in its place.)
    fn towers(&mut self, model: &'m WideDeep, towers: &'m TwoTowers) -> String {
        let columns = model.shape().towers.as_ref().expect("two towers have columns of their own");
        let (scale, bias) = towers.scale_and_bias();
        let wide = self.wide(model, bias);
        let embeddings = self.embeddings(model);
        let user = self.vector(&embeddings, towers.user(), scale, "user_");
        let item = self.vector(&embeddings, towers.item(), 1.0, "item_");
        let products = self.node(OpType::Mul, [user, item], "products");
        let user = self.wide_sum(&wide, &columns.user.wide(), ("user_", "user_bias"));
        let item = self.wide_sum(&wide, &columns.item.wide(), ("item_", "item_bias"));
        let biases = self.node(OpType::Add, [user, item], "biases");
        let ones = self.floats("ones", &[towers.outputs(), 1], vec![1.0; towers.outputs()]);
        self.node(OpType::Gemm, [products, ones, biases], "logit")
    }

    /// The vector that a tower makes, times `scale`, under the name `vector` behind `prefix`.
    fn vector(&mut self, embeddings: &str, tower: &'m Tower, scale: f32, prefix: &str) -> String {
        let layers: Vec<_> = tower.network().layers().collect();
        let (last, hidden) = layers.split_last().expect("there is an output layer");
        let deep = self.deep_input(embeddings, tower.inputs(), prefix);
        let deep = self.hidden_layers(&deep, hidden, prefix);
        let scaled = |numbers: &[f32]| -> Vec<f32> { numbers.iter().map(|number| scale * number).collect() };
        let shape = [last.inputs, last.outputs];
        let weights = self.floats(&format!("{prefix}weights_last"), &shape, scaled(last.weights));
        let bias = self.floats(&format!("{prefix}bias_last"), &[last.outputs], scaled(last.bias));
        self.node(OpType::Gemm, [deep, weights, bias], &format!("{prefix}vector"))
    }

    /// The embedding table.
    fn embeddings(&mut self, model: &'m WideDeep) -> String {
        let table = model.embeddings();
        self.floats("embeddings", &[model.shape().deep_rows, table.dimension()], table.weights())
    }

    /// What a network sees of each row.
    fn deep_input(&mut self, embeddings: &str, inputs: &InputLayout, prefix: &str) -> String {
        let mut parts = Vec::new();
        let singles = inputs.singles();
        if !singles.is_empty() {
            let ids = self.select((IDS, self.columns), &singles, &format!("{prefix}deep"));
            let gathered = [embeddings.to_owned(), ids];
            let gathered = self.node(OpType::Gather, gathered, &format!("{prefix}gathered"));
            let shape = [-1, size(singles.len() * inputs.dimension())];
            let shape = self.integers(&format!("{prefix}flat_shape"), &shape);
            parts.push(self.node(OpType::Reshape, [gathered, shape], &format!("{prefix}flat")));
        }
        for (index, list) in inputs.lists().iter().enumerate() {
            parts.push(self.pooled(embeddings, list, &format!("{prefix}list_{index}")));
        }
        let dense = inputs.dense();
        if !dense.is_empty() {
            parts.push(self.select((DENSE, self.dense), &dense, &format!("{prefix}own")));
        }
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let joined = self.node(OpType::Concat, parts, &format!("{prefix}deep_input"));
        self.attribute(integer("axis", 1));
        joined
    }

    /// The columns `columns`, which ascend, of an input of so many: all of it, or a part under a name from `name`.
    fn select(&mut self, (input, width): (&str, usize), columns: &[usize], name: &str) -> String {
        let (first, count) = (columns[0], columns.len());
        if count == width {
            return input.to_owned();
        }
        let output = format!("{name}_{input}");
        if columns[count - 1] - first + 1 == count {
            let start = self.integers(&format!("{name}_start"), &[size(first)]);
            let end = self.integers(&format!("{name}_end"), &[size(first + count)]);
            let axis = self.integers(&format!("{name}_axis"), &[1]);
            return self.node(OpType::Slice, [input.to_owned(), start, end, axis], &output);
        }
        let columns: Vec<i64> = columns.iter().map(|&column| size(column)).collect();
        let columns = self.integers(&format!("{name}_columns"), &columns);
        let selected = self.node(OpType::Gather, [input.to_owned(), columns], &output);
        self.attribute(integer("axis", 1));
        selected
    }

    /// The sum or the mean of the embeddings of a list's ids; its padding adds nothing.
    fn pooled(&mut self, embeddings: &str, list: &ListColumns, name: &str) -> String {
        let columns: Vec<usize> = list.columns().collect();
        let ids = self.select((IDS, self.columns), &columns, name);
        let gathered = [embeddings.to_owned(), ids.clone()];
        let gathered = self.node(OpType::Gather, gathered, &format!("{name}_gathered"));
        let axis = self.integers(&format!("{name}_values_axis"), &[1]);
        let sum = self.node(OpType::ReduceSum, [gathered, axis.clone()], &format!("{name}_sum"));
        self.attribute(integer("keepdims", 0));
        if list.list.pooling == Pooling::Sum {
            return sum;
        }
        let padding = i32::try_from(list.padding).expect("a row of a table that ids are of");
        let padding = self.tensor(&format!("{name}_padding"), &[1], Numbers::Ids(vec![padding]));
        let there = self.node(OpType::Greater, [ids, padding], &format!("{name}_is_value"));
        let ones = self.node(OpType::Cast, [there], &format!("{name}_values"));
        self.attribute(integer("to", DataType::Float as i64));
        let count = self.node(OpType::ReduceSum, [ones, axis], &format!("{name}_count"));
        self.attribute(integer("keepdims", 1));
        let one = self.floats(&format!("{name}_one"), &[1], vec![1.0]);
        let divisor = self.node(OpType::Max, [count, one], &format!("{name}_divisor"));
        self.node(OpType::Div, [sum, divisor], &format!("{name}_mean"))
    }

    fn hidden_layers(&mut self, first: &str, layers: &[LayerWeights<'m>], prefix: &str) -> String {
        let mut input = first.to_owned();
        for (index, layer) in layers.iter().enumerate() {
            let weights = self.floats(
                &format!("{prefix}weights_{index}"),
                &[layer.inputs, layer.outputs],
                layer.weights,
            );
            let bias = self.floats(&format!("{prefix}bias_{index}"), &[layer.outputs], layer.bias);
            let sum =
                self.node(OpType::Gemm, [input.clone(), weights, bias], &format!("{prefix}layer_{index}"));
            input = match layer.kind {
                LayerKind::Relu => self.node(OpType::Relu, [sum], &format!("{prefix}active_{index}")),
                LayerKind::Cross => {
                    let product =
                        self.node(OpType::Mul, [first.to_owned(), sum], &format!("{prefix}product_{index}"));
                    self.node(OpType::Add, [product, input], &format!("{prefix}crossed_{index}"))
                }
                LayerKind::Linear => unreachable!("what a network comes to is its last layer's"),
            };
        }
        input
    }

    /// The wide weights and the model's bias. Every row names as many weights as there are columns, so each carries its
    /// share of the bias.
    fn wide(&mut self, model: &WideDeep, bias: f32) -> String {
        let share = bias / self.columns as f32;
        let weights: Vec<f32> = model.wide().weights().iter().map(|weight| weight + share).collect();
        self.floats("wide", &[weights.len()], weights)
    }

    /// The sum of the wide weights that a row names in `columns`, with their share of the bias, called `output`.
    fn wide_sum(&mut self, wide: &str, columns: &[usize], (prefix, output): (&str, &str)) -> String {
        let ids = self.select((IDS, self.columns), columns, &format!("{prefix}biased"));
        let gathered = [wide.to_owned(), ids];
        let gathered = self.node(OpType::Gather, gathered, &format!("{prefix}wide_weights"));
        let axis = self.integers(&format!("{prefix}wide_axis"), &[1]);
        let sum = self.node(OpType::ReduceSum, [gathered, axis], output);
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
        let graph = Graph {
            name: "ranking",
            node: self.nodes.iter().map(PlannedNode::node).collect(),
            initializer: self.tensors.iter().map(Tensor::proto).collect(),
            doc_string: "The probability that it happens, for each row of a batch.",
            input: self.inputs.iter().map(PlannedInput::value).collect(),
            output: vec![value(self.output, DataType::Float, 1)],
            ..Graph::default()
        };
        Model {
            ir_version: 8,
            opset_import: vec![OperatorSetId { domain: "", version: 17 }],
            producer_name: "millrace-trainer",
            producer_version: env!("CARGO_PKG_VERSION"),
            doc_string: self.doc,
            graph: Some(graph),
            ..Model::default()
        }
    }
}

impl PlannedInput {
    fn value(&self) -> ValueInfo<'static> {
        let batch = if self.is_single { Dimension::Value(1) } else { Dimension::Param("batch") };
        typed(self.name, self.kind, [batch, Dimension::Value(size(self.width))])
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
pub(crate) fn value(name: &str, kind: DataType, width: usize) -> ValueInfo<'_> {
    typed(name, kind, [Dimension::Param("batch"), Dimension::Value(size(width))])
}

fn typed<'a>(name: &'a str, kind: DataType, shape: [Dimension<'a>; 2]) -> ValueInfo<'a> {
    let dimension = |value| TensorShapeDimension { value, ..TensorShapeDimension::default() };
    let dim = shape.map(dimension).into();
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
