//! From a model to an engine's bytes.

use std::{
    sync::{Arc, Mutex},
    thread,
};

use tensorrt::{
    Builder, BuilderConfig, ComputeCapability, DataType, Dims, Error, Flavour, Logger, LoggerSeverity,
    OnnxParser, Profile, Range,
};

use crate::fake::{Fake, config};

#[test]
fn a_network_tells_its_tensors() {
    for fake in Fake::all() {
        let network = OnnxParser::new(&fake.builder()).parse(b"model", None).expect("a network");
        let inputs = network.inputs().expect("inputs");
        assert_eq!(inputs.len(), 1);
        assert_eq!((inputs[0].name.as_str(), inputs[0].data_type), ("ids", DataType::I32));
        assert_eq!(inputs[0].dims.as_slice(), [-1, 2]);
        assert!(inputs[0].is_input);
        let outputs = network.outputs().expect("outputs");
        assert_eq!((outputs[0].name.as_str(), outputs[0].data_type), ("probability", DataType::F32));
        assert!(!outputs[0].is_input);
        drop(network);
        fake.assert_clean();
    }
}

#[test]
fn an_engine_needs_a_profile_and_is_bytes() {
    for fake in Fake::all() {
        let builder = fake.builder();
        let network = OnnxParser::new(&builder).parse(b"model", None).expect("a network");
        let error =
            builder.build_serialized_network(&network, &BuilderConfig::default()).expect_err("no profile");
        assert_eq!(
            error.to_string(),
            "TensorRT cannot build the engine: the input ids has a dynamic shape and no profile"
        );
        let engine = builder.build_serialized_network(&network, &config()).expect("an engine");
        assert!(engine.starts_with(b"an engine"), "{engine:?}");
        drop((network, builder, engine));
        fake.assert_clean();
    }
}

#[test]
fn a_profile_of_another_input_is_refused() {
    let fake = Fake::rtx();
    let builder = fake.builder();
    let network = OnnxParser::new(&builder).parse(b"model", None).expect("a network");
    let dims = Dims::new(&[1, 2]).expect("two");
    let range = Range { min: dims, opt: dims, max: dims };
    for (input, expected) in
        [("other", "TensorRT cannot take the shapes of a profile"), ("a\0b", "cannot be a name")]
    {
        let profiles = vec![Profile::new().with(input, range)];
        let config = BuilderConfig { profiles, ..BuilderConfig::default() };
        let error = builder.build_serialized_network(&network, &config).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    drop((network, builder));
    fake.assert_clean();
}

#[test]
fn a_model_that_is_refused_says_why_and_leaves_nothing() {
    for fake in Fake::all() {
        let builder = fake.builder();
        let parser = OnnxParser::new(&builder);
        let error = parser.parse(b"nonsense", None).expect_err("refused").to_string();
        let expected = "TensorRT cannot read the ONNX model: node 3 layer_0 (Frobnicate): no such operator";
        assert_eq!(error, expected);
        assert_eq!(fake.alive(), 1, "the builder alone");
    }
}

#[test]
fn an_exception_of_the_library_becomes_an_error() {
    for fake in Fake::all() {
        let builder = fake.builder();
        let error = OnnxParser::new(&builder).parse(b"throw", None).expect_err("thrown").to_string();
        assert_eq!(error, "TensorRT cannot read the ONNX model: thrown by the library");
        drop(builder);
        fake.assert_clean();
    }
}

#[test]
fn gpus_are_chosen_where_the_flavour_lets_them() {
    for fake in Fake::all() {
        let builder = fake.builder();
        let network = OnnxParser::new(&builder).parse(b"model", None).expect("a network");
        let config = BuilderConfig { compute_capabilities: ComputeCapability::ALL.into(), ..config() };
        let engine = builder.build_serialized_network(&network, &config);
        match fake.open().flavour() {
            Flavour::Rtx => assert!(engine.is_ok(), "{engine:?}"),
            Flavour::Enterprise => {
                let error = engine.expect_err("it builds for its own GPU").to_string();
                assert_eq!(error, "choose GPUs to build for is not for TensorRT");
            }
        }
    }
}

#[test]
fn messages_come_from_a_severity_on_and_a_panic_loses_only_its_own() {
    let fake = Fake::rtx();
    let messages = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&messages);
    let write = move |severity: LoggerSeverity, message: &str| {
        to.lock().expect("no panic holds it").push((severity, message.to_owned()));
        assert!(severity != LoggerSeverity::Warning, "a careless function");
    };
    let logger = Logger::with(&fake.open(), write).expect("a logger");
    let builder = Builder::new(&logger).expect("a builder");
    let network = OnnxParser::new(&builder).parse(b"model", None).expect("a network");
    builder.build_serialized_network(&network, &config()).expect("an engine");
    let warning = (LoggerSeverity::Warning, "building".to_owned());
    assert_eq!(*messages.lock().expect("whole"), std::slice::from_ref(&warning));
    let _same = logger.severity(LoggerSeverity::Verbose);
    drop((network, builder));
    let verbose = (LoggerSeverity::Verbose, "the builder goes".to_owned());
    assert_eq!(*messages.lock().expect("whole"), [warning, verbose]);
}

#[test]
fn threads_take_turns_with_one_builder() {
    let fake = Fake::rtx();
    let builder = fake.builder();
    thread::scope(|scope| {
        for _ in 0..4 {
            let builder = builder.clone();
            scope.spawn(move || {
                for _ in 0..20 {
                    let network = OnnxParser::new(&builder).parse(b"model", None).expect("a network");
                    let engine = builder.build_serialized_network(&network, &config()).expect("an engine");
                    assert_eq!(engine.len(), 512);
                }
            });
        }
    });
    drop(builder);
    fake.assert_clean();
}

#[test]
fn an_absent_parser_is_named() {
    let fake = Fake::rtx();
    std::fs::remove_file(fake.folder().join("libtensorrt_onnxparser_rtx.so.1")).expect("removed");
    let error = OnnxParser::new(&fake.builder()).parse(b"model", None).expect_err("no parser");
    assert!(matches!(error, Error::NoParser { .. }));
    assert!(error.to_string().ends_with("`make tensorrt` brings one"), "{error}");
}
