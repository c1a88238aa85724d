//! Fits the features on training rows (vocabularies, boundaries, means and deviations) and encodes examples with the
//! very encoder that the server will run.

use std::{collections::HashMap, ops::Range};

use millrace::{
    features::{
        Catalogue, CatalogueError, CategoricalSource, Cross, Encoder, Feature, FeatureError, FeatureKind,
        Past, RawKind, RawValue, Schema, SchemaError, Transform, Value, Vocabulary, VocabularyError,
    },
    tensor::Rows,
};
use rand::Rng;
use rayon::prelude::*;

use crate::{
    config::{Encoding, FeatureConfig, ListConfig, Owner},
    examples::Example,
    history::{HistoryConfig, HistoryPlan},
    log::{FeatureColumn, Ids, Log},
    purchases::Purchases,
    quantiles::boundaries,
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
    /// The features that have a column of their own in the log, which are those that callers send.
    sent: Vec<FeatureConfig>,
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
        let sent: Vec<FeatureConfig> =
            configs.iter().filter(|config| config.from.is_none()).cloned().collect();
        let column = |config: &FeatureConfig| {
            let origin = config.from.as_ref().unwrap_or(&config.name);
            let position = sent.iter().position(|sent| sent.name == *origin);
            &log.features[position.expect("a pipeline's features are from features that have a column")]
        };
        let features = configs.iter().map(|config| Feature {
            name: config.name.clone(),
            from: config.from.clone(),
            optional: config.optional && config.from.is_none(),
            values: config.values.as_ref().map(ListConfig::list),
            kind: kind(config, column(config), rows.clone()),
        });
        let (histories, affinities) = (Vec::new(), Vec::new());
        let schema =
            Schema { features: features.collect(), crosses: crosses.to_vec(), histories, affinities };
        let mut vocabularies = configs.iter().filter_map(|config| vocabulary(config, column(config), &rows));
        // The encoder asks for vocabularies in the order of the features that have one.
        let encoder = Encoder::new(schema, |feature| {
            let vocabulary = vocabularies.next().expect("one for each feature with a vocabulary");
            vocabulary.map_err(|source| SchemaError::Vocabulary { feature: feature.name.clone(), source })
        })?;
        Ok(Self { encoder, sent, pasts: Vec::new() })
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
        let plan = HistoryPlan::new(configs, log, rows.end, (&self.sent, &self.encoder))?;
        let windows = windows.map(|windows| windows.of(&log.times, rows)).unwrap_or_default().into_iter();
        let pasts = windows.map(|window| (window.start, plan.past(rows.clone(), window.start))).collect();
        let past = plan.past(rows.clone(), windows::end_of(&log.times, rows));
        let encoder = self.encoder.remembering(plan.declare(&past), past)?;
        Ok(Self { encoder, sent: self.sent, pasts })
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
        let hides = |encoding: &Encoding| matches!(encoding, Encoding::Vocabulary { .. });
        let past = |example: &Example| self.past_at(*log.times.get(example.user_row as usize)?);
        self.encode_each(log, examples, past, |encoding| hides(encoding) && random.random_bool(unknown_share))
    }

    /// The raw row of an example, as a request would send it.
    pub fn raw_row(&self, log: &Log, example: &Example) -> Vec<Value> {
        let columns = self.sent.iter().zip(&log.features);
        columns.map(|(config, column)| owned(column.raw(example.row(config.of)))).collect()
    }

    /// What the version recommends: the items of `rows`, each with the values of its last row. `None` where the log says
    /// nothing of items, or callers send no id of theirs, or nothing else.
    pub fn catalogue(
        &self,
        log: &Log,
        rows: Range<usize>,
        item: Option<&str>,
    ) -> Result<Option<Catalogue>, CatalogueError> {
        let owned_by_item = |(_, config): &(usize, &FeatureConfig)| config.of == Owner::Item;
        let columns: Vec<(usize, &FeatureConfig)> =
            self.sent.iter().enumerate().filter(owned_by_item).collect();
        let is_id = |config: &FeatureConfig| {
            Some(&*config.column) == item && config.encoding.raw() == RawKind::Id && config.values.is_none()
        };
        let Some((_, id)) = columns.iter().find(|(_, config)| is_id(config)) else { return Ok(None) };
        if columns.len() == self.sent.len() {
            return Ok(None);
        }
        let bought = Purchases::of(log, rows);
        let last = bought.items().iter().filter_map(|&item| bought.last_row_of_item(item));
        let values = |row: u32| {
            columns.iter().map(|&(column, _)| owned(log.features[column].raw(row as usize))).collect()
        };
        let names: Vec<String> = columns.iter().map(|(_, config)| config.name.clone()).collect();
        Catalogue::new(&self.encoder, id.name.clone(), &names, last.map(values).collect()).map(Some)
    }

    /// The past as it was at the start of the window that holds `time`.
    fn past_at(&self, time: i64) -> Option<&Past> {
        let after = self.pasts.partition_point(|&(start, _)| start <= time);
        Some(&self.pasts[after.checked_sub(1)?].1)
    }

    /// Encodes chunk after chunk, several at a time. What `hide` says is asked for in the order of the examples, so that
    /// the draws do not depend on the number of threads.
    fn encode_each<'a>(
        &'a self,
        log: &Log,
        examples: &[Example],
        past: impl Fn(&Example) -> Option<&'a Past> + Sync,
        mut hide: impl FnMut(&Encoding) -> bool,
    ) -> Result<Rows, FitError> {
        let mut hidden = |example: &Example| -> Vec<bool> {
            let sent = self.sent.iter().zip(&log.features);
            let values = sent.flat_map(|(config, column)| {
                let values = match column.raw(example.row(config.of)) {
                    RawValue::List(values) => values.len(),
                    _ => 1,
                };
                std::iter::repeat_n(&config.encoding, values)
            });
            values.map(&mut hide).collect()
        };
        let chunks: Vec<(&[Example], Vec<bool>)> = examples
            .chunks(CHUNK_EXAMPLES)
            .map(|chunk| (chunk, chunk.iter().flat_map(&mut hidden).collect()))
            .collect();
        let encode = |(chunk, hidden): (&[Example], Vec<bool>)| self.encode_chunk(log, chunk, &past, hidden);
        let encoded: Vec<Result<Rows, FitError>> = chunks.into_par_iter().map(encode).collect();
        let mut rows = Rows::new(self.encoder.signature());
        for chunk in encoded {
            let chunk = chunk?;
            rows.extend_from(&chunk, 0..chunk.len());
        }
        Ok(rows)
    }

    /// Encodes `examples`; `hidden` says of each of their values whether it is hidden.
    fn encode_chunk<'a>(
        &'a self,
        log: &Log,
        examples: &[Example],
        past: &impl Fn(&Example) -> Option<&'a Past>,
        hidden: Vec<bool>,
    ) -> Result<Rows, FitError> {
        let mut hidden = hidden.into_iter();
        let mut rows = Rows::new(self.encoder.signature());
        for example in examples {
            rows.push_zeroed();
            for (position, (config, column)) in self.sent.iter().zip(&log.features).enumerate() {
                let mut shown = |value| if hidden.next() == Some(true) { UNKNOWN } else { value };
                let value = column.raw(example.row(config.of));
                let set = match (value, self.encoder.list(position)) {
                    (RawValue::List(values), Some(mut list)) => values
                        .iter()
                        .try_for_each(|value| list.push(&mut rows, shown(value.raw())))
                        .map(|()| list.finish(&mut rows)),
                    (value, _) => self.encoder.set(&mut rows, position, shown(value)),
                };
                set.map_err(|source| FitError::Value { feature: config.name.clone(), source })?;
            }
            match past(example) {
                Some(past) => self.encoder.finish_as_of(past, &mut rows),
                None => self.encoder.finish(&mut rows),
            }
        }
        Ok(rows)
    }
}

