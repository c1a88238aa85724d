//! The label: a column of two values, and which of them means that it happened.

use serde::Serialize;

use super::{share::share, values::Values};

/// The label of each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The value that means that it happened.
    pub positive: String,
    /// Whether it happened; `None` where the value is missing.
    pub rows: Vec<Option<bool>>,
}

/// What the report says of the label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelFigures {
    /// The column.
    pub column: String,
    /// The value that means that it happened.
    pub positive: String,
    /// Rows with that value.
    pub positives: usize,
    /// Rows with any value.
    pub rows: usize,
    /// The one over the other.
    pub share: f64,
}

impl Label {
    /// Reads a column: 1, 1.0, true or yes is what happened; of two other values it is the rarer, or the one that is
    /// later in the alphabet if both are as common. `None` unless there are exactly two values.
    pub fn of(values: &Values) -> Option<Self> {
        let [first, second] = values.texts() else { return None };
        let says_yes = |text: &str| YES.contains(&text.to_ascii_lowercase().as_str());
        let counts = values.counts();
        let second_is_positive = match (says_yes(first), says_yes(second)) {
            (true, false) => false,
            (false, true) => true,
            _ => (counts[0], second) > (counts[1], first),
        };
        let positive = u32::from(second_is_positive);
        let row = |row: usize| values.code(row).map(|code| code == positive);
        Some(Self {
            positive: if second_is_positive { second.clone() } else { first.clone() },
            rows: (0..values.codes().len()).map(row).collect(),
        })
    }

    /// What the report says of the label in `column`.
    pub fn figures(&self, column: &str) -> LabelFigures {
        let positives = self.rows.iter().filter(|row| **row == Some(true)).count();
        let rows = self.rows.iter().flatten().count();
        LabelFigures {
            column: column.to_owned(),
            positive: self.positive.clone(),
            positives,
            rows,
            share: share(positives, rows),
        }
    }
}

/// Spellings of what happened.
const YES: [&str; 6] = ["1", "1.0", "true", "yes", "y", "t"];

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(texts: &[&str]) -> Option<String> {
        Label::of(&Values::of(texts.iter().map(|&text| Some(text)))).map(|label| label.positive)
    }

    #[test]
    fn a_yes_is_positive_and_else_the_rarer_value() {
        assert_eq!(positive(&["1", "0", "1"]).as_deref(), Some("1"));
        assert_eq!(positive(&["False", "True"]).as_deref(), Some("True"));
        assert_eq!(positive(&["<=50K", ">50K", "<=50K"]).as_deref(), Some(">50K"));
        assert_eq!(positive(&["b", "a"]).as_deref(), Some("b"));
        assert_eq!(positive(&["a", "b"]).as_deref(), Some("b"));
    }

    #[test]
    fn a_label_has_two_values_and_may_be_missing() {
        assert_eq!((positive(&["1"]), positive(&["0", "1", "2"])), (None, None));
        let label = Label::of(&Values::of([Some("1"), None, Some("0"), Some("0")])).expect("a label");
        assert_eq!(label.rows, [Some(true), None, Some(false), Some(false)]);
        let figures = label.figures("clicked");
        assert_eq!((figures.positives, figures.rows, figures.column.as_str()), (1, 3, "clicked"));
    }
}
