//! The thread that decides about versions that are tried. Every so often it looks at each model: it writes down who has begun to
//! be tried, gathers the evidence, asks the rules, and tells the repository what has come of it. Operators' wishes come to the
//! same thread, so decisions are taken one after the other.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{
    By, Copied, Course, Entry, Event, Evidence, Journal, Journals, OrderError, RolloutOptions, RolloutStatus,
    Rollouts, Tried, Verdict, Wish, matured::Matured, rollouts::Order,
};
use crate::{
    config::Config,
    feedback::Live,
    metrics::Metrics,
    repository::{
        self, Candidate, ModelName, ModelStatus, Obeyed, Repository, RequestError, Share, Standing, Trial,
        TrialStage, VersionNumber, VersionState, VersionStatus,
    },
};

/// How often trials are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

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
    /// The answer to the order to do so.
    settling: Option<oneshot::Receiver<Obeyed>>,
    last: Option<Entry>,
    seen: Option<(Evidence, Verdict)>,
    matured: Option<Matured>,
    /// Why nothing goes on, as it was said last.
    held_up: Option<String>,
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
        let (handle, orders) = Rollouts::new();
        let (status, models) = (handle.shown(), BTreeMap::new());
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
            let held_up = self.follow(&known, &options).err();
            let said = held_up.as_ref().map(ToString::to_string);
            let Ok(model) = self.model(&known.model) else { continue };
            // Twice a second would be too often.
            if let Some(error) = held_up.filter(|_| model.held_up != said) {
                tracing::error!(model = %known.model, error = &error as &dyn std::error::Error, "a rollout is held up");
            }
            model.held_up = said;
        }
    }

    /// Writes down what has become of a model since the last look, and decides about the version that is tried.
    fn follow(&mut self, known: &ModelStatus, options: &RolloutOptions) -> Result<(), OrderError> {
        let name = &known.model;
        if !self.settle(name)? {
            return Ok(());
        }
        let Some(live) = self.repository.live(name.as_str()) else { return Ok(()) };
        let current = live.current.number();
        let standing = &self.model(name)?.course.standing;
        let (stable, tried) = (standing.stable, standing.candidate);
        let Some(stable) = stable else {
            return self.write(name, current, Event::Stable, None, "it is the first".into());
        };
        if stable != current && !live.is_pinned {
            if known.versions.iter().any(|known| known.version == stable) {
                // It stands in, and is no more than that: what cannot be loaded now may be again.
                return Err(OrderError::NoStable { stable, current });
            }
            let reason = format!("version {stable} is not in the repository any more");
            return self.write(name, current, Event::Stable, None, reason);
        }
        let trying = live.trial.as_ref().map(|trial| trial.candidate);
        match (tried, trying) {
            (Some(tried), None) => {
                // One that is not loaded yet is waited for.
                if let Some(reason) = why_gone(known, tried.version, live.is_pinned) {
                    self.write(name, tried.version, Event::Withdrawn, None, reason)?;
                }
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
        let share = candidate.share.at_most(Share::HALF);
        let canary = Candidate { stage: TrialStage::Canary, share, ..candidate };
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
        trial: &Arc<Trial>,
        options: &RolloutOptions,
    ) -> Result<Evidence, OrderError> {
        let versions = [stable, trial.candidate.version];
        let live = Arc::clone(&self.live);
        let model = self.model(name)?;
        let since = model.course.since.unwrap_or(OffsetDateTime::UNIX_EPOCH) - OffsetDateTime::UNIX_EPOCH;
        let since = Duration::try_from(since).unwrap_or_default();
        let of_trial = model.matured.take().filter(|matured| matured.is_of(trial));
        let matured = of_trial.unwrap_or_else(|| Matured::new(trial, since, live.options_of(name.as_str())));
        let matured = model.matured.insert(matured);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        matured.go_on(&live, name.as_str(), versions, now);
        let tallies = [trial.stable.read(), trial.tried.read()];
        let sides = [0, 1].map(|side| (&tallies[side], Some(&matured.scores()[side])));
        let copied = (trial.candidate.stage == TrialStage::Shadow).then(|| Copied {
            rows: trial.copies.rows(),
            dropped: trial.copies.dropped(),
            distance: trial.copies.mean_distance(),
        });
        Ok(Evidence::new(&options.rules, (trial.candidate.stage, trial.began.elapsed()), sides, copied))
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
        self.settle(name).map(drop)
    }

    /// Has the repository go by what the model's course has come to, and says whether it does. It may be loading something just
    /// then, for minutes, which nobody here waits for: other models have trials too.
    fn settle(&mut self, name: &ModelName) -> Result<bool, OrderError> {
        let repository = Arc::clone(&self.repository);
        let model = self.model(name)?;
        if let Some(reply) = &mut model.settling {
            let obeyed = match reply.try_recv() {
                Ok(obeyed) => obeyed,
                Err(oneshot::error::TryRecvError::Empty) => return Ok(false),
                Err(oneshot::error::TryRecvError::Closed) => Err(RequestError::Stopping),
            };
            model.settled(obeyed)?;
        }
        if !model.is_settled {
            let standing = model.course.standing.clone();
            match repository.order(name.clone(), repository::Request::Settle(standing)) {
                Ok(reply) => model.settling = Some(reply),
                // There is a next look.
                Err(RequestError::Busy) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(model.is_settled)
    }

    /// The same, for an operator, who waits for it.
    fn settle_now(&mut self, name: &ModelName) -> Result<(), OrderError> {
        while !self.settle(name)? {
            let model = self.model(name)?;
            let reply = model.settling.take().ok_or(RequestError::Busy)?;
            model.settled(reply.blocking_recv().unwrap_or(Err(RequestError::Stopping)))?;
        }
        Ok(())
    }

    /// What is known of a model; its journal is opened, or begins, with the first look at it.
    fn model(&mut self, name: &ModelName) -> Result<&mut Model, OrderError> {
        if !self.models.contains_key(name) {
            let (journal, course) = self.journals.take(name).map_err(OrderError::Journal)?;
            // The repository has begun with what the journals said.
            let model = Model {
                journal,
                course,
                is_settled: true,
                settling: None,
                last: None,
                seen: None,
                matured: None,
                held_up: None,
            };
            self.metrics.rollouts(name.as_str(), Event::ALL.map(Event::name));
            self.models.insert(name.clone(), model);
        }
        Ok(self.models.get_mut(name).expect("inserted above"))
    }

    fn obey(&mut self, name: &ModelName, wish: Wish) -> Result<(), OrderError> {
        let all = self.repository.status().unwrap_or_default();
        let known = all.iter().find(|known| known.model == *name).ok_or(OrderError::NoRollout)?;
        let options = self.config.model(name).rollout.ok_or(OrderError::NoRollout)?;
        // Whatever has happened since the last look comes first.
        self.settle_now(name)?;
        self.follow(known, &options)?;
        self.settle_now(name)?;
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
                let stage = stage.unwrap_or(options.stage);
                let most = if stage == TrialStage::Canary { Share::HALF } else { Share::ALL };
                if share.is_some_and(|share| share.at_most(most) != share) {
                    return Err(OrderError::CanaryShare);
                }
                let share = share.unwrap_or(options.share).at_most(most);
                let candidate = Candidate { version, stage, share };
                self.enter(name, candidate)
            }
            Wish::Promote { version: meant } | Wish::Abort { version: meant } => {
                let version = candidate.ok_or(OrderError::NotTried)?.version;
                if meant.is_some_and(|meant| meant != version) {
                    return Err(OrderError::IsTried(version));
                }
                let (event, reason) = match wish {
                    Wish::Promote { .. } => (Event::Promoted, "an operator promoted it"),
                    _ => (Event::Aborted, "an operator aborted it"),
                };
                self.write_by(By::Operator, name, version, event, None, reason.into())?;
                self.settle_now(name)
            }
        }
    }

    /// Tries a version that an operator wants tried, as soon as it is loaded.
    fn enter(&mut self, name: &ModelName, candidate: Candidate) -> Result<(), OrderError> {
        let version = candidate.version;
        let reason = "an operator started it".to_owned();
        self.write_by(By::Operator, name, version, Event::Entered, Some(candidate), reason)?;
        self.settle_now(name)?;
        let known =
            self.repository.status().unwrap_or_default().into_iter().find(|known| known.model == *name);
        let reason = match known.filter(|_| !self.is_tried(name, candidate)) {
            Some(known) => why_gone(&known, version, false),
            None => None,
        };
        let Some(reason) = reason else { return Ok(()) };
        self.write(name, version, Event::Withdrawn, None, reason.clone())?;
        Err(OrderError::Load { version, reason })
    }

    fn is_tried(&self, name: &ModelName, candidate: Candidate) -> bool {
        let live = self.repository.live(name.as_str());
        live.is_some_and(|live| live.trial.as_ref().is_some_and(|trial| trial.candidate == candidate))
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
    fn settled(&mut self, obeyed: Obeyed) -> Result<(), RequestError> {
        self.settling = None;
        match obeyed {
            // A model that is gone goes by it as soon as it is back.
            Ok(_) | Err(RequestError::NoModel) => self.is_settled = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn status(&self, name: &ModelName) -> RolloutStatus {
        let Standing { stable, candidate, refused, .. } = &self.course.standing;
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

/// Why a version cannot be tried any more; `None` where it can as soon as it is loaded.
fn why_gone(known: &ModelStatus, version: VersionNumber, is_pinned: bool) -> Option<String> {
    if is_pinned {
        return Some("an operator has pinned a version".into());
    }
    match known.versions.iter().find(|known| known.version == version) {
        None => Some("it is not in the repository any more".into()),
        Some(VersionStatus { state: VersionState::Failed, reason, .. }) => {
            Some(format!("it cannot be loaded: {}", reason.as_deref().unwrap_or("for no reason")))
        }
        Some(_) => None,
    }
}
