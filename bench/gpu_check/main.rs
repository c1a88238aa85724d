//! What a machine with an NVIDIA GPU says of the engine for it: every kernel beside double precision, the engine beside the
//! network that it computes and beside ONNX Runtime, and what batches cost. It needs no Rust and no network there; `make
//! gpu-bundle` packs it with what it needs. `compile` only compiles the kernels, which takes no GPU.
//!
//! Each step is a process of its own with a report of its own, which is written anew whenever something is known, so that
//! whatever becomes of one, the others and what it had found remain. `merge` makes one of them.
//!
//! | file | holds |
//! |---|---|
//! | `report` | what is found, and its file |
//! | `subject` | a network with rows and what they come to |
//! | `shape` | networks of given shapes, of numbers at random |
//! | `version` | networks of versions, as the trainer leaves them |
//! | `measure` | scores, times, rows a second |
//! | `search` | the best items of a catalogue |
//! | `floor` | the most rows a second that a GPU can do |
//! | `merge` | one report of all |

mod floor;
mod measure;
mod merge;
mod report;
mod search;
mod shape;
mod subject;
mod version;

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use millrace::engine::cuda::{self, Cuda, CudaModelOptions, CudaOptions, HeldDevice, Precision};

use crate::{measure::Measuring, report::Report, shape::Shape};

/// Checks and measures the engine on a GPU.
#[derive(Parser)]
#[command(args_override_self = true)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check every kernel; the exit status is 1 where something is off, as that of every step.
    #[command(args_override_self = true)]
    Kernels(Step),
    /// Check and measure a version, as the trainer leaves it.
    #[command(args_override_self = true)]
    Version(VersionStep),
    /// Check and measure a network of a given shape, of numbers at random.
    #[command(args_override_self = true)]
    Shape(ShapeStep),
    /// Make one report of those of the steps.
    #[command(args_override_self = true)]
    Merge {
        /// The folder of reports `NAME.json`, each with the step's exit status in `NAME.status`.
        parts: PathBuf,
        /// Where the report goes.
        #[arg(long, default_value = "gpu-check.json")]
        out: PathBuf,
    },
    /// Compile the kernels into a folder.
    #[command(args_override_self = true)]
    Compile {
        /// As `sm_90`.
        #[arg(long)]
        architecture: String,
        /// The folder.
        #[arg(long)]
        cache: PathBuf,
    },
}

#[derive(clap::Args)]
struct Step {
    /// The GPU's number.
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// The folder of compiled kernels.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Where the report goes.
    #[arg(long, default_value = "gpu-check.json")]
    out: PathBuf,
    /// Up to how many bytes of a batch kernels fetch from the host in place of a copy.
    #[arg(long, default_value_t = CudaModelOptions::DIRECT_BYTES)]
    direct_bytes: usize,
}

#[derive(clap::Args)]
struct VersionStep {
    /// Its folder.
    version: PathBuf,
    #[command(flatten)]
    step: Step,
    /// What it is computed in.
    #[arg(long, default_value = "single")]
    precision: Numbers,
    /// The ONNX Runtime library.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME")]
    onnxruntime: PathBuf,
    /// The most rows of a batch.
    #[arg(long, default_value = "4096")]
    max_rows: NonZeroUsize,
}

#[derive(clap::Args)]
struct ShapeStep {
    /// Which.
    shape: Shape,
    #[command(flatten)]
    step: Step,
    /// What it is computed in.
    #[arg(long, default_value = "single")]
    precision: Numbers,
    /// Rows of the table of embeddings, which all columns share.
    #[arg(long, default_value = "10000000")]
    table_rows: NonZeroUsize,
    /// The most rows of a batch.
    #[arg(long, default_value = "16384")]
    max_rows: NonZeroUsize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Numbers {
    Single,
    Half,
}

impl From<Numbers> for Precision {
    fn from(numbers: Numbers) -> Self {
        match numbers {
            Numbers::Single => Self::Single,
            Numbers::Half => Self::Half,
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let passed = match Flags::parse().command {
        Command::Kernels(step) => step.run("kernels".to_owned(), check_kernels),
        Command::Version(version) => version.run(),
        Command::Shape(shape) => shape.run(),
        Command::Merge { parts, out } => merge::merge(&parts, &out)?,
        Command::Compile { architecture, cache } => {
            let kernels = cuda::compile(&architecture, &cache)?;
            say(&format!("{kernels}"))?;
            true
        }
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Step {
    /// Runs `work` with the GPU, which stays open; what fails is an entry of the report. Whether all is well.
    fn run(
        &self,
        name: String,
        work: impl FnOnce(&Cuda, &HeldDevice, &mut Report) -> anyhow::Result<()>,
    ) -> bool {
        let mut report = Report::new(name, self.out.clone());
        let cuda = Cuda::new(CudaOptions { device: self.device, cache: self.cache.clone() });
        match cuda.hold() {
            Ok(held) => {
                report.device = Some(held.description().to_string());
                report.save();
                let worked = work(&cuda, &held, &mut report);
                report.attempt("step", "", worked);
                report.products = held.measured_products();
            }
            Err(error) => report.fail("device", &self.device.to_string(), &error.into()),
        }
        report.finish()
    }
}

fn check_kernels(_: &Cuda, held: &HeldDevice, report: &mut Report) -> anyhow::Result<()> {
    Ok(held.check(&mut |checked| {
        report.kernels.push(checked);
        report.save();
    })?)
}

impl VersionStep {
    fn run(&self) -> bool {
        let precision = Precision::from(self.precision);
        let folder = self.version.file_name().unwrap_or(self.version.as_os_str()).to_string_lossy();
        let name = format!("{folder}, {}", precision.name());
        self.step.run(name, |cuda, held, report| {
            let mut subject = version::read(&self.version)?;
            let onnx = version::onnx(&self.version, &self.onnxruntime, &subject.signature);
            subject.onnx = report.attempt("ONNX Runtime", "", onnx);
            let (max_rows, direct_bytes) = (self.max_rows, self.step.direct_bytes);
            Measuring { cuda, held, precision, max_rows, direct_bytes, edges: true }.run(&mut subject, report)
        })
    }
}

impl ShapeStep {
    fn run(&self) -> bool {
        let precision = Precision::from(self.precision);
        let name = format!("{}, {}", self.shape.name(), precision.name());
        self.step.run(name, |cuda, held, report| {
            let mut subject = self.shape.subject(self.table_rows.get())?;
            let (max_rows, direct_bytes) = (self.max_rows, self.step.direct_bytes);
            Measuring { cuda, held, precision, max_rows, direct_bytes, edges: false }
                .run(&mut subject, report)
        })
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
