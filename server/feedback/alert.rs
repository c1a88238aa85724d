//! Whether a model is good enough, by the mature window of the version that answers. Pure: time is an argument.
//!
//! | is | becomes | when |
//! |---|---|---|
//! | quiet | firing | the measure has been under `below` for `hold` |
//! | firing | quiet | the measure is at least `clear` |
//!
//! A window with fewer labels than `min_labels` says nothing, and changes nothing. So a version that takes over while the
//! alert fires leaves it firing until its own answers have had time to get their labels and are good: a promise is no
//! reason to go back to sleep.

use std::time::Duration;

use serde::Deserialize;

use super::window::Judged;

/// What a model is judged by. The more of it the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertMeasure {
    /// The share of rows on the side of the threshold where their label is.
    #[default]
    Accuracy,
    /// The area under the ROC curve.
    Auc,
}

impl AlertMeasure {
    /// Its name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Auc => "auc",
        }
    }
}

/// When a model is not good enough any more, and when it is again.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertOptions {
    /// What it is judged by.
    pub measure: AlertMeasure,
    /// Less than this is not good enough.
    pub below: f64,
    /// From this on it is good again; at least `below`.
    pub clear: f64,
    /// Labelled rows without which a window says nothing.
    pub min_labels: u64,
    /// How long it must be too low.
    pub hold: Duration,
    /// The address of whoever is to be told.
    pub webhook: Option<String>,
}

/// What a window says of the version that answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The version.
    pub version: u64,
    /// Labelled rows in the window.
    pub labels: u64,
    /// The measure; `None` where the rows do not have one.
    pub value: Option<f64>,
}

impl Reading {
    /// The reading of `measure` in a window of `version`.
    pub fn of(version: u64, judged: &Judged, measure: AlertMeasure) -> Self {
        let scores = &judged.scores;
        let value = match measure {
            AlertMeasure::Accuracy => scores.accuracy(),
            AlertMeasure::Auc => scores.auc(),
        };
        Self { version, labels: scores.rows(), value }
    }
}

/// What an alert has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It fires from now on.
    Firing,
    /// It is quiet again.
    Resolved,
}

/// The alert of one model.
#[derive(Clone, Debug)]
pub struct Alert {
    options: AlertOptions,
    state: State,
    /// Whether the last reading said that the version which answers is not good enough.
    low: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Quiet,
    /// Too low, for not long enough yet. Another version's time counts anew.
    Low {
        version: u64,
        since: Duration,
    },
    Firing {
        since: Duration,
    },
}

impl Alert {
    /// A quiet one.
    pub fn new(options: AlertOptions) -> Self {
        Self { options, state: State::Quiet, low: false }
    }

    /// When it fires.
    pub fn options(&self) -> &AlertOptions {
        &self.options
    }

    /// Takes note of what is read at `now`, and says what that changes.
    pub fn next(&mut self, reading: &Reading, now: Duration) -> Option<Change> {
        let AlertOptions { below, clear, min_labels, hold, .. } = self.options;
        self.low = false;
        let value = reading.value.filter(|_| reading.labels >= min_labels)?;
        if let State::Firing { .. } = self.state {
            self.low = value < clear;
            if self.low {
                return None;
            }
            self.state = State::Quiet;
            return Some(Change::Resolved);
        }
        if value >= below {
            self.state = State::Quiet;
            return None;
        }
        let since = match self.state {
            State::Low { version, since } if version == reading.version => since,
            _ => now,
        };
        if now.saturating_sub(since) < hold {
            self.state = State::Low { version: reading.version, since };
            return None;
        }
        self.low = true;
        self.state = State::Firing { since: now };
        Some(Change::Firing)
    }

    /// Since when it fires; `None` while it is quiet.
    pub fn firing(&self) -> Option<Duration> {
        if let State::Firing { since } = self.state { Some(since) } else { None }
    }

