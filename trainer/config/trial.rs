//! The features of a pipeline as the schema that a version will have, before anything is fitted. The server's encoder is
//! asked to lay it out, so that what it would refuse of a version is refused before the log is read.

use millrace::features::{
    Affinity, CategoricalSource, Cross, Encoder, Feature, FeatureKind, History, HistoryColumn, Schema,
    Transform, Vocabulary,
};

use super::{ConfigError, Encoding, FeatureConfig, ListConfig};
use crate::history::{HistoryConfig, Measure};

/// Whether the server could encode rows of these features, crosses and histories.
pub(super) fn check_schema(
    features: &[FeatureConfig],
    crosses: &[Cross],
    histories: &[HistoryConfig],
) -> Result<(), ConfigError> {
    let again =
        |name: &String| features.iter().any(|feature| feature.name == *name && feature.from.is_some());
    if histories.iter().flat_map(|history| &history.of).any(again) {
        return Err(ConfigError::Invalid(
            "features.history: `of` names features that have a column, not ones that are from another",
        ));
    }
    let mut schema = Schema {
        features: features.iter().map(unfitted).collect(),
        crosses: crosses.to_vec(),
        histories: Vec::new(),
        affinities: Vec::new(),
    };
    for history in histories {
        remember(&mut schema, history);
    }
    match Encoder::new(schema, |_| Ok(Vocabulary::default())) {
        Ok(_) => Ok(()),
        Err(error) => Err(ConfigError::Features(error)),
    }
}

fn unfitted(config: &FeatureConfig) -> Feature {
    Feature {
        name: config.name.clone(),
        from: config.from.clone(),
        optional: config.optional && config.from.is_none(),
        values: config.values.as_ref().map(ListConfig::list),
        kind: kind(&config.encoding),
    }
}

fn kind(encoding: &Encoding) -> FeatureKind {
    let numeric = |transform| FeatureKind::Numeric { transform, mean: 0.0, std: 1.0 };
    let source = match encoding {
        Encoding::Numeric => return numeric(Transform::Identity),
        Encoding::Log => return numeric(Transform::Log),
        Encoding::Vocabulary { .. } => CategoricalSource::Vocabulary,
        Encoding::Hash { buckets } => CategoricalSource::Hash(*buckets),
        Encoding::Boundaries(boundaries) => CategoricalSource::Boundaries(boundaries.clone()),
        Encoding::Quantiles { .. } => CategoricalSource::Boundaries(Vec::new()),
        Encoding::HourOfDay => CategoricalSource::HourOfDay,
        Encoding::DayOfWeek => CategoricalSource::DayOfWeek,
    };
    FeatureKind::Categorical { source }
}

/// Adds a history to those of `schema`; the ones that are found by the same ids share a table.
fn remember(schema: &mut Schema, config: &HistoryConfig) {
    let (name, mean, std) = (config.name.clone(), 0.0, 1.0);
    if let (Measure::Affinity { .. }, [owner, item]) = (config.measure, config.of.as_slice()) {
        return schema.affinities.push(Affinity { name, of: [owner.clone(), item.clone()], mean, std });
    }
    let column = HistoryColumn { name, absent: 0.0, mean, std };
    match schema.histories.iter_mut().find(|history| history.of == config.of) {
        Some(history) => history.columns.push(column),
        None => schema.histories.push(History { of: config.of.clone(), columns: vec![column] }),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::super::{Pipeline, tests::EXAMPLE};

    const HISTORY: &str = r#"
        history = [
          { name = "sold", of = ["user_id"], measure = { count = { window_days = 7 } } },
          { name = "seen", of = ["user_id"], measure = "recency" },
        ]
        [examples]
        windows = { days = 30, count = 4 }
        [publish]"#;

    #[test]
    fn what_the_server_would_refuse_is_refused_with_its_words() {
        let text = EXAMPLE.replace("[publish]", HISTORY);
        Pipeline::parse(&text).expect("the example with histories");
        for (from, to, expected) in [
            ("buckets = 64", "buckets = 0", "feature `item_id`: hash needs at least one row"),
            ("buckets = 64", "buckets = 4294967295", "more than 2147483647 table rows together"),
            ("name = \"hour\"", "name = \"price\"", "feature `price` stands twice"),
            ("name = \"hour\"", "name = \"the hour\"", "a name is 1 to 64 of a-z"),
            ("boundaries = [1, 2.5]", "boundaries = [2.5, 1]", "each above the one before"),
            ("[\"user_id\", \"item_id\"]", "[\"user_id\", \"what\"]", "cross: there is no feature `what`"),
            ("[\"user_id\", \"item_id\"]", "[\"user_id\", \"price\"]", "cross: `price` is numeric"),
            ("buckets = 128", "buckets = 0", "one bucket at least"),
            ("of = [\"user_id\"]", "of = [\"who\"]", "history: `who` is no feature with a vocabulary"),
            ("name = \"seen\"", "name = \"sold\"", "history `sold`: the name stands twice"),
            ("name = \"seen\"", "name = \"price\"", "history `price`: the name stands twice"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "the change must change something");
            let error = Pipeline::parse(&changed).expect_err(to);
            let source = error.source().map(ToString::to_string).unwrap_or_default();
            assert_eq!(error.to_string(), "features");
            assert!(source.contains(expected), "{source}");
        }
    }

    #[test]
    fn a_history_is_of_a_feature_that_has_a_column() {
        let again =
            "{ name = \"again\", from = \"user_id\", encoding = { vocabulary = { minimum_count = 1 } } },";
        let text = EXAMPLE.replacen("columns = [", &format!("columns = [\n{again}"), 1);
        Pipeline::parse(&text).expect("the example with another vocabulary");
        let text = text.replace("[publish]", &HISTORY.replace("of = [\"user_id\"]", "of = [\"again\"]"));
        let error = Pipeline::parse(&text).expect_err("no column").to_string();
        assert!(error.contains("not ones that are from another"), "{error}");
    }
}
