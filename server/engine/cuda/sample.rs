//! Networks for tests, of every shape that there is, and rows for them.

use onnx_rs::ast::{
    Attribute, AttributeType, DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId, TensorProto,
    TensorShape, TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue, ValueInfo,
};

use crate::{
    engine::{
        Network,
        network::{Field, Layer, LayerKind, Pooling, Table},
    },
    tensor::{DType, Rows, Signature, TensorSpec},
};

/// One of each kind.
pub(crate) fn all() -> Vec<Network> {
    vec![wide_and_deep(), deep_and_cross(), lists(), without_layers()]
}

/// Three ids with embeddings, a fourth with a wide weight alone, two dense values, two layers.
pub(crate) fn wide_and_deep() -> Network {
    let fields = (0..3).map(single).collect();
    network(fields, [4, 2, 5], &[(LayerKind::Relu, 9), (LayerKind::Relu, 6)])
}

/// Two cross layers, and one of units behind them.
pub(crate) fn deep_and_cross() -> Network {
    let fields = (0..2).map(single).collect();
    network(fields, [2, 1, 3], &[(LayerKind::Cross, 7), (LayerKind::Cross, 7), (LayerKind::Relu, 4)])
}

/// A mean and a sum of lists behind an id, and no dense values.
pub(crate) fn lists() -> Network {
    let mean = Field { first_column: 1, columns: 3, pooling: Pooling::Mean { padding: 4 } };
    let sum = Field { first_column: 4, columns: 2, pooling: Pooling::Sum };
    network(vec![single(0), mean, sum], [6, 0, 4], &[(LayerKind::Relu, 5)])
}

/// The last layer alone.
pub(crate) fn without_layers() -> Network {
    network(vec![single(0)], [1, 1, 8], &[])
}

/// The rows that a table has.
pub(crate) const TABLE_ROWS: usize = 20;

/// The signature of `network`.
pub(crate) fn signature(network: &Network) -> Signature {
    let spec = |name: &str, dtype, width| TensorSpec { name: name.into(), dtype, width };
    let mut inputs = vec![spec("ids", DType::I32, network.id_columns)];
    if network.dense_columns > 0 {
        inputs.push(spec("dense", DType::F32, network.dense_columns));
    }
    Signature { inputs, output: "probability".into() }
}

