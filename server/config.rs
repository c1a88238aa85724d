//! The configuration, in two steps: [`RawConfig`] is what a TOML file says, with units in the names of its keys and
//! unknown keys refused; [`Config`] is what the server works with, checked once and typed.
//!
//! Flags and `MILLRACE_...` variables override the file; a file may leave out everything.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    batcher::{Batching, Lane},
    drift::DriftOptions,
    engine::{
        cuda::{CudaOptions, Precision},
        tensorrt::{TensorRt, TensorRtError},
    },
    feedback::{
        AlertMeasure, AlertOptions, IntakeOptions,
        export::{Columns, ExportOptions},
        log,
        window::{WindowFault, WindowOptions},
    },
    quality::Measure,
    recommend::Room,
    repository::{EngineWish, ModelName, NameError, NoShare, Policy, Share, TrialStage, VersionNumber},
    retrain::{Limits, RetrainOptions},
    rollout::{RolloutOptions, Rules},
};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error("{path}: cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, or has a key that there is not.
    #[error("{path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// What is exported is the log of feedback, and there is none.
    #[error("feedback_export needs feedback_dir")]
    NoFeedbackDir,
    /// A number that must be above zero is zero.
    #[error("{0} must be above zero")]
    Zero(&'static str),
    /// A table is named for something that cannot be a model.
    #[error("models.{name}: {source}")]
    Model {
        /// The table's name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// A threshold that no score can meet or miss.
    #[error("threshold must be from 0 to 1")]
    Threshold,
    /// How answers are to be judged.
    #[error("quality_window_ms, quality_step_ms and quality_maturity_ms: {0}")]
    Window(#[from] WindowFault),
    /// Versions are to be tried with a share of requests that is none.
    #[error("rollout.share: {0}")]
    Share(#[from] NoShare),
    /// A candidate may be worse by what cannot be.
    #[error("rollout.margin must be from 0 to 10, and rollout.max_latency_ratio from 1 to 1000")]
    Rules,
    /// A canary would leave the version that it is compared with too few requests.
    #[error("rollout.share must be at most 0.5 for a canary")]
    CanaryShare,
    /// Nothing could be decided before it is too late.
    #[error("rollout.max_age_ms must be longer than quality_maturity_ms and quality_step_ms together")]
    TooYoung,
    /// New versions are to be tried, and what was decided would be forgotten.
    #[error("a rollout needs rollout_dir")]
    NoRolloutDir,
    /// Labels are to decide about new versions, and none is taken.
    #[error("a rollout needs feedback_dir and receipt_keys, or min_labels = 0")]
    NoLabels,
    /// A model is to give receipts, and there is nothing to seal them with.
    #[error("receipts need receipt_keys")]
    NoReceiptKeys,
    /// An alert is about labels, and none can come back.
    #[error("alert needs {0}")]
    AlertNeeds(&'static str),
    /// Thresholds between which an alert could not be quiet.
    #[error("alert.below and alert.clear must be from 0 to 1, and alert.clear at least alert.below")]
    AlertThresholds,
    /// Not the address of anybody who could be told.
    #[error("alert.webhook must be an address that begins with http:// or https://")]
    Webhook,
    /// A retraining lacks something.
    #[error("retrain needs {0}")]
    RetrainNeeds(&'static str),
    /// A retraining is to follow an alert that there is not.
    #[error("retrain.on_alert needs alert")]
    OnAlert,
    /// A number that no retraining can be bounded by.
    #[error("{0}")]
    RetrainBounds(&'static str),
    /// A model is to be served by TensorRT, and this program cannot do that.
    #[error("engine = \"tensorrt\" cannot be had")]
    TensorRt(#[source] TensorRtError),
    /// A queue that could not hold one full batch.
    #[error("max_queue_rows ({queue}) must be at least max_batch_rows ({batch})")]
    QueueBelowBatch {
        /// Rows that may wait.
        queue: usize,
        /// Rows that a batch may hold.
        batch: usize,
    },
}

/// What a configuration file says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Address of the serving port.
    pub listen: Option<SocketAddr>,
    /// Address of the port for health, metrics and management.
    pub management_listen: Option<SocketAddr>,
    /// The folder of the model repository.
    pub models_dir: Option<PathBuf>,
    /// The ONNX Runtime library.
    pub onnxruntime: Option<PathBuf>,
    /// The file with the keys of receipts.
    pub receipt_keys: Option<PathBuf>,
    /// How old a receipt may be that comes back.
    pub receipt_max_age_ms: Option<u64>,
    /// The folder of the log of feedback; none is taken without.
    pub feedback_dir: Option<PathBuf>,
    /// Where the log of feedback is exported as tables, and what of it.
    pub feedback_export: Option<RawExport>,
    /// The folder of the journals of rollouts.
    pub rollout_dir: Option<PathBuf>,
    /// What the log of feedback may take on disk.
    pub max_feedback_bytes: Option<u64>,
    /// The number of the last events that are known again when they come twice.
    pub feedback_remembered_events: Option<usize>,
    /// The folder of what retrainings leave: when which was started, and what each one said.
    pub retrain_dir: Option<PathBuf>,
    /// The file with the token of an Alertmanager that may ask for retrainings.
    pub retrain_token: Option<PathBuf>,
    /// The number of the GPU for models that are served by one.
    pub cuda_device: Option<usize>,
    /// The folder for kernels that were compiled for it.
    pub cuda_cache_dir: Option<PathBuf>,
    /// The folder of TensorRT's libraries.
    pub tensorrt: Option<PathBuf>,
    /// How often the repository is looked at for new versions.
    pub poll_interval_ms: Option<u64>,
    /// Threads that serve requests.
    pub worker_threads: Option<usize>,
    /// Connections that may be open; more wait in the system's backlog.
    pub max_connections: Option<usize>,
    /// The largest body of a request.
    pub max_body_bytes: Option<usize>,
    /// Bytes of all bodies that are being read or computed.
    pub max_inflight_bytes: Option<usize>,
    /// The largest sum of a request's header names and values.
    pub max_header_bytes: Option<usize>,
    /// How long a client may take to send a request's headers, and how long an idle connection is kept.
    pub header_read_timeout_ms: Option<u64>,
    /// How long a client may take to send a request's body.
    pub body_read_timeout_ms: Option<u64>,
    /// How long the server is unready but goes on before it closes its serving port.
    pub shutdown_delay_ms: Option<u64>,
    /// How long requests in flight may take to finish when the server stops.
    pub drain_timeout_ms: Option<u64>,
    /// Options of every model.
    #[serde(default)]
    pub defaults: RawModel,
    /// Options of single models, which override the defaults.
    #[serde(default)]
    pub models: BTreeMap<String, RawModel>,
}

/// What a configuration file says of a model.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawModel {
    /// Which versions to serve: `"all"`, `{ latest = 1 }` or `{ specific = [1, 3] }`.
    pub versions: Option<RawPolicy>,
    /// What computes it: `"onnx-cpu"`, `"onnx-cuda"`, `"cuda"`, `"tensorrt"`, or `"auto"` for the cheapest of them.
    pub engine: Option<EngineWish>,
    /// What numbers a GPU computes it in: `"single"` or `"half"`.
    pub cuda_precision: Option<Precision>,
    /// Where batches run; measured at warm-up where it is left out.
    pub lane: Option<Lane>,
    /// What the largest batch may cost for the inline lane to be chosen.
    pub inline_budget_us: Option<u64>,
    /// Engine instances.
    pub instances: Option<usize>,
    /// Rows that one batch may hold, and so one request.
    pub max_batch_rows: Option<usize>,
    /// Rows that a batch need not wait to exceed.
    pub preferred_batch_rows: Option<usize>,
    /// How long a smaller batch waits for more rows although an engine is free.
    pub max_queue_delay_us: Option<u64>,
    /// Rows that may wait for an engine.
    pub max_queue_rows: Option<usize>,
    /// The wait from which on a queue that does not get shorter counts as overload.
    pub standing_wait_ms: Option<u64>,
    /// How long a request may take, unless it says so itself.
    pub request_timeout_ms: Option<u64>,
    /// Whether answers have a receipt, unless the request says so itself.
    pub receipts: Option<bool>,
    /// How much time is judged at once.
    pub quality_window_ms: Option<u64>,
    /// The steps that the window is counted in.
    pub quality_step_ms: Option<u64>,
    /// How long an answer waits for its label before it is judged.
    pub quality_maturity_ms: Option<u64>,
    /// The score from which on the model says that the event happens.
    pub threshold: Option<f32>,
    /// How new versions are tried before they answer; they answer at once without.
    pub rollout: Option<RawRollout>,
    /// Rows a second that are held against the training rows; 0 for none.
    pub drift_rows_per_second: Option<u32>,
    /// How much time of them at once.
    pub drift_window_ms: Option<u64>,
    /// Requests without which nothing is said of drift.
    pub drift_min_requests: Option<u64>,
    /// When it is not good enough any more, and who is told.
    pub alert: Option<RawAlert>,
    /// What trains it anew, and when.
    pub retrain: Option<RawRetrain>,
    /// Threads that search the catalogue of a version which has one; 0 for no recommendations.
    pub recommend_threads: Option<usize>,
    /// Requests for recommendations that may wait for one of them.
    pub max_recommend_queue: Option<usize>,
    /// The most bytes that the vectors of a version's items may take.
    pub max_catalogue_bytes: Option<usize>,
}

/// Which versions a configuration file wants served.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RawPolicy {
    /// Every version in the repository.
    All,
    /// The newest so many.
    Latest(NonZeroUsize),
    /// These and no others.
    Specific(Vec<VersionNumber>),
}

/// What the server works with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the serving port.
    pub listen: SocketAddr,
    /// Address of the port for health, metrics and management.
    pub management_listen: SocketAddr,
    /// The folder of the model repository.
    pub models_dir: PathBuf,
    /// The ONNX Runtime library.
    pub onnxruntime: PathBuf,
    /// The file with the keys of receipts; there are none without.
    pub receipt_keys: Option<PathBuf>,
    /// The folder of the log of feedback; none is taken without.
    pub feedback_dir: Option<PathBuf>,
    /// The folder of the journals of rollouts; no version is tried without.
    pub rollout_dir: Option<PathBuf>,
    /// The bounds of feedback.
    pub feedback: IntakeOptions,
    /// Where the log of feedback is exported; it is not without.
    pub feedback_export: Option<ExportOptions>,
    /// The folder of what retrainings leave; no model is retrained without.
    pub retrain_dir: Option<PathBuf>,
    /// The file with the token of an Alertmanager; none is heard without.
    pub retrain_token: Option<PathBuf>,
    /// The GPU for models that are served by one, and where its kernels are kept.
    pub cuda: CudaOptions,
    /// The folder of TensorRT's libraries, for models that are served by it.
    pub tensorrt: Option<PathBuf>,
    /// How often the repository is looked at for new versions.
    pub poll_interval: Duration,
    /// Threads that serve requests; as many as there are cores where `None`.
    pub worker_threads: Option<NonZeroUsize>,
    /// The bounds of connections and requests.
    pub http: HttpLimits,
    /// How long the server is unready but goes on before it closes its serving port.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take to finish when the server stops.
    pub drain_timeout: Duration,
    /// Options of models that have none of their own.
    pub defaults: ModelOptions,
    /// Options of single models.
    pub models: BTreeMap<ModelName, ModelOptions>,
}

/// The bounds of connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections that may be open; more wait in the system's backlog.
    pub max_connections: NonZeroUsize,
    /// The largest body of a request.
    pub max_body_bytes: NonZeroUsize,
    /// Bytes of all bodies that are being read or computed.
    pub max_inflight_bytes: NonZeroUsize,
    /// The largest sum of a request's header names and values.
    pub max_header_bytes: NonZeroUsize,
    /// How long a client may take to send a request's headers, and how long an idle connection is kept.
    pub header_read_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_read_timeout: Duration,
}

/// How a model is served.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOptions {
    /// Which versions are served.
    pub policy: Policy,
    /// What computes it.
    pub engine: EngineWish,
    /// What numbers a GPU computes it in.
    pub cuda_precision: Precision,
    /// Where batches run; measured at warm-up where `None`.
    pub lane: Option<Lane>,
    /// What the largest batch may cost for the inline lane to be chosen.
    pub inline_budget: Duration,
    /// Engine instances; as many as the lane needs where `None`.
    pub instances: Option<NonZeroUsize>,
    /// How batches form, and the bounds of the queue.
    pub batching: Batching,
    /// How long a request may take, unless it says so itself.
    pub request_timeout: Duration,
    /// Whether answers have a receipt, unless the request says so itself.
    pub receipts: bool,
    /// How its answers are judged.
    pub quality: WindowOptions,
    /// How new versions are tried before they answer; they answer at once where `None`.
    pub rollout: Option<RolloutOptions>,
    /// How its rows are held against the training rows; they are not where `None`.
    pub drift: Option<DriftOptions>,
    /// When it is not good enough any more.
    pub alert: Option<AlertOptions>,
    /// What trains it anew.
    pub retrain: Option<RetrainOptions>,
    /// Who searches the catalogue of a version that has one; nobody does where there are no threads.
    pub recommend: Room,
    /// The most bytes that the vectors of a version's items may take.
    pub max_catalogue_bytes: NonZeroUsize,
}

/// The keys of `rollout`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRollout {
    /// How a new version enters.
    pub enter: RawEnter,
    /// With which share of the requests that name no version.
    pub share: Option<f64>,
    /// What labels are compared by.
    pub measure: Option<Measure>,
    /// How much worse it may be by that.
    pub margin: Option<f64>,
    /// Labelled rows of each side before they decide.
    pub min_labels: Option<u64>,
    /// Requests that each side must have answered.
    pub min_requests: Option<u64>,
    /// How many times as long its answers may take.
    pub max_latency_ratio: Option<f64>,
    /// How long a decision may take.
    pub max_age_ms: Option<u64>,
}

/// How a new version enters, as a configuration file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawEnter {
    /// It answers all requests.
    AtOnce,
    /// It answers some.
    Canary,
    /// It is sent copies of some.
    Shadow,
}

