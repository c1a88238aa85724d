//! Shapes.

use std::fmt;

use crate::{Error, sys};

/// A shape of at most eight dimensions; -1 is a size that is known only when the engine runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    count: usize,
    sizes: [i64; MAX],
}

const MAX: usize = sys::TRT_MAX_DIMS as usize;

impl Dims {
    /// A shape.
    pub fn new(sizes: &[i64]) -> Result<Self, Error> {
        let mut all = [0; MAX];
        let to = all.get_mut(..sizes.len()).ok_or(Error::TooManyDims(sizes.len()))?;
        to.copy_from_slice(sizes);
        Ok(Self { count: sizes.len(), sizes: all })
    }

    /// The sizes, outermost first.
    pub fn as_slice(&self) -> &[i64] {
        &self.sizes[..self.count]
    }

    pub(crate) fn raw(self) -> sys::trt_dims {
        let count = self.count.try_into().expect("at most eight");
        sys::trt_dims { count, sizes: self.sizes }
    }

    /// What the shim wrote, whose count it has checked.
    pub(crate) fn from_raw(raw: &sys::trt_dims) -> Self {
        let count = usize::try_from(raw.count).unwrap_or_default().min(MAX);
        Self { count, sizes: raw.sizes }
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_has_at_most_eight_dimensions() {
        assert_eq!(Dims::new(&[1; 8]).expect("eight").as_slice(), [1; 8]);
        assert!(matches!(Dims::new(&[1; 9]), Err(Error::TooManyDims(9))));
        assert_eq!(Dims::new(&[]).expect("a scalar").as_slice(), []);
    }

    #[test]
    fn a_shape_comes_back_from_the_shim_as_it_went() {
        let dims = Dims::new(&[-1, 2]).expect("two");
        assert_eq!(Dims::from_raw(&dims.raw()), dims);
        assert_eq!(dims.to_string(), "[-1, 2]");
    }
}
