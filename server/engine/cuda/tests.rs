//! The engine on the fake device, beside its network's own scores.

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    CudaEngine, CudaModel, CudaModelOptions, Precision, RESERVED_BYTES, device::Device, fake::Fake,
    plan::Plan, sample,
};
use crate::{
    engine::{Engine, EngineError, Network},
    tensor::Rows,
};

const MAX_ROWS: NonZeroUsize = NonZeroUsize::new(40).expect("not zero");
const PLENTY: usize = 8 << 30;

/// Every batch is copied, or fetched from the host, or only those of one row are fetched.
const DIRECT_BYTES: [usize; 3] = [0, CudaModelOptions::DIRECT_BYTES, 100];

fn options(precision: Precision) -> CudaModelOptions {
    let direct_bytes = CudaModelOptions::DIRECT_BYTES;
    CudaModelOptions { precision, max_rows: MAX_ROWS, slots: NonZeroUsize::MIN, direct_bytes }
}

fn open_with(fake: &Arc<Fake>, network: &Network, options: CudaModelOptions) -> CudaEngine {
    let device: Arc<dyn Device> = Arc::clone(fake) as _;
    let model = CudaModel::load(device, network, &sample::signature(network), options);
    model.and_then(|model| model.open()).expect("opened")
}

fn load(fake: &Arc<Fake>, network: &Network, precision: Precision) -> Result<CudaModel, EngineError> {
    let device: Arc<dyn Device> = Arc::clone(fake) as _;
    CudaModel::load(device, network, &sample::signature(network), options(precision))
}

fn open(fake: &Arc<Fake>, network: &Network, precision: Precision) -> Result<CudaEngine, EngineError> {
    load(fake, network, precision)?.open()
}

fn scores(engine: &mut CudaEngine, rows: &Rows) -> Vec<f32> {
    let mut scores = vec![7.0];
    engine.run(rows, &mut scores).expect("scores");
    scores
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (row, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let within = (f64::from(found) - expected).abs() <= tolerance;
        assert!(within, "row {row}: {found} in place of {expected}");
    }
}