/// So many rows that differ.
pub(crate) fn rows(network: &Network, count: usize) -> Rows {
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

/// The model file of `network`, of whose ids each must have an embedding, as the trainer would write it.
pub(crate) fn onnx(network: &Network) -> Vec<u8> {
    let mut file = ModelFile::default();
    file.integers("axis", &[1]);
    file.table("wide", &network.wide, vec![network.wide.rows()]);
    file.node(OpType::Gather, &["wide", "ids"], "wide_weights");
    file.node(OpType::ReduceSum, &["wide_weights", "axis"], "wide_sum");
    file.attribute("keepdims", 1);
    let (rows, dimension) = (network.embeddings.rows(), network.embeddings.dimension());
    file.table("embeddings", &network.embeddings, vec![rows, dimension]);
    file.integers("shape", &[-1, size(network.id_columns * dimension)]);
    file.node(OpType::Gather, &["embeddings", "ids"], "gathered");
    file.node(OpType::Reshape, &["gathered", "shape"], "flat");
    file.node(OpType::Concat, &["flat", "dense"], "first");
    file.attribute("axis", 1);
    let mut input = "first".to_owned();
    for (number, layer) in network.layers.iter().enumerate() {
        input = file.layer(number, layer, &input);
    }
    file.floats("last", vec![network.last.len(), 1], network.last.clone());
    file.node(OpType::Gemm, &[&input, "last", "wide_sum"], "logit");
    file.node(OpType::Sigmoid, &["logit"], "probability");
    file.encode(&signature(network))
}

/// A model file, with names of its own, which the syntax tree then borrows.
#[derive(Default)]
struct ModelFile {
    nodes: Vec<PlannedNode>,
    tensors: Vec<TensorProto<'static>>,
}

struct PlannedNode {
    kind: OpType<'static>,
    inputs: Vec<String>,
    output: String,
    attribute: Option<Attribute<'static>>,
}

impl ModelFile {
    fn node(&mut self, kind: OpType<'static>, inputs: &[&str], output: &str) {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.nodes.push(PlannedNode { kind, inputs, output: output.to_owned(), attribute: None });
    }

    fn attribute(&mut self, name: &'static str, value: i64) {
        let attribute = Attribute { name, r#type: AttributeType::Int, i: value, ..Attribute::default() };
        self.nodes.last_mut().expect("a node").attribute = Some(attribute);
    }

    fn layer(&mut self, number: usize, layer: &Layer, input: &str) -> String {
        let [weights, bias, sum, product, output] =
            ["weights", "bias", "sum", "product", "output"].map(|name| format!("{name}_{number}"));
        self.floats(&weights, vec![layer.inputs, layer.outputs], layer.weights.clone());
        self.floats(&bias, vec![layer.outputs], layer.bias.clone());
        self.node(OpType::Gemm, &[input, &weights, &bias], &sum);
        match layer.kind {
            LayerKind::Relu => self.node(OpType::Relu, &[&sum], &output),
            LayerKind::Cross => {
                self.node(OpType::Mul, &["first", &sum], &product);
                self.node(OpType::Add, &[&product, input], &output);
            }
        }
        output
    }

    fn table(&mut self, name: &str, table: &Table, shape: Vec<usize>) {
        let mut numbers = Vec::new();
        table.read(0, table.rows(), &mut numbers).expect("in memory");
        self.floats(name, shape, numbers);
    }

    fn floats(&mut self, name: &str, shape: Vec<usize>, numbers: Vec<f32>) {
        let shape = shape.into_iter().map(size).collect();
        self.tensors.push(TensorProto::from_f32(name.to_owned().leak(), shape, numbers));
    }

    fn integers(&mut self, name: &'static str, numbers: &[i64]) {
        self.tensors.push(TensorProto::from_i64(name, vec![size(numbers.len())], numbers.to_vec()));
    }

    fn encode(&self, signature: &Signature) -> Vec<u8> {
        let node = self.nodes.iter().map(|PlannedNode { kind, inputs, output, attribute }| Node {
            name: output,
            op_type: kind.clone(),
            input: inputs.iter().map(String::as_str).collect(),
            output: vec![output],
            attribute: attribute.iter().cloned().collect(),
            ..Node::default()
        });
        let graph = Graph {
            name: "sample",
            node: node.collect(),
            initializer: self.tensors.clone(),
            input: signature.inputs.iter().map(edge).collect(),
            output: vec![edge(&TensorSpec { name: signature.output.clone(), dtype: DType::F32, width: 1 })],
            ..Graph::default()
        };
        let opset_import = vec![OperatorSetId { domain: "", version: 17 }];
        onnx_rs::encode(&Model { ir_version: 8, opset_import, graph: Some(graph), ..Model::default() })
    }
}

fn edge(spec: &TensorSpec) -> ValueInfo<'static> {
    let elem_type = match spec.dtype {
        DType::I32 => DataType::Int32,
        DType::F32 => DataType::Float,
    };
    let dimension = |value| TensorShapeDimension { value, ..TensorShapeDimension::default() };
    let dim = vec![dimension(Dimension::Param("batch")), dimension(Dimension::Value(size(spec.width)))];
    let tensor = TensorTypeProto { elem_type, shape: Some(TensorShape { dim }) };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() };
    ValueInfo { name: spec.name.clone().leak(), r#type: Some(kind), ..ValueInfo::default() }
}

fn size(length: usize) -> i64 {
    i64::try_from(length).expect("small")
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
