//! Opens the engines of a version: those that the configuration asks for, each checked against the golden rows and warmed
//! up for every batch size, and of several the one to serve with.

use std::{fmt, num::NonZeroUsize, path::Path, time::Duration};

use super::{
    LoadError, Reaper,
    choice::{Choice, EngineKind, choose},
    golden::Golden,
    manifest::Manifest,
    prebuilt::{Engines, Wanted},
};
use crate::{
    batcher::Lane,
    config::ModelOptions,
    engine::{
        BatchCost, Engine, OnnxEngine, OnnxRuntime, Provider,
        cuda::{Cuda, CudaModel, CudaModelOptions},
        ladder,
        tensorrt::{TensorRt, TensorRtModel, TensorRtModelOptions},
        warm_up,
    },
    tensor::Rows,
};

/// A version whose engines are to be opened.
pub(super) struct Opening<'a> {
    pub(super) runtime: &'a OnnxRuntime,
    pub(super) cuda: &'a Cuda,
    pub(super) tensorrt: &'a TensorRt,
    pub(super) reaper: &'a Reaper,
    /// The version's folder.
    pub(super) folder: &'a Path,
    pub(super) manifest: &'a Manifest,
    pub(super) golden: &'a Golden,
    /// The golden rows in the model's input layout.
    pub(super) rows: &'a Rows,
    pub(super) options: &'a ModelOptions,
}

/// The engine to serve with, and what it takes to open more of them.
pub(super) struct Opened {
    pub(super) engine: Box<dyn Engine>,
    /// What its batches cost.
    pub(super) costs: Vec<BatchCost>,
    pub(super) choice: Choice,
    pub(super) origin: Origin,
}

/// What engines are opened of.
pub(super) enum Origin {
    Onnx(Provider),
    Cuda(CudaModel),
    TensorRt {
        model: TensorRtModel,
        /// The engine's file.
        file: String,
    },
}

/// An engine that was tried and can serve.
struct Candidate {
    engine: Box<dyn Engine>,
    costs: Vec<BatchCost>,
    origin: Origin,
}

