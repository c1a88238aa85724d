//! Our own engine for NVIDIA GPUs: tables and weights stay in the GPU's memory, and a batch is one replay of a captured
//! graph. CUDA is opened when the first model asks for it; a build, and a server without such a model, needs none of it.
//! Without a GPU the engine is tested on a fake of the device, which computes as the kernels do, and the driver on libraries
//! that stand for CUDA's.
//!
//! | file | holds |
//! |---|---|
//! | `device` | what is asked of a GPU: the seam |
//! | `driver`, `compiler`, `blas` | that by CUDA's driver, with kernels from NVRTC and products by cuBLASLt |
//! | `memory` | memory that is given back |
//! | `plan` | where everything of a network lies: pure |
//! | `resident` | a version's tables and weights |
//! | `engine` | a slot: a stream with its graphs |
//! | `search` | a catalogue's items, and searches of them for the best |
//! | `check` | kernels and products beside plain computations, where there is a GPU |
//!
//! What is unsafe is in `device`'s traits, and called by those that own what they name. `device`, `driver` and `memory` serve
//! TensorRT's engines as well.

#![allow(unsafe_code, reason = "a device's memory is named by addresses")]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod blas;
mod check;
mod compiler;
pub(super) mod device;
mod driver;
#[cfg(test)]
mod emulated;
mod engine;
#[cfg(test)]
pub(super) mod fake;
pub(super) mod memory;
mod plan;
mod resident;
#[cfg(test)]
pub(crate) mod sample;
mod search;
#[cfg(test)]
mod tests;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

pub(super) use self::plan::bucket_rows;
pub use self::{
    check::Checked,
    device::{Description, DeviceError, MeasuredProduct, Precision},
    engine::{CudaEngine, Replays},
    plan::PlanError,
    resident::UploadError,
    search::{CudaItems, CudaSearch, Items, Search, Searched},
};
use self::{device::Device, driver::Driver, plan::Plan, resident::Resident};
use super::{EngineError, Network};
use crate::tensor::Signature;

/// Which GPU, and where its kernels are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// The GPU's number, from 0.
    pub device: usize,
    /// The folder for compiled kernels; where there is none, every start compiles them.
    pub cache: Option<PathBuf>,
}

/// How a model is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaModelOptions {
    /// What in.
    pub precision: Precision,
    /// The most rows of a batch.
    pub max_rows: NonZeroUsize,
    /// Engines that it is opened for.
    pub slots: NonZeroUsize,
    /// Up to how many bytes of a batch, with what it answers, kernels fetch from the host's memory in place of a copy.
    pub direct_bytes: usize,
}

impl CudaModelOptions {
    /// On an H200, kernels that fetch this much take about as long as two copies, and far less for a few
    /// rows. Nobody has measured it on other GPUs.
    pub const DIRECT_BYTES: usize = 512 << 10;
}

/// A GPU that models can be loaded to. It is opened when one is, and closed when the last of them is gone, so that one which
/// failed for good is opened anew, unless TensorRT was used, which keeps it.
pub struct Cuda {
    options: CudaOptions,
    opened: Opened,
    /// The same without our kernels, for engines that have their own.
    bare: Opened,
}

/// A device for as long as somebody holds it. One thread loads versions, so nobody opens it between two calls.
#[derive(Default)]
struct Opened(Mutex<Option<Weak<dyn Device>>>);

impl Opened {
    fn get(&self) -> Option<Arc<dyn Device>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.upgrade()
    }

    fn keep(&self, driver: Driver) -> Arc<dyn Device> {
        let device: Arc<dyn Device> = Arc::new(driver);
        tracing::info!(device = %device.description(), "CUDA is open");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::downgrade(&device));
        device
    }
}

impl Cuda {
    /// The GPU of `options`, which is not opened yet.
    pub fn new(options: CudaOptions) -> Self {
        Self { options, opened: Opened::default(), bare: Opened::default() }
    }

    /// Its number, from 0.
    pub fn device(&self) -> usize {
        self.options.device
    }

    /// Whether there are the libraries that it takes, without which nothing can be loaded; asks for nothing else.
    pub fn check_libraries() -> Result<(), EngineError> {
        driver::check_libraries()
    }

    /// Loads the model file `model`, which must have the inputs and the output of `signature`.
    pub fn load(
        &self,
        model: &Path,
        signature: &Signature,
        options: CudaModelOptions,
    ) -> Result<CudaModel, EngineError> {
        if self.opened.get().is_none() {
            Self::check_libraries()?;
        }
        let network = Network::read(model, signature)?;
        CudaModel::load(self.open()?, &network, signature, options)
    }

