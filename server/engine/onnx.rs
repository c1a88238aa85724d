//! ONNX Runtime as an [`Engine`]: the default everywhere, opened at run time from a path. A library that is built with CUDA
//! computes on a GPU where it is asked to, as a whole or not at all.
//!
//! One session is one engine instance and computes on the caller's thread alone; parallelism comes from batches,
//! not from threads inside a batch. Tables that the artifact keeps in external data are mapped by the runtime, so
//! several instances, and an old and a new version of the same file, share one copy of them in memory.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::{
    environment::Environment,
    ep::{CPU, CUDA},
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType, TensorRef},
};

use super::{Engine, EngineError};
use crate::tensor::{Column, DType, Rows, Signature, TensorSpec, Values};

/// A loaded ONNX Runtime. The library can be loaded once in a process, so this is the one process global: every
/// server in the process uses the library that the first of them named.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
}

impl OnnxRuntime {
    /// Loads the library at `path`, or joins the runtime that this process has loaded before.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(environment) = &*loaded {
            return Ok(Self { environment: environment.clone() });
        }
        let library = |reason: String| EngineError::Library { path: PathBuf::from(path), reason };
        let environment = ort::init_from(path)
            .map_err(|error| library(error.to_string()))?
            .with_name("millrace")
            .with_telemetry(false)
            .build()
            .map_err(|error| library(error.to_string()))?;
        *loaded = Some(environment.clone());
        Ok(Self { environment })
    }

    /// Opens a model file.
    pub(super) fn open(&self, model: &Path, provider: Provider) -> Result<Session, EngineError> {
        build(&self.environment, model, provider).map_err(EngineError::Runtime)
    }

    /// The library's own description of its build.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }

    /// The git revision that the library was built from, by its own word.
    pub fn revision(&self) -> &'static str {
        let mut facts = ort::info().split(", ");
        facts.find_map(|fact| fact.strip_prefix("git-commit-id=")).unwrap_or("unknown")
    }
}

/// What of ONNX Runtime computes a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// The GPU of this number, from 0. Nothing of the model is left to the processor.
    Cuda(usize),
}

/// One ONNX Runtime session.
pub struct OnnxEngine {
    session: Session,
    signature: Signature,
}

impl OnnxEngine {
    /// Threads that compute one batch: the caller's alone.
    pub const THREADS: usize = 1;

    /// Opens the model file `model`, which must have the inputs and the output of `signature`.
    pub fn open(runtime: &OnnxRuntime, model: &Path, signature: &Signature) -> Result<Self, EngineError> {
        Self::open_on(Provider::Cpu, runtime, model, signature)
    }

    /// The same, computed by `provider`; an error where that cannot compute all of it.
    pub fn open_on(
        provider: Provider,
        runtime: &OnnxRuntime,
        model: &Path,
        signature: &Signature,
    ) -> Result<Self, EngineError> {
        let session = runtime.open(model, provider)?;
        check(&session, signature)?;
        Ok(Self { session, signature: signature.clone() })
    }
}

impl Engine for OnnxEngine {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
        match rows.columns() {
            // The common shapes as arrays, which reach the runtime without an allocation.
            [ids] => run(&mut self.session, [input(ids, rows.len())?], scores),
            [ids, dense] => {
                run(&mut self.session, [input(ids, rows.len())?, input(dense, rows.len())?], scores)
            }
            other => {
                let inputs = other.iter().map(|column| input(column, rows.len()));
                let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
                run(&mut self.session, inputs.as_slice(), scores)
            }
        }?;
        if scores.len() == rows.len() {
            Ok(())
        } else {
            Err(EngineError::Scores { scores: scores.len(), rows: rows.len() })
        }
    }
}

