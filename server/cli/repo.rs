//! `millrace repo`: asks a running server, over its management port, and shows what it answers.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::Context;
use millrace::{
    http::Models,
    repository::{ModelStatus, VersionStatus},
};

use super::{
    flags::{Order, Repo},
    management,
};

/// Gives the order and writes the models' new state as a table.
pub(super) fn run(flags: &Repo) -> anyhow::Result<()> {
    let body = management::ask(flags.server.management, flags.order.request())?;
    let models = match flags.order {
        Order::List => serde_json::from_slice::<Models>(&body).map(|answer| answer.models),
        _ => serde_json::from_slice(&body).map(|model| vec![model]),
    };
    let table = table(&models.context("an answer that is not understood")?);
    io::stdout().write_all(table.as_bytes()).context("standard output")
}

/// A line for each version, newest first.
fn table(models: &[ModelStatus]) -> String {
    let widths = models.iter().map(|status| status.model.as_str().len());
    let width = widths.max().unwrap_or(0).max("MODEL".len());
    let mut table = format!("{:width$}  {:>7}  {:11}  NOTES\n", "MODEL", "VERSION", "STATE");
    for status in models {
        for version in status.versions.iter().rev() {
            let (model, number) = (status.model.as_str(), version.version);
            let (state, notes) = (version.state.name(), notes(status, version));
            let line = format!("{model:width$}  {number:>7}  {state:11}  {notes}");
            let _ = writeln!(table, "{}", line.trim_end());
        }
    }
    table
}

fn notes(status: &ModelStatus, version: &VersionStatus) -> String {
    let number = Some(version.version);
    let mut notes = Vec::new();
    if status.current == number {
        notes.push("answers");
    }
    if status.candidate == number {
        notes.push("is tried");
    }
    if status.pinned == number {
        notes.push("pinned");
    }
    if status.unloaded {
        notes.push("unloaded");
    }
    notes.extend(version.reason.as_deref());
    notes.join(", ")
}

#[cfg(test)]
mod tests {
    use millrace::repository::VersionState;

    use super::*;

    #[test]
    fn the_table_shows_what_answers_and_why_a_version_does_not() {
        let number = |number: u64| number.try_into().expect("from 1");
        let version = |version, state, reason: Option<&str>| VersionStatus {
            version: number(version),
            state,
            reason: reason.map(str::to_owned),
        };
        let status = ModelStatus {
            model: "recommendation_model".parse().expect("a name"),
            current: Some(number(1)),
            candidate: Some(number(3)),
            pinned: Some(number(1)),
            unloaded: false,
            versions: vec![
                version(1, VersionState::Ready, None),
                version(2, VersionState::Failed, Some("model.onnx: cannot be read")),
                version(3, VersionState::Ready, None),
            ],
        };
        assert_eq!(
            table(&[status]),
            "MODEL                 VERSION  STATE        NOTES\n\
             recommendation_model        3  ready        is tried\n\
             recommendation_model        2  failed       model.onnx: cannot be read\n\
             recommendation_model        1  ready        answers, pinned\n"
        );
    }
}
