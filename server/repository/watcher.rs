//! Keeps what is live in step with what is in the repository and with what operators ask for.
//!
//! One thread does all of it, one step after the other: it looks at the folders every so often, and at once when an
//! operator asks; the policy plans, the loader loads, the slots are swapped. A version that failed is not tried again
//! until its manifest changes or an operator asks for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    Beside, Candidate, Live, Loader, ModelName, Observed, Plan, Slots, Standing, Trial, Version,
    VersionNumber, manifest::Manifest,
};
use crate::config::Config;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Look at the repository now, serve the model again if it was unloaded, and try failed versions again.
    Load,
    /// Stop serving the model until it is loaded again.
    Unload,
    /// Answer with the newest version that is older than the current one, until told otherwise.
    Rollback,
    /// Answer with this version until told otherwise; with `None`, follow the policy again.
    Promote(Option<VersionNumber>),
    /// Go by what rollouts have come to.
    Settle(Standing),
}

/// Why an operator did not get what was asked for. Nothing changed, unless it says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Neither the repository nor the server knows the model.
    #[error("there is no model of this name in the repository")]
    NoModel,
    /// The version is not in the repository.
    #[error("there is no version {0} of the model in the repository")]
    NoVersion(VersionNumber),
    /// There is nothing to go back to.
    #[error("there is no older version to go back to")]
    NothingOlder,
    /// The version was tried and refused.
    #[error("version {version} cannot serve: {reason}")]
    Load {
        /// The version.
        version: VersionNumber,
        /// Why.
        reason: String,
    },
    /// As many requests wait for the watcher as may.
    #[error("too many requests wait for the repository: it may be loading a version")]
    Busy,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// A model as the management port and `millrace repo` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// The model.
    pub model: ModelName,
    /// The version that answers.
    pub current: Option<VersionNumber>,
    /// The version that is being tried beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<VersionNumber>,
    /// The version that an operator wants to answer.
    pub pinned: Option<VersionNumber>,
    /// Whether an operator wants the model not to be served.
    pub unloaded: bool,
    /// Every version that is in the repository or loaded, oldest first.
    pub versions: Vec<VersionStatus>,
}

/// A version as the management port and `millrace repo` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// The version.
    pub version: VersionNumber,
    /// Whether it is loaded.
    pub state: VersionState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether a version is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// In the repository, and not wanted by the policy.
    Available,
    /// Loaded.
    Ready,
    /// Tried and refused.
    Failed,
    /// Rolled back or aborted by a rollout.
    RolledBack,
}

impl VersionState {
    /// The state's name, as the management port writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// The repository as the rest of the server sees it.
pub struct Repository {
    slots: Arc<Slots>,
    status: Arc<ArcSwap<Option<Vec<ModelStatus>>>>,
    orders: Sender<Order>,
    stopping: Arc<AtomicBool>,
}

impl Repository {
    /// The repository of `config`, and the watcher that somebody has to run on a thread of its own. Rollouts have come to
    /// `standings` so far.
    pub fn new(config: &Config, loader: Loader, standings: BTreeMap<ModelName, Standing>) -> (Self, Watcher) {
        let (sender, receiver) = bounded(PENDING_ORDERS);
        let slots = Arc::new(Slots::default());
        let status = Arc::new(ArcSwap::from_pointee(None));
        let stopping = Arc::new(AtomicBool::new(false));
        let watcher = Watcher {
            loader,
            stopping: Arc::clone(&stopping),
            slots: Arc::clone(&slots),
            status: Arc::clone(&status),
            orders: receiver,
            config: config.clone(),
            models: BTreeMap::new(),
            standings,
        };
        (Self { slots, status, orders: sender, stopping }, watcher)
    }

    /// Lets the watcher finish the version that it is loading and load no other. What is live stays live.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// What is live of `model`.
    pub fn live(&self, model: &str) -> Option<Arc<Live>> {
        self.slots.get(model)
    }

    /// Every model; `None` until the repository was looked at for the first time.
    pub fn status(&self) -> Option<Vec<ModelStatus>> {
        self.status.load().as_ref().clone()
    }

    /// Asks for a change and waits until it is done.
    pub async fn request(&self, model: ModelName, request: Request) -> Result<ModelStatus, RequestError> {
        self.order(model, request)?.await.map_err(|_| RequestError::Stopping)?
    }

    /// Asks for a change that whoever asks need not wait for.
    pub fn order(
        &self,
        model: ModelName,
        request: Request,
    ) -> Result<oneshot::Receiver<Obeyed>, RequestError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.orders.try_send(Order { model, request, reply });
        sent.map(|()| answer).map_err(|error| match error {
            TrySendError::Full(_) => RequestError::Busy,
            TrySendError::Disconnected(_) => RequestError::Stopping,
        })
    }
}