impl Opening<'_> {
    /// Tries the engines that the configuration asks for, and keeps the one to serve with. Where none can, the error is that
    /// of the first. Of those on a GPU one is open at a time, so that none finds its memory taken by another: what was measured
    /// of it is kept, and the one that is chosen is opened anew where another was tried after it.
    pub(super) fn open(&self) -> Result<Opened, LoadError> {
        let wish = self.options.engine;
        let (mut tried, mut first_error, mut kept) = (Vec::new(), None, Vec::new());
        for &kind in wish.candidates() {
            // Gone before the next one is tried.
            kept.retain(|(kind, _)| *kind == EngineKind::OnnxCpu);
            match self.try_out(kind) {
                Ok(candidate) => {
                    tried.push((kind, Ok(largest(&candidate.costs))));
                    kept.push((kind, candidate));
                }
                Err(error) => {
                    tried.push((kind, Err(in_words(&error))));
                    first_error.get_or_insert(error);
                }
            }
        }
        let Some(choice) = choose(wish, &tried) else {
            return Err(first_error.expect("at least one was tried, and none can serve"));
        };
        let place = kept.iter().position(|(kind, _)| *kind == choice.engine);
        let chosen = place.map(|place| kept.swap_remove(place).1);
        drop(kept);
        let Candidate { engine, costs, origin } = chosen.map_or_else(|| self.try_out(choice.engine), Ok)?;
        Ok(Opened { engine: Box::new(self.reaper.wrap(engine)), costs, choice, origin })
    }

    /// Another engine of the kind that serves.
    pub(super) fn another(&self, origin: &Origin) -> Result<Box<dyn Engine>, LoadError> {
        let (engine, _) = self.ready(origin)?;
        Ok(Box::new(self.reaper.wrap(engine)))
    }

    fn try_out(&self, kind: EngineKind) -> Result<Candidate, LoadError> {
        let origin = match kind {
            EngineKind::OnnxCpu => Origin::Onnx(Provider::Cpu),
            EngineKind::OnnxCuda => Origin::Onnx(Provider::Cuda(self.cuda.device())),
            EngineKind::Cuda => Origin::Cuda(self.load_to_gpu()?),
            EngineKind::TensorRt => self.load_prebuilt()?,
        };
        let (engine, costs) = self.ready(&origin)?;
        Ok(Candidate { engine, costs, origin })
    }

    fn load_to_gpu(&self) -> Result<CudaModel, LoadError> {
        let options = CudaModelOptions {
            precision: self.options.cuda_precision,
            max_rows: self.max_rows(),
            slots: self.options.instances.unwrap_or(GPU_SLOTS),
            direct_bytes: CudaModelOptions::DIRECT_BYTES,
        };
        let model = self.folder.join(Manifest::MODEL);
        Ok(self.cuda.load(&model, &self.manifest.signature, options)?)
    }

    /// The engine of the version that is for this machine. What the record says is held against it before a byte of an
    /// engine is read.
    fn load_prebuilt(&self) -> Result<Origin, LoadError> {
        let signature = &self.manifest.signature;
        let (max_rows, slots) = (self.max_rows(), self.options.instances.unwrap_or(GPU_SLOTS));
        let (precision, files) = (self.options.cuda_precision, &self.manifest.files);
        let engines = Engines::read(self.folder)?;
        let engine = engines.find(Wanted { precision, signature, max_rows: max_rows.get(), files })?;
        let tensorrt = self.tensorrt.on(self.cuda)?;
        engines.check(&tensorrt.machine())?;
        let options = TensorRtModelOptions { max_rows, slots };
        let model = tensorrt.load(&engine.read(self.folder)?, signature, options)?;
        Ok(Origin::TensorRt { model, file: engine.file.clone() })
    }

    /// Rows of the largest batch, as which the golden rows count too.
    fn max_rows(&self) -> NonZeroUsize {
        let max_rows = self.options.batching.max_batch_rows;
        NonZeroUsize::new(self.rows.len()).map_or(max_rows, |golden| golden.max(max_rows))
    }

    /// An engine that has answered the golden rows and is warm.
    fn ready(&self, origin: &Origin) -> Result<(Box<dyn Engine>, Vec<BatchCost>), LoadError> {
        let mut engine: Box<dyn Engine> = match origin {
            &Origin::Onnx(provider) => {
                let signature = &self.manifest.signature;
                let model = self.folder.join(Manifest::MODEL);
                Box::new(OnnxEngine::open_on(provider, self.runtime, &model, signature)?)
            }
            Origin::Cuda(model) => Box::new(model.open()?),
            Origin::TensorRt { model, .. } => Box::new(model.open()?),
        };
        self.golden.check(&mut *engine, self.rows)?;
        let ladder = ladder(self.options.batching.max_batch_rows.get());
        let costs = warm_up(&mut *engine, self.rows, &ladder)?;
        Ok((engine, costs))
    }
}

impl Origin {
    /// What so many engines take of a GPU's memory, where they are on one.
    pub(super) fn gpu_bytes(&self, engines: usize) -> Option<usize> {
        match self {
            // What ONNX Runtime takes of a GPU, it does not say.
            Self::Onnx(_) => None,
            Self::Cuda(model) => Some(model.bytes(engines)),
            Self::TensorRt { model, .. } => Some(model.bytes(engines)),
        }
    }

    /// The model, where our own engine has it on a GPU.
    pub(super) fn cuda(&self) -> Option<&CudaModel> {
        if let Self::Cuda(model) = self { Some(model) } else { None }
    }
}

impl Opened {
    /// The lane and the number of engines, where the configuration leaves them open and the engine decides them: a GPU has
    /// threads that wait for it, so that no thread which serves does.
    pub(super) fn defaults(&self) -> Option<(Lane, NonZeroUsize)> {
        match self.origin {
            Origin::Onnx(Provider::Cpu) => None,
            Origin::Onnx(Provider::Cuda(_)) | Origin::Cuda(_) | Origin::TensorRt { .. } => {
                Some((Lane::Threaded, GPU_SLOTS))
            }
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.choice.engine.name())?;
        match &self.origin {
            Origin::Onnx(_) => Ok(()),
            Origin::Cuda(model) => {
                write!(f, " ({}, {} precision)", model.description(), model.precision().name())
            }
            Origin::TensorRt { model, file } => {
                write!(f, " ({file} by {}, {})", model.library(), model.description())
            }
        }
    }
}

