//! One raw value of a row as a caller gives it, before any schema has judged it.

use serde::{Deserialize, Serialize};

/// A raw value borrowed from a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RawValue<'a> {
    /// An integer.
    Int(i64),
    /// A number with a fraction, an exponent, or beyond 64 bits.
    Float(f64),
    /// A string.
    Text(&'a str),
}

/// A raw value that owns its text, as golden rows and training logs keep it. An integer and its decimal text are the
/// same id to every [`Encoder`](super::Encoder).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// An integer.
    Int(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A string.
    Text(String),
}

impl Value {
    /// The same value, borrowed.
    pub fn raw(&self) -> RawValue<'_> {
        match self {
            Self::Int(value) => RawValue::Int(*value),
            Self::Float(value) => RawValue::Float(*value),
            Self::Text(value) => RawValue::Text(value),
        }
    }
}
