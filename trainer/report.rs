//! The one line of JSON that a run ends with, for whoever called it: a script, a benchmark, a person.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{artifact::Summary, publish::Publication};

/// The figures of a run by name. Of a log of purchases `auc` and `recall_at_20` are those of the ranking of new pairs,
/// as are the baselines beside them, and the AUC over held-out rows is `row_auc`; of a labelled log they are one.
pub fn line(summary: &Summary, publication: Option<&Publication>, seconds: f64) -> String {
    Value::Object(object(summary, publication, seconds)).to_string()
}

fn object(summary: &Summary, publication: Option<&Publication>, seconds: f64) -> Map<String, Value> {
    let mut object: Map<String, Value> =
        summary.metrics.iter().map(|(name, &value)| (name.clone(), rounded(value))).collect();
    object.extend(shortened(&summary.metrics));
    object.insert("epochs".into(), summary.epochs.into());
    object.insert("seconds".into(), rounded(seconds));
    let version = publication.and_then(|publication| publication.published.as_ref());
    object.insert("version".into(), version.map(|(version, _)| u64::from(*version)).into());
    object
}

/// The figures of runs that differ in their seed alone: of each figure the mean, and under `<figure>_by_seed` the single
/// ones in the order of the seeds. `seconds` are those of one run.
pub fn line_over_seeds(runs: &[(Summary, f64)], publication: Option<&Publication>) -> String {
    let all: Vec<Map<String, Value>> =
        runs.iter().map(|(summary, seconds)| object(summary, publication, *seconds)).collect();
    let mut report = all.first().cloned().unwrap_or_default();
    let names: Vec<String> = report.keys().filter(|name| *name != "version").cloned().collect();
    for name in names {
        let single: Vec<f64> = all.iter().filter_map(|run| run.get(&name)?.as_f64()).collect();
        report.insert(name.clone(), rounded(single.iter().sum::<f64>() / single.len().max(1) as f64));
        report.insert(format!("{name}_by_seed"), single.into());
    }
    report.insert("seeds".into(), runs.iter().map(|(summary, _)| summary.lineage.seed).collect());
    Value::Object(report).to_string()
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

    #[test]
    fn seeds_are_reported_by_their_means_and_one_by_one() {
        let run = |seed, auc| {
            let metrics = BTreeMap::from([("auc".to_owned(), auc)]);
            let lineage = millrace::repository::manifest::Lineage { seed, ..Default::default() };
            (Summary { metrics, lineage, epochs: 3, ..Summary::default() }, 2.0)
        };
        let line = line_over_seeds(&[run(7, 0.91), run(8, 0.93)], None);
        let report: Value = serde_json::from_str(&line).expect("one object");
        assert_eq!(
            (&report["auc"], &report["seconds"], &report["epochs"]),
            (&0.92.into(), &2.0.into(), &3.0.into())
        );
        assert_eq!(report["auc_by_seed"], serde_json::json!([0.91, 0.93]));
        assert_eq!((&report["seeds"], &report["version"]), (&serde_json::json!([7, 8]), &Value::Null));
    }
}
