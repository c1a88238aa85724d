//! How good the answers of every version are while it serves: [`Windows`] by model and version, filled by receipts that are
//! given and labels that come back.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;

use super::{
    Label,
    window::{Judged, Placed, WindowFault, WindowOptions, Windows},
};
use crate::metrics::{LiveFacts, Metrics};

/// Versions of one model whose answers are judged at the same time: those that were last heard of.
const MAX_VERSIONS: usize = 8;

/// The windows of all versions. Its size is bounded by the models that this server and its replicas have sealed receipts of.
#[derive(Debug)]
pub struct Live {
    /// How models are judged that have no options of their own.
    defaults: WindowOptions,
    options: BTreeMap<String, WindowOptions>,
    /// From when on answers are counted.
    since: Duration,
    models: DashMap<String, Vec<(u64, Version)>>,
    late: AtomicU64,
}

/// The windows of a version. A request that is counted waits at most until this version has been summed.
type Version = Arc<Mutex<Windows>>;

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
    /// No answers before `since`. Models are judged by `options` where they are in it, and else by `defaults`.
    pub fn new(
        defaults: WindowOptions,
        options: BTreeMap<String, WindowOptions>,
        since: Duration,
    ) -> Result<Self, WindowFault> {
        options.values().chain([&defaults]).try_for_each(WindowOptions::check)?;
        Ok(Self { defaults, options, since, models: DashMap::new(), late: AtomicU64::new(0) })
    }

    /// Counts `rows` that were answered with a receipt at `now`.
    pub fn predicted(&self, model: &str, version: u64, rows: u64, now: Duration) {
        if let Some(windows) = self.windows((model, version), now, now) {
            lock(&windows).predicted(now, rows, now);
        }
    }

    /// Counts a label, at the time at which it came in.
    pub fn labelled(&self, label: &Label) -> Placed {
        let Label { model, version, answered_ms, received_ms, score, .. } = label;
        let (answered, received) = (Duration::from_millis(*answered_ms), Duration::from_millis(*received_ms));
        let windows = self.windows((model, *version), answered, received);
        let placed = windows
            .map_or(Placed::Late, |windows| lock(&windows).labelled(answered, *score, label.label, received));
        if placed == Placed::Late {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        placed
    }

    /// Labels that came when no window was left for them.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// How good answers are at `now`, a version after the other. Those of which nothing is left to judge are forgotten.
    pub fn judge(&self, now: Duration) -> Vec<LiveVersion> {
        self.models.retain(|_, versions| {
            versions.retain(|(_, windows)| !lock(windows).is_over(now));
            !versions.is_empty()
        });
        // Nobody waits for the map while sums are taken.
        let models = self.models.iter().map(|entry| (entry.key().clone(), entry.value().clone()));
        let models: Vec<(String, Vec<(u64, Version)>)> = models.collect();
        let mut all = Vec::new();
        for (model, versions) in models {
            for (version, windows) in versions {
                let windows = lock(&windows);
                let (early, mature) = (windows.early(now), windows.mature(now));
                all.push(LiveVersion { model: model.clone(), version, early, mature });
            }
        }
        all
    }

    /// The rows of one version that were answered within a span of time, in the steps that began in it. `None` where it has no
    /// windows.
    pub fn between(&self, model: &str, version: u64, span: Range<Duration>) -> Option<Judged> {
        let windows = self.known(model, version)?;
        let judged = lock(&windows).between(span);
        Some(judged)
    }

    /// The time up to which answers of `model` have had time to get their labels.
    pub fn mature_until(&self, model: &str, now: Duration) -> Duration {
        self.options_of(model).mature_until(now)
    }

    /// How the answers of `model` are judged.
    pub fn options_of(&self, model: &str) -> &WindowOptions {
        self.options.get(model).unwrap_or(&self.defaults)
    }

    /// How good the answers of a version are at `now`, of those that have had time to get their labels; `None` where none was
    /// heard of.
    pub fn mature(&self, model: &str, version: u64, now: Duration) -> Option<Judged> {
        let windows = self.known(model, version)?;
        let judged = lock(&windows).mature(now);
        Some(judged)
    }

    /// Tells `metrics` how good answers are at `now`.
    pub fn export(&self, metrics: &Metrics, now: Duration) {
        metrics.feedback.late(self.late());
        for version in self.judge(now) {
            for (window, judged) in [("early", &version.early), ("mature", &version.mature)] {
                metrics.live(&version.model, version.version, window, &facts(judged));
            }
        }
    }

    fn known(&self, model: &str, version: u64) -> Option<Version> {
        find(&self.models.get(model)?, version)
    }

    /// The windows of a version in which something of `time` is to be counted at `now`; `None` where it is too late for that.
    fn windows(&self, (model, version): (&str, u64), time: Duration, now: Duration) -> Option<Version> {
        if let Some(known) = self.known(model, version) {
            return Some(known);
        }
        let options = self.options_of(model);
        if !options.keeps(time, now) {
            return None;
        }
        let mut versions = self.models.entry(model.to_owned()).or_default();
        // Another thread may have been here in between.
        find(&versions, version).or_else(|| {
            if versions.len() == MAX_VERSIONS {
                let ends = versions.iter().map(|(_, windows)| lock(windows).end());
                let (oldest, _) = ends.enumerate().min_by_key(|(_, end)| *end)?;
                versions.remove(oldest);
            }
            let windows = Windows::new(*options, self.since).expect("checked by `new`");
            let windows = Arc::new(Mutex::new(windows));
            versions.push((version, Arc::clone(&windows)));
            Some(windows)
        })
    }
}

