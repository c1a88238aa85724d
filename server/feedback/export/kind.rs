//! Of what kind a column is, from all that is in it: the narrowest that loses nothing.

use crate::feedback::Scalar;

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing so far.
    Empty,
    Bool,
    /// Whole numbers; whether floats can tell all of them apart.
    Int {
        as_float: bool,
    },
    Float,
    /// Texts, or kinds that have nothing else in common.
    Text,
}

impl Kind {
    pub(super) fn of(value: &Scalar) -> Self {
        match value {
            Scalar::Missing => Self::Empty,
            Scalar::Bool(_) => Self::Bool,
            Scalar::Int(number) => Self::Int { as_float: number.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS },
            Scalar::Float(_) => Self::Float,
            Scalar::Text(_) => Self::Text,
        }
    }

    /// What holds values of both.
    pub(super) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Empty, kind) | (kind, Self::Empty) => kind,
            (Self::Bool, Self::Bool) => Self::Bool,
            (Self::Int { as_float: one }, Self::Int { as_float: other }) => {
                Self::Int { as_float: one && other }
            }
            (Self::Float, Self::Float | Self::Int { as_float: true })
            | (Self::Int { as_float: true }, Self::Float) => Self::Float,
            _ => Self::Text,
        }
    }
}

/// A value as a text: the same for whole numbers as an id of theirs.
pub(super) fn text(value: &Scalar) -> String {
    match value {
        Scalar::Missing => String::new(),
        Scalar::Bool(truth) => truth.to_string(),
        Scalar::Int(number) => number.to_string(),
        Scalar::Float(number) => number.to_string(),
        Scalar::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_of_the_narrowest_kind_that_loses_nothing() {
        let kind = |values: &[Scalar]| values.iter().map(Kind::of).fold(Kind::Empty, Kind::join);
        let (small, large) = (Scalar::Int(-(1 << 53)), Scalar::Int((1 << 53) + 1));
        let (float, truth, text) = (Scalar::Float(0.5), Scalar::Bool(true), Scalar::Text("a".to_owned()));
        assert_eq!(kind(&[Scalar::Missing]), Kind::Empty);
        assert_eq!(kind(&[Scalar::Missing, truth.clone()]), Kind::Bool);
        assert_eq!(kind(&[small.clone(), large.clone()]), Kind::Int { as_float: false });
        assert_eq!(kind(&[small.clone(), float.clone()]), Kind::Float);
        assert_eq!(kind(&[float.clone(), large]), Kind::Text, "two ids would become one");
        assert_eq!(kind(&[truth.clone(), small]), Kind::Text);
        assert_eq!(kind(&[truth, float]), Kind::Text);
        assert_eq!(kind(&[text, Scalar::Missing]), Kind::Text);
    }
}
