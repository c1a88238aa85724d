//! Whether two versions differ, or only their held-out rows make it look so: the rows are drawn again and again, with
//! replacement, and both versions are judged on each draw. That they are judged on the same one is what makes the
//! differences telling: what is hard about a draw is hard for both.
//!
//! Rows of one user are alike, so where rows have users whole users are drawn. Otherwise an interval would be too narrow.
//!
//! Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, the percentile interval; Field and Welsh, 2007,
//! for clusters.

use std::{collections::HashMap, num::NonZeroU32};

use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::random::{Purpose, random};

/// How often rows are drawn, and from which randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The number of draws.
    pub resamples: NonZeroU32,
    /// The seed; with it an interval is the same at any number of threads.
    pub seed: u64,
}

/// The rows that both versions score.
#[derive(Clone, Copy, Debug)]
pub struct PairedRows<'a> {
    /// What happened.
    pub labels: &'a [bool],
    /// Whose row it is; empty where rows are drawn one by one.
    pub users: &'a [u32],
    /// The scores of the version and of the one that it is held against.
    pub scores: [&'a [f32]; 2],
    /// From which score on a row is called positive.
    pub threshold: f32,
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Single rows.
    Rows,
    /// Users, with all of their rows.
    Users,
}

/// How far two versions lie apart, the version less the one that it is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What was drawn.
    pub unit: Unit,
    /// How many of them there are, which is how many a draw has.
    pub units: usize,
    /// The number of draws.
    pub resamples: NonZeroU32,
    /// The seed.
    pub seed: u64,
    /// Of the area under the ROC curve.
    pub auc: Difference,
    /// Of the share of rows on the right side of the threshold.
    pub accuracy: Difference,
    /// Of the mean negative log likelihood, where less is better.
    pub log_loss: Difference,
    /// Of the Brier score, where less is better.
    pub brier: Difference,
}

/// A difference and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// On the held-out rows as they are.
    pub value: f64,
    /// The interval that holds 95 % of the draws' differences.
    pub interval: [f64; 2],
    /// The draws that have one: a draw of one label has no AUC.
    pub resamples: usize,
}

impl Difference {
    /// Whether the interval leaves out 0, so that it is not by chance alone that the versions differ.
    pub fn is_clear(&self) -> bool {
        let [low, high] = self.interval;
        low > 0.0 || high < 0.0
    }
}

impl Bootstrap {
    /// The differences over `rows`. `None` unless both labels occur and at least one draw has both.
    pub fn compare(&self, rows: &PairedRows<'_>) -> Option<Comparison> {
        let (unit, unit_of, units) = units(rows);
        let curves = rows.scores.map(|scores| Ranked::of(scores, rows.labels, &unit_of));
        let means = UnitMeans::of(rows, &unit_of, units);
        let measure = |weights: &[u32]| {
            let [auc, against] = [&curves[0], &curves[1]].map(|curve| curve.auc(weights));
            (auc.zip(against).map(|(auc, against)| auc - against), means.differences(weights))
        };
        let draws: Vec<(Option<f64>, [f64; 3])> = (0..self.resamples.get())
            .into_par_iter()
            .map_init(
                || vec![0; units],
                |weights, round| {
                    self.draw(round, weights);
                    measure(weights)
                },
            )
            .collect();
        let (auc, [accuracy, log_loss, brier]) = measure(&vec![1; units]);
        let mean = |at: usize, value| difference(value, draws.iter().map(|draw| draw.1[at]).collect());
        Some(Comparison {
            unit,
            units,
            resamples: self.resamples,
            seed: self.seed,
            auc: difference(auc?, draws.iter().filter_map(|draw| draw.0).collect())?,
            accuracy: mean(0, accuracy)?,
            log_loss: mean(1, log_loss)?,
            brier: mean(2, brier)?,
        })
    }

    /// How often each unit is drawn in a round: each round has a stream of its own, whichever thread runs it.
    fn draw(&self, round: u32, weights: &mut [u32]) {
        let mut draws = random(self.seed, Purpose::Bootstrap, round as usize);
        weights.fill(0);
        for _ in 0..weights.len() {
            weights[draws.random_range(0..weights.len())] += 1;
        }
    }
}

