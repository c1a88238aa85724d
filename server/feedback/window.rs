//! How good the answers of a version were, by the time at which they were given. Pure: time is an argument.
//!
//! Labels come late, and positive ones often later than others or the other way round, so rows of the last minutes would
//! mislead whoever decides by them. Rows are counted by the time of their *prediction*, in steps; the mature window ends
//! where predictions have had `maturity` to get their label, the early one ends now and is for people to look at.
//!
//! ```text
//!     ├───────── mature window ─────────┤
//!                       ├───────── early window ─────────┤
//!  ───┴─────────────────┴───────────────┴────────────────┴──▶ time of prediction
//!   late                              now - maturity    now
//! ```

use std::{collections::VecDeque, ops::Range, time::Duration};

use crate::quality::{Durations, ScoreCounts};

/// The most steps that are kept, of some 7 KB each.
pub const MAX_STEPS: u64 = 1_024;

/// How a version's answers are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowOptions {
    /// What time is counted in.
    pub step: Duration,
    /// How much time is judged at once, in whole steps.
    pub window: Duration,
    /// How long a prediction waits for its label before it is judged.
    pub maturity: Duration,
    /// The score from which on the model says that the event happens.
    pub threshold: f32,
}

/// Why there cannot be such a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowFault {
    /// It is no number of steps.
    #[error(
        "the window must be a multiple of its step, and the step a whole number of milliseconds above zero"
    )]
    Step,
    /// It would take too much memory.
    #[error("the window and its maturity may take {MAX_STEPS} steps at most")]
    TooManySteps,
}

/// What became of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It counts.
    Counted,
    /// Its prediction is older than any window.
    Late,
}

/// Rows that were answered in a span of time, and those that have their label.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Rows that were answered with receipts, since the server started.
    pub predicted: u64,
    /// Labelled rows that were answered since then.
    pub covered: u64,
    /// Their scores beside their labels.
    pub scores: ScoreCounts,
    /// How long labels took.
    pub delays: Durations,
}

/// The windows of a version.
#[derive(Clone, Debug)]
pub struct Windows {
    options: WindowOptions,
    /// From when on rows that are answered are counted.
    since: Duration,
    /// Steps that are kept.
    kept: u64,
    /// Steps without a gap, the oldest first, from number `first`.
    steps: VecDeque<Judged>,
    first: u64,
}

impl WindowOptions {
    fn steps(&self, span: Duration) -> Option<u64> {
        let step = u64::try_from(self.step.as_millis()).ok().filter(|&step| step > 0)?;
        Some(u64::try_from(span.as_millis()).ok()?.div_ceil(step))
    }

    /// Fails where there cannot be such windows.
    pub fn check(&self) -> Result<(), WindowFault> {
        self.kept().map(drop)
    }

    /// Steps that are kept: those of both windows, and the one that has begun.
    fn kept(&self) -> Result<u64, WindowFault> {
        let window = self.steps(self.window).filter(|&steps| steps > 0 && self.is_whole(steps));
        let window = window.ok_or(WindowFault::Step)?;
        let maturity = self.steps(self.maturity).ok_or(WindowFault::Step)?;
        let kept = window.saturating_add(maturity).saturating_add(1);
        if kept > MAX_STEPS { Err(WindowFault::TooManySteps) } else { Ok(kept) }
    }

    /// Whether a row that was answered at `time` counts at `now`.
    pub(super) fn keeps(&self, time: Duration, now: Duration) -> bool {
        self.number(time) + self.kept().unwrap_or(0) > self.number(now)
    }

    /// The number of the step of `time`.
    fn number(&self, time: Duration) -> u64 {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // Every answer with a receipt comes by here, and dividing 128 bits is dear.
        (milliseconds(time) / milliseconds(self.step)).min(u64::MAX / 2)
    }

    /// The step before which rows are mature. A step is that as a whole: the one in which `now - maturity` lies has only begun.
    fn mature_end(&self, now: Duration) -> u64 {
        self.number(now.saturating_sub(self.maturity))
    }

