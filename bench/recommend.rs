//! How many pairs of a user with an item are scored a second: by a search of the catalogue, and, in turns with it, one batch
//! after another as predict would. `make bench-recommend` runs it.
//!
//! The last line of output is one JSON object.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use millrace::{
    engine::{Engine, OnnxEngine, OnnxRuntime},
    features::{Catalogue, Encoder, Schema, Value, Vocabulary},
    metrics::{Metrics, VersionFacts},
    recommend::{Query, Recommender, Room, Source},
    repository::manifest::Manifest,
    tensor::Rows,
};
use millrace_trainer::{
    config::{Architecture, ModelConfig, Owner},
    model::{ModelShape, Towers, WideDeep},
    onnx, onnx_file,
    random::{Purpose, random},
};

/// Searches catalogues of random models and says how fast.
#[derive(Parser)]
struct Arguments {
    /// The ONNX Runtime library.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME")]
    onnxruntime: PathBuf,
    /// Items of the catalogue; the large model has a twentieth of them.
    #[arg(long, default_value_t = 200_000)]
    items: i64,
    /// Threads that search, and users who ask at the same time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How long each way of scoring is measured in a turn.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Turns, whose median counts.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// What cargo says of itself.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A model to search.
struct Case {
    name: &'static str,
    /// Features of a user, and as many of an item.
    features: i64,
    dimension: usize,
    config: ModelConfig,
    items: i64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = OnnxRuntime::load(&arguments.onnxruntime)?;
    let mut line = serde_json::Map::new();
    let mut out = io::stdout().lock();
    for case in cases(arguments.items) {
        let bench = Bench::prepare(&runtime, &case, arguments.threads)?;
        let time = Duration::from_secs_f64(arguments.seconds);
        let (mut searched, mut ordinary) = (Vec::new(), Vec::new());
        for _ in 0..arguments.turns {
            searched.push(bench.search(time, arguments.threads)?);
            ordinary.push(bench.batches(&runtime, time, arguments.threads)?);
        }
        let (searched, ordinary) = (median(searched), median(ordinary));
        let (name, ratio) = (case.name, searched / ordinary);
        writeln!(out, "{name:<16} {searched:>14.0} pairs/s, in batches {ordinary:>12.0}, {ratio:.1} times")?;
        line.insert(format!("{name}_pairs_per_second"), searched.round().into());
        line.insert(format!("{name}_ratio"), ((ratio * 100.0).round() / 100.0).into());
    }
    line.insert("threads".into(), arguments.threads.into());
    line.insert("items".into(), arguments.items.into());
    writeln!(out, "{}", serde_json::Value::Object(line))?;
    Ok(())
}

fn cases(items: i64) -> [Case; 3] {
    let two_towers = ModelConfig {
        architecture: Some(Architecture::TwoTower),
        output_dimension: Some(64),
        hidden_units: vec![64],
        ..ModelConfig::default()
    };
    let large = ModelConfig { hidden_units: vec![1024, 512, 256], ..ModelConfig::default() };
    [
        Case { name: "two_towers", features: 1, dimension: 16, config: two_towers, items },
        Case { name: "wide_and_deep", features: 1, dimension: 16, config: ModelConfig::default(), items },
        Case { name: "large", features: 13, dimension: 64, config: large, items: items / 20 },
    ]
}

/// A model in a folder, its catalogue, and who searches it.
struct Bench {
    folder: tempfile::TempDir,
    encoder: Arc<Encoder>,
    catalogue: Arc<Catalogue>,
    recommender: Recommender,
    user: Rows,
}

impl Bench {
    fn prepare(runtime: &OnnxRuntime, case: &Case, threads: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let encoder = Arc::new(encoder(case.features)?);
        let owner = |name: &str| if name.starts_with("user") { Owner::User } else { Owner::Item };
        let sides = Towers::of(&encoder, owner).context("sides")?;
        let shape = ModelShape::of(&encoder);
        let shape = if case.config.architecture.is_some() { shape.with_towers(sides.clone()) } else { shape };
        let config = ModelConfig { embedding_dimension: case.dimension, ..case.config.clone() };
        let model = WideDeep::new(shape, &config, 0.1, &mut random(7, Purpose::Weights, 0));
        onnx::export(&model, Some(&sides), folder.path(), onnx_file::MAX_INLINE_BYTES)?;
        let values = |item: i64| (0..case.features).map(|feature| Value::Int(item + feature)).collect();
        let names: Vec<String> = (0..case.features).map(|feature| format!("item_{feature}")).collect();
        let items = (0..case.items).map(values).collect();
        let catalogue = Arc::new(Catalogue::new(&encoder, "item_0".into(), &names, items)?);
        let row: Vec<Value> = (0..2 * case.features).map(Value::Int).collect();
        let source = Source {
            runtime,
            gpu: None,
            folder: folder.path(),
            encoder: &encoder,
            rows: std::slice::from_ref(&row),
            tolerance: 1e-4,
            batch_rows: BATCH_ROWS,
            max_bytes: usize::MAX,
        };
        let room = Room { threads, queue: threads };
        let open = || engine(runtime, folder.path(), &encoder);
        let (recommender, searching) =
            Recommender::open::<anyhow::Error>(source, Arc::clone(&catalogue), room, open, || true)?;
        let user = catalogue.user(&encoder, &row)?;
        for thread in searching {
            thread::spawn(move || {
                thread.run(&Metrics::new("bench").version("model", 1, VersionFacts::default()));
            });
        }
        Ok(Self { folder, encoder, catalogue, recommender, user })
    }

