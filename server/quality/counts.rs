//! Scores beside labels, counted as they come: what accuracy, AUC and the rest are over rows that nobody keeps. Counts of
//! the same threshold add up, over spans of time and over replicas.

use super::{Estimate, Measure};

/// Rows of each class without which an area has no variance that could be relied on.
const FEW: f64 = 20.0;

/// Bins of a score's log odds, [`BINS_A_UNIT`] to a unit, over [`ODDS_LIMIT`] on both sides of even. Equal steps of odds tell
/// scores of 0.001 from those of 0.002 as well as those of 0.5 from 0.67: shops live at the low end.
const BINS: usize = 2 * ODDS_LIMIT * BINS_A_UNIT;
const ODDS_LIMIT: usize = 12;
const BINS_A_UNIT: usize = 32;

/// Bins of equal width for the calibration error, as [`super::calibration_error`] has them.
const WIDTHS: usize = 10;

/// How far a score is kept from 0 and 1 where its logarithm is taken, as in [`super::log_loss`].
const NEAREST: f64 = 1e-7;

/// Labelled scores, counted.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreCounts {
    threshold: f32,
    /// Rows of each bin, without and with the label.
    bins: Box<[[u32; 2]; BINS]>,
    /// Rows whose score is below the threshold and those whose is not, each without and with the label.
    decided: [[u64; 2]; 2],
    scores: f64,
    log_loss: f64,
    log_loss_squares: f64,
    squares: f64,
    /// Sums of score minus label, by the score's tenth.
    gaps: [f64; WIDTHS],
}

impl ScoreCounts {
    /// No rows; a score from `threshold` on says that the event happens.
    pub fn new(threshold: f32) -> Self {
        Self {
            threshold,
            bins: vec![[0; 2]; BINS].into_boxed_slice().try_into().expect("as many bins"),
            decided: [[0; 2]; 2],
            scores: 0.0,
            log_loss: 0.0,
            log_loss_squares: 0.0,
            squares: 0.0,
            gaps: [0.0; WIDTHS],
        }
    }

    /// Counts a row. `score` is a probability.
    pub fn add(&mut self, score: f32, label: bool) {
        let (p, happened) = (f64::from(score), f64::from(u8::from(label)));
        let kept = p.clamp(NEAREST, 1.0 - NEAREST);
        let count = &mut self.bins[bin(kept)][usize::from(label)];
        *count = count.saturating_add(1);
        self.decided[usize::from(score >= self.threshold)][usize::from(label)] += 1;
        self.scores += p;
        let loss = -if label { kept.ln() } else { (1.0 - kept).ln() };
        self.log_loss += loss;
        self.log_loss_squares += loss * loss;
        self.squares += (p - happened).powi(2);
        self.gaps[tenth(score)] += p - happened;
    }

    /// Adds what `other` has counted.
    ///
    /// # Panics
    /// When its threshold is another.
    pub fn merge(&mut self, other: &Self) {
        assert!(self.threshold.to_bits() == other.threshold.to_bits(), "counts of one threshold");
        for (count, more) in self.bins.as_flattened_mut().iter_mut().zip(other.bins.as_flattened()) {
            *count = count.saturating_add(*more);
        }
        for (count, more) in self.decided.as_flattened_mut().iter_mut().zip(other.decided.as_flattened()) {
            *count += more;
        }
        for (gap, more) in self.gaps.iter_mut().zip(other.gaps) {
            *gap += more;
        }
        self.scores += other.scores;
        self.log_loss += other.log_loss;
        self.log_loss_squares += other.log_loss_squares;
        self.squares += other.squares;
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.decided.as_flattened().iter().sum()
    }

    /// Rows with the label.
    pub fn positives(&self) -> u64 {
        self.decided[0][1] + self.decided[1][1]
    }

    /// Rows on the right side of the threshold.
    pub fn correct(&self) -> u64 {
        self.decided[0][0] + self.decided[1][1]
    }

    /// The share of rows with the label: of shown items, those that were taken. `None` without rows.
    pub fn positive_rate(&self) -> Option<f64> {
        self.mean(self.positives() as f64)
    }

    /// The share of rows on the right side of the threshold. `None` without rows.
    pub fn accuracy(&self) -> Option<f64> {
        self.mean(self.correct() as f64)
    }

    /// Of rows from the threshold on, the share with the label. `None` where there are none.
    pub fn precision(&self) -> Option<f64> {
        let [without, with] = self.decided[1];
        (without + with > 0).then(|| with as f64 / (without + with) as f64)
    }

