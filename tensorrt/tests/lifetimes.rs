//! Objects in every awkward order: whatever is dropped first, each is freed once, and after what was made from it.
//!
//! The fake keeps books, so that this says something in any run. `make tensorrt-memcheck` runs it, and all the other
//! tests of this crate, under `AddressSanitizer` as well.

use std::thread;

use tensorrt::{Builder, Library, Logger, OnnxParser, Runtime};

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
