//! An engine on a GPU.

use std::{
    ffi::CStr,
    ptr::{self, NonNull},
    sync::Arc,
};

use crate::{
    Context, Dims, Error, HostMemory, Logger, Range, Runtime, Tensor,
    sys::{self, call},
    tensor,
};

/// An engine on a GPU. Clones are the same engine; several threads may use it, each with contexts of its own.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Shared>);

impl Engine {
    /// Takes what the shim has made.
    ///
    /// # Safety
    /// `raw` was made by `runtime`, and is nobody else's.
    pub(crate) unsafe fn from_raw(raw: *mut sys::trt_engine, runtime: Runtime) -> Self {
        let raw = NonNull::new(raw).expect("what was made is somewhere");
        Self(Arc::new(Shared { raw, runtime }))
    }

    /// Inputs and outputs.
    pub fn tensors(&self) -> Result<Vec<Tensor>, Error> {
        let mut count = 0;
        // SAFETY: The engine is alive; `count` is this frame's.
        let status = unsafe { call!(self.shim(), engine_tensors(self.raw(), &raw mut count)) };
        self.logger().outcome(status, "count an engine's tensors")?;
        let one = |index| {
            let mut raw = tensor::empty();
            // SAFETY: The engine is alive; `raw` is this frame's.
            let status = unsafe { call!(self.shim(), engine_tensor(self.raw(), index, &raw mut raw)) };
            self.logger().outcome(status, "describe an engine's tensor")?;
            // SAFETY: The engine, whose tensor it is, is alive.
            unsafe { Tensor::from_raw(&raw) }
        };
        (0..count).map(one).collect()
    }

    /// How many profiles there are.
    pub fn profiles(&self) -> Result<usize, Error> {
        let mut count = 0;
        // SAFETY: The engine is alive; `count` is this frame's.
        let status = unsafe { call!(self.shim(), engine_profiles(self.raw(), &raw mut count)) };
        self.logger().outcome(status, "count an engine's profiles")?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// The shapes that `input` can have in a profile, counted from 0.
    pub fn profile_range(&self, input: &CStr, profile: usize) -> Result<Range, Error> {
        let mut raw = [Dims::new(&[])?.raw(); 3];
        let [min, opt, max] = &mut raw;
        let profile = i32::try_from(profile).unwrap_or(i32::MAX);
        // SAFETY: The engine is alive; the name is only read; the results are this frame's.
        let status =
            unsafe { call!(self.shim(), engine_profile(self.raw(), input.as_ptr(), profile, min, opt, max)) };
        self.logger().outcome(status, "describe an engine's profile")?;
        let [min, opt, max] = raw.map(|dims| Dims::from_raw(&dims));
        Ok(Range { min, opt, max })
    }

    /// Bytes of GPU memory that a context needs for what lies between the layers.
    pub fn device_bytes(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        // SAFETY: The engine is alive; `bytes` is this frame's.
        let status = unsafe { call!(self.shim(), engine_device_bytes(self.raw(), &raw mut bytes)) };
        self.logger().outcome(status, "know an engine's memory")?;
        Ok(bytes)
    }

    /// The engine as bytes again.
    pub fn serialize(&self) -> Result<HostMemory, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: The engine is alive; `raw` is this frame's.
        let status = unsafe { call!(self.shim(), engine_serialize(self.raw(), &raw mut raw)) };
        self.logger().outcome(status, "serialise the engine")?;
        // SAFETY: It was made just now and is nobody else's.
        Ok(unsafe { HostMemory::from_raw(raw, self.logger().clone()) })
    }

    /// What the engine is run with, one at a time in each.
    pub fn create_execution_context(&self) -> Result<Context, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: The engine is alive, and may be called by several threads; `raw` is this frame's.
        let status = unsafe { call!(self.shim(), context_create(self.raw(), &raw mut raw)) };
        self.logger().outcome(status, "make a context")?;
        // SAFETY: It was made just now and is nobody else's.
        Ok(unsafe { Context::from_raw(raw, self.clone()) })
    }

    pub(crate) fn logger(&self) -> &Logger {
        self.0.runtime.logger()
    }

    pub(crate) fn shim(&self) -> &'static sys::trt_shim {
        self.0.runtime.shim()
    }

    fn raw(&self) -> *mut sys::trt_engine {
        self.0.raw.as_ptr()
    }
}

#[derive(Debug)]
struct Shared {
    raw: NonNull<sys::trt_engine>,
    runtime: Runtime,
}

// SAFETY: TensorRT lets several threads use one engine.
unsafe impl Send for Shared {}
// SAFETY: As above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: It was made by this shim and is destroyed here alone; its contexts have gone, since each holds a
        // clone of the engine.
        unsafe { call!(self.runtime.shim(), engine_destroy(self.raw.as_ptr())) }
    }
}
