//! Models to export and to compare: what the trainer learns, with lists and in two towers as well, and by hand the graphs
//! of other architectures, so that what is done with a graph does not lean on the ones that are written today.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use millrace::{
    engine::{Engine, OnnxEngine},
    features::Encoder,
    repository::manifest::Manifest,
    tensor::{DType, Rows, Signature, TensorSpec},
};
use millrace_trainer::{
    artifact,
    config::{Architecture, ModelConfig, Owner},
    model::{ModelShape, Targets, Towers, WideDeep},
    onnx,
    onnx_file::{self, FileError},
    precision::{self, HALF_MODEL},
    random::{Purpose, random},
};
use onnx_rs::ast::{
    Attribute, AttributeType, DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId, TensorProto,
    TensorShape, TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue, ValueInfo,
};
use rand::Rng;
use tempfile::TempDir;

use crate::shop::{Shop, with_run};

/// A model in both precisions, in a folder of its own.
pub(crate) struct Exported {
    pub(crate) name: &'static str,
    pub(crate) signature: Signature,
    folder: PathBuf,
    /// The ids of each column.
    ids: Vec<Range<i32>>,
    _kept: Box<dyn std::any::Any>,
}

impl Exported {
    /// The version's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Each architecture, with tables of more than `max_inline_bytes` beside it.
    pub(crate) fn all(max_inline_bytes: u64) -> Vec<Self> {
        vec![
            Self::learnt(max_inline_bytes),
            Self::of_lists(max_inline_bytes),
            Self::of_towers(max_inline_bytes),
            Self::by_hand("deep & cross", &deep_and_cross(), max_inline_bytes),
            Self::by_hand("two towers by hand", &two_towers(), max_inline_bytes),
        ]
    }

    /// What the trainer learns of the synthetic shop.
    pub(crate) fn learnt(max_inline_bytes: u64) -> Self {
        let shop = Shop::open();
        let mut pipeline = shop.labelled();
        pipeline.export.fp16 = true;
        pipeline.export.max_inline_bytes = max_inline_bytes;
        let artifact = with_run(&shop, &pipeline, &mut Vec::new(), |run| run.train(&shop.artifact()));
        let folder = artifact.expect("trained").version();
        let encoder = Encoder::read(&folder.join(Manifest::FEATURES)).expect("features");
        let signature = encoder.signature().clone();
        Self { name: "wide & deep", signature, folder, ids: any_ids(&encoder), _kept: Box::new(shop) }
    }

    /// A mean and a sum of lists between other features, with a cross.
    pub(crate) fn of_lists(max_inline_bytes: u64) -> Self {
        let encoder = crate::encoder(LISTS);
        let config = ModelConfig { embedding_dimension: DIMENSION, ..ModelConfig::default() };
        let shape = ModelShape::of(&encoder);
        Self::of_config(("lists", &encoder), (shape, None), &config, max_inline_bytes)
    }

    /// The same features in two towers: the user's are apart, and so are the item's.
    pub(crate) fn of_towers(max_inline_bytes: u64) -> Self {
        let encoder = crate::encoder(LISTS);
        let shape = ModelShape::of(&encoder).with_towers(sides(&encoder));
        let config = ModelConfig {
            architecture: Some(Architecture::TwoTower),
            embedding_dimension: DIMENSION,
            output_dimension: Some(VECTOR),
            ..ModelConfig::default()
        };
        Self::of_config(("two towers", &encoder), (shape, None), &config, max_inline_bytes)
    }

    /// The same features in one network, whose first layer can be taken apart.
    pub(crate) fn of_sides(max_inline_bytes: u64) -> Self {
        let encoder = crate::encoder(LISTS);
        let config = ModelConfig { embedding_dimension: DIMENSION, ..ModelConfig::default() };
        let shapes = (ModelShape::of(&encoder), Some(sides(&encoder)));
        Self::of_config(("two sides", &encoder), shapes, &config, max_inline_bytes)
    }

