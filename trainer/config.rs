//! `pipeline.toml`: everything that decides what a training run does, read once and turned into types that cannot
//! hold nonsense. Unknown keys are refused, and keys that carry a unit name it.

use std::{fs, io, path::Path, path::PathBuf};

use millrace::{
    features::Cross,
    repository::{ModelName, NameError},
};
use serde::Deserialize;

use crate::{calendar, onnx_file};

/// Why a pipeline was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no TOML, or has keys that mean nothing here.
    #[error("{0}")]
    Syntax(#[source] Box<toml::de::Error>),
    /// The model's name cannot name a folder.
    #[error("publish.model")]
    Model(#[source] NameError),
    /// A value that contradicts itself or another.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A training run.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// The seed of all randomness.
    pub seed: u64,
    /// The log.
    pub data: DataConfig,
    /// Where in time the log is cut.
    pub split: SplitConfig,
    /// How rows of the log become examples.
    pub examples: ExamplesConfig,
    /// The features, in the order of a request's row.
    pub features: Vec<FeatureConfig>,
    /// Products of categorical features for the wide part.
    pub crosses: Vec<Cross>,
    /// The model and its optimisers.
    pub model: ModelConfig,
    /// The files of the model.
    pub export: ExportConfig,
    /// What a version must reach to be published.
    pub gates: GatesConfig,
    /// Where a version is published.
    pub publish: PublishConfig,
}

/// The log: a CSV or a Parquet file, by its extension.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The file; a relative one is looked for in the data folder that the command line names.
    pub path: PathBuf,
    /// The column that says who.
    pub user: String,
    /// The column that says what.
    pub item: String,
    /// The column that says when: a timestamp, its text, or seconds since 1970.
    pub time: String,
    /// The column that says 1 where the event happened and 0 where it did not. Without one every row is a purchase
    /// and negatives are sampled.
    pub label: Option<String>,
    /// Conditions that a row must meet to be read at all.
    #[serde(default)]
    pub keep: Vec<KeepConfig>,
}

/// Keeps the rows whose `column` is a number above `above`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepConfig {
    /// The column.
    pub column: String,
    /// The bound, itself outside.
    pub above: f64,
}

/// Where in time the log is cut into training and test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitConfig {
    /// Where the test period starts.
    pub test: TestStart,
    /// The length of the slice before the test period that chooses the number of epochs; 0 for none.
    pub validation_seconds: i64,
}

/// Where the test period starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TestStart {
    /// At this second since 1970.
    At(i64),
    /// Where this share of the rows is left.
    Fraction(f64),
}

/// How rows of the log become examples.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExamplesConfig {
    /// Items drawn for each purchase, in logs without labels.
    pub negatives_per_positive: usize,
    /// The age at which an example counts half; without it all count the same.
    pub half_life_days: Option<f64>,
    /// The share of ids that training hides behind the row for unknown ids, so that the row learns what a stranger
    /// is like.
    pub unknown_share: f64,
}

impl Default for ExamplesConfig {
    fn default() -> Self {
        Self { negatives_per_positive: 4, half_life_days: None, unknown_share: 0.01 }
    }
}

/// One feature.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureConfig {
    /// The name that callers use.
    pub name: String,
    /// The log's column.
    pub column: String,
    /// How values become inputs.
    pub encoding: Encoding,
    /// Whose property it is.
    #[serde(default)]
    pub of: Owner,
}

/// How values become inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Encoding {
    /// Ids, each with a row of its own where it is seen at least this often in training.
    Vocabulary {
        /// The least number of rows.
        minimum_count: usize,
    },
    /// Ids, hashed into a number of rows.
    Hash {
        /// The number of rows.
        buckets: u32,
    },
    /// Numbers, standardised.
    Numeric,
}

/// Whose property a feature is. It decides which value a row has that the log does not hold: the row of a user and
/// an item that was drawn for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The user's, or the moment's: it comes from the row in which the user acted.
    #[default]
    User,
    /// The item's: it comes from the item's last row in training.
    Item,
}

