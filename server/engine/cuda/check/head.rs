//! `head.cu` on a device, beside the sigmoid of the sum in double precision.

use super::{
    Bench, Checked, ID_COLUMNS, NOT_THERE, NOT_TOLD, POISON, TABLE_ROWS,
    numbers::{Numbers, decode, encode, id_bytes, suffix, words},
};
use crate::engine::cuda::device::{Argument, DeviceError, Precision, signed};

impl Bench {
    pub(super) fn check_head(&mut self, precision: Precision) -> Checked {
        let mut checked = Checked::new(&format!("head_{}", suffix(precision)), 1e-5);
        for (units, bias) in [(8, 0.5), (24, -0.25), (264, 0.0), (8, -200.0), (8, 200.0)] {
            for (rows, bucket) in self.batches.clone() {
                let case = Head::new(precision, (units, bias), (rows, bucket));
                checked.begin(format!("{rows} of {bucket} rows, {units} units, bias {bias}"));
                let result = self.head(&case, &mut checked);
                checked.end(result);
            }
        }
        checked
    }

    fn head(&mut self, case: &Head, checked: &mut Checked) -> Result<(), DeviceError> {
        let Head { precision, rows, bucket, .. } = *case;
        let [hidden, weights] = [self.put(&case.hidden)?, self.put(&case.weights)?];
        let [count, ids] = [self.put(&words(&[rows]))?, self.put(&id_bytes(&case.ids))?];
        let wide = self.put(&encode(Precision::Single, &case.wide))?;
        let [scores, fault] = [self.put(&vec![POISON; bucket * 4])?, self.put(&[0; 4])?];
        let arguments = [
            Argument::Memory(count.at(0)),
            Argument::Memory(hidden.at(0)),
            Argument::Memory(weights.at(0)),
            signed(case.units / precision.per_chunk()),
            Argument::Memory(ids.at(0)),
            signed(ID_COLUMNS),
            Argument::Memory(wide.at(0)),
            Argument::Unsigned(TABLE_ROWS),
            Argument::Float(case.bias),
            Argument::Memory(scores.at(0)),
            Argument::Memory(fault.at(0)),
        ];
        self.launch(kernels::HEAD.kernels[precision as usize], bucket * 32, &arguments)?;
        let found = self.fetch(scores.at(0), bucket * 4)?;
        let (there, rest) = found.split_at(rows * 4);
        checked.expect(rest.iter().all(|&byte| byte == POISON), NOT_THERE);
        let (expected, outside) = case.expected();
        checked.compare(&decode(Precision::Single, there), &expected);
        let fault = self.fetch(fault.at(0), 4)?;
        checked.expect((fault != [0; 4]) == outside, NOT_TOLD);
        Ok(())
    }
}

/// A batch for the head.
struct Head {
    precision: Precision,
    units: usize,
    bias: f32,
    rows: usize,
    bucket: usize,
    hidden: Vec<u8>,
    weights: Vec<u8>,
    wide: Vec<f32>,
    ids: Vec<i32>,
}

impl Head {
    fn new(precision: Precision, (units, bias): (usize, f32), (rows, bucket): (usize, usize)) -> Self {
        let mut numbers = Numbers(7);
        let hidden = encode(precision, &numbers.take(bucket * units, 1.0));
        let weights = encode(precision, &numbers.take(units, 0.5));
        let wide = numbers.take(TABLE_ROWS as usize, 1.0);
        let ids = numbers.ids(bucket * ID_COLUMNS, rows > 3);
        Self { precision, units, bias, rows, bucket, hidden, weights, wide, ids }
    }

    /// The scores of the rows that there are, and whether an id of theirs lies outside of the table.
    fn expected(&self) -> (Vec<f64>, bool) {
        let (hidden, weights) = (decode(self.precision, &self.hidden), decode(self.precision, &self.weights));
        let mut outside = false;
        let score = |row: usize| {
            let hidden = &hidden[row * self.units..][..self.units];
            let products = hidden.iter().zip(&weights).map(|(unit, weight)| unit * weight);
            let mut logit = f64::from(self.bias) + products.sum::<f64>();
            for &id in &self.ids[row * ID_COLUMNS..][..ID_COLUMNS] {
                match usize::try_from(id).ok().and_then(|id| self.wide.get(id)) {
                    Some(&weight) => logit += f64::from(weight),
                    None => outside = true,
                }
            }
            1.0 / (1.0 + (-logit).exp())
        };
        ((0..self.rows).map(score).collect(), outside)
    }
}
