//! How scores are spread, apart for each label: a model that tells the labels apart has two humps.

use serde::Serialize;

/// Rows by their score in bins of equal width.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreHistogram {
    /// The width of a bin.
    pub width: f64,
    /// Positive rows in each bin, from the score 0 on.
    pub positives: Vec<usize>,
    /// Negative rows in each bin.
    pub negatives: Vec<usize>,
}

impl ScoreHistogram {
    /// The histogram of `scores` within 0 and 1; what lies outside counts as the nearest.
    pub fn of(scores: &[f32], labels: &[bool]) -> Self {
        assert_eq!(scores.len(), labels.len(), "a label a score");
        let (mut positives, mut negatives) = (vec![0; BINS], vec![0; BINS]);
        for (&score, &label) in scores.iter().zip(labels) {
            let counts = if label { &mut positives } else { &mut negatives };
            counts[bin(score)] += 1;
        }
        Self { width: 1.0 / BINS as f64, positives, negatives }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bins' range")]
fn bin(score: f32) -> usize {
    ((score * BINS as f32).max(0.0) as usize).min(BINS - 1)
}

const BINS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_bin_of_its_label() {
        let found = ScoreHistogram::of(&[0.0, 0.04, 0.5, 0.99, 1.0], &[false, true, false, true, true]);
        assert_eq!(
            (found.positives[0], found.positives[19], found.negatives[0], found.negatives[10]),
            (1, 2, 1, 1)
        );
        assert_eq!(found.positives.iter().chain(&found.negatives).sum::<usize>(), 5);
    }
}
