//! The shapes that an engine is made for.

use crate::Dims;

/// For each input with a size that is known only when the engine runs, the shapes that it can have then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub(crate) ranges: Vec<(String, Range)>,
}

/// The shapes of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least of each size.
    pub min: Dims,
    /// The shape that kernels are chosen for.
    pub opt: Dims,
    /// The largest of each size.
    pub max: Dims,
}

impl Profile {
    /// A profile of no inputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The profile with the shapes of one more input.
    #[must_use]
    pub fn with(mut self, input: impl Into<String>, range: Range) -> Self {
        self.ranges.push((input.into(), range));
        self
    }

    /// The inputs and their shapes.
    pub fn ranges(&self) -> impl Iterator<Item = (&str, &Range)> {
        self.ranges.iter().map(|(input, range)| (input.as_str(), range))
    }
}
