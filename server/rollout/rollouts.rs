//! The rollouts of a server as its management port sees them: what operators wish, and how each stands.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{Entry, Evidence, JournalError};
use crate::repository::{ModelName, RequestError, Share, TrialStage, VersionNumber};

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
    Promote {
        /// The version that is meant; whichever it is where `None`.
        version: Option<VersionNumber>,
    },
    /// Try it no longer.
    Abort {
        /// The version that is meant; whichever it is where `None`.
        version: Option<VersionNumber>,
    },
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
    #[error("version {0} is being tried, and no other can be until it is promoted or aborted")]
    IsTried(VersionNumber),
    /// A canary would leave the version that it is compared with too few requests.
    #[error("the share of a canary must be at most 0.5")]
    CanaryShare,
    /// The stable version cannot be loaded; another stands in for it, and nothing is tried meanwhile.
    #[error("version {stable}, which is stable, cannot be loaded; version {current} stands in for it")]
    NoStable {
        /// The stable version.
        stable: VersionNumber,
        /// The version that answers.
        current: VersionNumber,
    },
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

pub(super) struct Order {
    pub(super) model: ModelName,
    pub(super) wish: Wish,
    pub(super) reply: oneshot::Sender<Result<RolloutStatus, OrderError>>,
}

/// Wishes that may wait; operators are few.
const PENDING_ORDERS: usize = 16;

impl Rollouts {
    /// A handle to whoever takes its orders, and what that one shows in return.
    pub(super) fn new() -> (Self, Receiver<Order>) {
        let (orders, receiver) = bounded(PENDING_ORDERS);
        (Self { orders, status: Arc::default() }, receiver)
    }

    /// What is shown of the rollouts of all models.
    pub(super) fn shown(&self) -> Arc<ArcSwap<BTreeMap<ModelName, RolloutStatus>>> {
        Arc::clone(&self.status)
    }

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