/// The keys of `feedback_export`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawExport {
    /// The folder of the tables.
    pub dir: PathBuf,
    /// The column that labels fill in.
    pub label_column: Option<String>,
    /// The column that the times of answers fill in.
    pub time_column: Option<String>,
    /// How long a segment may be written to before it is exported.
    pub interval_ms: Option<u64>,
}

/// The keys of `alert`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAlert {
    /// What the model is judged by: `"accuracy"` or `"auc"`.
    pub measure: Option<AlertMeasure>,
    /// Less than this is not good enough.
    pub below: Option<f64>,
    /// From this on it is good again.
    pub clear: Option<f64>,
    /// Labelled rows without which a window says nothing.
    pub min_labels: Option<u64>,
    /// How long it must be too low.
    pub hold_ms: Option<u64>,
    /// The address of whoever is to be told.
    pub webhook: Option<String>,
}

/// The keys of `retrain`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRetrain {
    /// A program and its arguments.
    pub command: Vec<String>,
    /// The folder that it runs in.
    pub dir: Option<PathBuf>,
    /// Whether the model's alert starts it.
    pub on_alert: Option<bool>,
    /// How long after the last start it is due without anybody asking.
    pub every_ms: Option<u64>,
    /// From one start to the next.
    pub cooldown_ms: Option<u64>,
    /// Starts within 24 hours.
    pub max_a_day: Option<usize>,
    /// How long it may take.
    pub timeout_ms: Option<u64>,
    /// The private memory that each of its processes may have.
    pub max_memory_bytes: Option<u64>,
    /// How far it stands behind others where processors are short.
    pub nice: Option<u8>,
    /// The file that forbids it while it is there.
    pub kill_switch: Option<PathBuf>,
}

