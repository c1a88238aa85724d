//! Half precision: a graph of single-precision numbers becomes one whose tables and layers are of half as many bits, for
//! engines on GPUs. Pure: a model in, a model out.
//!
//! What a caller sees stays as it is: ids are integers, dense inputs and the output are single precision. The result is
//! fully typed: every operator's inputs are of one type, and a Cast stands wherever the type changes, so that runtimes
//! that are strongly typed take it as it is.
//!
//! The tail, which makes one number of a row and a probability of that, stays single precision: the last layer or the
//! last sum before the Sigmoid, whatever joins such numbers, and the Sigmoid itself. Half precision keeps 11 bits, so a
//! probability that is computed in it is one of few, and candidates tie. Measured with tract, which rounds after every
//! operator, on 10,000 random rows: the largest and the mean distance from single precision, and how many different
//! scores there are.
//!
//! | in single precision | Wide & Deep | Deep & Cross | two towers |
//! |---|---|---|---|
//! | nothing | 9.1e-4, 1.2e-4, 4100 | 4.4e-4, 1.0e-4, 1146 | 3.4e-4, 1.2e-4, 247 |
//! | the Sigmoid | 9.6e-4, 1.0e-4, 5611 | 2.9e-4, 3.8e-5, 4746 | 1.8e-4, 1.1e-5, 3630 |
//! | and the last layer | 8.0e-4, 6.9e-5, 9883 | 1.6e-4, 2.4e-5, 9994 | 9.7e-5, 7.9e-6, 7470 |
//! | and the wide sum (this one) | 7.9e-4, 6.8e-5, 9879 | as above | as above |

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
};

use half::f16;
use onnx_rs::ast::{
    Attribute, AttributeType, DataLocation, DataType, Graph, Model, Node, OpType, TensorProto,
    TensorTypeProto, TypeProto, TypeValue, ValueInfo,
};

use crate::element_types::{self, TypeError};

/// Why a model cannot be had in half precision.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HalfError {
    /// The model has no graph.
    #[error("the model has no graph")]
    Empty,
    /// The graph has no types, or operators that are not known here.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A number that half precision cannot hold.
    #[error("the tensor `{tensor}` holds {value}, and half precision ends at {}", f16::MAX)]
    Range {
        /// The tensor.
        tensor: String,
        /// The number.
        value: f32,
    },
    /// The numbers cannot be read or written.
    #[error("a table cannot be copied")]
    Copy(#[from] io::Error),
}

/// A model in half precision, with names and numbers of its own, which the syntax tree then borrows.
pub struct HalfPrecision<'m> {
    source: &'m Model<'m>,
    graph: &'m Graph<'m>,
    doc: String,
    steps: Vec<Step>,
    tensors: Vec<Tensor>,
    /// The values between the nodes.
    values: Vec<Value>,
}

/// A node of the new graph.
enum Step {
    /// That of the source, with other names.
    Node { index: usize, inputs: Vec<String>, outputs: Vec<String> },
    /// A change of type.
    Cast { name: String, from: String, to: DataType, output: String },
}

/// What becomes of an initialiser of the source.
enum Tensor {
    /// It stays as it is.
    Kept,
    /// It becomes half precision. Its new bytes are here unless it lies beside the model.
    Halved(Option<Vec<u8>>),
}

/// A value of the new graph, and that of the source which has its shape.
struct Value {
    name: String,
    kind: DataType,
    shape_of: String,
}

