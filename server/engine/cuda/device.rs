//! What the engine asks of a GPU, as narrow as it is used: memory, kernels and products of matrices in the order of a
//! stream, and graphs that replay them. `driver` does it by CUDA; in tests a fake does, which minds every access.
//!
//! Everything that names memory by its address is unsafe, as nothing can look behind an address; [`super::memory`] and the
//! engines, which own what they name, are the only callers.

use std::{ffi::c_void, fmt, sync::Arc};

/// What a device did not do, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {reason}")]
pub struct DeviceError {
    /// The call that failed, by its name in CUDA.
    pub call: &'static str,
    /// What it answered.
    pub reason: String,
}

/// An address in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(in crate::engine) struct Address(pub(in crate::engine) u64);

impl Address {
    /// So many bytes behind this one, within the same memory.
    pub(in crate::engine) fn at(self, offset: usize) -> Self {
        Self(self.0 + offset as u64)
    }
}

/// An address in pinned memory of the host, which a device reads and writes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct HostAddress(pub(in crate::engine) usize);

impl HostAddress {
    /// So many bytes behind this one, within the same memory.
    pub(in crate::engine) fn at(self, offset: usize) -> Self {
        Self(self.0 + offset)
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its compute capability, as 9 and 0.
    pub capability: (i32, i32),
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, compute capability {}.{}", self.name, self.capability.0, self.capability.1)
    }
}

/// A GPU. Memory that it gives starts at multiples of [`super::plan::ALIGNMENT`].
pub(in crate::engine) trait Device: Send + Sync {
    fn description(&self) -> &Description;

    /// Makes it the one that this thread's calls of CUDA are for, those of other libraries among them.
    fn enter(&self) -> Result<(), DeviceError>;

    /// Bytes that are free.
    fn free_bytes(&self) -> Result<usize, DeviceError>;

    /// So many bytes, at least one, in any state.
    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError>;

    /// # Safety
    /// It comes from [`Device::allocate`], once, and nothing that is under way or to come touches it.
    unsafe fn free(&self, memory: Address);

    /// Copies `bytes` before it returns.
    ///
    /// # Safety
    /// There is as much allocated memory behind `to`, and nothing that is under way touches it.
    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError>;

    /// So many pinned bytes, at least one, in any state.
    fn allocate_pinned(&self, bytes: usize) -> Result<HostAddress, DeviceError>;

    /// # Safety
    /// As for [`Device::free`].
    unsafe fn free_pinned(&self, memory: HostAddress);

    /// # Safety
    /// As for [`Device::upload`].
    unsafe fn write_pinned(&self, to: HostAddress, bytes: &[u8]);

    /// # Safety
    /// There is as much written memory behind `from`, and nothing that is under way writes to it.
    unsafe fn read_pinned(&self, from: HostAddress, bytes: &mut [u8]);

    /// Where kernels find pinned memory of the host's, which they reach by themselves, if slowly.
    fn seen_from_device(&self, memory: HostAddress) -> Result<Address, DeviceError>;

    fn open_stream(self: Arc<Self>) -> Result<Box<dyn Stream>, DeviceError>;

    /// The products whose way was chosen by measuring, so far; none of a device that does not measure.
    fn measured_products(&self) -> Vec<MeasuredProduct> {
        Vec::new()
    }
}

/// Work in order. What is put into a stream is under way until [`Stream::wait`] has returned; a stream that is dropped
/// waits as well.
///
/// # Safety
/// Of every function: the memory that it names is allocated and as large as the call says until the work is done and, where
/// it was captured, until the last replay is; and is touched by nobody else meanwhile but to be read by both.
pub(in crate::engine) trait Stream: Send {
    /// Copies to the device.
    unsafe fn copy_in(&mut self, to: Address, from: HostAddress, bytes: usize) -> Result<(), DeviceError>;

    /// Copies from the device.
    unsafe fn copy_out(&mut self, to: HostAddress, from: Address, bytes: usize) -> Result<(), DeviceError>;

    /// Runs one of our kernels, whose arguments are those that its file names.
    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError>;

    /// Computes a layer.
    unsafe fn multiply(&mut self, product: &Product) -> Result<(), DeviceError>;

    /// From here on work is captured in place of being done, until [`Stream::end_capture`]. Meanwhile this thread must
    /// neither allocate nor free nor wait.
    fn begin_capture(&mut self) -> Result<(), DeviceError>;

    /// What was captured, ready to be replayed. It lives as long as the stream.
    fn end_capture(&mut self) -> Result<Graph, DeviceError>;

    /// Does what `graph`, which this stream captured, holds.
    unsafe fn replay(&mut self, graph: Graph) -> Result<(), DeviceError>;