#[test]
fn every_network_is_scored_as_it_says_in_either_precision_and_for_any_number_of_rows() {
    for network in sample::all() {
        for (precision, tolerance) in [(Precision::Single, 1e-5), (Precision::Half, 4e-3)] {
            for direct_bytes in DIRECT_BYTES {
                let fake = Fake::new(PLENTY);
                let options = CudaModelOptions { direct_bytes, ..options(precision) };
                let mut engine = open_with(&fake, &network, options);
                for count in [0, 1, 2, 7, 8, 9, 31, 32, 33, 40] {
                    let rows = sample::rows(&network, count);
                    let expected = network.score(&rows).expect("tables in memory");
                    assert_close(&scores(&mut engine, &rows), &expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn a_batch_replays_the_graph_of_the_smallest_bucket_that_holds_it() {
    let (fake, network) = (Fake::new(PLENTY), sample::wide_and_deep());
    let mut engine = open(&fake, &network, Precision::Single).expect("opened");
    assert_eq!(fake.take_replays(), [0, 1, 2, 3], "each has run before the engine is handed out");
    let buckets = [(1, 0), (2, 1), (8, 1), (9, 2), (32, 2), (33, 3), (40, 3)];
    for (count, bucket) in buckets {
        scores(&mut engine, &sample::rows(&network, count));
        assert_eq!(fake.take_replays(), [bucket], "{count} rows");
    }
}

#[test]
fn what_a_batch_leaves_behind_does_not_reach_the_next_one() {
    for direct_bytes in DIRECT_BYTES {
        let (fake, network) = (Fake::new(PLENTY), sample::deep_and_cross());
        let options = CudaModelOptions { direct_bytes, ..options(Precision::Single) };
        let mut engine = open_with(&fake, &network, options);
        let (large, small) = (sample::rows(&network, 40), sample::rows(&network, 3));
        let before = scores(&mut engine, &small);
        scores(&mut engine, &large);
        assert_eq!(scores(&mut engine, &small), before);
    }
}

#[test]
fn slots_share_tables_and_each_computes_for_itself() {
    let (fake, network) = (Fake::new(PLENTY), sample::lists());
    let model = load(&fake, &network, Precision::Half).expect("loaded");
    let mut slots = [model.open().expect("opened"), model.open().expect("opened")];
    assert_eq!(fake.allocated_bytes(), model.bytes(2));
    let rows = sample::rows(&network, 20);
    let [one, other] = &mut slots;
    assert_eq!(scores(one, &rows), scores(other, &rows));
    drop(model);
    assert_eq!(scores(one, &rows), scores(other, &rows), "the tables live as long as a slot");
}

#[test]
fn batches_are_replayed_together_from_memory_of_their_own() {
    let network = sample::lists();
    for direct_bytes in DIRECT_BYTES {
        let fake = Fake::new(PLENTY);
        let options = CudaModelOptions { direct_bytes, ..options(Precision::Single) };
        let mut engine = open_with(&fake, &network, options);
        let batches = [5, 8, 30].map(|count| sample::rows(&network, count));
        let before = scores(&mut engine, &batches[0]);
        let held = fake.held();
        let mut replays = engine.record(&batches).expect("captured");
        fake.take_replays();
        replays.time(4).expect("replayed");
        assert_eq!(fake.take_replays(), [4, 4], "all three in one graph, behind those of the four buckets");
        drop(replays);
        assert_eq!(fake.held(), held, "and give their memory back");
        assert_eq!(scores(&mut engine, &batches[0]), before);
    }
    let mut engine = open(&Fake::new(PLENTY), &network, Precision::Single).expect("opened");
    let error = engine.record(&[sample::rows(&network, 41)]).err().expect("41 rows");
    assert_eq!(error.to_string(), "41 rows; the engine was opened for 40");
}

#[test]
fn a_batch_that_is_too_large_is_refused_before_anything_is_written() {
    let (fake, network) = (Fake::new(PLENTY), sample::wide_and_deep());
    let mut engine = open(&fake, &network, Precision::Single).expect("opened");
    let calls = fake.calls();
    let error = engine.run(&sample::rows(&network, 41), &mut Vec::new()).expect_err("41 rows");
    assert_eq!(error.to_string(), "41 rows; the engine was opened for 40");
    assert_eq!(fake.calls(), calls);
}

#[test]
fn rows_of_another_signature_are_refused() {
    let (fake, network) = (Fake::new(PLENTY), sample::wide_and_deep());
    let mut engine = open(&fake, &network, Precision::Single).expect("opened");
    for other in [sample::lists(), sample::deep_and_cross(), sample::without_layers()] {
        let error = engine.run(&sample::rows(&other, 3), &mut Vec::new()).expect_err("another's");
        assert!(matches!(error, EngineError::Signature(_)), "{error}");
    }
}

#[test]
fn an_id_outside_of_its_table_is_an_error_of_its_batch_alone() {
    let network = sample::lists();
    for column in 0..network.id_columns {
        for id in [-1, i32::MIN, i32::MAX, i32::try_from(sample::TABLE_ROWS).expect("small")] {
            for direct_bytes in DIRECT_BYTES {
                let fake = Fake::new(PLENTY);
                let options = CudaModelOptions { direct_bytes, ..options(Precision::Single) };
                let mut engine = open_with(&fake, &network, options);
                let (good, fewer) = (sample::rows(&network, 5), sample::rows(&network, 4));
                let before = [&good, &fewer].map(|rows| scores(&mut engine, rows));
                let mut bad = good.clone();
                bad.last_i32(0)[column] = id;
                let error = engine.run(&bad, &mut Vec::new()).expect_err("outside");
                assert!(matches!(error, EngineError::Ids), "{error}");
                // The second is in the same bucket, and the id where it has no row.
                let after = [&fewer, &good].map(|rows| scores(&mut engine, rows));
                assert_eq!([&after[1], &after[0]], [&before[0], &before[1]], "the next know nothing of it");
            }
        }
    }
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_both_numbers() {
    let network = sample::wide_and_deep();
    let plan = Plan::new(&network, Precision::Single, MAX_ROWS.get(), 0).expect("small");
    let needed = plan.bytes(1).expect("small");
    let enough = Fake::new(needed + RESERVED_BYTES);
    drop(load(&enough, &network, Precision::Single).expect("just fits"));
    let short = Fake::new(needed + RESERVED_BYTES - 1);
    let error = load(&short, &network, Precision::Single).err().expect("a byte short").to_string();
    let free = needed + RESERVED_BYTES - 1;
    assert!(error.contains(&needed.to_string()) && error.contains(&free.to_string()), "{error}");
    assert_eq!(short.calls(), 1, "nothing was allocated");
}

#[test]
fn a_failure_of_any_call_while_a_model_is_opened_is_said_and_leaves_nothing_behind() {
    let network = sample::deep_and_cross();
    for direct_bytes in DIRECT_BYTES {
        let options = CudaModelOptions { direct_bytes, ..options(Precision::Single) };
        let open = |fake: &Arc<Fake>| {
            let device: Arc<dyn Device> = Arc::clone(fake) as _;
            CudaModel::load(device, &network, &sample::signature(&network), options)?.open()
        };
        let fake = Fake::new(PLENTY);
        drop(open(&fake).expect("opened"));
        let calls = fake.calls();
        assert!(calls > 40, "{calls}");
        for call in 0..calls {
            let fake = Fake::new(PLENTY);
            fake.fail_after(call);
            let error = open(&fake).err().expect("a call failed");
            assert!(error.to_string().contains("it was told to") || has_source(&error), "{error}");
            assert_eq!(fake.held(), 0, "after call {call}");
        }
    }
}

fn has_source(error: &dyn std::error::Error) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().is_some_and(|cause| cause.to_string().contains("it was told to"))
}

#[test]
fn an_engine_whose_device_failed_answers_the_error_for_ever() {
    let network = sample::wide_and_deep();
    // A run is a replay and a wait.
    for call in 0..2 {
        let fake = Fake::new(PLENTY);
        let mut engine = open(&fake, &network, Precision::Single).expect("opened");
        let rows = sample::rows(&network, 3);
        fake.fail_after(call);
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
fn an_engine_gives_everything_back() {
    for network in sample::all() {
        let fake = Fake::new(PLENTY);
        let mut engine = open(&fake, &network, Precision::Half).expect("opened");
        scores(&mut engine, &sample::rows(&network, 9));
        assert!(fake.held() > 0);
        drop(engine);
        assert_eq!(fake.held(), 0);
    }
}

#[test]
fn a_model_file_is_served_by_a_device_that_is_open() {
    let (cuda, _device) = super::Cuda::on_a_fake();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.onnx");
    let network = sample::deep_and_cross();
    std::fs::write(&path, sample::onnx(&network)).expect("written");
    let model = cuda.load(&path, &sample::signature(&network), options(Precision::Single)).expect("loaded");
    let rows = sample::rows(&network, 9);
    let expected = network.score(&rows).expect("tables in memory");
    assert_close(&scores(&mut model.open().expect("opened"), &rows), &expected, 1e-5);
    std::fs::write(&path, "none").expect("written");
    let error = cuda.load(&path, &sample::signature(&network), options(Precision::Single));
    assert!(matches!(error, Err(EngineError::Network(_))));
}

#[test]
fn where_there_is_no_library_that_is_said() {
    // Where there is one, nothing can be said about its absence.
    if let Err(error) = super::Cuda::check_libraries() {
        let error = error.to_string();
        assert!(
            error.starts_with("CUDA cannot be used: lib") && error.ends_with("cannot be opened"),
            "{error}"
        );
    }
}