impl<'m> HalfPrecision<'m> {
    /// Plans the model. Tables that lie beside it are copied later, by [`HalfPrecision::copy`].
    pub fn of(source: &'m Model<'m>) -> Result<Self, HalfError> {
        let graph = source.graph.as_ref().ok_or(HalfError::Empty)?;
        let Rewrite { halved, steps, values, .. } = Rewrite::of(graph)?;
        let tensor = |tensor: &TensorProto<'_>| match halved.contains(tensor.name()) {
            false => Ok(Tensor::Kept),
            true if tensor.data_location() == DataLocation::External => Ok(Tensor::Halved(None)),
            true => Ok(Tensor::Halved(Some(halve_inline(tensor)?))),
        };
        let tensors = graph.initializer.iter().map(tensor).collect::<Result<_, HalfError>>()?;
        let doc =
            format!("{} Tables and layers are in half precision.", source.doc_string).trim_start().to_owned();
        Ok(Self { source, graph, doc, steps, tensors, values })
    }

    /// The model. Tables that lie beside the source say where, as the source does.
    pub fn model(&self) -> Model<'_> {
        let initializers = self.graph.initializer.iter().zip(&self.tensors);
        let graph = Graph {
            node: self.steps.iter().map(|step| step.node(self.graph)).collect(),
            initializer: initializers.map(|(source, tensor)| tensor.proto(source)).collect(),
            value_info: self.values.iter().map(|value| value.declaration(self.graph)).collect(),
            ..self.graph.clone()
        };
        Model { graph: Some(graph), doc_string: &self.doc, ..self.source.clone() }
    }

    /// Writes the bytes of initialiser `index` of [`HalfPrecision::model`]. `beside` opens the source's bytes of one
    /// that lies beside the source.
    pub fn copy<R: Read, E: From<HalfError>>(
        &self,
        index: usize,
        beside: impl FnOnce(&TensorProto<'m>) -> Result<R, E>,
        to: &mut dyn Write,
    ) -> Result<(), E> {
        let source = &self.graph.initializer[index];
        let copied = match &self.tensors[index] {
            Tensor::Halved(Some(bytes)) => to.write_all(bytes).map_err(HalfError::Copy),
            Tensor::Halved(None) => halve(source.name(), beside(source)?, to),
            Tensor::Kept => match source.as_raw() {
                Some(bytes) => to.write_all(bytes).map_err(HalfError::Copy),
                None => io::copy(&mut beside(source)?, to).map(drop).map_err(HalfError::Copy),
            },
        };
        Ok(copied?)
    }
}

/// Copies single-precision numbers as half-precision ones, both little-endian. Fails on a number that half precision
/// cannot hold; what is too small for it becomes 0, which is closer than it can tell.
fn halve(tensor: &str, mut from: impl Read, to: &mut dyn Write) -> Result<(), HalfError> {
    const CHUNK_BYTES: u64 = 1 << 16;
    let mut single = Vec::new();
    let mut halves = Vec::new();
    while from.by_ref().take(CHUNK_BYTES).read_to_end(&mut single)? > 0 {
        let (numbers, _) = single.as_chunks();
        for &number in numbers {
            halves.extend(half(tensor, f32::from_le_bytes(number))?);
        }
        to.write_all(&halves)?;
        single.clear();
        halves.clear();
    }
    Ok(())
}

fn halve_inline(tensor: &TensorProto<'_>) -> Result<Vec<u8>, HalfError> {
    let numbers = tensor.as_f32().unwrap_or_default();
    let mut halves = Vec::with_capacity(numbers.len() * 2);
    for &number in &*numbers {
        halves.extend(half(tensor.name(), number)?);
    }
    Ok(halves)
}

fn half(tensor: &str, value: f32) -> Result<[u8; 2], HalfError> {
    let half = f16::from_f32(value);
    if half.is_finite() {
        Ok(half.to_le_bytes())
    } else {
        Err(HalfError::Range { tensor: tensor.to_owned(), value })
    }
}

/// The rewriting of a graph, node by node.
struct Rewrite<'g> {
    outputs: BTreeSet<&'g str>,
    /// The initialisers that become half precision.
    halved: BTreeSet<&'g str>,
    /// The new type of each value of the source.
    types: BTreeMap<&'g str, DataType>,
    /// What values of the source are called now, where that is something else.
    renamed: BTreeMap<&'g str, String>,
    /// The casts that there are, by what they are of: from one precision there is but one other to cast to.
    casts: BTreeMap<&'g str, String>,
    names: BTreeSet<String>,
    steps: Vec<Step>,
    values: Vec<Value>,
}

impl<'g> Rewrite<'g> {
    fn of(graph: &'g Graph<'_>) -> Result<Self, HalfError> {
        let mut types: BTreeMap<&'g str, DataType> = element_types::infer(graph)?;
        let kinds = kinds(graph, &types);
        let mut rewrite = Self {
            outputs: graph.output.iter().map(|output| output.name).collect(),
            names: types
                .keys()
                .copied()
                .chain(graph.node.iter().map(|node| node.name))
                .map(str::to_owned)
                .collect(),
            halved: halved(graph, &kinds)?,
            types: BTreeMap::new(),
            renamed: BTreeMap::new(),
            casts: BTreeMap::new(),
            steps: Vec::new(),
            values: Vec::new(),
        };
        types.extend(rewrite.halved.iter().map(|&name| (name, DataType::Float16)));
        for (node, kind) in graph.node.iter().zip(&kinds) {
            types.extend(node.output.iter().filter_map(|&name| Some((name, (*kind)?))));
        }
        rewrite.types = types;
        for (index, (node, kind)) in graph.node.iter().zip(kinds).enumerate() {
            rewrite.node(index, node, kind)?;
        }
        Ok(rewrite)
    }

