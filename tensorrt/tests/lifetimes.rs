//! Objects in every awkward order: whatever is dropped first, each is freed once, and after what was made from it.
//!
//! The fake keeps books, so that this says something in any run. `make tensorrt-memcheck` runs it, and all the other
//! tests of this crate, under `AddressSanitizer` as well.

use std::{
    sync::{Arc, Mutex},
    thread,
};

use tensorrt::{Builder, Library, Logger, LoggerSeverity, OnnxParser, Runtime};

use crate::fake::{Fake, config};

#[test]
fn a_network_keeps_its_builder_its_logger_and_the_library() {
    for fake in Fake::all() {
        let library = Library::open(fake.folder()).expect("opened");
        let logger = Logger::with(&library, |_, _| {}).expect("a logger");
        drop(library);
        let builder = Builder::new(&logger).expect("a builder");
        drop(logger);
        let parser = OnnxParser::new(&builder);
        drop(builder);
        let network = parser.parse(b"model", None).expect("a network");
        drop(parser);
        assert_eq!(network.inputs().expect("it is all there still").len(), 1);
        drop(network);
        fake.assert_clean();
    }
}

#[test]
fn bytes_outlive_whatever_built_them() {
    for fake in Fake::all() {
        let builder = fake.builder();
        let network = OnnxParser::new(&builder).parse(b"model", None).expect("a network");
        let engine = builder.build_serialized_network(&network, &config()).expect("an engine");
        drop(builder);
        drop(network);
        assert_eq!(fake.alive(), 1, "the bytes alone");
        assert!(engine.starts_with(b"an engine"));
        drop(engine);
        fake.assert_clean();
    }
}

#[test]
fn a_context_keeps_its_engine_and_the_engine_its_runtime() {
    for fake in Fake::all() {
        fake.put_gpu();
        let bytes = fake.engine();
        let logger = Logger::with(&fake.open(), |_, _| {}).expect("a logger");
        let runtime = Runtime::new(&logger).expect("a runtime");
        let engine = runtime.deserialize(&bytes).expect("an engine");
        drop((logger, runtime, bytes));
        let (first, second) = (engine.create_execution_context(), engine.create_execution_context());
        drop(engine);
        assert_eq!(fake.alive(), 4, "two contexts, the engine and the runtime");
        drop(first);
        let second = second.expect("a context");
        assert_eq!(second.engine().tensors().expect("tensors").len(), 2);
        let again = second.engine().serialize().expect("bytes");
        drop(second);
        assert_eq!(fake.alive(), 1, "the bytes alone");
        drop(again);
        fake.assert_clean();
    }
}

#[test]
fn the_last_owner_may_be_another_thread() {
    let fake = Fake::rtx();
    fake.put_gpu();
    let bytes = fake.engine();
    let logger = Logger::with(&fake.open(), |_, _| {}).expect("a logger");
    let engine = Runtime::new(&logger).expect("a runtime").deserialize(&bytes).expect("an engine");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let engine = engine.clone();
            thread::spawn(move || drop(engine.create_execution_context().expect("a context")))
        })
        .collect();
    drop((engine, logger));
    for thread in threads {
        thread.join().expect("no panic");
    }
    fake.assert_clean();
}

#[test]
fn an_object_that_cannot_be_made_leaves_nothing() {
    for fake in Fake::all() {
        let logger = Logger::with(&fake.open(), |_, _| {}).expect("a logger");
        let runtime = Runtime::new(&logger).expect("a runtime");
        for _ in 0..3 {
            runtime.deserialize(b"no engine").expect_err("refused");
        }
        assert_eq!(fake.alive(), 1, "the runtime alone");
        drop(runtime);
        fake.assert_clean();
    }
}

/// `TensorRT` has one logger a process, and goes on with the first whatever a runtime is made with: here it would call
/// one that is gone.
#[test]
fn the_first_logger_of_a_library_may_go_before_what_was_made_with_another() {
    for fake in Fake::all() {
        let first = Logger::with(&fake.open(), |_, _| {}).expect("a logger");
        let builder = Builder::new(&first).expect("a builder");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&heard);
        let write = move |severity: LoggerSeverity, message: &str| {
            to.lock().expect("no panic holds it").push((severity, message.to_owned()));
        };
        let second = Logger::with(&fake.open(), write).expect("a logger");
        let runtime = Runtime::new(&second).expect("a runtime");
        drop((first, builder));
        let error = runtime.deserialize(b"no engine").expect_err("refused").to_string();
        assert!(error.ends_with(": no CUDA-capable device is detected"), "{error}");
        let expected = (LoggerSeverity::Error, "no CUDA-capable device is detected".to_owned());
        assert_eq!(*heard.lock().expect("whole"), [expected]);
        drop((second, runtime));
        fake.assert_clean();
    }
}