impl RawConfig {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
    }

    /// Checks the values and fills in what is left out.
    pub fn parse(self) -> Result<Config, ConfigError> {
        let mut models = BTreeMap::new();
        for (name, raw) in &self.models {
            let parsed = name.parse().map_err(|source| ConfigError::Model { name: name.clone(), source })?;
            models.insert(parsed, raw.parse(&self.defaults, self.retrain_dir.as_deref())?);
        }
        let defaults = self.defaults.parse(&RawModel::default(), self.retrain_dir.as_deref())?;
        let of_all = || models.values().chain([&defaults]);
        if of_all().any(|options| options.engine == EngineWish::TensorRt) {
            let checked = TensorRt::check(TensorRt::IS_BUILT_IN, self.tensorrt.as_deref());
            checked.map_err(ConfigError::TensorRt)?;
        }
        let receipts = of_all().any(|options| options.receipts);
        if receipts && self.receipt_keys.is_none() {
            return Err(ConfigError::NoReceiptKeys);
        }
        let tries = |options: &ModelOptions| options.rollout.is_some();
        if self.rollout_dir.is_none() && of_all().any(tries) {
            return Err(ConfigError::NoRolloutDir);
        }
        let labels = self.feedback_dir.is_some() && self.receipt_keys.is_some();
        let asks = |options: &ModelOptions| options.rollout.is_some_and(|it| it.rules.min_labels > 0);
        if !labels && of_all().any(asks) {
            return Err(ConfigError::NoLabels);
        }
        let has_alert = of_all().any(|options| options.alert.is_some());
        for (there, key) in [
            (self.feedback_dir.is_some(), "feedback_dir"),
            // No label can come back without one.
            (self.receipt_keys.is_some(), "receipt_keys"),
        ] {
            if has_alert && !there {
                return Err(ConfigError::AlertNeeds(key));
            }
        }
        Ok(Config {
            listen: self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8000))),
            management_listen: self.management_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8001))),
            onnxruntime: self.onnxruntime.clone().unwrap_or_else(|| "libonnxruntime.so".into()),
            receipt_keys: self.receipt_keys.clone(),
            feedback_dir: self.feedback_dir.clone(),
            rollout_dir: self.rollout_dir.clone(),
            feedback: self.feedback()?,
            feedback_export: self.feedback_export()?,
            retrain_dir: self.retrain_dir.clone(),
            retrain_token: self.retrain_token.clone(),
            cuda: CudaOptions { device: self.cuda_device.unwrap_or(0), cache: self.cuda_cache_dir.clone() },
            tensorrt: self.tensorrt.clone(),
            models_dir: self.models_dir.clone().unwrap_or_else(|| "models".into()),
            poll_interval: milliseconds(self.poll_interval_ms, 1_000, "poll_interval_ms")?,
            worker_threads: self
                .worker_threads
                .map(|threads| count(Some(threads), 1, "worker_threads"))
                .transpose()?,
            http: self.http()?,
            shutdown_delay: Duration::from_millis(self.shutdown_delay_ms.unwrap_or(0)),
            drain_timeout: milliseconds(self.drain_timeout_ms, 30_000, "drain_timeout_ms")?,
            defaults,
            models,
        })
    }

    fn feedback(&self) -> Result<IntakeOptions, ConfigError> {
        let log = log::Options::default();
        let max_bytes = self.max_feedback_bytes.unwrap_or(log.max_bytes);
        // Half of it for segments that were exported, while there are any.
        let keep_bytes = log.keep_bytes.min(max_bytes / 2);
        let segment_bytes = log.segment_bytes.min(max_bytes / 4);
        let remembered = self.feedback_remembered_events;
        Ok(IntakeOptions {
            max_age: milliseconds(self.receipt_max_age_ms, 30 * 24 * 3_600_000, "receipt_max_age_ms")?,
            remembered: count(remembered, 1_000_000, "feedback_remembered_events")?.get(),
            log: log::Options { segment_bytes, max_bytes, keep_bytes, ..log },
        })
    }

    fn feedback_export(&self) -> Result<Option<ExportOptions>, ConfigError> {
        let Some(RawExport { dir, label_column, time_column, interval_ms }) = self.feedback_export.clone()
        else {
            return Ok(None);
        };
        if self.feedback_dir.is_none() {
            return Err(ConfigError::NoFeedbackDir);
        }
        let columns = Columns { label: label_column, time: time_column };
        let every = milliseconds(interval_ms, 3_600_000, "feedback_export.interval_ms")?;
        Ok(Some(ExportOptions { folder: dir, columns, every }))
    }

    fn http(&self) -> Result<HttpLimits, ConfigError> {
        const MIB: usize = 1 << 20;
        Ok(HttpLimits {
            max_connections: count(self.max_connections, 10_000, "max_connections")?,
            max_body_bytes: count(self.max_body_bytes, 4 * MIB, "max_body_bytes")?,
            max_inflight_bytes: count(self.max_inflight_bytes, 256 * MIB, "max_inflight_bytes")?,
            max_header_bytes: count(self.max_header_bytes, 16 * 1024, "max_header_bytes")?,
            header_read_timeout: milliseconds(self.header_read_timeout_ms, 60_000, "header_read_timeout_ms")?,
            body_read_timeout: milliseconds(self.body_read_timeout_ms, 10_000, "body_read_timeout_ms")?,
        })
    }
}

