//! How good a version is, as a report: its held-out rows are scored by the engine that will serve it, and everything that
//! is worth knowing of the scores is written down, beside another version's where one is named.
//!
//! The figures are pure functions of scores, labels and counts; [`stopwatch`] alone looks at a clock. What is judged
//! while a pipeline runs, [`RowFigures`] and the ranking of items, is judged by the same definitions.

mod rows;

pub mod bootstrap;
pub mod confusion;
pub mod drift;
pub mod histogram;
pub mod latency;
pub mod reliability;
pub mod roc;

pub mod stopwatch;
mod subject;

pub mod page;
pub mod report;

use std::{
    collections::HashSet,
    io::{self, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use millrace::{
    engine::{EngineError, OnnxRuntime},
    features::{Encoder, SchemaError},
    repository::reference::{self, ReferenceError},
};
use time::OffsetDateTime;

pub use self::rows::RowFigures;
use self::{
    bootstrap::{Bootstrap, Comparison, PairedRows},
    drift::Drift,
    report::{Ranking, Report, Scored, VersionReport},
    subject::Subject,
};
use crate::{
    artifact::{Artifact, ArtifactError, Holdout},
    calendar,
    check::{CheckError, Opened},
    whole_file,
};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A folder holds nothing that can be evaluated.
    #[error(
        "{0}: is neither an artifact nor a version of a model repository: it has no version/ and no manifest.toml"
    )]
    Neither(PathBuf),
    /// A file or folder cannot be read.
    #[error("{file}: cannot be read")]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A version's manifest is not what this version of the program reads.
    #[error("{folder}: manifest.toml")]
    Manifest {
        /// The version's folder.
        folder: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The held-out rows are not what they should be.
    #[error("holdout.json: {rows} rows have {labels} labels and {users} users")]
    Holdout {
        /// Rows.
        rows: usize,
        /// Labels, which should be as many.
        labels: usize,
        /// Users, which should be as many or none.
        users: usize,
    },
    /// The held-out rows are all of one label, so that nothing can be judged.
    #[error("the held-out rows, or all draws of them, are of one label; an evaluation needs both")]
    OneLabel,
    /// The versions take other rows.
    #[error(
        "{against} takes the features {found}; the held-out rows of {version} are of {expected}, and cannot be scored by both"
    )]
    Features {
        /// The version.
        version: String,
        /// The features of its rows.
        expected: String,
        /// The one that it was to be held against.
        against: String,
        /// The features that this one takes.
        found: String,
    },
    /// A version's files do not work.
    #[error("{version}")]
    Check {
        /// The version.
        version: String,
        /// What is wrong with them.
        #[source]
        source: CheckError,
    },
    /// What is known of a version's training rows.
    #[error("{version}")]
    Reference {
        /// The version.
        version: String,
        /// What is wrong with it.
        #[source]
        source: ReferenceError,
    },
    /// The report cannot be written.
    #[error("{file}: cannot be written")]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// From which score on a row is called positive, between 0 and 1.
    pub threshold: f32,
    /// How the difference between two versions is told from chance.
    pub bootstrap: Bootstrap,
    /// What goes into the report as the time when it was made.
    pub now: OffsetDateTime,
}

impl EvaluateOptions {
    /// A threshold of 0.5 and 1,000 draws.
    pub fn new(now: OffsetDateTime) -> Self {
        const DRAWS: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");
        Self { threshold: 0.5, bootstrap: Bootstrap { resamples: DRAWS, seed: 7 }, now }
    }
}

