//! Half precision: what the files say, what they cost, and that they travel with the version.

use std::{fs, path::Path};

use millrace::repository::manifest::Manifest;
use millrace_trainer::{
    artifact::Artifact,
    check::Opened,
    element_types,
    onnx_file::{self, MAX_INLINE_BYTES, OnnxFile},
    precision::{self, HALF_MODEL},
};
use onnx_rs::ast::{DataLocation, DataType, OpType, TensorProto};

use crate::{
    graphs::{Exported, distance},
    shop::{Shop, run, with_run},
};

/// A bound that only the smallest tensors are below.
const TINY_BYTES: u64 = 256;

#[test]
fn half_precision_answers_nearly_the_same_for_every_architecture() {
    for model in Exported::all(MAX_INLINE_BYTES) {
        let rows = model.rows(2_000);
        let single = model.score(&model.single(), &rows);
        let half = model.score(&model.half(), &rows);
        assert!(distance(&single[1..], &single[..1_999]) > 0.1, "{}: one score for all rows", model.name);
        assert!(distance(&single, &half) < 2e-3, "{}: {}", model.name, distance(&single, &half));
        assert!(single != half, "{}: was anything rounded?", model.name);
    }
}

#[test]
fn tables_and_layers_are_half_and_the_tail_is_single() {
    for model in Exported::all(MAX_INLINE_BYTES) {
        let file = OnnxFile::read(&model.half()).expect("read");
        let half = file.model().expect("a model");
        let graph = half.graph.as_ref().expect("a graph");
        let types = element_types::infer(graph).unwrap_or_else(|error| panic!("{}: {error}", model.name));
        let floats = |name: &&str| types[name] == DataType::Float;
        let (tail, rest): (Vec<_>, Vec<_>) = graph
            .node
            .iter()
            .filter(|node| node.op_type != OpType::Cast)
            .partition(|node| node.output.iter().all(floats));
        let tail: Vec<_> = tail.iter().map(|node| node.op_type.as_str()).collect();
        let expected: &[&str] = match model.name {
            "wide & deep" | "lists" => &["ReduceSum", "Gemm", "Sigmoid"],
            "two towers" => &["ReduceSum", "ReduceSum", "Add", "Gemm", "Sigmoid"],
            "deep & cross" => &["Gemm", "Sigmoid"],
            _ => &["ReduceSum", "Mul", "Add", "Sigmoid"],
        };
        assert_eq!(tail, expected, "{}", model.name);
        assert!(rest.iter().any(|node| node.op_type == OpType::Gemm), "{}: nothing is half", model.name);
        for node in rest {
            for name in element_types::computed(node).expect("known") {
                assert_ne!(types[name], DataType::Float, "{}: {name}", model.name);
            }
        }
        for name in ["embeddings", "wide", "table", "cross_weights", "user_weights"] {
            assert!(types.get(name).is_none_or(|&kind| kind == DataType::Float16), "{}: {name}", model.name);
        }
        assert_eq!((types["ids"], types["probability"]), (DataType::Int32, DataType::Float));
    }
}

#[test]
fn every_value_between_the_nodes_is_declared_with_its_type() {
    for model in Exported::all(MAX_INLINE_BYTES) {
        let file = OnnxFile::read(&model.half()).expect("read");
        let half = file.model().expect("a model");
        let graph = half.graph.as_ref().expect("a graph");
        let types = element_types::infer(graph).expect("typed");
        let made = graph.node.iter().flat_map(|node| &node.output).filter(|name| **name != "probability");
        let mut made: Vec<&str> = made.copied().collect();
        let mut declared: Vec<&str> = graph.value_info.iter().map(|value| value.name).collect();
        for value in &graph.value_info {
            assert_eq!(element_types::declared(value), Some(types[value.name]), "{}", value.name);
        }
        made.sort_unstable();
        declared.sort_unstable();
        assert_eq!(made, declared, "{}", model.name);
    }
}

#[test]
fn tables_beside_the_model_are_answered_from_in_both_precisions() {
    let inside = Exported::all(MAX_INLINE_BYTES);
    for (inside, beside) in inside.iter().zip(Exported::all(TINY_BYTES)) {
        let rows = beside.rows(500);
        for (within, file) in [(inside.single(), beside.single()), (inside.half(), beside.half())] {
            assert!(!onnx_file::tables_path(&within).exists());
            assert!(external(&file) > 0, "{}", beside.name);
            assert!(onnx_file::tables_path(&file).exists());
            assert_eq!(inside.score(&within, &rows), beside.score(&file, &rows), "{}", beside.name);
        }
    }
}

fn external(file: &Path) -> usize {
    let file = OnnxFile::read(file).expect("read");
    let graph = file.model().expect("a model").graph.expect("a graph");
    graph.initializer.iter().filter(|tensor| tensor.data_location() == DataLocation::External).count()
}

