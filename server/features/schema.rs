//! The features of a model as its artifact declares them in `features/schema.toml`.
//!
//! Callers send a value for each feature that has no `from`, and the order of these is the order of the values in a
//! positional row. A feature with `from` encodes the value of the one that it names once more. Nothing here is
//! derived: what follows from the declaration (columns, table rows, offsets) is the [`Encoder`](super::Encoder)'s.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Affinity, History, HistoryError, List, VocabularyError};

/// Why a schema was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A file is missing or unreadable.
    #[error("{file}: cannot be read")]
    Read {
        /// The file's name within the features folder.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `schema.toml` is not what this version of the program reads.
    #[error("schema.toml: {0}")]
    Syntax(#[source] Box<toml::de::Error>),
    /// A declaration contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// The vocabulary of a feature was refused.
    #[error("the vocabulary of feature `{feature}`")]
    Vocabulary {
        /// The feature.
        feature: String,
        /// What is wrong with it.
        #[source]
        source: VocabularyError,
    },
    /// A table of histories or affinities was refused.
    #[error("{file}")]
    History {
        /// The file's name within the features folder.
        file: String,
        /// What is wrong with it.
        #[source]
        source: HistoryError,
    },
}

/// All features of a model and their crosses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The features, those that callers send in the order of a positional row.
    #[serde(rename = "feature")]
    pub features: Vec<Feature>,
    /// Products of categorical features, for the wide part of a model.
    #[serde(rename = "cross", default, skip_serializing_if = "Vec::is_empty")]
    pub crosses: Vec<Cross>,
    /// Numbers that follow from ids, as of the end of training.
    #[serde(rename = "history", default, skip_serializing_if = "Vec::is_empty")]
    pub histories: Vec<History>,
    /// Likenesses that follow from two ids, as of the end of training.
    #[serde(rename = "affinity", default, skip_serializing_if = "Vec::is_empty")]
    pub affinities: Vec<Affinity>,
}

/// One feature of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// The name that crosses use, and callers in an object row.
    pub name: String,
    /// The feature whose value it encodes once more; `None` where callers send a value for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether callers may send `null`, or leave it out of an object row. A feature with `from` follows that one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Where callers send a list of ids for it, how long that may be; `None` for a feature of one value. A feature with
    /// `from` takes lists of the same length as that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<List>,
    /// How a raw value becomes an input.
    #[serde(flatten)]
    pub kind: FeatureKind,
}

/// How a raw value becomes an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FeatureKind {
    /// A row of an embedding table.
    Categorical {
        /// Which values have which row.
        source: CategoricalSource,
    },
    /// A number, standardised to `(transform(value) - mean) / std`; 0, which is the mean, where it is missing.
    Numeric {
        /// What is done with it first.
        #[serde(default, skip_serializing_if = "Transform::is_identity")]
        transform: Transform,
        /// The mean over the training rows, once transformed.
        mean: f64,
        /// The standard deviation over the training rows, once transformed, above zero.
        std: f64,
    },
}

/// Where the rows of a categorical feature come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CategoricalSource {
    /// The file `<feature>.vocabulary` beside the schema; row 0 is for ids that are unknown or missing.
    Vocabulary,
    /// XXH3-64 of the id's text, modulo this many rows; a missing id is the empty text.
    Hash(u32),
    /// The bucket between ascending boundaries that a number falls into: row 0 where it is missing, else one more
    /// than the number of boundaries that are not above it.
    Boundaries(Vec<f64>),
    /// The hour of a moment, UTC: row 0 where it is missing, rows 1 to 24 for midnight to 23 h.
    HourOfDay,
    /// The weekday of a moment, UTC: row 0 where it is missing, rows 1 to 7 for Monday to Sunday.
    DayOfWeek,
}

/// What is done with a number before it is standardised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// Nothing.
    #[default]
    Identity,
    /// `sign(x) * ln(1 + |x|)`, for numbers that span orders of magnitude.
    Log,
}

/// What a caller sends for a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKind {
    /// A string or a 64-bit integer.
    Id,
    /// A number.
    Number,
    /// Seconds since 1970, or text that names a date and a time.
    Moment,
}

