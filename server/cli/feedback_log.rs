//! `millrace log`: whether a feedback log is as it was written, and what is in it. Neither changes it.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::Context;
use millrace::feedback::log::{Checked, State, verify};

use super::flags::{Log, Look};

/// Reads the log and writes what it found; an error where the log is not good and was to be.
pub(super) fn run(flags: &Log) -> anyhow::Result<()> {
    let (Look::Verify { dir } | Look::Stats { dir }) = &flags.look;
    let checked = verify(dir).with_context(|| format!("the log {} cannot be read", dir.display()))?;
    let (text, bad) = match flags.look {
        Look::Verify { .. } => (lines(&checked), checked.iter().filter(|segment| !segment.is_good()).count()),
        Look::Stats { .. } => (stats(&checked), 0),
    };
    io::stdout().write_all(text.as_bytes()).context("standard output")?;
    anyhow::ensure!(bad == 0, "{bad} of {} segments are not as they were written", checked.len());
    Ok(())
}

/// A line for each segment, oldest first.
fn lines(checked: &[Checked]) -> String {
    let mut text = String::new();
    for segment in checked {
        let Checked { file, records, missing, .. } = segment;
        let state = match segment.state {
            State::Sealed => "sealed".to_owned(),
            State::Open => "open".to_owned(),
            State::Bad { offset, flaw } => format!("BAD at byte {offset}: {flaw}"),
        };
        let gap = if *missing > 0 { format!(", {missing} records MISSING before it") } else { String::new() };
        let _ = writeln!(text, "{file}  {records} records  {state}{gap}");
    }
    text
}

fn stats(checked: &[Checked]) -> String {
    let filled = || checked.iter().filter(|segment| segment.records > 0);
    let number = |seq: Option<u64>| seq.map_or("-".to_owned(), |seq| seq.to_string());
    format!(
        "segments {}\nbytes    {}\nrecords  {}\noldest   {}\nnewest   {}\n",
        checked.len(),
        checked.iter().map(|segment| segment.bytes).sum::<u64>(),
        checked.iter().map(|segment| segment.records).sum::<u64>(),
        number(filled().next().map(|segment| segment.first_seq)),
        number(filled().next_back().map(|segment| segment.first_seq + segment.records - 1)),
    )
}
