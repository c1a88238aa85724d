//! `millrace retrain`: has a running server retrain a model, over its management port, and says what it started.

use std::io::{self, Write as _};

use anyhow::Context;
use millrace::retrain::Started;

use super::{flags::Retrain, management};

/// Asks, and writes where to read what the retraining says.
pub(super) fn run(flags: &Retrain) -> anyhow::Result<()> {
    let request = ("POST", format!("/models/{}/retrain", flags.model), String::new());
    let body = management::ask(flags.server.management, request)?;
    let started: Started = serde_json::from_slice(&body).context("an answer that is not understood")?;
    let line = format!("{} is being retrained: {}\n", started.model, started.output.display());
    io::stdout().write_all(line.as_bytes()).context("standard output")
}
