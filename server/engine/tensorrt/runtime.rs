//! What is asked of TensorRT, as narrow as it is used: an engine from its bytes, what it says of itself, and runs of it.
//! `binding` does it by the library; in tests a fake does, whose runs are work on the fake of the device.
//!
//! Every call but the first two of [`Runtime`] is made with the device entered that the engine is for.

use std::ffi::CStr;

use super::{ShapeRange, TensorRecord, TensorRtError};
use crate::engine::cuda::device::{Address, DeviceError, Stream};

/// A library of TensorRT's.
pub(super) trait Runtime: Send + Sync {
    /// `TensorRT-RTX` or `TensorRT`.
    fn flavour(&self) -> String;

    /// Its version.
    fn version(&self) -> String;

    /// The engine of these bytes. The library trusts them: they come from a source that may run code here.
    fn deserialize(&self, engine: &[u8]) -> Result<Box<dyn Deserialized>, TensorRtError>;
}

/// An engine on a GPU.
pub(super) trait Deserialized: Send + Sync {
    /// Its inputs and its outputs.
    fn sides(&self) -> Result<[Vec<TensorRecord>; 2], TensorRtError>;

    /// The shapes that an input can have.
    fn range(&self, input: &CStr) -> Result<ShapeRange, TensorRtError>;

    /// Bytes of the GPU that a context takes.
    fn context_bytes(&self) -> Result<usize, TensorRtError>;

    /// What it is run with, one run at a time. It does not outlive what it was opened of.
    fn open_context(&self) -> Result<Box<dyn Execution>, TensorRtError>;
}

/// A context, whose runs have the shapes and the memory that it was told last.
pub(super) trait Execution: Send {
    /// Says where an input or output lies.
    ///
    /// # Safety
    /// There is as much memory of the device there as the tensor takes in every run to come, until the last of them is done,
    /// and nobody else touches it during one.
    unsafe fn place(&mut self, tensor: &CStr, at: Address) -> Result<(), DeviceError>;

    /// Says how large an input is, `[rows, width]`.
    fn resize(&mut self, input: &CStr, shape: [usize; 2]) -> Result<(), DeviceError>;

    /// Puts a run into `stream`.
    ///
    /// # Safety
    /// The stream is of the device that the context is for, every tensor has its place, and the context is left alone and
    /// alive until the run is done.
    unsafe fn enqueue(&mut self, stream: &mut dyn Stream) -> Result<(), DeviceError>;
}
