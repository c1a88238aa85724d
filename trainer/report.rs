//! The one line of JSON that a run ends with, for whoever called it: a script, a benchmark, a person.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{artifact::Summary, publish::Publication};

/// The figures of a run by name. Of a log of purchases `auc` and `recall_at_20` are those of the ranking of new pairs,
/// as are the baselines beside them, and the AUC over held-out rows is `row_auc`; of a labelled log they are one.
pub fn line(summary: &Summary, publication: Option<&Publication>, seconds: f64) -> String {
    let mut object: Map<String, Value> =
        summary.metrics.iter().map(|(name, &value)| (name.clone(), rounded(value))).collect();
    object.extend(shortened(&summary.metrics));
    object.insert("epochs".into(), summary.epochs.into());
    object.insert("seconds".into(), rounded(seconds));
    let version = publication.and_then(|publication| publication.published.as_ref());
    object.insert("version".into(), version.map(|(version, _)| u64::from(*version)).into());
    Value::Object(object).to_string()
}

fn shortened(metrics: &BTreeMap<String, f64>) -> impl Iterator<Item = (String, Value)> + '_ {
    const SHORT: [(&str, &str); 7] = [
        ("row_auc", "auc"),
        ("auc", "new_auc"),
        ("recall_at_20", "new_recall_at_20"),
        ("popularity_auc", "popularity_new_auc"),
        ("popularity_recall_at_20", "popularity_new_recall_at_20"),
        ("recent_popularity_auc", "recent_popularity_new_auc"),
        ("recent_popularity_recall_at_20", "recent_popularity_new_recall_at_20"),
    ];
    SHORT
        .into_iter()
        .filter_map(|(short, name)| metrics.get(name).map(|&value| (short.to_owned(), rounded(value))))
}

/// Four decimals, which is more than any of the figures is good for.
fn rounded(value: f64) -> Value {
    ((value * 1e4).round() / 1e4).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(metrics: &[(&str, f64)]) -> Value {
        let metrics = metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        let summary = Summary { metrics, epochs: 3, ..Summary::default() };
        serde_json::from_str(&line(&summary, None, 1.234_56)).expect("one object")
    }

    #[test]
    fn a_ranking_takes_the_short_names() {
        let report = parsed(&[("auc", 0.9), ("new_auc", 0.8), ("popularity_new_auc", 0.7)]);
        assert_eq!((&report["auc"], &report["row_auc"]), (&0.8.into(), &0.9.into()));
        assert_eq!(report["popularity_auc"], 0.7);
    }

    #[test]
    fn rows_alone_keep_their_auc_and_an_unpublished_version_is_null() {
        let report = parsed(&[("auc", 0.9), ("accuracy", 0.812_345)]);
        assert_eq!((&report["auc"], &report["accuracy"]), (&0.9.into(), &0.8123.into()));
        assert_eq!((&report["version"], &report["seconds"]), (&Value::Null, &1.2346.into()));
    }
}