fn build(environment: &Environment, model: &Path, provider: Provider) -> ort::Result<Session> {
    let builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        .with_intra_threads(OnnxEngine::THREADS)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        // Patterns are recorded per shape, and a batch has a new shape every time.
        .with_memory_pattern(false)?;
    let mut builder = match provider {
        // The runtime's arena would keep what the largest batch took, for each instance and for ever; without it a batch
        // costs the same to the microsecond.
        Provider::Cpu => {
            builder.with_execution_providers([CPU::default().with_arena_allocator(false).build()])?
        }
        // Without these two the runtime computes on the processor whatever the GPU cannot, and says nothing.
        Provider::Cuda(device) => {
            let device = i32::try_from(device).unwrap_or(i32::MAX);
            // TF32 is off, for its sums of products are farther from the processor's than golden rows may be.
            let cuda = CUDA::default().with_device_id(device).with_tf32(false).build().error_on_failure();
            builder
                .with_execution_providers([cuda])?
                .with_config_entry("session.disable_cpu_ep_fallback", "1")?
        }
    };
    builder.commit_from_file(model)
}

fn run<'i, 'v: 'i, const N: usize>(
    session: &mut Session,
    inputs: impl Into<ort::session::SessionInputs<'i, 'v, N>>,
    scores: &mut Vec<f32>,
) -> Result<(), EngineError> {
    let outputs = session.run(inputs).map_err(EngineError::Runtime)?;
    let (_, values) = outputs[0].try_extract_tensor::<f32>().map_err(EngineError::Runtime)?;
    scores.clear();
    scores.extend_from_slice(values);
    Ok(())
}

pub(super) fn input(column: &Column, rows: usize) -> Result<SessionInputValue<'_>, EngineError> {
    let shape = [rows, column.width()];
    let tensor = match column.values() {
        Values::F32(values) => TensorRef::from_array_view((shape, values.as_slice())).map(Into::into),
        Values::I32(values) => TensorRef::from_array_view((shape, values.as_slice())).map(Into::into),
    };
    tensor.map_err(EngineError::Runtime)
}

fn check(session: &Session, signature: &Signature) -> Result<(), EngineError> {
    let inputs = session.inputs();
    if inputs.len() != signature.inputs.len() {
        let text = format!("{} inputs, declared {}", inputs.len(), signature.inputs.len());
        return Err(EngineError::Signature(text));
    }
    for (outlet, declared) in inputs.iter().zip(&signature.inputs) {
        if !is_input(outlet, declared) {
            let TensorSpec { name, dtype, width } = declared;
            let text = format!(
                "input `{}` {}, declared `{name}` {dtype:?} [-1, {width}]",
                outlet.name(),
                outlet.dtype(),
            );
            return Err(EngineError::Signature(text));
        }
    }
    let fits = |outlet: &Outlet| {
        let scores = [&[-1][..], &[-1, 1][..]];
        scores.iter().any(|shape| is_tensor(outlet, TensorElementType::Float32, shape))
    };
    match session.outputs() {
        [output] if output.name() == signature.output && fits(output) => Ok(()),
        outputs => {
            let found: Vec<String> =
                outputs.iter().map(|o| format!("`{}` {}", o.name(), o.dtype())).collect();
            let declared = &signature.output;
            Err(EngineError::Signature(format!(
                "outputs {}; declared `{declared}` F32 [-1]",
                found.join(", ")
            )))
        }
    }
}

/// Whether `outlet` is the input that `declared` says.
pub(super) fn is_input(outlet: &Outlet, declared: &TensorSpec) -> bool {
    let dtype = match declared.dtype {
        DType::F32 => TensorElementType::Float32,
        DType::I32 => TensorElementType::Int32,
    };
    let width = i64::try_from(declared.width).unwrap_or(i64::MAX);
    outlet.name() == declared.name && is_tensor(outlet, dtype, &[-1, width])
}

pub(super) fn is_tensor(outlet: &Outlet, dtype: TensorElementType, shape: &[i64]) -> bool {
    let value = outlet.dtype();
    value.tensor_type() == Some(dtype) && value.tensor_shape().is_some_and(|found| &found[..] == shape)
}
