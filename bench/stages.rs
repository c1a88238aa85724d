//! The stages of a request one by one, on the version that `MILLRACE_BENCH_VERSION` names: what decoding, joining a
//! batch, computing, encoding, counting, a receipt and drawing rows cost, each without the others.

use std::{
    env,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millrace::{
    batcher::{Batcher, BatcherOptions, Batching, Lane, Priority, Terms},
    codec::json,
    drift::{DriftOptions, Sampler, Subject},
    engine::{Engine, EngineError, OnnxEngine, OnnxRuntime},
    features::Encoder,
    feedback::{Issuer, Keys},
    metrics::{Dialect, Metrics, Outcome, VersionFacts},
    repository::{ModelName, VersionNumber, golden::Golden, manifest::Manifest, reference},
    tensor::{Rows, Signature},
};

/// What a request needs, read once.
struct Version {
    folder: PathBuf,
    manifest: Manifest,
    encoder: Encoder,
    golden: Golden,
    engine: OnnxEngine,
}

impl Version {
    fn read() -> Self {
        let folder =
            env::var("MILLRACE_BENCH_VERSION").expect("MILLRACE_BENCH_VERSION names a version's folder");
        let library = env::var("MILLRACE_ONNXRUNTIME").expect("MILLRACE_ONNXRUNTIME names the library");
        let folder = Path::new(&folder);
        let name = |path: Option<&Path>| {
            path.and_then(Path::file_name).and_then(|name| name.to_str()).map(str::to_owned)
        };
        let model: ModelName =
            name(folder.parent()).expect("models/NAME/VERSION").parse().expect("a model's name");
        let version: VersionNumber =
            name(Some(folder)).expect("models/NAME/VERSION").parse().expect("a version");
        let manifest = Manifest::read(folder, &model, version).expect("a manifest");
        let encoder = Encoder::read(&folder.join(Manifest::FEATURES)).expect("features");
        let golden = Golden::read(folder).expect("golden rows");
        let runtime = OnnxRuntime::load(Path::new(&library)).expect("ONNX Runtime");
        let engine = OnnxEngine::open(&runtime, &folder.join(Manifest::MODEL), &manifest.signature)
            .expect("an engine");
        Self { folder: folder.to_owned(), manifest, encoder, golden, engine }
    }

    /// A body of so many rows.
    fn body(&self, rows: usize) -> Vec<u8> {
        let rows: Vec<_> = self.golden.input.iter().cycle().take(rows).collect();
        serde_json::to_vec(&serde_json::json!({ "input": rows })).expect("values are JSON")
    }

    /// So many encoded rows.
    fn rows(&self, count: usize) -> Rows {
        let mut rows = Rows::new(&self.manifest.signature);
        json::decode(&self.body(count), &self.encoder, &mut rows, count).expect("golden rows are good");
        rows
    }
}

fn decoding(criterion: &mut Criterion) {
    let version = Version::read();
    let mut group = criterion.benchmark_group("decode");
    for count in [1, 100, 1_000] {
        let body = version.body(count);
        let mut rows = Rows::new(&version.manifest.signature);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                rows.clear();
                json::decode(black_box(&body), &version.encoder, &mut rows, count).expect("rows");
            });
        });
    }
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for count in [1usize, 100, 1_000] {
        let scores: Vec<f32> = (0..count).map(|row| 1.0 / (row as f32 + 1.5)).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                let mut text = Vec::new();
                json::encode(black_box(&scores), &mut text);
                text
            });
        });
    }
}

fn computing(criterion: &mut Criterion) {
    let mut version = Version::read();
    let mut group = criterion.benchmark_group("compute");
    for count in [1, 8, 32, 256, 4_096] {
        let (rows, mut scores) = (version.rows(count), Vec::new());
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| version.engine.run(black_box(&rows), &mut scores).expect("scores"));
        });
    }
}

/// An engine whose batches cost nothing, so that what is left is the batcher.
struct Nothing(Signature);

