//! `pipeline.toml`: everything that decides what a training run does, read once and turned into types that cannot
//! hold nonsense. Unknown keys are refused, and keys that carry a unit name it.

mod checks;
mod features;
mod model;
mod trial;

use std::{collections::BTreeMap, fs, io, path::Path, path::PathBuf};

use millrace::{
    features::{Cross, RawKind, SchemaError},
    repository::{ModelName, NameError},
};
use serde::Deserialize;

use self::{
    checks::{check_data, check_examples, check_gates},
    features::{RawFeatures, check_histories, check_towers, parse_features},
    model::check_model,
    trial::check_schema,
};
pub use self::{
    features::{Encoding, FeatureConfig, ListConfig, Owner},
    model::{Architecture, EmbeddingOptimizer, ModelConfig},
};
use crate::{calendar, history::HistoryConfig, onnx_file, windows::WindowsConfig};

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
    #[error(transparent)]
    Syntax(Box<toml::de::Error>),
    /// The model's name cannot name a folder.
    #[error("publish.model")]
    Model(#[source] NameError),
    /// Something that follows from the user and from the item, where there are two towers.
    #[error(
        "{what}: is of the user and of the item, and each tower of two_tower sees one of them alone; leave it out, or take \
         wide_and_deep or dcn_v2"
    )]
    BothSides {
        /// What.
        what: String,
    },
    /// Features that no server could encode.
    #[error("features")]
    Features(#[source] SchemaError),
    /// A number that is too small or too large.
    #[error("{key}: must be {least} to {most}")]
    Bounds {
        /// Its key.
        key: &'static str,
        /// The least that it may be.
        least: usize,
        /// The most that it may be.
        most: usize,
    },
    /// A value that contradicts itself or another.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A training run.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// The seed of all randomness.
    pub seed: u64,
    /// The log, or the table.
    pub data: DataConfig,
    /// Where it is cut.
    pub split: SplitConfig,
    /// How rows of the log become examples.
    pub examples: ExamplesConfig,
    /// The features; those that callers send in the order of a request's row.
    pub features: Vec<FeatureConfig>,
    /// Products of categorical features for the wide part.
    pub crosses: Vec<Cross>,
    /// Features that follow from ids and their past.
    pub histories: Vec<HistoryConfig>,
    /// The model and its optimisers.
    pub model: ModelConfig,
    /// The files of the model.
    pub export: ExportConfig,
    /// What a version must reach to be published.
    pub gates: GatesConfig,
    /// Where a version is published.
    pub publish: PublishConfig,
}

/// The log, or a table of labelled rows: a CSV or a Parquet file, by its extension. In text an empty value and `?` are
/// missing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The file; a relative one is looked for in the data folder that the command line names.
    pub path: PathBuf,
    /// The file of the rows that the model is judged on; a relative one is looked for beside `path`. With it the two
    /// files are a table, whose rows have labels and no time.
    pub test_path: Option<PathBuf>,
    /// The folder of feedback that servers exported, whose rows are added to the log's; a relative one is looked for beside
    /// `path`.
    pub feedback: Option<PathBuf>,
    /// The column that says who. A log has one.
    pub user: Option<String>,
    /// The column that says what. A log has one.
    pub item: Option<String>,
    /// The column that says when: a timestamp, its text, or seconds since 1970. A log has one, a table none.
    pub time: Option<String>,
    /// The column that says 1 where the event happened and 0 where it did not. Without one every row is a purchase
    /// and negatives are sampled.
    pub label: Option<String>,
    /// What the label says where it happened, in place of 1; everything else says that it did not.
    pub label_positive: Option<String>,
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

/// Where a log is cut into training and test, in time; and what of a table's training rows is for validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitConfig {
    /// Where the test period starts.
    pub test: TestStart,
    /// The length of the slice before the test period that chooses the number of epochs; 0 for none.
    pub validation_seconds: i64,
    /// The share of a table's training rows, drawn at random, that chooses the number of epochs; 0 for none.
    pub validation_share: f64,
}

/// Where the test period starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TestStart {
    /// At this second since 1970.
    At(i64),
    /// Where this share of the rows is left.
    Fraction(f64),
    /// So many seconds before the log's end.
    Last(i64),
    /// In a file of its own, which a table has.
    Elsewhere,
}

