//! Numbers of both precisions as a device has them, and some to check with.

use half::f16;

use super::TABLE_ROWS;
use crate::engine::cuda::device::Precision;

/// Rows of `width` numbers, each filled up with zeros to whole chunks.
pub(super) fn pad(numbers: &[f32], width: usize, precision: Precision) -> Vec<f32> {
    let pitch = width.next_multiple_of(precision.per_chunk());
    let padded = |row: &[f32]| {
        let mut row = row.to_vec();
        row.resize(pitch, 0.0);
        row
    };
    numbers.chunks(width).flat_map(padded).collect()
}

pub(super) fn encode(precision: Precision, numbers: &[f32]) -> Vec<u8> {
    match precision {
        Precision::Single => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Precision::Half => numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect(),
    }
}

pub(super) fn decode(precision: Precision, bytes: &[u8]) -> Vec<f64> {
    match precision {
        Precision::Single => {
            bytes.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect()
        }
        Precision::Half => {
            bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f64()).collect()
        }
    }
}

pub(super) fn id_bytes(ids: &[i32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

pub(super) fn words(numbers: &[usize]) -> Vec<u8> {
    let word = |&number: &usize| u32::try_from(number).expect("a few").to_le_bytes();
    numbers.iter().flat_map(word).collect()
}

pub(super) fn size(number: i32) -> usize {
    usize::try_from(number).expect("no size is below zero")
}

/// How far two neighbours are apart, as a share of their size.
pub(super) fn step(precision: Precision) -> f64 {
    match precision {
        Precision::Single => f64::from(f32::EPSILON),
        Precision::Half => 1.0 / 1024.0,
    }
}

pub(super) fn suffix(precision: Precision) -> &'static str {
    match precision {
        Precision::Single => "f32",
        Precision::Half => "f16",
    }
}

/// Numbers that look like chance and are always the same.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    /// Knuth's constants.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).expect("31 bits") % end
    }

    /// Numbers within `size` of zero.
    pub(super) fn take(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| (self.below(2001) as f32 / 1000.0 - 1.0) * size).collect()
    }

    /// Ids of the table, and where `outside` is set now and then one that is none.
    pub(super) fn ids(&mut self, count: usize, outside: bool) -> Vec<i32> {
        let mut id = || match self.below(20) {
            0 if outside => [-1, i32::MIN, i32::MAX, TABLE_ROWS.cast_signed()][self.below(4) as usize],
            _ => self.below(TABLE_ROWS).cast_signed(),
        };
        (0..count).map(|_| id()).collect()
    }
}