    /// Adds a node that computes in `kind`, and the casts that it needs before and after it.
    fn node(&mut self, index: usize, node: &'g Node<'_>, kind: Option<DataType>) -> Result<(), HalfError> {
        let computed = element_types::computed(node)?.len();
        let inputs = node.input.iter().enumerate().map(|(position, &name)| match kind {
            Some(kind) if position < computed => self.as_type(name, kind),
            _ => self.current(name),
        });
        let inputs = inputs.collect();
        let at_the_edge =
            |rewrite: &Self, name| rewrite.outputs.contains(name) && kind == Some(DataType::Float16);
        for &name in &node.output {
            if at_the_edge(self, name) {
                let inner = self.fresh(name, "half");
                self.renamed.insert(name, inner);
            }
        }
        let outputs = node.output.iter().map(|name| self.current(name)).collect();
        self.steps.push(Step::Node { index, inputs, outputs });
        for &name in &node.output {
            let current = self.current(name);
            if at_the_edge(self, name) {
                self.casts.insert(name, name.to_owned());
                let (cast, from, output) = (self.fresh(name, "cast"), current.clone(), name.to_owned());
                self.steps.push(Step::Cast { name: cast, from, to: DataType::Float, output });
            }
            if !self.outputs.contains(&*current) {
                self.values.push(Value { name: current, kind: self.types[name], shape_of: name.to_owned() });
            }
        }
        Ok(())
    }

    /// The name of a value of the source.
    fn current(&self, name: &str) -> String {
        self.renamed.get(name).map_or(name, String::as_str).to_owned()
    }

    /// The name under which a value of the source is to be had as `kind`, after a cast where it needs one.
    fn as_type(&mut self, name: &'g str, kind: DataType) -> String {
        // An input that is left out has an empty name.
        if name.is_empty() || self.types[name] == kind {
            return self.current(name);
        }
        if let Some(cast) = self.casts.get(name) {
            return cast.clone();
        }
        let output = self.fresh(name, if kind == DataType::Float16 { "half" } else { "single" });
        let (cast, from) = (output.clone(), self.current(name));
        self.steps.push(Step::Cast { name: cast, from, to: kind, output: output.clone() });
        self.values.push(Value { name: output.clone(), kind, shape_of: name.to_owned() });
        self.casts.insert(name, output.clone());
        output
    }

    /// A name that neither a value nor a node has yet.
    fn fresh(&mut self, name: &str, suffix: &str) -> String {
        let mut fresh = format!("{name}_{suffix}");
        while !self.names.insert(fresh.clone()) {
            fresh.push('_');
        }
        fresh
    }
}

/// In which precision each node computes; `None` where it computes no such numbers.
fn kinds(graph: &Graph<'_>, types: &BTreeMap<&str, DataType>) -> Vec<Option<DataType>> {
    let tail = tail(graph);
    let kind = |(index, node): (usize, &Node<'_>)| {
        let stays = tail.contains(&index) || node.op_type == OpType::Cast;
        let floats = node.output.iter().any(|name| types[name] == DataType::Float);
        floats.then_some(if stays { DataType::Float } else { DataType::Float16 })
    };
    graph.node.iter().enumerate().map(kind).collect()
}

/// The initialisers that a node in half precision computes with.
fn halved<'g>(graph: &'g Graph<'_>, kinds: &[Option<DataType>]) -> Result<BTreeSet<&'g str>, TypeError> {
    let mut halved = BTreeSet::new();
    for (node, _) in graph.node.iter().zip(kinds).filter(|(_, kind)| **kind == Some(DataType::Float16)) {
        halved.extend(element_types::computed(node)?.iter().copied());
    }
    let floats = graph.initializer.iter().filter(|tensor| tensor.data_type() == DataType::Float);
    Ok(floats.map(TensorProto::name).filter(|name| halved.contains(name)).collect())
}