impl RawModel {
    fn parse(&self, defaults: &Self, retrain_dir: Option<&Path>) -> Result<ModelOptions, ConfigError> {
        let max_batch_rows = count(self.max_batch_rows.or(defaults.max_batch_rows), 4_096, "max_batch_rows")?;
        let max_queue_rows = self.max_queue_rows.or(defaults.max_queue_rows);
        let max_queue_rows = count(max_queue_rows, 16 * max_batch_rows.get(), "max_queue_rows")?;
        if max_queue_rows < max_batch_rows {
            return Err(ConfigError::QueueBelowBatch {
                queue: max_queue_rows.get(),
                batch: max_batch_rows.get(),
            });
        }
        let preferred = self.preferred_batch_rows.or(defaults.preferred_batch_rows);
        let preferred_batch_rows = count(preferred, max_batch_rows.get(), "preferred_batch_rows")?;
        let delay = self.max_queue_delay_us.or(defaults.max_queue_delay_us);
        let timeout = self.request_timeout_ms.or(defaults.request_timeout_ms);
        let request_timeout = milliseconds(timeout, 10_000, "request_timeout_ms")?;
        let standing_wait = match self.standing_wait_ms.or(defaults.standing_wait_ms) {
            // What waits for twice as long has time for its batch and the one before it.
            None => request_timeout / 6,
            wait => milliseconds(wait, 0, "standing_wait_ms")?,
        };
        let budget = self.inline_budget_us.or(defaults.inline_budget_us);
        Ok(ModelOptions {
            policy: match self.versions.clone().or_else(|| defaults.versions.clone()) {
                None => Policy::Latest(NonZeroUsize::MIN),
                Some(RawPolicy::All) => Policy::All,
                Some(RawPolicy::Latest(number)) => Policy::Latest(number),
                Some(RawPolicy::Specific(versions)) => Policy::Specific(versions),
            },
            engine: self.engine.or(defaults.engine).unwrap_or_default(),
            cuda_precision: self.cuda_precision.or(defaults.cuda_precision).unwrap_or_default(),
            lane: self.lane.or(defaults.lane),
            inline_budget: Duration::from_micros(budget.unwrap_or(1_000)),
            instances: self
                .instances
                .or(defaults.instances)
                .map(|instances| count(Some(instances), 1, "instances"))
                .transpose()?,
            batching: Batching {
                max_batch_rows,
                preferred_batch_rows,
                max_queue_delay: Duration::from_micros(delay.unwrap_or(0)),
                max_queue_rows,
                standing_wait,
            },
            request_timeout,
            receipts: self.receipts.or(defaults.receipts).unwrap_or(false),
            quality: self.quality(defaults)?,
            rollout: self.rollout(defaults)?,
            drift: self.drift(defaults)?,
            alert: self.alert.as_ref().or(defaults.alert.as_ref()).map(RawAlert::parse).transpose()?,
            retrain: self.retrain(defaults, retrain_dir)?,
            recommend: self.recommend(defaults)?,
            max_catalogue_bytes: count(
                self.max_catalogue_bytes.or(defaults.max_catalogue_bytes),
                1 << 30,
                "max_catalogue_bytes",
            )?,
        })
    }