impl Engine for Nothing {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
        scores.clear();
        scores.resize(rows.len(), 0.5);
        Ok(())
    }
}

fn batching(criterion: &mut Criterion) {
    const WITHIN: Duration = Duration::from_hours(1);
    let version = Version::read();
    let count = |number: usize| number.try_into().expect("above zero");
    let options = BatcherOptions {
        lane: Lane::Inline,
        batching: Batching {
            max_batch_rows: count(4_096),
            preferred_batch_rows: count(4_096),
            max_queue_delay: Duration::ZERO,
            max_queue_rows: count(65_536),
            standing_wait: WITHIN,
        },
        costs: Vec::new(),
        metrics: Metrics::new("bench").version("shop", 1, VersionFacts::default()),
    };
    let (batcher, _) = Batcher::new(vec![Box::new(Nothing(version.manifest.signature.clone()))], options);
    let batcher = Arc::new(batcher);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let rows = Arc::new(version.rows(1));
    let mut group = criterion.benchmark_group("batch");
    for requests in [1, 8, 32] {
        group.throughput(Throughput::Elements(requests));
        group.bench_function(BenchmarkId::from_parameter(requests), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let terms = Terms { deadline: Instant::now() + WITHIN, priority: Priority::Normal };
                    let mut tasks = tokio::task::JoinSet::new();
                    for _ in 0..requests {
                        let (batcher, rows) = (Arc::clone(&batcher), Arc::clone(&rows));
                        tasks.spawn(async move { batcher.score(&rows, terms).await.expect("a score").len() });
                    }
                    tasks.join_all().await
                })
            });
        });
    }
}

fn counting(criterion: &mut Criterion) {
    let metrics = Metrics::new("bench");
    let version = metrics.version("shop", 1, VersionFacts::default());
    let mut samples = 0;
    criterion.bench_function("count", |bencher| {
        bencher.iter(|| {
            let series = version.series();
            series.request(Dialect::Predict, Outcome::Ok, black_box(Duration::from_micros(150)));
            series.queued(Duration::from_micros(20));
            // As the server does every second, so that samples do not pile up.
            samples += 1;
            if samples % 100_000 == 0 {
                metrics.upkeep();
            }
        });
    });
}

fn sealing(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("receipt.keys");
    std::fs::write(&path, "5".repeat(64)).expect("written");
    let issuer = Issuer::new(Arc::new(Keys::read(&path).expect("a key")));
    let mut group = criterion.benchmark_group("receipt");
    for count in [1, 100, 1_000] {
        let scores = vec![0.85; count];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let now = Duration::from_secs(1_795_000_000);
            let of = ("recommendation_model", 1);
            bencher
                .iter(|| issuer.issue(of, now, black_box(&scores).iter().copied()).expect("probabilities"));
        });
    }
}

/// Requests that come much faster than rows are wanted, as they do at full load.
fn drawing(criterion: &mut Criterion) {
    let version = Version::read();
    let reference = reference::read(&version.folder, &version.encoder).expect("usable").expect("a reference");
    let options = DriftOptions {
        rows_per_second: 50.try_into().expect("above zero"),
        window: Duration::from_hours(1),
        min_requests: 500,
    };
    let bodies = [1, 100, 1_000].map(|count| (count, version.body(count)));
    let subject = Subject::new(("shop", 1), Arc::new(version.encoder), reference, options).expect("watched");
    let subject = Arc::new(subject);
    let (sampler, thread) = Sampler::new(Metrics::new("bench"));
    let thread = std::thread::spawn(|| thread.run());
    let mut group = criterion.benchmark_group("draw");
    for (count, body) in bodies {
        let scores = vec![0.85; count];
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                let drawn = sampler.draw(Some(&subject), count, Some(black_box(&body)));
                sampler.answered(drawn, &scores);
            });
        });
    }
    drop(sampler);
    thread.join().expect("it ends with its sampler");
}

criterion_group!(stages, decoding, batching, computing, encoding, counting, sealing, drawing);
criterion_main!(stages);
