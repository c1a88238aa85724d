//! How a run goes, for whoever looks on: a person at a terminal, a program that reads the lines, a tracking server.

use std::{error::Error, fmt, path::Path};

use millrace::repository::VersionNumber;

use crate::{artifact::Artifact, gate::Verdict, train::EpochReport};

/// Hears of a run while it goes on. A closure that takes lines is one that hears nothing else.
pub trait Progress {
    /// Something was done.
    fn say(&mut self, line: &str);

    /// A long step has come so far. It is called often, after each batch say, and should cost little.
    fn step(&mut self, step: Step) {
        let _ = step;
    }

    /// An epoch is over.
    fn epoch(&mut self, report: &EpochReport) {
        self.say(&report.to_string());
    }

    /// The work on the artifact in `folder` begins, or goes on where an earlier command was; nothing was spent on it yet.
    /// It ends with the error of whoever cannot look on.
    fn begins(&mut self, folder: &Path, goes_on: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = (folder, goes_on);
        Ok(())
    }

    /// A version is trained, and all of it is in its folder.
    fn trained(&mut self, artifact: &Artifact) {
        let _ = artifact;
    }

    /// The gates were asked.
    fn judged(&mut self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            self.say(&format!("gate {verdict}"));
        }
    }

    /// The artifact is published as `version`, in `folder`.
    fn published(&mut self, artifact: &Artifact, version: VersionNumber, folder: &Path) {
        let _ = (artifact, version);
        self.say(&format!("published {}", folder.display()));
    }
}

impl<F: FnMut(&str)> Progress for F {
    fn say(&mut self, line: &str) {
        self(line);
    }
}

/// How far a long step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub work: Work,
    /// How much of it is done, in the work's unit.
    pub done: u64,
    /// How much there is to do, where that is known.
    pub of: Option<u64>,
}

/// Work that takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Reading the log, in rows.
    Reading,
    /// An epoch, from 1, in examples.
    Epoch(usize),
    /// Ranking the catalogue, in customers.
    Ranking,
}

impl Work {
    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Reading => "rows",
            Self::Epoch(_) => "examples",
            Self::Ranking => "customers",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reading => f.write_str("reading"),
            Self::Epoch(epoch) => write!(f, "epoch {epoch}"),
            Self::Ranking => f.write_str("ranking"),
        }
    }
}
