//! What a network comes to on the GPU beside double precision, what its batches take there, and how many rows a second
//! several slots compute together.

use std::{
    num::NonZeroUsize,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use millrace::{
    engine::{
        Engine, EngineError,
        cuda::{Cuda, CudaEngine, CudaModel, CudaModelOptions, HeldDevice, Precision},
    },
    tensor::Rows,
};

use crate::{
    floor::Floor,
    report::{Distance, ModelReport, OnnxReport, Report, ScoresReport, ThroughputReport, TimesReport},
    search::{ITEMS, Searching},
    subject::{Pool, Subject},
};

/// How a network is checked and measured.
pub(crate) struct Measuring<'c> {
    pub(crate) cuda: &'c Cuda,
    /// The GPU, which is open.
    pub(crate) held: &'c HeldDevice,
    pub(crate) precision: Precision,
    pub(crate) max_rows: NonZeroUsize,
    /// Up to how many bytes of a batch kernels fetch from the host.
    pub(crate) direct_bytes: usize,
    /// Whether scores are compared on both sides of every batch size that there is a graph for, or at each alone.
    pub(crate) edges: bool,
}

impl Measuring<'_> {
    /// Everything, one after the other. What fails is an entry of the report, and the rest is tried all the same.
    pub(crate) fn run(&self, subject: &mut Subject, report: &mut Report) -> anyhow::Result<()> {
        let slots = NonZeroUsize::new(MOST_SLOTS).unwrap_or(NonZeroUsize::MIN);
        let &Self { precision, max_rows, direct_bytes, .. } = self;
        let options = CudaModelOptions { precision, max_rows, slots, direct_bytes };
        let start = Instant::now();
        let model = self.cuda.load_network(&subject.network, &subject.signature, options)?;
        let loaded = start.elapsed();
        let mut engine = model.open()?;
        let opened = start.elapsed().saturating_sub(loaded);
        report.model = Some(self.report_of(subject, &model, [loaded, opened]));
        report.products = self.held.measured_products();
        report.save();
        let pool = subject.pool()?;
        for rows in self.checked_sizes(&model) {
            let scores = self.scores(&mut engine, subject, &pool, rows);
            report.add("scores", &of_rows(rows), scores, |model, scores| model.scores.push(scores));
        }
        let checked = checks_ids(&mut engine, subject);
        report.add("ids", "1 row", checked, |model, checked| model.ids_are_checked = Some(checked));
        self.times(&mut engine, subject, &model, report);
        let search = Searching { model: &model, subject, tolerance: self.tolerance() };
        let searched = search.run(&mut engine, self.max_rows.get());
        report.add("search", &format!("{ITEMS} items"), searched, |model, searched| {
            model.search = Some(searched);
        });
        self.throughput(engine, subject, &model, report);
        self.onnx(subject, &pool, report);
        Ok(())
    }

    fn report_of(
        &self,
        subject: &Subject,
        model: &CudaModel,
        [loaded, opened]: [Duration; 2],
    ) -> ModelReport {
        ModelReport {
            shape: subject.shape.clone(),
            bytes: model.bytes(1),
            load_ms: microseconds(loaded) / 1e3,
            open_ms: microseconds(opened) / 1e3,
            tolerance: self.tolerance(),
            scores: Vec::new(),
            ids_are_checked: None,
            times: Vec::new(),
            onnx_cpu: Vec::new(),
            floor: Floor::new(&subject.network, self.precision, &model.description().to_string()),
            throughput: Vec::new(),
            search: None,
        }
    }

    fn tolerance(&self) -> f64 {
        if self.precision == Precision::Single { 1e-4 } else { 5e-3 }
    }

    fn checked_sizes(&self, model: &CudaModel) -> Vec<usize> {
        let buckets = model.bucket_rows();
        if !self.edges {
            return buckets;
        }
        let most = buckets.last().copied().unwrap_or(0);
        let around = buckets.into_iter().flat_map(|rows| [rows - 1, rows, rows + 1]);
        let mut edges: Vec<usize> = around.filter(|&rows| rows <= most).collect();
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    fn scores(
        &self,
        engine: &mut CudaEngine,
        subject: &Subject,
        pool: &Pool,
        rows: usize,
    ) -> anyhow::Result<ScoresReport> {
        let from_reference = self.distance(engine, subject, pool, rows)?;
        Ok(ScoresReport { rows, from_reference })
    }

    fn distance(
        &self,
        engine: &mut dyn Engine,
        subject: &Subject,
        pool: &Pool,
        rows: usize,
    ) -> anyhow::Result<Distance> {
        let mut found = Vec::new();
        engine.run(&pool.batch(&subject.signature, rows), &mut found)?;
        ensure!(found.len() == rows, "{} scores for {rows} rows", found.len());
        Ok(Distance::new(&found, pool.scores(), self.tolerance()))
    }

    /// All sizes in one go, on a GPU that is warm.
    fn times(&self, engine: &mut CudaEngine, subject: &Subject, model: &CudaModel, report: &mut Report) {
        let warmed = run_for(engine, &[subject.rows(self.max_rows.get(), 2)], WARM_UP).map(drop);
        report.attempt("warm-up", &of_rows(self.max_rows.get()), warmed);
        for rows in model.bucket_rows() {
            let times = times(engine, &batches(subject, rows, 3));
            report.add("times", &of_rows(rows), times, |model, times| model.times.push(times));
        }
    }

    /// Slots on threads of their own.
    fn throughput(&self, engine: CudaEngine, subject: &Subject, model: &CudaModel, report: &mut Report) {
        let mut engines = vec![engine];
        while engines.len() < MOST_SLOTS {
            let opened = model.open().map_err(Into::into);
            let Some(engine) = report.attempt("another slot", "", opened) else { break };
            engines.push(engine);
        }
        for rows in LARGE_BATCHES.into_iter().filter(|&rows| rows <= self.max_rows.get()) {
            let batches: Vec<_> =
                (10..).take(engines.len()).map(|seed| batches(subject, rows, seed)).collect();
            let most = engines.len();
            for slots in SLOTS.into_iter().filter(|&slots| slots <= most) {
                let rates = rates(&mut engines[..slots], &batches);
                report.add("throughput", &format!("{slots} slots, {rows} rows"), rates, |model, rates| {
                    let [device_rows_per_s, engine_rows_per_s] = rates;
                    let share = model.floor.map(|floor| device_rows_per_s / floor.rows_per_s);
                    model.throughput.push(ThroughputReport {
                        slots,
                        rows,
                        device_rows_per_s,
                        engine_rows_per_s,
                        device_share_of_floor: share,
                    });
                });
            }
        }
    }

    /// ONNX Runtime on the processor, where there is a model file; at few sizes, as it takes long.
    fn onnx(&self, subject: &mut Subject, pool: &Pool, report: &mut Report) {
        let Some(mut onnx) = subject.onnx.take() else { return };
        for rows in [1, 256, self.max_rows.get()] {
            let run = self.distance(&mut onnx, subject, pool, rows).and_then(|from_reference| {
                let us = microseconds(fastest(&mut onnx, &pool.batch(&subject.signature, rows))?);
                Ok(OnnxReport { rows, from_reference, us })
            });
            report.add("ONNX Runtime", &of_rows(rows), run, |model, run| model.onnx_cpu.push(run));
        }
    }
}