/// Orders that may wait for the watcher; operators are few, and a load can take minutes.
const PENDING_ORDERS: usize = 64;

struct Order {
    model: ModelName,
    request: Request,
    reply: oneshot::Sender<Obeyed>,
}

/// What became of an order.
pub type Obeyed = Result<ModelStatus, RequestError>;

/// The thread behind a [`Repository`].
pub struct Watcher {
    loader: Loader,
    slots: Arc<Slots>,
    status: Arc<ArcSwap<Option<Vec<ModelStatus>>>>,
    orders: Receiver<Order>,
    stopping: Arc<AtomicBool>,
    config: Config,
    models: BTreeMap<ModelName, ModelState>,
    /// Of models that have been rolled out. They outlast what the watcher knows of a model, whose folder may come back.
    standings: BTreeMap<ModelName, Standing>,
}

/// What the watcher knows of a model.
#[derive(Default)]
struct ModelState {
    /// Oldest first.
    loaded: Vec<Arc<Version>>,
    on_disk: Vec<VersionNumber>,
    failed: BTreeMap<VersionNumber, Failure>,
    pinned: Option<VersionNumber>,
    current: Option<VersionNumber>,
    trial: Option<Arc<Trial>>,
    unloaded: bool,
}

struct Failure {
    reason: String,
    /// When the manifest was last written, as far as that can be told.
    manifest: Option<SystemTime>,
}

