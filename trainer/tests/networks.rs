//! What the trainer exports, read back by the server's own engines: the network that they compute answers what ONNX Runtime
//! does, and what is no such network is refused.

use std::{fs, path::Path};

use millrace::{
    engine::{Network, NetworkError, network::LayerKind},
    features::Encoder,
    tensor::DType,
};
use millrace_trainer::{config::ModelConfig, model::ModelShape};
use onnx_rs::ast::{Attribute, AttributeType, Graph, Model, Node, OpType, TensorProto};

use crate::graphs::Exported;

const ROWS: usize = 200;
/// Shapes and axes lie in the model, tables and most weights beside it.
const MAX_INLINE_BYTES: u64 = 64;

/// Wide & Deep and DCN-v2 over lists, numbers and crosses, and over one feature alone, with tables beside and within.
fn recognised() -> Vec<Exported> {
    let deep = ModelConfig { embedding_dimension: 6, hidden_units: vec![9, 5], ..ModelConfig::default() };
    let crossed = ModelConfig { cross_layers: 2, ..deep.clone() };
    let bare = ModelConfig { hidden_units: Vec::new(), ..crossed.clone() };
    let mut models = vec![Exported::learnt(MAX_INLINE_BYTES), Exported::of_lists(u64::MAX)];
    for (name, schema, config) in [
        ("one id", ONE, &deep),
        ("numbers and an id", NUMBERS, &deep),
        ("one list", LIST, &deep),
        ("columns apart", APART, &deep),
        ("DCN-v2", APART, &crossed),
        ("cross layers alone", NUMBERS, &bare),
    ] {
        let encoder = crate::encoder(schema);
        models.push(Exported::of_config(
            (name, &encoder),
            (ModelShape::of(&encoder), None),
            config,
            MAX_INLINE_BYTES,
        ));
    }
    models
}

#[test]
fn a_network_answers_what_onnx_runtime_does() {
    for model in recognised() {
        let network = Network::read(&model.single(), &model.signature).expect(model.name);
        let rows = model.rows(ROWS);
        let expected = model.score(&model.single(), &rows);
        let found = network.score(&rows).expect("tables");
        assert_eq!(found.len(), ROWS);
        for (row, (found, &expected)) in found.iter().zip(&expected).enumerate() {
            let within = (found - f64::from(expected)).abs() < 2e-6;
            assert!(within, "{}, row {row}: {found} in place of {expected}", model.name);
        }
    }
}

#[test]
fn the_cross_layers_come_first() {
    let models = recognised();
    let model = models.iter().find(|model| model.name == "DCN-v2").expect("there is one");
    let network = Network::read(&model.single(), &model.signature).expect("recognised");
    let kinds: Vec<_> = network.layers.iter().map(|layer| layer.kind).collect();
    assert_eq!(kinds, [LayerKind::Cross, LayerKind::Cross, LayerKind::Relu, LayerKind::Relu]);
}

#[test]
fn other_architectures_are_refused_with_what_is_in_the_way() {
    for model in Exported::all(MAX_INLINE_BYTES) {
        let read = Network::read(&model.single(), &model.signature);
        if ["wide & deep", "lists"].contains(&model.name) {
            read.expect(model.name);
            let error = Network::read(&model.half(), &model.signature).map(drop).expect_err("half");
            assert!(matches!(error, NetworkError::Graph(_) | NetworkError::Tensor { .. }), "{error}");
        } else {
            let error = read.map(drop).expect_err(model.name).to_string();
            assert!(
                error.starts_with("the graph is neither Wide & Deep nor DCN-v2"),
                "{}: {error}",
                model.name
            );
        }
    }
}

#[test]
fn another_signature_is_refused() {
    let model = Exported::of_lists(MAX_INLINE_BYTES);
    let mut named = model.signature.clone();
    named.output = "score".into();
    let mut narrower = model.signature.clone();
    narrower.inputs[0].width -= 1;
    let mut without_dense = model.signature.clone();
    without_dense.inputs.pop();
    let mut wider = model.signature.clone();
    wider.inputs[1].width += 1;
    let mut floats = model.signature.clone();
    floats.inputs[0].dtype = DType::F32;
    for signature in [named, narrower, without_dense, wider, floats] {
        assert!(Network::read(&model.single(), &signature).is_err(), "{signature:?}");
    }
}

