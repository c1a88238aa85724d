//! What a network or an engine says of one of its inputs and outputs.

use crate::{DataType, Dims, Error, sys};

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The name in the ONNX graph.
    pub name: String,
    /// The element type.
    pub data_type: DataType,
    /// The shape.
    pub dims: Dims,
    /// Whether it is an input.
    pub is_input: bool,
}

impl Tensor {
    /// Copies what the shim wrote.
    ///
    /// # Safety
    /// The object whose tensor `raw` describes is still there.
    pub(crate) unsafe fn from_raw(raw: &sys::trt_tensor) -> Result<Self, Error> {
        // SAFETY: The name is null or text of the object's, which the caller says is still there.
        let name = unsafe { sys::text(raw.name) };
        let Some(data_type) = DataType::from_number(raw.type_) else {
            return Err(Error::UnknownType { name, number: raw.type_ });
        };
        Ok(Self { name, data_type, dims: Dims::from_raw(&raw.dims), is_input: raw.is_input != 0 })
    }
}

/// What the shim fills in.
pub(crate) fn empty() -> sys::trt_tensor {
    let dims = sys::trt_dims { count: 0, sizes: [0; sys::TRT_MAX_DIMS as usize] };
    sys::trt_tensor { name: std::ptr::null(), type_: 0, is_input: 0, dims }
}
