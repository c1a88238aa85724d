//! The trainer's command line.

mod export;

use std::{
    env,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use millrace::engine::OnnxRuntime;
use millrace_trainer::{
    artifact::Artifact,
    config::Pipeline,
    pipeline::{Run, log_path},
    publish::Publication,
    report,
    synth::{SynthLog, SynthOptions},
};
use time::OffsetDateTime;

/// Trains, judges and publishes the models that Millrace serves.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a synthetic shop's log, whose truth is known.
    Synth(Synth),
    /// Train a version into an artifact folder.
    Train {
        #[command(flatten)]
        run: RunArgs,
        /// The folder for the artifact.
        #[arg(long)]
        artifact: PathBuf,
    },
    /// Publish a trained artifact, if the gates let it; status 3 where they do not.
    Publish {
        #[command(flatten)]
        run: RunArgs,
        /// The artifact's folder.
        #[arg(long)]
        artifact: PathBuf,
    },
    /// Add other forms of the model to a trained artifact, for GPUs.
    Export(export::Export),
    /// Train and publish; the last line of output is one JSON object with the figures.
    Pipeline(RunArgs),
}

#[derive(Args)]
struct Synth {
    /// The log, .csv or .parquet.
    #[arg(long)]
    out: PathBuf,
    /// Users, from id 1.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Items, from id 1.
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u32).range(1..))]
    items: u32,
    /// Rows.
    #[arg(long, default_value_t = 300_000)]
    events: usize,
    /// The seed of all randomness.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

#[derive(Args)]
struct RunArgs {
    /// The pipeline's file.
    pipeline: PathBuf,
    /// The folder of the log, where the pipeline's path is relative.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The model repository, in place of the pipeline's.
    #[arg(long)]
    repository: Option<PathBuf>,
    /// The ONNX Runtime library; else `ORT_DYLIB_PATH`. deploy/onnxruntime.sh prints one.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Synth(arguments) => synth(&arguments),
        Command::Train { run, artifact } => train(&run, &artifact),
        Command::Publish { run, artifact } => publish(&run, &artifact),
        Command::Export(export) => {
            export.run()?.iter().try_for_each(|line| print(line))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pipeline(run) => pipeline(&run),
    }
}

fn synth(arguments: &Synth) -> anyhow::Result<ExitCode> {
    let &Synth { users, items, events, seed, .. } = arguments;
    let log = SynthLog::draw(&SynthOptions { users, items, events, seed });
    let line = format!(
        "{events} rows of {users} users and {items} items: majority {:.4}, best accuracy possible {:.4}",
        log.majority(),
        log.bayes_accuracy()
    );
    log.write(&arguments.out)?;
    print(&line)?;
    Ok(ExitCode::SUCCESS)
}

fn train(arguments: &RunArgs, artifact: &Path) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let artifact = arguments.run(start, |run| Ok(run.train(artifact)?))?;
    print(&report::line(&artifact.summary, None, start.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

fn publish(arguments: &RunArgs, artifact: &Path) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let artifact = Artifact::read(artifact)?;
    let publication = arguments.run(start, |run| Ok(run.publish(&artifact, OffsetDateTime::now_utc())?))?;
    finish(&artifact, &publication, start)
}

fn pipeline(arguments: &RunArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let (artifact, publication) = arguments.run(start, |run| {
        let artifact = run.train(folder.path())?;
        let publication = run.publish(&artifact, OffsetDateTime::now_utc())?;
        Ok((artifact, publication))
    })?;
    finish(&artifact, &publication, start)
}

fn finish(artifact: &Artifact, publication: &Publication, start: Instant) -> anyhow::Result<ExitCode> {
    print(&report::line(&artifact.summary, Some(publication), start.elapsed().as_secs_f64()))?;
    Ok(if publication.published.is_some() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

impl RunArgs {
    /// Does `work` with the run that the arguments describe; progress goes to standard error.
    fn run<T>(
        &self,
        start: Instant,
        work: impl FnOnce(&mut Run<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut pipeline = Pipeline::read(&self.pipeline)
            .with_context(|| format!("the pipeline {}", self.pipeline.display()))?;
        if let Some(repository) = &self.repository {
            pipeline.publish.repository.clone_from(repository);
        }
        let runtime = OnnxRuntime::load(&onnxruntime(self.onnxruntime.as_ref())?)?;
        let log = log_path(&pipeline, self.data.as_deref());
        let mut say = |line: &str| eprintln!("{:7.1} s  {line}", start.elapsed().as_secs_f64());
        work(&mut Run { pipeline: &pipeline, log: &log, runtime: &runtime, say: &mut say })
    }
}

/// The ONNX Runtime library: the one that was named, or else the environment's.
fn onnxruntime(named: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    named.cloned().or_else(|| env::var_os("ORT_DYLIB_PATH").map(PathBuf::from)).context(
        "no ONNX Runtime library: name one with --onnxruntime, MILLRACE_ONNXRUNTIME or ORT_DYLIB_PATH; \
         deploy/onnxruntime.sh prints one",
    )
}

/// The one place that writes to standard output, which scripts read.
fn print(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// The exit status of a version that the gates refused.
const REFUSED: u8 = 3;
