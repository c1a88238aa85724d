//! Gradients of the rows that a batch gathered, one for each row that it touched.
//!
//! A batch names popular ids many times. Their gradients are summed first, in the order of the batch, so that an
//! optimiser sees each row once and the result does not depend on how the work was divided.

/// The summed gradients of the touched rows, ascending by row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowGradients {
    width: usize,
    rows: Vec<u32>,
    counts: Vec<u32>,
    values: Vec<f32>,
}

/// The summed gradient of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowGradient<'a> {
    /// The row.
    pub row: usize,
    /// How often the batch gathered it.
    pub count: u32,
    /// The sum.
    pub values: &'a [f32],
}

impl RowGradients {
    /// Sums the `gradients`, `width` numbers for each of `ids`, by id.
    pub fn sum(ids: &[u32], gradients: &[f32], width: usize) -> Self {
        debug_assert_eq!(ids.len() * width, gradients.len(), "a gradient for each gathered row");
        let mut order: Vec<u32> = (0..).take(ids.len()).collect();
        // A stable sort keeps the order of the batch within a row.
        order.sort_by_key(|&position| ids[position as usize]);
        let mut sums = Self { width, rows: Vec::new(), counts: Vec::new(), values: Vec::new() };
        for position in order {
            let position = position as usize;
            sums.add(ids[position], &gradients[position * width..(position + 1) * width]);
        }
        sums
    }

    /// The gradients, ascending by row.
    pub fn iter(&self) -> impl Iterator<Item = RowGradient<'_>> {
        let each = self.rows.iter().zip(&self.counts).zip(self.values.chunks_exact(self.width));
        each.map(|((&row, &count), values)| RowGradient { row: row as usize, count, values })
    }

    fn add(&mut self, row: u32, gradient: &[f32]) {
        if self.rows.last() == Some(&row) {
            let start = self.values.len() - self.width;
            self.values[start..].iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
            *self.counts.last_mut().expect("a count for each row") += 1;
        } else {
            self.rows.push(row);
            self.counts.push(1);
            self.values.extend_from_slice(gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_of_one_row_are_summed_and_rows_ascend() {
        let sums = RowGradients::sum(&[5, 2, 5], &[1.0, 2.0, 10.0, 20.0, 100.0, 200.0], 2);
        let all: Vec<_> = sums.iter().map(|g| (g.row, g.count, g.values.to_vec())).collect();
        assert_eq!(all, [(2, 1, vec![10.0, 20.0]), (5, 2, vec![101.0, 202.0])]);
    }

    #[test]
    fn an_empty_batch_touches_nothing() {
        assert_eq!(RowGradients::sum(&[], &[], 3).iter().count(), 0);
    }
}
