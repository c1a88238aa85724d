//! Reads ONNX files into networks.

use std::{
    ffi::{CString, c_void},
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::{self, NonNull},
};

use crate::{Builder, Error, Network, sys::call};

/// Reads ONNX. It can read any number of models; each becomes a network of its own.
#[derive(Clone, Debug)]
pub struct OnnxParser {
    builder: Builder,
}

impl OnnxParser {
    /// A parser whose networks are `builder`'s.
    pub fn new(builder: &Builder) -> Self {
        Self { builder: builder.clone() }
    }

    /// Reads a model. Its precision is what its tensors are declared as: an F16 engine comes from an F16 model.
    /// Tables outside of the model are looked for beside `path`.
    pub fn parse(&self, model: &[u8], path: Option<&Path>) -> Result<Network, Error> {
        let factory = Some(self.builder.logger().library().parser_factory()?);
        let path = path.map(|path| {
            CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::Name(path.display().to_string()))
        });
        let path = path.transpose()?;
        let mut network = Network::new(&self.builder)?;
        let mut raw = ptr::null_mut();
        let turn = self.builder.turn();
        // SAFETY: The factory is of the library whose version fits this shim, network and logger are alive, and it is
        // this thread's turn; the model and the path are only read; `raw` is this frame's.
        let status = unsafe {
            call!(
                self.builder.shim(),
                parse(
                    factory,
                    network.raw(),
                    self.builder.logger().raw(),
                    model.as_ptr().cast::<c_void>(),
                    model.len() as u64,
                    path.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
                    &raw mut raw,
                )
            )
        };
        let outcome = self.builder.logger().outcome(status, "read the ONNX model");
        drop(turn);
        outcome?;
        network.keep(NonNull::new(raw).expect("what was made is somewhere"));
        Ok(network)
    }

    /// Reads the model in a file.
    pub fn parse_file(&self, path: &Path) -> Result<Network, Error> {
        let model = fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        self.parse(&model, Some(path))
    }
}
