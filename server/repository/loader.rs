//! Makes a version ready to serve, far from the threads that serve: verifies its files, reads its features, opens its
//! engines, which answer its golden rows and are warm for every batch size, and picks its lane. Until all of that has succeeded
//! nothing of the version is visible, and a failure leaves nothing behind.

use std::{
    io, iter,
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam::queue::ArrayQueue;

use super::{
    Choice, Layout, ModelName, Reaped, Reaper, Version, VersionNumber,
    engines::{Opened, Opening, Origin},
    golden::{Golden, GoldenError},
    manifest::{Manifest, ManifestError},
    prebuilt::PrebuiltError,
    reference::{self, ReferenceError},
    version::InMemory,
};
use crate::{
    batcher::{Batcher, BatcherOptions, EngineThread, Lane},
    config::ModelOptions,
    drift::Subject,
    engine::{BatchCost, Engine, EngineError, OnnxRuntime, cuda::Cuda, tensorrt::TensorRt},
    features::{Catalogue, CatalogueError, Encoder, SchemaError},
    metrics::{LoadResult, Metrics, VersionFacts, VersionMetrics},
    pace::Pace,
    recommend::{OpenError, RecommendThread, Recommender, Source},
    tensor::Rows,
};

/// Why a version cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The version is not in the repository.
    #[error("there is no such version")]
    Absent,
    /// The manifest or a file that it names.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The feature schema or a vocabulary.
    #[error("features/")]
    Features(#[from] SchemaError),
    /// The features make other inputs than the manifest declares.
    #[error("the features do not make the inputs that the manifest declares")]
    Signature,
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The golden rows.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// The engines that were built ahead of time.
    #[error(transparent)]
    Prebuilt(#[from] PrebuiltError),
    /// What its training rows looked like.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The catalogue of items.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// What recommends them.
    #[error(transparent)]
    Recommend(#[from] OpenError),
    /// A thread for an engine.
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
}

/// What goes on while a version is loaded.
#[derive(Clone, Copy)]
pub enum Beside<'a> {
    /// Nothing: no model answers.
    Nothing,
    /// Requests, which it must not hold up, until the server stops.
    Requests {
        /// Whether it does.
        stopping: &'a AtomicBool,
    },
}

impl Beside<'_> {
    /// What to call between pieces of work that takes long; whether it is still wanted.
    fn give_way(self) -> impl FnMut() -> bool {
        let mut pace = Pace::of_machine(HASHING_SHARE);
        move || {
            let Self::Requests { stopping } = self else { return true };
            if stopping.load(Ordering::Relaxed) {
                return false;
            }
            pace.rest();
            true
        }
    }
}

/// Loads versions.
#[derive(Clone)]
pub struct Loader {
    /// Where they are.
    pub layout: Layout,
    /// What computes them.
    pub runtime: OnnxRuntime,
    /// What computes those that are for a GPU.
    pub cuda: Arc<Cuda>,
    /// What computes those that have engines of it.
    pub tensorrt: Arc<TensorRt>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Who drops them.
    pub reaper: Reaper,
    /// Threads that serve requests.
    pub workers: NonZeroUsize,
}

/// The engine instances of a version.
struct Instances {
    lane: Lane,
    engines: Vec<Box<dyn Engine>>,
    costs: Vec<BatchCost>,
    choice: Choice,
    /// What more of them are opened of.
    origin: Origin,
}

impl Loader {
    /// Makes `version` of `model` ready to serve. Blocks for as long as it takes, which beside requests may be longer.
    pub fn load(
        &self,
        model: &ModelName,
        version: VersionNumber,
        options: &ModelOptions,
        beside: Beside<'_>,
    ) -> Result<Version, LoadError> {
        let start = Instant::now();
        let result = self.prepare(model, version, options, beside);
        let outcome = if result.is_ok() { LoadResult::Ok } else { LoadResult::Failed };
        self.metrics.loaded(model.as_str(), outcome, start.elapsed());
        result
    }

    fn prepare(
        &self,
        model: &ModelName,
        version: VersionNumber,
        options: &ModelOptions,
        beside: Beside<'_>,
    ) -> Result<Version, LoadError> {
        let folder = self.layout.version(model, version);
        if !folder.is_dir() {
            return Err(LoadError::Absent);
        }
        let manifest = Manifest::read(&folder, model, version)?;
        verify(&manifest, &folder, beside)?;
        let encoder = Arc::new(Encoder::read(&folder.join(Manifest::FEATURES))?);
        if *encoder.signature() != manifest.signature {
            return Err(LoadError::Signature);
        }
        let golden = Golden::read(&folder)?;
        let rows = golden.encode(&encoder)?;
        let opening = Opening {
            runtime: &self.runtime,
            cuda: &self.cuda,
            tensorrt: &self.tensorrt,
            reaper: &self.reaper,
            folder: &folder,
            manifest: &manifest,
            golden: &golden,
            rows: &rows,
            options,
        };
        let Instances { lane, engines, costs, choice, origin } =
            self.open_instances(&opening, (model, version))?;
        let drift = subject((model, version), &encoder, (&folder, options))?;
        let recommender = recommender((&opening, &origin), (&folder, &encoder), beside)?;
        let searching = recommender.as_ref().map(|(it, _)| it.takes()).unwrap_or_default();
        tracing::info!(%model, %version, lane = lane.name(), costs = %Costs(&costs), "ready");
        let facts = VersionFacts {
            quality: manifest.metrics.clone(),
            batch_costs: costs.iter().map(|cost| (cost.rows, cost.duration)).collect(),
            lane: lane.name(),
            catalogue: recommender.as_ref().map(|(it, _)| (it.catalogue().len(), it.method())),
            engine: choice.engine.name(),
            because: choice.because.name(),
            engines: engines.len(),
            gpu_bytes: origin
                .gpu_bytes(engines.len() + searching.engines)
                .map(|bytes| bytes.saturating_add(searching.gpu_bytes)),
        };
        let metrics = self.metrics.version(model.as_str(), version.into(), facts);
        let batcher =
            BatcherOptions { lane, batching: options.batching, costs, metrics: Arc::clone(&metrics) };
        let (batcher, threads) = Batcher::new(engines, batcher);
        start(threads, model)?;
        let in_memory = Arc::new(self.reaper.wrap(InMemory::new(Arc::clone(&self.metrics))));
        let recommender = recommender.map(|(recommender, threads)| {
            start_recommending(threads, model, (&metrics, &in_memory)).map(|()| self.reaper.wrap(recommender))
        });
        let recommender = recommender.transpose()?;
        let buffers = ArrayQueue::new(Version::BUFFERS);
        drop(buffers.push(Rows::new(encoder.signature())));
        Ok(Version {
            manifest,
            encoder: self.reaper.wrap(encoder),
            batcher,
            drift: drift.map(|subject| self.reaper.wrap(Arc::new(subject))),
            recommender,
            metrics,
            request_timeout: options.request_timeout,
            receipts: options.receipts,
            choice,
            example: golden.input.into_iter().next().unwrap_or_default(),
            buffers,
            _in_memory: in_memory,
        })
    }

    /// The engine that is chosen, and as many more like it as its lane needs.
    fn open_instances(
        &self,
        opening: &Opening<'_>,
        (model, version): (&ModelName, VersionNumber),
    ) -> Result<Instances, LoadError> {
        let opened = opening.open()?;
        let (lane, instances) = self.lane_and_instances(&opened, opening.options);
        let more: Result<Vec<_>, _> = (1..instances).map(|_| opening.another(&opened.origin)).collect();
        let more = more?;
        tracing::info!(%model, %version, engine = %opened, reason = %opened.choice.reason, "chosen");
        let Opened { engine, costs, choice, origin } = opened;
        let engines = iter::once(engine).chain(more).collect();
        Ok(Instances { lane, engines, costs, choice, origin })
    }

    /// The lane, and the engine instances in it.
    fn lane_and_instances(&self, opened: &Opened, options: &ModelOptions) -> (Lane, usize) {
        let (lane, instances) = opened.defaults().unzip();
        let measured = || choose_lane(&opened.costs, options.inline_budget);
        let lane = options.lane.or(lane).unwrap_or_else(measured);
        let instances = options.instances.or(instances).map(NonZeroUsize::get);
        (lane, instances.unwrap_or_else(|| self.instances(lane)))
    }

    /// The engine instances of a version for which nobody says how many. In the inline lane each worker has its own, so
    /// that none waits for another; where there are many, some share one, for each holds what weights are not mapped.
    fn instances(&self, lane: Lane) -> usize {
        match lane {
            Lane::Inline => self.workers.get().min(MOST_INLINE_INSTANCES),
            Lane::Threaded => 1,
        }
    }
}

/// Compares the files with their hashes, which for a large table takes seconds of a core.
fn verify(manifest: &Manifest, folder: &Path, beside: Beside<'_>) -> Result<(), LoadError> {
    let mut go_on = beside.give_way();
    manifest.verify_in_pieces(folder, || {
        go_on();
    })?;
    Ok(())
}

/// The version as its rows are held against its training rows, where it says what those looked like and somebody wants that.
fn subject(
    (model, version): (&ModelName, VersionNumber),
    encoder: &Arc<Encoder>,
    (folder, options): (&Path, &ModelOptions),
) -> Result<Option<Subject>, LoadError> {
    let Some(drift) = options.drift else { return Ok(None) };
    let Some(reference) = reference::read(folder, encoder)? else { return Ok(None) };
    let name = (model.as_str(), u64::from(version));
    Ok(Some(Subject::new(name, Arc::clone(encoder), reference, drift)?))
}

/// What recommends items, with the threads that it needs, where the version has a catalogue and somebody wants it searched.
fn recommender(
    (opening, origin): (&Opening<'_>, &Origin),
    (folder, encoder): (&Path, &Arc<Encoder>),
    beside: Beside<'_>,
) -> Result<Option<(Recommender, Vec<RecommendThread>)>, LoadError> {
    let Opening { runtime, golden, options, .. } = opening;
    if options.recommend.threads == 0 {
        return Ok(None);
    }
    let Some(catalogue) = Catalogue::read(folder, encoder)? else { return Ok(None) };
    let source = Source {
        runtime,
        gpu: origin.cuda(),
        folder,
        encoder,
        rows: &golden.input,
        tolerance: golden.tolerance,
        batch_rows: options.batching.max_batch_rows.get(),
        max_bytes: options.max_catalogue_bytes.get(),
    };
    let open = || opening.another(origin);
    Recommender::open(source, Arc::new(catalogue), options.recommend, open, beside.give_way()).map(Some)
}

/// The lane for an engine by the cost of its largest batch.
fn choose_lane(costs: &[BatchCost], budget: Duration) -> Lane {
    let largest = costs.last().map_or(Duration::MAX, |cost| cost.duration);
    Lane::for_cost(largest, budget)
}

fn start(threads: Vec<EngineThread>, model: &ModelName) -> Result<(), LoadError> {
    for engine in threads {
        // The system shows 15 bytes of a thread's name, which the start of the model's fills best.
        let thread = thread::Builder::new().name(format!("engine {model}"));
        // The thread ends by itself once its version is dropped; nobody has to wait for it.
        thread.spawn(move || engine.run()).map_err(LoadError::Thread)?;
    }
    Ok(())
}

fn start_recommending(
    threads: Vec<RecommendThread>,
    model: &ModelName,
    (metrics, in_memory): (&Arc<VersionMetrics>, &Arc<Reaped<InMemory>>),
) -> Result<(), LoadError> {
    for searching in threads {
        let thread = thread::Builder::new().name(format!("items {model}"));
        // It ends by itself as well.
        let (metrics, in_memory) = (Arc::clone(metrics), Arc::clone(in_memory));
        let search = move || {
            searching.run(&metrics);
            drop(in_memory);
        };
        thread.spawn(search).map_err(LoadError::Thread)?;
    }
    Ok(())
}

/// What hashing may take of the machine beside requests.
const HASHING_SHARE: f64 = 0.1;

/// Engines of a version in the inline lane at most, unless somebody asks for more.
const MOST_INLINE_INSTANCES: usize = 8;

/// Costs of batches as a log line shows them.
struct Costs<'a>(&'a [BatchCost]);

impl std::fmt::Display for Costs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, cost) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{} rows {:.0?}", cost.rows, cost.duration)?;
        }
        Ok(())
    }
}
