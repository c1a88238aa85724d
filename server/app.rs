//! Puts a server together, starts it and stops it. The one place that starts threads and runtimes.
//!
//! | thread | does |
//! |---|---|
//! | `accept` | the serving port: gives each connection to a worker |
//! | `serve` (one a core) | a worker: connections, decoding, the inline lane |
//! | `engine MODEL` | the threaded lane of a heavy version |
//! | `watcher` | follows the repository: loads, checks (with rests while a model answers), warms up, swaps |
//! | `rollout` | decides about versions that are tried |
//! | `drift` | holds some rows against training rows |
//! | `reaper` | drops retired versions |
//! | `management` | the management port: probes, metrics, orders; looks at every alert once a second |
//! | `webhook` | tells others of alerts, where the configuration says whom |
//! | `retrain` | decides on retrainings and looks after the one that runs, where the configuration has any |
//!
//! Nothing is global but ONNX Runtime's environment: two servers can run in one process, and the tests do that.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use tokio::{runtime::Builder, sync::watch};

use crate::{
    REVISION,
    config::Config,
    drift::Sampler,
    engine::{EngineError, OnnxRuntime, cuda::Cuda, tensorrt::TensorRt},
    feedback::{
        Alarm, Intake, Issuer, Keys, KeysError, Live, Webhook, export::Exporter, log::LogError,
        window::WindowFault,
    },
    http::{ConnectionLimits, Connections, Management, Serving, Stopping},
    metrics::Metrics,
    repository::{Layout, Loader, ModelStatus, Reaper, Repository},
    retrain::{self, Retrain, Surroundings, Token, TokenError},
    rollout::{Conductor, JournalError, Journals, Rollouts},
    workers::{Spawner, Workers},
};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The model repository is not there.
    #[error("the model repository {path} cannot be read")]
    Models {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The inference runtime.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A port.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The keys of receipts cannot be used.
    #[error("the keys of receipts cannot be used")]
    Keys(#[from] KeysError),
    /// The log of feedback cannot be opened.
    #[error("the log of feedback cannot be opened")]
    Feedback(#[from] LogError),
    /// A journal of rollouts cannot be used.
    #[error("the journals of rollouts cannot be used")]
    Rollouts(#[from] JournalError),
    /// Answers cannot be judged so.
    #[error(transparent)]
    Window(#[from] WindowFault),
    /// The token of an Alertmanager cannot be used.
    #[error("the token of an Alertmanager cannot be used")]
    Token(#[from] TokenError),
    /// What was retrained when cannot be read or written.
    #[error("retrain_dir {path} cannot be used")]
    Retrain {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A thread or a runtime.
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
}

/// A running server. Dropping it without [`App::stop`] leaves its threads running.
pub struct App {
    address: SocketAddr,
    management_address: SocketAddr,
    repository: Arc<Repository>,
    stopping: Arc<Stopping>,
    shutdown_delay: Duration,
    workers: Workers,
    /// Ends with whether every request in flight was answered.
    accept: JoinHandle<bool>,
    stop_serving: watch::Sender<bool>,
    stop_management: watch::Sender<bool>,
    management: JoinHandle<()>,
    rollouts: Option<(Rollouts, JoinHandle<()>)>,
    watcher: JoinHandle<()>,
    reaper: JoinHandle<()>,
    drift: JoinHandle<()>,
    exporter: Option<Arc<Exporter>>,
    webhook: Option<JoinHandle<()>>,
    /// Who can ask for a retraining, and who sees to it.
    retrain: Option<(Retrain, JoinHandle<()>)>,
}

impl App {
    /// Starts a server. It listens when this returns, and loads its models from then on.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        check_models(config)?;
        let runtime = OnnxRuntime::load(&config.onnxruntime)?;
        let keys = config.receipt_keys.as_deref().map(Keys::read).transpose()?.map(Arc::new);
        let live = Arc::new(live(config)?);
        let intake = config
            .feedback_dir
            .as_deref()
            .map(|folder| Intake::open(folder, keys.clone(), config.feedback, Arc::clone(&live)))
            .transpose()?
            .map(Arc::new);
        let journals = config.rollout_dir.as_deref().map(Journals::open).transpose()?;
        let (listener, address) = bind(config.listen)?;
        let (management_listener, management_address) = bind(config.management_listen)?;
        // From here on the system accepts connections; they are served in a moment.
        tracing::info!(%address, management = %management_address, "listening");

        let metrics = Metrics::new(REVISION);
        let (reaper, reaper_thread) = Reaper::new();
        let loader = Loader {
            layout: Layout::new(&config.models_dir),
            runtime,
            cuda: Arc::new(Cuda::new(config.cuda.clone())),
            tensorrt: Arc::new(TensorRt::new(config.tensorrt.clone())),
            metrics: Arc::clone(&metrics),
            reaper,
            workers: worker_threads(config),
        };
        let standings = journals.as_ref().map(Journals::standings).unwrap_or_default();
        let (repository, watcher) = Repository::new(config, loader, standings);
        let repository = Arc::new(repository);
        let rollouts = rollouts(config, journals, &repository, &live, &metrics)?;
        let stopping = Arc::new(Stopping::default());

        let reaper = spawn("reaper", move || reaper_thread.run())?;
        let watcher = spawn("watcher", move || watcher.run())?;
        let (sampler, sampler_thread) = Sampler::new(Arc::clone(&metrics));
        let drift = spawn("drift", move || sampler_thread.run())?;
        let exporter = match intake.as_ref().zip(config.feedback_export.clone()) {
            Some((intake, options)) => {
                let exporter = Exporter::start(Arc::clone(intake.log()), options, Arc::clone(&metrics));
                Some(Arc::new(exporter.map_err(StartError::Thread)?))
            }
            None => None,
        };
        let retrain = retrain(config, &repository, exporter.clone(), &metrics)?;
        let retraining = retrain.as_ref().map(|(retrain, _)| retrain.clone());
        let (alarm, webhook) = alarm(config, &metrics)?;
        let (stop_management, stop) = watch::channel(false);
        let management = Port { listener: management_listener, limits: management_limits(config), stop };
        let management_service = Management::new(
            Arc::clone(&repository),
            rollouts.as_ref().map(|(rollouts, _)| rollouts.clone()),
            Arc::clone(&metrics),
            Arc::clone(&stopping),
            retraining.clone(),
            config.http,
        );
        let upkeep = Upkeep {
            repository: Arc::clone(&repository),
            metrics: Arc::clone(&metrics),
            live: Arc::clone(&live),
            intake: intake.clone(),
            alarm,
            retrain: retraining,
        };
        let management = manage(management, management_service, upkeep)?;
        let (stop_serving, stop) = watch::channel(false);
        let port = Port { listener, limits: limits(config), stop };
        let service = Serving::new(
            Arc::clone(&repository),
            Arc::clone(&metrics),
            keys.map(Issuer::new),
            intake,
            live,
            sampler,
            config.http,
        );
        let workers = Workers::start(worker_threads(config)).map_err(StartError::Thread)?;
        let accept = serve(port, service, metrics, workers.spawner())?;
        Ok(Self {
            address,
            management_address,
            repository,
            stopping,
            shutdown_delay: config.shutdown_delay,
            workers,
            accept,
            stop_serving,
            stop_management,
            management,
            rollouts,
            watcher,
            reaper,
            drift,
            exporter,
            webhook,
            retrain,
        })
    }

    /// The address of the serving port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the management port.
    pub fn management_address(&self) -> SocketAddr {
        self.management_address
    }

    /// Stops the server: it is not ready from now on, its serving port closes after the shutdown delay, requests in
    /// flight are answered within the drain timeout, and everything that was started ends. Returns whether every
    /// request was answered. Blocks, also for as long as a version that is being loaded takes.
    pub fn stop(self) -> bool {
        self.stopping.set();
        self.repository.stop();
        thread::sleep(self.shutdown_delay);
        self.stop_serving.send_replace(true);
        let drained = self.accept.join().unwrap_or(false);
        // Whatever did not finish in time is dropped with its connection.
        self.workers.stop();
        self.stop_management.send_replace(true);
        // These threads end when the last handle of what they work for is gone; the order is that of the handles.
        join(self.management);
        if let Some((rollouts, thread)) = self.rollouts {
            drop(rollouts);
            join(thread);
        }
        if let Some(webhook) = self.webhook {
            join(webhook);
        }
        if let Some((retrain, thread)) = self.retrain {
            drop(retrain);
            join(thread);
        }
        drop(self.repository);
        join(self.watcher);
        join(self.reaper);
        join(self.drift);
        drop(self.exporter);
        tracing::info!(drained, "stopped");
        drained
    }
}

/// A bound port that is not served yet.
struct Port {
    listener: TcpListener,
    limits: ConnectionLimits,
    stop: watch::Receiver<bool>,
}

impl Port {
    /// The connections of this port and what ends them. To be called within a runtime.
    fn open(
        self,
        spawner: Spawner,
        metrics: Option<Arc<Metrics>>,
    ) -> io::Result<(Connections, impl Future<Output = ()>)> {
        let Self { listener, limits, mut stop } = self;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let stopped = async move {
            // A sender that is gone has nothing more to say, which ends the port as well.
            let _ = stop.wait_for(|&stop| stop).await;
        };
        Ok((Connections::new(listener, limits, spawner, metrics), stopped))
    }
}

/// Accepts the connections of the serving port on a thread of its own, for workers to serve.
fn serve(
    port: Port,
    service: Serving,
    metrics: Arc<Metrics>,
    spawner: Spawner,
) -> Result<JoinHandle<bool>, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let entered = runtime.enter();
    let (connections, stopped) = port.open(spawner, Some(metrics)).map_err(StartError::Thread)?;
    drop(entered);
    let service = Arc::new(service);
    let answer = move |request| {
        let service = Arc::clone(&service);
        async move { service.answer(request).await }
    };
    spawn("accept", move || runtime.block_on(connections.serve(answer, stopped)))
}

/// Serves the management port, and looks after the metrics, on a thread of its own.
fn manage(port: Port, service: Management, mut upkeep: Upkeep) -> Result<JoinHandle<()>, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let entered = runtime.enter();
    let (connections, stopped) = port.open(Spawner::here(), None).map_err(StartError::Thread)?;
    drop(entered);
    spawn("management", move || {
        let service = Arc::new(service);
        let answer = move |request| {
            let service = Arc::clone(&service);
            async move { service.answer(request).await }
        };
        runtime.block_on(async move {
            tokio::select! {
                _ = connections.serve(answer, stopped) => {}
                () = upkeep.run() => {}
            }
        });
    })
}

/// What is looked after once a second, and who does it.
struct Upkeep {
    repository: Arc<Repository>,
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    intake: Option<Arc<Intake>>,
    alarm: Alarm,
    retrain: Option<Retrain>,
}

impl Upkeep {
    /// Looks after the metrics and the alerts, forever.
    async fn run(&mut self) {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.metrics.upkeep();
            self.live.export(&self.metrics, now());
            if let Some(intake) = &self.intake {
                intake.export(&self.metrics);
            }
            self.look();
        }
    }

    /// Holds every model against its alert, and has those retrained that ask for it.
    fn look(&mut self) {
        // Before the first look at the repository nobody knows which models there are.
        let Some(models) = self.repository.status() else { return };
        let current = models.iter().map(|status| (status.model.as_str(), status.current.map(u64::from)));
        let current: Vec<(&str, Option<u64>)> = current.collect();
        let asking = self.alarm.look(&current, &self.live, &self.metrics, now());
        let Some(retrain) = &self.retrain else { return };
        let asks = |status: &&ModelStatus| asking.iter().any(|model| model == status.model.as_str());
        models.iter().filter(asks).for_each(|status| retrain.alerted(status.model.clone()));
    }
}

/// The alerts of the configuration, and the thread that tells others of them, where there is anybody to tell.
fn alarm(config: &Config, metrics: &Arc<Metrics>) -> Result<(Alarm, Option<JoinHandle<()>>), StartError> {
    let models = config.models.iter();
    let options: BTreeMap<_, _> =
        models.map(|(model, options)| (model.as_str().to_owned(), options.alert.clone())).collect();
    let defaults = config.defaults.alert.clone();
    let tells = options.values().chain([&defaults]).flatten().any(|alert| alert.webhook.is_some());
    if !tells {
        return Ok((Alarm::new(defaults, options, None), None));
    }
    let (webhook, thread) = Webhook::new(Arc::clone(metrics));
    let thread = spawn("webhook", move || thread.run())?;
    Ok((Alarm::new(defaults, options, Some(webhook)), Some(thread)))
}

/// Who retrains models, and the thread of that, where the configuration has any of it.
fn retrain(
    config: &Config,
    repository: &Arc<Repository>,
    exporter: Option<Arc<Exporter>>,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Retrain, JoinHandle<()>)>, StartError> {
    let models = config.models.iter();
    let options = retrain::Options {
        defaults: config.defaults.retrain.clone(),
        models: models.map(|(model, options)| (model.clone(), options.retrain.clone())).collect(),
        token: config.retrain_token.as_deref().map(Token::read).transpose()?,
    };
    let Some(folder) = config.retrain_dir.clone().filter(|_| !options.are_none()) else { return Ok(None) };
    let around = Surroundings { repository: Arc::clone(repository), exporter, metrics: Arc::clone(metrics) };
    let opened = Retrain::new(options, folder.clone(), around);
    let (retrain, thread) = opened.map_err(|source| StartError::Retrain { path: folder, source })?;
    Ok(Some((retrain, spawn("retrain", move || thread.run())?)))
}

/// Who decides about versions that are tried, and the thread of it; nobody where there are no journals.
fn rollouts(
    config: &Config,
    journals: Option<Journals>,
    repository: &Arc<Repository>,
    live: &Arc<Live>,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Rollouts, JoinHandle<()>)>, StartError> {
    let Some(journals) = journals else { return Ok(None) };
    let (repository, live, metrics) = (Arc::clone(repository), Arc::clone(live), Arc::clone(metrics));
    let (rollouts, conductor) = Conductor::new(config, journals, repository, live, metrics);
    let thread = spawn("rollout", move || conductor.run())?;
    Ok(Some((rollouts, thread)))
}

/// What judges the answers of this server.
fn live(config: &Config) -> Result<Live, WindowFault> {
    let models = config.models.iter();
    let options = models.map(|(model, options)| (model.as_str().to_owned(), options.quality)).collect();
    Live::new(config.defaults.quality, options, now())
}

/// The time since 1970.
fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// A repository that is not there is a mistake of whoever starts the server; one that goes away later may come back.
fn check_models(config: &Config) -> Result<(), StartError> {
    let path = &config.models_dir;
    let listed = Layout::new(path).models();
    listed.map(drop).map_err(|source| StartError::Models { path: path.clone(), source })
}

/// One worker a core, unless somebody says otherwise.
fn worker_threads(config: &Config) -> NonZeroUsize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    config.worker_threads.unwrap_or_else(cores)
}

fn limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits {
        max_connections: config.http.max_connections,
        max_header_bytes: config.http.max_header_bytes,
        header_read_timeout: config.http.header_read_timeout,
        drain_timeout: config.drain_timeout,
    }
}

/// The management port drains what is short: by the time that it closes, nobody should ask any more.
fn management_limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits { drain_timeout: MANAGEMENT_DRAIN, ..limits(config) }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|source| StartError::Listen { address, source })
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(StartError::Thread)
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread ended with a panic");
    }
}

/// How often samples are moved into their buckets and retired series looked for.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

const MANAGEMENT_DRAIN: Duration = Duration::from_secs(1);