    /// The time up to which rows are mature: whole steps.
    pub(super) fn mature_until(&self, now: Duration) -> Duration {
        let milliseconds = u64::try_from(self.step.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.mature_end(now).saturating_mul(milliseconds))
    }

    /// The first step that began at `time` or later.
    fn first_from(&self, time: Duration) -> u64 {
        let before = time.checked_sub(Duration::from_millis(1));
        before.map_or(0, |before| self.number(before) + 1)
    }

    fn is_whole(&self, steps: u64) -> bool {
        let whole = u32::try_from(steps).ok().and_then(|steps| self.step.checked_mul(steps));
        self.step.subsec_nanos().is_multiple_of(1_000_000) && whole == Some(self.window)
    }
}

impl Windows {
    /// No rows; whoever counts them has done so since `since`. Labels may be of rows that were answered before.
    pub fn new(options: WindowOptions, since: Duration) -> Result<Self, WindowFault> {
        let kept = options.kept()?;
        Ok(Self { options, since, kept, steps: VecDeque::new(), first: 0 })
    }

    /// The number of the step after the last one that has rows.
    pub(super) fn end(&self) -> u64 {
        self.first + self.steps.len() as u64
    }

    /// Whether nothing is left to judge at `now`.
    pub fn is_over(&self, now: Duration) -> bool {
        self.end() <= self.oldest(now)
    }

    /// Counts `rows` that were answered at `time`.
    pub fn predicted(&mut self, time: Duration, rows: u64, now: Duration) {
        if let Some(step) = self.step(time, now) {
            step.predicted += rows;
        }
    }

    /// Counts the label that came at `now` for a row that was answered at `time`.
    pub fn labelled(&mut self, time: Duration, score: f32, label: bool, now: Duration) -> Placed {
        let is_covered = time >= self.since;
        let Some(step) = self.step(time, now) else { return Placed::Late };
        step.covered += u64::from(is_covered);
        step.scores.add(score, label);
        step.delays.add(now.saturating_sub(time));
        Placed::Counted
    }

    /// Rows that have had time to get their label.
    pub fn mature(&self, now: Duration) -> Judged {
        self.judged(self.options.mature_end(now))
    }

    /// Rows of the steps that began within a span of time, as far as they are kept.
    pub fn between(&self, span: Range<Duration>) -> Judged {
        self.sum(self.options.first_from(span.start)..self.options.first_from(span.end))
    }

    /// The latest rows, labelled or not.
    pub fn early(&self, now: Duration) -> Judged {
        self.judged(self.options.number(now) + 1)
    }

    /// The rows of the window that ends before step `end`.
    fn judged(&self, end: u64) -> Judged {
        let length = self.options.steps(self.options.window).unwrap_or(0);
        self.sum(end.saturating_sub(length)..end)
    }

    fn sum(&self, numbers: Range<u64>) -> Judged {
        let steps = self.steps.iter().zip(self.first..).filter(|(_, number)| numbers.contains(number));
        let mut sum = Judged::new(self.options.threshold);
        steps.for_each(|(step, _)| sum.merge(step));
        sum
    }

    /// The step of `time`; `None` where it is not kept any more. One that is ahead of the clock counts as of now.
    fn step(&mut self, time: Duration, now: Duration) -> Option<&mut Judged> {
        let current = self.options.number(now);
        let oldest = (current + 1).saturating_sub(self.kept);
        // A clock that was far ahead has left steps of the future, and its rows are lost to any window.
        if self.end() <= oldest || self.first > current {
            self.steps.clear();
            self.first = oldest;
        }
        while self.first < oldest {
            self.steps.pop_front();
            self.first += 1;
        }
        let number = self.options.number(time).min(current).checked_sub(self.first)?;
        let number = usize::try_from(number).ok()?;
        while self.steps.len() <= number {
            self.steps.push_back(Judged::new(self.options.threshold));
        }
        self.steps.get_mut(number)
    }

    /// The number of the oldest step that is kept at `now`.
    fn oldest(&self, now: Duration) -> u64 {
        (self.options.number(now) + 1).saturating_sub(self.kept)
    }
}

