//! Engines after they were built: their headers, and runs as far as a fake GPU goes.

use std::ptr;

use tensorrt::{Dims, Error, Flavour, Logger, Runtime, Verdict};

use crate::fake::Fake;

fn runtime(fake: &Fake) -> Runtime {
    let logger = Logger::with(&fake.open(), |_, _| {}).expect("a logger");
    Runtime::new(&logger).expect("a runtime")
}

#[test]
fn a_header_tells_an_engine_from_anything_else() {
    let fake = Fake::rtx();
    let runtime = runtime(&fake);
    let header = runtime.engine_header_bytes().expect("a size");
    assert_eq!(header, 64);
    let engine = fake.engine();
    let validity = runtime.engine_validity(&engine[..header]).expect("a verdict");
    assert_eq!(validity.verdict, Verdict::Unjudged);
    assert_eq!(validity.to_string(), "an engine that cannot be judged without a GPU");
    for other in [[0; 64].as_slice(), b"short"] {
        let validity = runtime.engine_validity(other).expect("a verdict");
        assert_eq!(validity.verdict, Verdict::Invalid);
        assert_eq!(validity.to_string(), "invalid: it is no engine");
    }
    fake.put_gpu();
    let validity = runtime.engine_validity(&engine).expect("a verdict");
    assert_eq!((validity.verdict, validity.reasons().count()), (Verdict::Valid, 0));
}

#[test]
fn only_the_flavour_with_headers_reads_them() {
    for fake in Fake::all() {
        let found = runtime(&fake).engine_header_bytes();
        match fake.open().flavour() {
            Flavour::Rtx => assert_eq!(found.expect("a size"), 64),
            Flavour::Enterprise => assert!(matches!(found, Err(Error::Absent { .. })), "{found:?}"),
        }
    }
}

#[test]
fn without_a_gpu_an_engine_is_refused_in_one_sentence() {
    for fake in Fake::all() {
        let error = runtime(&fake).deserialize(&fake.engine()).expect_err("there is no GPU").to_string();
        assert_eq!(
            error,
            "TensorRT cannot read the engine, which needs a GPU that it was built for: no CUDA-capable device is detected"
        );
    }
}

#[test]
fn an_engine_tells_its_tensors_and_profiles() {
    for fake in Fake::all() {
        fake.put_gpu();
        let engine = runtime(&fake).deserialize(&fake.engine()).expect("an engine");
        let tensors = engine.tensors().expect("tensors");
        let names: Vec<_> = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.is_input)).collect();
        assert_eq!(names, [("ids", true), ("probability", false)]);
        assert_eq!(engine.profiles().expect("a number"), 1);
        let range = engine.profile_range(c"ids", 0).expect("a range");
        let rows = [range.min, range.opt, range.max].map(|dims| dims.as_slice()[0]);
        assert_eq!(rows, [1, 8, 64]);
        engine.profile_range(c"ids", 1).expect_err("there is one profile");
        assert_eq!(engine.device_bytes().expect("a size"), 4096);
    }
}

#[test]
fn a_run_needs_shapes_within_the_profile_and_every_address() {
    for fake in Fake::all() {
        fake.put_gpu();
        let engine = runtime(&fake).deserialize(&fake.engine()).expect("an engine");
        let mut context = engine.create_execution_context().expect("a context");
        let rows = |rows| Dims::new(&[rows, 2]).expect("two dimensions");
        context.set_input_shape(c"ids", rows(65)).expect_err("more rows than the profile has");
        context.set_input_shape(c"ids", rows(3)).expect("within the profile");
        assert_eq!(context.tensor_shape(c"probability").expect("a shape").as_slice(), [3, 1]);
        let (mut ids, mut probability) = ([0_i32; 6], [0_f32; 3]);
        // SAFETY: The fake has no device, and only keeps the address. It lives through the run.
        unsafe { context.set_tensor_address(c"ids", ids.as_mut_ptr().cast()) }.expect("taken");
        // SAFETY: The fake knows no streams, and its runs do nothing.
        unsafe { context.enqueue_v3(ptr::null_mut()) }.expect_err("one address is missing");
        // SAFETY: As above.
        unsafe { context.set_tensor_address(c"probability", probability.as_mut_ptr().cast()) }
            .expect("taken");
        // SAFETY: As above.
        unsafe { context.set_profile(0, ptr::null_mut()) }.expect("there is one");
        // SAFETY: As above.
        unsafe { context.enqueue_v3(ptr::null_mut()) }.expect("started");
        // SAFETY: As above.
        let capturable = unsafe { context.is_stream_capturable(ptr::null_mut()) };
        match fake.open().flavour() {
            Flavour::Rtx => assert!(capturable.expect("told")),
            Flavour::Enterprise => assert!(matches!(capturable, Err(Error::Absent { .. }))),
        }
    }
}

#[test]
fn what_an_earlier_call_logged_is_not_held_against_a_later_one() {
    let fake = Fake::rtx();
    let runtime = runtime(&fake);
    // It succeeds, and logs an error on its way.
    runtime.engine_validity(&fake.engine()).expect("a verdict");
    let error = runtime.deserialize(b"no engine").expect_err("there is no GPU").to_string();
    assert!(!error.contains("no driver"), "{error}");
}
