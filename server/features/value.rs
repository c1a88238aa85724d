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
    /// Nothing is known: `null`.
    Missing,
    /// Several values, of a feature that takes a list.
    List(&'a [Value]),
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
    /// Nothing is known: `null`.
    Missing,
    /// Several values, of a feature that takes a list.
    List(Vec<Value>),
}

impl Value {
    /// The same value, borrowed.
    pub fn raw(&self) -> RawValue<'_> {
        match self {
            Self::Int(value) => RawValue::Int(*value),
            Self::Float(value) => RawValue::Float(*value),
            Self::Text(value) => RawValue::Text(value),
            Self::Missing => RawValue::Missing,
            Self::List(values) => RawValue::List(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_json() {
        let list = Value::List(vec![Value::Int(1), Value::Text("y".into())]);
        let row = [Value::Int(-7), Value::Float(39.0), Value::Text("x".into()), Value::Missing, list];
        let text = serde_json::to_string(&row).expect("JSON");
        assert_eq!(text, r#"[-7,39.0,"x",null,[1,"y"]]"#);
        assert_eq!(serde_json::from_str::<[Value; 5]>(&text).expect("a row"), row);
    }
}
