//! The ROC curve: what share of the positives a threshold catches, for each share of the negatives that it catches with
//! them.

use serde::Serialize;

/// A threshold's place on the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RocPoint {
    /// The share of the negatives with at least this score.
    pub false_positive_rate: f64,
    /// The share of the positives with at least this score.
    pub true_positive_rate: f64,
    /// The threshold; `None` above every score, where the curve begins.
    pub threshold: Option<f32>,
}

/// The curve of `scores` from (0, 0) to (1, 1), with about `points` points, evenly spread along it: each is a point of
/// the whole curve. `None` unless both labels occur.
pub fn curve(scores: &[f32], labels: &[bool], points: usize) -> Option<Vec<RocPoint>> {
    assert_eq!(scores.len(), labels.len(), "a label a score");
    let positives = labels.iter().filter(|&&label| label).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut curve = vec![RocPoint { false_positive_rate: 0.0, true_positive_rate: 0.0, threshold: None }];
    let (mut caught, mut caught_positives) = (0, 0);
    // Both rates grow by 1 in all, so that along the curve there are 2.
    let (step, mut passed) = (2.0 / points.max(1) as f64, 0.0);
    for tied in order.chunk_by(|&a, &b| scores[a] <= scores[b]) {
        caught += tied.len();
        caught_positives += tied.iter().filter(|&&row| labels[row]).count();
        let point = RocPoint {
            false_positive_rate: (caught - caught_positives) as f64 / negatives as f64,
            true_positive_rate: caught_positives as f64 / positives as f64,
            threshold: Some(scores[tied[0]]),
        };
        let along = point.false_positive_rate + point.true_positive_rate;
        if along >= passed + step || caught == scores.len() {
            passed = along;
            curve.push(point);
        }
    }
    Some(curve)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(curve: &[RocPoint]) -> Vec<(f64, f64)> {
        curve.iter().map(|point| (point.false_positive_rate, point.true_positive_rate)).collect()
    }

    #[test]
    fn each_threshold_has_the_place_that_a_person_counts() {
        let found = curve(&[0.9, 0.7, 0.7, 0.1], &[true, true, false, false], 1000).expect("both labels");
        assert_eq!(places(&found), [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]);
        assert_eq!(found[2].threshold, Some(0.7));
        assert_eq!(curve(&[0.9, 0.7], &[true, true], 100), None);
    }

    #[test]
    fn a_long_curve_is_thinned() {
        let scores: Vec<f32> = (0..10_000_u16).map(f32::from).collect();
        let labels: Vec<bool> = (0..10_000).map(|row| row % 3 == 0).collect();
        let found = curve(&scores, &labels, 100).expect("both labels");
        assert!((95..=102).contains(&found.len()), "{}", found.len());
        assert_eq!(places(&found).last(), Some(&(1.0, 1.0)));
    }

    proptest! {
        #[test]
        fn it_rises_from_one_corner_to_the_other(
            rows in prop::collection::vec((0u8..20, any::<bool>()), 2..80), points in 1usize..50,
        ) {
            let scores: Vec<f32> = rows.iter().map(|&(score, _)| f32::from(score)).collect();
            let labels: Vec<bool> = rows.iter().map(|&(_, label)| label).collect();
            if let Some(found) = curve(&scores, &labels, points) {
                let places = places(&found);
                prop_assert_eq!((places[0], places[places.len() - 1]), ((0.0, 0.0), (1.0, 1.0)));
                prop_assert!(places.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
                prop_assert!(found.len() <= points + 2);
            }
        }
    }
}
