//! Memory that is given back when it is dropped, and written only within its bounds.

use std::sync::Arc;

use super::device::{Address, Device, DeviceError, HostAddress};

/// Memory of a device.
pub(in crate::engine) struct Memory {
    device: Arc<dyn Device>,
    start: Address,
    bytes: usize,
}

impl Memory {
    /// So many bytes in any state; one where none are asked for.
    pub(in crate::engine) fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, DeviceError> {
        let bytes = bytes.max(1);
        let start = device.allocate(bytes)?;
        Ok(Self { device: Arc::clone(device), start, bytes })
    }

    /// The address at `offset`, which must be within.
    pub(in crate::engine) fn at(&self, offset: usize) -> Address {
        assert!(offset < self.bytes, "within the memory");
        self.start.at(offset)
    }

    /// Writes `bytes` at `offset`. Nothing that is under way may touch what is there, which is why nobody else may have
    /// this meanwhile.
    pub(in crate::engine) fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        assert!(offset <= self.bytes && bytes.len() <= self.bytes - offset, "within the memory");
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: It is this memory, which was just measured and is borrowed as a whole.
        unsafe { self.device.upload(self.start.at(offset), bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: It was allocated for this alone. Who put work into a stream that touches it keeps it until that is done.
        unsafe { self.device.free(self.start) };
    }
}

/// Pinned memory of the host.
pub(in crate::engine) struct Pinned {
    device: Arc<dyn Device>,
    start: HostAddress,
    seen: Address,
    bytes: usize,
}

impl Pinned {
    /// So many bytes, at least one, of zeros.
    pub(in crate::engine) fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, DeviceError> {
        let start = device.allocate_pinned(bytes)?;
        // Made first, so that it is given back where the next call fails.
        let mut memory = Self { device: Arc::clone(device), start, seen: Address(0), bytes };
        memory.seen = device.seen_from_device(start)?;
        memory.write(0, &vec![0; bytes]);
        Ok(memory)
    }

    /// The address at `offset`, which must be within.
    pub(in crate::engine) fn at(&self, offset: usize) -> HostAddress {
        assert!(offset < self.bytes, "within the memory");
        self.start.at(offset)
    }

    /// Where kernels find what is at `offset`, which must be within.
    pub(super) fn seen_at(&self, offset: usize) -> Address {
        assert!(offset < self.bytes, "within the memory");
        self.seen.at(offset)
    }

    /// Writes `bytes` at `offset`. Nothing that is under way may touch what is there.
    pub(in crate::engine) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.bytes && bytes.len() <= self.bytes - offset, "within the memory");
        // SAFETY: It is this memory, which was just measured and is borrowed as a whole.
        unsafe { self.device.write_pinned(self.start.at(offset), bytes) };
    }

    /// Fills `bytes` with what is at `offset`. Nothing that is under way may write there.
    pub(in crate::engine) fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset <= self.bytes && bytes.len() <= self.bytes - offset, "within the memory");
        // SAFETY: It is this memory, which was just measured, and was written as a whole when it was made.
        unsafe { self.device.read_pinned(self.start.at(offset), bytes) };
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: As for the device's.
        unsafe { self.device.free_pinned(self.start) };
    }
}
