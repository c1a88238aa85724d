//! Products by cuBLASLt on a device, beside sums in double precision.

use super::{
    Bench, Checked, POISON,
    numbers::{Numbers, decode, encode, suffix},
};
use crate::engine::cuda::{
    device::{DeviceError, Precision, Product},
    memory::Memory,
    plan::WORKSPACE_BYTES,
};

impl Bench {
    pub(super) fn check_product(&mut self, precision: Precision) -> Checked {
        // Sums of up to 264 products below 0.5, rounded once.
        let tolerance = if precision == Precision::Single { 1e-4 } else { 2e-2 };
        let mut checked = Checked::new(&format!("product_{}", suffix(precision)), tolerance);
        for (inputs, outputs) in [(8, 8), (8, 264), (264, 8), (64, 128)] {
            for rows in [1, 8, 33, 128] {
                for relu in [true, false] {
                    checked.begin(format!("{rows} rows, {inputs} inputs, {outputs} outputs, relu {relu}"));
                    let result = self.product(precision, [rows, inputs, outputs], relu, &mut checked);
                    checked.end(result);
                }
            }
        }
        checked
    }

    fn product(
        &mut self,
        precision: Precision,
        [rows, inputs, outputs]: [usize; 3],
        relu: bool,
        checked: &mut Checked,
    ) -> Result<(), DeviceError> {
        let mut numbers = Numbers(11);
        let input = encode(precision, &numbers.take(rows * inputs, 1.0));
        let weights = encode(precision, &numbers.take(outputs * inputs, 0.5));
        let bias = encode(precision, &numbers.take(outputs, 1.0));
        let bytes = rows * outputs * precision.bytes();
        let [input_at, weights_at, bias_at] = [self.put(&input)?, self.put(&weights)?, self.put(&bias)?];
        // Something stands behind the output as well.
        let output = self.put(&vec![POISON; bytes + 64])?;
        let workspace = Memory::new(&self.device, WORKSPACE_BYTES)?;
        let product = Product {
            precision,
            rows,
            inputs,
            outputs,
            input: input_at.at(0),
            weights: weights_at.at(0),
            bias: bias_at.at(0),
            output: output.at(0),
            relu,
            workspace: workspace.at(0),
        };
        // SAFETY: Each is as large as its shape asks for, and is kept until the work was waited for in the next line.
        unsafe { self.stream.multiply(&product) }?;
        self.stream.wait()?;
        let found = self.fetch(output.at(0), bytes + 64)?;
        compare(precision, [&input, &weights, &bias], relu, &found, checked);
        Ok(())
    }
}

/// Holds a product, and what stands behind it, against that of these in double precision.
pub(super) fn compare(
    precision: Precision,
    factors: [&[u8]; 3],
    relu: bool,
    found: &[u8],
    checked: &mut Checked,
) {
    let [input, weights, bias] = factors.map(|bytes| decode(precision, bytes));
    let mut expected = products(&input, &weights, &bias);
    if relu {
        for number in &mut expected {
            *number = number.max(0.0);
        }
    }
    let (found, behind) = found.split_at(expected.len() * precision.bytes());
    checked.expect(behind.iter().all(|&byte| byte == POISON), "something was written behind the output");
    checked.compare(&decode(precision, found), &expected);
}

/// Each row of `input` times each row of `weights`, and its bias.
fn products(input: &[f64], weights: &[f64], bias: &[f64]) -> Vec<f64> {
    let inputs = weights.len() / bias.len();
    let sum = |row: &[f64], weights: &[f64]| -> f64 {
        row.iter().zip(weights).map(|(number, weight)| number * weight).sum()
    };
    let mut sums = Vec::with_capacity(input.len() / inputs * bias.len());
    for row in input.chunks_exact(inputs) {
        sums.extend(weights.chunks_exact(inputs).zip(bias).map(|(weights, bias)| bias + sum(row, weights)));
    }
    sums
}
