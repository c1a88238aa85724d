//! The features of a model as its artifact declares them in `features/schema.toml`.
//!
//! The order of the features is the order of the values in a positional row. Nothing here is derived: what follows
//! from the declaration (columns, table rows, offsets) is the [`Encoder`](super::Encoder)'s.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Affinity, History, HistoryError, VocabularyError};

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
    /// The features in the order of a positional row.
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
    /// The name that callers use in an object row.
    pub name: String,
    /// How a raw value becomes an input.
    #[serde(flatten)]
    pub kind: FeatureKind,
}

/// How a raw value becomes an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FeatureKind {
    /// An id, a row of an embedding table.
    Categorical {
        /// Which ids have which row.
        source: CategoricalSource,
    },
    /// A number, standardised to `(value - mean) / std`.
    Numeric {
        /// The mean over the training rows.
        mean: f64,
        /// The standard deviation over the training rows, above zero.
        std: f64,
    },
}

/// Where the rows of a categorical feature come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CategoricalSource {
    /// The file `<feature>.vocabulary` beside the schema; row 0 is for unknown ids.
    Vocabulary,
    /// XXH3-64 of the id's text, modulo this many rows.
    Hash(u32),
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
    use super::*;

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

        [[cross]]
        features = ["user_id", "item_id"]
        buckets = 65536
    "#;

    #[test]
    fn the_declaration_survives_writing_and_reading() {
        let schema: Schema = toml::from_str(EXAMPLE).expect("the example");
        assert_eq!(schema.features.len(), 3);
        let directory = tempfile::tempdir().expect("a temporary folder");
        schema.write(directory.path()).expect("written");
        assert_eq!(Schema::read(directory.path()).expect("read"), schema);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Schema>(&EXAMPLE.replace("std = 3.0", "std = 3.0\nclip = 5.0"));
        assert!(error.expect_err("clip is no key").to_string().contains("clip"));
    }
}