    /// Whether it fires and the version that answers is itself what is not good enough, by labels of its own. A version that
    /// has just come is given time.
    pub fn wants_better(&self) -> bool {
        self.firing().is_some() && self.low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn options(hold: Duration) -> AlertOptions {
        AlertOptions {
            measure: AlertMeasure::Accuracy,
            below: 0.70,
            clear: 0.72,
            min_labels: 100,
            hold,
            webhook: None,
        }
    }

    fn reading(version: u64, labels: u64, value: f64) -> Reading {
        Reading { version, labels, value: Some(value) }
    }

    /// A version, its labels and the value; the change; whether it fires then.
    type Step = ((u64, u64, f64), Option<Change>, bool);

    /// Has an alert read these, one a second.
    fn follow(hold: Duration, steps: &[Step]) {
        let mut alert = Alert::new(options(hold));
        for (second, &((version, labels, value), change, firing)) in (1..).zip(steps) {
            let now = second * SECOND;
            assert_eq!(alert.next(&reading(version, labels, value), now), change, "second {second}");
            assert_eq!(alert.firing().is_some(), firing, "second {second}");
        }
    }

    #[test]
    fn it_fires_under_the_one_threshold_and_is_quiet_from_the_other_on() {
        follow(
            Duration::ZERO,
            &[
                ((1, 100, 0.70), None, false),
                ((1, 100, 0.699), Some(Change::Firing), true),
                ((1, 100, 0.71), None, true),
                ((1, 100, 0.60), None, true),
                ((1, 100, 0.72), Some(Change::Resolved), false),
                ((1, 100, 0.71), None, false),
                ((1, 100, 0.69), Some(Change::Firing), true),
            ],
        );
    }

    #[test]
    fn too_few_labels_change_nothing() {
        follow(
            Duration::ZERO,
            &[
                ((1, 99, 0.0), None, false),
                ((1, 100, 0.0), Some(Change::Firing), true),
                ((1, 99, 1.0), None, true),
                ((1, 0, 1.0), None, true),
                ((1, 100, 1.0), Some(Change::Resolved), false),
            ],
        );
        let mut alert = Alert::new(options(Duration::ZERO));
        let nothing = Reading { version: 1, labels: 1_000, value: None };
        assert_eq!(alert.next(&nothing, SECOND), None);
    }

    #[test]
    fn it_fires_only_once_the_same_version_has_been_too_low_for_long_enough() {
        follow(
            2 * SECOND,
            &[
                ((1, 100, 0.6), None, false),
                ((1, 100, 0.6), None, false),
                ((1, 100, 0.7), None, false),
                ((1, 100, 0.6), None, false),
                ((1, 100, 0.6), None, false),
                // What the one was says nothing of the other.
                ((2, 100, 0.6), None, false),
                ((2, 10, 0.9), None, false),
                ((2, 100, 0.6), Some(Change::Firing), true),
            ],
        );
    }

    #[test]
    fn a_version_that_takes_over_has_to_show_that_it_is_good() {
        let mut alert = Alert::new(options(Duration::ZERO));
        assert_eq!(alert.next(&reading(1, 100, 0.5), SECOND), Some(Change::Firing));
        assert!(alert.wants_better());
        assert_eq!(alert.next(&reading(2, 0, 0.0), 2 * SECOND), None);
        assert!(alert.firing() == Some(SECOND) && !alert.wants_better(), "it has no labels of its own yet");
        assert_eq!(alert.next(&reading(2, 100, 0.71), 3 * SECOND), None);
        assert!(alert.wants_better(), "it has, and they are not good");
        assert_eq!(alert.next(&reading(2, 100, 0.8), 4 * SECOND), Some(Change::Resolved));
        assert!(!alert.wants_better());
    }

    proptest! {
        #[test]
        fn changes_alternate_and_each_has_a_reason(
            readings in prop::collection::vec((1_u64..4, 0_u64..200, 0.6_f64..0.8), 1..200),
            hold in 0_u32..4,
        ) {
            let mut alert = Alert::new(options(hold * SECOND));
            let mut firing = false;
            for (second, (version, labels, value)) in (1..).zip(readings) {
                match alert.next(&reading(version, labels, value), second * SECOND) {
                    Some(Change::Firing) => {
                        prop_assert!(!firing && labels >= 100 && value < 0.70);
                        firing = true;
                    }
                    Some(Change::Resolved) => {
                        prop_assert!(firing && labels >= 100 && value >= 0.72);
                        firing = false;
                    }
                    None => {}
                }
                prop_assert_eq!(alert.firing().is_some(), firing);
                prop_assert!(firing || !alert.wants_better());
            }
        }
    }
}
