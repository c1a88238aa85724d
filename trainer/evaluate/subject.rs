//! What is evaluated: the version of an artifact, or one of a model repository; its files, and what is known of it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use millrace::repository::manifest::{Lineage, Manifest};

use super::{EvaluateError, report::FileSize};
use crate::artifact::{Artifact, Summary, VERSION};

/// A version and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subject {
    /// What it is called.
    pub(super) name: String,
    /// The folder of its files.
    pub(super) folder: PathBuf,
    /// What computes it.
    pub(super) kind: Option<String>,
    /// Figures of its training.
    pub(super) metrics: BTreeMap<String, f64>,
    /// What it was trained on and with.
    pub(super) lineage: Option<Lineage>,
}

impl Subject {
    /// The version of an artifact.
    pub(super) fn of_artifact(artifact: &Artifact) -> Self {
        Self::of_summary(&artifact.folder, artifact.summary.clone())
    }

    /// What is in `folder`: an artifact, or a version of a model repository.
    pub(super) fn read(folder: &Path) -> Result<Self, EvaluateError> {
        if folder.join(VERSION).is_dir() {
            return Ok(Self::of_summary(folder, Summary::read(folder)?));
        }
        let manifest = match fs::read_to_string(folder.join(Manifest::FILE)) {
            Ok(text) => toml::from_str::<Manifest>(&text).map_err(|source| EvaluateError::Manifest {
                folder: folder.into(),
                source: Box::new(source),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(EvaluateError::Neither(folder.into()));
            }
            Err(source) => return Err(EvaluateError::Read { file: folder.join(Manifest::FILE), source }),
        };
        Ok(Self {
            name: format!("{} version {}", manifest.model, manifest.version),
            folder: folder.into(),
            kind: Some(manifest.kind),
            metrics: manifest.metrics,
            lineage: Some(manifest.lineage),
        })
    }

    fn of_summary(folder: &Path, summary: Summary) -> Self {
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        Self {
            name: format!("artifact {name}"),
            folder: folder.join(VERSION),
            kind: Some(summary.kind),
            metrics: summary.metrics,
            lineage: Some(summary.lineage),
        }
    }

    /// The size of each of its files.
    pub(super) fn files(&self) -> Result<Vec<FileSize>, EvaluateError> {
        let mut found = Vec::new();
        list(&self.folder, "", &mut found)
            .map_err(|source| EvaluateError::Read { file: self.folder.clone(), source })?;
        found.sort_unstable_by(|one, other| one.file.cmp(&other.file));
        Ok(found)
    }
}

fn list(folder: &Path, prefix: &str, found: &mut Vec<FileSize>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{file}/"), found)?;
        } else {
            found.push(FileSize { file, bytes: entry.metadata()?.len() });
        }
    }
    Ok(())
}
