//! The rows of a version that were looked at lately, and how far they lie from its training rows. Pure: time is an
//! argument.
//!
//! What is kept is counts in the reference's bins, a set for each of [`STEPS`] steps of the window and one for the step that
//! has begun, so memory is bounded whatever comes, and a window is a sum.

use std::{collections::VecDeque, iter, time::Instant};

use super::Subject;
use crate::{
    features::Value,
    quality::{Counts, Distribution, Tally, psi, psi_by_chance},
};

/// What a window is counted in.
const STEPS: u128 = 60;

/// The rows of a version in the last so much time.
#[derive(Debug)]
pub(super) struct Window {
    began: Instant,
    /// In order, without those that have no rows.
    steps: VecDeque<Step>,
}

#[derive(Debug)]
struct Step {
    number: u128,
    scored: Sampled,
    seen: Sampled,
    tally: Tally,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sampled {
    /// Requests.
    pub(super) requests: u64,
    /// Their rows that were drawn.
    pub(super) rows: u64,
}

/// How far rows lie from the training rows.
#[derive(Debug, PartialEq)]
pub(super) struct Moved {
    /// Whose scores count.
    pub(super) scored: Sampled,
    /// Whose values count.
    pub(super) seen: Sampled,
    /// Of the scores; `None` where there is too little to say.
    pub(super) score: Option<Index>,
    /// Of each feature that is watched.
    pub(super) features: Vec<MovedFeature>,
}

/// How far the values of a feature lie from those of the training rows.
#[derive(Debug, PartialEq)]
pub(super) struct MovedFeature {
    /// `None` where there is too little to say.
    pub(super) index: Option<Index>,
    /// The shares of unknown ids, live and in training, where the feature has a vocabulary.
    pub(super) unknown: Option<Shares>,
    /// The shares of missing values.
    pub(super) missing: Shares,
}

/// A population stability index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Index {
    /// The index.
    pub(super) psi: f64,
    /// What it would be on the mean if nothing had moved.
    pub(super) by_chance: f64,
}

/// The same share twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    /// Of the rows that were looked at; `None` where they are too few to say.
    pub(super) live: Option<f64>,
    /// Of the training rows.
    pub(super) training: f64,
}

impl Window {
    /// No rows, from `now` on.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, steps: VecDeque::new() }
    }

    /// Counts the rows of a request: `scores`, and the values of as many rows, or of none where they are not known.
    pub(super) fn count(&mut self, subject: &Subject, scores: &[f32], rows: &[Vec<Value>], now: Instant) {
        let step = self.step(subject, now);
        step.scored.add(scores.len());
        step.seen.add(rows.len());
        let (reference, observer) = (subject.reference(), subject.observer());
        for &score in scores {
            step.tally.add_score(reference, score);
        }
        for row in rows {
            step.tally.add_row((reference, observer), row.iter().map(Value::raw));
        }
    }

    /// How far the rows of the last so much time have moved.
    pub(super) fn moved(&self, subject: &Subject, now: Instant) -> Moved {
        let reference = subject.reference();
        let current = self.number(subject, now);
        let mut tally = Tally::new(reference);
        let (mut scored, mut seen) = (Sampled::default(), Sampled::default());
        for step in self.steps.iter().filter(|step| step.number + STEPS >= current) {
            tally.merge(&step.tally);
            scored.merge(step.scored);
            seen.merge(step.seen);
        }
        let enough = |sampled: Sampled| sampled.requests >= subject.options().min_requests;
        let covers = subject.options().window.min(now.saturating_duration_since(self.began));
        let features = iter::zip(&reference.features, tally.features()).zip(subject.cycles());
        let features = features.map(|((feature, found), cycle)| {
            let is_whole = cycle.is_none_or(|cycle| covers >= cycle);
            MovedFeature::of(&feature.distribution, found, (enough(seen), is_whole))
        });
        Moved {
            scored,
            seen,
            score: enough(scored).then(|| Index::of(&reference.score.counts, tally.score())).flatten(),
            features: features.collect(),
        }
    }

    fn number(&self, subject: &Subject, now: Instant) -> u128 {
        let step = (subject.options().window.as_nanos() / STEPS).max(1);
        now.saturating_duration_since(self.began).as_nanos() / step
    }

    fn step(&mut self, subject: &Subject, now: Instant) -> &mut Step {
        let number = self.number(subject, now);
        while self.steps.front().is_some_and(|step| step.number + STEPS < number) {
            self.steps.pop_front();
        }
        if self.steps.back().is_none_or(|step| step.number < number) {
            let tally = Tally::new(subject.reference());
            self.steps.push_back(Step {
                number,
                scored: Sampled::default(),
                seen: Sampled::default(),
                tally,
            });
        }
        self.steps.back_mut().expect("pushed where there was none")
    }
}

