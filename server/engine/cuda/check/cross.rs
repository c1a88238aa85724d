//! `cross.cu` on a device, beside the same in double precision.

use super::{
    Bench, Checked, NOT_THERE,
    numbers::{Numbers, decode, encode, step, suffix, words},
};
use crate::engine::cuda::device::{Argument, DeviceError, Precision, signed};

impl Bench {
    pub(super) fn check_cross(&mut self, precision: Precision) -> Checked {
        let mut checked = Checked::new(&format!("cross_{}", suffix(precision)), 8.0 * step(precision));
        for width in [8, 40, 264] {
            for (rows, bucket) in self.batches.clone() {
                let pitch = width / precision.per_chunk();
                checked.begin(format!("{rows} of {bucket} rows, {width} numbers"));
                let result = self.cross(precision, [rows, bucket, pitch], &mut checked);
                checked.end(result);
            }
        }
        checked
    }

    fn cross(
        &mut self,
        precision: Precision,
        [rows, bucket, pitch]: [usize; 3],
        checked: &mut Checked,
    ) -> Result<(), DeviceError> {
        let width = pitch * precision.per_chunk();
        let mut numbers = Numbers(3);
        let mut matrix = || encode(precision, &numbers.take(bucket * width, 2.0));
        let [first, input, sums] = [matrix(), matrix(), matrix()];
        let [first_at, input_at, sums_at] = [self.put(&first)?, self.put(&input)?, self.put(&sums)?];
        let count = self.put(&words(&[rows]))?;
        let arguments = [
            Argument::Memory(count.at(0)),
            Argument::Memory(first_at.at(0)),
            Argument::Memory(input_at.at(0)),
            signed(pitch),
            Argument::Memory(sums_at.at(0)),
        ];
        self.launch(kernels::CROSS.kernels[precision as usize], bucket * pitch, &arguments)?;
        let found = self.fetch(sums_at.at(0), sums.len())?;
        let there = rows * width * precision.bytes();
        checked.expect(found[there..] == sums[there..], NOT_THERE);
        let [first, input, sums] = [first, input, sums].map(|bytes| decode(precision, &bytes[..there]));
        let expected = first.iter().zip(&sums).zip(&input).map(|((first, sum), input)| first * sum + input);
        checked.compare(&decode(precision, &found[..there]), &expected.collect::<Vec<_>>());
        Ok(())
    }
}
