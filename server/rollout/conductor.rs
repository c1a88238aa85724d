//! The thread that decides about versions that are tried. Every so often it looks at each model: it writes down who has begun to
//! be tried, gathers the evidence, asks the rules, and tells the repository what has come of it. Operators' wishes come to the
//! same thread, so decisions are taken one after the other.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{
    By, Copied, Course, Entry, Event, Evidence, Journal, JournalError, Journals, RolloutOptions, Verdict,
};
use crate::{
    config::Config,
    feedback::Live,
    metrics::Metrics,
    repository::{
        self, Candidate, ModelName, ModelStatus, Repository, RequestError, Share, Standing, Trial,
        TrialStage, VersionNumber, VersionState, VersionStatus,
    },
};

/// What an operator wishes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wish {
    /// Try this version.
    Start {
        /// The version.
        version: VersionNumber,
        /// How; as new versions enter where `None`.
        stage: Option<TrialStage>,
        /// With which share; as new versions where `None`.
        share: Option<Share>,
    },
    /// Make the version that is tried the stable one.
    Promote,
    /// Try it no longer.
    Abort,
}

/// Why an operator did not get what was wished for. Nothing changed, unless it says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// Versions of the model enter at once, or there is no such model.
    #[error("the model has no rollouts: nothing of it is served, or its versions enter at once")]
    NoRollout,
    /// The version is not in the repository.
    #[error("there is no version {0} of the model in the repository")]
    NoVersion(VersionNumber),
    /// The version is the stable one.
    #[error("version {0} is stable already")]
    IsStable(VersionNumber),
    /// There is another one.
    #[error("version {0} is being tried: promote or abort it first")]
    IsTried(VersionNumber),
    /// There is none.
    #[error("no version is being tried")]
    NotTried,
    /// An operator has pinned a version.
    #[error("version {0} is pinned: `millrace repo promote MODEL` lets it go")]
    Pinned(VersionNumber),
    /// The version cannot be loaded.
    #[error("version {version} cannot be tried: {reason}")]
    Load {
        /// The version.
        version: VersionNumber,
        /// Why.
        reason: String,
    },
    /// It could not be written down.
    #[error("the journal cannot be written")]
    Journal(#[source] JournalError),
    /// The repository did not follow.
    #[error(transparent)]
    Repository(#[from] RequestError),
    /// As many wishes wait as may.
    #[error("too many requests wait for rollouts")]
    Busy,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// A model's rollout as the management port and `millrace rollout` show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// The model.
    pub model: ModelName,
    /// The version that answers whoever is not part of a trial.
    pub stable: Option<VersionNumber>,
    /// The version that is tried.
    pub candidate: Option<Tried>,
    /// Versions that are not tried again by themselves.
    pub refused: Vec<VersionNumber>,
    /// The last decision, since the server started.
    pub last: Option<Entry>,
}

/// A version that is tried, as the management port shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The version.
    pub version: VersionNumber,
    /// How it is tried.
    pub stage: TrialStage,
    /// With which share of requests.
    pub share: Share,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// What the decision waits for.
    pub waiting: Option<String>,
    /// What is known.
    pub evidence: Option<Evidence>,
}

/// The rollouts of a server, to be looked at and to be told what operators wish.
#[derive(Clone)]
pub struct Rollouts {
    orders: Sender<Order>,
    status: Arc<ArcSwap<BTreeMap<ModelName, RolloutStatus>>>,
}

struct Order {
    model: ModelName,
    wish: Wish,
    reply: oneshot::Sender<Result<RolloutStatus, OrderError>>,
}

/// Wishes that may wait; operators are few.
const PENDING_ORDERS: usize = 16;

/// How often trials are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

impl Rollouts {
    /// How the rollout of `model` stands; `None` where it has none.
    pub fn status(&self, model: &str) -> Option<RolloutStatus> {
        self.status.load().iter().find(|(known, _)| known.as_str() == model).map(|(_, status)| status.clone())
    }

    /// Carries out a wish, and says how the rollout stands then.
    pub async fn wish(&self, model: ModelName, wish: Wish) -> Result<RolloutStatus, OrderError> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send(Order { model, wish, reply }).map_err(|error| match error {
            TrySendError::Full(_) => OrderError::Busy,
            TrySendError::Disconnected(_) => OrderError::Stopping,
        })?;
        answer.await.map_err(|_| OrderError::Stopping)?
    }
}

