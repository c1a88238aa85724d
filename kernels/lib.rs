//! The CUDA kernels of the GPU engine, one family of operations a file. Each file begins with the shapes, layouts and
//! launch geometry of its kernels.
//!
//! Nothing here needs CUDA: the kernels are texts that NVRTC compiles where there is a GPU. Without one the tests compile
//! them for it all the same, and run them on an emulator of their own.

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name, for messages.
    pub name: &'static str,
    /// What NVRTC compiles, whole: no header is included.
    pub text: &'static str,
    /// The kernels in it.
    pub kernels: &'static [&'static str],
}

macro_rules! source {
    ($name:literal, $($kernel:literal),+) => {
        Source {
            name: $name,
            text: concat!(include_str!("number.cuh"), "\n#line 1 \"", $name, "\"\n", include_str!($name)),
            kernels: &[$($kernel),+],
        }
    };
}

/// Embeddings side by side.
pub const GATHER: Source = source!("gather.cu", "gather_f32", "gather_f16");
/// What a cross layer does with its product.
pub const CROSS: Source = source!("cross.cu", "cross_f32", "cross_f16");
/// The last layer, the wide part and the sigmoid.
pub const HEAD: Source = source!("head.cu", "head_f32", "head_f16");
/// A layer of few rows: up to 1, then up to [`DENSE_ROWS`].
pub const DENSE: Source = source!("dense.cu", "dense_1_f32", "dense_1_f16", "dense_8_f32", "dense_8_f16");
/// The most rows that [`DENSE`] computes.
pub const DENSE_ROWS: usize = 8;
/// The rows of a user with many items.
pub const PAIRS: Source = source!("pairs.cu", "pairs");
/// The best of many items.
pub const TOPK: Source = source!("topk.cu", "topk_items", "topk_keys");
/// What a block of [`TOPK`] takes, of items or of keys.
pub const TOPK_TILE: usize = 2048;
/// The most that [`TOPK`] keeps: half a tile, so that every launch leaves fewer keys than it found.
pub const TOPK_ITEMS: usize = 1024;
/// All of them.
pub const ALL: [Source; 6] = [GATHER, CROSS, DENSE, HEAD, PAIRS, TOPK];

/// Columns of ids that make one embedding, as [`GATHER`] reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Field {
    /// The first of them.
    pub first_column: i32,
    /// How many there are, at least one.
    pub columns: i32,
    /// The id that stands for none; a mean counts those above it.
    pub padding: i32,
    /// 1 for the mean, 0 for the sum.
    pub mean: i32,
}

/// The item and the score that a key of [`TOPK`] stands for; `None` for the key that is none.
#[expect(clippy::cast_possible_truncation, reason = "a key has two halves")]
pub fn item_of(key: u64) -> Option<(u32, f32)> {
    let (ordered, item) = ((key >> 32) as u32, !(key as u32));
    let bits = if ordered >> 31 == 1 { ordered ^ (1 << 31) } else { !ordered };
    (key != 0).then(|| (item, f32::from_bits(bits)))
}
