//! The head beside a reference in double precision.

use half::f16;
use proptest::{collection::vec, prelude::*};

use crate::{
    emulator::{arguments, launch},
    number::{Number, pack, per_chunk},
};

const WIDE_ROWS: usize = 9;
const POISON: f32 = -7.0;

#[derive(Clone, Debug)]
struct Case {
    units: usize,
    hidden: Vec<f32>,
    weights: Vec<f32>,
    id_columns: usize,
    ids: Vec<i32>,
    wide: Vec<f32>,
    bias: f32,
    rows: usize,
    bucket: usize,
    block: u32,
}

prop_compose! {
    // More than 32 lanes have chunks and ids now and then.
    fn cases()(
        units in prop_oneof![1_usize..40, Just(300)],
        id_columns in prop_oneof![0_usize..6, Just(40)],
        bucket in 1_usize..6,
    )(
        hidden in vec(0.0_f32..1.0, bucket * units),
        weights in vec(-1.0_f32..1.0, units),
        ids in vec(prop_oneof![9 => 0..9_i32, 1 => prop_oneof![Just(9), Just(-1), any::<i32>()]], bucket * id_columns),
        wide in vec(-1.0_f32..1.0, WIDE_ROWS),
        bias in prop_oneof![8 => -2.0_f32..2.0, 1 => Just(-200.0), 1 => Just(200.0)],
        rows in 0..=bucket,
        block in prop_oneof![Just(32_u32), Just(96)],
        (units, id_columns, bucket) in Just((units, id_columns, bucket)),
    ) -> Case {
        Case { units, hidden, weights, id_columns, ids, wide, bias, rows, bucket, block }
    }
}

impl Case {
    fn reference<T: Number>(&self, row: usize, fault: &mut bool) -> f64 {
        let hidden = &self.hidden[row * self.units..][..self.units];
        let products = hidden.iter().zip(&self.weights).map(|(&x, &w)| T::of(x).value() * T::of(w).value());
        let mut logit = f64::from(self.bias) + products.sum::<f64>();
        for &id in &self.ids[row * self.id_columns..][..self.id_columns] {
            match usize::try_from(id).ok().and_then(|id| self.wide.get(id)) {
                Some(&weight) => logit += f64::from(weight),
                None => *fault = true,
            }
        }
        1.0 / (1.0 + (-logit).exp())
    }

    fn check<T: Number>(&self) -> Result<(), TestCaseError> {
        let pitch = self.units.div_ceil(per_chunk::<T>()) as i32;
        let (hidden, weights) = (pack::<T>(&self.hidden, self.units), pack::<T>(&self.weights, self.units));
        let mut probability = vec![POISON; self.bucket];
        let (rows, mut fault) = (self.rows as u32, 0_u32);
        let grid = (self.bucket as u32 * 32).div_ceil(self.block);
        // SAFETY: The buffers have the shapes that head.cu names.
        unsafe {
            launch(
                &format!("head_{}", T::SUFFIX),
                grid,
                self.block,
                &mut arguments![
                    std::ptr::from_ref(&rows),
                    hidden.as_ptr(),
                    weights.as_ptr(),
                    pitch,
                    self.ids.as_ptr(),
                    self.id_columns as i32,
                    self.wide.as_ptr(),
                    WIDE_ROWS as u32,
                    self.bias,
                    probability.as_mut_ptr(),
                    std::ptr::from_mut(&mut fault),
                ],
            );
        }
        let (there, rest) = probability.split_at(self.rows);
        prop_assert!(rest.iter().all(|&score| score == POISON), "rows that are not there were written");
        let mut outside = false;
        for (row, &ours) in there.iter().enumerate() {
            let expected = self.reference::<T>(row, &mut outside);
            prop_assert!(
                (f64::from(ours) - expected).abs() <= 1e-5,
                "{} and {} in row {}",
                ours,
                expected,
                row
            );
        }
        prop_assert_eq!(fault == 1, outside);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_rows_probability_is_the_sigmoid_of_all_its_parts(case in cases()) {
        case.check::<f32>()?;
        case.check::<f16>()?;
    }
}
