//! What turns a caller's raw ids and values into a model's inputs.
//!
//! The trainer fits a [`Schema`] and its vocabularies on the training log and writes them into the artifact; the
//! server reads them back. Both run the same [`Encoder`], so training and serving cannot disagree about a row.
//! It holds no model weights and knows nothing of JSON.

mod affinity;
mod catalogue;
mod encoder;
mod history;
mod list;
mod moment;
mod recall;
mod schema;
mod slot;
mod value;
mod vocabulary;

pub use self::{
    affinity::{Affinity, AffinityTable},
    catalogue::{Catalogue, CatalogueError, PairError},
    encoder::{Columns, Encoder, FeatureError, Place},
    history::{History, HistoryColumn, HistoryError, HistoryTable, Past},
    list::{List, ListColumns, ListInput, Pooling},
    schema::{CategoricalSource, Cross, Feature, FeatureKind, RawKind, Schema, SchemaError, Transform},
    value::{RawValue, Value},
    vocabulary::{Vocabulary, VocabularyError},
};
