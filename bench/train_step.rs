//! Steps of Wide & Deep training on random ids, as fast as they go: what `bench/train_speed.py` compares with `PyTorch`,
//! and what shows that a step costs the same whatever the size of the tables.
//!
//! The last line of output is one JSON object.

use std::{
    fs,
    io::{self, Write},
    time::Instant,
};

use anyhow::Context;
use clap::Parser;
use millrace::tensor::{DType, Rows, Signature, TensorSpec};
use millrace_trainer::{
    config::ModelConfig,
    model::{ModelShape, Targets, WideDeep},
    random::{Purpose, Random, random},
};
use rand::Rng;

/// Trains Wide & Deep on random ids and says how fast.
#[derive(Parser)]
struct Arguments {
    /// Categorical features.
    #[arg(long, default_value_t = 26)]
    features: usize,
    /// Ids of each feature.
    #[arg(long, default_value_t = 100_000)]
    ids: usize,
    /// Numbers in an embedding.
    #[arg(long, default_value_t = 16)]
    dimension: usize,
    /// Units of the hidden layers.
    #[arg(long, value_delimiter = ',', default_values_t = [256, 128, 64])]
    hidden: Vec<usize>,
    /// Rows in a step.
    #[arg(long, default_value_t = 1024)]
    batch: usize,
    /// Steps that are timed, after as many again at most to warm up.
    #[arg(long, default_value_t = 300)]
    steps: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Batches that take turns, so that the caches do not learn one by heart.
const BATCHES: usize = 32;
const WARM_UP: usize = 32;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global().context("threads")?;
    let &Arguments { features, ids, dimension, batch, steps, .. } = &arguments;
    let table_rows = features * ids;
    let shape = ModelShape {
        columns: features,
        deep_columns: features,
        dense: 0,
        deep_rows: table_rows,
        wide_rows: table_rows,
        lists: Vec::new(),
        towers: None,
    };
    let config = ModelConfig {
        embedding_dimension: dimension,
        hidden_units: arguments.hidden.clone(),
        ..ModelConfig::default()
    };
    let mut draws = random(7, Purpose::Weights, 0);
    let mut model = WideDeep::new(shape, &config, 0.25, &mut draws);
    let batches: Vec<Rows> = (0..BATCHES).map(|_| draw(&arguments, &mut draws)).collect();
    let labels: Vec<f32> = (0..batch).map(|_| f32::from(u8::from(draws.random_bool(0.25)))).collect();
    let weights = vec![1.0; batch];
    let mut run = |steps: usize| {
        (0..steps).fold(0.0, |_, step| {
            let targets = Targets { labels: &labels, weights: &weights };
            model.step(&batches[step % BATCHES], 0..batch, targets) / batch as f64
        })
    };
    run(WARM_UP.min(steps));
    let start = Instant::now();
    let loss = run(steps);
    let seconds = start.elapsed().as_secs_f64();
    // The weights and one number of state a row; the wide weight and its two.
    let table_bytes = table_rows * (dimension + 1 + 3) * size_of::<f32>();
    let figures = serde_json::json!({
        "examples_per_second": (steps * batch) as f64 / seconds,
        "step_ms": seconds / steps as f64 * 1e3,
        "loss": loss,
        "table_bytes": table_bytes,
        "peak_bytes": peak_bytes()?,
    });
    writeln!(io::stdout(), "{figures}")?;
    Ok(())
}

fn draw(arguments: &Arguments, draws: &mut Random) -> Rows {
    let ids = TensorSpec { name: "ids".into(), dtype: DType::I32, width: arguments.features };
    let mut rows = Rows::new(&Signature { inputs: vec![ids], output: "probability".into() });
    for _ in 0..arguments.batch {
        rows.push_zeroed();
        for (feature, id) in rows.last_i32(0).iter_mut().enumerate() {
            let row = feature * arguments.ids + draws.random_range(0..arguments.ids);
            *id = i32::try_from(row).expect("fewer table rows than ids can number");
        }
    }
    rows
}

/// The most memory that this process has had resident.
fn peak_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let kibibytes: u64 = peak.context("a peak of resident memory")?.trim().parse()?;
    Ok(kibibytes * 1024)
}
