//! TensorRT behind safe Rust: engines from ONNX files, on machines with a GPU or without one.
//!
//! The names are those of the crate tensorrt-rs; what they do is today's TensorRT: tensors go by name, methods return
//! a `Result`, and whatever an object was made from lives as long as the object, so that nothing can be freed twice or
//! too early. Both flavours are known, TensorRT-RTX and TensorRT 11. Neither is linked: [`Library::open`] finds one in
//! a folder at run time.
//!
//! ```no_run
//! # fn main() -> Result<(), tensorrt::Error> {
//! use tensorrt::{Builder, BuilderConfig, Dims, Library, Logger, OnnxParser, Profile, Range, Runtime};
//!
//! let library = Library::open("folder/of/the/libraries".as_ref())?;
//! let logger = Logger::new(&library)?;
//! let builder = Builder::new(&logger)?;
//! let network = OnnxParser::new(&builder).parse_file("model.onnx".as_ref())?;
//! let rows = |rows| Dims::new(&[rows, 2]);
//! let ids = Range { min: rows(1)?, opt: rows(256)?, max: rows(4096)? };
//! let config = BuilderConfig { profiles: vec![Profile::new().with("ids", ids)], ..BuilderConfig::default() };
//! let engine = builder.build_serialized_network(&network, &config)?;
//! std::fs::write("model.engine", &*engine).expect("writable");
//! // From here on a GPU is needed.
//! let engine = Runtime::new(&logger)?.deserialize(&engine)?;
//! let context = engine.create_execution_context()?;
//! # Ok(())
//! # }
//! ```
//!
//! The modules in the order in which an engine meets them:

mod error;
mod library;
mod logger;
mod sys;

mod data_type;
mod dims;
mod tensor;

mod builder;
mod network;
mod onnx_parser;
mod profile;

mod host_memory;

mod context;
mod engine;
mod runtime;

pub use self::{
    builder::{Builder, BuilderConfig, ComputeCapability},
    context::{Context, Stream},
    data_type::DataType,
    dims::Dims,
    engine::Engine,
    error::Error,
    host_memory::HostMemory,
    library::{Flavour, Library, Version},
    logger::{Logger, LoggerSeverity},
    network::Network,
    onnx_parser::OnnxParser,
    profile::{Profile, Range},
    runtime::{Runtime, Validity, Verdict},
    tensor::Tensor,
};