    /// What the trainer learns of random rows by `config`.
    pub(crate) fn of_config(
        (name, encoder): (&'static str, &Encoder),
        (shape, sides): (ModelShape, Option<Towers>),
        config: &ModelConfig,
        max_inline_bytes: u64,
    ) -> Self {
        let kept = TempDir::new().expect("a temporary folder");
        let (folder, signature, ids) =
            (kept.path().to_path_buf(), encoder.signature().clone(), any_ids(encoder));
        let learnt = Self { name, signature, folder, ids, _kept: Box::new(kept) };
        let rows = learnt.rows(1000);
        let mut draws = random(7, Purpose::Weights, 0);
        let mut model = WideDeep::new(shape, config, 0.4, &mut draws);
        let labels: Vec<f32> = (0..rows.len()).map(|row| f32::from(u8::from(row % 3 == 0))).collect();
        for _ in 0..10 {
            let targets = Targets { labels: &labels, weights: &vec![1.0; labels.len()] };
            model.step(&rows, 0..rows.len(), targets);
        }
        onnx::export(&model, sides.as_ref(), &learnt.folder, max_inline_bytes).expect("exported");
        precision::write_half(&learnt.folder, max_inline_bytes).expect("in half precision");
        let found = learnt.score(&learnt.single(), &rows);
        assert!(distance(&found, &model.score(&rows)) < 1e-5, "{name}: not what the trainer answers");
        learnt
    }

    fn by_hand(name: &'static str, drawn: &Drawing, max_inline_bytes: u64) -> Self {
        let kept = TempDir::new().expect("a temporary folder");
        let folder = kept.path().to_path_buf();
        let model = drawn.model();
        let path = folder.join(Manifest::MODEL);
        onnx_file::write::<FileError>(&model, &path, max_inline_bytes, |index, to| {
            let bytes = drawn.tensors[index].bytes();
            to.write_all(bytes).map_err(|source| FileError::Write { path: path.clone(), source })
        })
        .expect("written");
        precision::write_half(&folder, max_inline_bytes).expect("in half precision");
        let signature = drawn.signature();
        let ids = vec![0..TABLE_ROWS; drawn.ids];
        Self { name, signature, folder, ids, _kept: Box::new(kept) }
    }

    /// The file in single precision.
    pub(crate) fn single(&self) -> PathBuf {
        self.folder.join(Manifest::MODEL)
    }

    /// The file in half precision.
    pub(crate) fn half(&self) -> PathBuf {
        self.folder.join(HALF_MODEL)
    }

    /// Rows at random.
    pub(crate) fn rows(&self, count: usize) -> Rows {
        let mut draws = random(11, Purpose::Test, 0);
        let mut rows = Rows::new(&self.signature);
        for _ in 0..count {
            rows.push_zeroed();
            let ids = rows.last_i32(0).iter_mut().zip(&self.ids);
            ids.for_each(|(id, range)| *id = draws.random_range(range.clone()));
            rows.last_f32(1).fill_with(|| draws.random_range(-2.0..2.0));
        }
        rows
    }

    /// The scores of `rows` by ONNX Runtime.
    pub(crate) fn score(&self, file: &Path, rows: &Rows) -> Vec<f32> {
        let mut engine = OnnxEngine::open(&crate::runtime(), file, &self.signature).expect("opened");
        assert_eq!(engine.signature(), &self.signature);
        artifact::score(&mut engine, rows).expect("scores")
    }
}

/// Any row with an embedding in the columns that have one, and any other in those of crosses.
fn any_ids(encoder: &Encoder) -> Vec<Range<i32>> {
    let [deep, wide] =
        [encoder.deep_rows(), encoder.wide_rows()].map(|rows| i32::try_from(rows).expect("a few"));
    let mut ids = vec![0..deep; encoder.deep_columns()];
    ids.resize(encoder.signature().inputs[0].width, deep..wide);
    for list in encoder.lists() {
        let padding = i32::try_from(list.padding).expect("a few");
        // Each place may be padding, and twenty rows come behind it.
        ids[list.columns()].fill(padding..padding + 21);
    }
    ids
}

/// The largest distance between two scores of a row.
pub(crate) fn distance(some: &[f32], others: &[f32]) -> f32 {
    assert_eq!(some.len(), others.len());
    let distances = some.iter().zip(others).map(|(one, other)| (one - other).abs());
    // A NaN is the largest of all distances.
    distances.max_by(f32::total_cmp).expect("rows")
}

/// Numbers in a vector of the two towers.
const VECTOR: usize = 6;

const LISTS: &str = r#"
    feature = [
      { name = "user", kind = "categorical", source = { hash = 100 } },
      { name = "genres", values = { max = 5, pooling = "mean" }, kind = "categorical", source = { hash = 20 } },
      { name = "item", kind = "categorical", source = { hash = 100 } },
      { name = "hour", kind = "categorical", source = "hour_of_day" },
      { name = "shelves", values = { max = 3, pooling = "sum" }, kind = "categorical", source = { hash = 20 } },
      { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
    ]
    cross = [{ features = ["user", "hour"], buckets = 50 }]
"#;

/// The columns of [`LISTS`] by whose they are.
fn sides(encoder: &Encoder) -> Towers {
    let owner = |name: &str| match name {
        "user" | "hour" | "shelves" => Owner::User,
        _ => Owner::Item,
    };
    Towers::of(encoder, owner).expect("no feature is of both")
}

/// Table rows of the models that are drawn by hand.
const TABLE_ROWS: i32 = 300;
const DIMENSION: usize = 8;

/// A graph by hand.
struct Drawing {
    ids: usize,
    dense: usize,
    nodes: Vec<Node<'static>>,
    tensors: Vec<Weights>,
}

struct Weights {
    name: &'static str,
    shape: Vec<usize>,
    numbers: Numbers,
}

enum Numbers {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

impl Weights {
    fn bytes(&self) -> &[u8] {
        match &self.numbers {
            Numbers::Floats(numbers) => bytemuck::cast_slice(numbers),
            Numbers::Integers(numbers) => bytemuck::cast_slice(numbers),
        }
    }
}

impl Drawing {
    fn node(&mut self, kind: OpType<'static>, inputs: &[&'static str], output: &'static str) {
        let input = inputs.to_vec();
        self.nodes.push(Node { name: output, op_type: kind, input, output: vec![output], ..Node::default() });
    }

    fn attribute(&mut self, name: &'static str, value: i64) {
        let attribute = Attribute { name, r#type: AttributeType::Int, i: value, ..Attribute::default() };
        self.nodes.last_mut().expect("a node").attribute.push(attribute);
    }

    /// Weights at random, within `size` of 0.
    fn weights(&mut self, name: &'static str, shape: &[usize], size: f32) {
        let mut draws = random(3, Purpose::Weights, self.tensors.len());
        let numbers = (0..shape.iter().product()).map(|_| draws.random_range(-size..size));
        let numbers = Numbers::Floats(numbers.collect());
        self.tensors.push(Weights { name, shape: shape.to_vec(), numbers });
    }

    fn integers(&mut self, name: &'static str, numbers: &[i64]) {
        let shape = vec![numbers.len()];
        self.tensors.push(Weights { name, shape, numbers: Numbers::Integers(numbers.to_vec()) });
    }

    fn signature(&self) -> Signature {
        let mut inputs = vec![TensorSpec { name: "ids".into(), dtype: DType::I32, width: self.ids }];
        if self.dense > 0 {
            inputs.push(TensorSpec { name: "dense".into(), dtype: DType::F32, width: self.dense });
        }
        Signature { inputs, output: "probability".into() }
    }

    fn model(&self) -> Model<'_> {
        let mut input = vec![edge("ids", DataType::Int32, self.ids)];
        if self.dense > 0 {
            input.push(edge("dense", DataType::Float, self.dense));
        }
        let tensors = self.tensors.iter().map(|weights| {
            let shape = weights.shape.iter().map(|&length| i64::try_from(length).expect("small")).collect();
            let kind = match weights.numbers {
                Numbers::Floats(_) => DataType::Float,
                Numbers::Integers(_) => DataType::Int64,
            };
            TensorProto::from_raw(weights.name, shape, kind, weights.bytes())
        });
        let graph = Graph {
            name: "by_hand",
            node: self.nodes.clone(),
            initializer: tensors.collect(),
            input,
            output: vec![edge("probability", DataType::Float, 1)],
            ..Graph::default()
        };
        Model {
            ir_version: 8,
            opset_import: vec![OperatorSetId { domain: "", version: 17 }],
            graph: Some(graph),
            ..Model::default()
        }
    }
}

/// A tensor `[batch, width]` at the graph's edge.
fn edge(name: &'static str, elem_type: DataType, width: usize) -> ValueInfo<'static> {
    let dimension = |value| TensorShapeDimension { value, ..TensorShapeDimension::default() };
    let width = Dimension::Value(i64::try_from(width).expect("small"));
    let dim = vec![dimension(Dimension::Param("batch")), dimension(width)];
    let tensor = TensorTypeProto { elem_type, shape: Some(TensorShape { dim }) };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() };
    ValueInfo { name, r#type: Some(kind), ..ValueInfo::default() }
}

/// The second version of Deep & Cross: `x1 = x0 * (W x0 + b) + x0` beside a layer, both into the last one.
fn deep_and_cross() -> Drawing {
    const WIDTH: usize = 3 * DIMENSION + 2;
    let mut graph = Drawing { ids: 3, dense: 2, nodes: Vec::new(), tensors: Vec::new() };
    graph.weights("table", &[300, DIMENSION], 0.5);
    graph.integers("flat_shape", &[-1, (3 * DIMENSION).try_into().expect("small")]);
    graph.weights("cross_weights", &[WIDTH, WIDTH], 0.2);
    graph.weights("cross_bias", &[WIDTH], 0.1);
    graph.weights("deep_weights", &[WIDTH, 16], 0.3);
    graph.weights("deep_bias", &[16], 0.1);
    graph.weights("last_weights", &[WIDTH + 16, 1], 0.3);
    graph.weights("last_bias", &[1], 0.1);
    graph.node(OpType::Gather, &["table", "ids"], "gathered");
    graph.node(OpType::Reshape, &["gathered", "flat_shape"], "flat");
    graph.node(OpType::Concat, &["flat", "dense"], "x0");
    graph.attribute("axis", 1);
    graph.node(OpType::Gemm, &["x0", "cross_weights", "cross_bias"], "crossing");
    graph.node(OpType::Mul, &["x0", "crossing"], "crossed");
    graph.node(OpType::Add, &["crossed", "x0"], "x1");
    graph.node(OpType::Gemm, &["x0", "deep_weights", "deep_bias"], "layer");
    graph.node(OpType::Relu, &["layer"], "active");
    graph.node(OpType::Concat, &["x1", "active"], "both");
    graph.attribute("axis", 1);
    graph.node(OpType::Gemm, &["both", "last_weights", "last_bias"], "logit");
    graph.node(OpType::Sigmoid, &["logit"], "probability");
    graph
}

/// Two towers: a vector of the user and one of the item, whose product is scaled and shifted.
fn two_towers() -> Drawing {
    let mut graph = Drawing { ids: 2, dense: 0, nodes: Vec::new(), tensors: Vec::new() };
    graph.weights("table", &[300, DIMENSION], 1.0);
    graph.integers("zero", &[0]);
    graph.integers("one", &[1]);
    graph.integers("two", &[2]);
    graph.integers("flat_shape", &[-1, DIMENSION.try_into().expect("small")]);
    graph.weights("scale", &[1], 2.0);
    graph.weights("shift", &[1], 0.5);
    let towers = [
        ["zero", "one", "user_id", "user_row", "user_flat", "user_weights", "user_bias", "user_sum", "user"],
        ["one", "two", "item_id", "item_row", "item_flat", "item_weights", "item_bias", "item_sum", "item"],
    ];
    for [start, end, id, row, flat, weights, bias, sum, vector] in towers {
        graph.weights(weights, &[DIMENSION, DIMENSION], 0.6);
        graph.weights(bias, &[DIMENSION], 0.1);
        graph.node(OpType::Slice, &["ids", start, end, "one"], id);
        graph.node(OpType::Gather, &["table", id], row);
        graph.node(OpType::Reshape, &[row, "flat_shape"], flat);
        graph.node(OpType::Gemm, &[flat, weights, bias], sum);
        graph.node(OpType::Relu, &[sum], vector);
    }
    graph.node(OpType::Mul, &["user", "item"], "products");
    graph.node(OpType::ReduceSum, &["products", "one"], "product");
    graph.attribute("keepdims", 1);
    graph.node(OpType::Mul, &["product", "scale"], "scaled");
    graph.node(OpType::Add, &["scaled", "shift"], "logit");
    graph.node(OpType::Sigmoid, &["logit"], "probability");
    graph
}