/// Examples that one thread encodes at a time.
const CHUNK_EXAMPLES: usize = 1024;
/// No vocabulary has an empty id.
const UNKNOWN: RawValue<'static> = RawValue::Text("");

fn owned(value: RawValue<'_>) -> Value {
    match value {
        RawValue::Int(value) => Value::Int(value),
        RawValue::Float(value) => Value::Float(value),
        RawValue::Text(value) => Value::Text(value.to_owned()),
        RawValue::Missing => Value::Missing,
        RawValue::List(values) => Value::List(values.to_vec()),
    }
}

fn kind(config: &FeatureConfig, column: &FeatureColumn, rows: Range<usize>) -> FeatureKind {
    let numbers = || match column {
        FeatureColumn::Numbers(numbers) => {
            numbers[rows.clone()].iter().copied().filter(|number| !number.is_nan())
        }
        _ => unreachable!("columns are read by the encoding that they have"),
    };
    let standardised = |transform: Transform, numbers: &mut dyn Iterator<Item = f64>| {
        let (mean, std) = moments(&numbers.map(|number| transform.apply(number)).collect::<Vec<_>>());
        FeatureKind::Numeric { transform, mean, std }
    };
    let source = match &config.encoding {
        Encoding::Numeric => return standardised(Transform::Identity, &mut numbers()),
        Encoding::Log => return standardised(Transform::Log, &mut numbers()),
        Encoding::Vocabulary { .. } => CategoricalSource::Vocabulary,
        Encoding::Hash { buckets } => CategoricalSource::Hash(*buckets),
        Encoding::Boundaries(boundaries) => CategoricalSource::Boundaries(boundaries.clone()),
        Encoding::Quantiles { buckets } => {
            CategoricalSource::Boundaries(boundaries(numbers().collect(), *buckets))
        }
        Encoding::HourOfDay => CategoricalSource::HourOfDay,
        Encoding::DayOfWeek => CategoricalSource::DayOfWeek,
    };
    FeatureKind::Categorical { source }
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
    match (&config.encoding, column) {
        (Encoding::Vocabulary { minimum_count }, FeatureColumn::Ids(ids) | FeatureColumn::Lists(ids)) => {
            let texts: Vec<String> =
                frequent(ids, rows.clone(), *minimum_count).into_iter().map(text).collect();
            Some(Vocabulary::new(texts.iter().map(String::as_str)))
        }
        _ => None,
    }
}