    fn quality(&self, defaults: &Self) -> Result<WindowOptions, ConfigError> {
        let threshold = self.threshold.or(defaults.threshold).unwrap_or(0.5);
        if !(0.0..=1.0).contains(&threshold) {
            return Err(ConfigError::Threshold);
        }
        let window = self.quality_window_ms.or(defaults.quality_window_ms);
        let step = self.quality_step_ms.or(defaults.quality_step_ms);
        let maturity = self.quality_maturity_ms.or(defaults.quality_maturity_ms);
        let options = WindowOptions {
            step: milliseconds(step, 60_000, "quality_step_ms")?,
            window: milliseconds(window, 3_600_000, "quality_window_ms")?,
            maturity: Duration::from_millis(maturity.unwrap_or(1_800_000)),
            threshold,
        };
        options.check()?;
        Ok(options)
    }

    fn drift(&self, defaults: &Self) -> Result<Option<DriftOptions>, ConfigError> {
        let rows = self.drift_rows_per_second.or(defaults.drift_rows_per_second).unwrap_or(50);
        let window = self.drift_window_ms.or(defaults.drift_window_ms);
        let window = milliseconds(window, 3_600_000, "drift_window_ms")?;
        let min_requests = self.drift_min_requests.or(defaults.drift_min_requests).unwrap_or(500);
        let options = |rows_per_second| DriftOptions { rows_per_second, window, min_requests };
        Ok(NonZeroU32::new(rows).map(options))
    }

    fn rollout(&self, defaults: &Self) -> Result<Option<RolloutOptions>, ConfigError> {
        let rollout = self.rollout.or(defaults.rollout).map_or(Ok(None), RawRollout::parse)?;
        let quality = self.quality(defaults)?;
        let decides = |it: &RolloutOptions| it.rules.max_age > quality.maturity + quality.step;
        if rollout.is_some_and(|it| it.rules.min_labels > 0 && !decides(&it)) {
            return Err(ConfigError::TooYoung);
        }
        Ok(rollout)
    }

