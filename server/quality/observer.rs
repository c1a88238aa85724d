//! Raw values as bins see them, by what a version's features say of each: an id may be unknown to a vocabulary, a
//! moment is the hour or the weekday that the model sees of it, and a number is itself.

use super::{Bins, Seen};
use crate::{
    features::{CategoricalSource, Encoder, Feature, FeatureKind, RawValue, Schema, SchemaError, Vocabulary},
    tensor::{Rows, Values},
};

/// Sees the values of a version's rows.
#[derive(Debug)]
pub struct Observer<'a> {
    sights: Vec<Sight<'a>>,
}

/// How the values of one position are seen.
#[derive(Debug)]
enum Sight<'a> {
    Number,
    /// Without a vocabulary the model hashes ids, and none is unknown to it.
    Id(Option<&'a Vocabulary>),
    /// Encodes this feature alone, so that its table rows count from 0.
    Moment(Box<Encoder>),
}

impl<'a> Observer<'a> {
    /// Sees rows of `encoder`.
    pub fn new(encoder: &'a Encoder) -> Result<Self, SchemaError> {
        let sight = |feature: &Feature| {
            Ok(match &feature.kind {
                FeatureKind::Numeric { .. }
                | FeatureKind::Categorical { source: CategoricalSource::Boundaries(_) } => Sight::Number,
                FeatureKind::Categorical {
                    source: CategoricalSource::Vocabulary | CategoricalSource::Hash(_),
                } => Sight::Id(encoder.vocabulary(&feature.name)),
                FeatureKind::Categorical {
                    source: CategoricalSource::HourOfDay | CategoricalSource::DayOfWeek,
                } => Sight::Moment(Box::new(alone(feature)?)),
            })
        };
        Ok(Self { sights: encoder.sent().map(sight).collect::<Result<_, SchemaError>>()? })
    }

    /// Shows `then` what the value at `position` of a positional row is to bins. `None` for a value that the feature
    /// does not take.
    ///
    /// # Panics
    /// When `position` is not below the width of a row.
    pub fn observe<T>(
        &self,
        position: usize,
        value: RawValue<'_>,
        then: impl FnOnce(Seen<'_>) -> T,
    ) -> Option<T> {
        let mut digits = itoa::Buffer::new();
        let observed = match (&self.sights[position], value) {
            (_, RawValue::Missing) => Seen::Missing,
            (Sight::Number, RawValue::Int(number)) => Seen::Number(number as f64),
            (Sight::Number, RawValue::Float(number)) => Seen::Number(number),
            (Sight::Id(vocabulary), RawValue::Int(_) | RawValue::Text(_)) => {
                let is_known = vocabulary.is_none_or(|known| known.lookup(value).is_some_and(|row| row > 0));
                let id = match value {
                    RawValue::Int(number) => digits.format(number),
                    RawValue::Text(id) => id,
                    _ => return None,
                };
                Seen::Id { id, is_known }
            }
            (Sight::Moment(encoder), value) => part(encoder, value)?,
            _ => return None,
        };
        Some(then(observed))
    }

    /// The bin of `bins` for the value at `position` of a positional row. `None` for a value that has none.
    ///
    /// # Panics
    /// When `position` is not below the width of a row.
    pub fn place(&self, position: usize, value: RawValue<'_>, bins: &Bins) -> Option<usize> {
        self.observe(position, value, |observed| bins.place(observed)).flatten()
    }
}

fn alone(feature: &Feature) -> Result<Encoder, SchemaError> {
    let schema = Schema {
        features: vec![Feature { optional: true, ..feature.clone() }],
        crosses: Vec::new(),
        histories: Vec::new(),
        affinities: Vec::new(),
    };
    let name = feature.name.clone();
    Encoder::new(schema, |_| Err(SchemaError::Invalid(format!("feature `{name}` is a moment"))))
}

fn part(encoder: &Encoder, value: RawValue<'_>) -> Option<Seen<'static>> {
    let mut rows = Rows::new(encoder.signature());
    encoder.encode([value].into_iter(), &mut rows).ok()?;
    match rows.columns()[0].values() {
        // Row 0 is for missing moments, which never come here.
        Values::I32(ids) => u32::try_from(*ids.first()? - 1).ok().map(Seen::Part),
        Values::F32(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"
        feature = [
          { name = "user", kind = "categorical", source = "vocabulary" },
          { name = "city", kind = "categorical", source = { hash = 10 }, optional = true },
          { name = "age", kind = "numeric", mean = 30.0, std = 10.0 },
          { name = "at", kind = "categorical", source = "hour_of_day" },
        ]
    "#;

    fn see(position: usize, value: RawValue<'_>) -> Option<String> {
        let schema: Schema = toml::from_str(SCHEMA).expect("a schema");
        let known = Vocabulary::new(["7", "x"]).expect("two ids");
        let encoder = Encoder::new(schema, |_| Ok(known.clone())).expect("a layout");
        let observer = Observer::new(&encoder).expect("an observer");
        observer.observe(position, value, |observed| format!("{observed:?}"))
    }

    #[test]
    fn a_value_is_seen_as_its_feature_takes_it() {
        let cases = [
            (0, RawValue::Int(7), Seen::Id { id: "7", is_known: true }),
            (0, RawValue::Text("7"), Seen::Id { id: "7", is_known: true }),
            (0, RawValue::Text("y"), Seen::Id { id: "y", is_known: false }),
            (1, RawValue::Text("Graz"), Seen::Id { id: "Graz", is_known: true }),
            (1, RawValue::Missing, Seen::Missing),
            (2, RawValue::Int(39), Seen::Number(39.0)),
            (2, RawValue::Float(39.5), Seen::Number(39.5)),
            (3, RawValue::Text("2010-11-01T08:30:00Z"), Seen::Part(8)),
            (3, RawValue::Int(0), Seen::Part(0)),
        ];
        for (position, value, expected) in cases {
            assert_eq!(see(position, value), Some(format!("{expected:?}")), "{value:?}");
        }
    }

    #[test]
    fn a_value_that_the_feature_does_not_take_is_not_seen() {
        for (position, value) in
            [(0, RawValue::Float(1.5)), (2, RawValue::Text("old")), (3, RawValue::Text("noon"))]
        {
            assert_eq!(see(position, value), None, "{value:?}");
        }
    }
}
