//! Raw values as bins see them, by what a version's features say of each: an id may be unknown to a vocabulary, a
//! moment is the hour or the weekday that the model sees of it, and a number is itself.

use std::ops::Deref;

use super::{Bins, Counts, Seen};
use crate::{
    features::{CategoricalSource, Encoder, Feature, FeatureKind, RawValue, Schema, SchemaError, Vocabulary},
    tensor::{Rows, Values},
};

/// Sees the values of a version's rows, with the version's encoder, borrowed or shared.
#[derive(Debug)]
pub struct Observer<E> {
    encoder: E,
    sights: Vec<Sight>,
}

/// How the values of one position are seen.
#[derive(Debug)]
enum Sight {
    Number,
    /// Without a vocabulary the model hashes ids, and none is unknown to it.
    Id,
    /// Encodes this feature alone, so that its table rows count from 0.
    Moment(Box<Encoder>),
}

impl<E: Deref<Target = Encoder>> Observer<E> {
    /// Sees rows of `encoder`.
    pub fn new(encoder: E) -> Result<Self, SchemaError> {
        let sight = |feature: &Feature| {
            Ok(match &feature.kind {
                FeatureKind::Numeric { .. }
                | FeatureKind::Categorical { source: CategoricalSource::Boundaries(_) } => Sight::Number,
                FeatureKind::Categorical {
                    source: CategoricalSource::Vocabulary | CategoricalSource::Hash(_),
                } => Sight::Id,
                FeatureKind::Categorical {
                    source: CategoricalSource::HourOfDay | CategoricalSource::DayOfWeek,
                } => Sight::Moment(Box::new(alone(feature)?)),
            })
        };
        let sights = encoder.sent().map(sight).collect::<Result<_, SchemaError>>()?;
        Ok(Self { encoder, sights })
    }

    /// The encoder of the rows.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Shows `see` what the value at `position` of a positional row is to bins; nothing where the feature does not take
    /// it, for then no row has it.
    ///
    /// # Panics
    /// When `position` is not below the width of a row.
    pub fn observe(&self, position: usize, value: RawValue<'_>, mut see: impl FnMut(Seen<'_>)) {
        self.sights[position].show(self.encoder.vocabulary_at(position), value, &mut see);
    }

    /// Adds the value at `position` of a positional row to the `counts` of `bins`, where it has a bin.
    ///
    /// # Panics
    /// When `position` is not below the width of a row.
    pub fn count(&self, position: usize, value: RawValue<'_>, (bins, counts): (&Bins, &mut Counts)) {
        self.observe(position, value, |seen| bins.place(seen).into_iter().for_each(|bin| counts.add(bin)));
    }
}

impl Sight {
    fn show(&self, known: Option<&Vocabulary>, value: RawValue<'_>, see: &mut impl FnMut(Seen<'_>)) {
        match (self, value) {
            (_, RawValue::Missing) => see(Seen::Missing),
            (_, RawValue::List(values)) => {
                for value in values {
                    self.show(known, value.raw(), see);
                }
            }
            (Self::Number, RawValue::Int(number)) => see(Seen::Number(number as f64)),
            (Self::Number, RawValue::Float(number)) => see(Seen::Number(number)),
            (Self::Id, RawValue::Int(id)) => {
                see(Seen::Id { id: itoa::Buffer::new().format(id), is_known: is_known(known, value) });
            }
            (Self::Id, RawValue::Text(id)) => {
                see(Seen::Id { id, is_known: is_known(known, value) });
            }
            (Self::Moment(encoder), value) => part(encoder, value).into_iter().for_each(see),
            _ => {}
        }
    }
}

fn is_known(vocabulary: Option<&Vocabulary>, id: RawValue<'_>) -> bool {
    vocabulary.is_none_or(|known| known.lookup(id).is_some_and(|row| row > 0))
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

    fn see(position: usize, value: RawValue<'_>) -> Vec<String> {
        let schema: Schema = toml::from_str(SCHEMA).expect("a schema");
        let known = Vocabulary::new(["7", "x"]).expect("two ids");
        let encoder = Encoder::new(schema, |_| Ok(known.clone())).expect("a layout");
        let observer = Observer::new(&encoder).expect("an observer");
        let mut found = Vec::new();
        observer.observe(position, value, |seen| found.push(format!("{seen:?}")));
        found
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
            assert_eq!(see(position, value), [format!("{expected:?}")], "{value:?}");
        }
    }

    #[test]
    fn a_value_that_the_feature_does_not_take_is_not_seen() {
        for (position, value) in
            [(0, RawValue::Float(1.5)), (2, RawValue::Text("old")), (3, RawValue::Text("noon"))]
        {
            assert_eq!(see(position, value), [""; 0], "{value:?}");
        }
    }
}
