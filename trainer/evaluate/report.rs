//! Every figure of an evaluation in one struct: its JSON is for programs, [`super::page`] is for people.

use std::collections::BTreeMap;

use millrace::{quality, repository::manifest::Lineage};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    bootstrap::Comparison,
    confusion::Confusion,
    drift::{Drift, UnknownIds},
    histogram::ScoreHistogram,
    latency::Latency,
    reliability::Reliability,
    roc::{self, RocPoint},
    rows::RowFigures,
};

/// What was found of a version on its held-out rows, and of the one that it was held against on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// When it was made.
    pub made_at: String,
    /// Held-out rows.
    pub rows: usize,
    /// How many of them are positive.
    pub positives: usize,
    /// The same over the rows.
    pub positive_share: f64,
    /// The users that the rows are of; null where there are none.
    pub users: Option<usize>,
    /// From which score on a row is called positive.
    pub threshold: f32,
    /// What a reader should know before the figures, as sentences.
    pub notes: Vec<String>,
    /// The version.
    pub version: VersionReport,
    /// The one that it was held against.
    pub against: Option<VersionReport>,
    /// How far they lie apart.
    pub comparison: Option<Comparison>,
}

/// What was found of one version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionReport {
    /// What it is called: its model and number, or its artifact's folder.
    pub name: String,
    /// What computes it: `wide_and_deep` or `dcn_v2`, say; null where nothing says so.
    pub kind: Option<String>,
    /// How good its scores are.
    pub figures: ScoreFigures,
    /// What the threshold makes of them.
    pub confusion: Confusion,
    /// Whether they mean what they say.
    pub reliability: Reliability,
    /// How they are spread.
    pub histogram: ScoreHistogram,
    /// The ROC curve, thinned.
    pub roc: Vec<RocPoint>,
    /// How well it ranks items, as it was measured when it was trained; empty for a log with labels.
    pub ranking: Vec<Ranking>,
    /// How far the held-out rows lie from its training rows; null for a version without a reference.
    pub drift: Option<Drift>,
    /// Ids that it does not know.
    pub unknown_ids: Vec<UnknownIds>,
    /// How long it takes.
    pub latency: Latency,
    /// Its files, relative to its folder.
    pub files: Vec<FileSize>,
    /// What it was trained on and with; null where nothing says so.
    pub lineage: Option<Lineage>,
}

/// How good scores are on the held-out rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScoreFigures {
    /// The share of rows on the right side of the threshold.
    pub accuracy: f64,
    /// The share of the more frequent label: the accuracy of always answering it.
    pub majority: f64,
    /// The share of positives among the rows that were called positive; null where none was.
    pub precision: Option<f64>,
    /// The share of the positives that were called positive.
    pub recall: Option<f64>,
    /// The harmonic mean of the two.
    pub f1: Option<f64>,
    /// The area under the ROC curve.
    pub auc: f64,
    /// The mean negative log likelihood, in nats.
    pub log_loss: f64,
    /// The mean squared distance between score and label.
    pub brier: f64,
    /// The expected calibration error over ten bins of equal width.
    pub calibration_error: f64,
}

/// Everything that follows from scores and labels alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    pub(super) figures: ScoreFigures,
    pub(super) confusion: Confusion,
    pub(super) reliability: Reliability,
    pub(super) histogram: ScoreHistogram,
    pub(super) roc: Vec<RocPoint>,
}

/// How well one way of ordering items ranks what customers bought.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranking {
    /// Who orders: `model`, `popularity`, `recent_popularity`.
    pub by: String,
    /// Which pairs are asked for: `new` leaves out what a customer had bought before, `all` does not.
    pub pairs: String,
    /// Hits among the first 20, over the most there could be.
    pub recall_at_20: f64,
    /// The normalised discounted cumulative gain of the first 10.
    pub ndcg_at_10: f64,
    /// The share of customers with a hit among the first 10.
    pub hit_at_10: f64,
    /// The share of pairs of a bought item and one that was not in the right order.
    pub auc: f64,
}

/// A file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSize {
    /// Its path, relative to the version's folder.
    pub file: String,
    /// Its size.
    pub bytes: u64,
}

impl Scored {
    /// `None` unless both labels occur.
    pub(super) fn of(scores: &[f32], labels: &[bool], threshold: f32) -> Option<Self> {
        let rows = RowFigures::of(scores, labels)?;
        let confusion = Confusion::of(scores, labels, threshold);
        let figures = ScoreFigures {
            accuracy: confusion.accuracy()?,
            majority: rows.majority,
            precision: confusion.precision(),
            recall: confusion.recall(),
            f1: confusion.f1(),
            auc: rows.auc,
            log_loss: rows.log_loss,
            brier: quality::brier(scores, labels)?,
            calibration_error: rows.calibration_error,
        };
        Some(Self {
            figures,
            confusion,
            reliability: Reliability::of(scores, labels),
            histogram: ScoreHistogram::of(scores, labels),
            roc: roc::curve(scores, labels, ROC_POINTS)?,
        })
    }
}