/// The model and its optimisers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Numbers in the embedding of an id.
    pub embedding_dimension: usize,
    /// Units of each hidden layer.
    pub hidden_units: Vec<usize>,
    /// Rows in an update.
    pub batch_rows: usize,
    /// The most passes over the examples; the validation slice may choose fewer.
    pub epochs: usize,
    /// Adam's rate, for the layers.
    pub mlp_rate: f64,
    /// Adagrad's rate, for the embeddings.
    pub embedding_rate: f32,
    /// The penalty on an embedding's square, for each example that it occurs in.
    pub embedding_l2: f32,
    /// FTRL's alpha, for the wide part.
    pub wide_rate: f32,
    /// FTRL's penalty on a weight's size.
    pub wide_l1: f32,
    /// FTRL's penalty on a weight's square.
    pub wide_l2: f32,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            embedding_dimension: 16,
            hidden_units: vec![64, 32],
            batch_rows: 4096,
            epochs: 20,
            mlp_rate: 0.001,
            embedding_rate: 0.05,
            embedding_l2: 0.0,
            wide_rate: 0.05,
            wide_l1: 0.0,
            wide_l2: 0.0,
        }
    }
}

/// The files of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportConfig {
    /// Whether there is one in half precision too. The server does not compute with it; engines on GPUs are built of
    /// it, and a version without such an engine is half as large again with it.
    pub fp16: bool,
    /// Tables of more bytes than this lie in a file of their own, which a runtime can map.
    pub max_inline_bytes: u64,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self { fp16: false, max_inline_bytes: onnx_file::MAX_INLINE_BYTES }
    }
}

/// What a version must reach to be published.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatesConfig {
    /// The least share of held-out rows on the right side of 0.5.
    pub accuracy: f64,
    /// How far the AUC may fall below the live version's on the same rows.
    pub max_auc_drop: f64,
}

impl Default for GatesConfig {
    fn default() -> Self {
        Self { accuracy: 0.80, max_auc_drop: 0.01 }
    }
}

/// Where a version is published.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishConfig {
    /// The model repository's root.
    pub repository: PathBuf,
    /// The model.
    pub model: ModelName,
}