    fn retrain(
        &self,
        defaults: &Self,
        retrain_dir: Option<&Path>,
    ) -> Result<Option<RetrainOptions>, ConfigError> {
        let Some(raw) = self.retrain.as_ref().or(defaults.retrain.as_ref()) else { return Ok(None) };
        let options = raw.parse(retrain_dir.ok_or(ConfigError::RetrainNeeds("retrain_dir"))?)?;
        if options.on_alert && self.alert.as_ref().or(defaults.alert.as_ref()).is_none() {
            return Err(ConfigError::OnAlert);
        }
        // What nobody has looked at must not answer everybody.
        if self.rollout(defaults)?.is_none() {
            return Err(ConfigError::RetrainNeeds("a rollout: what it trains may not answer at once"));
        }
        Ok(Some(options))
    }

    fn recommend(&self, defaults: &Self) -> Result<Room, ConfigError> {
        let queue = self.max_recommend_queue.or(defaults.max_recommend_queue);
        Ok(Room {
            threads: self.recommend_threads.or(defaults.recommend_threads).unwrap_or(1),
            queue: count(queue, 64, "max_recommend_queue")?.get(),
        })
    }
}

impl RawRollout {
    /// Checks the values and fills in what is left out; `None` where versions enter at once.
    pub fn parse(self) -> Result<Option<RolloutOptions>, ConfigError> {
        let stage = match self.enter {
            RawEnter::AtOnce => None,
            RawEnter::Canary => Some(TrialStage::Canary),
            RawEnter::Shadow => Some(TrialStage::Shadow),
        };
        let rules = Rules {
            measure: self.measure.unwrap_or_default(),
            margin: self.margin.unwrap_or(0.005),
            min_labels: self.min_labels.unwrap_or(1_000),
            min_requests: self.min_requests.unwrap_or(1_000),
            max_latency_ratio: self.max_latency_ratio.unwrap_or(2.0),
            max_age: milliseconds(self.max_age_ms, 24 * 3_600_000, "rollout.max_age_ms")?,
        };
        if !(0.0..=10.0).contains(&rules.margin) || !(1.0..=1_000.0).contains(&rules.max_latency_ratio) {
            return Err(ConfigError::Rules);
        }
        if rules.min_requests == 0 {
            return Err(ConfigError::Zero("rollout.min_requests"));
        }
        let share: Share = self.share.unwrap_or(0.1).try_into()?;
        if stage == Some(TrialStage::Canary) && share.at_most(Share::HALF) != share {
            return Err(ConfigError::CanaryShare);
        }
        Ok(stage.map(|stage| RolloutOptions { stage, share, rules }))
    }
}

impl RawAlert {
    fn parse(&self) -> Result<AlertOptions, ConfigError> {
        let below = self.below.unwrap_or(0.70);
        // Far enough from the other that a window's noise does not go to and fro between them.
        let clear = self.clear.unwrap_or((below + 0.02).min(1.0));
        if !(0.0..=1.0).contains(&below) || !(below..=1.0).contains(&clear) {
            return Err(ConfigError::AlertThresholds);
        }
        let webhook = self.webhook.clone();
        if webhook.as_deref().is_some_and(|address| !is_web_address(address)) {
            return Err(ConfigError::Webhook);
        }
        let min_labels = self.min_labels.unwrap_or(500);
        if min_labels == 0 {
            return Err(ConfigError::Zero("alert.min_labels"));
        }
        Ok(AlertOptions {
            measure: self.measure.unwrap_or_default(),
            below,
            clear,
            min_labels,
            hold: Duration::from_millis(self.hold_ms.unwrap_or(0)),
            webhook,
        })
    }
}

impl RawRetrain {
    fn parse(&self, retrain_dir: &Path) -> Result<RetrainOptions, ConfigError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(ConfigError::RetrainNeeds("a command"));
        }
        let max_a_day = count(self.max_a_day, 4, "retrain.max_a_day")?;
        // So many starts are kept of each model.
        if max_a_day.get() > 1_000 {
            return Err(ConfigError::RetrainBounds("retrain.max_a_day must be at most 1000"));
        }
        let nice = self.nice.unwrap_or(10);
        if nice > 19 {
            return Err(ConfigError::RetrainBounds("retrain.nice must be from 0 to 19"));
        }
        let memory = self.max_memory_bytes;
        let memory =
            memory.map(|bytes| NonZeroU64::new(bytes).ok_or(ConfigError::Zero("retrain.max_memory_bytes")));
        let every = self.every_ms.map(|every| milliseconds(Some(every), 0, "retrain.every_ms"));
        Ok(RetrainOptions {
            command: self.command.clone(),
            dir: self.dir.clone().unwrap_or_else(|| ".".into()),
            on_alert: self.on_alert.unwrap_or(false),
            limits: Limits {
                cooldown: Duration::from_millis(self.cooldown_ms.unwrap_or(3_600_000)),
                max_a_day,
                every: every.transpose()?,
            },
            timeout: milliseconds(self.timeout_ms, 2 * 3_600_000, "retrain.timeout_ms")?,
            max_memory_bytes: memory.transpose()?,
            nice,
            kill_switch: self.kill_switch.clone().unwrap_or_else(|| retrain_dir.join("stop")),
        })
    }
}

impl Config {
    /// The options of `model`.
    pub fn model(&self, model: &ModelName) -> &ModelOptions {
        self.models.get(model).unwrap_or(&self.defaults)
    }
}

fn count(value: Option<usize>, default: usize, key: &'static str) -> Result<NonZeroUsize, ConfigError> {
    NonZeroUsize::new(value.unwrap_or(default)).ok_or(ConfigError::Zero(key))
}

