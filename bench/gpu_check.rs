//! What a machine with an NVIDIA GPU says of the engine for it: every kernel beside double precision, the engine beside the
//! network that it computes and beside ONNX Runtime, and what batches cost. It needs no Rust and no network there; `make
//! gpu-bundle` packs it with what it needs. `compile` only compiles the kernels, which takes no GPU.

use std::{
    fs,
    io::{self, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::{Parser, Subcommand};
use millrace::{
    engine::{
        Engine, EngineError, Network, OnnxEngine, OnnxRuntime,
        cuda::{self, Checked, Cuda, CudaEngine, CudaModel, CudaModelOptions, CudaOptions, Precision},
    },
    features::Encoder,
    repository::manifest::Manifest,
    tensor::{Rows, Signature},
};
use serde::Serialize;

/// Checks and measures the engine on a GPU.
#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check and measure on the GPU of this machine; the exit status is 1 where something is off.
    Run(Run),
    /// Compile the kernels into a folder.
    Compile {
        /// As `sm_90`.
        #[arg(long)]
        architecture: String,
        /// The folder.
        #[arg(long)]
        cache: PathBuf,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Folders of versions, as the trainer leaves them.
    #[arg(required = true)]
    versions: Vec<PathBuf>,
    /// The ONNX Runtime library.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME")]
    onnxruntime: PathBuf,
    /// The GPU's number.
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// The folder of compiled kernels.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// The most rows of a batch.
    #[arg(long, default_value = "4096")]
    max_rows: NonZeroUsize,
    /// Where the report goes.
    #[arg(long, default_value = "gpu-check.json")]
    out: PathBuf,
}

/// Everything that was found.
#[derive(Serialize)]
struct Report {
    device: String,
    passed: bool,
    kernels: Vec<Checked>,
    models: Vec<ModelReport>,
    /// What could not be finished, and why.
    errors: Vec<String>,
}

/// A version in one precision.
#[derive(Serialize)]
struct ModelReport {
    version: String,
    precision: &'static str,
    passed: bool,
    bytes: usize,
    batches: Vec<BatchReport>,
    /// Whether an id outside of its table is an error, and the batch after it is none.
    ids_are_checked: bool,
}

/// A batch of so many rows.
#[derive(Serialize)]
struct BatchReport {
    rows: usize,
    /// The largest distance from the network in double precision.
    from_reference: f64,
    /// The largest distance from ONNX Runtime.
    from_onnx: f64,
    /// The graph alone, in microseconds.
    device_us: f64,
    /// From the rows to the scores, in microseconds.
    engine_p50_us: f64,
    engine_p99_us: f64,
    /// The fastest run of ONNX Runtime on one core, in microseconds.
    onnx_cpu_us: f64,
}

fn main() -> anyhow::Result<ExitCode> {
    match Flags::parse().command {
        Command::Compile { architecture, cache } => {
            let kernels = cuda::compile(&architecture, &cache)?;
            say(&format!("{kernels}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(run) => {
            let report = run.report()?;
            fs::write(&run.out, serde_json::to_vec_pretty(&report)?)?;
            say(&serde_json::to_string(&report)?)?;
            Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

impl Run {
    fn report(&self) -> anyhow::Result<Report> {
        let cuda = Cuda::new(CudaOptions { device: self.device, cache: self.cache.clone() });
        let (device, kernels) = cuda.check()?;
        let runtime = OnnxRuntime::load(&self.onnxruntime)?;
        let (mut models, mut errors) = (Vec::new(), Vec::new());
        for folder in &self.versions {
            for precision in [Precision::Single, Precision::Half] {
                // What one model comes to says something whatever becomes of the others.
                match self.model(folder, &runtime, &cuda, precision) {
                    Ok(model) => models.push(model),
                    Err(error) => {
                        errors.push(format!("{}, {}: {error:#}", folder.display(), precision.name()));
                    }
                }
            }
        }
        let all_passed = kernels.iter().all(Checked::passed) && models.iter().all(|model| model.passed);
        let passed = all_passed && errors.is_empty();
        Ok(Report { device: device.to_string(), passed, kernels, models, errors })
    }

    fn model(
        &self,
        folder: &Path,
        runtime: &OnnxRuntime,
        cuda: &Cuda,
        precision: Precision,
    ) -> anyhow::Result<ModelReport> {
        Version::read(folder, runtime)?.report(cuda, precision, self.max_rows)
    }
}

/// A version, as the processor computes it.
struct Version {
    folder: PathBuf,
    encoder: Encoder,
    network: Network,
    onnx: OnnxEngine,
}

impl Version {
    fn read(folder: &Path, runtime: &OnnxRuntime) -> anyhow::Result<Self> {
        let encoder = Encoder::read(&folder.join(Manifest::FEATURES))?;
        let model = folder.join(Manifest::MODEL);
        let network = Network::read(&model, encoder.signature())?;
        let onnx = OnnxEngine::open(runtime, &model, encoder.signature())?;
        Ok(Self { folder: folder.to_owned(), encoder, network, onnx })
    }

    fn signature(&self) -> &Signature {
        self.encoder.signature()
    }

    fn report(
        mut self,
        cuda: &Cuda,
        precision: Precision,
        max_rows: NonZeroUsize,
    ) -> anyhow::Result<ModelReport> {
        let options = CudaModelOptions { precision, max_rows, slots: NonZeroUsize::MIN };
        let model = cuda.load(&self.folder.join(Manifest::MODEL), self.signature(), options)?;
        let mut engine = model.open()?;
        let mut batches = Vec::new();
        for rows in edges(&model) {
            batches.push(self.batch(&mut engine, rows)?);
        }
        let ids_are_checked = self.checks_ids(&mut engine)?;
        let tolerance = if precision == Precision::Single { 1e-4 } else { 5e-3 };
        let close = |batch: &BatchReport| batch.from_reference <= tolerance && batch.from_onnx <= tolerance;
        Ok(ModelReport {
            version: self.folder.display().to_string(),
            precision: precision.name(),
            passed: ids_are_checked && batches.iter().all(close),
            bytes: model.bytes(1),
            batches,
            ids_are_checked,
        })
    }

    fn batch(&mut self, engine: &mut CudaEngine, count: usize) -> anyhow::Result<BatchReport> {
        let rows = self.rows(count);
        let (mut found, mut onnx) = (Vec::new(), Vec::new());
        engine.run(&rows, &mut found)?;
        let reference = self.network.score(&rows)?;
        let onnx_cpu = if count > 0 { fastest(&mut self.onnx, &rows, &mut onnx)? } else { Duration::ZERO };
        let onnx: Vec<f64> = onnx.into_iter().map(f64::from).collect();
        let (p50, p99) = quantiles(engine, &rows)?;
        Ok(BatchReport {
            rows: count,
            from_reference: distance(&found, &reference),
            from_onnx: distance(&found, &onnx),
            device_us: microseconds(engine.time_replays(count, REPLAYS)?),
            engine_p50_us: microseconds(p50),
            engine_p99_us: microseconds(p99),
            onnx_cpu_us: microseconds(onnx_cpu),
        })
    }

    /// Rows at random, of ids that there are.
    fn rows(&self, count: usize) -> Rows {
        let mut rows = Rows::new(self.signature());
        let mut chance = Chance(count as u64);
        for _ in 0..count {
            rows.push_zeroed();
            let ids = rows.last_i32(0).iter_mut().zip(self.encoder.id_ranges());
            ids.for_each(|(id, range)| *id = range.start + chance.below(range.end - range.start));
            rows.last_f32(1)
                .fill_with(|| f32::from(i16::try_from(chance.below(4001)).unwrap_or(0)) / 1000.0 - 2.0);
        }
        rows
    }

    fn checks_ids(&self, engine: &mut CudaEngine) -> anyhow::Result<bool> {
        let good = self.rows(1);
        let mut scores = Vec::new();
        for id in [-1, i32::MAX] {
            let mut bad = good.clone();
            bad.last_i32(0)[0] = id;
            if !matches!(engine.run(&bad, &mut scores), Err(EngineError::Ids)) {
                return Ok(false);
            }
            engine.run(&good, &mut scores)?;
        }
        Ok(true)
    }
}

/// Batches around every size that there is a graph for.
fn edges(model: &CudaModel) -> Vec<usize> {
    let buckets = model.bucket_rows();
    let most = buckets.last().copied().unwrap_or(0);
    let around = buckets.into_iter().flat_map(|rows| [rows - 1, rows, rows + 1]);
    let mut edges: Vec<usize> = around.filter(|&rows| rows <= most).collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn fastest(engine: &mut OnnxEngine, rows: &Rows, scores: &mut Vec<f32>) -> anyhow::Result<Duration> {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        engine.run(rows, scores)?;
        fastest = fastest.min(start.elapsed());
    }
    Ok(fastest)
}

/// The median and the 99th percentile of whole runs.
fn quantiles(engine: &mut CudaEngine, rows: &Rows) -> anyhow::Result<(Duration, Duration)> {
    let mut scores = Vec::new();
    let mut durations = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        engine.run(rows, &mut scores)?;
        durations.push(start.elapsed());
    }
    durations.sort_unstable();
    ensure!(scores.len() == rows.len(), "another number of scores");
    Ok((durations[RUNS / 2], durations[RUNS * 99 / 100]))
}

fn distance(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let distances = found.iter().zip(expected).map(|(&found, expected)| (f64::from(found) - expected).abs());
    // A NaN is as far off as can be.
    distances.fold(0.0, |most, distance| if distance.is_nan() { f64::INFINITY } else { most.max(distance) })
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Numbers that look like chance and are always the same.
struct Chance(u64);

impl Chance {
    /// Knuth's constants.
    fn below(&mut self, end: i32) -> i32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i32::try_from(self.0 >> 33).unwrap_or(0) % end.max(1)
    }
}

/// Replays in a row that one figure is the mean of.
const REPLAYS: u32 = 200;
/// Runs that a quantile is of.
const RUNS: usize = 500;
