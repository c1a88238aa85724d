//! The command `export`: adds other forms of a trained model to its artifact, beside `model.onnx`.

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use clap::{ArgGroup, Args};
use millrace::engine::OnnxRuntime;
use millrace_trainer::{
    artifact::{self, Artifact},
    engines::{self, EngineOptions},
    onnx_file, precision,
    progress::Progress,
};

/// What to add, and to what.
#[derive(Args)]
#[command(group = ArgGroup::new("form").required(true).multiple(true))]
pub(crate) struct Export {
    /// The artifact's folder.
    #[arg(long, required_unless_present = "version_dir", conflicts_with = "version_dir")]
    artifact: Option<PathBuf>,
    /// In place of an artifact, a folder that holds a version's files.
    #[arg(long, conflicts_with = "fp16")]
    version_dir: Option<PathBuf>,
    /// Add model.fp16.onnx and measure on the held-out rows what half precision costs.
    #[arg(long, group = "form")]
    fp16: bool,
    /// Tables of more bytes than this lie in a file of their own, which a runtime can map.
    #[arg(long, value_name = "BYTES", default_value_t = onnx_file::MAX_INLINE_BYTES)]
    max_inline_bytes: u64,
    /// The ONNX Runtime library; else `ORT_DYLIB_PATH`. deploy/onnxruntime.sh prints one.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
    /// Build `TensorRT` engines: of model.onnx, and of model.fp16.onnx where it is there. The last line of output is
    /// then one JSON object with sizes and seconds.
    #[arg(long, group = "form")]
    tensorrt: bool,
    /// An FP16 model to take into the folder as model.fp16.onnx before its engine is built.
    #[arg(long, conflicts_with = "fp16")]
    fp16_onnx: Option<PathBuf>,
    /// Rows of the largest batch: the server's `max_batch_rows`.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_batch_rows: u32,
    /// A compute capability to build for, 8.9 say; again for each one more. By default 8.0, 8.6, 8.9 and 12.0.
    #[arg(long = "compute-capability")]
    compute_capabilities: Vec<String>,
    /// The folder of the `TensorRT` libraries; `make tensorrt` prints one.
    #[arg(long, env = "MILLRACE_TENSORRT")]
    tensorrt_folder: Option<PathBuf>,
}

impl Export {
    /// Adds the forms, and says a line of each.
    pub(crate) fn run(self, progress: &mut dyn Progress) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        if self.fp16 {
            let folder = self.artifact.as_ref().context("half precision is measured on an artifact")?;
            let mut artifact = Artifact::read(folder)?;
            let runtime = OnnxRuntime::load(&crate::onnxruntime(self.onnxruntime.as_ref())?)?;
            let loss = precision::add_half(&mut artifact, &runtime, self.max_inline_bytes);
            // What is known of an earlier half is not true any more, whether or not this one could be added.
            artifact.write()?;
            lines.push(loss?.to_string());
        }
        if self.tensorrt {
            lines.push(self.engines(progress)?);
        }
        Ok(lines)
    }

    fn engines(self, progress: &mut dyn Progress) -> anyhow::Result<String> {
        let start = Instant::now();
        let folder = self.artifact.map(|folder| folder.join(artifact::VERSION)).or(self.version_dir);
        let folder = folder.context("neither an artifact nor a version's folder")?;
        let options = EngineOptions {
            libraries: self.tensorrt_folder,
            fp16_onnx: self.fp16_onnx,
            max_batch_rows: self.max_batch_rows,
            compute_capabilities: self.compute_capabilities,
        };
        let built = engines::build(&folder, &options, &mut |line| progress.say(line))?;
        Ok(built.line(start.elapsed().as_secs_f64()))
    }
}
