//! How good scores are: pure functions over scores and labels, used by the trainer before a version is published
//! and by the server once the labels have come back, so that both mean the same by a word.
//!
//! Scores are probabilities; a label is `true` where the event happened. All means are unweighted.

/// The area under the ROC curve: the share of (positive, negative) pairs that the scores order rightly, ties
/// counting half. `None` unless both classes occur.
///
/// Source: Mann and Whitney's U statistic, by midranks.
pub fn auc(scores: &[f32], labels: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), labels.len(), "a label a score");
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

/// Hits among the first `k` of `ranked`, over the most there could be: `min(relevant, k)`. `None` where nothing is
/// relevant.
pub fn recall_at(k: usize, ranked: &[bool]) -> Option<f64> {
    let relevant = ranked.iter().filter(|&&hit| hit).count();
    let hits = ranked.iter().take(k).filter(|&&hit| hit).count();
    (relevant > 0).then(|| hits as f64 / relevant.min(k) as f64)
}

/// Whether any of the first `k` of `ranked` is relevant, as 0 or 1. `None` where nothing is relevant.
pub fn hit_at(k: usize, ranked: &[bool]) -> Option<f64> {
    ranked.contains(&true).then(|| f64::from(u8::from(ranked.iter().take(k).any(|&hit| hit))))
}

/// The normalised discounted cumulative gain of the first `k` of `ranked` with binary gain. `None` where nothing is
/// relevant.
///
/// Source: Järvelin and Kekäläinen, 2002.
pub fn ndcg_at(k: usize, ranked: &[bool]) -> Option<f64> {
    let discount = |position: usize| 1.0 / (position as f64 + 2.0).log2();
    let relevant = ranked.iter().filter(|&&hit| hit).count();
    let gain: f64 =
        ranked.iter().take(k).enumerate().filter(|&(_, &hit)| hit).map(|(i, _)| discount(i)).sum();
    let ideal: f64 = (0..relevant.min(k)).map(discount).sum();
    (relevant > 0).then(|| gain / ideal)
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
        assert_eq!(recall_at(20, &[false, false]), None);
        assert_eq!(ndcg_at(10, &[]), None);
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
    fn ranking_measures_follow_their_definitions() {
        let ranked = [true, false, true, false, true];
        close(recall_at(2, &ranked), 0.5);
        close(recall_at(20, &ranked), 1.0);
        close(hit_at(1, &[false, true]), 0.0);
        close(hit_at(2, &[false, true]), 1.0);
        close(ndcg_at(2, &ranked), 1.0 / (1.0 + 1.0 / 3.0_f64.log2()));
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
