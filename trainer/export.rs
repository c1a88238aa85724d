//! The command `export`: adds other forms of a trained model to its artifact, beside `model.onnx`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use millrace::engine::OnnxRuntime;
use millrace_trainer::{artifact::Artifact, onnx_file, precision};

/// What to add, and to what.
#[derive(Args)]
#[command(group = ArgGroup::new("form").required(true).multiple(true))]
pub(crate) struct Export {
    /// The artifact's folder.
    #[arg(long)]
    artifact: PathBuf,
    /// Add model.fp16.onnx and measure on the held-out rows what half precision costs.
    #[arg(long, group = "form")]
    fp16: bool,
    /// Tables of more bytes than this lie in a file of their own, which a runtime can map.
    #[arg(long, value_name = "BYTES", default_value_t = onnx_file::MAX_INLINE_BYTES)]
    max_inline_bytes: u64,
    /// The ONNX Runtime library; else `ORT_DYLIB_PATH`. deploy/onnxruntime.sh prints one.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

impl Export {
    /// Adds the forms, and says a line of each.
    pub(crate) fn run(&self) -> anyhow::Result<Vec<String>> {
        let mut artifact = Artifact::read(&self.artifact)?;
        let mut lines = Vec::new();
        if self.fp16 {
            let runtime = OnnxRuntime::load(&crate::onnxruntime(self.onnxruntime.as_ref())?)?;
            lines.push(precision::add_half(&mut artifact, &runtime, self.max_inline_bytes)?.to_string());
        }
        Ok(lines)
    }
}
