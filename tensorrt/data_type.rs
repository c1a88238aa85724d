//! The element types of TensorRT's tensors.

use std::fmt;

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// 32-bit float.
    F32,
    /// 16-bit float, IEEE 754.
    F16,
    /// 8-bit signed integer, quantised.
    I8,
    /// 32-bit signed integer.
    I32,
    /// One byte, 0 or 1.
    Bool,
    /// 8-bit unsigned integer.
    U8,
    /// 8-bit float, E4M3.
    F8,
    /// 16-bit float with the exponent of 32 bits.
    Bf16,
    /// 64-bit signed integer.
    I64,
    /// 4-bit signed integer.
    I4,
    /// 4-bit float, E2M1.
    F4,
    /// 8-bit exponent without a fraction, E8M0.
    E8M0,
}

/// The types in the order in which TensorRT counts them.
const ALL: [DataType; 12] = [
    DataType::F32,
    DataType::F16,
    DataType::I8,
    DataType::I32,
    DataType::Bool,
    DataType::U8,
    DataType::F8,
    DataType::Bf16,
    DataType::I64,
    DataType::I4,
    DataType::F4,
    DataType::E8M0,
];

impl DataType {
    /// The type that TensorRT counts as `number`.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The name in lower case, `f32` say.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
            Self::I32 => "i32",
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::F8 => "f8",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I4 => "i4",
            Self::F4 => "f4",
            Self::E8M0 => "e8m0",
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
