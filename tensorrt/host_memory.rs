//! Memory that TensorRT has allocated: a serialised engine.

use std::{fmt, ops::Deref, ptr, ptr::NonNull, slice};

use crate::{
    Logger,
    sys::{self, call},
};

/// A serialised engine; as bytes what is in a `.engine` file.
pub struct HostMemory {
    raw: NonNull<sys::trt_memory>,
    logger: Logger,
}

// SAFETY: The memory is tied to no thread and is only read once it was made.
unsafe impl Send for HostMemory {}
// SAFETY: As above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// Takes what the shim has made.
    ///
    /// # Safety
    /// `raw` was made by `logger`'s shim with `logger`, and is nobody else's.
    pub(crate) unsafe fn from_raw(raw: *mut sys::trt_memory, logger: Logger) -> Self {
        Self { raw: NonNull::new(raw).expect("what was made is somewhere"), logger }
    }

    /// The bytes.
    pub fn data(&self) -> &[u8] {
        let (mut data, mut bytes) = (ptr::null(), 0);
        // SAFETY: The memory is alive; the results are this frame's.
        let status = unsafe {
            call!(self.logger.shim(), memory_bytes(self.raw.as_ptr(), &raw mut data, &raw mut bytes))
        };
        let bytes = usize::try_from(bytes).unwrap_or_default();
        if status != sys::TRT_OK || data.is_null() || bytes == 0 {
            return &[];
        }
        // SAFETY: TensorRT has that many bytes there, changes them no more, and frees them with the object, which
        // this borrow keeps.
        unsafe { slice::from_raw_parts(data.cast::<u8>(), bytes) }
    }
}

impl Deref for HostMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.data()
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of TensorRT's", self.len())
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: It was made by this shim and is destroyed here alone.
        unsafe { call!(self.logger.shim(), memory_destroy(self.raw.as_ptr())) }
    }
}
