//! The thread behind a [`Retrain`](super::Retrain): answers those who ask, follows the schedules, and looks after what runs.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use tokio::sync::oneshot;

use super::{
    Asker, History, Options, Outcome, Output, Refusal, RetrainError, RetrainOptions, Run, Situation, Started,
    Turn,
    history::milliseconds,
    run::{Order, is_thrown},
};
use crate::{
    feedback::export::Exporter,
    metrics::Metrics,
    repository::{ModelName, Repository},
};

/// Somebody who asks.
pub(super) struct Request {
    pub(super) model: ModelName,
    pub(super) asker: Asker,
    /// Where to answer; nobody waits where there is none.
    pub(super) reply: Option<oneshot::Sender<Result<Started, RetrainError>>>,
}

/// What of the server a retraining has to do with.
pub struct Surroundings {
    /// Says which models there are.
    pub repository: Arc<Repository>,
    /// Writes what the log of feedback has as tables, where it is to be exported.
    pub exporter: Option<Arc<Exporter>>,
    /// Hear of all that happens.
    pub metrics: Arc<Metrics>,
}

/// Decides, starts and watches. Ends when nobody can ask any more, and what runs with it.
pub struct Retrainer {
    options: Arc<Options>,
    folder: PathBuf,
    around: Surroundings,
    requests: Receiver<Request>,
    run: Option<Run>,
    /// When schedules are looked at next.
    next_look: Instant,
    /// From when on the schedule of a model asks again that was refused.
    again: BTreeMap<ModelName, Instant>,
}

impl Retrainer {
    pub(super) fn open(
        options: Arc<Options>,
        folder: PathBuf,
        around: Surroundings,
        requests: Receiver<Request>,
    ) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        History::read(&folder)?;
        let again = BTreeMap::new();
        let retrainer =
            Self { options, folder, around, requests, run: None, next_look: Instant::now(), again };
        // That they are there before anything happens is what makes the first one a change.
        let named = retrainer.options.models.iter().filter(|(_, options)| options.is_some());
        named.for_each(|(model, _)| retrainer.show(model));
        Ok(retrainer)
    }

    /// Works until every [`Retrain`](super::Retrain) is gone.
    pub fn run(mut self) {
        loop {
            let pause = if self.run.is_some() { WATCH } else { REST };
            match self.requests.recv_timeout(pause) {
                Ok(Request { model, asker, reply }) => {
                    let result = self.ask(&model, asker);
                    if let Some(reply) = reply {
                        // Whoever asked may have gone away.
                        let _ = reply.send(result);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.watch();
            self.follow_schedules();
        }
        while self.run.is_some() {
            self.run.iter_mut().for_each(|run| run.stop(Instant::now()));
            self.watch();
            thread::sleep(WATCH);
        }
    }

    /// Decides on what was asked, and begins where the answer is yes.
    fn ask(&mut self, model: &ModelName, asker: Asker) -> Result<Started, RetrainError> {
        if !self.models().contains(model) {
            return Err(RetrainError::NoModel);
        }
        let options = self.options.of(model).cloned().ok_or(RetrainError::NotConfigured)?;
        let started = self.begin(model, asker, &options);
        let (name, by) = (model.as_str(), asker.name());
        let result = match &started {
            Ok(Started { output, .. }) => {
                tracing::info!(model = name, by, output = %output.display(), "a retraining has begun");
                "started"
            }
            Err(RetrainError::Refused(refusal)) => {
                tracing::info!(model = name, by, reason = %refusal, "no retraining is started");
                refusal.name()
            }
            Err(error) => {
                let error = error as &dyn std::error::Error;
                tracing::error!(model = name, by, error, "no retraining can be started");
                "failed"
            }
        };
        self.around.metrics.retrain_asked(name, by, result);
        started
    }

    fn begin(
        &mut self,
        model: &ModelName,
        asker: Asker,
        options: &RetrainOptions,
    ) -> Result<Started, RetrainError> {
        let killed = is_thrown(&options.kill_switch);
        let turn = if self.run.is_some() { None } else { Turn::take(&self.folder)? };
        let mut history = History::read(&self.folder)?;
        let (starts, now) = (history.starts(model.as_str()), now());
        let live = self.around.repository.live(model.as_str());
        let tried = live.is_some_and(|live| live.trial.is_some());
        let situation = Situation { starts: &starts, running: turn.is_none(), tried, killed, now };
        options.limits.admit(asker, &situation)?;
        let turn = turn.ok_or(Refusal::Running)?;
        let output = Output::create(&self.folder.join(OUTPUT).join(model.as_str()), milliseconds(now))?;
        let exported = match &self.around.exporter {
            // One that still waits is of a retraining that has lost patience.
            Some(exporter) => Some(exporter.export_now().ok_or(RetrainError::Busy)?),
            None => None,
        };
        history.begin(model.as_str(), asker, now, options.limits.max_a_day.get());
        // What is not on disk would not count after a restart, so it does not begin.
        history.write(&self.folder, &turn)?;
        let order = Order { model: model.clone(), asker, options: options.clone() };
        let run = Run::begin(order, output, exported, turn, Instant::now());
        let output = run.output().to_owned();
        self.run = Some(run);
        self.show(model);
        Ok(Started { model: model.clone(), asked_by: asker, started_ms: milliseconds(now), output })
    }

    /// Looks after what runs.
    fn watch(&mut self) {
        let Some(run) = &mut self.run else { return };
        let Some(outcome) = run.poll(Instant::now()) else { return };
        let run = self.run.take().expect("it was there");
        let (model, path) = (run.model().clone(), run.output().to_owned());
        let output = path.display();
        let (name, ended) = (model.as_str(), outcome.name());
        if outcome == Outcome::Ok {
            tracing::info!(model = name, %output, "a retraining is over");
        } else {
            tracing::error!(model = name, outcome = ended, %output, "a retraining has come to nothing");
        }
        self.around.metrics.retrained(name, ended, 1);
        let (said, turn) = run.close();
        if let Err(error) = said.and(note_end(&self.folder, &turn, &model, outcome)) {
            tracing::error!(model = name, %error, "the end of a retraining cannot be noted");
        }
        self.show(&model);
    }

    /// Has every model retrained that is due by the clock, once a second at most.
    fn follow_schedules(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + REST;
        let of_schedule =
            |model: &ModelName| self.options.of(model).is_some_and(|options| options.limits.every.is_some());
        let models: Vec<ModelName> = self.models().into_iter().filter(of_schedule).collect();
        if models.is_empty() {
            return;
        }
        let due = match due(&self.folder, &models, &self.options) {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "the history of retrainings cannot be used; no schedule is followed");
                self.next_look = Instant::now() + ASK_AGAIN;
                return;
            }
        };
        self.again.retain(|model, again| due.contains(model) && *again > Instant::now());
        for model in due {
            if !self.again.contains_key(&model) && self.ask(&model, Asker::Schedule).is_err() {
                self.again.insert(model, Instant::now() + ASK_AGAIN);
            }
        }
    }

    fn models(&self) -> Vec<ModelName> {
        let status = self.around.repository.status().unwrap_or_default();
        status.into_iter().map(|status| status.model).collect()
    }

    /// Tells the metrics whether `model` is being retrained, and of outcomes that there may be.
    fn show(&self, model: &ModelName) {
        let running = self.run.as_ref().is_some_and(|run| run.model() == model);
        self.around.metrics.retrain_running(model.as_str(), running);
        for outcome in Outcome::ALL {
            self.around.metrics.retrained(model.as_str(), outcome.name(), 0);
        }
    }
}

