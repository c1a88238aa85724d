//! Times an engine on batches of real rows. This is the one place of an evaluation that looks at a clock.

use std::{
    fs,
    time::{Duration, Instant},
};

use millrace::{
    engine::{Engine, EngineError, OnnxEngine, OnnxRuntime},
    tensor::{Rows, Signature},
};

use super::latency::{BatchLatency, CpuTicks, Latency};

/// Times `engine` on batches of 1, 64 and 1024 of `rows`.
///
/// # Panics
/// When there are no rows.
pub(super) fn measure(
    runtime: &OnnxRuntime,
    engine: &mut OnnxEngine,
    rows: &Rows,
) -> Result<Latency, EngineError> {
    let before = ticks();
    let batches = SIZES.iter().map(|&(size, runs)| measure_size(engine, rows, size, runs));
    let batches = batches.collect::<Result<_, EngineError>>()?;
    let steal_share = before.zip(ticks()).and_then(|(before, after)| before.steal_share(after));
    Ok(Latency { engine: name(runtime), threads: OnnxEngine::THREADS, batches, steal_share })
}

/// Times `engine` on stretches of `size` of `rows`, after some runs that do not count.
///
/// # Panics
/// When there are no rows.
pub fn measure_size(
    engine: &mut dyn Engine,
    rows: &Rows,
    size: usize,
    runs: usize,
) -> Result<BatchLatency, EngineError> {
    let batches = stretches(engine.signature(), rows, size);
    let taken = time(engine, &batches, runs)?;
    Ok(BatchLatency::of(size, &taken).expect("a batch is run at least once"))
}

/// The engine, with what names the library's build.
fn name(runtime: &OnnxRuntime) -> String {
    format!("ONNX Runtime (build {}) on the CPU", runtime.revision())
}

/// Some batches of `size` rows, from different places, so that not every run finds its rows of the tables in a cache.
fn stretches(signature: &Signature, rows: &Rows, size: usize) -> Vec<Rows> {
    let count = rows.len().div_ceil(size).min(MOST_STRETCHES);
    let stretch = |at: usize| {
        let mut batch = Rows::new(signature);
        let mut start = at * rows.len() / count;
        while batch.len() < size {
            let end = rows.len().min(start + size - batch.len());
            batch.extend_from(rows, start..end);
            start = 0;
        }
        batch
    };
    (0..count).map(stretch).collect()
}

fn time(engine: &mut dyn Engine, batches: &[Rows], runs: usize) -> Result<Vec<Duration>, EngineError> {
    let mut scores = Vec::new();
    let mut run = |at: usize| {
        let start = Instant::now();
        engine.run(&batches[at % batches.len()], &mut scores)?;
        Ok::<_, EngineError>(start.elapsed())
    };
    let (warm_up, begin) = (runs / 10, Instant::now());
    (0..warm_up).try_for_each(|at| run(at).map(drop))?;
    let mut taken = Vec::with_capacity(runs);
    while taken.len() < runs && (taken.len() < LEAST_RUNS || begin.elapsed() < MOST_TIME) {
        taken.push(run(warm_up + taken.len())?);
    }
    Ok(taken)
}

fn ticks() -> Option<CpuTicks> {
    CpuTicks::parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// Rows of a batch, and how often one is run.
const SIZES: [(usize, usize); 3] = [(1, 2000), (64, 1000), (1024, 300)];
/// How long one size may take; a model that is slower is run less often.
const MOST_TIME: Duration = Duration::from_secs(2);
const LEAST_RUNS: usize = 20;
const MOST_STRETCHES: usize = 64;

#[cfg(test)]
mod tests {
    use millrace::tensor::{DType, TensorSpec, Values};

    use super::*;

    fn rows(count: i32) -> (Signature, Rows) {
        let inputs = vec![TensorSpec { name: "ids".into(), dtype: DType::I32, width: 1 }];
        let signature = Signature { inputs, output: "score".into() };
        let mut rows = Rows::new(&signature);
        for row in 0..count {
            rows.push_zeroed();
            rows.last_i32(0)[0] = row;
        }
        (signature, rows)
    }

    fn ids(rows: &Rows) -> &[i32] {
        match rows.columns()[0].values() {
            Values::I32(ids) => ids,
            Values::F32(_) => panic!("ids are integers"),
        }
    }

    #[test]
    fn batches_come_from_different_places_and_few_rows_are_repeated() {
        let (signature, many) = rows(1000);
        let found = stretches(&signature, &many, 10);
        assert_eq!((found.len(), found[1].len(), ids(&found[32])[0]), (MOST_STRETCHES, 10, 500));
        let (signature, few) = rows(3);
        let found = stretches(&signature, &few, 7);
        assert_eq!((found.len(), ids(&found[0])), (1, &[0, 1, 2, 0, 1, 2, 0][..]));
    }
}