    /// CUDA's own handle of it, for libraries that put work into it by themselves; null where there is none.
    #[cfg_attr(
        not(feature = "tensorrt"),
        allow(dead_code, reason = "such a library is only built in with it")
    )]
    fn handle(&self) -> *mut c_void;

    /// Returns when all work is done, or when some of it failed.
    fn wait(&mut self) -> Result<(), DeviceError>;
}

/// A graph of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Graph(pub(in crate::engine) usize);

/// A launch of a kernel, on blocks of [`Launch::BLOCK`] threads.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Launch<'a> {
    /// Its name.
    pub(in crate::engine) kernel: &'static str,
    /// Blocks.
    pub(in crate::engine) grid: u32,
    /// What the kernel's file says that it takes.
    pub(in crate::engine) arguments: &'a [Argument],
}

impl Launch<'_> {
    /// Threads of a block; a multiple of a warp.
    pub(in crate::engine) const BLOCK: u32 = 256;
}

/// Threads that compute a number together.
pub(super) const WARP: usize = 32;

/// A size that the plan has counted, as kernels take it.
pub(super) fn signed(number: usize) -> Argument {
    Argument::Signed(i32::try_from(number).expect("the plan has counted it"))
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) enum Argument {
    Memory(Address),
    Signed(i32),
    Unsigned(u32),
    Float(f32),
}

/// What numbers a network is computed in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    Single,
    /// Tables, weights and what layers leave in half precision, sums in single precision.
    Half,
}

impl Precision {
    /// Bytes of a number.
    pub(in crate::engine) const fn bytes(self) -> usize {
        match self {
            Self::Single => 4,
            Self::Half => 2,
        }
    }

    /// Numbers in the sixteen bytes that kernels move at once.
    pub(in crate::engine) const fn per_chunk(self) -> usize {
        CHUNK_BYTES / self.bytes()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Half => "half",
        }
    }
}

/// A layer: `output = input * weights + bias`, negative numbers made zero where it is a `relu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Product {
    /// Of every number; sums are in single precision.
    pub(in crate::engine) precision: Precision,
    /// Rows of the input and the output.
    pub(in crate::engine) rows: usize,
    /// Numbers in a row of the input; a multiple of a chunk.
    pub(in crate::engine) inputs: usize,
    /// Numbers in a row of the output; a multiple of a chunk.
    pub(in crate::engine) outputs: usize,
    /// `[rows, inputs]`.
    pub(in crate::engine) input: Address,
    /// `[outputs, inputs]`: the weights of each output side by side.
    pub(in crate::engine) weights: Address,
    /// `[outputs]`.
    pub(in crate::engine) bias: Address,
    /// `[rows, outputs]`.
    pub(in crate::engine) output: Address,
    pub(in crate::engine) relu: bool,
    /// Memory that the product may use meanwhile, of [`super::plan::WORKSPACE_BYTES`].
    pub(in crate::engine) workspace: Address,
}

/// A product as it is asked for, whatever memory it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct ProductShape {
    /// Rows of the input and the output.
    pub rows: usize,
    /// Numbers in a row of the output.
    pub outputs: usize,
    /// Numbers in a row of the input.
    pub inputs: usize,
    /// Of every number.
    pub precision: Precision,
    /// Whether negative numbers are made zero.
    pub relu: bool,
}

impl fmt::Display for ProductShape {
    /// With the letters of the libraries that multiply: `m` outputs of each of `n` rows, sums of `k`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, outputs, inputs, precision, relu } = self;
        write!(f, "m {outputs}, n {rows}, k {inputs}, {} precision, relu {relu}", precision.name())
    }
}

/// The way that was chosen for a product.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct MeasuredProduct {
    /// Which.
    #[serde(flatten)]
    pub shape: ProductShape,
    /// Ways that there are, the library's and our own.
    pub candidates: usize,
    /// The place of the chosen one among them, from 0.
    pub chosen: usize,
    /// What it took, in microseconds.
    pub microseconds: f64,
    /// What the first of them took, which the library holds for its best; none where it does not run.
    pub first_microseconds: Option<f64>,
    /// Whether it is a kernel of our own, and not one of the library's.
    pub own: bool,
    /// Bytes that it uses meanwhile.
    pub workspace_bytes: usize,
}

impl Product {
    pub(in crate::engine) fn shape(&self) -> ProductShape {
        let &Self { precision, rows, inputs, outputs, relu, .. } = self;
        ProductShape { rows, outputs, inputs, precision, relu }
    }
}

/// What kernels move at once.
pub(in crate::engine) const CHUNK_BYTES: usize = 16;
