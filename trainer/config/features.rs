//! What a pipeline says of features: which columns become which inputs, and what follows from ids and their past.

use millrace::features::{Cross, List, Pooling, RawKind};
use serde::Deserialize;

use super::ConfigError;
use crate::{history::HistoryConfig, windows::WindowsConfig};

/// One feature.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureConfig {
    /// The name that callers and crosses use.
    pub name: String,
    /// The column that its values come from.
    pub column: String,
    /// The feature whose value it encodes once more, so that callers send that one alone.
    pub from: Option<String>,
    /// Whether the value may be missing. A row of the log that lacks another feature's is dropped.
    pub optional: bool,
    /// How values become inputs.
    pub encoding: Encoding,
    /// Where each value is a list of ids, what is said of the list.
    pub values: Option<ListConfig>,
    /// Whose property it is.
    pub of: Owner,
}

/// What a pipeline says of a feature whose values are lists of ids.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListConfig {
    /// The most values of a list, each of which is a column of the model.
    pub max: usize,
    /// What becomes of their embeddings.
    pub pooling: Pooling,
    /// What stands between the values, where the column is one of texts and not of lists.
    pub separator: Option<String>,
    /// Whether longer lists of the log are cut after the first `max` values; without it they are an error.
    #[serde(default)]
    pub truncate: bool,
}

impl ListConfig {
    /// What the version's schema says of it.
    pub fn list(&self) -> List {
        List { max: self.max, pooling: self.pooling }
    }
}

/// How values become inputs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Encoding {
    /// Ids, each with a row of its own where it is seen at least this often in training.
    Vocabulary {
        /// The least number of rows.
        minimum_count: usize,
    },
    /// Ids, hashed into a number of rows.
    Hash {
        /// The number of rows.
        buckets: u32,
    },
    /// Numbers, standardised.
    Numeric,
    /// Numbers, standardised once `sign(x) * ln(1 + |x|)` is taken of them.
    Log,
    /// Numbers, each the bucket between these ascending boundaries that it falls into.
    Boundaries(Vec<f64>),
    /// Numbers, each its bucket; the boundaries are fitted so that the buckets hold as many training rows each as
    /// repeated values allow.
    Quantiles {
        /// The most buckets.
        buckets: usize,
    },
    /// Moments, each its hour of the day in UTC.
    HourOfDay,
    /// Moments, each its day of the week in UTC.
    DayOfWeek,
}

impl Encoding {
    /// What the values are.
    pub fn raw(&self) -> RawKind {
        match self {
            Self::Vocabulary { .. } | Self::Hash { .. } => RawKind::Id,
            Self::Numeric | Self::Log | Self::Boundaries(_) | Self::Quantiles { .. } => RawKind::Number,
            Self::HourOfDay | Self::DayOfWeek => RawKind::Moment,
        }
    }

    /// Whether it fills a dense column in place of a column of ids.
    pub fn is_dense(&self) -> bool {
        matches!(self, Self::Numeric | Self::Log)
    }
}