/// The unit of each row, from 0, and how many there are.
fn units(rows: &PairedRows<'_>) -> (Unit, Vec<u32>, usize) {
    let count = rows.labels.len();
    if rows.users.is_empty() {
        return (Unit::Rows, (0..).take(count).collect(), count);
    }
    assert_eq!(rows.users.len(), count, "a user a row");
    let mut seen = HashMap::new();
    let numbered = rows.users.iter().map(|user| {
        let next = u32::try_from(seen.len()).expect("no more users than numbers for them");
        *seen.entry(user).or_insert(next)
    });
    let unit_of = numbered.collect();
    (Unit::Users, unit_of, seen.len())
}

/// Rows in the order of their scores, sorted once for all draws.
struct Ranked {
    rows: Vec<RankedRow>,
}

struct RankedRow {
    unit: u32,
    label: bool,
    /// Whether the next row has a higher score, or there is none.
    ends_tie: bool,
}

impl Ranked {
    fn of(scores: &[f32], labels: &[bool], unit_of: &[u32]) -> Self {
        assert_eq!(scores.len(), labels.len(), "a label a score");
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let row = |(at, &row): (usize, &usize)| RankedRow {
            unit: unit_of[row],
            label: labels[row],
            ends_tie: order.get(at + 1).is_none_or(|&next| scores[next] > scores[row]),
        };
        Self { rows: order.iter().enumerate().map(row).collect() }
    }

    /// The AUC where each unit counts as often as `weights` says: the weight of the pairs in the right order, those of
    /// equal scores half, in whole numbers so that nothing depends on the order of a sum.
    fn auc(&self, weights: &[u32]) -> Option<f64> {
        let (mut positives, mut negatives_below, mut twice_right) = (0_u64, 0_u64, 0_u128);
        let mut tied = [0_u64; 2];
        for row in &self.rows {
            tied[usize::from(row.label)] += u64::from(weights[row.unit as usize]);
            if row.ends_tie {
                let [negative, positive] = tied;
                twice_right += u128::from(positive) * u128::from(2 * negatives_below + negative);
                positives += positive;
                negatives_below += negative;
                tied = [0; 2];
            }
        }
        let pairs = u128::from(positives) * u128::from(negatives_below);
        (pairs > 0).then(|| twice_right as f64 / (2 * pairs) as f64)
    }
}

/// For each unit its rows, and the sums over them of what the versions differ by.
struct UnitMeans {
    units: Vec<(u32, [f64; 3])>,
}

impl UnitMeans {
    fn of(rows: &PairedRows<'_>, unit_of: &[u32], count: usize) -> Self {
        let mut units = vec![(0, [0.0; 3]); count];
        for (row, &label) in rows.labels.iter().enumerate() {
            let [version, against] = rows.scores.map(|scores| losses(scores[row], label, rows.threshold));
            let (rows, sums) = &mut units[unit_of[row] as usize];
            *rows += 1;
            for (sum, (version, against)) in sums.iter_mut().zip(version.into_iter().zip(against)) {
                *sum += version - against;
            }
        }
        Self { units }
    }

    fn differences(&self, weights: &[u32]) -> [f64; 3] {
        let (mut all, mut sums) = (0_u64, [0.0; 3]);
        for ((rows, differences), &weight) in self.units.iter().zip(weights) {
            all += u64::from(*rows) * u64::from(weight);
            for (sum, difference) in sums.iter_mut().zip(differences) {
                *sum += difference * f64::from(weight);
            }
        }
        sums.map(|sum| sum / all.max(1) as f64)
    }
}

/// What one row adds to accuracy, log loss and Brier score, by the definitions of [`millrace::quality`].
fn losses(score: f32, label: bool, threshold: f32) -> [f64; 3] {
    use millrace::quality::{accuracy, brier, log_loss};
    let (scores, labels) = ([score], [label]);
    [accuracy(&scores, &labels, threshold), log_loss(&scores, &labels), brier(&scores, &labels)]
        .map(|figure| figure.expect("there is a row"))
}

/// `None` without a draw.
fn difference(value: f64, mut draws: Vec<f64>) -> Option<Difference> {
    draws.sort_unstable_by(f64::total_cmp);
    let interval = [quantile(&draws, 0.025)?, quantile(&draws, 0.975)?];
    Some(Difference { value, interval, resamples: draws.len() })
}