    /// Loads a network that lies in memory, with the inputs and the output of `signature`, which must be its own.
    pub fn load_network(
        &self,
        network: &Network,
        signature: &Signature,
        options: CudaModelOptions,
    ) -> Result<CudaModel, EngineError> {
        if self.opened.get().is_none() {
            Self::check_libraries()?;
        }
        CudaModel::load(self.open()?, network, signature, options)
    }

    /// Opens the GPU.
    pub fn hold(&self) -> Result<HeldDevice, EngineError> {
        Self::check_libraries()?;
        self.open().map(HeldDevice)
    }

    /// The GPU for an engine that launches none of our kernels, which takes neither cuBLASLt nor NVRTC.
    pub(super) fn bare(&self) -> Result<Arc<dyn Device>, EngineError> {
        if let Some(device) = self.bare.get() {
            return Ok(device);
        }
        driver::check_driver()?;
        Ok(self.bare.keep(Driver::open_bare(&self.options)?))
    }

    fn open(&self) -> Result<Arc<dyn Device>, EngineError> {
        if let Some(device) = self.opened.get() {
            return Ok(device);
        }
        Ok(self.opened.keep(Driver::open(&self.options)?))
    }

    /// A fake, open for as long as what comes beside it is kept.
    #[cfg(test)]
    pub(crate) fn on_a_fake() -> (Self, Arc<dyn std::any::Any + Send + Sync>) {
        let fake = fake::Fake::new(8 << 30);
        let device: Arc<dyn Device> = Arc::clone(&fake) as _;
        let [opened, bare] = [(); 2].map(|()| Opened(Mutex::new(Some(Arc::downgrade(&device)))));
        (Self { options: CudaOptions::default(), opened, bare }, fake)
    }
}

/// A GPU that stays open while this is kept; what is loaded meanwhile shares it.
pub struct HeldDevice(Arc<dyn Device>);

impl HeldDevice {
    /// The GPU.
    pub fn description(&self) -> &Description {
        self.0.description()
    }

    /// Computes with each kernel what is known, and hands out what came of it as soon as it is known.
    pub fn check(&self, done: &mut dyn FnMut(Checked)) -> Result<(), EngineError> {
        Ok(check::check(&self.0, usize::MAX, done)?)
    }

    /// The products of matrices whose way was chosen by measuring, so far.
    pub fn measured_products(&self) -> Vec<MeasuredProduct> {
        self.0.measured_products()
    }
}

/// A version in a GPU's memory, of which engines are opened.
pub struct CudaModel {
    resident: Arc<Resident>,
    signature: Signature,
}

impl CudaModel {
    fn load(
        device: Arc<dyn Device>,
        network: &Network,
        signature: &Signature,
        options: CudaModelOptions,
    ) -> Result<Self, EngineError> {
        let CudaModelOptions { precision, max_rows, slots, direct_bytes } = options;
        let plan = Plan::new(network, precision, max_rows.get(), direct_bytes)?;
        let needed = plan.bytes(slots.get()).unwrap_or(usize::MAX);
        let free = device.free_bytes()?;
        if needed > free.saturating_sub(RESERVED_BYTES) {
            return Err(EngineError::Memory { needed, free, reserved: RESERVED_BYTES });
        }
        let resident = Arc::new(Resident::load(device, network, plan)?);
        Ok(Self { resident, signature: signature.clone() })
    }

    /// A slot: an engine with a stream, pinned memory and graphs of its own, which have all run once.
    pub fn open(&self) -> Result<CudaEngine, EngineError> {
        Ok(CudaEngine::open(Arc::clone(&self.resident), &self.signature)?)
    }

    /// The batch sizes that its slots have graphs for, in ascending order.
    pub fn bucket_rows(&self) -> Vec<usize> {
        self.resident.plan.buckets.iter().map(|bucket| bucket.rows).collect()
    }

    /// The GPU.
    pub fn description(&self) -> &Description {
        self.resident.device.description()
    }

    /// What numbers it is computed in.
    pub fn precision(&self) -> Precision {
        self.resident.plan.precision
    }

    /// Bytes of the GPU that it takes with so many slots.
    pub fn bytes(&self, slots: usize) -> usize {
        self.resident.plan.bytes(slots).unwrap_or(usize::MAX)
    }
}

/// Compiles our kernels for `architecture`, as `sm_90`, into the folder `cache`, for which it takes no GPU, and says
/// how many there are.
pub fn compile(architecture: &str, cache: &Path) -> Result<usize, EngineError> {
    let compiler = compiler::Compiler { architecture: architecture.to_owned(), cache: Some(cache) };
    let mut kernels = 0;
    for source in kernels::ALL {
        compiler.code(source).map_err(|error| EngineError::Cuda(error.to_string()))?;
        kernels += source.kernels.len();
    }
    Ok(kernels)
}

/// What a load leaves free: graphs, kernels and libraries take memory too, and do not say how much.
pub(super) const RESERVED_BYTES: usize = 512 << 20;
