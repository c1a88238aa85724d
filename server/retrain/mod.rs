//! Retraining: a child process that trains a model anew, when its alert, the clock, an Alertmanager or an operator asks for it.
//!
//! ```text
//! asker ─▶ Retrain ─▶ Retrainer, a thread: policy (pure), history ─▶ run: export of feedback ─▶ child ─▶ models/
//! ```
//!
//! It ends at the files: the child publishes, the watcher finds what it has published, and how that enters is the rollout's
//! business. One at a time, and no more often than the policy lets it.

mod child;
mod heard;
mod history;
mod output;
mod policy;
mod retrainer;
mod run;
mod token;

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU64,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crossbeam::channel::{self, Sender, TrySendError};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use self::{
    child::Child,
    heard::Heard,
    history::{History, Turn},
    output::Output,
    retrainer::Request,
    run::Run,
};
pub use self::{
    policy::{Asker, Limits, Refusal, Situation},
    retrainer::{Retrainer, Surroundings},
    run::Outcome,
    token::{Token, TokenError},
};
use crate::repository::ModelName;

/// What trains a model anew, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrainOptions {
    /// A program and its arguments, one at least.
    pub command: Vec<String>,
    /// The folder that it runs in.
    pub dir: PathBuf,
    /// Whether the model's alert starts it.
    pub on_alert: bool,
    /// How often.
    pub limits: Limits,
    /// How long it may take.
    pub timeout: Duration,
    /// The private memory that each of its processes may have.
    pub max_memory_bytes: Option<NonZeroU64>,
    /// How far it stands behind others where processors are short: 0 to 19.
    pub nice: u8,
    /// The file that forbids it while it is there.
    pub kill_switch: PathBuf,
}

/// The options of every model.
#[derive(Clone, Default)]
pub struct Options {
    /// Of models without options of their own.
    pub defaults: Option<RetrainOptions>,
    /// Of single models; `None` for those that are not retrained.
    pub models: BTreeMap<ModelName, Option<RetrainOptions>>,
    /// What an Alertmanager has to show; none is heard without.
    pub token: Option<Token>,
}

impl Options {
    /// Those of `model`, where it is retrained at all.
    pub fn of(&self, model: &ModelName) -> Option<&RetrainOptions> {
        self.models.get(model).unwrap_or(&self.defaults).as_ref()
    }

    /// Whether there is anything to retrain.
    pub fn are_none(&self) -> bool {
        self.models.values().chain([&self.defaults]).all(Option::is_none)
    }
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetrainError {
    /// The repository does not know the model.
    #[error("there is no model of this name in the repository")]
    NoModel,
    /// The configuration does not say what trains it.
    #[error("the model has no `retrain` in the configuration")]
    NotConfigured,
    /// The policy says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// As many askers wait as may.
    #[error("too many ask for a retraining at once")]
    Busy,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// What was started when cannot be read or written.
    #[error("the folder `retrain_dir` cannot be used")]
    Folder(#[from] io::Error),
}

/// A retraining that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The model.
    pub model: ModelName,
    /// Who asked.
    pub asked_by: Asker,
    /// When, in milliseconds since 1970.
    pub started_ms: u64,
    /// The file with what it says, which is whole when it is over.
    pub output: PathBuf,
}

/// Where retrainings are asked for. When the last of these is dropped, what runs is ended and so is the thread.
#[derive(Clone)]
pub struct Retrain {
    requests: Sender<Request>,
    options: Arc<Options>,
    heard: Arc<Mutex<Heard>>,
}

impl Retrain {
    /// Somebody to ask, and what somebody has to run on a thread of its own. What was started when, and what was said, is in
    /// `folder`, which is made where there is none. Fails where it cannot be used, or has a history that makes no sense.
    pub fn new(options: Options, folder: PathBuf, around: Surroundings) -> io::Result<(Self, Retrainer)> {
        let (requests, asked) = channel::bounded(PENDING);
        let options = Arc::new(options);
        let retrainer = Retrainer::open(Arc::clone(&options), folder, around, asked)?;
        Ok((Self { requests, options, heard: Arc::default() }, retrainer))
    }

    /// Asks for `model` to be retrained. Returns when that is decided.
    pub async fn ask(&self, model: ModelName, asker: Asker) -> Result<Started, RetrainError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request { model, asker, reply: Some(reply) })?;
        answer.await.map_err(|_| RetrainError::Stopping)?
    }

    /// The alert of `model` fires: asks where the configuration wants that, and waits for no answer.
    pub fn alerted(&self, model: ModelName) {
        if self.options.of(&model).is_some_and(|options| options.on_alert) {
            // It is asked again while the alert fires.
            let _ = self.send(Request { model, asker: Asker::Alert, reply: None });
        }
    }

    /// An Alertmanager says that an alert fires, by its fingerprint and start: asks unless this very alert has already led to a
    /// retraining, in which case there is nothing to return.
    pub async fn notified(
        &self,
        model: ModelName,
        (fingerprint, starts_at): (&str, &str),
    ) -> Result<Option<Started>, RetrainError> {
        let occasion = (fingerprint.to_owned(), starts_at.to_owned());
        if self.heard().knows(&occasion) {
            return Ok(None);
        }
        let started = self.ask(model, Asker::Webhook).await?;
        // What was refused may be granted when it is repeated.
        self.heard().remember(occasion);
        Ok(Some(started))
    }

    /// What an Alertmanager has to show.
    pub fn token(&self) -> Option<&Token> {
        self.options.token.as_ref()
    }

    fn send(&self, request: Request) -> Result<(), RetrainError> {
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => RetrainError::Busy,
            TrySendError::Disconnected(_) => RetrainError::Stopping,
        })
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Askers that may wait; each is answered within moments.
const PENDING: usize = 64;
