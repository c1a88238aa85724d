//! The labelled rows of both versions of a trial that have had time to get their labels. They are added up as they come to be so,
//! however long the trial takes: the interval that decides is one of a sum that grows, and not of a window that moves.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    feedback::{Live, window::WindowOptions},
    quality::ScoreCounts,
    repository::{Trial, VersionNumber},
};

/// Mature rows of the stable version, and of the one that is tried.
pub(super) struct Matured {
    /// What they are of. It holds the versions, and ends with it.
    trial: Weak<Trial>,
    /// The time up to which answers are counted.
    until: Duration,
    scores: [ScoreCounts; 2],
}

impl Matured {
    /// None yet, of answers that were given from `since` on.
    pub(super) fn new(trial: &Arc<Trial>, since: Duration, options: &WindowOptions) -> Self {
        let none = || ScoreCounts::new(options.threshold);
        Self { trial: Arc::downgrade(trial), until: since, scores: [none(), none()] }
    }

    /// Whether they are of this trial. No other comes to lie where one is that a `Weak` knows.
    pub(super) fn is_of(&self, trial: &Arc<Trial>) -> bool {
        self.trial.as_ptr() == Arc::as_ptr(trial)
    }

    /// Adds what has become mature since the last time.
    pub(super) fn go_on(&mut self, live: &Live, model: &str, versions: [VersionNumber; 2], now: Duration) {
        let until = live.mature_until(model, now);
        if until <= self.until {
            return;
        }
        for (scores, version) in self.scores.iter_mut().zip(versions) {
            if let Some(more) = live.between(model, version.into(), self.until..until) {
                scores.merge(&more.scores);
            }
        }
        self.until = until;
    }

    /// Of the stable version, and of the one that is tried.
    pub(super) fn scores(&self) -> &[ScoreCounts; 2] {
        &self.scores
    }
}
