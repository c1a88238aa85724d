//! What is measured of an id's past, as the pipeline declares it, and the arithmetic: pure functions of events that
//! all happened before the moment for which they are asked.

use millrace::features::{RawKind, Transform};
use serde::Deserialize;

use crate::calendar::DAY_SECONDS;

/// One history feature.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryConfig {
    /// What it is called in the schema; callers never send it.
    pub name: String,
    /// The features by whose ids it is found: one, or two for a pair. Both need a vocabulary.
    pub of: Vec<String>,
    /// The column of the log that is looked at, where the measure takes one.
    pub column: Option<String>,
    /// What is measured.
    pub measure: Measure,
}

/// What is measured. Rows of one user, item and moment are one purchase.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Measure {
    /// `ln(1 + purchases)` of the last days.
    Count {
        /// How many days.
        window_days: u32,
    },
    /// `ln(1 + distinct users)` of the last days.
    Buyers {
        /// How many days.
        window_days: u32,
    },
    /// The logarithm of the ratio of the purchases of the last days to those that the days before them, and they
    /// themselves, let one expect; one is added to both.
    Trend {
        /// The last days.
        window_days: u32,
        /// The longer stretch that is expected to go on.
        base_days: u32,
    },
    /// `ln(1 + days)` since the last purchase.
    Recency,
    /// `ln(1 + days)` since the first purchase.
    Age,
    /// The mean over the purchases of `ln(1 + x)` of the number in the column.
    MeanLog,
    /// How alike the second feature's id is to what the first feature's id was seen with. Two are alike where the same
    /// ids were seen with both, or, with a column of texts, where they are described by the same words.
    Affinity {
        /// The most similar ids that are kept for each.
        neighbours: usize,
        /// Only what was seen in the last days counts as seen with; all of it without.
        window_days: Option<u32>,
    },
}

/// A purchase, by codes of the log, and the first row that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub(super) time: i64,
    pub(super) user: u32,
    pub(super) item: u32,
    pub(super) row: usize,
}

impl HistoryConfig {
    /// What is wrong with it, if anything is.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let wanted = if matches!(self.measure, Measure::Affinity { .. }) { 2..=2 } else { 1..=2 };
        if !wanted.contains(&self.of.len()) {
            return Some("features.history: `of` needs one or two features, and two for an affinity");
        }
        match (self.measure, &self.column) {
            (Measure::MeanLog, None) => return Some("features.history: mean_log needs a column of numbers"),
            (Measure::MeanLog | Measure::Affinity { .. }, _) | (_, None) => {}
            _ => return Some("features.history: only mean_log and affinity look at a column"),
        }
        let sound = match self.measure {
            Measure::Count { window_days } | Measure::Buyers { window_days } => window_days > 0,
            Measure::Trend { window_days, base_days } => window_days > 0 && base_days > window_days,
            Measure::Affinity { neighbours, window_days } => {
                (1..=MOST_NEIGHBOURS).contains(&neighbours) && window_days != Some(0)
            }
            Measure::Recency | Measure::Age | Measure::MeanLog => true,
        };
        (!sound).then_some(
            "features.history: days must be above 0, base_days above window_days, neighbours 1 to 1000",
        )
    }

    /// The column that it looks at, and what is in there.
    pub(crate) fn measured(&self) -> Option<(String, RawKind)> {
        let kind = if matches!(self.measure, Measure::MeanLog) { RawKind::Number } else { RawKind::Id };
        self.column.as_ref().map(|column| (column.clone(), kind))
    }
}

impl Measure {
    /// The value for an id of which nothing is known; `None` stands for the mean of the others.
    pub(super) fn absent(self) -> Option<f32> {
        match self {
            Self::Recency => Some(NEVER_DAYS.ln_1p()),
            Self::MeanLog => None,
            _ => Some(0.0),
        }
    }

