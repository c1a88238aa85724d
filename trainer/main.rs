//! The trainer's command line.

mod export;

use std::{
    env, fs,
    io::{self, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use millrace::engine::OnnxRuntime;
use millrace_trainer::{
    artifact::Artifact,
    calendar,
    checkpoint::CheckpointOptions,
    config::{Pipeline, TestStart},
    explore::{
        ExploreOptions, explore,
        page::page,
        roles::{Role, Source},
    },
    pipeline::{PipelineError, Run, log_path},
    publish::Publication,
    report,
    synth::{SynthLog, SynthOptions},
    train::TrainError,
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
    /// Look at a log before training on it: an HTML report, and the same figures as JSON.
    Explore(Explore),
    /// Train a version into an artifact folder. Killed, the same command goes on where it was.
    Train {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        checkpoints: CheckpointArgs,
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
    Pipeline {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        checkpoints: CheckpointArgs,
        /// Keep the artifact in this folder, and go on there where an earlier run was killed.
        #[arg(long, conflicts_with = "seeds")]
        artifact: Option<PathBuf>,
        /// Train with so many seeds, from the pipeline's on, and report the means as well. The first is published.
        #[arg(long, default_value_t = NonZeroU32::MIN)]
        seeds: NonZeroU32,
    },
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
struct Explore {
    /// The log, .csv or .parquet.
    log: PathBuf,
    /// The report for people, one HTML file that needs no other.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
    /// The report for programs.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A pipeline, for what the columns mean, which rows are kept and where the log is cut.
    #[arg(long, conflicts_with_all = ["user", "item", "time", "label"])]
    pipeline: Option<PathBuf>,
    /// The column that says who. Columns that are not named are guessed from their names.
    #[arg(long, value_name = "COLUMN")]
    user: Option<String>,
    /// The column that says what.
    #[arg(long, value_name = "COLUMN")]
    item: Option<String>,
    /// The column that says what the item is called.
    #[arg(long, value_name = "COLUMN")]
    title: Option<String>,
    /// The column that says when: a timestamp, its text, or seconds since 1970.
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// The column that says what happened, seen or bought.
    #[arg(long, value_name = "COLUMN")]
    event: Option<String>,
    /// The column of two values that says whether it happened.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// The column that says what kind of item it is.
    #[arg(long, value_name = "COLUMN")]
    category: Option<String>,
    /// Where the test period starts; else where the pipeline says, or at the last fifth of the rows.
    #[arg(long, value_name = "DATE", value_parser = moment)]
    test_from: Option<i64>,
}

#[derive(Args)]
struct CheckpointArgs {
    /// Train from the start, even where an earlier run of the same command was killed.
    #[arg(long)]
    restart: bool,
    /// Keep a checkpoint after so many seconds within an epoch, besides the one at its end.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_seconds: u64,
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
    /// A history feature to leave out, by name; may be given several times.
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// The ONNX Runtime library; else `ORT_DYLIB_PATH`. deploy/onnxruntime.sh prints one.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let result = run(Cli::parse().command);
    if let Err(error) = &result
        && matches!(error.downcast_ref(), Some(PipelineError::Train(TrainError::Interrupted { .. })))
    {
        eprintln!("{error}; the same command goes on from here");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    result
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Synth(arguments) => synth(&arguments),
        Command::Explore(arguments) => explore_log(&arguments),
        Command::Train { run, checkpoints, artifact } => train(&run, &checkpoints, &artifact),
        Command::Publish { run, artifact } => publish(&run, &artifact),
        Command::Pipeline { run, checkpoints, artifact, seeds } => {
            pipeline(&run, &checkpoints, artifact.as_deref(), seeds)
        }
        Command::Export(export) => {
            export.run()?.iter().try_for_each(|line| print(line))?;
            Ok(ExitCode::SUCCESS)
        }
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

fn explore_log(arguments: &Explore) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let mut say = progress(start);
    let report = explore(&arguments.log, &arguments.options()?, &mut say)?;
    let write = |path: &Path, text: &str| {
        fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
    };
    write(&arguments.out, &page(&report))?;
    say(&format!("wrote {}", arguments.out.display()));
    if let Some(path) = &arguments.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
        say(&format!("wrote {}", path.display()));
    }
    print(&report.line(start.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

fn train(arguments: &RunArgs, checkpoints: &CheckpointArgs, artifact: &Path) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let checkpoints = checkpoints.options()?;
    let artifact = arguments.run(start, checkpoints, |run| Ok(run.train(artifact)?))?;
    print(&report::line(&artifact.summary, None, start.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

fn publish(arguments: &RunArgs, artifact: &Path) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let artifact = Artifact::read(artifact)?;
    let publication = arguments.run(start, CheckpointOptions::default(), |run| {
        Ok(run.publish(&artifact, OffsetDateTime::now_utc())?)
    })?;
    finish(&artifact, &publication, start)
}

fn pipeline(
    arguments: &RunArgs,
    checkpoints: &CheckpointArgs,
    artifact: Option<&Path>,
    seeds: NonZeroU32,
) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let checkpoints = checkpoints.options()?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let mut others = Vec::new();
    for offset in 1..u64::from(seeds.get()) {
        let start = Instant::now();
        let folder = folder.path().join("other");
        let artifact = arguments.run_seed(offset, start, checkpoints, |run| Ok(run.train(&folder)?))?;
        others.push((artifact.summary, start.elapsed().as_secs_f64()));
    }
    let first = Instant::now();
    let (artifact, publication) = arguments.run(first, checkpoints, |run| {
        let artifact = run.train(artifact.unwrap_or(&folder.path().join("first")))?;
        let publication = run.publish(&artifact, OffsetDateTime::now_utc())?;
        Ok((artifact, publication))
    })?;
    if others.is_empty() {
        return finish(&artifact, &publication, start);
    }
    let mut runs = vec![(artifact.summary, first.elapsed().as_secs_f64())];
    runs.append(&mut others);
    print(&report::line_over_seeds(&runs, Some(&publication)))?;
    Ok(status(&publication))
}

fn finish(artifact: &Artifact, publication: &Publication, start: Instant) -> anyhow::Result<ExitCode> {
    print(&report::line(&artifact.summary, Some(publication), start.elapsed().as_secs_f64()))?;
    Ok(status(publication))
}

fn status(publication: &Publication) -> ExitCode {
    if publication.published.is_some() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

impl Explore {
    fn options(&self) -> anyhow::Result<ExploreOptions> {
        let now = OffsetDateTime::now_utc();
        let mut options = match &self.pipeline {
            Some(path) => ExploreOptions::of_pipeline(&read_pipeline(path)?, now),
            None => ExploreOptions::new(now),
        };
        let given = [
            (Role::User, &self.user),
            (Role::Item, &self.item),
            (Role::Title, &self.title),
            (Role::Time, &self.time),
            (Role::Event, &self.event),
            (Role::Label, &self.label),
            (Role::Category, &self.category),
        ];
        for (role, column) in given {
            if let Some(column) = column {
                options.roles.set(role, column, Source::Given);
            }
        }
        if let Some(second) = self.test_from {
            options.test = Some((TestStart::At(second), Source::Given));
        }
        Ok(options)
    }
}

impl CheckpointArgs {
    /// The options, with Ctrl-C and a polite kill as what ends a training. The second one ends the process at once.
    fn options(&self) -> anyhow::Result<CheckpointOptions<'static>> {
        static STOP: AtomicBool = AtomicBool::new(false);
        ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        })
        .context("the handler of signals")?;
        let every = Duration::from_secs(self.checkpoint_seconds);
        Ok(CheckpointOptions { every, restart: self.restart, stop: &STOP })
    }
}

impl RunArgs {
    /// Does `work` with the run that the arguments describe; progress goes to standard error.
    fn run<T>(
        &self,
        start: Instant,
        checkpoints: CheckpointOptions<'_>,
        work: impl FnOnce(&mut Run<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.run_seed(0, start, checkpoints, work)
    }

    /// The same with a seed that lies `offset` above the pipeline's.
    fn run_seed<T>(
        &self,
        offset: u64,
        start: Instant,
        checkpoints: CheckpointOptions<'_>,
        work: impl FnOnce(&mut Run<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut pipeline = read_pipeline(&self.pipeline)?;
        pipeline.seed = pipeline.seed.wrapping_add(offset);
        if let Some(repository) = &self.repository {
            pipeline.publish.repository.clone_from(repository);
        }
        for name in &self.without {
            anyhow::ensure!(
                pipeline.leave_out(name),
                "--without: the pipeline has no history feature `{name}`"
            );
        }
        let runtime = OnnxRuntime::load(&onnxruntime(self.onnxruntime.as_ref())?)?;
        let log = log_path(&pipeline, self.data.as_deref());
        let mut say = progress(start);
        work(&mut Run { pipeline: &pipeline, log: &log, runtime: &runtime, checkpoints, say: &mut say })
    }
}

fn read_pipeline(path: &Path) -> anyhow::Result<Pipeline> {
    Pipeline::read(path).with_context(|| format!("the pipeline {}", path.display()))
}

/// Says lines on standard error, each with the time since `start`.
fn progress(start: Instant) -> impl FnMut(&str) {
    move |line| eprintln!("{:7.1} s  {line}", start.elapsed().as_secs_f64())
}

/// The second that `text` names, for clap.
fn moment(text: &str) -> Result<i64, &'static str> {
    calendar::parse(text).ok_or("expected a date, or a date and a time")
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
/// The exit status of a training that was interrupted, as a shell has it.
const INTERRUPTED: u8 = 130;
