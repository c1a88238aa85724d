//! The exported file answers what the model answers, whatever features it has.

use std::{fs, path::Path};

use millrace::{
    engine::{Engine, OnnxEngine},
    features::{Encoder, RawValue, Value},
    repository::manifest::Manifest,
    tensor::Rows,
};
use millrace_trainer::{
    config::ModelConfig,
    model::{ModelShape, Targets, WideDeep},
    onnx,
    onnx_file::{self, MAX_INLINE_BYTES},
    random::{Purpose, random},
};
use onnx_rs::ast::{DataLocation, OpType};

const IDS: &str = r#"
    [[feature]]
    name = "user"
    kind = "categorical"
    source = { hash = 50 }
    [[feature]]
    name = "item"
    kind = "categorical"
    source = { hash = 70 }
"#;
const PRICE: &str = r#"
    [[feature]]
    name = "price"
    kind = "numeric"
    mean = 10.0
    std = 4.0
"#;
const LISTS: &str = r#"
    [[feature]]
    name = "genres"
    values = { max = 4, pooling = "mean" }
    kind = "categorical"
    source = { hash = 30 }
    [[feature]]
    name = "shelves"
    values = { max = 2, pooling = "sum" }
    kind = "categorical"
    source = { hash = 20 }
"#;
const CROSS: &str = r#"
    [[cross]]
    features = ["user", "item"]
    buckets = 300
"#;

/// A row has two ids, a number and two lists, as many of them as the encoder takes.
fn rows(encoder: &Encoder, count: i32) -> Rows {
    let mut rows = Rows::new(encoder.signature());
    for row in 0..count {
        let list = |from: i32, most: i32| -> Vec<Value> {
            (0..row % (most + 1)).map(|at| Value::Int(i64::from((row * from + at * 7) % 40))).collect()
        };
        let lists = [list(3, 4), list(11, 2)];
        let values = [
            RawValue::Int(i64::from(row)),
            RawValue::Int(i64::from(row * 31 % 97)),
            RawValue::Float(f64::from(row % 23)),
            RawValue::List(&lists[0]),
            RawValue::List(&lists[1]),
        ];
        encoder.encode(values.into_iter().take(encoder.width()), &mut rows).expect("a row");
    }
    rows
}

/// A model that has learnt something, so that none of its weights are zero by birth.
fn model(encoder: &Encoder, rows: &Rows, cross_layers: usize) -> WideDeep {
    let config = ModelConfig {
        cross_layers,
        hidden_units: vec![12, 6],
        mlp_rate: 0.01,
        wide_rate: 0.5,
        ..ModelConfig::default()
    };
    let mut draws = random(7, Purpose::Weights, 0);
    let mut model = WideDeep::new(ModelShape::of(encoder), &config, 0.4, &mut draws);
    let labels: Vec<f32> = (0..rows.len()).map(|row| f32::from(u8::from(row % 3 == 0))).collect();
    let weights = vec![1.0; rows.len()];
    for _ in 0..20 {
        let targets = Targets { labels: &labels, weights: &weights };
        model.step(rows, 0..rows.len(), targets);
    }
    model
}

/// Exports a trained model into `folder` and compares all its answers with the trainer's own.
fn export_and_compare(schema: &str, folder: &Path) {
    export_crossing_and_compare(schema, 0, folder);
}

/// The same with so many cross layers.
fn export_crossing_and_compare(schema: &str, cross_layers: usize, folder: &Path) {
    let encoder = crate::encoder(schema);
    let rows = rows(&encoder, 200);
    let model = model(&encoder, &rows, cross_layers);
    onnx::export(&model, None, folder, MAX_INLINE_BYTES).expect("exported");
    let file = folder.join(Manifest::MODEL);
    let mut engine = OnnxEngine::open(&crate::runtime(), &file, encoder.signature()).expect("opened");
    let mut found = Vec::new();
    engine.run(&rows, &mut found).expect("scores");
    let expected = model.score(&rows);
    assert!(expected.iter().any(|score| (score - expected[0]).abs() > 0.01), "a model that says one thing");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
}

fn operators(folder: &Path) -> Vec<String> {
    let bytes = fs::read(folder.join(Manifest::MODEL)).expect("a model");
    let model = onnx_rs::parse(&bytes).expect("well-formed");
    let nodes = model.graph.expect("a graph").node;
    nodes.iter().map(|node| node.op_type.as_str().to_owned()).collect()
}

#[test]
fn ids_alone_need_neither_slice_nor_concat() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    export_and_compare(IDS, folder.path());
    let operators = operators(folder.path());
    for unneeded in [OpType::Slice, OpType::Concat] {
        assert!(!operators.iter().any(|operator| operator == unneeded.as_str()), "{operators:?}");
    }
    assert_eq!(operators.len(), 10, "{operators:?}");
    let tables = onnx_file::tables_path(&folder.path().join(Manifest::MODEL));
    assert!(!tables.exists(), "small tables stay inside");
}

#[test]
fn dense_values_are_exported_faithfully() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    export_and_compare(&format!("{IDS}{PRICE}"), folder.path());
}

#[test]
fn crosses_are_exported_faithfully() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    export_and_compare(&format!("{IDS}{PRICE}{CROSS}"), folder.path());
}

#[test]
fn lists_are_exported_faithfully() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for schema in [format!("{IDS}{PRICE}{LISTS}"), format!("{IDS}{PRICE}{LISTS}{CROSS}")] {
        export_crossing_and_compare(&schema, 1, folder.path());
        let operators = operators(folder.path());
        let count = |kind: OpType<'_>| operators.iter().filter(|operator| *operator == kind.as_str()).count();
        // The two ids, and each list; the wide part besides.
        assert_eq!(
            (count(OpType::Gather), count(OpType::Div), count(OpType::Greater)),
            (4, 1, 1),
            "{operators:?}"
        );
    }
}

#[test]
fn cross_layers_are_exported_faithfully() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    export_crossing_and_compare(&format!("{IDS}{PRICE}"), 2, folder.path());
    let operators = operators(folder.path());
    assert_eq!(
        operators.iter().filter(|operator| *operator == OpType::Mul.as_str()).count(),
        2,
        "{operators:?}"
    );
}

#[test]
fn large_tables_lie_beside_the_model_at_page_boundaries() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let schema = format!("{IDS}{CROSS}").replace("50", "40000").replace("300", "400000");
    export_and_compare(&schema, folder.path());
    let bytes = fs::read(folder.path().join(Manifest::MODEL)).expect("a model");
    assert!((bytes.len() as u64) < MAX_INLINE_BYTES);
    let model = onnx_rs::parse(&bytes).expect("well-formed");
    let tensors = model.graph.expect("a graph").initializer;
    let external: Vec<_> =
        tensors.iter().filter(|tensor| tensor.data_location() == DataLocation::External).collect();
    assert_eq!(external.iter().map(|tensor| tensor.name()).collect::<Vec<_>>(), ["wide", "embeddings"]);
    for tensor in external {
        let offset = tensor.external_data().iter().find(|entry| entry.key == "offset").expect("an offset");
        assert_eq!(offset.value.parse::<u64>().expect("a number") % 4096, 0);
    }
}
