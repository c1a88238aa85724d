//! Engines of TensorRT's that were built ahead of time, on an NVIDIA GPU. The library is opened when the first model asks for
//! it, from the folder that the configuration names, and only in a server that was built with the feature `tensorrt`; in any
//! other this module says so. GPU, memory and streams are those of [`super::cuda`].
//!
//! Engines come from `millrace-trainer`, which writes a record beside them; `repository::prebuilt` reads that, and says
//! which of them is for this machine. Here an engine is held against the rows once more, by its own word, as what is
//! computed with it is memory by its address.
//!
//! | file | holds |
//! |---|---|
//! | `tensors` | what an engine takes, held against a signature: pure |
//! | `runtime` | what is asked of TensorRT: the seam |
//! | `binding` | that by the library |
//! | `engine` | a slot: a context with a stream and memory |

#![allow(unsafe_code, reason = "a device's memory is named by addresses")]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

#[cfg(feature = "tensorrt")]
mod binding;
mod engine;
#[cfg(test)]
pub(crate) mod fake;
mod runtime;
mod tensors;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
    ffi::CString,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use self::{
    engine::Layout,
    runtime::{Deserialized, Runtime},
};
pub use self::{
    engine::TensorRtEngine,
    tensors::{ShapeRange, TensorRecord, check_rows, check_tensors},
};
use super::{
    EngineError,
    cuda::{Cuda, Description, RESERVED_BYTES, device::Device},
};
use crate::tensor::Signature;

/// Why an engine of TensorRT's cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorRtError {
    /// The program was compiled without the feature.
    #[error(
        "this millrace was built without TensorRT; `LIBCLANG_PATH=\"$(deploy/libclang.sh)\" cargo build --release \
         --features tensorrt` builds one with it"
    )]
    Feature,
    /// Nobody said where the libraries are.
    #[error(
        "no folder of TensorRT's libraries: name one as `tensorrt` in the configuration, with --tensorrt, or with \
         MILLRACE_TENSORRT; `make tensorrt` brings one and prints it"
    )]
    NoFolder,
    /// The library: it is not there, is another version than this program can call, or refuses.
    #[error(transparent)]
    Library(Box<dyn Error + Send + Sync>),
    /// The library knows by its first bytes that it cannot run the engine.
    #[error("the engine is {0}")]
    Invalid(String),
    /// The engine is for other batches.
    #[error("the engine is for batches of {fewest} to {most} rows, and the model's have up to {needed}")]
    Rows {
        /// Rows of its smallest batch.
        fewest: i64,
        /// Rows of its largest one.
        most: i64,
        /// Rows of the model's largest batch.
        needed: usize,
    },
}

/// What engines must be for, to run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The library's flavour, `TensorRT-RTX` or `TensorRT`.
    pub flavour: String,
    /// The library's version.
    pub version: String,
    /// The GPU's compute capability, as 9 and 0.
    pub capability: (i32, i32),
}

/// How a model is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorRtModelOptions {
    /// The most rows of a batch.
    pub max_rows: NonZeroUsize,
    /// Engines that it is opened for.
    pub slots: NonZeroUsize,
}

/// TensorRT's library, which is opened when it is first asked for and then stays open.
pub struct TensorRt {
    folder: Option<PathBuf>,
    opened: Mutex<Option<Arc<dyn Runtime>>>,
    /// Stays open as well, from the first engine on: the library may keep something of it that would outlive it else.
    device: Mutex<Option<Arc<dyn Device>>>,
}

impl TensorRt {
    /// Whether this program was built with the feature.
    pub const IS_BUILT_IN: bool = cfg!(feature = "tensorrt");

    /// The library in `folder`, which is not opened yet.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, opened: Mutex::default(), device: Mutex::default() }
    }

    /// The folder to look in, where the program `is_built_in` with the feature.
    pub fn check(is_built_in: bool, folder: Option<&Path>) -> Result<&Path, TensorRtError> {
        if is_built_in { folder.ok_or(TensorRtError::NoFolder) } else { Err(TensorRtError::Feature) }
    }

    /// The library on the GPU of `cuda`.
    pub fn on(&self, cuda: &Cuda) -> Result<TensorRtOnGpu, EngineError> {
        let (runtime, device) = (self.runtime()?, cuda.bare()?);
        *self.device.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&device));
        Ok(TensorRtOnGpu { runtime, device })
    }

    fn runtime(&self) -> Result<Arc<dyn Runtime>, TensorRtError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*opened {
            return Ok(Arc::clone(runtime));
        }
        let runtime = open(Self::check(Self::IS_BUILT_IN, self.folder.as_deref())?)?;
        *opened = Some(Arc::clone(&runtime));
        Ok(runtime)
    }

    /// A fake, which is open.
    #[cfg(test)]
    pub(crate) fn on_a_fake(signature: &Signature) -> Self {
        let runtime: Arc<dyn Runtime> = Arc::new(fake::FakeRuntime::new(signature));
        Self { opened: Mutex::new(Some(runtime)), ..Self::new(None) }
    }
}

