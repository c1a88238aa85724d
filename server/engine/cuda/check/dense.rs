//! `dense.cu` on a device, beside sums in double precision.

use super::{
    Bench, Checked, POISON,
    numbers::{Numbers, encode, suffix},
    product::compare,
};
use crate::engine::cuda::device::{Argument, DeviceError, Precision, WARP, signed};

impl Bench {
    pub(super) fn check_dense(&mut self, precision: Precision) -> Checked {
        // As for the products of the library.
        let tolerance = if precision == Precision::Single { 1e-4 } else { 2e-2 };
        let mut checked = Checked::new(&format!("dense_{}", suffix(precision)), tolerance);
        // More than a block's outputs, more chunks than lanes, and more than a lane asks for before it waits.
        for (inputs, outputs) in [(8, 8), (264, 16), (2064, 8)] {
            for (rows, most) in [(1, 1), (1, 8), (5, 8), (8, 8)] {
                for relu in [true, false] {
                    checked.begin(format!(
                        "{rows} of {most} rows, {inputs} inputs, {outputs} outputs, relu {relu}"
                    ));
                    let result = self.dense(precision, most, [rows, inputs, outputs], relu, &mut checked);
                    checked.end(result);
                }
            }
        }
        checked
    }

    fn dense(
        &mut self,
        precision: Precision,
        most: usize,
        [rows, inputs, outputs]: [usize; 3],
        relu: bool,
        checked: &mut Checked,
    ) -> Result<(), DeviceError> {
        let mut numbers = Numbers(13);
        let input = encode(precision, &numbers.take(rows * inputs, 1.0));
        // So that sums are about as large whatever their number.
        let weights = encode(precision, &numbers.take(outputs * inputs, 4.0 / (inputs as f32).sqrt()));
        let bias = encode(precision, &numbers.take(outputs, 1.0));
        let bytes = rows * outputs * precision.bytes();
        let [input_at, weights_at, bias_at] = [self.put(&input)?, self.put(&weights)?, self.put(&bias)?];
        // Something stands behind the output as well.
        let output = self.put(&vec![POISON; bytes + 64])?;
        let arguments = [
            Argument::Memory(input_at.at(0)),
            signed(rows),
            signed(inputs / precision.per_chunk()),
            Argument::Memory(weights_at.at(0)),
            Argument::Memory(bias_at.at(0)),
            signed(outputs),
            Argument::Signed(i32::from(relu)),
            Argument::Memory(output.at(0)),
        ];
        let kernel = kernels::DENSE.kernels[usize::from(most > 1) * 2 + precision as usize];
        self.launch(kernel, outputs * WARP, &arguments)?;
        let found = self.fetch(output.at(0), bytes + 64)?;
        compare(precision, [&input, &weights, &bias], relu, &found, checked);
        Ok(())
    }
}
