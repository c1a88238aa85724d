//! Gather beside a reference in double precision, on inputs of every shape.

use half::f16;
use kernels::Field;
use proptest::{collection::vec, prelude::*};

use crate::{
    emulator::{arguments, launch},
    number::{Number, pack, per_chunk, unpack},
};

/// A table, what is made of it, and the rows that ask for it.
#[derive(Clone, Debug)]
struct Case {
    dimension: usize,
    table: Vec<f32>,
    fields: Vec<Field>,
    ids: Vec<i32>,
    dense: Vec<f32>,
    dense_columns: usize,
    rows: usize,
    /// Rows that the grid is made for.
    bucket: usize,
    block: u32,
}

const TABLE_ROWS: usize = 12;
/// Stands where nothing must be written.
const POISON: u128 = u128::MAX / 3;

prop_compose! {
    fn cases()(
        dimension in 1_usize..20,
        widths in vec((1_i32..5, 0..2_i32, 0_i32..4), 0..5),
        dense_columns in 0_usize..7,
        bucket in 1_usize..6,
    )(
        table in vec(-2.0_f32..2.0, TABLE_ROWS * dimension),
        // Some lie outside of the table, on either side.
        ids in vec(prop_oneof![9 => 0..12_i32, 1 => prop_oneof![Just(12), Just(-1), any::<i32>()]],
            bucket * widths.iter().map(|field| field.0 as usize).sum::<usize>()),
        dense in vec(-2.0_f32..2.0, bucket * dense_columns),
        rows in 0..=bucket,
        block in prop_oneof![Just(32_u32), Just(64), Just(96)],
        (dimension, widths, dense_columns, bucket) in Just((dimension, widths, dense_columns, bucket)),
    ) -> Case {
        let mut next = 0;
        let fields = widths.into_iter().map(|(columns, mean, padding)| {
            let first_column = next;
            next += columns;
            Field { first_column, columns, padding, mean }
        });
        Case { dimension, table, fields: fields.collect(), ids, dense, dense_columns, rows, bucket, block }
    }
}

impl Case {
    fn id_columns(&self) -> usize {
        self.fields.iter().map(|field| field.columns as usize).sum()
    }

    /// The numbers of a row of the input, each chunk's after the other, and whether an id lay outside of the table.
    fn reference<T: Number>(&self, row: usize, fault: &mut bool) -> Vec<f64> {
        let mut input = Vec::new();
        let fill = |input: &mut Vec<f64>| input.resize(input.len().next_multiple_of(per_chunk::<T>()), 0.0);
        let ids = &self.ids[row * self.id_columns()..][..self.id_columns()];
        for field in &self.fields {
            let ids = &ids[field.first_column as usize..][..field.columns as usize];
            let mut sums = vec![0.0; self.dimension];
            let mut counted = 0;
            for &id in ids {
                if !(0..TABLE_ROWS as i32).contains(&id) {
                    *fault = true;
                    continue;
                }
                counted += u32::from(id > field.padding);
                for (sum, &number) in sums.iter_mut().zip(&self.table[id as usize * self.dimension..]) {
                    *sum += T::of(number).value();
                }
            }
            let pooled = field.columns > 1 && field.mean == 1;
            let share = if pooled { f64::from(counted.max(1)) } else { 1.0 };
            input.extend(sums.into_iter().map(|sum| sum / share));
            fill(&mut input);
        }
        input.extend(
            self.dense[row * self.dense_columns..][..self.dense_columns]
                .iter()
                .map(|&number| T::of(number).value()),
        );
        fill(&mut input);
        input
    }

    fn check<T: Number>(&self) -> Result<(), TestCaseError> {
        let chunks = self.dimension.div_ceil(per_chunk::<T>());
        let pitch = self.fields.len() * chunks + self.dense_columns.div_ceil(per_chunk::<T>());
        if pitch == 0 {
            return Ok(());
        }
        let table = pack::<T>(&self.table, self.dimension);
        let mut input = vec![POISON; self.bucket * pitch];
        let (rows, mut fault) = (self.rows as u32, 0_u32);
        let grid = (self.bucket * pitch).div_ceil(self.block as usize) as u32;
        // SAFETY: The buffers have the shapes that gather.cu names.
        unsafe {
            launch(
                &format!("gather_{}", T::SUFFIX),
                grid,
                self.block,
                &mut arguments![
                    std::ptr::from_ref(&rows),
                    self.ids.as_ptr(),
                    self.id_columns() as i32,
                    self.dense.as_ptr(),
                    self.dense_columns as i32,
                    self.fields.as_ptr(),
                    self.fields.len() as i32,
                    table.as_ptr(),
                    TABLE_ROWS as u32,
                    chunks as i32,
                    pitch as i32,
                    input.as_mut_ptr(),
                    std::ptr::from_mut(&mut fault),
                ],
            );
        }
        let (there, rest) = input.split_at(self.rows * pitch);
        prop_assert!(rest.iter().all(|&chunk| chunk == POISON), "rows that are not there were written");
        let mut outside = false;
        let expected: Vec<f64> =
            (0..self.rows).flat_map(|row| self.reference::<T>(row, &mut outside)).collect();
        prop_assert_eq!(fault == 1, outside);
        for (place, (ours, expected)) in unpack::<T>(there).into_iter().zip(expected).enumerate() {
            // Sums of a few numbers below 2, rounded once in T and some times in single precision.
            prop_assert!((ours - expected).abs() <= 8.0 * T::STEP, "{} and {} at {}", ours, expected, place);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_first_layer_gets_what_the_ids_and_numbers_say(case in cases()) {
        case.check::<f32>()?;
        case.check::<f16>()?;
    }
}

#[test]
fn one_id_is_moved_bit_for_bit() {
    // A signalling NaN would come out of any arithmetic changed.
    let table = [0x7fa0_0001_u32, 0x8000_0000, 1, 0xff80_0001].map(u128::from);
    let chunk = table.iter().enumerate().fold(0, |chunk, (place, bits)| chunk | bits << (32 * place));
    let (rows, fault, id, field) =
        (1_u32, 0_u32, 0_i32, Field { first_column: 0, columns: 1, padding: 0, mean: 1 });
    let mut input = [POISON];
    let none = std::ptr::null::<f32>();
    // SAFETY: The buffers have the shapes that gather.cu names.
    unsafe {
        launch(
            "gather_f32",
            1,
            32,
            &mut arguments![
                std::ptr::from_ref(&rows),
                std::ptr::from_ref(&id),
                1_i32,
                none,
                0_i32,
                std::ptr::from_ref(&field),
                1_i32,
                std::ptr::from_ref(&chunk),
                1_u32,
                1_i32,
                1_i32,
                input.as_mut_ptr(),
                std::ptr::from_ref(&fault),
            ],
        );
    }
    assert_eq!(input, [chunk]);
}