impl Pipeline {
    /// Reads a pipeline from a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text)
    }

    /// Reads a pipeline from its text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: RawPipeline = toml::from_str(text).map_err(|error| ConfigError::Syntax(Box::new(error)))?;
        check_examples(&raw.examples)?;
        check_model(&raw.model)?;
        check_features(&raw.features.columns)?;
        Ok(Self {
            seed: raw.seed,
            split: raw.split.parse()?,
            publish: raw.publish.parse()?,
            data: raw.data,
            examples: raw.examples,
            features: raw.features.columns,
            crosses: raw.features.crosses,
            model: raw.model,
            export: raw.export,
            gates: raw.gates,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPipeline {
    seed: u64,
    data: DataConfig,
    split: RawSplit,
    #[serde(default)]
    examples: ExamplesConfig,
    features: RawFeatures,
    #[serde(default)]
    model: ModelConfig,
    #[serde(default)]
    export: ExportConfig,
    #[serde(default)]
    gates: GatesConfig,
    publish: RawPublish,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSplit {
    test_from: Option<String>,
    test_fraction: Option<f64>,
    #[serde(default)]
    validation_days: u32,
}

impl RawSplit {
    fn parse(&self) -> Result<SplitConfig, ConfigError> {
        let test = match (&self.test_from, self.test_fraction) {
            (Some(text), None) => calendar::parse(text)
                .map(TestStart::At)
                .ok_or(ConfigError::Invalid("split.test_from: expected a date, or a date and a time")),
            (None, Some(fraction)) if fraction > 0.0 && fraction < 1.0 => Ok(TestStart::Fraction(fraction)),
            (None, Some(_)) => Err(ConfigError::Invalid("split.test_fraction: must lie between 0 and 1")),
            _ => Err(ConfigError::Invalid("split: needs one of test_from and test_fraction")),
        }?;
        Ok(SplitConfig { test, validation_seconds: i64::from(self.validation_days) * calendar::DAY_SECONDS })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFeatures {
    columns: Vec<FeatureConfig>,
    #[serde(default)]
    crosses: Vec<Cross>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublish {
    repository: PathBuf,
    model: String,
}

impl RawPublish {
    fn parse(self) -> Result<PublishConfig, ConfigError> {
        let model = self.model.parse().map_err(ConfigError::Model)?;
        Ok(PublishConfig { repository: self.repository, model })
    }
}

fn check_examples(examples: &ExamplesConfig) -> Result<(), ConfigError> {
    if examples.half_life_days.is_some_and(|days| days.is_nan() || days <= 0.0) {
        return Err(ConfigError::Invalid("examples.half_life_days: must be above 0"));
    }
    if !(0.0..1.0).contains(&examples.unknown_share) {
        return Err(ConfigError::Invalid("examples.unknown_share: must be at least 0 and below 1"));
    }
    Ok(())
}

fn check_model(model: &ModelConfig) -> Result<(), ConfigError> {
    let sizes = [model.embedding_dimension, model.batch_rows, model.epochs];
    if sizes.iter().chain(&model.hidden_units).any(|&size| size == 0) {
        return Err(ConfigError::Invalid("model: dimensions, units, batch_rows and epochs must be above 0"));
    }
    let rates = [model.mlp_rate, f64::from(model.embedding_rate), f64::from(model.wide_rate)];
    let penalties = [model.embedding_l2, model.wide_l1, model.wide_l2];
    let sound = rates.iter().all(|&rate| rate > 0.0) && penalties.iter().all(|&penalty| penalty >= 0.0);
    if sound {
        Ok(())
    } else {
        Err(ConfigError::Invalid("model: rates must be above 0, penalties not below"))
    }
}

fn check_features(features: &[FeatureConfig]) -> Result<(), ConfigError> {
    if features.iter().any(|feature| feature.encoding != Encoding::Numeric) {
        Ok(())
    } else {
        Err(ConfigError::Invalid("features.columns: needs at least one categorical feature"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        seed = 7

        [data]
        path = "log.csv"
        user = "user_id"
        item = "item_id"
        time = "at"
        keep = [{ column = "price", above = 0 }]

        [split]
        test_from = "2010-11-01"
        validation_days = 2

        [features]
        columns = [
          { name = "user_id", column = "user_id", encoding = { vocabulary = { minimum_count = 2 } } },
          { name = "item_id", column = "item_id", encoding = { hash = { buckets = 64 } }, of = "item" },
          { name = "price", column = "price", encoding = "numeric", of = "item" },
        ]
        crosses = [{ features = ["user_id", "item_id"], buckets = 128 }]

        [publish]
        repository = "models"
        model = "shop"
    "#;

    fn refusal(change: (&str, &str)) -> String {
        let text = EXAMPLE.replace(change.0, change.1);
        assert_ne!(text, EXAMPLE, "the change must change something");
        Pipeline::parse(&text).expect_err(&text).to_string()
    }

    #[test]
    fn the_example_is_read_with_its_units_and_defaults() {
        let pipeline = Pipeline::parse(EXAMPLE).expect("the example");
        assert_eq!(
            pipeline.split,
            SplitConfig { test: TestStart::At(1_288_569_600), validation_seconds: 172_800 }
        );
        assert_eq!(pipeline.features[0].encoding, Encoding::Vocabulary { minimum_count: 2 });
        assert_eq!(pipeline.features[1].of, Owner::Item);
        assert_eq!(pipeline.examples.negatives_per_positive, 4);
        assert!((pipeline.gates.accuracy - 0.80).abs() < f64::EPSILON);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_in_every_table() {
        for (table, key) in
            [("seed = 7", "sead"), ("[data]", "pth"), ("[split]", "test_frm"), ("[publish]", "modle")]
        {
            let text = refusal((table, &format!("{table}\n{key} = 1")));
            assert!(text.contains(key), "{text}");
        }
    }

    #[test]
    fn contradictions_are_named() {
        let day = "test_from = \"2010-11-01\"";
        assert!(refusal((day, "")).contains("one of"));
        assert!(refusal((day, "test_fraction = 1.5")).contains("between 0 and 1"));
        assert!(refusal((day, "test_from = \"soon\"")).contains("a date"));
        assert!(refusal(("[features]", "[model]\nepochs = 0\n[features]")).contains("above 0"));
        assert!(refusal(("[features]", "[model]\nwide_l1 = -1.0\n[features]")).contains("penalties"));
        assert!(refusal(("[features]", "[examples]\nhalf_life_days = 0\n[features]")).contains("half_life"));
        assert!(refusal(("model = \"shop\"", "model = \"../shop\"")).contains("publish.model"));
    }
}
