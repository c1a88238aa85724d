//! The versions that answer requests, by model: the one thing that requests read and the watcher writes.
//!
//! A slot is an `ArcSwap` of an immutable [`Live`]. A request loads it once and keeps what it got to its end; a swap
//! stores another and waits for nobody. So every answer comes from exactly one version that was live when the
//! request looked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use dashmap::DashMap;

use super::{ModelName, Trial, Version, VersionNumber};

/// The loaded versions of one model at one moment.
pub struct Live {
    /// The version that answers requests which name none.
    pub current: Arc<Version>,
    /// Every version that is loaded, the current one among them.
    pub loaded: Vec<Arc<Version>>,
    /// The version that is being tried beside the current one.
    pub trial: Option<Arc<Trial>>,
    /// Whether an operator wants the current version to answer, whatever rollouts say.
    pub is_pinned: bool,
}

impl Live {
    /// A loaded version by its number.
    pub fn version(&self, number: VersionNumber) -> Option<&Arc<Version>> {
        self.loaded.iter().find(|version| version.number() == number)
    }
}

/// A slot for each model that is served.
#[derive(Default)]
pub struct Slots {
    slots: DashMap<ModelName, ArcSwap<Live>>,
}

impl Slots {
    /// What is live of `model`.
    pub fn get(&self, model: &str) -> Option<Arc<Live>> {
        self.slots.get(model).map(|slot| slot.load_full())
    }

    /// Exchanges what is live of `model` and returns how long that took. The previous versions are let go of here;
    /// they end with their last request.
    pub(super) fn swap(&self, model: &ModelName, live: Live) -> Duration {
        let live = Arc::new(live);
        let start = Instant::now();
        if let Some(slot) = self.slots.get(model) {
            let previous = slot.swap(live);
            let duration = start.elapsed();
            drop(previous);
            return duration;
        }
        self.slots.insert(model.clone(), ArcSwap::new(live));
        start.elapsed()
    }

    /// Ends serving `model`.
    pub(super) fn remove(&self, model: &ModelName) {
        self.slots.remove(model);
    }
}
