//! The trainer's command line.

mod evaluation;
mod export;
mod terminal;

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, LazyLock, atomic::AtomicBool},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use millrace::engine::OnnxRuntime;
use millrace_trainer::{
    artifact::{Artifact, Summary},
    calendar,
    checkpoint::CheckpointOptions,
    config::{Pipeline, TestStart},
    explore::{
        ExploreOptions, explore,
        page::page,
        roles::{Role, Source},
    },
    mlflow::{End, Settings, Tracker},
    pipeline::{PipelineError, Run, log_path},
    progress::Progress,
    publish::Publication,
    report,
    synth::{SynthLog, SynthOptions},
    train::TrainError,
    whole_file,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use time::OffsetDateTime;

use self::terminal::{LogFormat, Terminal};

/// Trains, judges and publishes the models that Millrace serves.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// How a run says on standard error what it does.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
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
    /// Report how good a trained artifact is, and whether it differs from another version.
    Evaluate(evaluation::Evaluation),
    /// Publish a trained artifact, if the gates let it; status 3 where they do not.
    Publish {
        #[command(flatten)]
        run: RunArgs,
        /// Ask the gates, say what they answer, and publish nothing.
        #[arg(long)]
        dry_run: bool,
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
        /// Train and ask the gates, and publish nothing.
        #[arg(long)]
        dry_run: bool,
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
    #[arg(long, default_value_t = SynthOptions::default().users, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Items, from id 1.
    #[arg(long, default_value_t = SynthOptions::default().items, value_parser = clap::value_parser!(u32).range(1..))]
    items: u32,
    /// Rows.
    #[arg(long, default_value_t = SynthOptions::default().events)]
    events: usize,
    /// Days that the rows are spread over.
    #[arg(long, default_value_t = SynthOptions::default().days, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// The share of the rows, 0 to 1, after which every user has another taste.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    shift_at: Option<f64>,
    /// The seed of all randomness.
    #[arg(long, default_value_t = SynthOptions::default().seed)]
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

fn main() -> ExitCode {
    let Cli { command, log_format } = Cli::parse();
    let mut terminal = Terminal::new(log_format, Instant::now());
    let error = match run(command, &mut terminal) {
        Ok(status) => return status,
        Err(error) => error,
    };
    terminal.fail(&error);
    if is_interruption(&error) { ExitCode::from(INTERRUPTED) } else { ExitCode::FAILURE }
}

fn is_interruption(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(PipelineError::Interrupted | PipelineError::Train(TrainError::Interrupted { .. }))
    )
}

fn run(command: Command, terminal: &mut Terminal) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    match command {
        Command::Synth(arguments) => synth(&arguments),
        Command::Explore(arguments) => explore_log(&arguments, start, terminal),
        Command::Train { run, checkpoints, artifact } => {
            let artifact =
                run.run(0, checkpoints.options(true)?, terminal, |run| Ok(run.train(&artifact)?))?;
            print(&report::line(&artifact.summary, None, start.elapsed().as_secs_f64()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Publish { run, dry_run, artifact } => {
            let artifact = Artifact::read(&artifact)?;
            let stop = CheckpointOptions { stop: stop()?, ..CheckpointOptions::default() };
            let outcome = run.run(0, stop, terminal, |run| release(run, &artifact, dry_run))?;
            finish(&artifact, &outcome, start)
        }
        Command::Pipeline { run, checkpoints, artifact, dry_run, seeds } => {
            let folder = tempfile::tempdir().context("a temporary folder")?;
            let checkpoints = checkpoints.options(artifact.is_some())?;
            let artifact = artifact.unwrap_or_else(|| folder.path().join("artifact"));
            let others = train_others(&run, checkpoints, seeds, terminal)?;
            let first = Instant::now();
            let (artifact, outcome) = run.run(0, checkpoints, terminal, |run| {
                if !dry_run {
                    run.check_repository()?;
                }
                let artifact = run.train(&artifact)?;
                let outcome = release(run, &artifact, dry_run)?;
                Ok((artifact, outcome))
            })?;
            if others.is_empty() {
                return finish(&artifact, &outcome, start);
            }
            let mut runs = vec![(artifact.summary, first.elapsed().as_secs_f64())];
            runs.extend(others);
            print(&report::line_over_seeds(&runs, outcome.publication.as_ref()))?;
            Ok(outcome.status())
        }
        Command::Evaluate(evaluation) => {
            print(&evaluation.run(terminal)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Export(export) => {
            export.run(terminal)?.iter().try_for_each(|line| print(line))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What the gates said, and what came of it.
struct Outcome {
    passed: bool,
    /// None of a dry run.
    publication: Option<Publication>,
}

impl Outcome {
    fn status(&self) -> ExitCode {
        if self.passed { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
    }
}

/// Publishes the artifact if the gates let it, or only asks them.
fn release(run: &mut Run<'_>, artifact: &Artifact, dry_run: bool) -> anyhow::Result<Outcome> {
    if dry_run {
        return Ok(Outcome { passed: run.judge(artifact)?, publication: None });
    }
    let publication = run.publish(artifact, OffsetDateTime::now_utc())?;
    Ok(Outcome { passed: publication.published.is_some(), publication: Some(publication) })
}

/// Trains with the seeds after the pipeline's own, and keeps their figures alone.
fn train_others(
    arguments: &RunArgs,
    checkpoints: CheckpointOptions<'_>,
    seeds: NonZeroU32,
    terminal: &mut Terminal,
) -> anyhow::Result<Vec<(Summary, f64)>> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let one = |offset: u64| {
        let start = Instant::now();
        let artifact = arguments.run(offset, checkpoints, terminal, |run| Ok(run.train(folder.path())?))?;
        Ok((artifact.summary, start.elapsed().as_secs_f64()))
    };
    (1..u64::from(seeds.get())).map(one).collect()
}

fn finish(artifact: &Artifact, outcome: &Outcome, start: Instant) -> anyhow::Result<ExitCode> {
    let seconds = start.elapsed().as_secs_f64();
    print(&report::line(&artifact.summary, outcome.publication.as_ref(), seconds))?;
    Ok(outcome.status())
}

fn synth(arguments: &Synth) -> anyhow::Result<ExitCode> {
    let &Synth { users, items, events, days, shift_at, seed, .. } = arguments;
    let log = SynthLog::draw(&SynthOptions { users, items, events, days, shift_at, seed });
    let mut line = format!(
        "{events} rows of {users} users and {items} items: majority {:.4}, best accuracy possible {:.4}",
        log.majority(),
        log.bayes_accuracy()
    );
    if let Some((before, after)) = log.bayes_accuracy_by_taste() {
        write!(line, ", {before:.4} before tastes shift and {after:.4} after")?;
    }
    log.write(&arguments.out)?;
    print(&line)?;
    Ok(ExitCode::SUCCESS)
}

fn explore_log(arguments: &Explore, start: Instant, terminal: &mut Terminal) -> anyhow::Result<ExitCode> {
    arguments.check_places()?;
    let report = explore(&arguments.log, &arguments.options()?, terminal)?;
    let write = |path: &Path, text: &str| {
        let written = whole_file::write(path, |mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("{}: cannot be written", path.display()))
    };
    write(&arguments.out, &page(&report))?;
    terminal.say(&format!("wrote {}", arguments.out.display()));
    if let Some(path) = &arguments.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
        terminal.say(&format!("wrote {}", path.display()));
    }
    print(&report.line(start.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

impl Explore {
    /// Whether nothing that is read would be overwritten, and each report has a file of its own.
    fn check_places(&self) -> anyhow::Result<()> {
        for report in [Some(&self.out), self.json.as_ref()].into_iter().flatten() {
            for read in [Some(&self.log), self.pipeline.as_ref()].into_iter().flatten() {
                let is_read = whole_file::is_same(report, read);
                anyhow::ensure!(!is_read, "{}: would be overwritten by the report", read.display());
            }
        }
        let is_one = self.json.as_ref().is_some_and(|json| whole_file::is_same(json, &self.out));
        anyhow::ensure!(!is_one, "--out and --json: both name {}", self.out.display());
        Ok(())
    }

    fn options(&self) -> anyhow::Result<ExploreOptions> {
        let now = OffsetDateTime::now_utc();
        let mut options = match &self.pipeline {
            Some(path) => ExploreOptions::of_pipeline(&read_pipeline(path)?.0, now),
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
    fn options(&self, keep: bool) -> anyhow::Result<CheckpointOptions<'static>> {
        let every = Duration::from_secs(self.checkpoint_seconds);
        Ok(CheckpointOptions { keep, every, restart: self.restart, stop: stop()? })
    }
}

/// What Ctrl-C and SIGTERM set, to ask for an end. The second one ends the process at once.
fn stop() -> anyhow::Result<&'static AtomicBool> {
    static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first one finds nothing to end, and asks for the end.
        flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&STOP))
            .and_then(|_| flag::register(signal, Arc::clone(&STOP)))
            .context("the handler of signals")?;
    }
    Ok(&STOP)
}

impl RunArgs {
    /// Does `work` with the run that the arguments describe, with a seed that lies `offset` above the pipeline's.
    fn run<T>(
        &self,
        offset: u64,
        checkpoints: CheckpointOptions<'_>,
        terminal: &mut Terminal,
        work: impl FnOnce(&mut Run<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (mut pipeline, text) = read_pipeline(&self.pipeline)?;
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
        let tracking = Settings::from_env()?;
        let runtime = OnnxRuntime::load(&onnxruntime(self.onnxruntime.as_ref())?)?;
        let log = log_path(&pipeline, self.data.as_deref());
        let with = |progress: &mut dyn Progress| {
            work(&mut Run { pipeline: &pipeline, log: &log, runtime: &runtime, checkpoints, progress })
        };
        let Some(settings) = tracking else { return with(terminal) };
        let mut tracker = Tracker::new(settings, &pipeline, &text, terminal);
        let result = with(&mut tracker);
        tracker.end(match &result {
            Ok(_) => End::Finished,
            Err(error) if is_interruption(error) => End::Killed,
            Err(_) => End::Failed,
        });
        result
    }
}

/// The pipeline and the text that it was read from.
fn read_pipeline(path: &Path) -> anyhow::Result<(Pipeline, String)> {
    let read = || {
        let text = fs::read_to_string(path).context("cannot be read")?;
        anyhow::Ok((Pipeline::parse(&text)?, text))
    };
    read().with_context(|| format!("the pipeline {}", path.display()))
}

/// The second that `text` names, for clap.
fn moment(text: &str) -> Result<i64, &'static str> {
    calendar::parse(text).ok_or("expected a date, or a date and a time")
}

/// A share, for clap.
fn share(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("expected a number from 0 to 1")
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
