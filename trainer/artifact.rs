//! What `train` leaves behind for `publish`: a folder that holds the files of a version, what is known of them, and
//! the held-out rows, so that the gates can be asked later and again, on the same rows as the live version.
//!
//! ```text
//! <artifact>/summary.json      figures, lineage, epochs
//! <artifact>/holdout.json      raw rows and labels that training never saw
//! <artifact>/version/          model.onnx, features/, golden.json, reference.json, model.fp16.onnx where it was asked
//!                              for: what a version's folder will hold
//! <artifact>/report.html       what `evaluate` found, for people
//! <artifact>/report.json       the same for programs
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use millrace::{
    engine::{Engine, EngineError},
    features::{Encoder, FeatureError, Value},
    repository::{manifest::Lineage, sync, sync_folder},
    tensor::Rows,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{checkpoint, whole_file};

/// Why an artifact cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{file}: cannot be read or written")]
pub struct ArtifactError {
    /// The file, or the folder.
    pub file: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A trained version that is not published yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// The folder.
    pub folder: PathBuf,
    /// What is known of it.
    pub summary: Summary,
    /// The rows that it is judged on.
    pub holdout: Holdout,
}

/// What is known of a trained version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// What the model is: `wide_and_deep`, `dcn_v2` or `two_tower`.
    pub kind: String,
    /// Figures on rows that the training never saw, by name.
    pub metrics: BTreeMap<String, f64>,
    /// What it was trained on and with.
    pub lineage: Lineage,
    /// Passes over the examples.
    pub epochs: usize,
}

/// Rows that the training never saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// Positional rows, as requests would send them.
    pub input: Vec<Vec<Value>>,
    /// Whether it happened.
    pub label: Vec<bool>,
    /// Whose row it is, as numbers that tell users apart; empty where there are no users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<u32>,
}

impl Artifact {
    /// The folder of the version's files.
    pub fn version(&self) -> PathBuf {
        self.folder.join(VERSION)
    }

    /// Reads what [`Artifact::write`] wrote.
    pub fn read(folder: &Path) -> Result<Self, ArtifactError> {
        let checkpoint = folder.join(checkpoint::FILE);
        if checkpoint.exists() {
            let source =
                io::Error::other("a training in this folder has not ended; the same command goes on with it");
            return Err(ArtifactError { file: checkpoint, source });
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            summary: Summary::read(folder)?,
            holdout: read(&folder.join(HOLDOUT))?,
        })
    }

    /// Writes everything but the version's files. The summary comes last, and whole or not at all: a folder that has
    /// one holds all that belongs to it.
    pub fn write(&self) -> Result<(), ArtifactError> {
        write(&self.folder.join(HOLDOUT), &self.holdout)?;
        let synced = sync(&self.version());
        synced.map_err(|source| ArtifactError { file: self.version(), source })?;
        write(&self.folder.join(SUMMARY), &self.summary)?;
        sync_folder(&self.folder).map_err(|source| ArtifactError { file: self.folder.clone(), source })
    }
}

impl Summary {
    /// Reads the summary of the artifact in `folder`.
    pub fn read(folder: &Path) -> Result<Self, ArtifactError> {
        read(&folder.join(SUMMARY))
    }
}

impl Holdout {
    /// The rows in the layout of `encoder`'s models.
    pub fn encode(&self, encoder: &Encoder) -> Result<Rows, FeatureError> {
        let mut rows = Rows::new(encoder.signature());
        self.input.iter().try_for_each(|row| encoder.encode(row.iter().map(Value::raw), &mut rows))?;
        Ok(rows)
    }
}

/// The scores of `rows`, batch by batch.
pub fn score(engine: &mut dyn Engine, rows: &Rows) -> Result<Vec<f32>, EngineError> {
    const BATCH_ROWS: usize = 4096;
    let mut batch = Rows::new(engine.signature());
    let mut scores = Vec::with_capacity(rows.len());
    let mut answer = Vec::new();
    for start in (0..rows.len()).step_by(BATCH_ROWS) {
        batch.clear();
        batch.extend_from(rows, start..rows.len().min(start + BATCH_ROWS));
        engine.run(&batch, &mut answer)?;
        scores.append(&mut answer);
    }
    Ok(scores)
}

/// Makes the empty folder of the version's files below `folder`, in place of an earlier one, whose summary goes first.
pub fn prepare(folder: &Path) -> Result<PathBuf, ArtifactError> {
    let (version, summary) = (folder.join(VERSION), folder.join(SUMMARY));
    match fs::remove_file(&summary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(ArtifactError { file: summary, source });
        }
        _ => {}
    }
    let failed = |source| ArtifactError { file: version.clone(), source };
    match fs::remove_dir_all(&version) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => fs::create_dir_all(&version).map_err(failed)?,
    }
    Ok(version)
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T, ArtifactError> {
    let content = fs::read(file).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from));
    content.map_err(|source| ArtifactError { file: file.to_path_buf(), source })
}

fn write<T: Serialize>(file: &Path, content: &T) -> Result<(), ArtifactError> {
    let write = |mut out: &File| out.write_all(&serde_json::to_vec(content)?);
    whole_file::write(file, write).map_err(|source| ArtifactError { file: file.to_path_buf(), source })
}

/// The folder of the version's files, in an artifact's.
pub const VERSION: &str = "version";
/// The report for people.
pub const REPORT_HTML: &str = "report.html";
/// The report for programs.
pub const REPORT_JSON: &str = "report.json";
/// What is known of the version.
pub const SUMMARY: &str = "summary.json";
const HOLDOUT: &str = "holdout.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let artifact = Artifact {
            folder: folder.path().to_path_buf(),
            summary: Summary {
                kind: "dcn_v2".into(),
                metrics: BTreeMap::from([("auc".into(), 0.9)]),
                epochs: 3,
                ..Summary::default()
            },
            holdout: Holdout {
                input: vec![vec![Value::Int(123), Value::Text("x".into())]],
                label: vec![true],
                user: vec![3],
            },
        };
        prepare(folder.path()).expect("made");
        artifact.write().expect("written");
        assert_eq!(Artifact::read(folder.path()).expect("read"), artifact);
    }

    #[test]
    fn a_new_version_starts_empty_and_without_the_old_summary() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder_path = folder.path().to_path_buf();
        let artifact =
            Artifact { folder: folder_path, summary: Summary::default(), holdout: Holdout::default() };
        prepare(folder.path()).expect("made");
        artifact.write().expect("written");
        let version = prepare(folder.path()).expect("made");
        fs::write(version.join("stale"), "from before").expect("written");
        let version = prepare(folder.path()).expect("made again");
        assert_eq!(fs::read_dir(version).expect("a folder").count(), 0);
        Artifact::read(folder.path()).expect_err("no summary, no artifact");
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(Artifact::read(folder.path()).expect_err("absent").to_string().contains("summary.json"));
    }
}