/// Evaluates the version of `artifact` on its held-out rows, and the version in the folder `against` on the same ones.
pub fn evaluate(
    artifact: &Artifact,
    against: Option<&Path>,
    options: &EvaluateOptions,
    runtime: &OnnxRuntime,
) -> Result<Report, EvaluateError> {
    let Artifact { holdout, .. } = artifact;
    check_holdout(holdout)?;
    let mut version = Examined::open(Subject::of_artifact(artifact), runtime)?;
    let against = against.map(|folder| Examined::open(Subject::read(folder)?, runtime));
    let mut against = against.transpose()?;
    if let Some(against) = &against {
        same_features(&version, against)?;
    }
    let scores = version.score(holdout)?;
    let others = against.as_mut().map(|against| against.score(holdout)).transpose()?;
    let comparison = others.as_ref().map(|others| compare(holdout, [&scores, others], options));
    let comparison = comparison.transpose()?;
    let overlap = against.as_ref().and_then(|against| version.overlap(against));
    let version = version.report(holdout, &scores, options, runtime)?;
    let against = against.zip(others);
    let against = against.map(|(against, others)| against.report(holdout, &others, options, runtime));
    let against = against.transpose()?;
    let mut notes: Vec<String> = overlap.into_iter().collect();
    notes.extend([Some(&version), against.as_ref()].into_iter().flatten().flat_map(remarks));
    let positives = holdout.label.iter().filter(|&&label| label).count();
    let users = holdout.user.iter().collect::<HashSet<_>>().len();
    Ok(Report {
        made_at: calendar::format(options.now.unix_timestamp()),
        rows: holdout.label.len(),
        positives,
        positive_share: positives as f64 / holdout.label.len().max(1) as f64,
        users: (users > 0).then_some(users),
        threshold: options.threshold,
        notes,
        version,
        against,
        comparison,
    })
}

/// Writes the report for people to `html` and the one for programs to `json`.
pub fn write(report: &Report, html: &Path, json: &Path) -> Result<(), EvaluateError> {
    let write = |file: &Path, text: &str| {
        let written = whole_file::write(file, |mut out| out.write_all(text.as_bytes()));
        written.map_err(|source| EvaluateError::Write { file: file.into(), source })
    };
    let text = serde_json::to_string_pretty(report).map_err(io::Error::from);
    let text = text.map_err(|source| EvaluateError::Write { file: json.into(), source })?;
    write(html, &page::page(report))?;
    write(json, &(text + "\n"))
}

/// A version whose files are open.
struct Examined {
    subject: Subject,
    opened: Opened,
}

impl Examined {
    fn open(subject: Subject, runtime: &OnnxRuntime) -> Result<Self, EvaluateError> {
        let opened = Opened::open(runtime, &subject.folder);
        let opened =
            opened.map_err(|source| EvaluateError::Check { version: subject.name.clone(), source })?;
        Ok(Self { subject, opened })
    }

    fn score(&mut self, holdout: &Holdout) -> Result<Vec<f32>, EvaluateError> {
        self.opened.score(holdout).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: impl Into<CheckError>) -> EvaluateError {
        EvaluateError::Check { version: self.subject.name.clone(), source: source.into() }
    }

    /// What makes a comparison with `against` unfair: it may have seen the held-out rows.
    fn overlap(&self, against: &Self) -> Option<String> {
        let [ends, other_ends] = [&self.subject, &against.subject].map(|subject| subject.lineage.as_ref());
        let (ends, other_ends) = (&ends?.to, &other_ends?.to);
        // Times are written so that they sort as text; a table has none.
        (!ends.is_empty() && other_ends > ends).then(|| {
            format!(
                "{} was trained on rows up to {other_ends}, {} up to {ends}: the former may have seen some of the held-out \
                 rows in training, which flatters it.",
                against.subject.name, self.subject.name
            )
        })
    }

    fn report(
        mut self,
        holdout: &Holdout,
        scores: &[f32],
        options: &EvaluateOptions,
        runtime: &OnnxRuntime,
    ) -> Result<VersionReport, EvaluateError> {
        let files = self.subject.files()?;
        let Opened { encoder, .. } = &self.opened;
        let reference = reference::read(&self.subject.folder, encoder)
            .map_err(|source| EvaluateError::Reference { version: self.subject.name.clone(), source })?;
        let drift = reference.as_ref().map(|reference| Drift::of(reference, encoder, holdout, scores));
        let drift = drift.transpose().map_err(|error: SchemaError| self.failed(error))?;
        let unknown_ids = drift::unknown_ids(reference.as_ref(), encoder, holdout);
        let rows = holdout.encode(encoder).map_err(|error| self.failed(error))?;
        let latency = stopwatch::measure(runtime, &mut self.opened.engine, &rows);
        let latency = latency.map_err(|error: EngineError| self.failed(error))?;
        let found = Scored::of(scores, &holdout.label, options.threshold);
        let Scored { figures, confusion, reliability, histogram, roc } =
            found.ok_or(EvaluateError::OneLabel)?;
        let Subject { name, kind, metrics, lineage, .. } = self.subject;
        Ok(VersionReport {
            name,
            kind,
            figures,
            confusion,
            reliability,
            histogram,
            roc,
            ranking: Ranking::among(&metrics),
            drift,
            unknown_ids,
            latency,
            files,
            lineage,
        })
    }
}