/// The nodes that stay single precision: from each Sigmoid at the graph's edge back to the operators that make one
/// number of a row.
fn tail(graph: &Graph<'_>) -> BTreeSet<usize> {
    let makers = graph.node.iter().enumerate();
    let makers: BTreeMap<&str, usize> =
        makers.flat_map(|(index, node)| node.output.iter().map(move |&name| (name, index))).collect();
    let mut tail = BTreeSet::new();
    let outputs = graph.output.iter().filter_map(|output| makers.get(output.name).copied());
    let mut open: Vec<usize> =
        outputs.filter(|&index| graph.node[index].op_type == OpType::Sigmoid).collect();
    while let Some(index) = open.pop() {
        let node = &graph.node[index];
        let goes_on = match node.op_type {
            // These keep the numbers of rows apart, or join some of the same row.
            OpType::Sigmoid
            | OpType::Add
            | OpType::Sub
            | OpType::Mul
            | OpType::Div
            | OpType::Sum
            | OpType::Identity
            | OpType::Reshape
            | OpType::Squeeze
            | OpType::Unsqueeze
            | OpType::Flatten => &node.input[..],
            // The third is added.
            OpType::Gemm => node.input.get(2..).unwrap_or_default(),
            OpType::MatMul | OpType::ReduceSum => &[],
            _ => continue,
        };
        if tail.insert(index) {
            open.extend(goes_on.iter().filter_map(|name| makers.get(name)));
        }
    }
    tail
}

impl Step {
    fn node<'a>(&'a self, graph: &'a Graph<'a>) -> Node<'a> {
        let names = |names: &'a [String]| names.iter().map(String::as_str).collect();
        match self {
            Self::Node { index, inputs, outputs } => {
                Node { input: names(inputs), output: names(outputs), ..graph.node[*index].clone() }
            }
            Self::Cast { name, from, to, output } => Node {
                name,
                op_type: OpType::Cast,
                input: vec![from],
                output: vec![output],
                attribute: vec![Attribute {
                    name: "to",
                    r#type: AttributeType::Int,
                    i: *to as i64,
                    ..Attribute::default()
                }],
                ..Node::default()
            },
        }
    }
}

impl Tensor {
    fn proto<'a>(&'a self, source: &TensorProto<'a>) -> TensorProto<'a> {
        let halved = |bytes| {
            TensorProto::from_raw(source.name(), source.dims().to_vec(), DataType::Float16, bytes)
                .with_doc_string(source.doc_string())
        };
        match self {
            Self::Kept => source.clone(),
            Self::Halved(Some(bytes)) => halved(bytes),
            Self::Halved(None) => halved(&[])
                .with_data_location(DataLocation::External)
                .with_external_data(source.external_data().to_vec()),
        }
    }
}