    /// Pairs a second of so many users who ask one question after the other.
    fn search(&self, time: Duration, users: usize) -> anyhow::Result<f64> {
        side_by_side(users, time, |end| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            let mut pairs = 0;
            while Instant::now() < end {
                let query = Query { user: self.user.clone(), k: 100, excluded: Vec::new(), candidates: None };
                runtime.block_on(self.recommender.ask(query, end + time + PATIENCE))?;
                pairs += self.catalogue.len();
            }
            Ok(pairs)
        })
    }

    /// The same of so many threads which encode and score one batch after the other.
    fn batches(&self, runtime: &OnnxRuntime, time: Duration, threads: usize) -> anyhow::Result<f64> {
        side_by_side(threads, time, |end| {
            let mut engine = engine(runtime, self.folder.path(), &self.encoder)?;
            let (mut rows, mut scores, mut pairs) = (Rows::new(self.encoder.signature()), Vec::new(), 0);
            let mut items = (0..self.catalogue.count()).cycle();
            while Instant::now() < end {
                rows.clear();
                let batch = items.by_ref().take(BATCH_ROWS);
                self.catalogue.encode(&self.encoder, &self.user, batch, &mut rows);
                engine.run(&rows, &mut scores)?;
                pairs += rows.len();
            }
            Ok(pairs)
        })
    }
}

fn engine(runtime: &OnnxRuntime, folder: &Path, encoder: &Encoder) -> anyhow::Result<Box<dyn Engine>> {
    Ok(Box::new(OnnxEngine::open(runtime, &folder.join(Manifest::MODEL), encoder.signature())?))
}

/// What so many threads count a second, each until the end that it is told.
fn side_by_side(
    threads: usize,
    time: Duration,
    count: impl Fn(Instant) -> anyhow::Result<usize> + Sync,
) -> anyhow::Result<f64> {
    let (start, count) = (Instant::now(), &count);
    let counted: anyhow::Result<usize> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(move || count(start + time))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    Ok(counted? as f64 / start.elapsed().as_secs_f64())
}

/// So many features of a user, and as many of an item.
fn encoder(features: i64) -> anyhow::Result<Encoder> {
    let feature = |side, number| {
        format!(
            "{{ name = \"{side}_{number}\", kind = \"categorical\", source = {{ hash = {} }} }}",
            100_000 / features
        )
    };
    let sides = ["user", "item"];
    let all: Vec<String> =
        sides.iter().flat_map(|side| (0..features).map(move |number| feature(side, number))).collect();
    let schema: Schema = toml::from_str(&format!("feature = [{}]", all.join(", ")))?;
    Ok(Encoder::new(schema, |_| Ok(Vocabulary::default()))?)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Longer than any search takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// The server's `max_batch_rows`.
const BATCH_ROWS: usize = 4096;
