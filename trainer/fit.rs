//! Fits the features on training rows (vocabularies, means and deviations) and encodes examples with the very encoder
//! that the server will run.

use std::ops::Range;

use millrace::{
    features::{
        CategoricalSource, Cross, Encoder, Feature, FeatureError, FeatureKind, Past, RawValue, Schema,
        SchemaError, Value, Vocabulary, VocabularyError,
    },
    tensor::Rows,
};
use rand::Rng;

use crate::{
    config::{Encoding, FeatureConfig},
    examples::Example,
    history::{HistoryConfig, HistoryPlan},
    log::{FeatureColumn, Ids, Log},
    random::Random,
    windows::{self, WindowsConfig},
};

/// Why features could not be fitted, or rows not encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The features contradict each other.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A vocabulary was refused.
    #[error("the vocabulary of feature `{feature}`")]
    Vocabulary {
        /// The feature.
        feature: String,
        /// What is wrong with it.
        #[source]
        source: VocabularyError,
    },
    /// A value of the log cannot be encoded.
    #[error("feature `{feature}`")]
    Value {
        /// The feature.
        feature: String,
        /// What is wrong with it.
        #[source]
        source: FeatureError,
    },
}

/// The features of a pipeline, fitted on some rows of a log.
#[derive(Debug)]
pub struct FittedFeatures {
    encoder: Encoder,
    configs: Vec<FeatureConfig>,
    /// The past at the start of each window of training, the earliest first.
    pasts: Vec<(i64, Past)>,
}

impl FittedFeatures {
    /// Fits the features on `rows` alone.
    pub fn fit(
        log: &Log,
        rows: Range<usize>,
        configs: &[FeatureConfig],
        crosses: &[Cross],
    ) -> Result<Self, FitError> {
        let columns = || configs.iter().zip(&log.features);
        let features = columns().map(|(config, column)| Feature {
            name: config.name.clone(),
            kind: kind(config, column, rows.clone()),
        });
        let (histories, affinities) = (Vec::new(), Vec::new());
        let schema =
            Schema { features: features.collect(), crosses: crosses.to_vec(), histories, affinities };
        let mut vocabularies = columns().filter_map(|(config, column)| vocabulary(config, column, &rows));
        // The encoder asks for vocabularies in the order of the features that have one.
        let encoder = Encoder::new(schema, |feature| {
            let vocabulary = vocabularies.next().expect("one for each feature with a vocabulary");
            vocabulary.map_err(|source| SchemaError::Vocabulary { feature: feature.name.clone(), source })
        })?;
        Ok(Self { encoder, configs: configs.to_vec(), pasts: Vec::new() })
    }

