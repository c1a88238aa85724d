//! Numbers of single and half precision, in chunks of 16 bytes as kernels read them.

use half::f16;
use proptest::prelude::*;

use crate::emulator::{arguments, launch};

/// What a table can be made of.
pub(crate) trait Number: Copy {
    /// How the names of its kernels end.
    const SUFFIX: &str;
    const BITS: usize;
    /// How far two neighbours are apart, as a share of their size.
    const STEP: f64;

    fn of(number: f32) -> Self;
    fn to_bits(self) -> u128;
    fn from_bits(bits: u128) -> Self;
    fn value(self) -> f64;
}

macro_rules! number {
    ($type:ident, $bits:ty, $step:expr, $of:expr) => {
        impl Number for $type {
            const SUFFIX: &str = stringify!($type);
            const BITS: usize = <$bits>::BITS as usize;
            const STEP: f64 = $step;

            fn of(number: f32) -> Self {
                $of(number)
            }

            fn to_bits(self) -> u128 {
                Self::to_bits(self).into()
            }

            fn from_bits(bits: u128) -> Self {
                // The lowest bits are this number.
                Self::from_bits(bits as $bits)
            }

            fn value(self) -> f64 {
                self.into()
            }
        }
    };
}

number!(f32, u32, f32::EPSILON as f64, std::convert::identity);
number!(f16, u16, 1.0 / 1024.0, f16::from_f32);

/// How many numbers a chunk holds.
pub(crate) const fn per_chunk<T: Number>() -> usize {
    128 / T::BITS
}

/// Rows of `columns` numbers, each begun with a new chunk and filled up with zeros.
pub(crate) fn pack<T: Number>(numbers: &[f32], columns: usize) -> Vec<u128> {
    let chunk = |numbers: &[f32]| {
        let bits =
            numbers.iter().enumerate().map(|(place, &number)| T::of(number).to_bits() << (place * T::BITS));
        bits.fold(0, |chunk, bits| chunk | bits)
    };
    numbers.chunks(columns).flat_map(|row| row.chunks(per_chunk::<T>())).map(chunk).collect()
}

/// The numbers of all chunks.
pub(crate) fn unpack<T: Number>(chunks: &[u128]) -> Vec<f64> {
    let numbers = |chunk: u128| {
        (0..per_chunk::<T>()).map(move |place| T::from_bits(chunk >> (place * T::BITS)).value())
    };
    chunks.iter().flat_map(|&chunk| numbers(chunk)).collect()
}

proptest! {
    /// The emulator's half precision is that of everybody else: it goes through a gather of numbers.
    #[test]
    fn half_precision_is_rounded_as_it_should_be(bits in any::<[u32; 8]>()) {
        let numbers = bits.map(f32::from_bits);
        let (rows, fault) = (1_u32, 0_u32);
        let mut input = [0_u128];
        let none = std::ptr::null::<u128>();
        let (zero, one, eight) = (0_i32, 1_i32, 8_i32);
        // SAFETY: The buffers have the shapes that gather.cu names.
        unsafe { launch("gather_f16", 1, 32, &mut arguments![
            std::ptr::from_ref(&rows), none, zero, numbers.as_ptr(), eight, none, zero, none, rows, one, one,
            input.as_mut_ptr(), std::ptr::from_ref(&fault),
        ]); }
        for (place, number) in numbers.into_iter().enumerate() {
            let (ours, theirs) = (<f16 as Number>::from_bits(input[0] >> (16 * place)), f16::from_f32(number));
            prop_assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{number}: {ours} and {theirs}");
        }
    }
}
