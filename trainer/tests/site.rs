//! The program itself in a folder with a small log, as its users start it and as others end it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use millrace_trainer::synth::{SynthLog, SynthOptions};
use tempfile::TempDir;

use crate::shop::{TEXT, contents};

/// A folder with a small log and the pipeline that learns it.
pub(crate) struct Site(TempDir);

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("a temporary folder"));
        let options = SynthOptions { users: 100, items: 200, events: 8_000, ..SynthOptions::default() };
        SynthLog::draw(&options).write(&site.path("log.parquet")).expect("written");
        fs::write(site.path("pipeline.toml"), pipeline()).expect("written");
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn start(&self, command: &str, artifact: &str, more: &[&str]) -> Child {
        self.program(command, artifact).args(more).spawn().expect("the trainer starts")
    }

    /// The trainer with a command and an artifact's folder. No tracking server hears of it, whatever the environment of
    /// the tests says.
    pub(crate) fn program(&self, command: &str, artifact: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_millrace-trainer"));
        program.arg(command).arg("--artifact").arg(self.path(artifact));
        if command != "export" {
            program.arg(self.path("pipeline.toml")).arg("--data").arg(self.0.path());
            program.arg("--repository").arg(self.path("models"));
        }
        program.arg("--onnxruntime").arg(crate::runtime_file());
        program.env_remove("MLFLOW_TRACKING_URI").stdout(Stdio::null()).stderr(Stdio::piped());
        program
    }

    /// Trains with a checkpoint after every batch.
    pub(crate) fn train(&self, artifact: &str) -> Child {
        self.start("train", artifact, &["--checkpoint-seconds", "0"])
    }

    /// The files of the version that a training left, by their paths in it.
    pub(crate) fn version(&self, artifact: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = self.path(artifact).join("version");
        let relative = |path: &Path| path.strip_prefix(&folder).expect("below the folder").to_path_buf();
        contents(&folder).into_iter().map(|(path, bytes)| (relative(&path), bytes)).collect()
    }
}

/// Waits for the end, which must be a good one; what was said.
pub(crate) fn finish(child: Child) -> String {
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// Waits until `there` or until the process has ended by itself; whether it still runs.
pub(crate) fn runs_until(child: &mut Child, there: impl Fn() -> bool) -> bool {
    loop {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        if there() {
            return true;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

pub(crate) fn kill(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("gone");
}

/// The shop's pipeline, which also chooses the number of epochs and publishes whatever comes of it.
pub(crate) fn pipeline() -> String {
    let text = TEXT.replace("# data", "label = \"clicked\"");
    let text = text.replace("test_fraction = 0.2", "test_fraction = 0.2\nvalidation_days = 3");
    text + "\n[gates]\naccuracy = 0.0\nmax_latency_ms = 60000\n"
}