impl Ranking {
    /// The rankings among a version's metrics, by the names that training gives them.
    pub(super) fn among(metrics: &BTreeMap<String, f64>) -> Vec<Self> {
        let ways =
            [("model", ""), ("popularity", "popularity_"), ("recent_popularity", "recent_popularity_")];
        let ranking = |pairs: &str, (by, prefix): (&str, &str)| {
            let figure = |name: &str| metrics.get(&format!("{prefix}{pairs}_{name}")).copied();
            Some(Self {
                by: by.to_owned(),
                pairs: pairs.to_owned(),
                recall_at_20: figure("recall_at_20")?,
                ndcg_at_10: figure("ndcg_at_10")?,
                hit_at_10: figure("hit_at_10")?,
                auc: figure("auc")?,
            })
        };
        ["new", "all"].iter().flat_map(|pairs| ways.iter().filter_map(|&way| ranking(pairs, way))).collect()
    }
}

impl Report {
    /// The few figures that a run's last line gives, as JSON.
    pub fn line(&self, seconds: f64) -> String {
        let mut line = Map::new();
        let mut figures = |prefix: &str, figures: &ScoreFigures| {
            for (name, value) in [
                ("accuracy", figures.accuracy),
                ("auc", figures.auc),
                ("log_loss", figures.log_loss),
                ("brier", figures.brier),
                ("calibration_error", figures.calibration_error),
            ] {
                line.insert(format!("{prefix}{name}"), rounded(value));
            }
        };
        figures("", &self.version.figures);
        if let Some(against) = &self.against {
            figures("against_", &against.figures);
        }
        if let Some(Comparison { auc, accuracy, log_loss, brier, .. }) = &self.comparison {
            for (name, found) in
                [("auc", auc), ("accuracy", accuracy), ("log_loss", log_loss), ("brier", brier)]
            {
                line.insert(format!("{name}_difference"), rounded(found.value));
                let interval = found.interval.map(rounded).to_vec();
                line.insert(format!("{name}_difference_interval"), Value::Array(interval));
            }
        }
        line.insert("rows".into(), self.rows.into());
        line.insert("positive_share".into(), rounded(self.positive_share));
        line.insert("seconds".into(), rounded((seconds * 10.0).round() / 10.0));
        Value::Object(line).to_string()
    }
}

/// Five decimals: differences of a thousandth are what intervals are about.
fn rounded(value: f64) -> Value {
    ((value * 1e5).round() / 1e5).into()
}

/// Points of the ROC curve, which a page as wide as a hand can show.
const ROC_POINTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_that_a_person_counts() {
        let scores = [0.75, 0.25, 0.5, 0.25];
        let found = Scored::of(&scores, &[true, false, false, true], 0.5).expect("both labels").figures;
        let near =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        near(found.accuracy, 0.5);
        near(found.majority, 0.5);
        near(found.precision.expect("two were called"), 0.5);
        near(found.recall.expect("two are positive"), 0.5);
        // Of four pairs two are right and one is a tie.
        near(found.auc, 2.5 / 4.0);
        near(found.brier, (0.0625 + 0.0625 + 0.25 + 0.5625) / 4.0);
        near(found.log_loss, -(0.75_f64.ln() * 2.0 + 0.5_f64.ln() + 0.25_f64.ln()) / 4.0);
        near(found.calibration_error, (0.25 + 0.5 + 0.5) / 4.0);
        assert_eq!(Scored::of(&scores, &[true; 4], 0.5), None);
    }

    #[test]
    fn rankings_are_found_by_their_names() {
        let names = ["auc", "recall_at_20", "hit_at_10", "ndcg_at_10"];
        let metrics = |prefix: &str| names.map(|name| (format!("{prefix}_{name}"), 0.5));
        let all = [metrics("new"), metrics("all"), metrics("popularity_new")].concat();
        let found = Ranking::among(&all.into_iter().collect());
        let found: Vec<_> = found.iter().map(|found| (found.pairs.as_str(), found.by.as_str())).collect();
        assert_eq!(found, [("new", "model"), ("new", "popularity"), ("all", "model")]);
        assert!(Ranking::among(&BTreeMap::from([("auc".into(), 0.9)])).is_empty());
    }
}