    /// The area under the ROC curve, rows of one bin as ties; it lies within [`ScoreCounts::auc_error`] of the one over the
    /// rows. `None` unless both classes occur.
    pub fn auc(&self) -> Option<f64> {
        let mut below = 0.0;
        let mut right = 0.0;
        for &[negatives, positives] in &*self.bins {
            right += f64::from(positives) * (below + f64::from(negatives) / 2.0);
            below += f64::from(negatives);
        }
        self.pairs().map(|pairs| right / pairs)
    }

    /// How far [`ScoreCounts::auc`] can be from that of the rows: half of the pairs that a bin hides the order of.
    pub fn auc_error(&self) -> Option<f64> {
        let hidden: f64 = self.bins.iter().map(|&[n, p]| f64::from(n) * f64::from(p)).sum();
        self.pairs().map(|pairs| hidden / pairs / 2.0)
    }

    /// A measure with its variance; of the area by where rows of one class lie among those of the other. `None` where there are
    /// too few rows.
    ///
    /// Source: E. R. `DeLong` and others, Biometrics 44, 1988.
    pub fn estimate(&self, measure: Measure) -> Option<Estimate> {
        match measure {
            Measure::Accuracy => Estimate::share(self.correct(), self.rows()),
            Measure::LogLoss => Estimate::mean(self.log_loss, self.log_loss_squares, self.rows()),
            Measure::Auc => self.area(),
        }
    }

    fn area(&self) -> Option<Estimate> {
        let (positives, negatives) = (self.positives() as f64, (self.rows() - self.positives()) as f64);
        // Of a few rows of one class the variance says too little.
        if positives.min(negatives) < FEW {
            return None;
        }
        let value = self.auc()?;
        // For each row the share of the other class that it is on the right side of, squared about their mean.
        let (mut below, mut above) = (0.0, positives);
        let (mut of_positives, mut of_negatives) = (0.0, 0.0);
        for &[without, with] in &*self.bins {
            let (without, with) = (f64::from(without), f64::from(with));
            above -= with;
            of_positives += with * ((below + without / 2.0) / negatives - value).powi(2);
            of_negatives += without * ((above + with / 2.0) / positives - value).powi(2);
            below += without;
        }
        let variance =
            of_positives / (positives - 1.0) / positives + of_negatives / (negatives - 1.0) / negatives;
        let rows = 2 * self.positives().min(self.rows() - self.positives());
        Some(Estimate { value, variance, rows })
    }

    /// The mean negative log likelihood in nats. `None` without rows.
    pub fn log_loss(&self) -> Option<f64> {
        self.mean(self.log_loss)
    }

    /// The mean squared distance between score and label. `None` without rows.
    pub fn brier(&self) -> Option<f64> {
        self.mean(self.squares)
    }

    /// How many events there were for one that the scores expected: 1 at best. `None` where they expected none.
    pub fn calibration(&self) -> Option<f64> {
        (self.scores > 0.0).then(|| self.positives() as f64 / self.scores)
    }

    /// The expected calibration error, as [`super::calibration_error`] has it. `None` without rows.
    pub fn calibration_error(&self) -> Option<f64> {
        self.mean(self.gaps.iter().map(|gap| gap.abs()).sum())
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        let rows = self.rows();
        (rows > 0).then(|| sum / rows as f64)
    }

