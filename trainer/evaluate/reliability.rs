//! Whether scores mean what they say: of the rows with a score of about 0.3, do 30 % happen.

use millrace::quality::wilson;
use serde::Serialize;

use crate::quantiles::boundaries;

/// Rows by their score, in two ways: bins of equal width show the whole scale, bins of equal count show where the rows
/// are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Ten bins of equal width; those without rows are left out.
    pub equal_width: Vec<ReliabilityBin>,
    /// Ten bins of equal count, or fewer: rows of one score share a bin.
    pub equal_count: Vec<ReliabilityBin>,
}

/// The rows whose scores lie in one bin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// The least score that belongs to it.
    pub from: f64,
    /// Where the next begins.
    pub to: f64,
    /// Rows.
    pub rows: u64,
    /// The mean of their scores.
    pub mean_score: f64,
    /// How many of them are positive.
    pub positives: u64,
    /// The same over the rows.
    pub positive_share: f64,
    /// The 95 % interval of the share by Wilson, which takes the rows for independent.
    pub interval: [f64; 2],
}

impl Reliability {
    /// The bins of `scores` within 0 and 1.
    pub fn of(scores: &[f32], labels: &[bool]) -> Self {
        assert_eq!(scores.len(), labels.len(), "a label a score");
        let even: Vec<f64> = (1..BINS).map(|bin| f64::from(bin) / f64::from(BINS)).collect();
        let all = scores.iter().map(|&score| f64::from(score)).collect();
        let quantiles = boundaries(all, BINS as usize);
        Self { equal_width: bins(scores, labels, &even), equal_count: bins(scores, labels, &quantiles) }
    }
}

fn bins(scores: &[f32], labels: &[bool], boundaries: &[f64]) -> Vec<ReliabilityBin> {
    let mut sums = vec![(0_u64, 0_u64, 0.0_f64); boundaries.len() + 1];
    for (&score, &label) in scores.iter().zip(labels) {
        let score = f64::from(score);
        let (rows, positives, sum) = &mut sums[boundaries.partition_point(|&boundary| boundary <= score)];
        *rows += 1;
        *positives += u64::from(label);
        *sum += score;
    }
    let edge =
        |at: Option<usize>, otherwise| at.and_then(|at| boundaries.get(at)).copied().unwrap_or(otherwise);
    let bin = |(at, (rows, positives, sum)): (usize, (u64, u64, f64))| {
        Some(ReliabilityBin {
            from: edge(at.checked_sub(1), 0.0),
            to: edge(Some(at), 1.0),
            rows,
            mean_score: sum / rows as f64,
            positives,
            positive_share: positives as f64 / rows as f64,
            interval: wilson(positives, rows)?,
        })
    };
    sums.into_iter().enumerate().filter_map(bin).collect()
}

const BINS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_what_a_person_counts() {
        let scores = [0.125, 0.15625, 0.1875, 0.875, 1.0];
        let labels = [false, true, false, true, true];
        let found = Reliability::of(&scores, &labels).equal_width;
        let facts: Vec<_> = found.iter().map(|bin| (bin.from, bin.to, bin.rows, bin.positives)).collect();
        assert_eq!(facts, [(0.1, 0.2, 3, 1), (0.8, 0.9, 1, 1), (0.9, 1.0, 1, 1)]);
        assert!((found[0].mean_score - 0.15625).abs() < 1e-12);
        assert!((found[0].positive_share - 1.0 / 3.0).abs() < 1e-12);
        assert!(found[0].interval[0] < 1.0 / 3.0 && found[0].interval[1] > 1.0 / 3.0);
    }

    #[test]
    fn bins_of_equal_count_hold_a_tenth_each_and_never_part_a_score() {
        let scores: Vec<f32> = (0..1000_u16).map(|row| f32::from(row) / 4096.0).collect();
        let found = Reliability::of(&scores, &vec![false; 1000]).equal_count;
        assert!(found.len() == 10 && found.iter().all(|bin| bin.rows == 100), "{found:?}");
        let found = Reliability::of(&[0.25; 50], &[true; 50]).equal_count;
        assert!(found.len() == 1 && found[0].rows == 50, "{found:?}");
        assert!((found[0].positive_share - 1.0).abs() < 1e-12);
    }
}