    /// The value at `moment`, a second since 1970, after `events`, which are distinct and ascend; `numbers` are those of
    /// the column by row, NaN where one is missing. NaN where there is no number to take the mean of.
    #[expect(clippy::cast_possible_truncation, reason = "inputs are single precision")]
    pub(super) fn value(self, events: &[Event], moment: i64, numbers: &[f64]) -> f32 {
        let value = match self {
            Self::Count { window_days } => (since(events, moment, window_days).len() as f64).ln_1p(),
            Self::Buyers { window_days } => {
                let mut users: Vec<u32> =
                    since(events, moment, window_days).iter().map(|event| event.user).collect();
                users.sort_unstable();
                users.dedup();
                (users.len() as f64).ln_1p()
            }
            Self::Trend { window_days, base_days } => {
                let recent = since(events, moment, window_days).len() as f64;
                let base = since(events, moment, base_days).len() as f64;
                let expected = base * f64::from(window_days) / f64::from(base_days);
                ((recent + 1.0) / (expected + 1.0)).ln()
            }
            Self::Recency => events.last().map_or(f64::from(NEVER_DAYS.ln_1p()), |event| age(event, moment)),
            Self::Age => events.first().map_or(0.0, |event| age(event, moment)),
            Self::MeanLog => {
                let there =
                    || events.iter().map(|event| numbers[event.row]).filter(|number| !number.is_nan());
                there().map(|number| Transform::Log.apply(number)).sum::<f64>() / there().count() as f64
            }
            Self::Affinity { .. } => 0.0,
        };
        value as f32
    }
}

/// The events of the last `days` before `moment`.
fn since(events: &[Event], moment: i64, days: u32) -> &[Event] {
    let start = moment.saturating_sub(i64::from(days) * DAY_SECONDS);
    &events[events.partition_point(|event| event.time < start)..]
}

fn age(event: &Event, moment: i64) -> f64 {
    ((moment - event.time).max(0) as f64 / DAY_SECONDS as f64).ln_1p()
}

/// What "never" counts as.
const NEVER_DAYS: f32 = 1000.0;
/// The most similar ids that may be kept: a lookup may walk as many.
const MOST_NEIGHBOURS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Four purchases of one item on days 0, 10, 20 and 29 by users 1, 1, 2, 1.
    fn events() -> Vec<Event> {
        let event =
            |(day, user, row): (i64, u32, usize)| Event { time: day * DAY_SECONDS, user, item: 1, row };
        [(0, 1, 0), (10, 1, 1), (20, 2, 2), (29, 1, 3)].map(event).to_vec()
    }

    fn near(measure: Measure, expected: f64) {
        let found = f64::from(measure.value(&events(), 30 * DAY_SECONDS, &[1.0, 3.0, f64::NAN, 0.0]));
        assert!((found - expected).abs() < 1e-6, "{measure:?}: {found} is not {expected}");
    }

    #[test]
    fn windows_end_at_the_moment_and_their_first_second_is_inside() {
        near(Measure::Count { window_days: 10 }, 3_f64.ln());
        near(Measure::Count { window_days: 9 }, 2_f64.ln());
        near(Measure::Count { window_days: 365 }, 5_f64.ln());
        near(Measure::Buyers { window_days: 365 }, 3_f64.ln());
    }

    #[test]
    fn a_trend_compares_with_what_the_longer_stretch_lets_expect() {
        near(Measure::Trend { window_days: 10, base_days: 30 }, (3.0 / (4.0 / 3.0 + 1.0_f64)).ln());
    }

    #[test]
    fn a_mean_is_over_the_numbers_that_are_there() {
        near(Measure::MeanLog, (2_f64.ln() + 4_f64.ln()) / 3.0);
        assert!(Measure::MeanLog.value(&events()[2..3], 0, &[0.0, 0.0, f64::NAN]).is_nan());
    }

    #[test]
    fn recency_and_age_are_days_since_the_last_and_the_first() {
        near(Measure::Recency, 2_f64.ln());
        near(Measure::Age, 31_f64.ln());
    }

    #[test]
    fn without_events_every_measure_is_absent() {
        for measure in [Measure::Recency, Measure::Age, Measure::Count { window_days: 3 }] {
            assert_eq!(Some(measure.value(&[], 0, &[])), measure.absent());
        }
        assert!(Measure::Recency.absent() > Some(6.0));
    }
}