/// Whose property a feature is. It decides which value a row has that the log does not hold: the row of a user and
/// an item that was drawn for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The user's, or the moment's: it comes from the row in which the user acted.
    #[default]
    User,
    /// The item's: it comes from the item's last row in training.
    Item,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFeatures {
    pub(super) columns: Vec<RawFeature>,
    #[serde(default)]
    pub(super) crosses: Vec<Cross>,
    #[serde(default)]
    pub(super) history: Vec<HistoryConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFeature {
    name: String,
    column: Option<String>,
    from: Option<String>,
    #[serde(default)]
    optional: bool,
    encoding: Encoding,
    values: Option<ListConfig>,
    of: Option<Owner>,
}

impl RawFeature {
    /// The feature, once the ones that have a column of their own are known.
    fn parse(self, origins: &[FeatureConfig]) -> Result<FeatureConfig, ConfigError> {
        let Self { name, column, from, optional, encoding, values, of } = self;
        let (column, optional, values, of) = match (column, &from) {
            (Some(column), None) => (column, optional, values, of.unwrap_or_default()),
            (None, Some(_)) if optional || of.is_some() || values.is_some() => {
                return Err(ConfigError::Invalid(
                    "features.columns: one that is from another takes `optional`, `of` and `values` from there",
                ));
            }
            (None, Some(from)) => match origins.iter().find(|origin| origin.name == *from) {
                Some(origin) if origin.encoding.raw() == encoding.raw() => {
                    (origin.column.clone(), origin.optional, origin.values.clone(), origin.of)
                }
                Some(_) => {
                    return Err(ConfigError::Invalid(
                        "features.columns: one that is from another takes what that one takes: ids, numbers or times",
                    ));
                }
                None => {
                    return Err(ConfigError::Invalid(
                        "features.columns: `from` must name a feature that has a column",
                    ));
                }
            },
            _ => return Err(ConfigError::Invalid("features.columns: each needs one of column and from")),
        };
        Ok(FeatureConfig { name, column, from, optional, encoding, values, of })
    }
}

/// The features in the order in which the file has them.
pub(super) fn parse_features(raw: Vec<RawFeature>) -> Result<Vec<FeatureConfig>, ConfigError> {
    let (with_column, others): (Vec<_>, Vec<_>) =
        raw.into_iter().enumerate().partition(|(_, feature)| feature.from.is_none());
    let parse = |(position, feature): (usize, RawFeature), origins: &[FeatureConfig]| {
        feature.parse(origins).map(|feature| (position, feature))
    };
    let mut features: Vec<_> =
        with_column.into_iter().map(|feature| parse(feature, &[])).collect::<Result<_, _>>()?;
    let origins: Vec<_> = features.iter().map(|(_, feature)| feature.clone()).collect();
    for feature in others {
        features.push(parse(feature, &origins)?);
    }
    features.sort_by_key(|(position, _)| *position);
    let features: Vec<_> = features.into_iter().map(|(_, feature)| feature).collect();
    check_features(&features)?;
    Ok(features)
}

fn check_features(features: &[FeatureConfig]) -> Result<(), ConfigError> {
    let quantiles = |encoding: &Encoding| matches!(encoding, Encoding::Quantiles { buckets } if !(2..=MOST_BUCKETS).contains(buckets));
    if features.iter().any(|feature| quantiles(&feature.encoding)) {
        return Err(ConfigError::Invalid("features.columns: quantiles need 2 to 65536 buckets"));
    }
    for (feature, list) in features.iter().filter_map(|feature| Some((feature, feature.values.as_ref()?))) {
        if feature.encoding.raw() != RawKind::Id {
            return Err(ConfigError::Invalid(
                "features.columns: `values` is for ids: a vocabulary or a hash",
            ));
        }
        if !(1..=List::MAX_VALUES).contains(&list.max) {
            return Err(ConfigError::Invalid("features.columns: values.max must be 1 to 1024"));
        }
        if list.separator.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::Invalid("features.columns: values.separator must not be empty"));
        }
    }
    if features.iter().all(|feature| feature.encoding.is_dense()) {
        return Err(ConfigError::Invalid("features.columns: needs at least one categorical feature"));
    }
    Ok(())
}

/// Whether the histories mean something, and have the windows that they need.
pub(super) fn check_histories(
    histories: &[HistoryConfig],
    windows: Option<WindowsConfig>,
) -> Result<(), ConfigError> {
    if let Some(fault) = histories.iter().find_map(HistoryConfig::fault) {
        return Err(ConfigError::Invalid(fault));
    }
    let measured = || histories.iter().filter_map(HistoryConfig::measured);
    if measured().any(|(name, kind)| measured().any(|(other, as_other)| name == other && kind != as_other)) {
        return Err(ConfigError::Invalid(
            "features.history: a column cannot be looked at as numbers and as texts",
        ));
    }
    if histories.is_empty() || windows.is_some() {
        Ok(())
    } else {
        Err(ConfigError::Invalid("features.history: needs examples.windows, as whose start it is known"))
    }
}

/// Whether each side of two towers has something to see, and nothing follows from both.
pub(super) fn check_towers(
    features: &[FeatureConfig],
    crosses: &[Cross],
    histories: &[HistoryConfig],
) -> Result<(), ConfigError> {
    let owner =
        |name: &String| features.iter().find(|feature| feature.name == *name).map(|feature| feature.of);
    // A name that is no feature's is refused where its feature is looked for.
    let is_of_both = |names: &[String]| {
        let mut owners = names.iter().filter_map(owner);
        owners.next().is_some_and(|first| owners.any(|owner| owner != first))
    };
    let crosses =
        crosses.iter().map(|cross| (format!("the cross of {}", cross.features.join(", ")), &cross.features));
    let histories = histories.iter().map(|history| (format!("the history `{}`", history.name), &history.of));
    if let Some((what, _)) = crosses.chain(histories).find(|(_, names)| is_of_both(names)) {
        return Err(ConfigError::BothSides { what });
    }
    let has_ids = |side| features.iter().any(|feature| feature.of == side && !feature.encoding.is_dense());
    if has_ids(Owner::User) && has_ids(Owner::Item) {
        Ok(())
    } else {
        Err(ConfigError::Invalid(
            "model.architecture: two_tower needs a categorical feature of the user and one with of = \"item\"",
        ))
    }
}

/// Buckets of one feature: one more than the boundaries that the server takes.
const MOST_BUCKETS: usize = 65_536;
