//! Puts a trained version into the model repository, if the gates let it.
//!
//! The gates judge the files that will be served, not what training said of them: both the candidate and the live
//! version score the held-out rows through ONNX Runtime. The repository is not written to before they have passed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use millrace::{
    engine::OnnxRuntime,
    features::Encoder,
    quality,
    repository::{
        Layout, ModelName, VersionNumber,
        golden::{Golden, GoldenError},
        manifest::{FileRecord, Manifest, ManifestError},
    },
};
use time::OffsetDateTime;

use crate::{
    artifact::{self, Artifact, Holdout},
    check::{CheckError, Opened},
    config::{GatesConfig, PublishConfig},
    evaluate::{RowFigures, stopwatch},
    gate::{self, Candidate, Live, LiveAuc, Verdict},
};

/// Why nothing was published, apart from the gates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The candidate's files do not work.
    #[error("the trained version")]
    Check(#[from] CheckError),
    /// The held-out rows are all of one label, so that nothing can be judged.
    #[error("the held-out rows need both labels")]
    OneLabel,
    /// The repository cannot be read or written.
    #[error("the model repository {folder}: cannot be read or written")]
    Repository {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another publisher is at work.
    #[error("another publisher of `{0}` is at work")]
    Busy(ModelName),
    /// The version that the gates compared with is not the last one any more.
    #[error("another version of `{0}` was published while this one was judged; publish again")]
    Overtaken(ModelName),
    /// What would be published is not what was judged.
    #[error("the trained version changed while it was judged")]
    Changed,
    /// The files cannot be recorded.
    #[error("the manifest")]
    Manifest(#[from] ManifestError),
}

/// What the gates say of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What each gate said.
    pub verdicts: Vec<Verdict>,
    /// The live version that it was compared with.
    live: Option<VersionNumber>,
    /// The files that were judged.
    files: BTreeMap<String, FileRecord>,
}

impl Judgement {
    /// Whether every gate lets the candidate pass.
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.passed)
    }
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// What each gate said.
    pub verdicts: Vec<Verdict>,
    /// The version and its folder; `None` where a gate refused.
    pub published: Option<(VersionNumber, PathBuf)>,
}

/// Judges `artifact` beside the last version. Nothing is written.
pub fn judge(
    artifact: &Artifact,
    config: &PublishConfig,
    gates: &GatesConfig,
    runtime: &OnnxRuntime,
) -> Result<Judgement, PublishError> {
    let layout = Layout::new(&config.repository);
    let last = layout.versions(&config.model).map_err(failed(config))?.last().copied();
    let files = Manifest::record_files(&artifact.version())?;
    let candidate = candidate(artifact, &files, runtime)?;
    let live = last.map(|version| live(&layout, config, version, &artifact.holdout, runtime));
    Ok(Judgement { verdicts: gate::judge(gates, &candidate, live.as_ref()), live: last, files })
}

/// Publishes `artifact` as the version after the last one, as it was judged. `now` goes into the manifest.
pub fn publish(
    artifact: &Artifact,
    config: &PublishConfig,
    judgement: Judgement,
    now: OffsetDateTime,
) -> Result<Publication, PublishError> {
    let layout = Layout::new(&config.repository);
    let passed = judgement.passed();
    let Judgement { verdicts, live: last, files } = judgement;
    if !passed {
        return Ok(Publication { verdicts, published: None });
    }
    let version = last.map_or(VersionNumber::FIRST, VersionNumber::next);
    let stage = layout.stage(&config.model).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => PublishError::Busy(config.model.clone()),
        _ => failed(config)(error),
    })?;
    if layout.versions(&config.model).map_err(failed(config))?.last().copied() != last {
        return Err(PublishError::Overtaken(config.model.clone()));
    }
    copy(&artifact.version(), stage.path()).map_err(failed(config))?;
    if let Some(last) = last {
        share(&layout, config, last, stage.path(), &files).map_err(failed(config))?;
    }
    if Manifest::record_files(stage.path())? != files {
        return Err(PublishError::Changed);
    }
    describe(stage.path(), artifact, config, (version, last), files, now)?;
    let folder = layout.publish(&config.model, version, stage).map_err(failed(config))?;
    Ok(Publication { verdicts, published: Some((version, folder)) })
}

