//! The real library, as far as it goes without a GPU. `make tensorrt` brings it; without it these are skipped aloud,
//! unless `MILLRACE_TENSORRT_REQUIRED` is set, as `make tensorrt-check` does.

use std::{env, path::PathBuf};

use onnx_rs::ast::{
    DataType as OnnxType, Dimension, Graph, Model, Node, OpType, OperatorSetId, TensorProto, TensorShape,
    TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue, ValueInfo,
};
use tensorrt::{
    Builder, BuilderConfig, ComputeCapability, DataType, Dims, Library, Logger, OnnxParser, Profile, Range,
    Runtime, Verdict,
};

/// The library, where it is there.
fn library() -> Option<Library> {
    let fetched = || {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../target/wheels/onnxruntime-ep-nv-tensorrt-rtx-cu13/0.5.0")
    };
    let folder = env::var_os("MILLRACE_TENSORRT").map_or_else(fetched, PathBuf::from);
    match Library::open(&folder) {
        Ok(library) => Some(library),
        Err(error) if env::var_os("MILLRACE_TENSORRT_REQUIRED").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

fn builder(library: &Library) -> Builder {
    let logger =
        Logger::with(library, |severity, message| eprintln!("{severity:?}: {message}")).expect("a logger");
    Builder::new(&logger).expect("a builder")
}

/// `x [batch, 2] f32` times a matrix, as ONNX.
fn product() -> Vec<u8> {
    let dimension = |value| TensorShapeDimension { value, ..TensorShapeDimension::default() };
    let value = |name, width| {
        let dim = vec![dimension(Dimension::Param("batch")), dimension(Dimension::Value(width))];
        let tensor = TensorTypeProto { elem_type: OnnxType::Float, shape: Some(TensorShape { dim }) };
        let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() };
        ValueInfo { name, r#type: Some(kind), ..ValueInfo::default() }
    };
    let weights: Vec<u8> = [0.5_f32, -2.0].iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let node = Node {
        name: "product",
        op_type: OpType::MatMul,
        input: vec!["x", "weights"],
        output: vec!["y"],
        ..Node::default()
    };
    let graph = Graph {
        name: "product",
        node: vec![node],
        initializer: vec![TensorProto::from_raw("weights", vec![2, 1], OnnxType::Float, &weights)],
        input: vec![value("x", 2)],
        output: vec![value("y", 1)],
        ..Graph::default()
    };
    let opset_import = vec![OperatorSetId { domain: "", version: 17 }];
    onnx_rs::encode(&Model { ir_version: 8, opset_import, graph: Some(graph), ..Model::default() })
}

fn config() -> BuilderConfig {
    let rows = |rows| Dims::new(&[rows, 2]).expect("two dimensions");
    let range = Range { min: rows(1), opt: rows(256), max: rows(4096) };
    BuilderConfig { profiles: vec![Profile::new().with("x", range)], ..BuilderConfig::default() }
}

#[test]
fn a_real_engine_is_built_and_known_by_its_header() {
    let Some(library) = library() else { return };
    let builder = builder(&library);
    let network = OnnxParser::new(&builder).parse(&product(), None).expect("a network");
    let (inputs, outputs) = (network.inputs().expect("inputs"), network.outputs().expect("outputs"));
    assert_eq!((inputs.len(), outputs.len()), (1, 1));
    assert_eq!((inputs[0].name.as_str(), inputs[0].data_type), ("x", DataType::F32));
    assert_eq!(inputs[0].dims.as_slice(), [-1, 2]);
    assert_eq!((outputs[0].name.as_str(), outputs[0].dims.as_slice()), ("y", [-1, 1].as_slice()));
    let compute_capabilities = vec![ComputeCapability::Sm80, ComputeCapability::Sm89];
    let config = BuilderConfig { compute_capabilities, ..config() };
    let engine = builder.build_serialized_network(&network, &config).expect("an engine");
    drop((builder, network));

    let logger = Logger::with(&library, |_, _| {}).expect("a logger");
    let runtime = Runtime::new(&logger).expect("a runtime");
    let header = runtime.engine_header_bytes().expect("a size");
    assert!(header > 0 && header < engine.len(), "a header of {header} bytes");
    let validity = runtime.engine_validity(&engine[..header]).expect("a verdict");
    let is_unjudged = validity.verdict == Verdict::Unjudged;
    // Whether it can run here depends on the machine; that it is one does not.
    assert!(validity.reasons().all(|reason| reason != "it is no engine"), "{validity}");
    let validity = runtime.engine_validity(&vec![0; header]).expect("a verdict");
    assert_eq!(
        (validity.verdict, validity.to_string().as_str()),
        (Verdict::Invalid, "invalid: it is no engine")
    );
    if is_unjudged {
        let error = runtime.deserialize(&engine).expect_err("there is no GPU").to_string();
        assert!(error.contains("needs a GPU") && error.contains("Cuda"), "{error}");
    }
}

#[test]
fn what_is_no_onnx_model_is_refused_with_a_reason() {
    let Some(library) = library() else { return };
    let error =
        OnnxParser::new(&builder(&library)).parse(b"nonsense", None).expect_err("refused").to_string();
    assert!(error.starts_with("TensorRT cannot read the ONNX model: "), "{error}");
    assert!(!error.ends_with("it does not say why"), "{error}");
}

#[test]
fn an_engine_without_a_profile_is_refused_with_a_reason() {
    let Some(library) = library() else { return };
    let builder = builder(&library);
    let network = OnnxParser::new(&builder).parse(&product(), None).expect("a network");
    let error = builder.build_serialized_network(&network, &BuilderConfig::default()).expect_err("refused");
    assert!(error.to_string().contains("profile"), "{error}");
}
