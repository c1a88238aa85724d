//! Slots of an engine, on the fakes of the library and of the device. What needs the library itself is skipped aloud where it is
//! not there, unless `MILLRACE_TENSORRT_REQUIRED` is set, as `make tensorrt-check` does.

use std::{
    env,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    TensorRt, TensorRtEngine, TensorRtError, TensorRtModel, TensorRtModelOptions, TensorRtOnGpu,
    fake::{CONTEXT_BYTES, ENGINE, FakeRuntime, sums},
};
use crate::{
    engine::{
        Engine, EngineError,
        cuda::{Cuda, CudaOptions, RESERVED_BYTES, device::Device, fake::Fake},
    },
    tensor::{DType, Rows, Signature, TensorSpec},
};

const PLENTY: usize = 8 << 30;

fn signature() -> Signature {
    let input = |name: &str, dtype, width| TensorSpec { name: name.into(), dtype, width };
    let inputs = vec![input("ids", DType::I32, 3), input("dense", DType::F32, 2)];
    Signature { inputs, output: "probability".into() }
}

/// Rows that differ from one another.
fn rows(count: usize) -> Rows {
    let mut rows = Rows::new(&signature());
    for row in 0..count {
        let number = i16::try_from(row).expect("few rows");
        rows.push_zeroed();
        rows.last_i32(0).copy_from_slice(&[number.into(), 2, (number % 7).into()]);
        rows.last_f32(1).copy_from_slice(&[0.5, f32::from(number) / 4.0]);
    }
    rows
}

fn options(max_rows: usize) -> TensorRtModelOptions {
    let max_rows = NonZeroUsize::new(max_rows).expect("not zero");
    TensorRtModelOptions { max_rows, slots: NonZeroUsize::MIN }
}

fn on(fake: &Arc<Fake>, runtime: FakeRuntime) -> TensorRtOnGpu {
    TensorRtOnGpu { runtime: Arc::new(runtime), device: Arc::clone(fake) as Arc<dyn Device> }
}

fn load(fake: &Arc<Fake>, max_rows: usize) -> Result<TensorRtModel, EngineError> {
    on(fake, FakeRuntime::new(&signature())).load(ENGINE, &signature(), options(max_rows))
}

fn open(fake: &Arc<Fake>) -> Result<TensorRtEngine, EngineError> {
    load(fake, 40)?.open()
}

fn scores(engine: &mut TensorRtEngine, rows: &Rows) -> Vec<f32> {
    let mut scores = vec![7.0];
    engine.run(rows, &mut scores).expect("scores");
    scores
}

#[test]
fn batches_of_any_size_are_scored_whatever_came_before() {
    let fake = Fake::new(PLENTY);
    let mut engine = open(&fake).expect("opened");
    for count in [0, 1, 2, 40, 7, 8, 9, 31, 1, 32, 33, 40] {
        let rows = rows(count);
        assert_eq!(scores(&mut engine, &rows), sums(&rows), "{count} rows");
    }
    let error = engine.run(&rows(41), &mut Vec::new()).expect_err("41 rows").to_string();
    assert_eq!(error, "41 rows; the engine was opened for 40");
}

#[test]
fn slots_share_an_engine_and_take_what_they_said() {
    let fake = Fake::new(PLENTY);
    let model = load(&fake, 40).expect("loaded");
    let mut slots = [model.open().expect("opened"), model.open().expect("opened")];
    // What the library takes is none of the fake's.
    let of_the_library = ENGINE.len() + 2 * CONTEXT_BYTES;
    assert_eq!(fake.allocated_bytes() + of_the_library, model.bytes(2));
    assert_eq!(model.library(), "TensorRT-RTX 1.7.1");
    drop(model);
    let rows = rows(20);
    for slot in &mut slots {
        assert_eq!(scores(slot, &rows), sums(&rows));
    }
    drop(slots);
    assert_eq!(fake.held(), 0);
}

#[test]
fn rows_of_another_signature_are_refused_before_anything_is_computed() {
    let fake = Fake::new(PLENTY);
    let mut engine = open(&fake).expect("opened");
    let calls = fake.calls();
    let [ids, dense] = [0, 1].map(|index| signature().inputs[index].clone());
    for inputs in [vec![ids.clone()], vec![dense.clone(), ids.clone()], vec![ids.clone(), ids]] {
        let mut other = Rows::new(&Signature { inputs, ..signature() });
        other.push_zeroed();
        let error = engine.run(&other, &mut Vec::new()).expect_err("another's");
        assert!(matches!(error, EngineError::Signature(_)), "{error}");
    }
    assert_eq!(fake.calls(), calls);
}