impl Judged {
    fn new(threshold: f32) -> Self {
        Self { predicted: 0, covered: 0, scores: ScoreCounts::new(threshold), delays: Durations::default() }
    }

    fn merge(&mut self, other: &Self) {
        self.predicted += other.predicted;
        self.covered += other.covered;
        self.scores.merge(&other.scores);
        self.delays.merge(&other.delays);
    }

    /// The share of rows that have their label, of those since the server started. `None` where none was answered, or more are
    /// labelled than were, as when another replica answered them.
    pub fn coverage(&self) -> Option<f64> {
        let is_share = self.covered <= self.predicted && self.predicted > 0;
        is_share.then(|| self.covered as f64 / self.predicted as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const START: Duration = Duration::from_mins(29_916_667);

    fn options() -> WindowOptions {
        WindowOptions { step: MINUTE, window: 10 * MINUTE, maturity: 5 * MINUTE, threshold: 0.5 }
    }

    fn windows() -> Windows {
        Windows::new(options(), Duration::ZERO).expect("a window")
    }

    #[test]
    fn a_row_is_early_at_once_mature_after_its_time_and_gone_at_last() {
        let mut windows = windows();
        windows.predicted(START, 2, START);
        assert_eq!(windows.labelled(START, 0.75, true, START + MINUTE), Placed::Counted);
        let seen = |minutes: u32| {
            let now = START + minutes * MINUTE;
            let (early, mature) = (windows.early(now), windows.mature(now));
            ((early.predicted, early.scores.rows()), (mature.predicted, mature.scores.rows()))
        };
        assert_eq!(seen(1), ((2, 1), (0, 0)));
        assert_eq!(seen(5), ((2, 1), (0, 0)), "its minute is not over five minutes ago");
        assert_eq!(seen(6), ((2, 1), (2, 1)));
        assert_eq!(seen(10), ((0, 0), (2, 1)), "no longer of the last ten minutes");
        assert_eq!(seen(15), ((0, 0), (2, 1)));
        assert_eq!(seen(16), ((0, 0), (0, 0)));
    }

    #[test]
    fn rows_of_a_span_are_those_of_whole_steps_in_it_and_spans_add_up() {
        let mut windows = windows();
        for minutes in 0..4 {
            windows.labelled(START + minutes * MINUTE, 0.75, true, START + 4 * MINUTE);
        }
        let rows = |from: Duration, to: Duration| windows.between(from..to).scores.rows();
        assert_eq!((rows(START, START + 9 * MINUTE), rows(START + MINUTE, START + 9 * MINUTE)), (4, 3));
        let late = START + MINUTE + Duration::from_millis(1);
        assert_eq!(
            (rows(START, late), rows(late, START + 9 * MINUTE)),
            (2, 2),
            "each is in one of two spans"
        );
        assert_eq!((rows(Duration::ZERO, START), rows(START + 4 * MINUTE, Duration::MAX)), (0, 0));
        assert_eq!(options().mature_until(START + 7 * MINUTE + Duration::from_secs(59)), START + 2 * MINUTE);
    }

    #[test]
    fn a_label_corrects_a_mature_window_until_it_is_over_and_is_late_then() {
        let mut windows = windows();
        windows.predicted(START, 1, START);
        let now = START + 15 * MINUTE;
        assert_eq!(windows.labelled(START, 0.75, true, now), Placed::Counted);
        assert_eq!(windows.mature(now).coverage(), Some(1.0));
        assert_eq!(windows.labelled(START, 0.75, true, now + MINUTE), Placed::Late);
        assert_eq!(windows.mature(now + MINUTE).scores.rows(), 0);
    }

    #[test]
    fn a_clock_that_is_ahead_counts_as_now_and_one_that_goes_back_loses_nothing() {
        let mut windows = windows();
        windows.labelled(START + 3 * MINUTE, 0.5, true, START);
        assert_eq!(windows.early(START).scores.rows(), 1);
        assert_eq!(
            windows.labelled(START.saturating_sub(2 * MINUTE), 0.5, true, START.saturating_sub(MINUTE)),
            Placed::Counted
        );
        assert_eq!(windows.early(START).scores.rows(), 2);
    }

    #[test]
    fn what_is_more_than_was_answered_here_is_no_coverage() {
        let mut windows = windows();
        windows.labelled(START, 0.5, true, START);
        assert_eq!(windows.early(START).coverage(), None);
    }

    #[test]
    fn a_clock_that_was_hours_ahead_does_not_stop_the_windows() {
        let mut windows = windows();
        windows.labelled(START, 0.5, true, START + 600 * MINUTE);
        windows.predicted(START + 600 * MINUTE, 1, START + 600 * MINUTE);
        windows.predicted(START, 1, START);
        assert_eq!(windows.labelled(START, 0.5, true, START), Placed::Counted);
        assert_eq!((windows.early(START).predicted, windows.early(START).scores.rows()), (1, 1));
    }

    #[test]
    fn rows_from_before_the_start_have_no_part_in_the_coverage() {
        let mut windows = Windows::new(options(), START).expect("a window");
        windows.labelled(START.saturating_sub(MINUTE), 0.5, true, START);
        assert_eq!(windows.early(START).coverage(), None);
        windows.predicted(START, 2, START);
        assert_eq!(windows.early(START).coverage(), Some(0.0));
        windows.labelled(START, 0.5, true, START);
        let early = windows.early(START);
        assert_eq!((early.coverage(), early.scores.rows()), (Some(0.5), 2));
    }

    #[test]
    fn windows_are_over_when_their_last_row_is() {
        let mut windows = windows();
        assert!(windows.is_over(START));
        windows.predicted(START, 1, START);
        assert!(!windows.is_over(START + 15 * MINUTE));
        assert!(windows.is_over(START + 16 * MINUTE));
        assert!(options().keeps(START, START + 15 * MINUTE) && !options().keeps(START, START + 16 * MINUTE));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for (options, fault) in [
            (WindowOptions { step: Duration::ZERO, ..options() }, WindowFault::Step),
            (WindowOptions { step: Duration::from_micros(1_500), ..options() }, WindowFault::Step),
            (WindowOptions { step: 3 * MINUTE, ..options() }, WindowFault::Step),
            (WindowOptions { window: Duration::ZERO, ..options() }, WindowFault::Step),
            (WindowOptions { maturity: 2_000 * MINUTE, ..options() }, WindowFault::TooManySteps),
            (WindowOptions { maturity: Duration::MAX, ..options() }, WindowFault::Step),
        ] {
            assert_eq!(Windows::new(options, START).map(|_| ()), Err(fault), "{options:?}");
        }
    }

    proptest! {
        #[test]
        fn windows_hold_what_a_list_of_all_rows_says_however_labels_come(
            // Minutes from one label to the next, and how long ago its row was answered.
            rows in prop::collection::vec((0u32..3, 0u32..25, 0.0f32..=1.0, any::<bool>()), 1..200),
        ) {
            let mut windows = windows();
            let mut all = Vec::new();
            let mut now = START + 100 * MINUTE;
            for (later, ago, score, label) in rows {
                now += later * MINUTE;
                let time = now.saturating_sub(ago * MINUTE);
                let taken = windows.labelled(time, score, label, now);
                prop_assert_eq!(taken == Placed::Counted, ago <= 15);
                all.push((time, score, label, taken));
                let minute = |time: Duration| time.as_secs() / 60;
                let of = |minutes: Range<u64>| {
                    let mut counts = ScoreCounts::new(0.5);
                    let rows = all.iter().filter(|(time, .., taken)| {
                        *taken == Placed::Counted && minutes.contains(&minute(*time))
                    });
                    rows.for_each(|&(_, score, label, _)| counts.add(score, label));
                    (counts.rows(), counts.positives(), counts.auc())
                };
                let found = |judged: Judged| (judged.scores.rows(), judged.scores.positives(), judged.scores.auc());
                let current = minute(now);
                prop_assert_eq!(found(windows.early(now)), of(current - 9..current + 1));
                prop_assert_eq!(found(windows.mature(now)), of(current - 15..current - 5));
            }
        }
    }
}