/// How rows of the log become examples.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExamplesConfig {
    /// Items drawn for each purchase, in logs without labels; 1 to 1000.
    pub negatives_per_positive: usize,
    /// The age at which an example counts half; without it all count the same.
    pub half_life_days: Option<f64>,
    /// The share of ids that training hides behind the row for unknown ids, so that the row learns what a stranger
    /// is like.
    pub unknown_share: f64,
    /// How far users with many examples are kept from outweighing the others: an example's weight is divided by this
    /// power of the number of its user's examples. 0 leaves every example alike, 1 every user.
    pub user_balance: f64,
    /// The windows of time whose rows are learnt from; without them all are. History features need them.
    pub windows: Option<WindowsConfig>,
}

impl Default for ExamplesConfig {
    fn default() -> Self {
        Self {
            negatives_per_positive: 4,
            half_life_days: None,
            unknown_share: 0.01,
            user_balance: 0.0,
            windows: None,
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
    /// The least share of held-out rows on the right side of 0.5; 0 to 1.
    pub accuracy: f64,
    /// How far the AUC may fall below the live version's on the same rows; 0 to 1.
    pub max_auc_drop: f64,
    /// The most that the expected calibration error may be; 0 to 1.
    pub max_calibration_error: f64,
    /// The most that the slowest in a hundred batches of 64 rows may take, in milliseconds, on the machine that
    /// publishes; above 0.
    pub max_latency_ms: f64,
    /// The most that the version's files may hold, in bytes.
    pub max_bytes: u64,
}

impl Default for GatesConfig {
    fn default() -> Self {
        Self {
            accuracy: 0.80,
            max_auc_drop: 0.01,
            max_calibration_error: 0.1,
            max_latency_ms: 50.0,
            max_bytes: 16 << 30,
        }
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
        check_data(&raw.data)?;
        check_examples(&raw.examples, &raw.data)?;
        check_model(&raw.model)?;
        check_gates(&raw.gates)?;
        let features = parse_features(raw.features.columns)?;
        check_histories(&raw.features.history, raw.examples.windows)?;
        check_schema(&features, &raw.features.crosses, &raw.features.history)?;
        if raw.model.architecture() == Architecture::TwoTower {
            check_towers(&features, &raw.features.crosses, &raw.features.history)?;
        }
        Ok(Self {
            seed: raw.seed,
            split: if raw.data.test_path.is_some() { raw.split.of_table()? } else { raw.split.of_log()? },
            publish: raw.publish.parse()?,
            data: raw.data,
            examples: raw.examples,
            features,
            crosses: raw.features.crosses,
            histories: raw.features.history,
            model: raw.model,
            export: raw.export,
            gates: raw.gates,
        })
    }

    /// The columns of the log that history features look at, and what their values are.
    pub fn measured(&self) -> BTreeMap<String, RawKind> {
        self.histories.iter().filter_map(HistoryConfig::measured).collect()
    }

    /// Leaves out the history feature called `name`; false where there is none.
    pub fn leave_out(&mut self, name: &str) -> bool {
        let before = self.histories.len();
        self.histories.retain(|history| history.name != name);
        self.histories.len() < before
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPipeline {
    seed: u64,
    data: DataConfig,
    #[serde(default)]
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSplit {
    test_from: Option<String>,
    test_fraction: Option<f64>,
    test_days: Option<u32>,
    validation_days: Option<u32>,
    validation_share: Option<f64>,
}

impl RawSplit {
    fn of_log(&self) -> Result<SplitConfig, ConfigError> {
        let test = match (&self.test_from, self.test_fraction, self.test_days) {
            (Some(text), None, None) => calendar::parse(text)
                .map(TestStart::At)
                .ok_or(ConfigError::Invalid("split.test_from: expected a date, or a date and a time")),
            (None, Some(fraction), None) if fraction > 0.0 && fraction < 1.0 => {
                Ok(TestStart::Fraction(fraction))
            }
            (None, Some(_), None) => {
                Err(ConfigError::Invalid("split.test_fraction: must lie between 0 and 1"))
            }
            (None, None, Some(days)) if days > 0 => Ok(TestStart::Last(seconds(days))),
            (None, None, Some(_)) => Err(ConfigError::Invalid("split.test_days: must be above 0")),
            _ => Err(ConfigError::Invalid("split: needs one of test_from, test_fraction and test_days")),
        }?;
        if self.validation_share.is_some() {
            return Err(ConfigError::Invalid(
                "split.validation_share: a log is split by time; the share is for a table with data.test_path",
            ));
        }
        let validation_seconds = seconds(self.validation_days.unwrap_or(0));
        Ok(SplitConfig { test, validation_seconds, validation_share: 0.0 })
    }

    fn of_table(&self) -> Result<SplitConfig, ConfigError> {
        let is_timed = self.test_from.is_some() || self.test_days.is_some() || self.validation_days.is_some();
        if is_timed || self.test_fraction.is_some() {
            return Err(ConfigError::Invalid(
                "split: the rows of a table have no time; with data.test_path there is only validation_share",
            ));
        }
        let validation_share = self.validation_share.unwrap_or(0.0);
        if !(0.0..1.0).contains(&validation_share) {
            return Err(ConfigError::Invalid("split.validation_share: must be at least 0 and below 1"));
        }
        Ok(SplitConfig { test: TestStart::Elsewhere, validation_seconds: 0, validation_share })
    }
}

fn seconds(days: u32) -> i64 {
    i64::from(days) * calendar::DAY_SECONDS
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

#[cfg(test)]
mod tests {
    use millrace::features::{List, Pooling};

    use super::*;
    use crate::history::Measure;

    pub(super) const EXAMPLE: &str = r#"
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
          { name = "price", column = "price", encoding = "numeric", of = "item", optional = true },
          { name = "price_bucket", from = "price", encoding = { quantiles = { buckets = 10 } } },
          { name = "price_step", from = "price", encoding = { boundaries = [1, 2.5] } },
          { name = "price_log", from = "price", encoding = "log" },
          { name = "hour", column = "at", encoding = "hour_of_day" },
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
            SplitConfig {
                test: TestStart::At(1_288_569_600),
                validation_seconds: 172_800,
                validation_share: 0.0
            }
        );
        assert_eq!(pipeline.features[0].encoding, Encoding::Vocabulary { minimum_count: 2 });
        assert_eq!(pipeline.features[1].of, Owner::Item);
        let bucket = &pipeline.features[3];
        assert_eq!((&*bucket.column, bucket.of, bucket.optional), ("price", Owner::Item, true));
        assert_eq!(pipeline.features[4].encoding, Encoding::Boundaries(vec![1.0, 2.5]));
        assert_eq!(pipeline.examples.negatives_per_positive, 4);
        assert!((pipeline.gates.accuracy - 0.80).abs() < f64::EPSILON);
        assert_eq!(pipeline.model.embedding_optimizer, EmbeddingOptimizer::Adagrad);
    }

    #[test]
    fn the_optimizer_of_embeddings_is_named() {
        let with = |name: &str| format!("[model]\nembedding_optimizer = \"{name}\"\n[features]");
        let pipeline = Pipeline::parse(&EXAMPLE.replace("[features]", &with("adam"))).expect("a pipeline");
        assert_eq!(pipeline.model.embedding_optimizer, EmbeddingOptimizer::Adam);
        assert!(refusal(("[features]", &with("sgd"))).contains("sgd"));
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

    /// The example with a history of `of` and `measure`, and with windows.
    fn with_history(of: &str, measure: &str) -> String {
        let history = format!("history = [{{ name = \"h\", of = {of}, measure = {measure} }}]");
        let windows = "[examples]\nwindows = { days = 30, count = 4 }\n[features]";
        EXAMPLE
            .replace("hash = { buckets = 64 }", "vocabulary = { minimum_count = 1 }")
            .replace("crosses =", &format!("{history}\ncrosses ="))
            .replace("[features]", windows)
    }

    #[test]
    fn a_history_names_its_measure_and_can_be_left_out() {
        let text = with_history("[\"item_id\"]", "{ count = { window_days = 7 } }");
        let mut pipeline = Pipeline::parse(&text).expect("a pipeline");
        assert_eq!(pipeline.histories[0].measure, Measure::Count { window_days: 7 });
        assert!(!pipeline.leave_out("g") && pipeline.leave_out("h") && pipeline.histories.is_empty());
    }

    #[test]
    fn histories_that_mean_nothing_are_refused() {
        for (of, measure, expected) in [
            ("[]", "\"recency\"", "one or two"),
            ("[\"item_id\"]", "{ affinity = { neighbours = 5 } }", "one or two"),
            ("[\"item_id\"]", "{ count = { window_days = 0 } }", "above 0"),
            ("[\"item_id\"]", "{ trend = { window_days = 9, base_days = 9 } }", "above window_days"),
            ("[\"user_id\", \"item_id\"]", "{ affinity = { neighbours = 0 } }", "1 to 1000"),
        ] {
            let error = Pipeline::parse(&with_history(of, measure)).expect_err(measure).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let text = with_history("[\"item_id\"]", "\"age\"");
        let without_windows = text.replace("windows = { days = 30, count = 4 }", "");
        let error = Pipeline::parse(&without_windows).expect_err("no windows").to_string();
        assert!(error.contains("examples.windows"), "{error}");
        let error = Pipeline::parse(&text.replace("days = 30", "days = 0")).expect_err("no days").to_string();
        assert!(error.contains("examples.windows"), "{error}");
    }

    #[test]
    fn contradictions_are_named() {
        let day = "test_from = \"2010-11-01\"";
        assert!(refusal((day, "")).contains("one of"));
        assert!(refusal((day, "test_fraction = 1.5")).contains("between 0 and 1"));
        assert!(refusal((day, "test_days = 0")).contains("above 0"));
        assert!(refusal((day, "test_fraction = 0.5\ntest_days = 1")).contains("one of"));
        assert!(refusal((day, "test_from = \"soon\"")).contains("a date"));
        assert!(refusal(("[features]", "[model]\nwide_l1 = -1.0\n[features]")).contains("penalties"));
        assert!(refusal(("[features]", "[examples]\nuser_balance = 2\n[features]")).contains("user_balance"));
        assert!(refusal(("[features]", "[examples]\nhalf_life_days = 0\n[features]")).contains("half_life"));
        assert!(refusal(("model = \"shop\"", "model = \"../shop\"")).contains("publish.model"));
    }

    #[test]
    fn what_a_feature_is_from_must_be_there_and_take_the_same() {
        let bucket = "name = \"price_bucket\", from = \"price\"";
        let from = |from: &str| refusal((bucket, &format!("name = \"price_bucket\", {from}")));
        assert!(from("from = \"cost\"").contains("`from` must name"));
        assert!(from("from = \"price_log\"").contains("`from` must name"));
        assert!(from("from = \"user_id\"").contains("takes what that one takes"));
        assert!(
            from("from = \"price\", of = \"item\"")
                .contains("takes `optional`, `of` and `values` from there")
        );
        assert!(from("from = \"price\", column = \"price\"").contains("one of column and from"));
        assert!(from("of = \"item\"").contains("one of column and from"));
        assert!(refusal(("buckets = 10", "buckets = 1")).contains("2 to 65536 buckets"));
    }

    #[test]
    fn a_list_says_how_long_it_may_be_and_what_becomes_of_it() {
        let genres = r#"columns = [
          { name = "genres", column = "genres", encoding = { vocabulary = { minimum_count = 1 } }, of = "item",
            values = { max = 8, pooling = "mean", separator = "|" } },
          { name = "genres_hashed", from = "genres", encoding = { hash = { buckets = 64 } } },"#;
        let text = EXAMPLE.replacen("columns = [", genres, 1);
        let pipeline = Pipeline::parse(&text).expect("a pipeline");
        let list = pipeline.features[0].values.as_ref().expect("a list");
        assert_eq!((list.list(), list.truncate), (List { max: 8, pooling: Pooling::Mean }, false));
        assert_eq!(pipeline.features[1].values.as_ref(), Some(list));
        let refusal = |from: &str, to: &str| {
            let text = text.replacen(from, to, 1);
            Pipeline::parse(&text).expect_err(to).to_string()
        };
        assert!(refusal("max = 8", "max = 0").contains("values.max"));
        assert!(refusal("max = 8", "max = 1025").contains("values.max"));
        assert!(refusal("\"|\"", "\"\"").contains("must not be empty"));
        assert!(refusal("\"mean\"", "\"max\"").contains("mean"));
        let values = "values = { max = 2, pooling = \"sum\" }, encoding = \"numeric\"";
        assert!(refusal("encoding = \"numeric\"", values).contains("is for ids"));
    }

    #[test]
    fn the_architecture_is_named_or_follows_from_the_cross_layers() {
        let with = |model: &str| EXAMPLE.replace("[features]", &format!("[model]\n{model}\n[features]"));
        let kind = |model: &str| Pipeline::parse(&with(model)).expect(model).model.kind();
        assert_eq!([kind(""), kind("architecture = \"wide_and_deep\"")], ["wide_and_deep"; 2]);
        assert_eq!(
            [kind("cross_layers = 1"), kind("architecture = \"dcn_v2\"\ncross_layers = 2")],
            ["dcn_v2"; 2]
        );
        let refusal = |model: &str| Pipeline::parse(&with(model)).expect_err(model).to_string();
        assert!(refusal("architecture = \"wide_and_deep\"\ncross_layers = 1").contains("dcn_v2 has"));
        assert!(refusal("architecture = \"dcn_v2\"").contains("needs cross_layers"));
        assert!(refusal("architecture = \"two_tower\"\ncross_layers = 1").contains("two_tower has none"));
        assert!(refusal("output_dimension = 8").contains("is for two_tower"));
        assert!(refusal("architecture = \"transformer\"").contains("transformer"));
    }

    #[test]
    fn neither_of_two_towers_may_see_what_is_of_both() {
        let two = |text: &str| {
            let model = "[model]\narchitecture = \"two_tower\"\n";
            Pipeline::parse(&text.replacen("[features]", &format!("{model}[features]"), 1))
        };
        let refusal = |text: &str| two(text).expect_err(text).to_string();
        assert!(
            refusal(EXAMPLE).starts_with("the cross of user_id, item_id: is of the user and of the item")
        );
        let without = |text: &str| {
            text.replace("crosses = [{ features = [\"user_id\", \"item_id\"], buckets = 128 }]", "")
        };
        let pipeline = two(&without(EXAMPLE)).expect("two towers");
        assert_eq!((pipeline.model.kind(), pipeline.model.output_dimension()), ("two_tower", 32));
        let one_side = EXAMPLE
            .replace("[\"user_id\", \"item_id\"], buckets", "[\"item_id\", \"price_bucket\"], buckets");
        two(&one_side).expect("a cross of one side");
        let history = |of: &str| without(&with_history(of, "\"age\""));
        two(&history("[\"item_id\"]")).expect("a history of one side");
        let pair = refusal(&history("[\"user_id\", \"item_id\"]"));
        assert!(pair.starts_with("the history `h`: is of the user and of the item"), "{pair}");
        let no_item = without(EXAMPLE).replace("of = \"item\"", "of = \"user\"");
        assert!(refusal(&no_item).contains("one with of = \"item\""));
        let none = without(EXAMPLE).replacen(
            "[features]",
            "[model]\noutput_dimension = 0\narchitecture = \"two_tower\"\n[features]",
            1,
        );
        assert!(Pipeline::parse(&none).expect_err("no numbers").to_string().contains("1 to 4096"));
    }

    const TABLE: &str = r#"
        seed = 7
        data = { path = "train.csv", test_path = "test.csv", label = "class", label_positive = "yes" }
        split = { validation_share = 0.1 }
        features = { columns = [{ name = "job", column = "job", encoding = { hash = { buckets = 64 } } }] }
        publish = { repository = "models", model = "table" }
    "#;

    #[test]
    fn a_table_needs_labels_and_has_no_time() {
        let pipeline = Pipeline::parse(TABLE).expect("a table");
        assert_eq!(pipeline.split.test, TestStart::Elsewhere);
        assert!((pipeline.split.validation_share - 0.1).abs() < f64::EPSILON);
        let refusal = |change: (&str, &str)| {
            Pipeline::parse(&TABLE.replace(change.0, change.1)).expect_err(change.1).to_string()
        };
        assert!(refusal((", label = \"class\"", "")).contains("needs data.label"));
        assert!(refusal((", label = \"class\", label_positive = \"yes\"", "")).contains("need data.label"));
        assert!(refusal((", label = ", ", time = \"at\", label = ")).contains("a table has none"));
        assert!(refusal((", test_path = \"test.csv\"", "")).contains("a log needs user, item and time"));
        assert!(refusal(("validation_share = 0.1", "test_fraction = 0.1")).contains("have no time"));
        assert!(refusal(("validation_share = 0.1", "test_days = 1")).contains("have no time"));
        assert!(refusal(("validation_share = 0.1", "validation_share = 1")).contains("below 1"));
        for option in ["half_life_days = 7", "windows = { days = 7, count = 2 }"] {
            let said = refusal(("features =", &format!("examples = {{ {option} }}\n features =")));
            assert!(said.contains("needs data.time"), "{said}");
        }
    }
}
