//! How good the answers of every version are while it serves: [`Windows`] by model and version, filled by receipts that are
//! given and labels that come back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;

use super::{
    Label,
    window::{Judged, Placed, WindowFault, WindowOptions, Windows},
};

/// Versions of one model whose answers are judged at the same time. Older ones have had their say.
const MAX_VERSIONS: usize = 8;

/// The windows of all versions. Its size is bounded by the models that this server and its replicas have sealed receipts of.
#[derive(Debug)]
pub struct Live {
    /// How models are judged that have no options of their own.
    defaults: WindowOptions,
    options: BTreeMap<String, WindowOptions>,
    models: DashMap<String, Mutex<VecDeque<(u64, Windows)>>>,
    late: AtomicU64,
}

/// How good the answers of a version are at a moment.
#[derive(Clone, Debug)]
pub struct LiveVersion {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// Of the latest answers, labelled or not.
    pub early: Judged,
    /// Of those that have had time to get their labels.
    pub mature: Judged,
}

impl Live {
    /// No answers. Models are judged by `options` where they are in it, and else by `defaults`.
    pub fn new(
        defaults: WindowOptions,
        options: BTreeMap<String, WindowOptions>,
    ) -> Result<Self, WindowFault> {
        options.values().chain([&defaults]).try_for_each(WindowOptions::check)?;
        Ok(Self { defaults, options, models: DashMap::new(), late: AtomicU64::new(0) })
    }

    /// Counts `rows` that were answered with a receipt at `now`.
    pub fn predicted(&self, model: &str, version: u64, rows: u64, now: Duration) {
        self.with(model, version, |windows| windows.predicted(now, rows, now));
    }

    /// Counts a label, at the time at which it came in.
    pub fn labelled(&self, label: &Label) -> Placed {
        let Label { model, version, answered_ms, received_ms, score, .. } = label;
        let (answered, received) = (Duration::from_millis(*answered_ms), Duration::from_millis(*received_ms));
        let placed =
            self.with(model, *version, |windows| windows.labelled(answered, *score, label.label, received));
        let placed = placed.unwrap_or(Placed::Late);
        if placed == Placed::Late {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        placed
    }

    /// Labels that came when no window was left for them.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// How good answers are at `now`, a version after the other.
    pub fn judge(&self, now: Duration) -> Vec<LiveVersion> {
        let mut all = Vec::new();
        let models: Vec<String> = self.models.iter().map(|entry| entry.key().clone()).collect();
        for model in models {
            for place in 0..MAX_VERSIONS {
                // Locked anew for each: requests that are counted wait for one sum, and not for all.
                let Some(versions) = self.models.get(&model) else { break };
                let versions = versions.lock().unwrap_or_else(PoisonError::into_inner);
                let Some((version, windows)) = versions.get(place) else { break };
                let (early, mature) = (windows.early(now), windows.mature(now));
                all.push(LiveVersion { model: model.clone(), version: *version, early, mature });
            }
        }
        all
    }

    /// `None` where the version is older than all that are judged.
    fn with<T>(&self, model: &str, version: u64, act: impl FnOnce(&mut Windows) -> T) -> Option<T> {
        let versions = match self.models.get(model) {
            Some(versions) => versions,
            None => self.models.entry(model.to_owned()).or_default().downgrade(),
        };
        let mut versions = versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, windows)) = versions.iter_mut().find(|(known, _)| *known == version) {
            return Some(act(windows));
        }
        if versions.len() == MAX_VERSIONS {
            // The front is the lowest number.
            if versions.front().is_some_and(|(lowest, _)| *lowest > version) {
                return None;
            }
            versions.pop_front();
        }
        let options = self.options.get(model).unwrap_or(&self.defaults);
        let windows = Windows::new(*options).expect("checked by `new`");
        let place = versions.partition_point(|(known, _)| *known < version);
        versions.insert(place, (version, windows));
        Some(act(&mut versions[place].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const NOW: Duration = Duration::from_hours(500_000);

    fn options(threshold: f32) -> WindowOptions {
        WindowOptions { step: Duration::from_mins(1), window: HOUR, maturity: HOUR, threshold }
    }

    fn label(model: &str, version: u64, label: bool) -> Label {
        let now = u64::try_from(NOW.as_millis()).expect("in range");
        Label {
            receipt: 1,
            row: 0,
            received_ms: now,
            answered_ms: now - 1_000,
            model: model.to_owned(),
            version,
            score: 0.75,
            label,
            record: None,
        }
    }

    #[test]
    fn models_and_versions_are_judged_apart_each_by_its_own_threshold() {
        let live =
            Live::new(options(0.5), BTreeMap::from([("other".to_owned(), options(0.8))])).expect("windows");
        live.predicted("shop", 2, 4, NOW);
        for (model, version, happened) in [("shop", 1, true), ("shop", 2, false), ("other", 1, true)] {
            assert_eq!(live.labelled(&label(model, version, happened)), Placed::Counted);
        }
        let mut found: Vec<_> = live
            .judge(NOW)
            .into_iter()
            .map(|v| {
                (v.model, v.version, v.early.predicted, v.early.scores.accuracy(), v.mature.scores.rows())
            })
            .collect();
        found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let expected =
            [("other", 1, 0, Some(0.0), 0), ("shop", 1, 0, Some(1.0), 0), ("shop", 2, 4, Some(0.0), 0)];
        assert_eq!(found, expected.map(|(m, v, p, a, r)| (m.to_owned(), v, p, a, r)));
    }

    #[test]
    fn the_newest_versions_are_judged_and_no_more() {
        let live = Live::new(options(0.5), BTreeMap::new()).expect("windows");
        for version in (1..=20).rev().chain(1..=20) {
            live.labelled(&label("shop", version, true));
        }
        let versions: Vec<u64> = live.judge(NOW).iter().map(|live| live.version).collect();
        assert_eq!(versions, (13..=20).collect::<Vec<_>>());
        let late = live.late();
        assert_eq!(live.labelled(&label("shop", 12, true)), Placed::Late);
        assert_eq!(live.late(), late + 1);
    }
}