impl FeatureKind {
    /// What a caller sends for it.
    pub fn raw(&self) -> RawKind {
        match self {
            Self::Categorical { source: CategoricalSource::Vocabulary | CategoricalSource::Hash(_) } => {
                RawKind::Id
            }
            Self::Categorical { source: CategoricalSource::HourOfDay | CategoricalSource::DayOfWeek } => {
                RawKind::Moment
            }
            Self::Categorical { source: CategoricalSource::Boundaries(_) } | Self::Numeric { .. } => {
                RawKind::Number
            }
        }
    }
}

impl Transform {
    /// The transformed `value`.
    pub fn apply(self, value: f64) -> f64 {
        match self {
            Self::Identity => value,
            Self::Log => value.signum() * value.abs().ln_1p(),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_identity(&self) -> bool {
        *self == Self::Identity
    }
}

/// A product of categorical features, hashed into a fixed number of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cross {
    /// The categorical features that it combines, two or more.
    pub features: Vec<String>,
    /// The rows that it is hashed into.
    pub buckets: u32,
}

impl Schema {
    /// Reads `schema.toml` in the folder `directory`.
    pub fn read(directory: &Path) -> Result<Self, SchemaError> {
        let text = fs::read_to_string(directory.join(Self::FILE))
            .map_err(|source| SchemaError::Read { file: Self::FILE.into(), source })?;
        toml::from_str(&text).map_err(|error| SchemaError::Syntax(Box::new(error)))
    }

    /// Writes `schema.toml` into the folder `directory`.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        fs::write(directory.join(Self::FILE), text)
    }

    /// The file's name in the features folder.
    pub const FILE: &str = "schema.toml";
}

#[cfg(test)]
mod tests {
    use super::{super::Pooling, *};

    const EXAMPLE: &str = r#"
        [[feature]]
        name = "user_id"
        kind = "categorical"
        source = "vocabulary"

        [[feature]]
        name = "item_id"
        kind = "categorical"
        source = { hash = 4096 }

        [[feature]]
        name = "price"
        kind = "numeric"
        mean = 12.5
        std = 3.0

        [[feature]]
        name = "price_log"
        from = "price"
        kind = "numeric"
        transform = "log"
        mean = 2
        std = 1.0

        [[feature]]
        name = "price_bucket"
        from = "price"
        kind = "categorical"
        source = { boundaries = [1, 2.5] }

        [[feature]]
        name = "hour"
        optional = true
        kind = "categorical"
        source = "hour_of_day"

        [[feature]]
        name = "genres"
        values = { max = 8, pooling = "mean" }
        kind = "categorical"
        source = { hash = 16 }

        [[cross]]
        features = ["user_id", "price_bucket"]
        buckets = 65536
    "#;

    #[test]
    fn the_declaration_survives_writing_and_reading() {
        let schema: Schema = toml::from_str(EXAMPLE).expect("the example");
        assert_eq!(schema.features.len(), 7);
        assert_eq!(schema.features[6].values, Some(List { max: 8, pooling: Pooling::Mean }));
        assert_eq!(schema.features[4].from.as_deref(), Some("price"));
        assert!(schema.features[5].optional && !schema.features[0].optional);
        let directory = tempfile::tempdir().expect("a temporary folder");
        schema.write(directory.path()).expect("written");
        assert_eq!(Schema::read(directory.path()).expect("read"), schema);
    }

    #[test]
    fn the_log_is_odd_and_takes_zero_and_huge_numbers() {
        let log = |value| Transform::Log.apply(value);
        assert!(log(0.0).abs() < f64::EPSILON && log(-0.0).abs() < f64::EPSILON);
        assert!((log(std::f64::consts::E - 1.0) - 1.0).abs() < 1e-12);
        assert!((log(99_999.0) + log(-99_999.0)).abs() < f64::EPSILON);
        assert!((log(f64::MAX) - 709.78).abs() < 0.01);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Schema>(&EXAMPLE.replace("std = 3.0", "std = 3.0\nclip = 5.0"));
        assert!(error.expect_err("clip is no key").to_string().contains("clip"));
    }
}
