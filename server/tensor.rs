//! Tensors as ranking models see them: a batch of rows, each input `[rows, width]`, row-major.
//!
//! This is the vocabulary that every later stage shares: the feature encoder writes [`Rows`], the batcher joins
//! them, an engine reads them. It is not a general n-dimensional array: a rank above two has no use before the
//! engine, where the model itself reshapes.

use std::{mem::discriminant, ops::Range};

use serde::{Deserialize, Serialize};

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit IEEE 754 float.
    F32,
    /// 32-bit signed integer; the type of table indices.
    I32,
}

/// One input or output of a model: `[rows, width]` elements of `dtype`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The name in the model's graph.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// Elements in each row; the batch axis is implied.
    pub width: usize,
}

/// What a model takes and what it answers: inputs `[rows, width]` each, and one F32 score a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The inputs in the order in which [`Rows`] holds them.
    pub inputs: Vec<TensorSpec>,
    /// The name of the output, F32 `[rows]` or `[rows, 1]`.
    pub output: String,
}

impl Signature {
    /// Bytes that one row takes over all inputs, or `None` where that overflows.
    pub fn bytes_per_row(&self) -> Option<usize> {
        // Both element types are four bytes wide.
        self.inputs.iter().try_fold(0usize, |sum, input| sum.checked_add(input.width.checked_mul(4)?))
    }
}

/// The values of one input over the rows of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// F32 elements.
    F32(Vec<f32>),
    /// I32 elements.
    I32(Vec<i32>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I32(values) => values.len(),
        }
    }
}

/// One input of a growing batch: `len * width` elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    width: usize,
    values: Values,
}

impl Column {
    /// Elements in each row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All elements, row-major.
    pub fn values(&self) -> &Values {
        &self.values
    }
}

/// Rows in a model's input layout, one [`Column`] an input; it grows and shrinks along the batch axis only.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    columns: Vec<Column>,
    len: usize,
}