/// The ids that occur in `rows` at least `minimum_count` times, by themselves or in lists, the most frequent first, so
/// that the rows which most requests touch lie side by side.
fn frequent(ids: &Ids, rows: Range<usize>, minimum_count: usize) -> Vec<&Value> {
    let mut counts = vec![0_usize; ids.distinct()];
    for &code in &ids.codes()[rows] {
        counts[code as usize] += 1;
    }
    let mut counted = by_id(ids.values().iter().zip(counts));
    counted.retain(|&(_, count)| count >= minimum_count.max(1));
    counted.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    counted.into_iter().map(|(id, _)| id).filter(|id| **id != Value::Missing).collect()
}

/// The counts of ids from those of ids and of lists: a list counts for each of its values.
fn by_id<'a>(counts: impl Iterator<Item = (&'a Value, usize)>) -> Vec<(&'a Value, usize)> {
    let mut counted: Vec<(&Value, usize)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (value, count) in counts {
        let Value::List(values) = value else {
            // Each is there once.
            counted.push((value, count));
            continue;
        };
        for id in values {
            let place = *places.entry(text(id)).or_insert(counted.len());
            if place == counted.len() {
                counted.push((id, 0));
            }
            counted[place].1 += count;
        }
    }
    counted
}

fn text(id: &Value) -> String {
    match id {
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Missing | Value::List(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use millrace::{features::Pooling, tensor::Values};

    use super::*;
    use crate::{
        config::Owner,
        log::Interner,
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
            ..Log::default()
        }
    }

    fn configs() -> Vec<FeatureConfig> {
        let feature = |name: &str, encoding, of| FeatureConfig {
            name: name.into(),
            column: name.into(),
            from: None,
            optional: false,
            encoding,
            values: None,
            of,
        };
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
    fn the_ids_of_lists_are_counted_and_hidden_one_by_one() {
        let mut lists = Interner::default();
        for list in [&["war"][..], &["drama", "war"], &["drama", "war"], &["new"]] {
            lists.push_list(list.iter().copied());
        }
        let mut log = log();
        log.features[0] = FeatureColumn::Lists(lists.finish());
        let mut configs = configs();
        let list = ListConfig { max: 3, pooling: Pooling::Mean, separator: None, truncate: false };
        configs[0] = FeatureConfig { values: Some(list), ..configs[0].clone() };
        let features = FittedFeatures::fit(&log, 0..3, &configs, &[]).expect("fitted");
        // The padding, the unknown id, and `war`, which stands thrice, before `drama`.
        let example = |row| Example { user_row: row, item_row: row, label: true, weight: 1.0 };
        let examples = [example(1), example(3)];
        let rows = features.encode(&log, &examples).expect("encoded");
        assert_eq!((&ids(&rows)[..3], &ids(&rows)[4..7]), (&[3, 2, 0][..], &[1, 0, 0][..]));
        let raw = Value::List(vec![Value::Text("drama".into()), Value::Text("war".into())]);
        assert_eq!(features.raw_row(&log, &examples[0])[0], raw);
        let mut random = random(7, Purpose::Training, 0);
        let rows = features.encode_hiding(&log, &[example(1); 200], 0.5, &mut random).expect("encoded");
        let hidden = |place: usize| ids(&rows).chunks_exact(4).filter(|row| row[place] == 1).count();
        assert!((60..140).contains(&hidden(0)) && (60..140).contains(&hidden(1)));
        assert!(ids(&rows).chunks_exact(4).any(|row| (row[0] == 1) != (row[1] == 1)), "each by itself");
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

    #[test]
    fn one_value_is_encoded_as_often_as_the_pipeline_says_and_sent_once() {
        let mut log = log();
        log.features[2] = FeatureColumn::Numbers(vec![1.0, 3.0, f64::NAN, 100.0]);
        let mut configs = configs();
        configs[2].optional = true;
        let bucket = |name: &str, encoding| FeatureConfig {
            name: name.into(),
            from: Some("price".into()),
            encoding,
            ..configs[2].clone()
        };
        let more = [
            bucket("bucket", Encoding::Quantiles { buckets: 2 }),
            bucket("log", Encoding::Log),
            bucket("step", Encoding::Boundaries(vec![0.0, 50.0])),
        ];
        configs.extend(more);
        let cross = Cross { features: vec!["user".into(), "bucket".into()], buckets: 100 };
        let features = FittedFeatures::fit(&log, 0..3, &configs, &[cross]).expect("fitted");
        let encoder = features.encoder();
        assert_eq!((encoder.width(), encoder.deep_columns(), encoder.signature().inputs[1].width), (3, 4, 2));
        let example = |row| Example { user_row: row, item_row: row, label: true, weight: 1.0 };
        let examples = [example(1), example(2), example(3)];
        assert_eq!(features.raw_row(&log, &examples[1])[2], Value::Missing);
        let rows = features.encode(&log, &examples).expect("encoded");
        // Behind three users and two items: the bucket of missing prices, below 3, from 3 on; then the steps.
        let buckets: Vec<i32> = ids(&rows).chunks_exact(5).map(|row| row[2] - 5).collect();
        let steps: Vec<i32> = ids(&rows).chunks_exact(5).map(|row| row[3] - 8).collect();
        assert_eq!((buckets, steps), (vec![2, 0, 2], vec![2, 0, 3]));
        let Values::F32(dense) = rows.columns()[1].values() else { panic!("numbers are floats") };
        // Of the training prices 1 and 3 the mean is 2 and the deviation 1; a missing one is the mean.
        assert_eq!((dense[0], dense[2], dense[3]), (1.0, 0.0, 0.0));
    }
}
