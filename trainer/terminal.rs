//! What a run says on standard error: lines and a bar for people, or an object a line for programs.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use millrace_trainer::{
    progress::{Progress, Step},
    train::EpochReport,
};
use serde_json::{Value, json};

/// How a run says what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines, and a bar where standard error is a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Standard error while a run goes on.
pub(crate) struct Terminal {
    format: LogFormat,
    start: Instant,
    under_way: Option<UnderWay>,
}

/// A long step that is not done yet.
struct UnderWay {
    /// How it was when it was first heard of, and when that was.
    first: (Step, Instant),
    said: Instant,
    bar: ProgressBar,
}

impl Terminal {
    /// Says things with the time since `start`.
    pub(crate) fn new(format: LogFormat, start: Instant) -> Self {
        Self { format, start, under_way: None }
    }

    /// The last thing that is said of a run that failed.
    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        self.under_way = None;
        match self.format {
            LogFormat::Text => write(&format!("Error: {}", chain(error))),
            LogFormat::Json => self.object(json!({ "error": chain(error) })),
        }
    }

    /// Writes an object, with the time.
    fn object(&self, mut object: Value) {
        let milliseconds = (self.start.elapsed().as_secs_f64() * 1e3).round();
        object["seconds"] = (milliseconds / 1e3).into();
        write(&object.to_string());
    }
}

impl Progress for Terminal {
    fn say(&mut self, line: &str) {
        match self.format {
            LogFormat::Json => self.object(json!({ "message": line })),
            LogFormat::Text => {
                let print = || write(&format!("{:7.1} s  {line}", self.start.elapsed().as_secs_f64()));
                match &self.under_way {
                    Some(UnderWay { bar, .. }) => bar.suspend(print),
                    None => print(),
                }
            }
        }
    }

    fn step(&mut self, step: Step) {
        let is_new = self.under_way.as_ref().is_none_or(|under_way| under_way.first.0.work != step.work);
        if is_new {
            let now = Instant::now();
            let bar = if self.format == LogFormat::Text { bar(step) } else { ProgressBar::hidden() };
            self.under_way = Some(UnderWay { first: (step, now), said: now, bar });
        }
        let Some(under_way) = &mut self.under_way else { return };
        under_way.bar.set_position(step.done);
        let every = match self.format {
            LogFormat::Json => Duration::from_secs(1),
            LogFormat::Text if io::stderr().is_terminal() => Duration::MAX,
            LogFormat::Text => Duration::from_secs(10),
        };
        let ends = step.of.is_some_and(|of| step.done >= of);
        if under_way.said.elapsed() >= every {
            under_way.said = Instant::now();
            let (rate, remaining) = pace(under_way.first, step);
            match self.format {
                LogFormat::Text => self.say(&describe(step, rate, remaining)),
                LogFormat::Json => self.object(json!({
                    "work": step.work.to_string(), "unit": step.work.unit(), "done": step.done, "of": step.of,
                    "per_second": rate.map(f64::round), "remaining_seconds": remaining.map(f64::round),
                })),
            }
        }
        if ends && let Some(under_way) = self.under_way.take() {
            under_way.bar.finish_and_clear();
        }
    }

    fn epoch(&mut self, report: &EpochReport) {
        match self.format {
            LogFormat::Text => self.say(&report.to_string()),
            LogFormat::Json => self.object(json!({
                "epoch": report.epoch, "is_final": report.is_final, "loss": report.loss,
                "validation_loss": report.validation_loss,
            })),
        }
    }
}

/// What went wrong and why, without a backtrace: the mistakes are in logs and pipelines, not in the program. A cause
/// that has been said already, as some libraries do, is not said again.
fn chain(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let cause = cause.trim_end();
        if !said.ends_with(cause) {
            said += if said.is_empty() { "" } else { ": " };
            said += cause;
        }
    }
    said
}

/// Writes a line, if anyone is left to read it: a terminal that goes away must not end a training.
fn write(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A bar for `step`; where standard error is no terminal it draws nothing.
fn bar(step: Step) -> ProgressBar {
    let template = match step.of {
        Some(_) => "{msg:>24} [{bar:30}] {pos} of {len} {prefix}, {per_sec}, {eta} left",
        None => "{msg:>24} {spinner} {pos} {prefix}, {per_sec}",
    };
    let style =
        ProgressStyle::with_template(template).expect("a template of known keys").progress_chars("=> ");
    let bar = step.of.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
    bar.with_message(step.work.to_string()).with_prefix(step.work.unit())
}

/// What is done in a second, and the seconds that are left, once both can be told.
fn pace((first, begin): (Step, Instant), now: Step) -> (Option<f64>, Option<f64>) {
    let seconds = begin.elapsed().as_secs_f64();
    let done = now.done.saturating_sub(first.done) as f64;
    let rate = (seconds > 0.0 && done > 0.0).then(|| done / seconds);
    let left = now.of.map(|of| of.saturating_sub(now.done) as f64);
    (rate, left.zip(rate).map(|(left, rate)| left / rate))
}

fn describe(Step { work, done, of }: Step, rate: Option<f64>, remaining: Option<f64>) -> String {
    let of = of.map_or_else(String::new, |of| format!(" of {of}"));
    let rate = rate.map_or_else(String::new, |rate| format!(", {rate:.0} a second"));
    let left = remaining.map_or_else(String::new, |seconds| format!(", {seconds:.0} s left"));
    format!("{work}: {done}{of} {}{rate}{left}", work.unit())
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use millrace_trainer::{config::Pipeline, progress::Work};

    use super::*;

    #[test]
    fn a_step_is_described_by_what_is_known_of_it() {
        let step = Step { work: Work::Epoch(3), done: 50, of: Some(200) };
        assert_eq!(
            describe(step, Some(25.0), Some(6.0)),
            "epoch 3: 50 of 200 examples, 25 a second, 6 s left"
        );
        let reading = Step { work: Work::Reading, done: 50, of: None };
        assert_eq!(describe(reading, None, None), "reading: 50 rows");
    }

    #[test]
    fn the_pace_counts_what_was_done_since_the_step_was_first_heard_of() {
        let begin = Instant::now().checked_sub(Duration::from_secs(10)).expect("the clock is older");
        let at = |done| Step { work: Work::Ranking, done, of: Some(400) };
        let (rate, remaining) = pace((at(100), begin), at(200));
        assert!((rate.expect("a rate") - 10.0).abs() < 0.5, "{rate:?}");
        assert!((remaining.expect("a remainder") - 20.0).abs() < 1.0, "{remaining:?}");
        assert_eq!(pace((at(100), begin), at(100)), (None, None));
    }

    #[test]
    fn a_failure_is_told_from_the_outside_in_and_nothing_twice() {
        let cause = anyhow::Error::new(Error::other("the disk is full"));
        let failure = cause.context("Io error: the disk is full").context("log.csv: cannot be written");
        assert_eq!(chain(&failure), "log.csv: cannot be written: Io error: the disk is full");
    }

    #[test]
    fn a_mistake_in_a_pipeline_is_shown_below_the_line_that_has_it() {
        let error = Pipeline::parse("seed = 7\nsead = 8\n").expect_err("no key");
        let said = chain(&anyhow::Error::new(error).context("the pipeline shop.toml"));
        assert!(said.starts_with("the pipeline shop.toml: TOML parse error at line 2, column 1\n"), "{said}");
        assert!(said.contains("\n2 | sead = 8\n  | ^^^^\n"), "{said}");
        assert_eq!(said.matches("unknown field").count(), 1, "{said}");
    }
}