impl Report {
    /// Puts what was found into the model's report; an error is an entry of its own.
    fn add<T>(
        &mut self,
        name: &str,
        shape: &str,
        result: anyhow::Result<T>,
        put: impl FnOnce(&mut ModelReport, T),
    ) {
        if let Some((found, model)) = self.attempt(name, shape, result).zip(self.model.as_mut()) {
            put(model, found);
        }
        self.save();
    }
}

/// So many different batches that together they touch more of a table than a GPU's caches hold, where the rows are many.
fn batches(subject: &Subject, rows: usize, seed: u64) -> Vec<Rows> {
    let count = (BATCH_ROWS / rows.max(1)).clamp(8, 64) as u64;
    (0..count).map(|number| subject.rows(rows, seed * 1000 + number)).collect()
}

fn times(engine: &mut CudaEngine, batches: &[Rows]) -> anyhow::Result<TimesReport> {
    let rows = batches.first().map_or(0, Rows::len);
    let device = engine.record(batches)?.time(MEASURED_BATCHES)?;
    let mut durations = run_for(engine, batches, QUANTILE_TIME)?;
    durations.sort_unstable();
    Ok(TimesReport {
        rows,
        device_us: microseconds(device),
        engine_p50_us: microseconds(durations[durations.len() / 2]),
        engine_p99_us: microseconds(durations[durations.len() * 99 / 100]),
    })
}

