//! What the training rows of a version look like, measured for its [`Reference`]: the bins that drift is measured in,
//! here between training and held-out rows, and in a server between training and what callers send.
//!
//! Only training rows are looked at, as the rows that requests would send; of many a sample is enough.

use std::{cmp::Reverse, collections::HashMap, ops::Range};

use millrace::{
    features::{CategoricalSource, Encoder, Feature, FeatureKind, SchemaError, Value},
    quality::{Bins, Counts, Distribution, FeatureReference, Observer, Reference, Seen},
    tensor::Rows,
};
use rand::seq::index;

use crate::{
    config::Pipeline,
    examples::{self, Example},
    fit::FitError,
    log::Log,
    quantiles::boundaries,
    random::{Purpose, random},
    train::Trained,
};

/// A sample of a version's training examples.
#[derive(Debug)]
pub struct TrainingSample {
    /// As requests would send them.
    input: Vec<Vec<Value>>,
    /// As the model learnt from them: with the past of their time, as a request comes with a past that ends before it.
    rows: Rows,
}

impl TrainingSample {
    /// Draws from the examples of `rows`, which are the training rows. The pipeline's seed decides which.
    pub fn draw(
        log: &Log,
        rows: Range<usize>,
        pipeline: &Pipeline,
        trained: &Trained,
    ) -> Result<Self, FitError> {
        let mut draws = random(pipeline.seed, Purpose::Reference, 0);
        let all = examples::training(log, rows, &pipeline.examples, &mut draws);
        let mut chosen = index::sample(&mut draws, all.len(), all.len().min(MOST_ROWS)).into_vec();
        chosen.sort_unstable();
        let examples: Vec<Example> = chosen.into_iter().map(|at| all[at]).collect();
        let input = examples.iter().map(|example| trained.features.raw_row(log, example)).collect();
        let rows = trained.features.encode_hiding(log, &examples, 0.0, &mut draws)?;
        Ok(Self { input, rows })
    }

    /// What the model is to score.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The distributions of the values and of `scores`, one a row.
    pub fn reference(&self, scores: &[f32], trained: &Trained) -> Result<Reference, SchemaError> {
        let encoder = trained.features.encoder();
        let observer = Observer::new(encoder)?;
        let features = encoder.sent().enumerate().map(|(position, feature)| {
            let bins = self.bins(&observer, position, feature);
            let mut counts = Counts::none(bins.count());
            for row in &self.input {
                observer.count(position, row[position].raw(), (&bins, &mut counts));
            }
            FeatureReference { name: feature.name.clone(), distribution: Distribution { bins, counts } }
        });
        Ok(Reference {
            rows: self.input.len() as u64,
            features: features.collect(),
            score: score_distribution(scores),
        })
    }

    fn bins(&self, observer: &Observer<&Encoder>, position: usize, feature: &Feature) -> Bins {
        let mut numbers = Vec::new();
        let mut ids: HashMap<String, usize> = HashMap::new();
        for row in &self.input {
            observer.observe(position, row[position].raw(), |seen| match seen {
                Seen::Number(number) => numbers.push(number),
                Seen::Id { id, is_known: true } => *ids.entry(id.to_owned()).or_default() += 1,
                _ => {}
            });
        }
        match &feature.kind {
            FeatureKind::Categorical { source: CategoricalSource::HourOfDay } => Bins::Parts(24),
            FeatureKind::Categorical { source: CategoricalSource::DayOfWeek } => Bins::Parts(7),
            FeatureKind::Categorical {
                source: CategoricalSource::Vocabulary | CategoricalSource::Hash(_),
            } => Bins::Ids(most_frequent(ids)),
            FeatureKind::Categorical { source: CategoricalSource::Boundaries(_) }
            | FeatureKind::Numeric { .. } => Bins::Boundaries(boundaries(numbers, QUANTILES)),
        }
    }
}

/// The most frequent ids, and of equally frequent ones the first by name, so that a seed gives the same file.
fn most_frequent(ids: HashMap<String, usize>) -> Vec<String> {
    let mut ids: Vec<(String, usize)> = ids.into_iter().collect();
    ids.sort_unstable_by(|(id, count), (other, others)| (Reverse(count), id).cmp(&(Reverse(others), other)));
    ids.into_iter().take(MOST_IDS).map(|(id, _)| id).collect()
}

/// Scores in bins of equal count. Bins of equal width would hold nearly all scores of a rare event in the first one,
/// where nothing that moves would be seen.
///
/// A boundary lies midway between two scores: equal rows have equal scores, and another engine's rounding must not
/// carry all of them over a boundary.
fn score_distribution(scores: &[f32]) -> Distribution {
    let mut ascending: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
    ascending.sort_unstable_by(f64::total_cmp);
    let between = |least: f64| {
        let below = ascending.partition_point(|&score| score < least);
        f64::midpoint(ascending[below - 1], least)
    };
    let bins = Bins::Boundaries(boundaries(ascending.clone(), QUANTILES).into_iter().map(between).collect());
    Distribution::of(bins, ascending.iter().map(|&score| Seen::Number(score)))
}