/// The thread behind [`Rollouts`].
pub struct Conductor {
    config: Config,
    repository: Arc<Repository>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    journals: Journals,
    models: BTreeMap<ModelName, Model>,
    orders: Receiver<Order>,
    status: Arc<ArcSwap<BTreeMap<ModelName, RolloutStatus>>>,
}

/// What the conductor knows of a model.
struct Model {
    journal: Journal,
    course: Course,
    /// Whether the repository goes by what the course has come to.
    is_settled: bool,
    last: Option<Entry>,
    seen: Option<(Evidence, Verdict)>,
}

impl Conductor {
    /// Decides about the models of `repository` that have rollouts, by the labels in `live`, and writes into `journals`. Somebody
    /// has to run it on a thread of its own.
    pub fn new(
        config: &Config,
        journals: Journals,
        repository: Arc<Repository>,
        live: Arc<Live>,
        metrics: Arc<Metrics>,
    ) -> (Rollouts, Self) {
        let (sender, orders) = bounded(PENDING_ORDERS);
        let status = Arc::new(ArcSwap::default());
        let models = BTreeMap::new();
        let handle = Rollouts { orders: sender, status: Arc::clone(&status) };
        let config = config.clone();
        let mut conductor = Self { config, repository, live, metrics, journals, models, orders, status };
        for model in conductor.journals.models() {
            if conductor.config.model(&model).rollout.is_some() {
                conductor.model(&model).expect("it is open");
            }
        }
        conductor.publish_status();
        (handle, conductor)
    }