    /// The same features with the histories of `configs`: as of the end of `rows` for what is scored, and as of the
    /// start of its window for what is learnt from.
    pub fn remembering(
        self,
        log: &Log,
        rows: &Range<usize>,
        configs: &[HistoryConfig],
        windows: Option<WindowsConfig>,
    ) -> Result<Self, FitError> {
        if configs.is_empty() {
            return Ok(self);
        }
        let plan = HistoryPlan::new(configs, log, rows.end, (&self.configs, &self.encoder))?;
        let windows = windows.map(|windows| windows.of(&log.times, rows)).unwrap_or_default().into_iter();
        let pasts = windows.map(|window| (window.start, plan.past(rows.clone(), window.start))).collect();
        let past = plan.past(rows.clone(), windows::end_of(&log.times, rows));
        let encoder = self.encoder.remembering(plan.declare(&past), past)?;
        Ok(Self { encoder, configs: self.configs, pasts })
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Encodes `examples` in their order.
    pub fn encode(&self, log: &Log, examples: &[Example]) -> Result<Rows, FitError> {
        self.encode_each(log, examples, |_| None, |_| false)
    }

    /// Encodes `examples` to learn from: with the past as it was at the start of their windows, and with a share of
    /// their ids hidden behind the row for unknown ids.
    pub fn encode_hiding(
        &self,
        log: &Log,
        examples: &[Example],
        unknown_share: f64,
        random: &mut Random,
    ) -> Result<Rows, FitError> {
        let hides = |encoding| matches!(encoding, Encoding::Vocabulary { .. });
        let past = |example: &Example| self.past_at(log.times[example.user_row as usize]);
        self.encode_each(log, examples, past, |encoding| hides(encoding) && random.random_bool(unknown_share))
    }

    /// The raw row of an example, as a request would send it.
    pub fn raw_row(&self, log: &Log, example: &Example) -> Vec<Value> {
        let columns = self.configs.iter().zip(&log.features);
        let value = |(config, column): (&FeatureConfig, &FeatureColumn)| match column {
            FeatureColumn::Ids(ids) => ids.value(example.row(config.of)).clone(),
            FeatureColumn::Numbers(numbers) => Value::Float(numbers[example.row(config.of)]),
        };
        columns.map(value).collect()
    }

    /// The past as it was at the start of the window that holds `time`.
    fn past_at(&self, time: i64) -> Option<&Past> {
        let after = self.pasts.partition_point(|&(start, _)| start <= time);
        Some(&self.pasts[after.checked_sub(1)?].1)
    }

    fn encode_each<'a>(
        &'a self,
        log: &Log,
        examples: &[Example],
        past: impl Fn(&Example) -> Option<&'a Past>,
        mut hide: impl FnMut(Encoding) -> bool,
    ) -> Result<Rows, FitError> {
        let mut rows = Rows::new(self.encoder.signature());
        for example in examples {
            rows.push_zeroed();
            for (position, (config, column)) in self.configs.iter().zip(&log.features).enumerate() {
                let value = if hide(config.encoding) {
                    UNKNOWN
                } else {
                    match column {
                        FeatureColumn::Ids(ids) => ids.value(example.row(config.of)).raw(),
                        FeatureColumn::Numbers(numbers) => RawValue::Float(numbers[example.row(config.of)]),
                    }
                };
                self.encoder
                    .set(&mut rows, position, value)
                    .map_err(|source| FitError::Value { feature: config.name.clone(), source })?;
            }
            match past(example) {
                Some(past) => self.encoder.finish_as_of(past, &mut rows),
                None => self.encoder.finish(&mut rows),
            }
        }
        Ok(rows)
    }
}

/// No vocabulary has an empty id.
const UNKNOWN: RawValue<'static> = RawValue::Text("");

fn kind(config: &FeatureConfig, column: &FeatureColumn, rows: Range<usize>) -> FeatureKind {
    match (config.encoding, column) {
        (Encoding::Hash { buckets }, _) => {
            FeatureKind::Categorical { source: CategoricalSource::Hash(buckets) }
        }
        (Encoding::Numeric, FeatureColumn::Numbers(numbers)) => {
            let (mean, std) = moments(&numbers[rows]);
            FeatureKind::Numeric { mean, std }
        }
        _ => FeatureKind::Categorical { source: CategoricalSource::Vocabulary },
    }
}

/// Mean and standard deviation; the deviation of equal numbers is taken for one, which leaves them at zero.
fn moments(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len().max(1) as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / count;
    (mean, if variance > 0.0 { variance.sqrt() } else { 1.0 })
}

fn vocabulary(
    config: &FeatureConfig,
    column: &FeatureColumn,
    rows: &Range<usize>,
) -> Option<Result<Vocabulary, VocabularyError>> {
    match (config.encoding, column) {
        (Encoding::Vocabulary { minimum_count }, FeatureColumn::Ids(ids)) => {
            let texts: Vec<String> = frequent(ids, rows.clone(), minimum_count).map(text).collect();
            Some(Vocabulary::new(texts.iter().map(String::as_str)))
        }
        _ => None,
    }
}