impl Watcher {
    /// Watches until every [`Repository`] handle is gone.
    pub fn run(mut self) {
        loop {
            self.scan();
            match self.orders.recv_timeout(self.config.poll_interval) {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Brings every model in step with the repository.
    fn scan(&mut self) {
        let found = match self.loader.layout.models() {
            Ok(found) => found,
            Err(error) => {
                // What is live stays live: a folder that cannot be read now may be back at the next look.
                tracing::warn!(%error, "the model repository cannot be read");
                Vec::new()
            }
        };
        let known: BTreeSet<ModelName> = self.models.keys().cloned().chain(found).collect();
        for model in known {
            self.follow(&model);
        }
        self.publish_status();
    }

    /// Brings one model in step with the repository.
    fn follow(&mut self, model: &ModelName) {
        let mut state = self.models.remove(model).unwrap_or_default();
        match self.loader.layout.versions(model) {
            Ok(on_disk) => state.on_disk = on_disk,
            Err(error) => tracing::warn!(%model, %error, "the model's folder cannot be read"),
        }
        self.forget_changed_failures(model, &mut state);
        if state.unloaded {
            self.unload(model, &mut state);
        } else {
            self.follow_plan(model, &mut state);
        }
        if !state.is_forgotten() {
            self.models.insert(model.clone(), state);
        }
    }

    /// Takes the policy's steps one by one until it plans nothing more.
    fn follow_plan(&mut self, model: &ModelName, state: &mut ModelState) {
        loop {
            let plan = self.plan(model, state);
            let next = plan.load.first().copied();
            self.make_live(model, state, &plan);
            let Some(version) = next.filter(|_| !self.stopping.load(Ordering::Relaxed)) else { return };
            // A refusal is remembered, so the next plan does without the version.
            drop(self.load(model, state, version));
        }
    }

    fn plan(&self, model: &ModelName, state: &ModelState) -> Plan {
        let loaded: Vec<_> = state.loaded.iter().map(|version| version.number()).collect();
        let failed: Vec<_> = state.failed.keys().copied().collect();
        let options = self.config.model(model);
        let nothing = Standing::default();
        let standing = options.rollout.map(|_| self.standings.get(model).unwrap_or(&nothing));
        let (on_disk, pinned) = (state.on_disk.as_slice(), state.pinned);
        options.policy.plan(Observed { on_disk, loaded: &loaded, failed: &failed, pinned, standing })
    }

    /// The trial of the version that the plan says: the one that is under way where it is of the same, else one that begins now.
    fn trial(&self, model: &ModelName, state: &ModelState, plan: &Plan) -> Option<Arc<Trial>> {
        let version = state.loaded.iter().find(|version| Some(version.number()) == plan.candidate)?;
        let entry = self.config.model(model).rollout?;
        let entering = Candidate { version: version.number(), stage: entry.stage, share: entry.share };
        let known = self.standings.get(model).and_then(|standing| standing.candidate);
        let candidate = known.filter(|known| known.version == version.number()).unwrap_or(entering);
        let same = |trial: &&Arc<Trial>| {
            trial.candidate == candidate
                && Arc::ptr_eq(&trial.version, version)
                && state.current == plan.current
        };
        let under_way = state.trial.as_ref().filter(same).map(Arc::clone);
        Some(under_way.unwrap_or_else(|| Arc::new(Trial::new(candidate, Arc::clone(version)))))
    }

    /// Loads a version, or remembers why it cannot serve.
    fn load(
        &self,
        model: &ModelName,
        state: &mut ModelState,
        version: VersionNumber,
    ) -> Result<(), RequestError> {
        // Taken before the version is read, so that whatever is put right during the load counts as a change.
        let manifest = self.manifest_time(model, version);
        let answers = state.current.is_some() || self.models.values().any(|model| model.current.is_some());
        let beside = if answers && self.status.load().is_some() {
            Beside::Requests { stopping: &self.stopping }
        } else {
            Beside::Nothing
        };
        match self.loader.load(model, version, self.config.model(model), beside) {
            Ok(loaded) => {
                state.insert(loaded);
                Ok(())
            }
            Err(error) => {
                let reason = with_sources(&error);
                tracing::error!(%model, %version, reason, "a version cannot serve");
                state.failed.insert(version, Failure { reason: reason.clone(), manifest });
                Err(RequestError::Load { version, reason })
            }
        }
    }

    /// Lets go of the versions that the plan unloads and makes its current version the one that answers.
    fn make_live(&mut self, model: &ModelName, state: &mut ModelState, plan: &Plan) {
        let before = state.current;
        let trial = self.trial(model, state, plan);
        state.loaded.retain(|version| !plan.unload.contains(&version.number()));
        let Some(current) = state.loaded.iter().find(|version| Some(version.number()) == plan.current) else {
            return;
        };
        state.current = plan.current;
        state.trial.clone_from(&trial);
        if self.config.model(model).rollout.is_some() {
            // The first version that answers is stable; what comes after it is tried, before anybody has had time to say so.
            self.standings.entry(model.clone()).or_default().stable.get_or_insert(current.number());
        }
        let live = Live {
            current: Arc::clone(current),
            loaded: state.loaded.clone(),
            trial,
            is_pinned: state.pinned.is_some(),
        };
        let unchanged = self.slots.get(model.as_str()).is_some_and(|now| {
            Arc::ptr_eq(&now.current, &live.current)
                && now.is_pinned == live.is_pinned
                && same_versions(&now.loaded, &live.loaded)
                && now.trial.as_ref().map(Arc::as_ptr) == live.trial.as_ref().map(Arc::as_ptr)
        });
        if unchanged {
            return;
        }
        let duration = self.slots.swap(model, live);
        let metrics = &self.loader.metrics;
        if before != state.current {
            metrics.swapped(model.as_str(), duration);
            metrics.current_version(model.as_str(), state.current.map_or(0, u64::from));
            let previous = before.map_or(0, u64::from);
            tracing::info!(%model, version = state.current.map_or(0, u64::from), previous, "live");
        }
    }

    fn unload(&self, model: &ModelName, state: &mut ModelState) {
        if state.current.take().is_some() {
            self.slots.remove(model);
            self.loader.metrics.current_version(model.as_str(), 0);
            tracing::info!(%model, "unloaded");
        }
        state.loaded.clear();
        state.trial = None;
    }

    fn forget_changed_failures(&self, model: &ModelName, state: &mut ModelState) {
        let on_disk = &state.on_disk;
        state.failed.retain(|version, failure| {
            on_disk.contains(version) && failure.manifest == self.manifest_time(model, *version)
        });
    }

    fn manifest_time(&self, model: &ModelName, version: VersionNumber) -> Option<SystemTime> {
        let path = self.loader.layout.version(model, version).join(Manifest::FILE);
        path.metadata().and_then(|metadata| metadata.modified()).ok()
    }

    fn publish_status(&self) {
        let status = self.models.iter().map(|(model, state)| self.status_of(model, state)).collect();
        self.status.store(Arc::new(Some(status)));
    }

    fn status_of(&self, model: &ModelName, state: &ModelState) -> ModelStatus {
        let mut status = state.status(model);
        if let Some(standing) = self.standings.get(model) {
            let refused =
                status.versions.iter_mut().filter(|known| standing.refused.contains(&known.version));
            for known in refused.filter(|known| known.state == VersionState::Available) {
                known.state = VersionState::RolledBack;
            }
        }
        status
    }

    fn obey(&mut self, order: Order) {
        let result = self.carry_out(&order.model, &order.request);
        self.publish_status();
        // Whoever asked may have gone away; what was asked for is done all the same.
        drop(order.reply.send(result));
    }

    fn carry_out(&mut self, model: &ModelName, request: &Request) -> Result<ModelStatus, RequestError> {
        if let Request::Settle(standing) = request {
            // Also for a model whose folder is away, and may come back.
            self.standings.insert(model.clone(), standing.clone());
        }
        let on_disk = self.loader.layout.versions(model).unwrap_or_default();
        if on_disk.is_empty() && !self.models.contains_key(model) {
            return Err(RequestError::NoModel);
        }
        let mut state = self.models.remove(model).unwrap_or_default();
        let result = self.change(model, &mut state, request, &on_disk);
        self.models.insert(model.clone(), state);
        result?;
        self.follow(model);
        self.answer(model, request)
    }

    /// Changes what is wanted of a model.
    fn change(
        &mut self,
        model: &ModelName,
        state: &mut ModelState,
        request: &Request,
        on_disk: &[VersionNumber],
    ) -> Result<(), RequestError> {
        match request {
            Request::Load => {
                state.unloaded = false;
                state.failed.clear();
            }
            Request::Unload => state.unloaded = true,
            Request::Rollback => {
                let nothing = Standing::default();
                let standing = self.standings.get(model).unwrap_or(&nothing);
                let is_good = |version: &VersionNumber| !standing.refused.contains(version);
                let good: Vec<_> = on_disk.iter().copied().filter(is_good).collect();
                let older = state.older(&good).ok_or(RequestError::NothingOlder)?;
                self.pin(model, state, older)?;
            }
            Request::Promote(Some(version)) if on_disk.contains(version) => {
                self.pin(model, state, *version)?;
            }
            Request::Promote(Some(version)) => return Err(RequestError::NoVersion(*version)),
            Request::Promote(None) => state.pinned = None,
            // Done before: the standing is of the model, and not of what is loaded of it.
            Request::Settle(_) => {}
        }
        Ok(())
    }

    /// Pins a version once it is loaded: until then, and for good where it is refused, the version that was pinned
    /// before answers, and not one that somebody may have rolled back from.
    fn pin(
        &self,
        model: &ModelName,
        state: &mut ModelState,
        version: VersionNumber,
    ) -> Result<(), RequestError> {
        if !state.has_loaded(version) {
            state.failed.remove(&version);
            self.load(model, state, version)?;
        }
        state.unloaded = false;
        state.pinned = Some(version);
        Ok(())
    }

    /// What to tell the operator once the request was followed: the new status, or what failed.
    fn answer(&self, model: &ModelName, request: &Request) -> Result<ModelStatus, RequestError> {
        let Some(state) = self.models.get(model) else {
            // A model that is unloaded and has no versions any more is forgotten at once.
            return Ok(ModelState { unloaded: true, ..ModelState::default() }.status(model));
        };
        // A load is about the newest version.
        let newest = state.on_disk.last().filter(|_| *request == Request::Load);
        match newest.and_then(|version| Some((*version, state.failed.get(version)?))) {
            Some((version, failure)) => Err(RequestError::Load { version, reason: failure.reason.clone() }),
            None => Ok(self.status_of(model, state)),
        }
    }
}

impl ModelState {
    fn insert(&mut self, version: Version) {
        self.loaded.push(Arc::new(version));
        self.loaded.sort_unstable_by_key(|version| version.number());
    }

    fn has_loaded(&self, version: VersionNumber) -> bool {
        self.loaded.iter().any(|loaded| loaded.number() == version)
    }

    /// The newest version below the current one that did not fail.
    fn older(&self, on_disk: &[VersionNumber]) -> Option<VersionNumber> {
        let current = self.current?;
        let usable = |version: &VersionNumber| *version < current && !self.failed.contains_key(version);
        on_disk.iter().copied().filter(usable).max()
    }

    /// Whether nothing is left to be known of the model.
    fn is_forgotten(&self) -> bool {
        self.loaded.is_empty() && self.on_disk.is_empty()
    }

    fn status(&self, model: &ModelName) -> ModelStatus {
        let loaded = self.loaded.iter().map(|version| version.number());
        let all: BTreeSet<VersionNumber> = self.on_disk.iter().copied().chain(loaded).collect();
        let status = |version| {
            let failure = self.failed.get(&version);
            let state = match failure {
                _ if self.has_loaded(version) => VersionState::Ready,
                Some(_) => VersionState::Failed,
                None => VersionState::Available,
            };
            VersionStatus { version, state, reason: failure.map(|failure| failure.reason.clone()) }
        };
        ModelStatus {
            model: model.clone(),
            current: self.current,
            candidate: self.trial.as_ref().map(|trial| trial.candidate.version),
            pinned: self.pinned,
            unloaded: self.unloaded,
            versions: all.into_iter().map(status).collect(),
        }
    }
}

fn same_versions(one: &[Arc<Version>], other: &[Arc<Version>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// An error with everything that it was caused by, on one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