    /// Decides until every [`Rollouts`] is gone.
    pub fn run(mut self) {
        loop {
            match self.orders.recv_timeout(INTERVAL) {
                Ok(Order { model, wish, reply }) => {
                    let done = self.obey(&model, wish).map(|()| self.models[&model].status(&model));
                    self.publish_status();
                    // Whoever asked may have gone away; what was asked for is done all the same.
                    drop(reply.send(done));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look();
            self.publish_status();
        }
    }

    /// Looks at every model that has rollouts.
    fn look(&mut self) {
        for known in self.repository.status().unwrap_or_default() {
            let Some(options) = self.config.model(&known.model).rollout else { continue };
            if let Err(error) = self.follow(&known, &options) {
                tracing::error!(model = %known.model, error = &error as &dyn std::error::Error, "a rollout is held up");
            }
        }
    }

    /// Writes down what has become of a model since the last look, and decides about the version that is tried.
    fn follow(&mut self, known: &ModelStatus, options: &RolloutOptions) -> Result<(), OrderError> {
        let name = &known.model;
        self.settle(name)?;
        let Some(live) = self.repository.live(name.as_str()) else { return Ok(()) };
        let current = live.current.number();
        let standing = &self.model(name)?.course.standing;
        let (stable, tried) = (standing.stable, standing.candidate);
        if stable.is_none() || (stable != Some(current) && !live.is_pinned) {
            let reason = stable.map_or_else(
                || "it is the first".to_owned(),
                |stable| format!("version {stable} cannot be loaded any more"),
            );
            return self.write(name, current, Event::Stable, None, reason);
        }
        let trying = live.trial.as_ref().map(|trial| trial.candidate);
        match (tried, trying) {
            (Some(tried), None) => {
                let reason = why_gone(known, tried.version, live.is_pinned);
                self.write(name, tried.version, Event::Withdrawn, None, reason)?;
            }
            (Some(tried), Some(trying)) if tried.version != trying.version => {
                let reason = format!("version {} has come", trying.version);
                self.write(name, tried.version, Event::Withdrawn, None, reason)?;
            }
            (None, Some(trying)) => {
                self.write(name, trying.version, Event::Entered, Some(trying), "it is new".into())?;
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        match live.trial.as_ref().filter(|_| tried == trying) {
            Some(trial) => self.decide(name, current, trial, options),
            None => Ok(()),
        }
    }

    /// Acts on what the rules say of a version that is tried.
    fn decide(
        &mut self,
        name: &ModelName,
        stable: VersionNumber,
        trial: &Arc<Trial>,
        options: &RolloutOptions,
    ) -> Result<(), OrderError> {
        let evidence = self.evidence(name, stable, trial, options)?;
        let verdict = options.rules.judge(&evidence);
        let candidate = trial.candidate;
        self.model(name)?.seen = Some((evidence, verdict));
        let canary = Candidate { stage: TrialStage::Canary, ..candidate };
        match verdict {
            Verdict::Wait(_) => Ok(()),
            Verdict::Advance => self.write(
                name,
                candidate.version,
                Event::Advanced,
                Some(canary),
                "it fails no more often and is no slower".into(),
            ),
            Verdict::Promote => {
                self.write(name, candidate.version, Event::Promoted, None, "it is not worse".into())
            }
            Verdict::RollBack(fault) => {
                // Before anything that takes time: nobody else is to get it.
                trial.halt();
                self.write(name, candidate.version, Event::RolledBack, None, format!("it {fault}"))
            }
        }
    }

    fn evidence(
        &mut self,
        name: &ModelName,
        stable: VersionNumber,
        trial: &Trial,
        options: &RolloutOptions,
    ) -> Result<Evidence, OrderError> {
        let since = self.model(name)?.course.since.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let since = Duration::try_from(since - OffsetDateTime::UNIX_EPOCH).unwrap_or_default();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let judged = |version: VersionNumber| {
            self.live.mature_since(name.as_str(), version.into(), since, now).map(|judged| judged.scores)
        };
        let labels = [judged(stable), judged(trial.candidate.version)];
        let tallies = [trial.stable.read(), trial.tried.read()];
        let sides = [0, 1].map(|side| (&tallies[side], labels[side].as_ref()));
        let age = now.saturating_sub(since);
        let copied = (trial.candidate.stage == TrialStage::Shadow).then(|| Copied {
            rows: trial.copies.rows(),
            dropped: trial.copies.dropped(),
            distance: trial.copies.mean_distance(),
        });
        Ok(Evidence::new(&options.rules, (trial.candidate.stage, age), sides, copied))
    }

    /// Writes down what has become of a version, and has the repository go by it.
    fn write(
        &mut self,
        name: &ModelName,
        version: VersionNumber,
        event: Event,
        candidate: Option<Candidate>,
        reason: String,
    ) -> Result<(), OrderError> {
        self.write_by(By::Millrace, name, version, event, candidate, reason)
    }

    fn write_by(
        &mut self,
        by: By,
        name: &ModelName,
        version: VersionNumber,
        event: Event,
        candidate: Option<Candidate>,
        reason: String,
    ) -> Result<(), OrderError> {
        let model = self.model(name)?;
        let seen = model.seen.take().filter(|_| model.course.standing.candidate.is_some());
        let entry = Entry {
            time: OffsetDateTime::now_utc(),
            model: name.clone(),
            event,
            version,
            stable: model.course.standing.stable,
            by,
            reason,
            stage: candidate.map(|candidate| candidate.stage),
            share: candidate.map(|candidate| candidate.share),
            evidence: seen.map(|(evidence, _)| evidence),
        };
        model.journal.append(&entry).map_err(OrderError::Journal)?;
        model.course.follow(&entry);
        model.is_settled = false;
        tracing::info!(model = %name, %version, event = event.name(), reason = entry.reason, "rollout");
        model.last = Some(entry);
        self.metrics.rollout_event(name.as_str(), event.name());
        self.settle(name)
    }

    /// Has the repository go by what the model's course has come to, unless it does.
    fn settle(&mut self, name: &ModelName) -> Result<(), OrderError> {
        let model = self.model(name)?;
        if model.is_settled {
            return Ok(());
        }
        let standing = model.course.standing.clone();
        match self.repository.request_blocking(name.clone(), repository::Request::Settle(standing)) {
            // A model that is gone has nothing to settle.
            Ok(_) | Err(RequestError::NoModel) => self.model(name)?.is_settled = true,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What is known of a model; its journal is opened, or begins, with the first look at it.
    fn model(&mut self, name: &ModelName) -> Result<&mut Model, OrderError> {
        if !self.models.contains_key(name) {
            let (journal, course) = self.journals.take(name).map_err(OrderError::Journal)?;
            // The repository has begun with what the journals said.
            let model = Model { journal, course, is_settled: true, last: None, seen: None };
            self.models.insert(name.clone(), model);
        }
        Ok(self.models.get_mut(name).expect("inserted above"))
    }

    fn obey(&mut self, name: &ModelName, wish: Wish) -> Result<(), OrderError> {
        let all = self.repository.status().unwrap_or_default();
        let known = all.iter().find(|known| known.model == *name).ok_or(OrderError::NoRollout)?;
        let options = self.config.model(name).rollout.ok_or(OrderError::NoRollout)?;
        // Whatever has happened since the last look comes first.
        self.follow(known, &options)?;
        let Standing { stable, candidate, .. } = self.model(name)?.course.standing.clone();
        match wish {
            Wish::Start { version, stage, share } => {
                if let Some(pinned) = known.pinned {
                    return Err(OrderError::Pinned(pinned));
                }
                if stable == Some(version) {
                    return Err(OrderError::IsStable(version));
                }
                if let Some(other) = candidate.filter(|candidate| candidate.version != version) {
                    return Err(OrderError::IsTried(other.version));
                }
                if !known.versions.iter().any(|known| known.version == version) {
                    return Err(OrderError::NoVersion(version));
                }
                let (stage, share) = (stage.unwrap_or(options.stage), share.unwrap_or(options.share));
                let candidate = Candidate { version, stage, share };
                self.enter(name, candidate)
            }
            Wish::Promote | Wish::Abort => {
                let version = candidate.ok_or(OrderError::NotTried)?.version;
                let (event, reason) = match wish {
                    Wish::Promote => (Event::Promoted, "an operator promoted it"),
                    _ => (Event::Aborted, "an operator aborted it"),
                };
                self.write_by(By::Operator, name, version, event, None, reason.into())
            }
        }
    }

    /// Tries a version that an operator wants tried, as soon as it is loaded.
    fn enter(&mut self, name: &ModelName, candidate: Candidate) -> Result<(), OrderError> {
        let version = candidate.version;
        let reason = "an operator started it".to_owned();
        self.write_by(By::Operator, name, version, Event::Entered, Some(candidate), reason)?;
        let live = self.repository.live(name.as_str());
        let trial = live.as_ref().and_then(|live| live.trial.as_ref());
        if trial.is_some_and(|trial| trial.candidate == candidate) {
            return Ok(());
        }
        let known =
            self.repository.status().unwrap_or_default().into_iter().find(|known| known.model == *name);
        let reason =
            known.map_or_else(|| "the model is gone".to_owned(), |known| why_gone(&known, version, false));
        self.write(name, version, Event::Withdrawn, None, reason.clone())?;
        Err(OrderError::Load { version, reason })
    }

    fn publish_status(&self) {
        let status = self.models.iter().map(|(name, model)| (name.clone(), model.status(name)));
        let status: BTreeMap<ModelName, RolloutStatus> = status.collect();
        for (name, status) in &status {
            let candidate = status.candidate.as_ref();
            let (version, share) =
                candidate.map_or((0, 0.0), |tried| (tried.version.into(), tried.share.into()));
            self.metrics.rollout(name.as_str(), version, share);
        }
        self.status.store(Arc::new(status));
    }
}

impl Model {
    fn status(&self, name: &ModelName) -> RolloutStatus {
        let Standing { stable, candidate, refused } = &self.course.standing;
        let waiting = |verdict| match verdict {
            Verdict::Wait(waiting) => Some(waiting.to_string()),
            _ => None,
        };
        RolloutStatus {
            model: name.clone(),
            stable: *stable,
            candidate: candidate.map(|Candidate { version, stage, share }| Tried {
                version,
                stage,
                share,
                since: self.course.since.unwrap_or(OffsetDateTime::UNIX_EPOCH),
                waiting: self.seen.as_ref().and_then(|(_, verdict)| waiting(*verdict)),
                evidence: self.seen.as_ref().map(|(evidence, _)| evidence.clone()),
            }),
            refused: refused.iter().copied().collect(),
            last: self.last.clone(),
        }
    }
}

/// Why a version is not being tried that was, or was to be.
fn why_gone(known: &ModelStatus, version: VersionNumber, is_pinned: bool) -> String {
    let found = known.versions.iter().find(|known| known.version == version);
    match found {
        _ if is_pinned => "an operator has pinned a version".into(),
        None => "it is not in the repository any more".into(),
        Some(VersionStatus { state: VersionState::Failed, reason, .. }) => {
            format!("it cannot be loaded: {}", reason.as_deref().unwrap_or("for no reason"))
        }
        Some(_) => "it is not loaded any more".into(),
    }
}
