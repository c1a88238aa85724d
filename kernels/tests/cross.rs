//! The cross layer's last step beside a reference in double precision.

use half::f16;
use proptest::{collection::vec, prelude::*};

use crate::{
    emulator::{arguments, launch},
    number::{Number, pack, per_chunk, unpack},
};

/// Stands where nothing must be written.
const POISON: u128 = u128::MAX / 3;

#[derive(Clone, Debug)]
struct Case {
    width: usize,
    first: Vec<f32>,
    /// `None` for the first layer, which sees what the others multiply with.
    input: Option<Vec<f32>>,
    sums: Vec<f32>,
    rows: usize,
    bucket: usize,
    block: u32,
}

prop_compose! {
    fn cases()(width in 1_usize..20, bucket in 1_usize..6)(
        first in vec(-2.0_f32..2.0, bucket * width),
        input in proptest::option::of(vec(-2.0_f32..2.0, bucket * width)),
        sums in vec(-2.0_f32..2.0, bucket * width),
        rows in 0..=bucket,
        block in prop_oneof![Just(32_u32), Just(96)],
        (width, bucket) in Just((width, bucket)),
    ) -> Case {
        Case { width, first, input, sums, rows, bucket, block }
    }
}

impl Case {
    fn check<T: Number>(&self) -> Result<(), TestCaseError> {
        let pitch = self.width.div_ceil(per_chunk::<T>());
        let first = pack::<T>(&self.first, self.width);
        let input = self.input.as_ref().map_or_else(|| first.clone(), |input| pack::<T>(input, self.width));
        let before = pack::<T>(&self.sums, self.width);
        let mut sums = before.clone();
        sums[self.rows * pitch..].fill(POISON);
        let rows = self.rows as u32;
        let seen = if self.input.is_some() { input.as_ptr() } else { first.as_ptr() };
        // SAFETY: The buffers have the shapes that cross.cu names.
        unsafe {
            launch(
                &format!("cross_{}", T::SUFFIX),
                (self.bucket * pitch).div_ceil(self.block as usize) as u32,
                self.block,
                &mut arguments![
                    std::ptr::from_ref(&rows),
                    first.as_ptr(),
                    seen,
                    pitch as i32,
                    sums.as_mut_ptr(),
                ],
            );
        }
        let (there, rest) = sums.split_at(self.rows * pitch);
        prop_assert!(rest.iter().all(|&chunk| chunk == POISON), "rows that are not there were written");
        let parts = [&first, &before, &input].map(|chunks| unpack::<T>(&chunks[..there.len()]));
        for (place, ours) in unpack::<T>(there).into_iter().enumerate() {
            let expected = parts[0][place] * parts[1][place] + parts[2][place];
            // Below 6 in size, rounded once in T and twice in single precision.
            prop_assert!((ours - expected).abs() <= 8.0 * T::STEP, "{} and {} at {}", ours, expected, place);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_cross_layer_multiplies_what_the_first_one_sees_and_adds_what_it_sees_itself(case in cases()) {
        case.check::<f32>()?;
        case.check::<f16>()?;
    }
}