fn find(versions: &[(u64, Version)], version: u64) -> Option<Version> {
    let found = versions.iter().find(|(known, _)| *known == version);
    found.map(|(_, windows)| Arc::clone(windows))
}

fn lock(windows: &Mutex<Windows>) -> MutexGuard<'_, Windows> {
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How good answers are, as metrics have it.
fn facts(judged: &Judged) -> LiveFacts {
    let scores = &judged.scores;
    let delay = |q| judged.delays.quantile(q).map(|delay| delay.as_secs_f64());
    LiveFacts {
        rows: vec![
            ("correct", scores.correct()),
            ("covered", judged.covered),
            ("labelled", scores.rows()),
            ("positive", scores.positives()),
            ("predicted", judged.predicted),
        ],
        measures: vec![
            ("accuracy", scores.accuracy()),
            ("auc", scores.auc()),
            ("brier", scores.brier()),
            ("calibration", scores.calibration()),
            ("calibration_error", scores.calibration_error()),
            ("coverage", judged.coverage()),
            ("log_loss", scores.log_loss()),
            ("positive_rate", scores.positive_rate()),
            ("precision", scores.precision()),
        ],
        delays: vec![("0.5", delay(0.5)), ("0.9", delay(0.9)), ("0.99", delay(0.99))],
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
        let live = Live::new(options(0.5), BTreeMap::from([("other".to_owned(), options(0.8))]), NOW)
            .expect("windows");
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
    fn the_versions_that_were_last_heard_of_are_judged_and_no_more() {
        let live = Live::new(options(0.5), BTreeMap::new(), NOW).expect("windows");
        let minute = |minutes: u32| NOW + minutes * Duration::from_mins(1);
        for (minutes, version) in (1..=20).rev().chain([15]).enumerate() {
            live.predicted("shop", version, 1, minute(u32::try_from(minutes).expect("few")));
        }
        let judged = |now| {
            let mut versions: Vec<u64> = live.judge(now).iter().map(|live| live.version).collect();
            versions.sort_unstable();
            versions
        };
        assert_eq!(judged(minute(20)), [1, 2, 3, 4, 5, 6, 7, 15], "an old one that answers again is judged");
        // They are over an hour and an hour after their last row, one by one.
        assert_eq!(judged(minute(20 + 120)), [15]);
        assert_eq!(judged(minute(21 + 120)), Vec::<u64>::new());
        assert!(live.models.is_empty());
    }

    #[test]
    fn a_late_label_takes_nobodys_place() {
        let live = Live::new(options(0.5), BTreeMap::new(), NOW).expect("windows");
        let mut late = label("shop", 1, true);
        late.answered_ms -= 3 * 3_600_000;
        assert_eq!((live.labelled(&late), live.late()), (Placed::Late, 1));
        assert!(live.judge(NOW).is_empty());
    }
}
