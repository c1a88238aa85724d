//! What an engine is run with. All of this needs a GPU: without one there is no engine to make a context from.

use std::{
    ffi::{CStr, c_void},
    ptr::NonNull,
};

use crate::{
    Dims, Engine, Error,
    sys::{self, call},
};

/// One run of an engine at a time: shapes, addresses, and the memory between the layers. Needs a GPU.
///
/// Names are C strings, so that a run allocates nothing.
#[derive(Debug)]
pub struct Context {
    raw: NonNull<sys::trt_context>,
    engine: Engine,
}

/// CUDA's `cudaStream_t`; null is the default stream.
pub type Stream = *mut c_void;

// SAFETY: A context is tied to no thread. It is not `Sync`: two threads at once would mix their shapes up.
unsafe impl Send for Context {}

impl Context {
    /// Takes what the shim has made.
    ///
    /// # Safety
    /// `raw` was made by `engine`, and is nobody else's.
    pub(crate) unsafe fn from_raw(raw: *mut sys::trt_context, engine: Engine) -> Self {
        Self { raw: NonNull::new(raw).expect("what was made is somewhere"), engine }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes the shapes of another profile from here on; the first is chosen to begin with.
    ///
    /// # Safety
    /// `stream` is null or a stream of the engine's device.
    pub unsafe fn set_profile(&mut self, profile: usize, stream: Stream) -> Result<(), Error> {
        let profile = i32::try_from(profile).unwrap_or(i32::MAX);
        // SAFETY: The context is alive and exclusive; the stream is the caller's.
        let status =
            unsafe { call!(self.engine.shim(), context_set_profile(self.raw(), profile, stream.cast())) };
        self.engine.logger().outcome(status, "choose a profile")
    }

    /// Says how large an input is in the next run.
    pub fn set_input_shape(&mut self, input: &CStr, dims: Dims) -> Result<(), Error> {
        let dims = dims.raw();
        // SAFETY: The context is alive and exclusive; name and shape are only read.
        let status = unsafe {
            call!(self.engine.shim(), context_set_input_shape(self.raw(), input.as_ptr(), &raw const dims))
        };
        self.engine.logger().outcome(status, "take the shape of an input")
    }

    /// The shape of a tensor in the next run, as far as the shapes of the inputs tell.
    pub fn tensor_shape(&self, tensor: &CStr) -> Result<Dims, Error> {
        let mut raw = Dims::new(&[])?.raw();
        // SAFETY: The context is alive; the name is only read; `raw` is this frame's.
        let status = unsafe {
            call!(self.engine.shim(), context_tensor_shape(self.raw(), tensor.as_ptr(), &raw mut raw))
        };
        self.engine.logger().outcome(status, "tell the shape of a tensor")?;
        Ok(Dims::from_raw(&raw))
    }

    /// Says where a tensor lies on the device, an input or an output.
    ///
    /// # Safety
    /// `address` is memory of the engine's device, as large as the tensor is in every run until it is set again, and
    /// stays so until the last of them is done.
    pub unsafe fn set_tensor_address(&mut self, tensor: &CStr, address: *mut c_void) -> Result<(), Error> {
        // SAFETY: The context is alive and exclusive; the name is only read. The address is the caller's.
        let status = unsafe {
            call!(self.engine.shim(), context_set_tensor_address(self.raw(), tensor.as_ptr(), address))
        };
        self.engine.logger().outcome(status, "take the address of a tensor")
    }

    /// Starts a run on `stream`, and does not wait for it.
    ///
    /// # Safety
    /// `stream` is null or a stream of the engine's device, and the context is left alone and alive until the run is
    /// done.
    pub unsafe fn enqueue_v3(&mut self, stream: Stream) -> Result<(), Error> {
        // SAFETY: The context is alive and exclusive; the rest is the caller's.
        let status = unsafe { call!(self.engine.shim(), context_enqueue_v3(self.raw(), stream.cast())) };
        self.engine.logger().outcome(status, "start a run")
    }

    /// Whether a run on `stream` can be captured into a CUDA graph now. For TensorRT-RTX alone.
    ///
    /// # Safety
    /// `stream` is null or a stream of the engine's device.
    pub unsafe fn is_stream_capturable(&self, stream: Stream) -> Result<bool, Error> {
        let mut is_capturable = 0;
        // SAFETY: The context is alive; the stream is the caller's; the result is this frame's.
        let status = unsafe {
            call!(
                self.engine.shim(),
                context_is_capturable(self.raw(), stream.cast(), &raw mut is_capturable)
            )
        };
        self.engine.logger().outcome(status, "tell whether a run can be captured")?;
        Ok(is_capturable != 0)
    }

    fn raw(&self) -> *mut sys::trt_context {
        self.raw.as_ptr()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: It was made by this shim and is destroyed here alone, before its engine.
        unsafe { call!(self.engine.shim(), context_destroy(self.raw())) }
    }
}
