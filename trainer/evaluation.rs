//! The command `evaluate`: a report on a trained artifact, beside another version where one is named.

use std::{num::NonZeroU32, path::PathBuf, time::Instant};

use clap::Args;
use millrace::engine::OnnxRuntime;
use millrace_trainer::{
    artifact::{Artifact, REPORT_HTML, REPORT_JSON},
    evaluate::{self, EvaluateOptions, bootstrap::Bootstrap},
    progress::Progress,
    whole_file,
};
use time::OffsetDateTime;

/// What to evaluate, and how.
#[derive(Args)]
pub(crate) struct Evaluation {
    /// The artifact's folder.
    #[arg(long)]
    artifact: PathBuf,
    /// Another artifact's folder, or a version's folder of a model repository, to score the same rows.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// The report for people; report.html in the artifact unless it is named.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The report for programs; report.json in the artifact unless it is named.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// From which score on a row is called positive.
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    threshold: f32,
    /// How often the held-out rows are drawn to tell a difference from chance.
    #[arg(long, default_value_t = NonZeroU32::new(1000).expect("not zero"), value_parser = resamples)]
    resamples: NonZeroU32,
    /// The seed of these draws.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The ONNX Runtime library; else `ORT_DYLIB_PATH`. deploy/onnxruntime.sh prints one.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

impl Evaluation {
    /// Writes the reports and returns the line that a run ends with.
    pub(crate) fn run(self, progress: &mut dyn Progress) -> anyhow::Result<String> {
        let start = Instant::now();
        let html = self.out.unwrap_or_else(|| self.artifact.join(REPORT_HTML));
        let json = self.json.unwrap_or_else(|| self.artifact.join(REPORT_JSON));
        let is_one = whole_file::is_same(&html, &json);
        anyhow::ensure!(!is_one, "--out and --json: both name {}", html.display());
        let artifact = Artifact::read(&self.artifact)?;
        let runtime = OnnxRuntime::load(&crate::onnxruntime(self.onnxruntime.as_ref())?)?;
        let options = EvaluateOptions {
            threshold: self.threshold,
            bootstrap: Bootstrap { resamples: self.resamples, seed: self.seed },
            now: OffsetDateTime::now_utc(),
        };
        progress.say(&format!("scoring {} held-out rows", artifact.holdout.label.len()));
        let report = evaluate::evaluate(&artifact, self.against.as_deref(), &options, &runtime)?;
        report.notes.iter().for_each(|note| progress.say(&format!("note: {note}")));
        evaluate::write(&report, &html, &json)?;
        progress.say(&format!("wrote {} and {}", html.display(), json.display()));
        Ok(report.line(start.elapsed().as_secs_f64()))
    }
}

fn share(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a number between 0 and 1".to_owned())
}

/// More would say no more, and take the memory of each draw's figures.
fn resamples(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|number: &NonZeroU32| number.get() <= 1_000_000);
    number.ok_or_else(|| "expected a number from 1 to 1,000,000".to_owned())
}
