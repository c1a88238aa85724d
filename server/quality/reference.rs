//! What a version's training rows looked like, and rows that are held against them.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::{Counts, Distribution, Observer, Seen};
use crate::features::{Encoder, RawValue};

/// The distributions of a version's training rows: of each value that callers send, and of the score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// How many rows were counted, a sample where there were more.
    pub rows: u64,
    /// Of the scores, as the version answers rows that it knows nothing of beyond their values.
    pub score: Distribution,
    /// Of each feature that callers send, in the order of a positional row.
    pub features: Vec<FeatureReference>,
}

/// The distribution of one feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureReference {
    /// The feature.
    pub name: String,
    /// Of its raw values.
    pub distribution: Distribution,
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceFault {
    /// A distribution contradicts itself.
    #[error("`{0}`: needs distinct bins in ascending order and a count for each")]
    Bins(String),
    /// It is of other features than the version.
    #[error("is of the features {found}, the version of {expected}")]
    Features {
        /// Those that it names.
        found: String,
        /// Those that callers send.
        expected: String,
    },
}

/// Rows counted in the bins of a [`Reference`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    score: Counts,
    features: Vec<Counts>,
}

impl Reference {
    /// Fails where a distribution contradicts itself, or the features are not `sent`, in their order.
    pub fn check<'a>(&self, sent: impl Iterator<Item = &'a str>) -> Result<(), ReferenceFault> {
        let all = self.features.iter().map(|feature| (feature.name.as_str(), &feature.distribution));
        for (name, Distribution { bins, counts }) in all.chain([("score", &self.score)]) {
            if !bins.are_distinct() || counts.each().len() != bins.count() {
                return Err(ReferenceFault::Bins(name.to_owned()));
            }
        }
        let sent: Vec<&str> = sent.collect();
        let names: Vec<&str> = self.features.iter().map(|feature| feature.name.as_str()).collect();
        if names == sent {
            Ok(())
        } else {
            Err(ReferenceFault::Features { found: names.join(", "), expected: sent.join(", ") })
        }
    }
}

impl Tally {
    /// No rows, in the bins of `reference`.
    pub fn new(reference: &Reference) -> Self {
        let none = |distribution: &Distribution| Counts::none(distribution.bins.count());
        let features = reference.features.iter().map(|feature| none(&feature.distribution));
        Self { score: none(&reference.score), features: features.collect() }
    }

    /// Counts a row and its score in the bins of `reference`, which must be the one that the tally is of. A value that
    /// has no bin is left out.
    pub fn add<'v>(
        &mut self,
        of: (&Reference, &Observer<impl Deref<Target = Encoder>>),
        row: impl Iterator<Item = RawValue<'v>>,
        score: f32,
    ) {
        self.add_score(of.0, score);
        self.add_row(of, row);
    }

    /// Counts a score alone.
    pub fn add_score(&mut self, reference: &Reference, score: f32) {
        if let Some(bin) = reference.score.bins.place(Seen::Number(f64::from(score))) {
            self.score.add(bin);
        }
    }

    /// Counts a row alone.
    pub fn add_row<'v>(
        &mut self,
        (reference, observer): (&Reference, &Observer<impl Deref<Target = Encoder>>),
        row: impl Iterator<Item = RawValue<'v>>,
    ) {
        let features = reference.features.iter().zip(&mut self.features).zip(row).enumerate();
        for (position, ((feature, counts), value)) in features {
            observer.count(position, value, (&feature.distribution.bins, counts));
        }
    }

    /// Adds what another tally of the same reference has counted.
    pub fn merge(&mut self, other: &Self) {
        self.score.merge(&other.score);
        self.features.iter_mut().zip(&other.features).for_each(|(counts, more)| counts.merge(more));
    }

    /// The scores.
    pub fn score(&self) -> &Counts {
        &self.score
    }

    /// The values of each feature, in the order of a positional row.
    pub fn features(&self) -> &[Counts] {
        &self.features
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        features::{Encoder, Schema, Vocabulary},
        quality::Bins,
    };

    fn encoder() -> Encoder {
        let schema: Schema = toml::from_str(
            r#"feature = [
              { name = "user", kind = "categorical", source = "vocabulary" },
              { name = "age", kind = "numeric", mean = 30.0, std = 10.0, optional = true },
            ]"#,
        )
        .expect("a schema");
        let known = Vocabulary::new(["7", "8"]).expect("two ids");
        Encoder::new(schema, |_| Ok(known.clone())).expect("a layout")
    }

    fn feature(name: &str, bins: Bins, counts: &[u64]) -> FeatureReference {
        let counts = serde_json::from_value(counts.into()).expect("counts");
        FeatureReference { name: name.into(), distribution: Distribution { bins, counts } }
    }

    fn reference() -> Reference {
        Reference {
            rows: 4,
            score: feature("score", Bins::Boundaries(vec![0.5]), &[2, 2, 0]).distribution,
            features: vec![
                feature("user", Bins::Ids(vec!["7".into()]), &[3, 1, 0, 0]),
                feature("age", Bins::Boundaries(vec![40.0]), &[2, 1, 1]),
            ],
        }
    }

    const ROWS: [([RawValue<'static>; 2], f32); 4] = [
        ([RawValue::Int(7), RawValue::Int(20)], 0.1),
        ([RawValue::Text("7"), RawValue::Missing], 0.4),
        ([RawValue::Int(8), RawValue::Float(30.5)], 0.5),
        ([RawValue::Int(7), RawValue::Int(60)], 0.9),
    ];

    fn tally(rows: &[([RawValue<'static>; 2], f32)]) -> Tally {
        let (reference, encoder) = (reference(), encoder());
        let observer = Observer::new(&encoder).expect("an observer");
        let mut tally = Tally::new(&reference);
        for (row, score) in rows {
            tally.add((&reference, &observer), row.iter().copied(), *score);
        }
        tally
    }

    #[test]
    fn a_row_counts_once_for_its_score_and_once_for_each_value() {
        let same = tally(&ROWS);
        assert_eq!(same.score(), &reference().score.counts);
        let found = same.features().iter().zip(reference().features);
        for (found, FeatureReference { name, distribution }) in found {
            assert_eq!(found, &distribution.counts, "{name}");
        }
        let strange = tally(&[([RawValue::Int(99), RawValue::Int(60)], 0.9)]);
        assert_eq!(strange.features()[0].each(), [0, 0, 1, 0], "an id that nobody knows");
    }

    #[test]
    fn tallies_of_parts_are_the_tally_of_the_whole() {
        let mut merged = tally(&ROWS[..1]);
        merged.merge(&tally(&ROWS[1..]));
        assert_eq!(merged, tally(&ROWS));
    }

    #[test]
    fn a_reference_that_contradicts_itself_or_the_version_is_refused() {
        let sent = || encoder().sent().map(|feature| feature.name.clone()).collect::<Vec<_>>();
        let check = |reference: &Reference| reference.check(sent().iter().map(String::as_str));
        assert_eq!(check(&reference()), Ok(()));
        let mut short = reference();
        short.features[1] = feature("age", Bins::Boundaries(vec![40.0]), &[2, 1]);
        assert_eq!(check(&short), Err(ReferenceFault::Bins("age".into())));
        let mut other = reference();
        other.features[1].name = "height".into();
        let said = check(&other).expect_err("of another feature").to_string();
        assert_eq!(said, "is of the features user, height, the version of user, age");
    }
}
