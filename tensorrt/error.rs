//! Why TensorRT is not there, or does not do what it was asked.

use std::path::PathBuf;

use crate::library::{Flavour, Version};

/// Why something of TensorRT's could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No library is where it was looked for.
    #[error(
        "there is no TensorRT library in {}: `make tensorrt` brings TensorRT-RTX and prints its folder, \
         which MILLRACE_TENSORRT then names",
        folder.display()
    )]
    Missing {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A library cannot be opened.
    #[error("{} cannot be opened; `make tensorrt` brings one that can", path.display())]
    Open {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        #[source]
        source: libloading::Error,
    },
    /// A library of another version than this program was made for.
    #[error(
        "{} is version {version} of TensorRT, and {expected} is needed; `make tensorrt` brings a version that fits",
        path.display()
    )]
    Version {
        /// The library.
        path: PathBuf,
        /// Its version.
        version: Version,
        /// What would do.
        expected: String,
    },
    /// The library that parses ONNX is not beside TensorRT, as on machines that only run engines.
    #[error("there is no {name} beside TensorRT, which parses ONNX; `make tensorrt` brings one")]
    NoParser {
        /// The file that was looked for.
        name: &'static str,
    },
    /// The flavour cannot do this.
    #[error("{what} is not for {flavour}")]
    Absent {
        /// What was asked for.
        what: &'static str,
        /// The flavour.
        flavour: Flavour,
    },
    /// TensorRT refused.
    #[error("TensorRT cannot {what}: {reason}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What it logged, or said of its own accord.
        reason: String,
    },
    /// A name or path with a NUL inside.
    #[error("{0:?} cannot be a name")]
    Name(String),
    /// A file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// More dimensions than TensorRT has.
    #[error("a shape of {0} dimensions; TensorRT has at most 8")]
    TooManyDims(usize),
    /// An element type that this program does not know.
    #[error("the tensor {name} is of TensorRT's type {number}, which this program does not know")]
    UnknownType {
        /// The tensor.
        name: String,
        /// How TensorRT counts the type.
        number: i32,
    },
}
