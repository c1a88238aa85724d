//! TensorRT engines beside a version's ONNX files, and the record of them in `engines.toml`, whose format is the server's.
//!
//! An engine has one profile: batches of 1 to `max_batch_rows` rows, its kernels chosen for 256. The server warms up
//! and serves every size in between, and a profile for each would have to be chosen anew before a run, which waits
//! for the device. `TensorRT-RTX` specialises kernels by the shape that it meets when it runs in any case.

#[cfg(feature = "tensorrt")]
mod build;

use std::{
    io,
    path::{Path, PathBuf},
};

use millrace::repository::{manifest::ManifestError, prebuilt::PrebuiltError};

pub use millrace::repository::prebuilt::{EngineRecord, Engines, ShapeRange, TensorRecord};

/// Why there are no engines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnginesError {
    /// The program was compiled without the feature.
    #[error(
        "this millrace-trainer was built without TensorRT; `LIBCLANG_PATH=\"$(deploy/libclang.sh)\" cargo build \
         --release -p millrace-trainer --features tensorrt` builds one with it"
    )]
    Feature,
    /// Nobody said where the libraries are.
    #[error(
        "no folder of TensorRT's libraries: name one with --tensorrt-folder or MILLRACE_TENSORRT; `make tensorrt` brings one and prints it"
    )]
    NoFolder,
    /// The version is published, and its files never change.
    #[error("{}: is published, and the files of a published version never change; build engines into the artifact before it is published", .0.display())]
    Published(PathBuf),
    /// There is no model.
    #[error("{}: there is no model.onnx", .0.display())]
    NoModel(PathBuf),
    /// No GPU of that kind is known.
    #[error("{found} is no compute capability that TensorRT-RTX builds for; {known} are")]
    ComputeCapability {
        /// What was asked for.
        found: String,
        /// What there is.
        known: String,
    },
    /// An input has another size than its rows that is not known before it runs.
    #[error("{model}: the input {input} is {shape}, and only its rows may differ from batch to batch")]
    Shape {
        /// The ONNX file.
        model: String,
        /// The input.
        input: String,
        /// Its shape.
        shape: String,
    },
    /// What was written does not read as what was built.
    #[error("{file}: {why}")]
    Engine {
        /// The engine's file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// TensorRT.
    #[cfg(feature = "tensorrt")]
    #[error(transparent)]
    TensorRt(#[from] tensorrt::Error),
    /// A file cannot be read or written.
    #[error("{}: cannot be read or written", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The files cannot be recorded.
    #[error(transparent)]
    Record(#[from] ManifestError),
    /// The record does not read as what a server would.
    #[error(transparent)]
    Prebuilt(#[from] PrebuiltError),
}

/// What to build, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// The folder of TensorRT's libraries.
    pub libraries: Option<PathBuf>,
    /// An FP16 model to take into the version first, as [`Engines::SOURCES`] names it. What it keeps in other files
    /// must lie in the version's folder already.
    pub fp16_onnx: Option<PathBuf>,
    /// Rows of the largest batch.
    pub max_batch_rows: u32,
    /// Compute capabilities to build for, as `8.9`; none for 8.0, 8.6, 8.9 and 12.0. For `TensorRT-RTX` alone.
    pub compute_capabilities: Vec<String>,
}

/// What came of a build.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The record, as it was written.
    pub engines: Engines,
    /// Seconds that each engine took, in their order.
    pub seconds: Vec<f64>,
    /// What each engine's header says of it on this machine, in their order.
    pub verdicts: Vec<String>,
}

impl Built {
    /// One line of JSON for scripts; `seconds` is how long all of it took.
    pub fn line(&self, seconds: f64) -> String {
        let rounded = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        let engines = self.engines.engines.iter().zip(&self.seconds).zip(&self.verdicts);
        let engines: Vec<_> = engines
            .map(|((engine, seconds), verdict)| {
                serde_json::json!({
                    "file": engine.file,
                    "bytes": engine.record.bytes,
                    "source_bytes": engine.sources.values().map(|source| source.bytes).sum::<u64>(),
                    "seconds": rounded(*seconds),
                    "validity": verdict,
                })
            })
            .collect();
        serde_json::json!({
            "flavour": self.engines.flavour,
            "version": self.engines.version,
            "compute_capabilities": self.engines.compute_capabilities,
            "engines": engines,
            "seconds": rounded(seconds),
        })
        .to_string()
    }
}

/// Builds an engine from each of a version's ONNX files and writes them with their record into its `folder`. Each file
/// is compared with what was built. Where there is a GPU that the engine is for, its tensors and profiles are compared
/// with the record as well; without one the library says no more of an engine than that it is one.
pub fn build(
    folder: &Path,
    options: &EngineOptions,
    say: &mut dyn FnMut(&str),
) -> Result<Built, EnginesError> {
    #[cfg(feature = "tensorrt")]
    return build::build(folder, options, say);
    #[cfg(not(feature = "tensorrt"))]
    {
        let _ = (folder, options, say);
        Err(EnginesError::Feature)
    }
}