    /// Pairs of a row with the label and one without, as the bins have them.
    fn pairs(&self) -> Option<f64> {
        let sum = |label: usize| self.bins.iter().map(|counts| f64::from(counts[label])).sum::<f64>();
        let pairs = sum(0) * sum(1);
        (pairs > 0.0).then_some(pairs)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bins")]
fn bin(score: f64) -> usize {
    let odds = (score / (1.0 - score)).ln() + ODDS_LIMIT as f64;
    ((odds * BINS_A_UNIT as f64).max(0.0) as usize).min(BINS - 1)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bins")]
fn tenth(score: f32) -> usize {
    ((score * WIDTHS as f32).max(0.0) as usize).min(WIDTHS - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::scores, *};

    fn counts(scores: &[f32], labels: &[bool]) -> ScoreCounts {
        let mut counts = ScoreCounts::new(0.5);
        scores.iter().zip(labels).for_each(|(&score, &label)| counts.add(score, label));
        counts
    }

    #[test]
    fn nothing_is_claimed_of_no_rows_or_of_one_class() {
        let none = counts(&[], &[]);
        for measure in [none.accuracy(), none.auc(), none.log_loss(), none.calibration(), none.precision()] {
            assert_eq!(measure, None);
        }
        let one = counts(&[0.25, 0.125], &[true, true]);
        assert_eq!((one.auc(), one.auc_error(), one.precision()), (None, None, None));
        assert_eq!((one.positive_rate(), one.accuracy()), (Some(1.0), Some(0.0)));
    }

    #[test]
    fn precision_and_calibration_are_what_they_are_by_hand() {
        let counts = counts(&[0.75, 0.5, 0.25, 0.5], &[true, false, true, true]);
        assert_eq!(counts.precision(), Some(2.0 / 3.0));
        assert_eq!(counts.calibration(), Some(3.0 / 2.0));
        assert_eq!((counts.rows(), counts.positives()), (4, 3));
    }

    #[test]
    fn scores_far_below_one_in_a_hundred_are_told_apart() {
        let (scores, labels): (Vec<f32>, Vec<bool>) =
            (1..2_000).map(|i| (i as f32 * 1e-5, i % 7 == 0 || i > 1_500)).unzip();
        let (counts, exact) = (counts(&scores, &labels), scores::auc(&scores, &labels).expect("both"));
        assert!((counts.auc().expect("both") - exact).abs() < 0.002, "{:?} {exact}", counts.auc());
    }

    #[test]
    fn the_variance_of_an_area_is_delongs_by_hand() {
        // Positives beat all three negatives, two, and one and a half: 1, 2/3, 1/2; their mean is 13/18, their variance 7/108.
        // Negatives lie below three positives, two and a half, and one: 1, 5/6, 1/3, of variance 13/108.
        let (scores, labels) = ([0.1, 0.4, 0.8, 0.9, 0.6, 0.4], [false, false, false, true, true, true]);
        assert_eq!(counts(&scores, &labels).estimate(Measure::Auc), None, "of three rows of each class");
        // Ten times as many rows alike: the same sums of squares ten times, over 29 in place of 2 and 30 in place of 3.
        let counts = counts(&scores.repeat(10), &labels.repeat(10));
        let area = counts.estimate(Measure::Auc).expect("both");
        assert!((area.value - 13.0 / 18.0).abs() < 1e-12, "{area:?}");
        let expected = (7.0 / 108.0 + 13.0 / 108.0) * 2.0 * 10.0 / 29.0 / 30.0;
        assert!((area.variance - expected).abs() < 1e-12 && area.rows == 60, "{area:?}");
        let loss = counts.estimate(Measure::LogLoss).expect("rows");
        assert_eq!((Some(loss.value), loss.rows), (counts.log_loss(), 60));
        assert_eq!(counts.estimate(Measure::Accuracy).map(|share| share.value), counts.accuracy());
    }

    proptest! {
        #[test]
        fn they_are_what_the_rows_give(rows in prop::collection::vec((0.0f32..=1.0, any::<bool>()), 1..200)) {
            let (scores, labels): (Vec<f32>, Vec<bool>) = rows.into_iter().unzip();
            let counts = counts(&scores, &labels);
            let same = |found: Option<f64>, exact: Option<f64>| match (found, exact) {
                (Some(found), Some(exact)) => (found - exact).abs() < 1e-9,
                (found, exact) => found == exact,
            };
            prop_assert!(same(counts.accuracy(), scores::accuracy(&scores, &labels, 0.5)));
            prop_assert!(same(counts.log_loss(), scores::log_loss(&scores, &labels)));
            prop_assert!(same(counts.brier(), scores::brier(&scores, &labels)));
            prop_assert!(same(counts.calibration_error(), scores::calibration_error(&scores, &labels)));
            let (found, exact) = (counts.auc(), scores::auc(&scores, &labels));
            prop_assert_eq!(found.is_some(), exact.is_some());
            if let (Some(found), Some(exact), Some(error)) = (found, exact, counts.auc_error()) {
                prop_assert!((found - exact).abs() <= error + 1e-9, "{} {} {}", found, exact, error);
            }
        }

        #[test]
        fn parts_add_up_to_the_whole(
            rows in prop::collection::vec((0.0f32..=1.0, any::<bool>()), 2..60), cut in 0usize..60,
        ) {
            let (scores, labels): (Vec<f32>, Vec<bool>) = rows.into_iter().unzip();
            let cut = cut.min(scores.len());
            let mut parts = counts(&scores[..cut], &labels[..cut]);
            parts.merge(&counts(&scores[cut..], &labels[cut..]));
            let whole = counts(&scores, &labels);
            prop_assert_eq!(&parts.bins, &whole.bins);
            prop_assert_eq!(parts.decided, whole.decided);
            prop_assert!((parts.log_loss - whole.log_loss).abs() < 1e-9 && (parts.scores - whole.scores).abs() < 1e-9);
        }
    }
}