/// What is done to a graph.
type Damage = fn(&mut Graph<'static>);

#[test]
fn a_graph_that_says_anything_else_is_refused() {
    let cases: [(&str, Damage); 12] = [
        ("another last operator", |graph| node(graph, "probability").op_type = OpType::Tanh),
        ("a factor in a product", |graph| node(graph, "layer_0").attribute = vec![factor()]),
        ("a sum over rows", |graph| {
            tensor(graph, "wide_axis", TensorProto::from_i64("wide_axis", vec![1], vec![0]));
        }),
        ("two sums' worth of dimensions", |graph| node(graph, "wide_sum").attribute.clear()),
        ("the wrong input of a cross layer", |graph| node(graph, "product_1").input[0] = "crossed_0"),
        ("the wrong sum of a cross layer", |graph| node(graph, "crossed_1").input[1] = "deep_input"),
        ("a circle", |graph| node(graph, "layer_2").input[0] = "active_3"),
        ("a second maker", |graph| {
            let again = node(graph, "layer_0").clone();
            graph.node.push(again);
        }),
        ("a bias of another length", |graph| {
            tensor(graph, "bias_2", TensorProto::from_f32("bias_2", vec![2], vec![0.0; 2]));
        }),
        ("another shape", |graph| {
            tensor(graph, "flat_shape", TensorProto::from_i64("flat_shape", vec![2], vec![-1, 7]));
        }),
        ("weights that are not there", |graph| node(graph, "layer_2").input[1] = "nowhere"),
        ("columns that there are not", |graph| {
            tensor(graph, "deep_columns", TensorProto::from_i64("deep_columns", vec![2], vec![0, 9]));
        }),
    ];
    let encoder = crate::encoder(APART);
    let config = ModelConfig {
        embedding_dimension: 6,
        hidden_units: vec![9, 5],
        cross_layers: 2,
        ..ModelConfig::default()
    };
    let exported =
        Exported::of_config(("DCN-v2", &encoder), (ModelShape::of(&encoder), None), &config, u64::MAX);
    let bytes: &'static [u8] = fs::read(exported.single()).expect("exported").leak();
    for (name, damage) in cases {
        let mut model = onnx_rs::parse(bytes).expect("a model");
        damage(model.graph.as_mut().expect("a graph"));
        let error = read(&exported.single(), &model, &encoder).map(drop).expect_err(name);
        assert!(!matches!(error, NetworkError::Read { .. } | NetworkError::Syntax { .. }), "{name}: {error}");
    }
    let whole = onnx_rs::parse(bytes).expect("a model");
    read(&exported.single(), &whole, &encoder).expect("undamaged");
    let mut newer = whole.clone();
    newer.opset_import[0].version = 18;
    read(&exported.single(), &newer, &encoder).map(drop).expect_err("another opset");
    fs::write(exported.single(), "none").expect("written");
    let error = Network::read(&exported.single(), encoder.signature()).map(drop).expect_err("no model");
    assert!(matches!(error, NetworkError::Syntax { .. } | NetworkError::Graph(_)), "{error}");
}

fn read(path: &Path, model: &Model<'_>, encoder: &Encoder) -> Result<Network, NetworkError> {
    fs::write(path, onnx_rs::encode(model)).expect("written");
    Network::read(path, encoder.signature())
}

fn node<'g>(graph: &'g mut Graph<'static>, output: &str) -> &'g mut Node<'static> {
    graph.node.iter_mut().find(|node| node.output == [output]).unwrap_or_else(|| panic!("no {output}"))
}

fn tensor(graph: &mut Graph<'static>, name: &str, to: TensorProto<'static>) {
    let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name() == name);
    *tensor.unwrap_or_else(|| panic!("no {name}")) = to;
}

fn factor() -> Attribute<'static> {
    Attribute { name: "alpha", r#type: AttributeType::Float, f: 2.0, ..Attribute::default() }
}

const ONE: &str = r#"feature = [{ name = "user", kind = "categorical", source = { hash = 50 } }]"#;
const NUMBERS: &str = r#"
    feature = [
      { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
      { name = "user", kind = "categorical", source = { hash = 50 } },
      { name = "age", kind = "numeric", mean = 0.0, std = 1.0 },
    ]
"#;
const LIST: &str = r#"
    feature = [{ name = "tags", values = { max = 3, pooling = "mean" }, kind = "categorical", source = { hash = 20 } }]
"#;
/// Columns of single ids with a list between them, and a cross behind them.
const APART: &str = r#"
    feature = [
      { name = "user", kind = "categorical", source = { hash = 50 } },
      { name = "tags", values = { max = 3, pooling = "mean" }, kind = "categorical", source = { hash = 20 } },
      { name = "item", kind = "categorical", source = { hash = 50 } },
      { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
    ]
    cross = [{ features = ["user", "item"], buckets = 30 }]
"#;