/// The models that are due by the clock. Those that are seen for the first time are noted, where it is nobody else's turn.
fn due(folder: &Path, models: &[ModelName], options: &Options) -> io::Result<Vec<ModelName>> {
    let mut history = History::read(folder)?;
    let is_new = |model: &ModelName| history.last(model.as_str()).is_none();
    if models.iter().any(is_new)
        && let Some(turn) = Turn::take(folder)?
    {
        history = History::read(folder)?;
        for model in models {
            history.know(model.as_str(), now());
        }
        history.write(folder, &turn)?;
    }
    let is_due = |model: &&ModelName| {
        let limits = options.of(model).map(|options| &options.limits);
        let last = history.last(model.as_str());
        limits.zip(last).is_some_and(|(limits, last)| limits.is_due(last, now()))
    };
    Ok(models.iter().filter(is_due).cloned().collect())
}

fn note_end(folder: &Path, turn: &Turn, model: &ModelName, outcome: Outcome) -> io::Result<()> {
    let mut history = History::read(folder)?;
    history.end(model.as_str(), outcome.name(), now());
    history.write(folder, turn)
}

/// The time since 1970.
fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// The folder of what was said, which has one for each model.
const OUTPUT: &str = "output";

/// How often what runs is looked after, and how often schedules are.
const WATCH: Duration = Duration::from_millis(100);
const REST: Duration = Duration::from_secs(1);

/// How soon a schedule asks again that was refused, and schedules are looked at again that could not be followed.
const ASK_AGAIN: Duration = Duration::from_mins(1);
