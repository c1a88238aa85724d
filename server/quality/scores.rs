//! How good scores are beside labels: do they order rows rightly, and do they mean what they say.

/// The area under the ROC curve: the share of (positive, negative) pairs that the scores order rightly, ties
/// counting half. `None` unless both classes occur.
///
/// Source: Mann and Whitney's U statistic, by midranks.
pub fn auc(scores: &[f32], labels: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), labels.len(), "a label a score");
    if scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut rank_sum = 0.0;
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..].partition_point(|&i| scores[i] <= scores[order[start]]);
        let midrank = start as f64 + f64::midpoint(tied as f64, 1.0);
        let positives = order[start..start + tied].iter().filter(|&&i| labels[i]).count();
        rank_sum += midrank * positives as f64;
        start += tied;
    }
    let positives = labels.iter().filter(|&&label| label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// The mean negative log likelihood in nats; scores are kept `1e-7` away from 0 and 1. `None` without rows.
pub fn log_loss(scores: &[f32], labels: &[bool]) -> Option<f64> {
    mean(scores, labels, |score, label| {
        let p = f64::from(score).clamp(1e-7, 1.0 - 1e-7);
        if label { -p.ln() } else { -(1.0 - p).ln() }
    })
}

/// The mean squared distance between score and label, 0 at best. `None` without rows.
///
/// Source: Brier, 1950, in its form for two classes.
pub fn brier(scores: &[f32], labels: &[bool]) -> Option<f64> {
    mean(scores, labels, |score, label| (f64::from(score) - f64::from(u8::from(label))).powi(2))
}

/// The share of rows on the right side of `threshold`. `None` without rows.
pub fn accuracy(scores: &[f32], labels: &[bool], threshold: f32) -> Option<f64> {
    mean(scores, labels, |score, label| f64::from(u8::from((score >= threshold) == label)))
}

/// The expected calibration error: over ten equal-width bins of the score, the mean distance between the mean
/// score and the share of positives, weighted by the rows in the bin. `None` without rows.
///
/// Source: Naeini, Cooper and Hauskrecht, 2015.
pub fn calibration_error(scores: &[f32], labels: &[bool]) -> Option<f64> {
    const BINS: usize = 10;
    assert_eq!(scores.len(), labels.len(), "a label a score");
    if scores.is_empty() {
        return None;
    }
    let mut gaps = [0.0_f64; BINS];
    for (&score, &label) in scores.iter().zip(labels) {
        gaps[bin(score, BINS)] += f64::from(score) - f64::from(u8::from(label));
    }
    // A bin's weight times its mean distance is the absolute sum of its distances over all rows.
    Some(gaps.iter().map(|gap| gap.abs()).sum::<f64>() / scores.len() as f64)
}

fn mean(scores: &[f32], labels: &[bool], each: impl Fn(f32, bool) -> f64) -> Option<f64> {
    assert_eq!(scores.len(), labels.len(), "a label a score");
    let sum: f64 = scores.iter().zip(labels).map(|(&score, &label)| each(score, label)).sum();
    (!scores.is_empty()).then(|| sum / scores.len() as f64)
}

/// The bin of a score in `[0, 1]` among `bins` of equal width; 1.0 belongs to the last.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bins' range")]
fn bin(score: f32, bins: usize) -> usize {
    ((score * bins as f32).max(0.0) as usize).min(bins - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: Option<f64>, b: f64) {
        assert!((a.expect("defined") - b).abs() < 1e-9, "{a:?} is not {b}");
    }

    #[test]
    fn auc_counts_a_tie_as_half() {
        close(auc(&[0.1, 0.4, 0.4, 0.8], &[false, false, true, true]), 0.875);
        close(auc(&[0.5, 0.5], &[false, true]), 0.5);
    }

    #[test]
    fn nothing_is_claimed_without_both_classes_or_any_row() {
        assert_eq!(auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(log_loss(&[], &[]), None);
        assert_eq!(accuracy(&[], &[], 0.5), None);
        assert_eq!(calibration_error(&[], &[]), None);
        assert_eq!(brier(&[], &[]), None);
    }

    #[test]
    fn log_loss_of_a_coin_is_ln_two_and_stays_finite_at_the_ends() {
        close(log_loss(&[0.5, 0.5], &[true, false]), std::f64::consts::LN_2);
        assert!(log_loss(&[0.0], &[true]).expect("one row").is_finite());
    }

    #[test]
    fn accuracy_takes_the_threshold_itself_as_positive() {
        close(accuracy(&[0.5, 0.49, 0.9, 0.1], &[true, true, true, false], 0.5), 0.75);
    }

    #[test]
    fn calibration_error_is_the_weighted_gap_of_the_bins() {
        close(calibration_error(&[0.25, 0.25, 0.75, 0.75], &[false, true, true, true]), 0.25);
        close(calibration_error(&[1.0, 0.0], &[true, false]), 0.0);
    }

    #[test]
    fn brier_is_the_mean_squared_distance() {
        close(brier(&[0.75, 0.5], &[true, false]), 0.15625);
        close(brier(&[1.0, 0.0], &[true, false]), 0.0);
    }

    proptest! {
        #[test]
        fn auc_equals_counting_every_pair(rows in prop::collection::vec((0u8..8, any::<bool>()), 2..60)) {
            let scores: Vec<f32> = rows.iter().map(|&(score, _)| f32::from(score) / 8.0).collect();
            let labels: Vec<bool> = rows.iter().map(|&(_, label)| label).collect();
            let mut pairs = 0.0;
            let mut right = 0.0;
            for (i, _) in rows.iter().enumerate().filter(|(_, row)| row.1) {
                for (j, _) in rows.iter().enumerate().filter(|(_, row)| !row.1) {
                    pairs += 1.0;
                    right += if scores[i] > scores[j] { 1.0 } else if scores[i] < scores[j] { 0.0 } else { 0.5 };
                }
            }
            let defined = auc(&scores, &labels);
            prop_assert_eq!(defined.is_some(), pairs > 0.0);
            prop_assert!(defined.is_none_or(|value| (value - right / pairs).abs() < 1e-9));
        }
    }
}