#[test]
fn an_engine_that_is_not_what_its_record_says_is_refused() {
    let fake = Fake::new(PLENTY);
    let refused = |runtime: FakeRuntime, engine: &[u8]| {
        let model = on(&fake, runtime).load(engine, &signature(), options(40));
        assert_eq!(fake.held(), 0);
        model.err().expect("refused").to_string()
    };
    let runtime = || FakeRuntime::new(&signature());
    assert_eq!(refused(runtime(), b"none"), "the engine is invalid: it is no engine");
    let mut wider = runtime();
    wider.inputs[0].shape[1] = 4;
    let error = refused(wider, ENGINE);
    assert!(error.starts_with("the model does not fit its signature: inputs `ids` i32 [-1, 4]"), "{error}");
    let small = FakeRuntime { max_rows: 39, ..runtime() };
    let expected = "the engine is for batches of 1 to 39 rows, and the model's have up to 40";
    assert_eq!(refused(small, ENGINE), expected);
}

#[test]
fn an_engine_that_does_not_fit_is_refused_with_both_numbers() {
    let bytes = load(&Fake::new(PLENTY), 40).expect("loaded").bytes(1);
    drop(load(&Fake::new(bytes + RESERVED_BYTES), 40).expect("just fits"));
    let slot_bytes = bytes - ENGINE.len();
    let error = load(&Fake::new(slot_bytes + RESERVED_BYTES - 1), 40).err().expect("a byte short");
    assert!(matches!(error, EngineError::Memory { needed, .. } if needed == slot_bytes), "{error}");
}

#[test]
fn a_failure_of_any_call_while_a_slot_is_opened_is_said_and_leaves_nothing_behind() {
    let fake = Fake::new(PLENTY);
    drop(open(&fake).expect("opened"));
    // The last three give it back: the device is entered, the work waited for, the device entered for the engine.
    let calls = fake.calls() - 3;
    assert!(calls > 20, "{calls}");
    for call in 0..calls {
        let fake = Fake::new(PLENTY);
        fake.fail_after(call);
        let error = open(&fake).err().expect("a call failed").to_string();
        assert!(error.contains("it was told to"), "call {call}: {error}");
        assert_eq!(fake.held(), 0, "after call {call}");
    }
}

#[test]
fn an_engine_whose_device_failed_answers_the_error_for_ever() {
    // A run enters the device, copies two inputs, computes, copies the scores and waits.
    for call in 0..6 {
        let fake = Fake::new(PLENTY);
        let mut engine = open(&fake).expect("opened");
        fake.fail_after(call);
        let rows = rows(3);
        let first = engine.run(&rows, &mut Vec::new()).expect_err("the device fails").to_string();
        assert!(first.contains("the GPU failed") && first.contains("load the version again"), "{first}");
        let calls = fake.calls();
        assert_eq!(engine.run(&rows, &mut Vec::new()).expect_err("still").to_string(), first);
        assert_eq!(fake.calls(), calls, "the device is left alone");
        drop(engine);
        assert_eq!(fake.held(), 0);
    }
}

#[test]
fn a_server_without_the_feature_or_without_a_folder_says_what_to_do() {
    let folder = Path::new("libraries");
    assert!(matches!(TensorRt::check(true, Some(folder)), Ok(found) if found == folder));
    let error = TensorRt::check(true, None).expect_err("no folder");
    assert!(matches!(error, TensorRtError::NoFolder) && error.to_string().contains("--tensorrt"));
    for folder in [None, Some(folder)] {
        let error = TensorRt::check(false, folder).expect_err("not built in");
        assert!(matches!(error, TensorRtError::Feature));
        assert!(error.to_string().contains("cargo build --release --features tensorrt"), "{error}");
    }
}

#[test]
fn a_folder_without_libraries_is_named_before_a_gpu_is_looked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tensorrt = TensorRt::new(Some(folder.path().to_owned()));
    let error = tensorrt.on(&Cuda::new(CudaOptions::default())).err().expect("no library").to_string();
    let expected =
        if TensorRt::IS_BUILT_IN { "there is no TensorRT library in " } else { "built without TensorRT" };
    assert!(error.contains(expected), "{error}");
}

/// For the library it takes no GPU, and for its word on what is no engine neither.
#[test]
fn the_library_itself_says_what_it_is_and_refuses_what_is_no_engine() {
    if !TensorRt::IS_BUILT_IN {
        return;
    }
    let named = env::var_os("MILLRACE_TENSORRT").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let fetched = "target/wheels/onnxruntime-ep-nv-tensorrt-rtx-cu13/0.5.0";
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(fetched));
    if !folder.is_dir() {
        assert!(env::var_os("MILLRACE_TENSORRT_REQUIRED").is_none(), "no TensorRT in {}", folder.display());
        eprintln!("skipped: no TensorRT in {}: run `make tensorrt`", folder.display());
        return;
    }
    let runtime = TensorRt::new(Some(folder)).runtime().expect("open");
    assert!(runtime.flavour().starts_with("TensorRT") && runtime.version().contains('.'));
    if runtime.flavour() == "TensorRT-RTX" {
        let error = runtime.deserialize(&[7; 1 << 10]).err().expect("no engine").to_string();
        assert!(error.starts_with("the engine is invalid: "), "{error}");
    }
}