impl Value {
    fn declaration<'a>(&'a self, graph: &'a Graph<'a>) -> ValueInfo<'a> {
        let known = graph.value_info.iter().chain(&graph.input).chain(&graph.output);
        let known = known.filter(|known| known.name == self.shape_of);
        let shape = known.filter_map(|known| match known.r#type.as_ref()?.value.as_ref()? {
            TypeValue::Tensor(tensor) => tensor.shape.clone(),
            _ => None,
        });
        let tensor = TensorTypeProto { elem_type: self.kind, shape: { shape }.next() };
        let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() };
        ValueInfo { name: &self.name, r#type: Some(kind), ..ValueInfo::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op_type: OpType<'static>, input: &[&'static str], output: &'static str) -> Node<'static> {
        Node { name: output, op_type, input: input.to_vec(), output: vec![output], ..Node::default() }
    }

    fn edge(name: &'static str) -> ValueInfo<'static> {
        let tensor = TensorTypeProto { elem_type: DataType::Float, shape: None };
        let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() };
        ValueInfo { name, r#type: Some(kind), ..ValueInfo::default() }
    }

    /// A model of dense inputs, with a tensor `weights` of one number.
    fn model(node: Vec<Node<'static>>, output: &'static str, weight: f32) -> Model<'static> {
        let graph = Graph {
            node,
            initializer: vec![TensorProto::from_f32("weights", vec![1, 1], vec![weight])],
            input: vec![edge("dense")],
            output: vec![edge(output)],
            ..Graph::default()
        };
        Model { graph: Some(graph), ..Model::default() }
    }

    /// The nodes of the model in half precision, a line each; it must be typed, and no two may have one name.
    fn halved(model: &Model<'_>) -> Vec<String> {
        let half = HalfPrecision::of(model).expect("in half precision");
        let half = half.model();
        let graph = half.graph.as_ref().expect("a graph");
        let types = element_types::infer(graph).expect("typed");
        let names: BTreeSet<_> = graph.node.iter().map(|node| node.name).collect();
        assert_eq!(names.len(), graph.node.len(), "{names:?}");
        let line = |node: &Node<'_>| {
            let kind = types[node.output[0]];
            format!("{:?} {} = {} {}", kind, node.output[0], node.op_type, node.input.join(" "))
        };
        graph.node.iter().map(line).collect()
    }

    #[test]
    fn a_value_is_cast_once_to_a_type_and_only_where_the_type_changes() {
        let model = model(
            vec![
                node(OpType::MatMul, &["dense", "weights"], "layer"),
                node(OpType::Relu, &["layer"], "active"),
                node(OpType::Mul, &["active", "dense"], "crossed"),
                node(OpType::Gemm, &["crossed", "weights", "active"], "logit"),
                node(OpType::Add, &["logit", "active"], "sum"),
                node(OpType::Sigmoid, &["sum"], "probability"),
            ],
            "probability",
            0.5,
        );
        let expected = [
            "Float16 dense_half = Cast dense",
            "Float16 layer = MatMul dense_half weights",
            "Float16 active = Relu layer",
            "Float16 crossed = Mul active dense_half",
            "Float crossed_single = Cast crossed",
            "Float weights_single = Cast weights",
            "Float active_single = Cast active",
            "Float logit = Gemm crossed_single weights_single active_single",
            "Float sum = Add logit active_single",
            "Float probability = Sigmoid sum",
        ];
        assert_eq!(halved(&model), expected);
    }

    #[test]
    fn an_output_that_is_no_probability_is_cast_under_its_own_name() {
        let model = model(
            vec![
                node(OpType::MatMul, &["dense", "weights"], "vector"),
                node(OpType::Relu, &["vector"], "vector_half"),
            ],
            "vector",
            0.5,
        );
        let expected = [
            "Float16 dense_half = Cast dense",
            "Float16 vector_half_ = MatMul dense_half weights",
            "Float vector = Cast vector_half_",
            "Float16 vector_half = Relu vector_half_",
        ];
        assert_eq!(halved(&model), expected);
    }

    #[test]
    fn weights_that_only_the_tail_reads_keep_every_bit() {
        let tail = vec![
            node(OpType::Gemm, &["dense", "weights"], "logit"),
            node(OpType::Sigmoid, &["logit"], "probability"),
        ];
        let model = model(tail, "probability", 1e6);
        assert_eq!(halved(&model).len(), 2, "there is nothing to cast");
    }

    #[test]
    fn a_number_beyond_the_range_is_an_error_and_never_an_infinity() {
        for weight in [65_520.0, -1e9, f32::INFINITY, f32::NAN] {
            let model = model(vec![node(OpType::MatMul, &["dense", "weights"], "vector")], "vector", weight);
            let error = HalfPrecision::of(&model).map(drop).expect_err("out of range").to_string();
            assert_eq!(
                error,
                format!("the tensor `weights` holds {weight}, and half precision ends at 65504")
            );
        }
        assert_eq!(half("weights", 65_519.0).expect("rounds down"), f16::MAX.to_le_bytes());
        assert_eq!(half("weights", 1e-9).expect("next to nothing"), [0, 0]);
    }

    #[test]
    fn tables_are_copied_through_a_small_buffer() {
        let numbers: Vec<f32> = (0..40_000).map(|number| number as f32 / 64.0).collect();
        let single: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut halves = Vec::new();
        halve("table", &single[..], &mut halves).expect("in range");
        let expected: Vec<u8> =
            numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect();
        assert!(halves == expected);
    }

    #[test]
    fn an_operator_without_a_rule_is_refused() {
        let model = model(vec![node(OpType::Conv, &["dense", "weights"], "image")], "image", 0.5);
        let error = HalfPrecision::of(&model).map(drop).expect_err("no rule").to_string();
        assert!(error.contains("the operator Conv"), "{error}");
    }
}
