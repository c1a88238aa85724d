//! The library itself, by the crate `tensorrt`: the one file that is only there with the feature.

use std::{ffi::CStr, path::Path, ptr, sync::Arc};

use tensorrt::{Context, Dims, Engine, Flavour, Library, Logger, Tensor, Verdict};

use super::{
    ShapeRange, TensorRecord, TensorRtError,
    runtime::{Deserialized, Execution, Runtime},
};
use crate::engine::cuda::device::{Address, DeviceError, Stream};

/// Opens the libraries in `folder`, for which it takes no GPU.
pub(super) fn open(folder: &Path) -> Result<Arc<dyn Runtime>, TensorRtError> {
    let library = Library::open(folder)?;
    let logger = Logger::new(&library)?;
    let runtime = tensorrt::Runtime::new(&logger)?;
    tracing::info!(flavour = %library.flavour(), version = %library.version(), "TensorRT is open");
    Ok(Arc::new(Opened { library, runtime }))
}

struct Opened {
    library: Library,
    runtime: tensorrt::Runtime,
}

impl Runtime for Opened {
    fn flavour(&self) -> String {
        self.library.flavour().to_string()
    }

    fn version(&self) -> String {
        self.library.version().to_string()
    }

    fn deserialize(&self, engine: &[u8]) -> Result<Box<dyn Deserialized>, TensorRtError> {
        // Asked first, for it says why not; the other flavour has no such question.
        if self.library.flavour() == Flavour::Rtx {
            let validity = self.runtime.engine_validity(engine)?;
            match validity.verdict {
                Verdict::Invalid => return Err(TensorRtError::Invalid(validity.to_string())),
                Verdict::Suboptimal => tracing::warn!("the engine is {validity}"),
                Verdict::Valid | Verdict::Unjudged => {}
            }
        }
        Ok(Box::new(self.runtime.deserialize(engine)?))
    }
}

impl Deserialized for Engine {
    fn sides(&self) -> Result<[Vec<TensorRecord>; 2], TensorRtError> {
        let record = |tensor: Tensor| TensorRecord {
            name: tensor.name,
            dtype: tensor.data_type.name().to_owned(),
            shape: tensor.dims.as_slice().to_vec(),
        };
        let (inputs, outputs): (Vec<_>, Vec<_>) =
            self.tensors()?.into_iter().partition(|tensor| tensor.is_input);
        Ok([inputs, outputs].map(|side| side.into_iter().map(record).collect()))
    }

    fn range(&self, input: &CStr) -> Result<ShapeRange, TensorRtError> {
        let range = self.profile_range(input, 0)?;
        let [min, opt, max] = [range.min, range.opt, range.max].map(|dims| dims.as_slice().to_vec());
        Ok(ShapeRange { min, opt, max })
    }

    fn context_bytes(&self) -> Result<usize, TensorRtError> {
        Ok(usize::try_from(self.device_bytes()?).unwrap_or(usize::MAX))
    }

    fn open_context(&self) -> Result<Box<dyn Execution>, TensorRtError> {
        Ok(Box::new(self.create_execution_context()?))
    }
}

impl Execution for Context {
    unsafe fn place(&mut self, tensor: &CStr, at: Address) -> Result<(), DeviceError> {
        let address = ptr::without_provenance_mut(usize::try_from(at.0).expect("addresses are of 64 bits"));
        // SAFETY: As the caller says.
        unsafe { self.set_tensor_address(tensor, address) }.map_err(failed("setTensorAddress"))
    }

    fn resize(&mut self, input: &CStr, shape: [usize; 2]) -> Result<(), DeviceError> {
        let sizes = shape.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        let dims = Dims::new(&sizes).map_err(failed("setInputShape"))?;
        self.set_input_shape(input, dims).map_err(failed("setInputShape"))
    }

    unsafe fn enqueue(&mut self, stream: &mut dyn Stream) -> Result<(), DeviceError> {
        // SAFETY: As the caller says; the handle is the stream's own.
        unsafe { self.enqueue_v3(stream.handle()) }.map_err(failed("enqueueV3"))
    }
}

impl From<tensorrt::Error> for TensorRtError {
    fn from(error: tensorrt::Error) -> Self {
        Self::Library(Box::new(error))
    }
}

fn failed(call: &'static str) -> impl FnOnce(tensorrt::Error) -> DeviceError {
    move |error| DeviceError { call, reason: error.to_string() }
}