/// The quantile of `ascending` numbers, between two of them in proportion.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a length, rounded down"
)]
fn quantile(ascending: &[f64], share: f64) -> Option<f64> {
    let place = ascending.len().checked_sub(1)? as f64 * share;
    let (below, part) = (place.floor() as usize, place.fract());
    let (low, high) = (ascending[below], ascending[(below + 1).min(ascending.len() - 1)]);
    Some(low + (high - low) * part)
}

#[cfg(test)]
mod tests {
    use millrace::quality;
    use proptest::prelude::*;
    use rand::Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    const BOOTSTRAP: Bootstrap = Bootstrap { resamples: times(1000), seed: 7 };

    const fn times(resamples: u32) -> NonZeroU32 {
        NonZeroU32::new(resamples).expect("not zero")
    }

    fn rows<'a>(labels: &'a [bool], scores: [&'a [f32]; 2]) -> PairedRows<'a> {
        PairedRows { labels, users: &[], scores, threshold: 0.5 }
    }

    /// Labels that happen with the probability `truth`, a version that knows it, and one that sees it through `noise`.
    #[expect(clippy::cast_possible_truncation, reason = "scores are single precision")]
    fn synthetic(count: usize, noise: f64, seed: u64) -> (Vec<bool>, Vec<f32>, Vec<f32>) {
        let mut draws = random(seed, Purpose::Truth, 0);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut found = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let (truth, error): (f64, f64) =
                (StandardNormal.sample(&mut draws), StandardNormal.sample(&mut draws));
            found.0.push(draws.random_bool(sigmoid(truth)));
            found.1.push(sigmoid(truth) as f32);
            found.2.push(sigmoid(truth + noise * error) as f32);
        }
        found
    }

    #[test]
    fn a_version_does_not_differ_from_itself_at_all() {
        let (labels, scores, _) = synthetic(500, 0.0, 1);
        let found = BOOTSTRAP.compare(&rows(&labels, [&scores, &scores])).expect("both labels");
        for difference in [found.auc, found.accuracy, found.log_loss, found.brier] {
            assert_eq!((difference.value, difference.interval), (0.0, [0.0, 0.0]));
            assert!(!difference.is_clear());
        }
    }

    #[test]
    fn the_intervals_hold_the_true_difference_in_about_95_of_100_samples() {
        // The true differences, from a sample that is large enough.
        let (labels, clear, noisy) = synthetic(1_000_000, 0.6, 99);
        let auc = |scores: &[f32]| quality::auc(scores, &labels).expect("both labels");
        let loss = |scores: &[f32]| quality::log_loss(scores, &labels).expect("rows");
        let (auc, loss) = (auc(&clear) - auc(&noisy), loss(&clear) - loss(&noisy));
        let bootstrap = Bootstrap { resamples: times(200), ..BOOTSTRAP };
        let holds = |found: Difference, truth: f64| found.interval[0] <= truth && truth <= found.interval[1];
        let (mut auc_held, mut loss_held) = (0, 0);
        for seed in 0..100 {
            let (labels, clear, noisy) = synthetic(400, 0.6, seed);
            let found = bootstrap.compare(&rows(&labels, [&clear, &noisy])).expect("both labels");
            auc_held += u32::from(holds(found.auc, auc));
            loss_held += u32::from(holds(found.log_loss, loss));
        }
        assert!((86..=100).contains(&auc_held) && (86..=100).contains(&loss_held), "{auc_held} {loss_held}");
    }

    #[test]
    fn what_is_clearly_worse_is_told_apart_and_the_better_one_has_the_greater_auc() {
        let (labels, clear, noisy) = synthetic(4000, 2.0, 3);
        let found = BOOTSTRAP.compare(&rows(&labels, [&clear, &noisy])).expect("both labels");
        assert!(found.auc.is_clear() && found.auc.value > 0.0, "{found:?}");
        assert!(found.log_loss.is_clear() && found.log_loss.value < 0.0, "{found:?}");
        assert_eq!((found.unit, found.units, found.auc.resamples), (Unit::Rows, 4000, 1000));
    }

