//! TensorRT engines beside a version's ONNX files, and the record of them in `engines.toml`.
//!
//! ```text
//! <version>/model.engine         of model.onnx
//! <version>/model.fp16.engine    of model.fp16.onnx, where there is one
//! <version>/engines.toml         what built them, for which GPUs, batches and tensors, and from which files
//! ```
//!
//! The record is a file of its own and not part of the manifest: an engine is derived from what the manifest vouches
//! for, a server without a GPU need not know of it, and the manifest lists it like every other file.
//!
//! An engine has one profile: batches of 1 to `max_batch_rows` rows, its kernels chosen for 256. The server warms up
//! and serves every size in between, and a profile for each would have to be chosen anew before a run, which waits
//! for the device. `TensorRT-RTX` specialises kernels by the shape that it meets when it runs in any case.

#[cfg(feature = "tensorrt")]
mod build;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use millrace::repository::manifest::{FileRecord, ManifestError};
use serde::{Deserialize, Serialize};

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
    /// The record is not what this version of the program reads.
    #[error("engines.toml")]
    Syntax(#[source] Box<toml::de::Error>),
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

/// The contents of `engines.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engines {
    /// `TensorRT-RTX` or `TensorRT`.
    pub flavour: String,
    /// The version of the library that built them, which has to run them too.
    pub version: String,
    /// The GPUs that they are for; empty where they are for the one that they were built on.
    pub compute_capabilities: Vec<String>,
    /// The engines.
    #[serde(rename = "engine")]
    pub engines: Vec<EngineRecord>,
}

/// What an engine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRecord {
    /// Its file in the version's folder.
    pub file: String,
    /// What the file must be.
    pub record: FileRecord,
    /// The ONNX file that it was built from, and what that keeps in other files.
    pub sources: BTreeMap<String, FileRecord>,
    /// Inputs, in the order of the ONNX graph.
    pub inputs: Vec<TensorRecord>,
    /// Outputs, in the order of the ONNX graph.
    pub outputs: Vec<TensorRecord>,
    /// For each profile the shapes that each input can have.
    pub profiles: Vec<BTreeMap<String, ShapeRange>>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// The name in the ONNX graph.
    pub name: String,
    /// The element type, `f32` or `i32` say.
    pub dtype: String,
    /// The shape; -1 are the rows of a batch.
    pub shape: Vec<i64>,
}

/// The shapes that an input can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeRange {
    /// The smallest.
    pub min: Vec<i64>,
    /// The one that kernels were chosen for.
    pub opt: Vec<i64>,
    /// The largest.
    pub max: Vec<i64>,
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

impl Engines {
    /// The record's file name.
    pub const FILE: &str = "engines.toml";
    /// ONNX files, and the engines that are built from them.
    pub const SOURCES: [(&str, &str); 2] =
        [("model.onnx", "model.engine"), ("model.fp16.onnx", "model.fp16.engine")];

    /// Reads the record in a version's folder.
    pub fn read(folder: &Path) -> Result<Self, EnginesError> {
        let file = folder.join(Self::FILE);
        let text = fs::read_to_string(&file).map_err(|source| EnginesError::File { file, source })?;
        toml::from_str(&text).map_err(|error| EnginesError::Syntax(Box::new(error)))
    }

    /// Writes the record into a version's folder.
    pub fn write(&self, folder: &Path) -> Result<(), EnginesError> {
        let file = folder.join(Self::FILE);
        let text = toml::to_string(self).map_err(io::Error::other);
        text.and_then(|text| fs::write(&file, text)).map_err(|source| EnginesError::File { file, source })
    }
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
