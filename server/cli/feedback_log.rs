//! `millrace log`: whether a feedback log is as it was written, what is in it, and all of that as a table. Nothing changes it.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Context;
use millrace::feedback::{
    export::{self, Columns},
    log::{Checked, Reader, State, verify},
};

use super::flags::{Log, Look};

/// Reads the log and writes what it found; an error where the log is not good and was to be.
pub(super) fn run(flags: &Log) -> anyhow::Result<()> {
    let checked =
        |dir: &Path| verify(dir).with_context(|| format!("the log {} cannot be read", dir.display()));
    match &flags.look {
        Look::Verify { dir } => {
            let checked = checked(dir)?;
            say(&lines(&checked))?;
            let bad = checked.iter().filter(|segment| !segment.is_good()).count();
            anyhow::ensure!(bad == 0, "{bad} of {} segments are not as they were written", checked.len());
            Ok(())
        }
        Look::Stats { dir } => say(&stats(&checked(dir)?)),
        Look::Export { dir, to, label_column, time_column } => {
            let columns = Columns { label: label_column.clone(), time: time_column.clone() };
            let oldest = checked(dir)?.first().map_or(0, |segment| segment.first_seq);
            let file = File::create_new(to).with_context(|| format!("{}", to.display()))?;
            let rows = export::write(|| Reader::open(dir, oldest), &columns, &file).and_then(|rows| {
                file.sync_all().map_err(|error| export::ExportError::Write(error.into()))?;
                Ok(rows)
            });
            match rows {
                Ok(rows) => say(&format!("rows {rows}\n")),
                Err(error) => {
                    // Half a table is none.
                    let _ = std::fs::remove_file(to);
                    Err(error).with_context(|| format!("{} cannot be exported", dir.display()))
                }
            }
        }
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("standard output")
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
