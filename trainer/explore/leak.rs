//! Whether one column alone gives the label away: then it was most likely written after what it should predict.

use millrace::quality::auc;

use super::{
    table::Kind,
    values::{MISSING, Values},
};
use crate::calendar;

/// How well `values`, whose kind is `kind`, order the rows with a label, from 0.5 for not at all to 1.0. The better of
/// two ways counts: by size, for numbers and times; and by the share of positives that the rows of the other half
/// have, which are told apart by odd and even row, so that no row has a part in its own score. A missing value is a value,
/// for one that is there only where something happened gives it away too. `None` unless both labels occur.
pub fn single_feature_auc(values: &Values, kind: Kind, labels: &[Option<bool>]) -> Option<f64> {
    let by_rate = direction_free(&rates(values, labels), labels)?;
    let by_size = sizes(values, kind).and_then(|scores| direction_free(&scores, labels));
    Some(by_rate.max(by_size.unwrap_or(0.5)))
}

/// Whether every value of `values` occurs with one label only, and there are two of them: the column is the label
/// under another name.
pub fn is_the_label(values: &Values, labels: &[Option<bool>]) -> bool {
    let mut label_by_code = [None; 2];
    if values.distinct() != 2 {
        return false;
    }
    for (row, label) in labels.iter().enumerate() {
        match (values.code(row), label) {
            (Some(code), Some(label)) => {
                if *label_by_code[code as usize].get_or_insert(*label) != *label {
                    return false;
                }
            }
            (None, None) => {}
            _ => return false,
        }
    }
    label_by_code.iter().all(Option::is_some) && label_by_code[0] != label_by_code[1]
}

/// The AUC of `scores` or, if it is better, of their negatives; over the rows that have both a score and a label.
fn direction_free(scores: &[Option<f32>], labels: &[Option<bool>]) -> Option<f64> {
    let rows = scores.iter().zip(labels).filter_map(|(score, label)| Some(((*score)?, (*label)?)));
    let (scores, labels): (Vec<f32>, Vec<bool>) = rows.unzip();
    auc(&scores, &labels).map(|auc| auc.max(1.0 - auc))
}

/// Each row's score by the positives among the rows of its value on the other side of odd and even, drawn towards the share
/// of all so that a value seen once says little.
fn rates(values: &Values, labels: &[Option<bool>]) -> Vec<Option<f32>> {
    // The last place is that of missing values.
    let place = |row: usize| match values.codes()[row] {
        MISSING => values.distinct(),
        code => code as usize,
    };
    let mut seen = [vec![(0.0, 0.0); values.distinct() + 1], vec![(0.0, 0.0); values.distinct() + 1]];
    let (mut positives, mut all) = (0.0, 0.0);
    for (row, label) in labels.iter().enumerate() {
        if let Some(label) = label {
            let positive = f64::from(u8::from(*label));
            let sums = &mut seen[row % 2][place(row)];
            *sums = (sums.0 + positive, sums.1 + 1.0);
            (positives, all) = (positives + positive, all + 1.0);
        }
    }
    let prior = if all > 0.0 { positives / all } else { 0.0 };
    let score = |row: usize| {
        let (positives, all): (f64, f64) = seen[1 - row % 2][place(row)];
        narrowed((positives + prior) / (all + 1.0))
    };
    (0..labels.len()).map(|row| Some(score(row))).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a rate of rows, whose order matters and not its last digits"
)]
fn narrowed(rate: f64) -> f32 {
    rate as f32
}

/// Each row's score by the rank of its value, which a float holds exactly for every column that is kept.
fn sizes(values: &Values, kind: Kind) -> Option<Vec<Option<f32>>> {
    let size = |text: &String| match kind {
        Kind::Time => calendar::parse(text).map(|seconds| seconds as f64),
        kind if kind.is_number() => text.parse::<f64>().ok(),
        _ => None,
    };
    let sizes: Vec<f64> = values.texts().iter().map(size).collect::<Option<_>>()?;
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|&a, &b| sizes[a].total_cmp(&sizes[b]));
    let mut ranks = vec![0.0_f32; sizes.len()];
    for (rank, &code) in order.iter().enumerate() {
        ranks[code] = rank as f32;
    }
    Some((0..values.codes().len()).map(|row| values.code(row).map(|code| ranks[code as usize])).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(bits: &[u8]) -> Vec<Option<bool>> {
        bits.iter().map(|&bit| Some(bit == 1)).collect()
    }

    fn texts(texts: &[&str]) -> Values {
        Values::of(texts.iter().map(|&text| Some(text)))
    }

    #[test]
    fn a_number_that_rises_or_falls_with_the_label_gives_it_away() {
        let labels = labels(&[1, 0, 1, 0]);
        let rising = texts(&["9", "-1", "10", "2"]);
        assert_eq!(single_feature_auc(&rising, Kind::Integer, &labels), Some(1.0));
        let falling = texts(&["-9", "1", "-10", "-2"]);
        assert_eq!(single_feature_auc(&falling, Kind::Integer, &labels), Some(1.0));
    }

    #[test]
    fn a_text_gives_the_label_away_where_it_repeats_and_not_where_each_is_new() {
        let labels = labels(&[1, 1, 0, 0, 1, 1, 0, 0]);
        let told = texts(&["a", "a", "b", "b", "a", "a", "c", "c"]);
        assert_eq!(single_feature_auc(&told, Kind::Text, &labels), Some(1.0));
        let names = texts(&["a", "b", "c", "d", "e", "f", "g", "h"]);
        assert_eq!(single_feature_auc(&names, Kind::Text, &labels), Some(0.5));
    }

    #[test]
    fn a_value_that_is_there_only_where_it_happened_gives_it_away() {
        let labels = labels(&[1, 1, 0, 0]);
        let receipts = Values::of([Some("r"), Some("r"), None, None]);
        assert_eq!(single_feature_auc(&receipts, Kind::Text, &labels), Some(1.0));
        assert_eq!(single_feature_auc(&receipts, Kind::Text, &[Some(true); 4]), None);
    }

    #[test]
    fn the_label_under_another_name_is_recognised() {
        let labels = labels(&[1, 0, 1]);
        assert!(is_the_label(&texts(&["no", "yes", "no"]), &labels));
        assert!(!is_the_label(&texts(&["no", "yes", "yes"]), &labels));
        assert!(!is_the_label(&texts(&["a", "b", "c"]), &labels));
        assert!(!is_the_label(&Values::of([Some("a"), Some("b"), None]), &labels));
    }

    proptest! {
        #[test]
        fn an_auc_is_between_a_half_and_one(rows in prop::collection::vec((0u8..5, any::<bool>()), 2..80)) {
            let labels: Vec<_> = rows.iter().map(|row| Some(row.1)).collect();
            let names: Vec<String> = rows.iter().map(|row| row.0.to_string()).collect();
            let values = Values::of(names.iter().map(|name| Some(name.as_str())));
            for kind in [Kind::Text, Kind::Integer] {
                if let Some(auc) = single_feature_auc(&values, kind, &labels) {
                    prop_assert!((0.5..=1.0).contains(&auc), "{}", auc);
                }
            }
        }
    }
}
