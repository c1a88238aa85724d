//! A layer of few rows beside a reference in double precision.

use half::f16;
use proptest::{collection::vec, prelude::*};

use crate::{
    emulator::{arguments, launch},
    number::{Number, pack, per_chunk},
};

#[derive(Clone, Debug)]
struct Case {
    inputs: usize,
    outputs: usize,
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    rows: usize,
    most: usize,
    relu: bool,
    block: u32,
}

prop_compose! {
    // Now and then more chunks than lanes, and than a lane asks for before it waits.
    fn cases()(
        inputs in prop_oneof![4 => 1_usize..40, 1 => Just(300), 1 => Just(2100)],
        outputs in 1_usize..6,
        (rows, most) in prop_oneof![Just((1, 1)), (1_usize..=8).prop_map(|rows| (rows, 8))],
    )(
        input in vec(-1.0_f32..1.0, rows * inputs),
        weights in vec(-1.0_f32..1.0, outputs * inputs),
        bias in vec(-1.0_f32..1.0, outputs),
        relu in any::<bool>(),
        block in prop_oneof![Just(32_u32), Just(96)],
        (inputs, outputs, rows, most) in Just((inputs, outputs, rows, most)),
    ) -> Case {
        Case { inputs, outputs, input, weights, bias, rows, most, relu, block }
    }
}

impl Case {
    fn reference<T: Number>(&self, row: usize, output: usize) -> f64 {
        let input = &self.input[row * self.inputs..][..self.inputs];
        let weights = &self.weights[output * self.inputs..][..self.inputs];
        let products = input.iter().zip(weights).map(|(&x, &w)| T::of(x).value() * T::of(w).value());
        let sum = T::of(self.bias[output]).value() + products.sum::<f64>();
        if self.relu { sum.max(0.0) } else { sum }
    }

    fn check<T: Number>(&self, step: f64) -> Result<(), TestCaseError> {
        let pitch = self.inputs.div_ceil(per_chunk::<T>()) as i32;
        let (input, weights) = (pack::<T>(&self.input, self.inputs), pack::<T>(&self.weights, self.inputs));
        let bias: Vec<T> = self.bias.iter().map(|&number| T::of(number)).collect();
        let poison = T::of(-7.0);
        // A row more than there are.
        let mut output = vec![poison; (self.rows + 1) * self.outputs];
        // SAFETY: The buffers have the shapes that dense.cu names.
        unsafe {
            launch(
                &format!("dense_{}_{}", self.most, T::SUFFIX),
                (self.outputs as u32 * 32).div_ceil(self.block),
                self.block,
                &mut arguments![
                    input.as_ptr(),
                    self.rows as i32,
                    pitch,
                    weights.as_ptr(),
                    bias.as_ptr(),
                    self.outputs as i32,
                    i32::from(self.relu),
                    output.as_mut_ptr(),
                ],
            );
        }
        let (there, rest) = output.split_at(self.rows * self.outputs);
        prop_assert!(
            rest.iter().all(|number| number.value().to_bits() == (-7.0_f64).to_bits()),
            "rows that are not there were written"
        );
        for (place, ours) in there.iter().enumerate() {
            let (row, output) = (place / self.outputs, place % self.outputs);
            let expected = self.reference::<T>(row, output);
            let tolerance = 1e-4 + expected.abs() * step;
            prop_assert!((ours.value() - expected).abs() <= tolerance, "{} and {expected}", ours.value());
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_output_is_the_sum_of_products_and_bias(case in cases()) {
        case.check::<f32>(1e-6)?;
        case.check::<f16>(1e-3)?;
    }
}