impl Rows {
    /// No rows yet, with the columns of `signature`.
    pub fn new(signature: &Signature) -> Self {
        let columns = signature
            .inputs
            .iter()
            .map(|input| Column {
                width: input.width,
                values: match input.dtype {
                    DType::F32 => Values::F32(Vec::new()),
                    DType::I32 => Values::I32(Vec::new()),
                },
            })
            .collect();
        Self { columns, len: 0 }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The columns in the order of the signature's inputs.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Adds one row of zeros, to be written through [`Rows::last_i32`] and [`Rows::last_f32`].
    pub fn push_zeroed(&mut self) {
        self.resize(self.len + 1);
    }

    /// Grows with rows of zeros, or drops rows at the end, until there are `len`.
    pub fn resize(&mut self, len: usize) {
        for column in &mut self.columns {
            match &mut column.values {
                Values::F32(values) => values.resize(len * column.width, 0.0),
                Values::I32(values) => values.resize(len * column.width, 0),
            }
        }
        self.len = len;
    }

    /// Drops every row and keeps the memory.
    pub fn clear(&mut self) {
        self.resize(0);
    }

    /// The last row of column `index`, where that column holds I32; empty otherwise or with no rows.
    pub fn last_i32(&mut self, index: usize) -> &mut [i32] {
        match self.columns.get_mut(index) {
            Some(Column { width, values: Values::I32(values) }) => last(values, *width),
            _ => &mut [],
        }
    }

    /// The last row of column `index`, where that column holds F32; empty otherwise or with no rows.
    pub fn last_f32(&mut self, index: usize) -> &mut [f32] {
        match self.columns.get_mut(index) {
            Some(Column { width, values: Values::F32(values) }) => last(values, *width),
            _ => &mut [],
        }
    }

    /// Appends `count` rows. `append` is called for each column in their order, with its width and its values, to which
    /// it adds as many rows of that width.
    ///
    /// # Panics
    /// When `append` adds another number of elements, which is a mistake in this program, never in a request.
    pub fn append(&mut self, count: usize, mut append: impl FnMut(usize, &mut Values)) {
        self.len += count;
        for Column { width, values } in &mut self.columns {
            append(*width, values);
            assert_eq!(values.len(), self.len * *width, "as many elements as the rows have");
        }
    }

    /// Appends the rows `range` of `other`, which must come from the same signature.
    ///
    /// # Panics
    /// When the columns differ or the range is out of bounds: both are mistakes in this program, never in a request.
    /// Then nothing was appended, so that the rows which are here already are not mixed up.
    pub fn extend_from(&mut self, other: &Self, range: Range<usize>) {
        assert!(self.resembles(other), "rows of one signature");
        assert!(range.end <= other.len, "rows that are there");
        for (column, source) in self.columns.iter_mut().zip(&other.columns) {
            let elements = range.start * source.width..range.end * source.width;
            match (&mut column.values, &source.values) {
                (Values::F32(to), Values::F32(from)) => to.extend_from_slice(&from[elements]),
                (Values::I32(to), Values::I32(from)) => to.extend_from_slice(&from[elements]),
                _ => unreachable!("both have the same types"),
            }
        }
        self.len += range.len();
    }

    /// Whether both have the same columns.
    fn resembles(&self, other: &Self) -> bool {
        let same = |(one, other): (&Column, &Column)| {
            one.width == other.width && discriminant(&one.values) == discriminant(&other.values)
        };
        self.columns.len() == other.columns.len() && self.columns.iter().zip(&other.columns).all(same)
    }

    /// Moves the rows `range` so that they start at row `to`, over those that are there, as when gaps are closed from
    /// the front. The number of rows stays as it is.
    pub fn copy_within(&mut self, range: Range<usize>, to: usize) {
        for column in &mut self.columns {
            let (elements, to) = (range.start * column.width..range.end * column.width, to * column.width);
            match &mut column.values {
                Values::F32(values) => values.copy_within(elements, to),
                Values::I32(values) => values.copy_within(elements, to),
            }
        }
    }
}

fn last<T>(values: &mut [T], width: usize) -> &mut [T] {
    let start = values.len().saturating_sub(width);
    &mut values[start..]
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn signature() -> Signature {
        Signature {
            inputs: vec![
                TensorSpec { name: "ids".into(), dtype: DType::I32, width: 2 },
                TensorSpec { name: "dense".into(), dtype: DType::F32, width: 1 },
            ],
            output: "score".into(),
        }
    }

    fn rows(values: &[(i32, i32, f32)]) -> Rows {
        let mut rows = Rows::new(&signature());
        for &(a, b, x) in values {
            rows.push_zeroed();
            rows.last_i32(0).copy_from_slice(&[a, b]);
            rows.last_f32(1).copy_from_slice(&[x]);
        }
        rows
    }

    #[test]
    fn a_range_of_rows_is_appended_in_order() {
        let mut batch = rows(&[(1, 2, 0.5)]);
        batch.extend_from(&rows(&[(3, 4, 1.5), (5, 6, 2.5), (7, 8, 3.5)]), 1..3);
        assert_eq!(batch, rows(&[(1, 2, 0.5), (5, 6, 2.5), (7, 8, 3.5)]));
    }

    #[test]
    fn a_block_is_appended_column_by_column() {
        let mut batch = rows(&[(1, 2, 0.5)]);
        batch.append(2, |width, values| match values {
            Values::I32(values) => values.extend([3, 4, 5, 6].iter().take(2 * width)),
            Values::F32(values) => values.extend([1.5, 2.5, 3.5].iter().take(2 * width)),
        });
        assert_eq!(batch, rows(&[(1, 2, 0.5), (3, 4, 1.5), (5, 6, 2.5)]));
        let short = |batch: &mut Rows| batch.append(1, |_, values| drop(values.clone()));
        assert!(catch_unwind(AssertUnwindSafe(|| short(&mut batch))).is_err());
    }

    #[test]
    fn rows_of_another_signature_are_refused_as_a_whole() {
        let mut other = signature();
        other.inputs[1].width = 2;
        let mut strange = Rows::new(&other);
        strange.push_zeroed();
        let mut batch = rows(&[(1, 2, 0.5)]);
        let refused = catch_unwind(AssertUnwindSafe(|| batch.extend_from(&strange, 0..1)));
        assert!(refused.is_err());
        assert_eq!(batch, rows(&[(1, 2, 0.5)]), "not even the column that fits");
    }

    #[test]
    fn rows_are_moved_over_a_gap() {
        let mut batch = rows(&[(1, 2, 0.5), (3, 4, 1.5), (5, 6, 2.5), (7, 8, 3.5)]);
        batch.copy_within(2..4, 1);
        batch.resize(3);
        assert_eq!(batch, rows(&[(1, 2, 0.5), (5, 6, 2.5), (7, 8, 3.5)]));
    }

    #[test]
    fn asking_a_column_for_the_wrong_type_yields_nothing() {
        let mut batch = rows(&[(1, 2, 0.5)]);
        assert!(batch.last_f32(0).is_empty());
        assert!(batch.last_i32(1).is_empty());
        assert!(batch.last_i32(9).is_empty());
    }

    #[test]
    fn a_cleared_batch_has_no_last_row() {
        let mut batch = rows(&[(1, 2, 0.5)]);
        batch.clear();
        assert!(batch.is_empty());
        assert!(batch.last_i32(0).is_empty());
    }

    #[test]
    fn the_size_of_a_row_is_checked_for_overflow() {
        assert_eq!(signature().bytes_per_row(), Some(12));
        let mut huge = signature();
        huge.inputs[0].width = usize::MAX / 2;
        assert_eq!(huge.bytes_per_row(), None);
    }
}