/// What the largest batch costs.
fn largest(costs: &[BatchCost]) -> Duration {
    costs.last().map(|cost| cost.duration).unwrap_or_default()
}

/// An error and what it comes from, in one line.
fn in_words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Slots of a version on a GPU, unless somebody says otherwise: one computes while the other's batch comes and goes.
const GPU_SLOTS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        path::{Path, PathBuf},
        sync::Arc,
        thread,
        time::Instant,
    };

    use super::*;
    use crate::{
        config::RawConfig,
        engine::{
            Network,
            cuda::{Precision, sample},
            tensorrt::fake,
        },
        features::{Catalogue, Encoder, Schema, Value, Vocabulary},
        metrics::{Metrics, VersionFacts},
        recommend::{Query, Recommender, Room, Scored, Source, Takes},
        repository::{
            Because, EngineWish, ModelName, VersionNumber,
            golden::GoldenError,
            manifest::Lineage,
            prebuilt::{EngineRecord, PrebuiltError, ShapeRange, TensorRecord},
        },
        tensor::DType,
    };

    /// A version of a network whose ids are those of two hashed features.
    struct Made {
        folder: tempfile::TempDir,
        manifest: Manifest,
        golden: Golden,
        rows: Rows,
    }

    /// Items whose columns nothing of a user is in.
    fn catalogue(encoder: &Encoder) -> Catalogue {
        let item =
            |id: i64| vec![Value::Int(id), Value::Float(f64::from(i32::try_from(id % 5).expect("small")))];
        let items = (0..70).map(item).collect();
        Catalogue::new(encoder, "item".into(), &["item".into(), "price".into()], items).expect("items")
    }

    /// What recommends the items of a version that was opened, by what is asked of it.
    fn recommendations(
        opening: &Opening<'_>,
        (origin, gpu): (&Origin, Option<&CudaModel>),
        encoder: &Arc<Encoder>,
        queries: &[Query],
    ) -> (&'static str, Takes, Vec<Vec<Scored>>) {
        let source = Source {
            runtime: opening.runtime,
            gpu,
            folder: opening.folder,
            encoder,
            rows: &opening.golden.input,
            tolerance: opening.golden.tolerance,
            batch_rows: opening.options.batching.max_batch_rows.get(),
            max_bytes: 0,
        };
        let open = || opening.another(origin);
        let room = Room { threads: 1, queue: 1 };
        let opened = Recommender::open(source, Arc::new(catalogue(encoder)), room, open, || true);
        let (recommender, mut threads) = opened.expect("it agrees with the model");
        let metrics = Metrics::new("test").version("shop", 1, VersionFacts::default());
        let searching = threads.remove(0);
        let searching = thread::spawn(move || searching.run(&metrics));
        let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let deadline = Instant::now() + Duration::from_mins(1);
        let answer =
            |query: &Query| waiting.block_on(recommender.ask(query.clone(), deadline)).expect("items");
        let answers = queries.iter().map(answer).collect();
        let said = (recommender.method(), recommender.takes());
        drop(recommender);
        searching.join().expect("it ends with its recommender");
        (said.0, said.1, answers)
    }

    const SCHEMA: &str = r#"
        feature = [
          { name = "user", kind = "categorical", source = { hash = 8 } },
          { name = "item", kind = "categorical", source = { hash = 8 } },
          { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
        ]
    "#;

    fn encoder(schema: &str) -> Encoder {
        let schema: Schema = toml::from_str(schema).expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout")
    }

    fn made(network: &Network, tolerance: f32) -> Made {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(Manifest::MODEL), sample::onnx(network)).expect("written");
        let encoder = encoder(SCHEMA);
        assert!(encoder.wide_rows() <= sample::TABLE_ROWS);
        let row = |id: u8| vec![Value::Int(id.into()), Value::Int((2 * id).into()), Value::Float(0.5)];
        let mut golden = Golden { tolerance, input: (0..5).map(row).collect(), output: Vec::new() };
        let rows = golden.encode(&encoder).expect("rows");
        golden.output = network.score(&rows).expect("in memory").into_iter().map(narrow).collect();
        let manifest = Manifest {
            model: "shop".parse::<ModelName>().expect("a name"),
            version: VersionNumber::FIRST,
            kind: "dcn_v2".into(),
            created: time::OffsetDateTime::UNIX_EPOCH,
            parent: None,
            signature: encoder.signature().clone(),
            metrics: [].into(),
            lineage: Lineage::default(),
            files: [].into(),
        };
        Made { folder, manifest, golden, rows }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a score in double precision")]
    fn narrow(score: f64) -> f32 {
        score as f32
    }

    fn options(engine: EngineWish, cuda_precision: Precision) -> ModelOptions {
        let defaults = RawConfig::default().parse().expect("the defaults").defaults;
        ModelOptions { engine, cuda_precision, ..defaults }
    }

    /// The ONNX Runtime that the environment names, or else the one that `deploy/onnxruntime.sh` has fetched.
    fn runtime() -> OnnxRuntime {
        let named = ["MILLRACE_ONNXRUNTIME", "ORT_DYLIB_PATH"].into_iter().find_map(env::var_os);
        let fetched = "target/wheels/onnxruntime/1.32.0/libonnxruntime.so.1.32.0";
        let fetched = || Path::new(env!("CARGO_MANIFEST_DIR")).join(fetched);
        OnnxRuntime::load(&named.map_or_else(fetched, PathBuf::from)).expect("run deploy/onnxruntime.sh")
    }

    /// Hands what was opened of `made` by `options` to `look`, with a GPU that is a fake.
    fn opened(
        made: &Made,
        options: &ModelOptions,
        look: impl FnOnce(&Opening<'_>, Result<Opened, LoadError>),
    ) {
        let (cuda, _device) = Cuda::on_a_fake();
        let (reaper, reaper_thread) = Reaper::new();
        let reaping = thread::spawn(|| reaper_thread.run());
        let Made { folder, manifest, golden, rows } = made;
        let runtime = runtime();
        let opening = Opening {
            runtime: &runtime,
            cuda: &cuda,
            tensorrt: &TensorRt::on_a_fake(&manifest.signature),
            reaper: &reaper,
            folder: folder.path(),
            manifest,
            golden,
            rows,
            options,
        };
        look(&opening, opening.open());
        drop(reaper);
        reaping.join().expect("the reaper ends with the last engine");
    }

    #[test]
    fn a_gpu_serves_where_it_is_asked_for_with_threads_and_two_slots() {
        let made = made(&sample::deep_and_cross(), 1e-4);
        let mut options = options(EngineWish::Cuda, Precision::Single);
        // Fewer than there are golden rows.
        options.batching.max_batch_rows = NonZeroUsize::new(2).expect("not zero");
        opened(&made, &options, |opening, opened| {
            let mut opened = opened.expect("fit");
            assert_eq!(
                (opened.choice.engine, opened.choice.because),
                (EngineKind::Cuda, Because::Configured)
            );
            assert_eq!(opened.defaults(), Some((Lane::Threaded, GPU_SLOTS)));
            assert_eq!(opened.to_string(), "cuda (a fake, compute capability 9.0, single precision)");
            let mut another = opening.another(&opened.origin).expect("a second slot");
            let (mut scores, mut others) = (Vec::new(), Vec::new());
            opened.engine.run(&made.rows, &mut scores).expect("scores");
            another.run(&made.rows, &mut others).expect("scores");
            assert_eq!(scores, others);
        });
    }

    #[test]
    fn a_version_on_a_gpu_recommends_there_what_whole_rows_would() {
        let made = made(&sample::deep_and_cross(), 1e-4);
        let mut options = options(EngineWish::Cuda, Precision::Single);
        options.batching.max_batch_rows = NonZeroUsize::new(16).expect("not zero");
        let encoder = Arc::new(encoder(SCHEMA));
        let catalogue = catalogue(&encoder);
        let user =
            |id| catalogue.user(&encoder, &[Value::Int(id), Value::Missing, Value::Missing]).expect("a user");
        let query = |id| Query { user: user(id), k: 6, excluded: Vec::new(), candidates: None };
        let queries = [
            query(1),
            Query { k: 1000, ..query(2) },
            Query { excluded: (0..40).collect(), ..query(3) },
            Query { candidates: Some(vec![3, 9, 69]), excluded: vec![9], ..query(3) },
        ];
        opened(&made, &options, |opening, opened| {
            let origin = opened.expect("fit").origin;
            let by = |gpu| recommendations(opening, (&origin, gpu), &encoder, &queries);
            let (method, takes, found) = by(origin.cuda());
            assert_eq!((method, takes.engines), ("gpu", 0));
            let slot = origin.gpu_bytes(1).zip(origin.gpu_bytes(0)).map(|(one, none)| one - none);
            assert!(Some(takes.gpu_bytes) > slot, "a slot, and the items");
            let (method, takes, expected) = by(None);
            assert_eq!((method, takes), ("rows", Takes { engines: 1, gpu_bytes: 0 }));
            assert_eq!(expected[1].len(), 70);
            assert_eq!(found, expected);
        });
    }

    /// Puts an engine beside the model of `made` whose scores are sums, which the golden rows ask for from then on.
    fn put_engine(made: &mut Made, compute_capability: &str) {
        let folder = made.folder.path();
        let [(source, file), _] = Engines::SOURCES;
        fs::write(folder.join(file), fake::ENGINE).expect("written");
        made.golden.output = fake::sums(&made.rows);
        made.manifest.files = Manifest::record_files(folder).expect("files");
        let record = |name: &str| made.manifest.files[name].clone();
        let inputs = made.manifest.signature.inputs.iter().map(|input| {
            let dtype = if input.dtype == DType::I32 { "i32" } else { "f32" };
            let width = i64::try_from(input.width).expect("few");
            TensorRecord { name: input.name.clone(), dtype: dtype.into(), shape: vec![-1, width] }
        });
        let inputs: Vec<_> = inputs.collect();
        let ranges = inputs.iter().map(|input| {
            let shape = |rows| vec![rows, input.shape[1]];
            (input.name.clone(), ShapeRange { min: shape(1), opt: shape(1), max: shape(4096) })
        });
        let output = made.manifest.signature.output.clone();
        let engine = EngineRecord {
            file: file.into(),
            record: record(file),
            sources: [(source.to_owned(), record(source))].into(),
            profiles: vec![ranges.collect()],
            inputs,
            outputs: vec![TensorRecord { name: output, dtype: "f32".into(), shape: vec![-1] }],
        };
        let engines = Engines {
            flavour: "TensorRT-RTX".into(),
            version: "1.7.1".into(),
            compute_capabilities: vec![compute_capability.into()],
            engines: vec![engine],
        };
        engines.write(folder).expect("written");
    }

    #[test]
    fn an_engine_that_was_built_ahead_serves_where_it_is_asked_for_or_is_the_only_one() {
        let mut made = made(&sample::deep_and_cross(), 1e-4);
        let asked = options(EngineWish::TensorRt, Precision::Single);
        opened(&made, &asked, |_, opened| {
            let error = opened.err().expect("there is none yet");
            assert!(matches!(error, LoadError::Prebuilt(PrebuiltError::Absent)), "{error}");
        });
        put_engine(&mut made, "9.0");
        opened(&made, &asked, |opening, opened| {
            let opened = opened.expect("fit");
            let choice = (opened.choice.engine, opened.choice.because);
            assert_eq!(choice, (EngineKind::TensorRt, Because::Configured));
            assert_eq!(opened.defaults(), Some((Lane::Threaded, GPU_SLOTS)));
            let expected = "tensorrt (model.engine by TensorRT-RTX 1.7.1, a fake, compute capability 9.0)";
            assert_eq!(opened.to_string(), expected);
            assert!(opened.origin.gpu_bytes(2) > opened.origin.gpu_bytes(1));
            let mut scores = Vec::new();
            let mut another = opening.another(&opened.origin).expect("a second slot");
            another.run(&made.rows, &mut scores).expect("scores");
            assert_eq!(scores, made.golden.output);
        });
        opened(&made, &options(EngineWish::Auto, Precision::Single), |_, opened| {
            let choice = opened.expect("fit").choice;
            // No other answers the golden rows.
            assert_eq!((choice.engine, choice.because), (EngineKind::TensorRt, Because::Only), "{choice:?}");
        });
        let half = options(EngineWish::TensorRt, Precision::Half);
        opened(&made, &half, |_, opened| {
            let error = opened.err().expect("there is no such engine").to_string();
            assert_eq!(error, "engines.toml has no engine of model.fp16.onnx");
        });
    }

    #[test]
    fn an_engine_for_other_gpus_is_refused_before_it_is_read() {
        let mut made = made(&sample::deep_and_cross(), 1e-4);
        put_engine(&mut made, "8.9");
        fs::remove_file(made.folder.path().join("model.engine")).expect("removed");
        opened(&made, &options(EngineWish::TensorRt, Precision::Single), |_, opened| {
            let error = opened.err().expect("another GPU").to_string();
            assert_eq!(error, "the engines are for GPUs of compute capability 8.9, and this one is of 9.0");
        });
    }

    #[test]
    fn of_two_that_can_serve_the_cheaper_one_does() {
        let made = made(&sample::deep_and_cross(), 1e-4);
        opened(&made, &options(EngineWish::Auto, Precision::Single), |_, opened| {
            let choice = opened.expect("fit").choice;
            assert_eq!(choice.because, Because::Cheapest, "{choice:?}");
            assert!(choice.reason.contains(", that of "), "{choice:?}");
        });
    }

    #[test]
    fn an_engine_that_lost_is_gone_when_the_choice_is_made() {
        let made = made(&sample::deep_and_cross(), 1e-4);
        let (cuda, device) = Cuda::on_a_fake();
        let (reaper, reaper_thread) = Reaper::new();
        let Made { folder, manifest, golden, rows } = &made;
        let opening = Opening {
            runtime: &runtime(),
            cuda: &cuda,
            tensorrt: &TensorRt::new(None),
            reaper: &reaper,
            folder: folder.path(),
            manifest,
            golden,
            rows,
            options: &options(EngineWish::Auto, Precision::Single),
        };
        let opened = opening.open().expect("fit");
        // Nobody runs the reaper, and the fake computes far slower than the processor does.
        assert_eq!(opened.choice.engine, EngineKind::OnnxCpu);
        assert_eq!(Arc::strong_count(&device), 1, "nothing on the GPU is left");
        drop(reaper_thread);
    }

    #[test]
    fn an_engine_that_is_off_the_golden_rows_does_not_serve() {
        // Half precision is off by more than this.
        let made = made(&sample::deep_and_cross(), 1e-6);
        opened(&made, &options(EngineWish::Cuda, Precision::Half), |_, opened| {
            assert!(matches!(opened.err(), Some(LoadError::Golden(GoldenError::Differs { .. }))));
        });
        opened(&made, &options(EngineWish::Auto, Precision::Half), |_, opened| {
            let choice = opened.expect("the other is fit").choice;
            assert_eq!((choice.engine, choice.because), (EngineKind::OnnxCpu, Because::Only));
            assert!(choice.reason.contains("cuda cannot serve it (golden row "), "{choice:?}");
        });
    }

    #[test]
    fn a_model_that_the_gpu_does_not_compute_is_refused_with_what_is_in_the_way() {
        let mut made = made(&sample::deep_and_cross(), 1e-4);
        made.manifest.signature.output = "score".into();
        opened(&made, &options(EngineWish::Cuda, Precision::Single), |_, opened| {
            let error = in_words(&opened.err().expect("another output"));
            assert!(error.starts_with("CUDA cannot compute the model: the graph is neither"), "{error}");
        });
    }
}
