//! `gather.cu` on a device, beside sums in double precision.

use super::{
    Bench, Checked, ID_COLUMNS, NOT_THERE, NOT_TOLD, POISON, TABLE_ROWS,
    numbers::{Numbers, decode, encode, id_bytes, pad, size, step, suffix, words},
};
use crate::engine::cuda::device::{Argument, DeviceError, Precision, signed};

impl Bench {
    pub(super) fn check_gather(&mut self, precision: Precision) -> Checked {
        let mut checked = Checked::new(&format!("gather_{}", suffix(precision)), 8.0 * step(precision));
        for (dimension, dense_columns) in [(1, 0), (4, 3), (5, 1), (16, 0), (33, 9)] {
            for (rows, bucket) in self.batches.clone() {
                let case = Gather::new(precision, (dimension, dense_columns), (rows, bucket));
                checked.begin(format!("{rows} of {bucket} rows, {dimension} numbers, {dense_columns} dense"));
                let result = self.gather(&case, &mut checked);
                checked.end(result);
            }
        }
        checked
    }

    fn gather(&mut self, case: &Gather, checked: &mut Checked) -> Result<(), DeviceError> {
        let Gather { precision, dense_columns, rows, bucket, .. } = *case;
        let (chunks, pitch) = (case.chunks(), case.pitch());
        let [count, ids, dense] = [
            self.put(&words(&[rows]))?,
            self.put(&id_bytes(&case.ids))?,
            self.put(&encode(Precision::Single, &case.dense))?,
        ];
        let fields =
            FIELDS.iter().flat_map(|field| [field.first_column, field.columns, field.padding, field.mean]);
        let fields = self.put(&fields.flat_map(i32::to_le_bytes).collect::<Vec<_>>())?;
        let table = self.put(&encode(precision, &pad(&case.table, case.dimension, precision)))?;
        let bytes = bucket * pitch * 16;
        let [input, fault] = [self.put(&vec![POISON; bytes])?, self.put(&[0; 4])?];
        let arguments = [
            Argument::Memory(count.at(0)),
            Argument::Memory(ids.at(0)),
            signed(ID_COLUMNS),
            Argument::Memory(dense.at(0)),
            signed(dense_columns),
            Argument::Memory(fields.at(0)),
            signed(FIELDS.len()),
            Argument::Memory(table.at(0)),
            Argument::Unsigned(TABLE_ROWS),
            signed(chunks),
            signed(pitch),
            Argument::Memory(input.at(0)),
            Argument::Memory(fault.at(0)),
        ];
        self.launch(kernels::GATHER.kernels[precision as usize], bucket * pitch, &arguments)?;
        let found = self.fetch(input.at(0), bytes)?;
        let (there, rest) = found.split_at(rows * pitch * 16);
        checked.expect(rest.iter().all(|&byte| byte == POISON), NOT_THERE);
        let (expected, outside) = case.expected();
        checked.compare(&decode(precision, there), &expected);
        let fault = self.fetch(fault.at(0), 4)?;
        checked.expect((fault != [0; 4]) == outside, NOT_TOLD);
        Ok(())
    }
}

/// An id, a mean of three and a sum of two.
const FIELDS: [kernels::Field; 3] = [
    kernels::Field { first_column: 0, columns: 1, padding: 0, mean: 0 },
    kernels::Field { first_column: 1, columns: 3, padding: 4, mean: 1 },
    kernels::Field { first_column: 4, columns: 2, padding: 0, mean: 0 },
];

/// A batch for the gather.
struct Gather {
    precision: Precision,
    dimension: usize,
    dense_columns: usize,
    rows: usize,
    bucket: usize,
    table: Vec<f32>,
    ids: Vec<i32>,
    dense: Vec<f32>,
}

impl Gather {
    fn new(
        precision: Precision,
        (dimension, dense_columns): (usize, usize),
        (rows, bucket): (usize, usize),
    ) -> Self {
        let mut numbers = Numbers(5);
        let table = numbers.take(TABLE_ROWS as usize * dimension, 2.0);
        let ids = numbers.ids(bucket * ID_COLUMNS, rows > 3);
        let dense = numbers.take(bucket * dense_columns, 2.0);
        Self { precision, dimension, dense_columns, rows, bucket, table, ids, dense }
    }

    fn chunks(&self) -> usize {
        self.dimension.div_ceil(self.precision.per_chunk())
    }

    fn pitch(&self) -> usize {
        FIELDS.len() * self.chunks() + self.dense_columns.div_ceil(self.precision.per_chunk())
    }

    /// The numbers of the rows that there are, and whether an id of theirs lies outside of the table.
    fn expected(&self) -> (Vec<f64>, bool) {
        let rounded = |numbers: &[f32]| decode(self.precision, &encode(self.precision, numbers));
        let (table, dense) = (rounded(&self.table), rounded(&self.dense));
        let (mut expected, mut outside) = (Vec::new(), false);
        let per_chunk = self.precision.per_chunk();
        for row in 0..self.rows {
            let ids = &self.ids[row * ID_COLUMNS..][..ID_COLUMNS];
            for field in FIELDS {
                let ids = &ids[size(field.first_column)..][..size(field.columns)];
                let (mut sums, mut counted) = (vec![0.0; self.dimension], 0_u8);
                for &id in ids {
                    let Some(id) = usize::try_from(id).ok().filter(|&id| id < TABLE_ROWS as usize) else {
                        outside = true;
                        continue;
                    };
                    counted += u8::from(id > size(field.padding));
                    let embedding = &table[id * self.dimension..][..self.dimension];
                    sums.iter_mut().zip(embedding).for_each(|(sum, number)| *sum += number);
                }
                let share = if field.mean == 1 { f64::from(counted.max(1)) } else { 1.0 };
                expected.extend(sums.into_iter().map(|sum| sum / share));
                expected.resize(expected.len().next_multiple_of(per_chunk), 0.0);
            }
            expected.extend_from_slice(&dense[row * self.dense_columns..][..self.dense_columns]);
            expected.resize(expected.len().next_multiple_of(per_chunk), 0.0);
        }
        (expected, outside)
    }
}