/// Makes files one with those of the version before that hold the same bytes: tables that a training has left as
/// they were are then once on the disk, and once in memory while both versions are mapped.
fn share(
    layout: &Layout,
    config: &PublishConfig,
    before: VersionNumber,
    stage: &Path,
    files: &BTreeMap<String, FileRecord>,
) -> io::Result<()> {
    let folder = layout.version(&config.model, before);
    let listed =
        Manifest::read(&folder, &config.model, before).map_or_else(|_| BTreeMap::new(), |read| read.files);
    let alike =
        |(file, record): &(&String, &FileRecord)| record.bytes >= PAGE && listed.get(*file) == Some(record);
    let alike: Vec<_> = files.iter().filter(alike).collect();
    if alike.is_empty() {
        return Ok(());
    }
    // A file that was damaged since is not handed on. Where it cannot be read, or there are no links on this file system,
    // the copy is as good.
    let there = Manifest::record_files(&folder).unwrap_or_default();
    for (file, record) in alike {
        let link = stage.join(LINK);
        if there.get(file) == Some(record) && fs::hard_link(folder.join(file), &link).is_ok() {
            fs::rename(&link, stage.join(file))?;
        }
    }
    Ok(())
}

/// Bytes that are worth being shared: a page of memory.
const PAGE: u64 = 4_096;

/// A link before it takes the place of the copy.
const LINK: &str = ".link";

/// Fails where the repository cannot be written to. Nothing is left behind, not even a folder.
pub fn check_repository(config: &PublishConfig) -> Result<(), PublishError> {
    let folder =
        std::path::absolute(config.repository.join(config.model.as_str())).map_err(failed(config))?;
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(&folder);
    tempfile::tempfile_in(there).map(drop).map_err(failed(config))
}

fn failed(config: &PublishConfig) -> impl FnOnce(io::Error) -> PublishError + use<> {
    let folder = config.repository.clone();
    |source| PublishError::Repository { folder, source }
}

fn candidate(
    artifact: &Artifact,
    files: &BTreeMap<String, FileRecord>,
    runtime: &OnnxRuntime,
) -> Result<Candidate, PublishError> {
    let version = artifact.version();
    let mut opened = Opened::open(runtime, &version)?;
    let golden = golden(&mut opened, &version).map_err(|error| chain(&error));
    let rows = artifact.holdout.encode(&opened.encoder).map_err(CheckError::from)?;
    let scores = artifact::score(&mut opened.engine, &rows).map_err(CheckError::from)?;
    let figures = RowFigures::of(&scores, &artifact.holdout.label).ok_or(PublishError::OneLabel)?;
    let latency = stopwatch::measure_size(&mut opened.engine, &rows, gate::LATENCY_ROWS, LATENCY_RUNS);
    let latency_ms = latency.map_err(CheckError::from)?.p99_us / 1e3;
    let bytes = files.values().map(|file| file.bytes).sum();
    Ok(Candidate { figures, golden, latency_ms, bytes })
}

/// The number of golden rows that the version answers.
fn golden(opened: &mut Opened, version: &Path) -> Result<usize, GoldenError> {
    let golden = Golden::read(version)?;
    let rows = golden.encode(&opened.encoder)?;
    golden.check(&mut opened.engine, &rows)?;
    Ok(rows.len())
}

/// The live version's AUC on the held-out rows, or else by its manifest.
fn live(
    layout: &Layout,
    config: &PublishConfig,
    version: VersionNumber,
    holdout: &Holdout,
    runtime: &OnnxRuntime,
) -> Live {
    let folder = layout.version(&config.model, version);
    let scores = Opened::open(runtime, &folder).and_then(|mut live| live.score(holdout));
    let auc = match scores {
        Ok(scores) => quality::auc(&scores, &holdout.label).ok_or("one label alone".to_owned()),
        Err(error) => Err(chain(&error)),
    };
    let declared = || Manifest::read(&folder, &config.model, version).ok()?.metrics.get("auc").copied();
    let auc = match auc {
        Ok(auc) => LiveAuc::SameRows(auc),
        Err(why) => match declared() {
            Some(auc) => LiveAuc::Manifest { auc, why },
            None => LiveAuc::Unknown { why },
        },
    };
    Live { version, auc }
}

/// The error and what it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Writes the manifest of the version's `files` in the stage. `versions` are the new one and the one before it.
fn describe(
    stage: &Path,
    artifact: &Artifact,
    config: &PublishConfig,
    (version, parent): (VersionNumber, Option<VersionNumber>),
    files: BTreeMap<String, FileRecord>,
    now: OffsetDateTime,
) -> Result<(), PublishError> {
    let encoder = Encoder::read(&stage.join(Manifest::FEATURES)).map_err(CheckError::from)?;
    let manifest = Manifest {
        model: config.model.clone(),
        version,
        kind: artifact.summary.kind.clone(),
        created: now,
        parent,
        signature: encoder.signature().clone(),
        metrics: artifact.summary.metrics.clone(),
        lineage: artifact.summary.lineage.clone(),
        files,
    };
    manifest.write(stage).map_err(failed(config))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Batches that are timed: enough for the slowest in a hundred to be more than one.
const LATENCY_RUNS: usize = 500;