#[test]
fn a_version_is_published_with_half_precision_and_what_it_costs() {
    let shop = Shop::open();
    let mut pipeline = shop.labelled();
    pipeline.export.fp16 = true;
    pipeline.export.max_inline_bytes = TINY_BYTES;
    let (publication, said) = run(&shop, &pipeline);
    let (version, folder) = publication.expect("a run").published.expect("published");
    let manifest = Manifest::read(&folder, &pipeline.publish.model, version).expect("a manifest");
    manifest.verify(&folder).expect("every file as published");
    for file in ["model.onnx", "model.onnx.data", "model.fp16.onnx", "model.fp16.onnx.data"] {
        assert!(manifest.files.contains_key(file), "{file}");
    }
    let bytes = |file| manifest.files[file].bytes;
    assert!(bytes("model.fp16.onnx.data") < bytes("model.onnx.data"));
    let metrics = &manifest.metrics;
    assert!(metrics["fp16_max_error"] > 0.0 && metrics["fp16_max_error"] < 2e-3, "{metrics:#?}");
    assert!(metrics["fp16_mean_error"] <= metrics["fp16_max_error"]);
    for name in ["auc", "log_loss", "accuracy"] {
        let half = metrics[&format!("fp16_{name}")];
        assert!((half - metrics[name]).abs() < 2e-3, "{name}: {metrics:#?}");
    }
    assert!(said.iter().any(|line| line.starts_with("half precision is off by")), "{said:#?}");
    Opened::open(&crate::runtime(), &folder).expect("still served from model.onnx");
}

#[test]
fn a_damaged_table_beside_a_model_is_told_by_its_hash() {
    let shop = Shop::open();
    let mut pipeline = shop.labelled();
    pipeline.export.max_inline_bytes = TINY_BYTES;
    let (version, folder) = run(&shop, &pipeline).0.expect("a run").published.expect("published");
    let tables = folder.join("model.onnx.data");
    let mut bytes = fs::read(&tables).expect("there");
    bytes[70_000] ^= 1;
    fs::write(&tables, bytes).expect("written");
    let manifest = Manifest::read(&folder, &pipeline.publish.model, version).expect("a manifest");
    let error = manifest.verify(&folder).expect_err("changed").to_string();
    assert_eq!(error, "model.onnx.data: its SHA-256 is not the manifest's");
}

#[test]
fn half_precision_is_added_to_an_artifact_that_lacks_it_and_again() {
    let shop = Shop::open();
    let pipeline = shop.labelled();
    let trained = with_run(&shop, &pipeline, &mut Vec::new(), |run| run.train(&shop.artifact()));
    let trained = trained.expect("trained");
    assert!(!trained.version().join(HALF_MODEL).exists(), "nobody asked for it");
    assert!(!trained.summary.metrics.contains_key("fp16_auc"));
    for (bound, beside) in [(TINY_BYTES, true), (MAX_INLINE_BYTES, false)] {
        let mut artifact = Artifact::read(&shop.artifact()).expect("an artifact");
        let loss = precision::add_half(&mut artifact, &crate::runtime(), bound).expect("added");
        artifact.write().expect("written");
        let half = artifact.version().join(HALF_MODEL);
        assert_eq!((half.exists(), onnx_file::tables_path(&half).exists()), (true, beside));
        let recorded = Artifact::read(&shop.artifact()).expect("an artifact").summary.metrics;
        assert_eq!(recorded["fp16_auc"].to_bits(), loss.half.auc.to_bits());
    }
}

#[test]
fn a_number_beyond_half_precision_is_named_and_nothing_is_left_behind() {
    let shop = Shop::open();
    let pipeline = shop.labelled();
    let trained = with_run(&shop, &pipeline, &mut Vec::new(), |run| run.train(&shop.artifact()));
    let mut artifact = trained.expect("trained");
    let model = artifact.version().join(Manifest::MODEL);
    precision::add_half(&mut artifact, &crate::runtime(), TINY_BYTES).expect("added");
    // Inside of the model and beside it, where it is found only while the table is copied.
    for bound in [MAX_INLINE_BYTES, TINY_BYTES] {
        put_into_embeddings(&model, 70_000.0, bound);
        let error = precision::add_half(&mut artifact, &crate::runtime(), bound).expect_err("too large");
        artifact.write().expect("written");
        let chain = format!("{error}: {}", std::error::Error::source(&error).expect("a cause"));
        assert_eq!(
            chain,
            "in half precision: the tensor `embeddings` holds 70000, and half precision ends at 65504"
        );
        let half = artifact.version().join(HALF_MODEL);
        assert!(!half.exists() && !onnx_file::tables_path(&half).exists());
        let recorded = Artifact::read(&shop.artifact()).expect("an artifact").summary.metrics;
        assert!(recorded.keys().all(|name| !name.starts_with("fp16_")), "{recorded:#?}");
    }
}

/// Writes the model anew, with `number` as the first of its embeddings.
fn put_into_embeddings(path: &Path, number: f32, max_inline_bytes: u64) {
    let file = OnnxFile::read(path).expect("read");
    let mut model = file.model().expect("a model");
    let tensors = &mut model.graph.as_mut().expect("a graph").initializer;
    let table = tensors.iter_mut().find(|tensor| tensor.name() == "embeddings").expect("embeddings");
    let mut bytes = table.as_raw().expect("inside").to_vec();
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    *table = TensorProto::from_raw("embeddings", table.dims().to_vec(), DataType::Float, &bytes);
    let tensors = &model.graph.as_ref().expect("a graph").initializer;
    onnx_file::write(&model, path, max_inline_bytes, |index, to| {
        let written = to.write_all(tensors[index].as_raw().expect("inside"));
        written.map_err(|source| onnx_file::FileError::Write { path: path.to_path_buf(), source })
    })
    .expect("written");
}
