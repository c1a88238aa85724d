//! ONNX's own rules, for the files of both precisions.

use std::collections::BTreeSet;

use millrace_trainer::{
    element_types,
    onnx_file::{MAX_INLINE_BYTES, OnnxFile},
};
use onnx_rs::ast::{DataType, Dimension, Model, TensorProto, TypeValue, ValueInfo};

use crate::graphs::Exported;

/// Hands what the trainer learns of each kind, in single precision and in half, to `check`.
fn for_all(check: impl Fn(&Model<'_>)) {
    for of in [Exported::learnt, Exported::of_lists, Exported::of_towers] {
        for_both(&of(MAX_INLINE_BYTES), &check);
    }
}

fn for_both(model: &Exported, check: impl Fn(&Model<'_>)) {
    for file in [model.single(), model.half()] {
        let file = OnnxFile::read(&file).expect("read");
        check(&file.model().expect("a model"));
    }
}

#[test]
fn a_model_says_who_made_it_and_by_which_rules() {
    for_all(|model| {
        // Operators of set 17 belong to version 8 of the format.
        assert_eq!(model.ir_version, 8);
        let opsets: Vec<_> = model.opset_import.iter().map(|opset| (opset.domain, opset.version)).collect();
        assert_eq!(opsets, [("", 17)]);
        assert_eq!(model.producer_name, "millrace-trainer");
        assert_eq!(model.producer_version, env!("CARGO_PKG_VERSION"));
        assert!(!model.doc_string.is_empty());
        let graph = model.graph.as_ref().expect("a graph");
        assert!(!graph.name.is_empty() && !graph.doc_string.is_empty());
    });
}

#[test]
fn every_value_has_one_maker_before_its_users_and_one_type() {
    for_all(|model| {
        let graph = model.graph.as_ref().expect("a graph");
        let types = element_types::infer(graph).expect("typed, in the order of the nodes");
        let made = graph.node.iter().flat_map(|node| node.output.iter().copied());
        let named = graph.input.iter().map(|input| input.name);
        let mut seen = BTreeSet::new();
        for name in made.chain(named).chain(graph.initializer.iter().map(TensorProto::name)) {
            assert!(seen.insert(name), "{name} is made twice");
        }
        let mut nodes = BTreeSet::new();
        assert!(graph.node.iter().all(|node| !node.name.is_empty() && nodes.insert(node.name)));
        for value in graph.value_info.iter().chain(&graph.input).chain(&graph.output) {
            assert_eq!(element_types::declared(value), Some(types[value.name]), "{}", value.name);
        }
    });
}

#[test]
fn an_initialiser_has_as_many_bytes_as_its_shape_and_type_say() {
    for_all(|model| {
        for tensor in &model.graph.as_ref().expect("a graph").initializer {
            let count: i64 = tensor.dims().iter().product();
            let bytes = match tensor.data_type() {
                DataType::Float | DataType::Int32 => 4,
                DataType::Float16 => 2,
                DataType::Int64 => 8,
                other => panic!("{}: {other:?}", tensor.name()),
            };
            let length = tensor.as_raw().expect("inside").len();
            assert_eq!(i64::try_from(length), Ok(count * bytes), "{}", tensor.name());
        }
    });
}

#[test]
fn the_edge_is_that_of_the_signature_with_a_batch_of_any_size() {
    for_both(&Exported::learnt(MAX_INLINE_BYTES), |model| {
        let graph = model.graph.as_ref().expect("a graph");
        let edge: Vec<_> = graph.input.iter().chain(&graph.output).map(described).collect();
        assert_eq!(edge, ["ids Int32 [batch, 2]", "probability Float [batch, 1]"]);
    });
}

fn described(value: &ValueInfo<'_>) -> String {
    let kind = value.r#type.as_ref().expect("a type").value.as_ref();
    let Some(TypeValue::Tensor(tensor)) = kind else { panic!("{} is no tensor", value.name) };
    let dimensions =
        tensor.shape.as_ref().expect("a shape").dim.iter().map(|dimension| match dimension.value {
            Dimension::Param(name) => name.to_owned(),
            Dimension::Value(length) => length.to_string(),
        });
    format!("{} {:?} [{}]", value.name, tensor.elem_type, dimensions.collect::<Vec<_>>().join(", "))
}
