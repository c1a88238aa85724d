//! Puts a trained version into the model repository, if the gates let it.
//!
//! The gates judge the files that will be served, not what training said of them: both the candidate and the live
//! version score the held-out rows through ONNX Runtime. The repository is not written to before they have passed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use millrace::{
    engine::OnnxRuntime,
    quality,
    repository::{
        Layout, ModelName, VersionNumber,
        golden::{Golden, GoldenError},
        manifest::{Manifest, ManifestError},
    },
};
use time::OffsetDateTime;

use crate::{
    artifact::{Artifact, Holdout},
    check::{CheckError, Opened},
    config::{GatesConfig, PublishConfig},
    evaluate::RowFigures,
    gate::{self, Live, LiveAuc, Verdict},
};

/// Why nothing was published, apart from the gates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The candidate's files do not work.
    #[error("the trained version")]
    Check(#[from] CheckError),
    /// The candidate's golden rows are missing or not answered.
    #[error("the trained version")]
    Golden(#[from] GoldenError),
    /// The held-out rows are all of one label, so that nothing can be judged.
    #[error("the held-out rows need both labels")]
    OneLabel,
    /// The repository cannot be read or written.
    #[error("the model repository")]
    Repository(#[from] io::Error),
    /// Another publisher is at work.
    #[error("another publisher of `{0}` is at work")]
    Busy(ModelName),
    /// The version that the gates compared with is not the last one any more.
    #[error("another version of `{0}` was published while this one was judged; publish again")]
    Overtaken(ModelName),
    /// The files cannot be recorded.
    #[error("the manifest")]
    Manifest(#[from] ManifestError),
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// What each gate said.
    pub verdicts: Vec<Verdict>,
    /// The version and its folder; `None` where a gate refused.
    pub published: Option<(VersionNumber, PathBuf)>,
}

/// Judges `artifact` and publishes it as the version after the last one. `now` goes into the manifest.
pub fn publish(
    artifact: &Artifact,
    config: &PublishConfig,
    gates: &GatesConfig,
    runtime: &OnnxRuntime,
    now: OffsetDateTime,
) -> Result<Publication, PublishError> {
    let layout = Layout::new(&config.repository);
    let last = layout.versions(&config.model)?.last().copied();
    let figures = candidate_figures(artifact, runtime)?;
    let live = last.map(|version| live(&layout, config, version, &artifact.holdout, runtime));
    let verdicts = gate::judge(gates, &figures, live.as_ref());
    if verdicts.iter().any(|verdict| !verdict.passed) {
        return Ok(Publication { verdicts, published: None });
    }
    let version = last.map_or(VersionNumber::FIRST, VersionNumber::next);
    let stage = layout.stage(&config.model).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => PublishError::Busy(config.model.clone()),
        _ => PublishError::Repository(error),
    })?;
    if layout.versions(&config.model)?.last().copied() != last {
        return Err(PublishError::Overtaken(config.model.clone()));
    }
    fill(stage.path(), artifact, config, (version, last), runtime, now)?;
    let folder = layout.publish(&config.model, version, stage)?;
    Ok(Publication { verdicts, published: Some((version, folder)) })
}

fn candidate_figures(artifact: &Artifact, runtime: &OnnxRuntime) -> Result<RowFigures, PublishError> {
    let version = artifact.version();
    let mut candidate = Opened::open(runtime, &version)?;
    let golden = Golden::read(&version)?;
    let rows = golden.encode(&candidate.encoder)?;
    golden.check(&mut candidate.engine, &rows)?;
    let scores = candidate.score(&artifact.holdout)?;
    RowFigures::of(&scores, &artifact.holdout.label).ok_or(PublishError::OneLabel)
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

/// Fills the stage with the version's files and its manifest. `versions` are the new one and the one before it.
fn fill(
    stage: &Path,
    artifact: &Artifact,
    config: &PublishConfig,
    (version, parent): (VersionNumber, Option<VersionNumber>),
    runtime: &OnnxRuntime,
    now: OffsetDateTime,
) -> Result<(), PublishError> {
    copy(&artifact.version(), stage)?;
    let opened = Opened::open(runtime, stage)?;
    let manifest = Manifest {
        model: config.model.clone(),
        version,
        kind: artifact.summary.kind.clone(),
        created: now,
        parent,
        signature: opened.encoder.signature().clone(),
        metrics: artifact.summary.metrics.clone(),
        lineage: artifact.summary.lineage.clone(),
        files: Manifest::record_files(stage)?,
    };
    Ok(manifest.write(stage)?)
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