/// The ids that occur in `rows` at least `minimum_count` times, the most frequent first, so that the rows which most
/// requests touch lie side by side.
fn frequent(ids: &Ids, rows: Range<usize>, minimum_count: usize) -> impl Iterator<Item = &Value> {
    let mut counts = vec![0_usize; ids.distinct()];
    for &code in &ids.codes()[rows] {
        counts[code as usize] += 1;
    }
    let mut codes: Vec<usize> =
        (0..counts.len()).filter(|&code| counts[code] >= minimum_count.max(1)).collect();
    codes.sort_by_key(|&code| std::cmp::Reverse(counts[code]));
    codes.into_iter().map(|code| &ids.values()[code])
}

fn text(id: &Value) -> String {
    match id {
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use millrace::tensor::Values;

    use super::*;
    use crate::{
        config::Owner,
        random::{Purpose, random},
    };

    fn log() -> Log {
        let users = Ids::of(["7", "8", "8", "9"]);
        let items = Ids::of(["x", "y", "x", "z"]);
        Log {
            features: vec![
                FeatureColumn::Ids(users.clone()),
                FeatureColumn::Ids(items.clone()),
                FeatureColumn::Numbers(vec![1.0, 3.0, 2.0, 100.0]),
            ],
            users,
            items,
            times: vec![1, 2, 3, 4],
            labels: None,
        }
    }

    fn configs() -> Vec<FeatureConfig> {
        let feature =
            |name: &str, encoding, of| FeatureConfig { name: name.into(), column: name.into(), encoding, of };
        vec![
            feature("user", Encoding::Vocabulary { minimum_count: 1 }, Owner::User),
            feature("item", Encoding::Vocabulary { minimum_count: 2 }, Owner::Item),
            feature("price", Encoding::Numeric, Owner::Item),
        ]
    }

    fn fitted() -> FittedFeatures {
        FittedFeatures::fit(&log(), 0..3, &configs(), &[]).expect("fitted")
    }

    fn ids(rows: &Rows) -> &[i32] {
        match rows.columns()[0].values() {
            Values::I32(ids) => ids,
            Values::F32(_) => panic!("ids are integers"),
        }
    }

    #[test]
    fn only_ids_that_are_frequent_enough_in_the_training_rows_have_a_row() {
        let features = fitted();
        // Users 8 and 7 and the unknown one; then x, which stands twice, and the unknown item.
        assert_eq!(features.encoder().deep_rows(), 3 + 2);
        let example = |row| Example { user_row: row, item_row: row, label: true, weight: 1.0 };
        let rows = features.encode(&log(), &[example(1), example(0), example(3)]).expect("encoded");
        assert_eq!(ids(&rows), [1, 3, 2, 4, 0, 3]);
    }

    #[test]
    fn values_come_from_the_row_of_their_owner() {
        let features = fitted();
        let example = Example { user_row: 0, item_row: 2, label: false, weight: 1.0 };
        let row = features.raw_row(&log(), &example);
        assert_eq!(row, [Value::Int(7), Value::Text("x".into()), Value::Float(2.0)]);
        let rows = features.encode(&log(), &[example]).expect("encoded");
        // 2.0 is the mean of the three training prices, whatever the fourth is.
        assert_eq!(rows.columns()[1].values(), &Values::F32(vec![0.0]));
    }

    #[test]
    fn hidden_ids_become_the_unknown_row() {
        let features = fitted();
        let examples = [Example { user_row: 0, item_row: 0, label: true, weight: 1.0 }; 200];
        let mut random = random(7, Purpose::Training, 0);
        let rows = features.encode_hiding(&log(), &examples, 0.5, &mut random).expect("encoded");
        let hidden = ids(&rows).iter().step_by(2).filter(|&&row| row == 0).count();
        assert!((60..140).contains(&hidden), "{hidden} of 200");
    }

    #[test]
    fn equal_numbers_are_left_at_zero() {
        assert_eq!(moments(&[5.0, 5.0]), (5.0, 1.0));
        assert_eq!(moments(&[1.0, 3.0]), (2.0, 1.0));
    }
}