/// The most rows that are drawn.
const MOST_ROWS: usize = 50_000;
/// Bins of numbers and of scores, where there are as many different ones.
const QUANTILES: usize = 10;
/// The most ids with a bin of their own.
const MOST_IDS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::Checkpoints,
        log::{FeatureColumn, Ids},
        split::Split,
        train,
    };

    const PIPELINE: &str = r#"
        seed = 7
        data = { path = "log.csv", user = "user_id", item = "item_id", time = "at", label = "clicked" }
        split = { test_fraction = 0.2 }
        publish = { repository = "models", model = "shop" }
        [features]
        columns = [
          { name = "user_id", column = "user_id", encoding = { vocabulary = { minimum_count = 2 } } },
          { name = "price", column = "price", encoding = "numeric", optional = true },
          { name = "at", column = "at", encoding = "day_of_week" },
        ]
        [model]
        epochs = 1
        embedding_dimension = 2
        hidden_units = [4]
    "#;

    /// Thirty users, of whom user `i` has `i` rows, for a known one from 2 on; every fourth price is missing.
    fn log(test_price: f64) -> (Log, Split) {
        let training: Vec<String> = (1..=30).flat_map(|user| vec![user.to_string(); user]).collect();
        let users: Vec<&str> = training.iter().map(String::as_str).chain(["1"; 100]).collect();
        let rows = users.len();
        let price = |row: usize| match row {
            row if row >= training.len() => test_price,
            row if row % 4 == 3 => f64::NAN,
            row => (row % 20) as f64,
        };
        let times: Vec<i64> = (0..).take(rows).map(|day| day * 86_400).collect();
        let log = Log {
            users: Ids::of(users.iter().copied()),
            items: Ids::of(users.iter().copied()),
            labels: Some((0..rows).map(|row| row % 3 == 0).collect()),
            features: vec![
                FeatureColumn::Ids(Ids::of(users.iter().copied())),
                FeatureColumn::Numbers((0..rows).map(price).collect()),
                FeatureColumn::Moments(times.iter().copied().map(Some).collect()),
            ],
            times,
            ..Log::default()
        };
        (log, Split { validation: training.len()..training.len(), test: training.len()..rows })
    }

    fn reference(test_price: f64) -> Reference {
        let (log, split) = log(test_price);
        let pipeline = Pipeline::parse(PIPELINE).expect("a pipeline");
        let trained = train::train(&log, &split, &pipeline, &mut Checkpoints::none(), &mut |_: &str| {})
            .expect("a model");
        let sample = TrainingSample::draw(&log, split.training(), &pipeline, &trained).expect("a sample");
        let scores = trained.model.score(sample.rows());
        sample.reference(&scores, &trained).expect("a reference")
    }

    #[test]
    fn the_bins_are_of_the_training_rows_as_callers_would_send_them() {
        let found = reference(1e6);
        found.check(["user_id", "price", "at"].into_iter()).expect("consistent");
        assert_eq!(found.rows, 465);
        let [users, prices, days] = &found.features[..] else { panic!("three features") };
        let Bins::Ids(ids) = &users.distribution.bins else { panic!("ids") };
        // The twenty most frequent; the known rest, which are users 2 to 10; the unknown user 1.
        assert_eq!((ids.len(), ids[0].as_str(), ids[19].as_str()), (20, "30", "11"));
        assert_eq!(users.distribution.counts.each()[..2], [30, 29]);
        assert_eq!(users.distribution.counts.each()[20..], [54, 1, 0]);
        let Bins::Boundaries(boundaries) = &prices.distribution.bins else { panic!("numbers") };
        assert!(
            boundaries.len() <= 9 && boundaries.iter().all(|boundary| *boundary < 20.0),
            "{boundaries:?}"
        );
        let counts = prices.distribution.counts.each();
        assert_eq!(counts[counts.len() - 1], 116, "missing prices");
        assert_eq!(days.distribution.bins, Bins::Parts(7));
        assert_eq!(days.distribution.counts.total(), 465);
        assert_eq!(found.score.counts.total(), 465);
    }

    #[test]
    fn nothing_of_the_test_period_reaches_it_and_the_seed_decides_it() {
        assert_eq!(reference(5.0), reference(1e6));
    }

    #[test]
    fn scores_fall_into_bins_of_equal_count_with_boundaries_between_them() {
        let scores: Vec<f32> = (0..100).map(|score| score as f32 / 128.0).collect();
        let distribution = score_distribution(&scores);
        assert_eq!(distribution.counts.each(), [10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 0]);
        let Bins::Boundaries(boundaries) = &distribution.bins else { panic!("numbers") };
        assert!((boundaries[0] - 9.5 / 128.0).abs() < 1e-12, "{boundaries:?}");
        let alike = score_distribution(&[0.25; 10]);
        assert_eq!((alike.bins.count(), alike.counts.each()), (2, &[10, 0][..]));
    }
}