impl Sampled {
    fn add(&mut self, rows: usize) {
        self.requests += u64::from(rows > 0);
        self.rows += rows as u64;
    }

    fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.rows += other.rows;
    }
}

impl MovedFeature {
    fn of(
        Distribution { bins, counts }: &Distribution,
        found: &Counts,
        (is_enough, is_whole): (bool, bool),
    ) -> Self {
        let shares = |bin| Shares { live: is_enough.then(|| found.share(bin)), training: counts.share(bin) };
        Self {
            index: (is_enough && is_whole).then(|| Index::of(counts, found)).flatten(),
            unknown: bins.unknown().map(shares),
            missing: shares(bins.missing()),
        }
    }
}

impl Index {
    fn of(expected: &Counts, found: &Counts) -> Option<Self> {
        Some(Self { psi: psi(expected, found)?, by_chance: psi_by_chance(expected, found)? })
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        drift::DriftOptions,
        features::{Encoder, Schema, Vocabulary},
        quality::{Bins, FeatureReference, Reference, Seen},
    };

    const HOUR: Duration = Duration::from_hours(1);

    /// Users `0` to `99`, ages from 20 to 59, hours of the day, and scores from 0 to 1, all spread evenly.
    fn subject(window: Duration) -> Subject {
        let schema: Schema = toml::from_str(
            r#"feature = [
              { name = "user", kind = "categorical", source = "vocabulary" },
              { name = "age", kind = "numeric", mean = 40.0, std = 10.0, optional = true },
              { name = "at", kind = "categorical", source = "hour_of_day" },
            ]"#,
        )
        .expect("a schema");
        let users: Vec<String> = (0..100).map(|user| user.to_string()).collect();
        let known = Vocabulary::new(users.iter().map(String::as_str)).expect("different ids");
        let encoder = Encoder::new(schema, |_| Ok(known.clone())).expect("a layout");
        let evenly = |count: u32, of: fn(u32) -> Seen<'static>| (0..count).map(of);
        let feature = |name: &str, distribution| FeatureReference { name: name.into(), distribution };
        let ids = users.iter().map(|id| Seen::Id { id, is_known: true });
        let reference = Reference {
            rows: 1_000,
            score: Distribution::of(
                Bins::Boundaries(vec![0.25, 0.5, 0.75]),
                evenly(1_000, |row| Seen::Number(f64::from(row) / 1e3)),
            ),
            features: vec![
                feature("user", Distribution::of(Bins::Ids(users[..20].to_vec()), ids.cycle().take(1_000))),
                feature(
                    "age",
                    Distribution::of(
                        Bins::Boundaries(vec![30.0, 40.0, 50.0]),
                        evenly(1_000, |row| Seen::Number(f64::from(20 + row % 40))),
                    ),
                ),
                feature("at", Distribution::of(Bins::Parts(24), evenly(960, |row| Seen::Part(row % 24)))),
            ],
        };
        let options = DriftOptions { rows_per_second: NonZeroU32::MIN, window, min_requests: 100 };
        Subject::new(("shop", 1), Arc::new(encoder), reference, options).expect("of these features")
    }

    /// Row `number` of as many as the training had, at 8 o'clock.
    fn row(number: i64) -> (f32, Vec<Value>) {
        #[expect(clippy::cast_possible_truncation, reason = "of a thousand")]
        let score = ((number * 7 % 1_000) as f64 / 1e3) as f32;
        (score, vec![Value::Int(number % 100), Value::Int(20 + number % 40), Value::Int(8 * 3_600)])
    }

    fn count(
        window: &mut Window,
        subject: &Subject,
        rows: impl Iterator<Item = (f32, Vec<Value>)>,
        now: Instant,
    ) {
        rows.for_each(|(score, row)| window.count(subject, &[score], &[row], now));
    }

    /// How far beyond chance each feature's index is, and the score's.
    fn beyond_chance(moved: &Moved) -> Vec<Option<f64>> {
        let indexes = moved.features.iter().map(|feature| feature.index).chain([moved.score]);
        indexes.map(|index| index.map(|Index { psi, by_chance }| psi - by_chance)).collect()
    }

    #[test]
    fn rows_like_those_of_the_training_have_not_moved_and_an_hour_says_nothing_of_less_than_a_day() {
        let (subject, now) = (subject(HOUR), Instant::now());
        let mut window = Window::new(now);
        count(&mut window, &subject, (0..1_000).map(row), now);
        let moved = window.moved(&subject, now);
        let found = beyond_chance(&moved);
        let [Some(user), Some(age), None, Some(score)] = found[..] else { panic!("{found:?}") };
        assert!([user, age, score].iter().all(|index| index.abs() < 0.05), "{found:?}");
        assert_eq!(moved.features[0].unknown, Some(Shares { live: Some(0.0), training: 0.0 }));
        assert_eq!(moved.features[1].missing, Shares { live: Some(0.0), training: 0.0 });
        assert_eq!((moved.features[1].unknown, moved.features[2].unknown), (None, None));
    }

    #[test]
    fn the_feature_whose_values_move_is_the_one_that_is_told() {
        let (subject, now) = (subject(HOUR), Instant::now());
        let older = (0..1_000).map(|number| {
            let (score, mut values) = row(number);
            values[1] = Value::Int(40 + number % 40);
            (score, values)
        });
        let mut window = Window::new(now);
        count(&mut window, &subject, older, now);
        let found = beyond_chance(&window.moved(&subject, now));
        let [Some(user), Some(age), None, Some(score)] = found[..] else { panic!("{found:?}") };
        assert!(age > 1.0 && user < 0.05 && score < 0.05, "{found:?}");
    }

    #[test]
    fn unknown_ids_and_missing_values_are_told_apart() {
        let (subject, now) = (subject(HOUR), Instant::now());
        let strange = (0..1_000).map(|number| {
            let (score, mut values) = row(number);
            match number % 5 {
                0 => values[0] = Value::Int(1_000 + number),
                1 => values[1] = Value::Missing,
                _ => {}
            }
            (score, values)
        });
        let mut window = Window::new(now);
        count(&mut window, &subject, strange, now);
        let moved = window.moved(&subject, now);
        assert_eq!(moved.features[0].unknown.and_then(|shares| shares.live), Some(0.2));
        let missing: Vec<_> = moved.features.iter().map(|feature| feature.missing.live).collect();
        assert_eq!(missing, [Some(0.0), Some(0.2), Some(0.0)]);
    }

    #[test]
    fn too_few_requests_say_nothing_however_many_rows_they_have() {
        let (subject, now) = (subject(HOUR), Instant::now());
        let mut window = Window::new(now);
        let (scores, rows): (Vec<f32>, Vec<Vec<Value>>) = (0..50).map(row).unzip();
        for request in 1..=100 {
            assert_eq!(
                beyond_chance(&window.moved(&subject, now)),
                [None; 4],
                "after {} requests",
                request - 1
            );
            window.count(&subject, &scores, &rows, now);
        }
        let moved = window.moved(&subject, now);
        assert_eq!(moved.seen, Sampled { requests: 100, rows: 5_000 });
        assert!(moved.score.is_some() && moved.features[0].index.is_some());
    }

    #[test]
    fn rows_that_came_encoded_show_their_scores_alone() {
        let (subject, now) = (subject(HOUR), Instant::now());
        let mut window = Window::new(now);
        (0..1_000).map(row).for_each(|(score, _)| window.count(&subject, &[score], &[], now));
        let moved = window.moved(&subject, now);
        assert_eq!((moved.scored.rows, moved.seen), (1_000, Sampled::default()));
        assert!(moved.score.is_some());
        assert_eq!(moved.features[0].index, None);
        assert_eq!(moved.features[0].missing.live, None);
    }

    #[test]
    fn rows_leave_the_window_in_time_and_take_no_more_memory_than_its_steps() {
        let (subject, start) = (subject(HOUR), Instant::now());
        let mut window = Window::new(start);
        for minute in 0..200 {
            count(&mut window, &subject, (0..10).map(row), start + minute * Duration::from_mins(1));
        }
        assert_eq!(window.steps.len(), 61);
        let rows = |minute: u32| window.moved(&subject, start + minute * Duration::from_mins(1)).scored.rows;
        assert_eq!([rows(199), rows(200), rows(259), rows(260)], [610, 600, 10, 0]);
        // A pause that is longer than the window leaves nothing behind.
        count(&mut window, &subject, (0..10).map(row), start + 100 * HOUR);
        assert_eq!(window.steps.len(), 1);
    }

    #[test]
    fn hours_say_something_once_a_whole_day_was_looked_at() {
        let day = 24 * HOUR;
        let (subject, start) = (subject(day), Instant::now());
        let mut window = Window::new(start);
        for hour in 0..24 {
            let rows = (0..40).map(|number| {
                let (score, mut values) = row(number);
                values[2] = Value::Int(i64::from(hour) * 3_600);
                (score, values)
            });
            count(&mut window, &subject, rows, start + hour * HOUR);
        }
        let at = |now| beyond_chance(&window.moved(&subject, now))[2];
        assert_eq!(at(start + 23 * HOUR), None);
        let found = at(start + day).expect("a day is over");
        assert!(found.abs() < 0.05, "{found}");
    }
}