/// What whole runs take, of these batches in turn, for so long; at least a few.
fn run_for(engine: &mut CudaEngine, batches: &[Rows], time: Duration) -> anyhow::Result<Vec<Duration>> {
    let (mut scores, mut durations) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    for rows in batches.iter().cycle() {
        let start = Instant::now();
        engine.run(rows, &mut scores)?;
        durations.push(start.elapsed());
        if begin.elapsed() >= time && durations.len() >= LEAST_RUNS {
            break;
        }
    }
    ensure!(!durations.is_empty(), "there is no batch");
    Ok(durations)
}

/// Rows a second of all engines together: of the graphs alone, and from rows to scores.
fn rates(engines: &mut [CudaEngine], batches: &[Vec<Rows>]) -> anyhow::Result<[f64; 2]> {
    Ok([together(engines, batches, device_run)?, together(engines, batches, engine_run)?])
}

/// What an engine did at the same time as others.
struct Run {
    start: Instant,
    end: Instant,
    rows: f64,
}

type Work = fn(&mut CudaEngine, &[Rows], &Barrier) -> anyhow::Result<Run>;

/// All rows by the time from the first start to the last end.
fn together(engines: &mut [CudaEngine], batches: &[Vec<Rows>], work: Work) -> anyhow::Result<f64> {
    let barrier = &Barrier::new(engines.len());
    let runs = thread::scope(|scope| {
        let pairs = engines.iter_mut().zip(batches);
        let threads: Vec<_> =
            pairs.map(|(engine, batches)| scope.spawn(move || work(engine, batches, barrier))).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
        joined.collect::<anyhow::Result<Vec<Run>>>()
    })?;
    let start = runs.iter().map(|run| run.start).min().ok_or_else(|| anyhow!("there is no engine"))?;
    let end = runs.iter().map(|run| run.end).max().unwrap_or(start);
    Ok(runs.iter().map(|run| run.rows).sum::<f64>() / (end - start).as_secs_f64())
}

fn device_run(engine: &mut CudaEngine, batches: &[Rows], barrier: &Barrier) -> anyhow::Result<Run> {
    let once = u32::try_from(batches.len())?;
    let recorded = engine.record(batches).and_then(|mut replays| {
        replays.time(once)?;
        Ok(replays)
    });
    // The others wait for this one even where it failed.
    barrier.wait();
    let mut replays = recorded?;
    let (start, mut times) = (Instant::now(), 0);
    while start.elapsed() < RATE_TIME {
        // Several in a row, so that to wait for them is little beside them.
        replays.time(LEAST_REPLAYS * once)?;
        times += LEAST_REPLAYS;
    }
    Ok(Run { start, end: Instant::now(), rows: f64::from(times * once) * rows_of(batches) })
}

fn engine_run(engine: &mut CudaEngine, batches: &[Rows], barrier: &Barrier) -> anyhow::Result<Run> {
    barrier.wait();
    let start = Instant::now();
    let runs = run_for(engine, batches, RATE_TIME)?.len();
    Ok(Run { start, end: Instant::now(), rows: runs as f64 * rows_of(batches) })
}

fn rows_of(batches: &[Rows]) -> f64 {
    batches.first().map_or(0, Rows::len) as f64
}

fn checks_ids(engine: &mut CudaEngine, subject: &Subject) -> anyhow::Result<bool> {
    let good = subject.rows(1, 4);
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

fn fastest(engine: &mut dyn Engine, rows: &Rows) -> anyhow::Result<Duration> {
    let (mut fastest, mut scores) = (Duration::MAX, Vec::new());
    for _ in 0..3 {
        let start = Instant::now();
        engine.run(rows, &mut scores)?;
        fastest = fastest.min(start.elapsed());
    }
    Ok(fastest)
}

fn of_rows(rows: usize) -> String {
    format!("{rows} rows")
}

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Slots that are measured together.
const SLOTS: [usize; 3] = [1, 2, 4];
const MOST_SLOTS: usize = 4;
const LARGE_BATCHES: [usize; 3] = [4096, 8192, 16384];
/// Rows of all batches that are measured in turn, where that is neither too few nor too many batches.
const BATCH_ROWS: usize = 32768;
/// What a GPU takes to reach its clock rates.
const WARM_UP: Duration = Duration::from_millis(300);
/// What a quantile is taken over, and a rate.
const QUANTILE_TIME: Duration = Duration::from_millis(150);
const RATE_TIME: Duration = Duration::from_millis(300);
const LEAST_RUNS: usize = 20;
/// Batches in a row that one figure is the mean of.
const MEASURED_BATCHES: u32 = 128;
/// Replays in a row while a rate is measured.
const LEAST_REPLAYS: u32 = 4;