fn check_holdout(holdout: &Holdout) -> Result<(), EvaluateError> {
    let (rows, labels, users) = (holdout.input.len(), holdout.label.len(), holdout.user.len());
    if rows != labels || ![0, rows].contains(&users) {
        return Err(EvaluateError::Holdout { rows, labels, users });
    }
    let is_of_both = holdout.label.contains(&true) && holdout.label.contains(&false);
    if is_of_both { Ok(()) } else { Err(EvaluateError::OneLabel) }
}

fn same_features(version: &Examined, against: &Examined) -> Result<(), EvaluateError> {
    let sent =
        |encoder: &Encoder| encoder.sent().map(|feature| feature.name.clone()).collect::<Vec<_>>().join(", ");
    let (expected, found) = (sent(&version.opened.encoder), sent(&against.opened.encoder));
    if expected == found {
        return Ok(());
    }
    let name = |examined: &Examined| examined.subject.name.clone();
    Err(EvaluateError::Features { version: name(version), expected, against: name(against), found })
}

fn compare(
    holdout: &Holdout,
    scores: [&[f32]; 2],
    options: &EvaluateOptions,
) -> Result<Comparison, EvaluateError> {
    let Holdout { label, user, .. } = holdout;
    let rows = PairedRows { labels: label, users: user, scores, threshold: options.threshold };
    options.bootstrap.compare(&rows).ok_or(EvaluateError::OneLabel)
}

/// What a reader should know of one version's figures.
fn remarks(version: &VersionReport) -> impl Iterator<Item = String> {
    let name = &version.name;
    let stolen = version.latency.steal_share.and_then(|share| stolen(name, share));
    let unreferred = version.drift.is_none().then(|| {
        format!("{name} has no reference.json, so nothing is known of how far the held-out rows lie from its training rows.")
    });
    [stolen, unreferred].into_iter().flatten()
}

fn stolen(name: &str, share: f64) -> Option<String> {
    let percent = share * 100.0;
    (share > MOST_STEAL).then(|| {
        format!(
            "while {name} was timed, other machines took {percent:.1} % of this one's time: its latency is not what it \
             could be."
        )
    })
}

/// The share of stolen time above which a latency is not to be trusted.
const MOST_STEAL: f64 = 0.02;

#[cfg(test)]
mod tests {
    use millrace::features::Value;

    use super::*;

    #[test]
    fn stolen_time_is_said_where_it_is_more_than_two_per_cent() {
        assert_eq!(stolen("shop version 3", 0.02), None);
        let said = stolen("shop version 3", 0.034).expect("too much");
        assert!(said.starts_with("while shop version 3 was timed, other machines took 3.4 %"), "{said}");
    }

    #[test]
    fn held_out_rows_need_labels_of_both_kinds_and_users_for_all_or_none() {
        let holdout = |label: &[bool], users: usize| Holdout {
            input: vec![vec![Value::Int(1)]; 2],
            label: label.to_vec(),
            user: vec![7; users],
        };
        assert!(check_holdout(&holdout(&[true, false], 0)).is_ok());
        assert!(check_holdout(&holdout(&[true, false], 2)).is_ok());
        assert!(matches!(check_holdout(&holdout(&[true, true], 2)), Err(EvaluateError::OneLabel)));
        for odd in [holdout(&[true, false], 1), holdout(&[true], 0)] {
            assert!(matches!(check_holdout(&odd), Err(EvaluateError::Holdout { rows: 2, .. })));
        }
        assert!(matches!(check_holdout(&Holdout::default()), Err(EvaluateError::OneLabel)));
    }
}
