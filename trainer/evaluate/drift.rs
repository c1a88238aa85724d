//! How far the held-out rows lie from the training rows: the bins of the version's own reference, counted again.

use millrace::{
    features::{Encoder, RawKind, RawValue, SchemaError, Value, Vocabulary},
    quality::{Counts, Distribution, FeatureReference, Observer, Reference, Tally, psi, psi_by_chance},
};
use serde::Serialize;

use crate::artifact::Holdout;

/// The population stability index of the held-out rows beside the training rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// The training rows that the reference counted.
    pub training_rows: u64,
    /// Of the scores.
    pub score: Stability,
    /// Of each feature that callers send.
    pub features: Vec<FeatureStability>,
}

/// An index, and what would be one by chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stability {
    /// The population stability index; null where nothing was counted.
    pub psi: Option<f64>,
    /// What it would come to on the mean if nothing had moved.
    pub by_chance: Option<f64>,
}

/// A feature's index.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FeatureStability {
    /// The feature.
    pub feature: String,
    /// Its index.
    #[serde(flatten)]
    pub stability: Stability,
}

/// How many ids a vocabulary did not know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnknownIds {
    /// The feature.
    pub feature: String,
    /// The share of the held-out rows' values that are unknown to it; a missing id is not.
    pub held_out_share: f64,
    /// The same of the training rows, where the version has a reference that says so.
    pub training_share: Option<f64>,
}

impl Drift {
    /// Holds the held-out rows and their `scores` against the `reference` of the version with this `encoder`.
    pub fn of(
        reference: &Reference,
        encoder: &Encoder,
        holdout: &Holdout,
        scores: &[f32],
    ) -> Result<Self, SchemaError> {
        let observer = Observer::new(encoder)?;
        let mut tally = Tally::new(reference);
        for (row, &score) in holdout.input.iter().zip(scores) {
            tally.add((reference, &observer), row.iter().map(Value::raw), score);
        }
        let features = reference.features.iter().zip(tally.features());
        Ok(Self {
            training_rows: reference.rows,
            score: Stability::of(&reference.score, tally.score()),
            features: features
                .map(|(feature, found)| FeatureStability {
                    feature: feature.name.clone(),
                    stability: Stability::of(&feature.distribution, found),
                })
                .collect(),
        })
    }
}

impl Stability {
    fn of(expected: &Distribution, found: &Counts) -> Self {
        Self { psi: psi(&expected.counts, found), by_chance: psi_by_chance(&expected.counts, found) }
    }
}

/// The unknown ids of each feature that has a vocabulary.
pub fn unknown_ids(reference: Option<&Reference>, encoder: &Encoder, holdout: &Holdout) -> Vec<UnknownIds> {
    let features = encoder.schema().features.iter().filter(|feature| feature.kind.raw() == RawKind::Id);
    let unknown = features.filter_map(|feature| {
        let vocabulary = encoder.vocabulary(&feature.name)?;
        let position = encoder.position(feature.from.as_ref().unwrap_or(&feature.name))?;
        let counts = holdout.input.iter().map(|row| unknown_of(vocabulary, row[position].raw()));
        let [unknown, all] = counts.fold([0, 0], |[unknown, all], [more, of]| [unknown + more, all + of]);
        // The reference tells unknown ids of what callers send, not of what is encoded once more.
        let referred = reference.filter(|_| feature.from.is_none());
        let referred = referred.and_then(|reference| reference.features.get(position));
        let training = referred.and_then(|FeatureReference { distribution, .. }| {
            Some(distribution.counts.share(distribution.bins.unknown()?))
        });
        Some(UnknownIds {
            feature: feature.name.clone(),
            held_out_share: unknown as f64 / all.max(1) as f64,
            training_share: training,
        })
    });
    unknown.collect()
}

/// How many unknown ids a value has, and how many values it is.
fn unknown_of(vocabulary: &Vocabulary, value: RawValue<'_>) -> [usize; 2] {
    match value {
        RawValue::Missing => [0, 1],
        RawValue::List(ids) => {
            let counts = ids.iter().map(|id| unknown_of(vocabulary, id.raw()));
            counts.fold([0, 0], |[unknown, all], [more, of]| [unknown + more, all + of])
        }
        id => [usize::from(vocabulary.lookup(id) == Some(0)), 1],
    }
}

#[cfg(test)]
mod tests {
    use millrace::{
        features::Schema,
        quality::{Bins, Seen},
    };

    use super::*;

    fn encoder() -> Encoder {
        let schema: Schema = toml::from_str(
            r#"feature = [
              { name = "user", kind = "categorical", source = "vocabulary", optional = true },
              { name = "age", kind = "numeric", mean = 30.0, std = 10.0 },
            ]"#,
        )
        .expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::new(["7", "8"]).expect("two ids"))).expect("a layout")
    }

    fn reference() -> Reference {
        let ids = [("7", true), ("7", true), ("9", false), ("8", true)];
        let ids = ids.map(|(id, is_known)| Seen::Id { id, is_known });
        let numbers = |boundary, numbers: [f64; 4]| {
            Distribution::of(Bins::Boundaries(vec![boundary]), numbers.map(Seen::Number).into_iter())
        };
        let feature = |name: &str, distribution| FeatureReference { name: name.into(), distribution };
        Reference {
            rows: 4,
            score: numbers(0.5, [0.1, 0.2, 0.8, 0.9]),
            features: vec![
                feature("user", Distribution::of(Bins::Ids(vec!["7".into()]), ids.into_iter())),
                feature("age", numbers(40.0, [20.0, 30.0, 50.0, 60.0])),
            ],
        }
    }

    fn holdout(rows: [(Value, i64); 4]) -> Holdout {
        let input = rows.map(|(user, age)| vec![user, Value::Int(age)]).to_vec();
        Holdout { input, label: vec![true; 4], user: Vec::new() }
    }

    #[test]
    fn rows_like_those_of_training_have_not_moved_and_older_ones_have() {
        let same = holdout([(7, 20), (7, 30), (9, 50), (8, 60)].map(|(user, age)| (Value::Int(user), age)));
        let found = Drift::of(&reference(), &encoder(), &same, &[0.1, 0.2, 0.8, 0.9]).expect("counted");
        let psi = |stability: Stability| stability.psi.expect("rows");
        assert!(psi(found.score).abs() < 1e-12);
        assert!(found.features.iter().all(|feature| psi(feature.stability).abs() < 1e-12), "{found:?}");
        let older = holdout([(7, 50), (7, 60), (9, 70), (8, 80)].map(|(user, age)| (Value::Int(user), age)));
        let found = Drift::of(&reference(), &encoder(), &older, &[0.1, 0.2, 0.8, 0.9]).expect("counted");
        assert!(psi(found.features[0].stability).abs() < 1e-12);
        // (1 - 0.5) * ln(2) + (0 - 0.5) * ln(0.0001 / 0.5), but for the little that is mixed in.
        assert!((psi(found.features[1].stability) - 4.6).abs() < 0.02, "{found:?}");
    }

    #[test]
    fn a_missing_id_is_not_unknown() {
        let rows = holdout([
            (Value::Int(7), 1),
            (Value::Missing, 1),
            (Value::Text("x".into()), 1),
            (Value::Int(8), 1),
        ]);
        let found = unknown_ids(Some(&reference()), &encoder(), &rows);
        let expected =
            UnknownIds { feature: "user".into(), held_out_share: 0.25, training_share: Some(0.25) };
        assert_eq!(found, [expected]);
        assert_eq!(unknown_ids(None, &encoder(), &rows)[0].training_share, None);
    }
}
