//! How much of a difference is more than chance: estimates with their variance, and an interval of their difference that
//! may be looked at as often as one likes.
//!
//! Whoever decides by the first of many looks that shows a difference finds one sooner or later, where there is none. The
//! interval here holds at all looks at once with its probability, and pays for that with some half more width than one of a
//! single look has. Rows count as independent; where they come in clusters, many of a user say, it is too narrow.

use serde::{Deserialize, Serialize};

/// What labelled scores are compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The share of rows on the right side of the threshold.
    Accuracy,
    /// The area under the ROC curve.
    Auc,
    /// The mean negative log likelihood in nats: the less, the better.
    #[default]
    LogLoss,
}

impl Measure {
    /// How much better `one` is than `other`.
    pub fn gain(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Accuracy | Self::Auc => one - other,
            Self::LogLoss => other - one,
        }
    }
}

/// A mean or an area over rows, and how far chance may have moved it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// What was found.
    pub value: f64,
    /// The variance of that, over all rows that there could have been.
    pub variance: f64,
    /// Rows.
    pub rows: u64,
}

impl Estimate {
    /// The share of `rows` that `hits` are. `None` without rows.
    pub fn share(hits: u64, rows: u64) -> Option<Self> {
        let (hit, all) = (hits as f64, rows as f64);
        // Where all rows or none are hits, the share itself would have no variance, however few there are.
        let smooth = (hit + 1.0) / (all + 2.0);
        (rows > 0).then(|| Self { value: hit / all, variance: smooth * (1.0 - smooth) / all, rows })
    }

    /// The mean of `rows` numbers, by their sum and that of their squares. `None` for fewer than two.
    pub fn mean(sum: f64, squares: f64, rows: u64) -> Option<Self> {
        let all = rows as f64;
        let spread = (squares - sum * sum / all).max(0.0) / (all - 1.0);
        (rows > 1).then(|| Self { value: sum / all, variance: spread / all, rows })
    }

    /// Half the width of the interval in which the true value lies, at every look together with a probability of 95 %. It is
    /// narrowest for `tuned_for` rows.
    ///
    /// Source: asymptotic confidence sequences, Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv 2103.06476, theorem 2.2.
    pub fn radius(&self, tuned_for: u64) -> f64 {
        let rows = self.rows.max(1) as f64;
        let odds = -2.0 * ERROR.ln();
        let tuned = rows / tuned_for.max(1) as f64 * (odds + (odds + 1.0).ln());
        let looks = 2.0 * (tuned + 1.0) / tuned * ((tuned + 1.0).sqrt() / ERROR).ln();
        (self.variance * looks).sqrt()
    }

    /// By how much this is above `other`, which is of other rows.
    #[must_use]
    pub fn above(&self, other: &Self) -> Self {
        Self {
            value: self.value - other.value,
            variance: self.variance + other.variance,
            rows: self.rows.min(other.rows),
        }
    }
}

/// How often an interval may miss.
const ERROR: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_radius_is_what_the_formula_gives_by_hand() {
        // -2 ln 0.05 = 5.991, and ln 6.991 more is 7.936: sqrt(2 * 8.936 / 7.936 * ln(sqrt(8.936) / 0.05)) = 3.035.
        let estimate = Estimate { value: 0.0, variance: 1.0, rows: 100 };
        assert!((estimate.radius(100) - 3.035).abs() < 1e-3, "{}", estimate.radius(100));
        assert!(estimate.radius(10) > estimate.radius(100) && estimate.radius(1_000) > estimate.radius(100));
    }

    #[test]
    fn a_share_has_a_variance_where_all_rows_are_alike() {
        let all = Estimate::share(5, 5).expect("rows");
        assert!(
            (all.value - 1.0).abs() < 1e-12 && (all.variance - 6.0 / 49.0 / 5.0).abs() < 1e-12,
            "{all:?}"
        );
        assert_eq!((Estimate::share(0, 0), Estimate::mean(1.0, 1.0, 1)), (None, None));
        // Of 1, 2, 3 and 6: the mean is 3, the squares about it 14 of three degrees of freedom.
        let mean = Estimate::mean(12.0, 50.0, 4).expect("rows");
        assert!(
            (mean.value - 3.0).abs() < 1e-12 && (mean.variance - 14.0 / 3.0 / 4.0).abs() < 1e-12,
            "{mean:?}"
        );
    }

    /// A coin of equal sides, thrown again and again by a generator that is the same each time.
    fn throws(seed: u64) -> impl Iterator<Item = bool> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            // Source: Knuth's MMIX constants of a linear congruential generator.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 63 == 1
        })
    }

    #[test]
    fn who_looks_at_every_row_finds_a_difference_between_equals_in_less_than_one_of_twenty_cases() {
        let misled = |seed: u64, factor: fn(&Estimate) -> f64| {
            let (mut heads, mut rows) = (0, 0);
            throws(seed).take(4_000).any(|head| {
                rows += 1;
                heads += u64::from(head);
                let share = Estimate::share(heads, rows).expect("rows");
                rows >= 100 && (share.value - 0.5).abs() > factor(&share)
            })
        };
        let count = |factor| (1..=400).filter(|&seed| misled(seed * 7_919, factor)).count();
        let (anytime, single) =
            (count(|share| share.radius(100)), count(|share| 1.96 * share.variance.sqrt()));
        assert!(anytime <= 20, "{anytime} of 400");
        assert!(single > 80, "the check can tell: {single} of 400 with the interval of a single look");
    }
}
