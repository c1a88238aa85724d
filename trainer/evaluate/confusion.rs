//! What a threshold makes of scores: which rows it calls positive, and how often it is right.

use serde::Serialize;

/// Counts of rows by what they were called and what they are. A score that equals the threshold is called positive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Positives that were called positive.
    pub true_positives: usize,
    /// Negatives that were called positive.
    pub false_positives: usize,
    /// Negatives that were called negative.
    pub true_negatives: usize,
    /// Positives that were called negative.
    pub false_negatives: usize,
}

impl Confusion {
    /// The counts of `scores` at `threshold`.
    pub fn of(scores: &[f32], labels: &[bool], threshold: f32) -> Self {
        assert_eq!(scores.len(), labels.len(), "a label a score");
        let mut counts = Self::default();
        for (&score, &label) in scores.iter().zip(labels) {
            let count = match (score >= threshold, label) {
                (true, true) => &mut counts.true_positives,
                (true, false) => &mut counts.false_positives,
                (false, false) => &mut counts.true_negatives,
                (false, true) => &mut counts.false_negatives,
            };
            *count += 1;
        }
        counts
    }

    /// The share of rows that were called what they are; `None` without rows.
    pub fn accuracy(&self) -> Option<f64> {
        let right = self.true_positives + self.true_negatives;
        part(right, right + self.false_positives + self.false_negatives)
    }

    /// The share of positives among the rows that were called positive; `None` where none was.
    pub fn precision(&self) -> Option<f64> {
        part(self.true_positives, self.true_positives + self.false_positives)
    }

    /// The share of the positives that were called positive; `None` where there are none.
    pub fn recall(&self) -> Option<f64> {
        part(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// The harmonic mean of precision and recall; `None` where no row is positive or was called so.
    pub fn f1(&self) -> Option<f64> {
        part(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }
}

fn part(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_that_a_person_counts() {
        let scores = [0.9, 0.5, 0.5, 0.4, 0.3, 0.2, 0.8];
        let labels = [true, true, false, true, false, false, true];
        let found = Confusion::of(&scores, &labels, 0.5);
        let expected =
            Confusion { true_positives: 3, false_positives: 1, true_negatives: 2, false_negatives: 1 };
        assert_eq!(found, expected);
        let figures = [found.accuracy(), found.precision(), found.recall(), found.f1()];
        assert_eq!(figures, [5.0 / 7.0, 0.75, 0.75, 0.75].map(Some));
        assert_eq!(Confusion::of(&scores, &labels, 0.6).precision(), Some(1.0));
    }

    #[test]
    fn what_nothing_is_known_of_is_not_claimed() {
        let none_called = Confusion::of(&[0.1, 0.2], &[true, false], 0.5);
        assert_eq!(
            (none_called.precision(), none_called.recall(), none_called.f1()),
            (None, Some(0.0), Some(0.0))
        );
        assert_eq!((Confusion::default().accuracy(), Confusion::default().f1()), (None, None));
    }
}