fn is_web_address(text: &str) -> bool {
    let address = text.parse::<ureq::http::Uri>().ok();
    address.is_some_and(|address| {
        matches!(address.scheme_str(), Some("http" | "https"))
            && address.host().is_some_and(|host| !host.is_empty())
    })
}

fn milliseconds(value: Option<u64>, default: u64, key: &'static str) -> Result<Duration, ConfigError> {
    match value.unwrap_or(default) {
        0 => Err(ConfigError::Zero(key)),
        value => Ok(Duration::from_millis(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        // With what caused it, as the command line says it.
        raw.parse().map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    #[test]
    fn an_empty_file_serves_on_the_loopback_with_the_documented_defaults() {
        let config = parse("").expect("defaults");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.management_listen.to_string(), "127.0.0.1:8001");
        assert_eq!(config.defaults.policy, Policy::Latest(NonZeroUsize::MIN));
        assert_eq!(config.defaults.batching.max_queue_rows.get(), 16 * 4_096);
    }

    #[test]
    fn a_model_overrides_the_defaults_key_by_key() {
        let config = parse(
            "defaults = { max_batch_rows = 64, request_timeout_ms = 50 }
             [models.shop]
             versions = { specific = [2, 5] }
             lane = \"threaded\"
             engine = \"auto\"
             cuda_precision = \"half\"
             max_queue_delay_us = 200
             max_batch_rows = 8",
        );
        let config = config.expect("well-formed");
        let shop = config.model(&"shop".parse().expect("a name"));
        assert_eq!((shop.batching.max_batch_rows.get(), shop.lane), (8, Some(Lane::Threaded)));
        assert_eq!((shop.engine, shop.cuda_precision), (EngineWish::Auto, Precision::Half));
        assert_eq!(shop.request_timeout, Duration::from_millis(50));
        assert_eq!(shop.batching.standing_wait, Duration::from_millis(50) / 6);
        assert_eq!(shop.batching.max_queue_delay, Duration::from_micros(200));
        assert_eq!(shop.batching.preferred_batch_rows.get(), 8);
        assert!(matches!(&shop.policy, Policy::Specific(versions) if versions.len() == 2));
        let other = config.model(&"other".parse().expect("a name"));
        assert_eq!((other.batching.max_batch_rows.get(), other.lane), (64, None));
        assert_eq!((other.engine, other.cuda_precision), (EngineWish::OnnxCpu, Precision::Single));
    }

    #[test]
    fn an_alert_and_a_retraining_have_the_documented_defaults_and_the_model_its_own() {
        let config = parse(
            "feedback_dir = \"log\"
             receipt_keys = \"keys\"
             retrain_dir = \"runs\"
             rollout_dir = \"journals\"
             defaults = { alert = {}, rollout = { enter = \"shadow\" }, retrain = { command = [\"train\"] } }
             [models.shop]
             alert = { below = 0.6, measure = \"auc\", hold_ms = 5, webhook = \"https://a.test/hook\" }
             retrain = { command = [\"a\", \"b\"], on_alert = true, every_ms = 9, kill_switch = \"off\" }",
        );
        let config = config.expect("well-formed");
        let alert = config.defaults.alert.as_ref().expect("an alert");
        assert_eq!((alert.below, alert.clear, alert.min_labels), (0.70, 0.72, 500));
        assert_eq!(
            (alert.measure, alert.hold, &alert.webhook),
            (AlertMeasure::Accuracy, Duration::ZERO, &None)
        );
        let retrain = config.defaults.retrain.as_ref().expect("a retraining");
        assert_eq!((retrain.on_alert, retrain.nice, retrain.max_memory_bytes), (false, 10, None));
        assert_eq!(retrain.limits.cooldown, Duration::from_hours(1));
        assert_eq!((retrain.limits.max_a_day.get(), retrain.limits.every), (4, None));
        assert_eq!(retrain.timeout, Duration::from_hours(2));
        assert_eq!((&*retrain.dir, &*retrain.kill_switch), (Path::new("."), Path::new("runs/stop")));
        let shop = config.model(&"shop".parse().expect("a name"));
        let alert = shop.alert.as_ref().expect("an alert");
        assert_eq!((alert.below, alert.clear, alert.measure), (0.6, 0.62, AlertMeasure::Auc));
        let retrain = shop.retrain.as_ref().expect("a retraining");
        assert_eq!(retrain.command, ["a", "b"]);
        assert_eq!((retrain.on_alert, &*retrain.kill_switch), (true, Path::new("off")));
        assert_eq!(retrain.limits.every, Some(Duration::from_millis(9)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let retrain = |keys: &str| format!("retrain_dir = \"runs\"\ndefaults = {{ retrain = {{ {keys} }} }}");
        let cases = [
            ("listne = \"127.0.0.1:1\"", "listne"),
            ("max_connections = 0", "max_connections must be above zero"),
            ("poll_interval_ms = 0", "poll_interval_ms must be above zero"),
            ("worker_threads = 0", "worker_threads must be above zero"),
            ("defaults = { standing_wait_ms = 0 }", "standing_wait_ms must be above zero"),
            ("defaults = { preferred_batch_rows = 0 }", "preferred_batch_rows must be above zero"),
            ("[models.\"../x\"]\nlane = \"inline\"", "models.../x"),
            ("defaults = { threshold = 1.5 }", "threshold must be from 0 to 1"),
            ("defaults = { quality_window_ms = 90000 }", "multiple of its step"),
            ("defaults = { quality_step_ms = 1000 }", "1024 steps at most"),
            ("defaults = { drift_window_ms = 0 }", "drift_window_ms must be above zero"),
            ("feedback_export = { dir = \"tables\" }", "feedback_export needs feedback_dir"),
            (
                "feedback_dir = \"log\"\nfeedback_export = { dir = \"tables\", interval_ms = 0 }",
                "feedback_export.interval_ms",
            ),
            ("defaults = { rollout = { enter = \"canary\" } }", "a rollout needs rollout_dir"),
            (
                "rollout_dir = \"journals\"\ndefaults = { rollout = { enter = \"canary\" } }",
                "or min_labels = 0",
            ),
            (
                "[models.shop]\nrollout = { enter = \"canary\", share = 0.0 }",
                "rollout.share: a share must be",
            ),
            ("[models.shop]\nrollout = { enter = \"canary\", margin = -1.0 }", "rollout.margin must be"),
            ("[models.shop]\nrollout = { enter = \"canary\", margin = inf }", "rollout.margin must be"),
            ("[models.shop]\nrollout = { enter = \"canary\", max_latency_ratio = inf }", "from 1 to 1000"),
            ("[models.shop]\nrollout = { enter = \"canary\", min_requests = 0 }", "rollout.min_requests"),
            ("[models.shop]\nrollout = { enter = \"canary\", share = 0.6 }", "at most 0.5"),
            (
                "[models.shop]\nrollout = { enter = \"canary\", max_age_ms = 1860000 }",
                "rollout.max_age_ms must be",
            ),
            ("[models.shop]\nrollout = { enter = \"slowly\" }", "at_once"),
            ("defaults = { alert = {} }", "alert needs feedback_dir"),
            ("feedback_dir = \"log\"\n[models.shop]\nalert = {}", "alert needs receipt_keys"),
            ("defaults = { alert = { below = 1.1 } }", "alert.below and alert.clear must be from 0 to 1"),
            ("defaults = { alert = { below = 0.7, clear = 0.6 } }", "alert.clear at least alert.below"),
            ("defaults = { alert = { min_labels = 0 } }", "alert.min_labels must be above zero"),
            ("defaults = { alert = { measure = \"luck\" } }", "luck"),
            ("defaults = { alert = { webhook = \"hook\" } }", "alert.webhook must be an address"),
            ("defaults = { alert = { webhook = \"ftp://a.test/\" } }", "alert.webhook must be an address"),
            ("defaults = { retrain = {} }", "command"),
            ("defaults = { retrain = { command = [\"x\"] } }", "retrain needs retrain_dir"),
            ("[models.shop]\nretrain = { command = [\"x\"] }", "retrain needs retrain_dir"),
            (&retrain("command = []"), "retrain needs a command"),
            (&retrain("command = [\"x\"]"), "retrain needs a rollout"),
            (&retrain("command = [\"x\"], on_alert = true"), "retrain.on_alert needs alert"),
            (&retrain("command = [\"x\"], every_ms = 0"), "retrain.every_ms must be above zero"),
            (&retrain("command = [\"x\"], timeout_ms = 0"), "retrain.timeout_ms must be above zero"),
            (&retrain("command = [\"x\"], max_a_day = 0"), "retrain.max_a_day must be above zero"),
            (&retrain("command = [\"x\"], max_a_day = 1001"), "retrain.max_a_day must be at most 1000"),
            (&retrain("command = [\"x\"], max_memory_bytes = 0"), "retrain.max_memory_bytes must be above"),
            (&retrain("command = [\"x\"], nice = 20"), "retrain.nice must be from 0 to 19"),
            (&retrain("command = [\"x\"], nise = 1"), "nise"),
            ("defaults = { receipts = true }", "receipts need receipt_keys"),
            ("[models.shop]\nreceipts = true", "receipts need receipt_keys"),
            ("defaults = { max_batch_rows = 10, max_queue_rows = 9 }", "must be at least"),
            ("defaults = { lane = \"express\" }", "express"),
            ("defaults = { engine = \"gpu\" }", "onnx-cpu"),
            ("defaults = { cuda_precision = \"double\" }", "double"),
            ("defaults = { versions = { latest = 0 } }", "nonzero"),
            ("defaults = { versions = { specific = [0] } }", "from 1"),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn tensorrt_is_asked_for_only_where_it_was_built_in_and_has_a_folder() {
        let (asked, folder) = ("defaults = { engine = \"tensorrt\" }", "tensorrt = \"libraries\"\n");
        let of_one = "[models.shop]\nengine = \"tensorrt\"";
        for asked in [asked, of_one] {
            let found = [String::from(asked), format!("{folder}{asked}")].map(|text| parse(&text).map(drop));
            let said = found.map(|found| found.err().unwrap_or_default());
            let expected = if TensorRt::IS_BUILT_IN {
                ["engine = \"tensorrt\" cannot be had: no folder of TensorRT's libraries", ""]
            } else {
                ["engine = \"tensorrt\" cannot be had: this millrace was built without TensorRT"; 2]
            };
            for (said, expected) in said.iter().zip(expected) {
                assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{said}");
            }
        }
        parse(&format!("{folder}defaults = {{ engine = \"auto\" }}")).expect("what auto lacks is a reason");
    }
}