#[cfg(feature = "tensorrt")]
use binding::open;

#[cfg(not(feature = "tensorrt"))]
fn open(_: &Path) -> Result<Arc<dyn Runtime>, TensorRtError> {
    Err(TensorRtError::Feature)
}

/// TensorRT and the GPU that its engines run on.
pub struct TensorRtOnGpu {
    runtime: Arc<dyn Runtime>,
    device: Arc<dyn Device>,
}

impl TensorRtOnGpu {
    /// What an engine must be for.
    pub fn machine(&self) -> Machine {
        let capability = self.device.description().capability;
        Machine { flavour: self.runtime.flavour(), version: self.runtime.version(), capability }
    }

    /// Loads an engine from its bytes, which come from somebody who may run code here. It must take rows of `signature` in any
    /// batch of up to as many as `options` say.
    pub fn load(
        &self,
        engine: &[u8],
        signature: &Signature,
        options: TensorRtModelOptions,
    ) -> Result<TensorRtModel, EngineError> {
        let device = Arc::clone(&self.device);
        device.enter()?;
        let layout = Layout::new(signature, options.max_rows.get())?;
        let slots = options.slots.get();
        // Weights are nearly all of an engine; what more it takes can be asked for when it is there.
        self.check_memory(needed(engine.len(), layout.bytes(), slots))?;
        let deserialized = self.runtime.deserialize(engine)?;
        // From here on it is given back with the device entered.
        let mut resident = Resident { deserialized, device, engine_bytes: engine.len(), slot_bytes: 0 };
        let [inputs, outputs] = resident.deserialized.sides()?;
        check_tensors(&inputs, &outputs, signature)?;
        let ranges = layout.inputs().map(|name| Ok((name, resident.deserialized.range(name)?)));
        let ranges = ranges
            .map(|range| range.map(|(name, range)| (name.to_string_lossy().into_owned(), range)))
            .collect::<Result<_, TensorRtError>>()?;
        check_rows(&ranges, signature, options.max_rows.get())?;
        resident.slot_bytes = layout.bytes().saturating_add(resident.deserialized.context_bytes()?);
        self.check_memory(needed(0, resident.slot_bytes, slots))?;
        let library = format!("{} {}", self.runtime.flavour(), self.runtime.version());
        Ok(TensorRtModel {
            resident: Arc::new(resident),
            layout: Arc::new(layout),
            signature: signature.clone(),
            library,
        })
    }

    fn check_memory(&self, needed: usize) -> Result<(), EngineError> {
        let free = self.device.free_bytes()?;
        if needed > free.saturating_sub(RESERVED_BYTES) {
            return Err(EngineError::Memory { needed, free, reserved: RESERVED_BYTES });
        }
        Ok(())
    }
}

/// An engine on a GPU, of which slots are opened.
pub struct TensorRtModel {
    resident: Arc<Resident>,
    layout: Arc<Layout>,
    signature: Signature,
    library: String,
}

impl TensorRtModel {
    /// A slot: a context with a stream and memory of its own, which has computed a batch of every size that batches are rounded
    /// up to.
    pub fn open(&self) -> Result<TensorRtEngine, EngineError> {
        TensorRtEngine::open(Arc::clone(&self.resident), Arc::clone(&self.layout), &self.signature)
    }

    /// The library, by flavour and version.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// The GPU.
    pub fn description(&self) -> &Description {
        self.resident.device.description()
    }

    /// Bytes of the GPU that it takes with so many slots, as far as the library says.
    pub fn bytes(&self, slots: usize) -> usize {
        needed(self.resident.engine_bytes, self.resident.slot_bytes, slots)
    }
}

/// What slots share.
struct Resident {
    deserialized: Box<dyn Deserialized>,
    device: Arc<dyn Device>,
    engine_bytes: usize,
    slot_bytes: usize,
}

impl Drop for Resident {
    fn drop(&mut self) {
        // The library gives its memory back to the device that this thread has entered. Where that fails, so did all before.
        drop(self.device.enter());
    }
}

fn needed(engine_bytes: usize, slot_bytes: usize, slots: usize) -> usize {
    slot_bytes.saturating_mul(slots).saturating_add(engine_bytes)
}

/// A tensor's name as the library takes it.
fn c_name(name: &str) -> Result<CString, EngineError> {
    let unfit = |_| EngineError::Signature(format!("{name:?} cannot be a tensor's name"));
    CString::new(name).map_err(unfit)
}