    #[test]
    fn whole_users_are_drawn_and_repeated_rows_do_not_make_it_surer() {
        let (labels, clear, noisy) = synthetic(300, 1.0, 5);
        let alone = BOOTSTRAP.compare(&rows(&labels, [&clear, &noisy])).expect("both labels");
        // Each row ten times over, as ten rows of one user: nothing more is known than before.
        let labels = labels.repeat(10);
        let (clear, noisy) = (clear.repeat(10), noisy.repeat(10));
        let users: Vec<u32> = (0..3000).map(|row| 70 + row % 300).collect();
        let clustered = PairedRows { users: &users, ..rows(&labels, [&clear, &noisy]) };
        let found = BOOTSTRAP.compare(&clustered).expect("both labels");
        assert_eq!((found.unit, found.units), (Unit::Users, 300));
        let same = |one: Difference, other: Difference| {
            let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
            near(one.value, other.value) && (0..2).all(|end| near(one.interval[end], other.interval[end]))
        };
        assert!(same(found.auc, alone.auc) && same(found.brier, alone.brier), "{found:?} {alone:?}");
        let taken_for_independent = BOOTSTRAP.compare(&rows(&labels, [&clear, &noisy])).expect("both labels");
        let width = |found: Difference| found.interval[1] - found.interval[0];
        assert!(width(taken_for_independent.auc) < 0.5 * width(found.auc));
    }

    #[test]
    fn the_seed_alone_decides_the_intervals_at_any_number_of_threads() {
        let (labels, clear, noisy) = synthetic(300, 1.0, 5);
        let at = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let bootstrap = Bootstrap { resamples: times(100), seed };
            pool.install(|| bootstrap.compare(&rows(&labels, [&clear, &noisy])))
        };
        assert_eq!(at(1, 7), at(3, 7));
        assert_ne!(at(1, 7), at(1, 8));
    }

    #[test]
    fn one_label_alone_is_not_compared_and_a_draw_of_one_label_has_no_auc() {
        assert_eq!(BOOTSTRAP.compare(&rows(&[true; 3], [&[0.1, 0.2, 0.3]; 2])), None);
        let found =
            BOOTSTRAP.compare(&rows(&[true, false], [&[0.9, 0.1], &[0.1, 0.9]])).expect("both labels");
        assert!((400..600).contains(&found.auc.resamples), "{found:?}");
        assert_eq!((found.auc.value, found.accuracy.value, found.accuracy.resamples), (1.0, 1.0, 1000));
    }

    #[test]
    fn quantiles_lie_between_the_numbers_in_proportion() {
        let near = |found: Option<f64>, expected: f64| (found.expect("numbers") - expected).abs() < 1e-12;
        assert!(near(quantile(&[0.0, 10.0, 20.0], 0.25), 5.0) && near(quantile(&[3.0], 0.975), 3.0));
        assert!(near(quantile(&[0.0, 10.0], 1.0), 10.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn weighted_ranks_are_the_auc_of_the_rows_repeated(
            rows in prop::collection::vec((0u8..8, any::<bool>(), 0u32..4), 1..50),
        ) {
            let scores: Vec<f32> = rows.iter().map(|row| f32::from(row.0)).collect();
            let labels: Vec<bool> = rows.iter().map(|row| row.1).collect();
            let weights: Vec<u32> = rows.iter().map(|row| row.2).collect();
            let unit_of: Vec<u32> = (0..).take(rows.len()).collect();
            let times = |row: usize| weights[row] as usize;
            let repeat = |row: usize| std::iter::repeat_n(row, times(row));
            let drawn: Vec<usize> = (0..rows.len()).flat_map(repeat).collect();
            let drawn_scores: Vec<f32> = drawn.iter().map(|&row| scores[row]).collect();
            let drawn_labels: Vec<bool> = drawn.iter().map(|&row| labels[row]).collect();
            let found = Ranked::of(&scores, &labels, &unit_of).auc(&weights);
            let expected = quality::auc(&drawn_scores, &drawn_labels);
            prop_assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some(expected)) = (found, expected) {
                prop_assert!((found - expected).abs() < 1e-12);
            }
        }
    }
}
