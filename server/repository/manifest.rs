//! What a version says of itself in `manifest.toml`: what it is, which files it is made of, where it comes from and
//! how good it was before it was published.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{ModelName, VersionNumber};
use crate::tensor::Signature;

/// Why a manifest, or the files that it names, were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file is missing or unreadable.
    #[error("{file}: cannot be read")]
    Read {
        /// The file, relative to the version's folder.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `manifest.toml` is not what this version of the program reads.
    #[error("manifest.toml: {0}")]
    Syntax(#[source] Box<toml::de::Error>),
    /// The manifest belongs to another folder.
    #[error("manifest.toml is of {model} version {version}")]
    Misplaced {
        /// The model it names.
        model: ModelName,
        /// The version it names.
        version: VersionNumber,
    },
    /// A file that the manifest does not list.
    #[error("{0}: is not in the manifest")]
    Unlisted(String),
    /// A path that leaves the version's folder, or is no regular file.
    #[error("{0}: not a regular file inside the version")]
    Outside(String),
    /// A file is not the one that was published.
    #[error("{file}: its {what} is not the manifest's")]
    Changed {
        /// The file, relative to the version's folder.
        file: String,
        /// What differs: `size` or `SHA-256`.
        what: &'static str,
    },
}

/// The contents of `manifest.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: VersionNumber,
    /// What computes it, for people: `wide_and_deep`, `dcn_v2` or `two_tower`, say.
    pub kind: String,
    /// When it was published.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// The version that was live when this one was trained, whose metrics it was held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<VersionNumber>,
    /// Inputs and output of the model.
    pub signature: Signature,
    /// Measures on rows that the training never saw, by name: `accuracy`, `auc`, `log_loss`, ...
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// What it was trained on and with.
    #[serde(default)]
    pub lineage: Lineage,
    /// Every file of the version but the manifest, by its path relative to the version's folder.
    pub files: BTreeMap<String, FileRecord>,
}

/// What a version was trained on and with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// The training log's file name.
    pub source: String,
    /// The training log's SHA-256, in hex.
    pub source_sha256: String,
    /// Rows of the log that were trained on.
    pub rows: u64,
    /// The time of the first row, as the log writes it.
    pub from: String,
    /// The time of the last row, as the log writes it.
    pub to: String,
    /// The seed of all randomness.
    pub seed: u64,
    /// The trainer's git revision.
    pub revision: String,
    /// The versions of the libraries that decide a model's numbers, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub libraries: BTreeMap<String, String>,
}

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

impl Manifest {
    /// The manifest's file name.
    pub const FILE: &str = "manifest.toml";
    /// The model's file name.
    pub const MODEL: &str = "model.onnx";
    /// The folder of the feature schema.
    pub const FEATURES: &str = "features";

    /// Reads the manifest of `version` of `model` from the version's folder.
    pub fn read(folder: &Path, model: &ModelName, version: VersionNumber) -> Result<Self, ManifestError> {
        let path = regular(folder, Self::FILE)?;
        let text = fs::read_to_string(path).map_err(|source| read_error(Self::FILE, source))?;
        let manifest: Self = toml::from_str(&text).map_err(|error| ManifestError::Syntax(Box::new(error)))?;
        if manifest.model != *model || manifest.version != version {
            return Err(ManifestError::Misplaced { model: manifest.model, version: manifest.version });
        }
        Ok(manifest)
    }

    /// Writes the manifest into the version's folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        fs::write(folder.join(Self::FILE), text)
    }

    /// Records every file below `folder` but the manifest itself.
    pub fn record_files(folder: &Path) -> Result<BTreeMap<String, FileRecord>, ManifestError> {
        let mut found = Vec::new();
        list(folder, "", &mut found)?;
        let files = found.into_iter().filter(|file| file != Self::FILE);
        files.map(|file| Ok((file.clone(), digest(folder, &file, &mut || ())?))).collect()
    }

    /// Checks that every file is there, regular, inside the folder, and byte for byte the one that was published, and
    /// that there is no other: what the manifest does not list, nobody vouches for.
    pub fn verify(&self, folder: &Path) -> Result<(), ManifestError> {
        self.verify_in_pieces(folder, || ())
    }

    /// The same, with a call of `between` after each piece that was read.
    pub(super) fn verify_in_pieces(
        &self,
        folder: &Path,
        mut between: impl FnMut(),
    ) -> Result<(), ManifestError> {
        for (file, expected) in &self.files {
            let found = digest(folder, file, &mut between)?;
            let changed = |what| Err(ManifestError::Changed { file: file.clone(), what });
            if found.bytes != expected.bytes {
                return changed("size");
            }
            if found.sha256 != expected.sha256 {
                return changed("SHA-256");
            }
        }
        let mut found = Vec::new();
        list(folder, "", &mut found)?;
        match found.into_iter().find(|file| file != Self::FILE && !self.files.contains_key(file)) {
            Some(file) => Err(ManifestError::Unlisted(file)),
            None => Ok(()),
        }
    }
}

/// The files below `folder`, each by its path relative to it; `prefix` is where to start.
fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<(), ManifestError> {
    let error = |source| read_error(prefix, source);
    for entry in fs::read_dir(folder.join(prefix)).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| ManifestError::Outside(name.to_string_lossy().into_owned()))?;
        let file = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        if entry.file_type().map_err(error)?.is_dir() {
            list(folder, &file, files)?;
        } else {
            files.push(file);
        }
    }
    Ok(())
}

/// The path of `file` inside `folder`, where it is a regular file. A symbolic link is refused, wherever it leads: what it
/// leads to can be exchanged after the check. So is what could keep a reader waiting for ever, as a pipe does.
fn regular(folder: &Path, file: &str) -> Result<PathBuf, ManifestError> {
    let mut path = folder.to_path_buf();
    let mut is_file = false;
    for component in Path::new(file).components() {
        let Component::Normal(name) = component else { return Err(ManifestError::Outside(file.to_owned())) };
        path.push(name);
        let kind = fs::symlink_metadata(&path).map_err(|source| read_error(file, source))?.file_type();
        if kind.is_symlink() {
            return Err(ManifestError::Outside(file.to_owned()));
        }
        is_file = kind.is_file();
    }
    if is_file { Ok(path) } else { Err(ManifestError::Outside(file.to_owned())) }
}

/// Size and hash of a regular file inside `folder`, piece by piece with `between` after each.
fn digest(folder: &Path, file: &str, between: &mut impl FnMut()) -> Result<FileRecord, ManifestError> {
    let path = regular(folder, file)?;
    let mut read = || {
        let mut file = File::open(&path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => break Ok((file.metadata()?, hasher)),
                read => hasher.update(&buffer[..read]),
            }
            between();
        }
    };
    let (metadata, hasher) = read().map_err(|source| read_error(file, source))?;
    Ok(FileRecord { bytes: metadata.len(), sha256: hex(&hasher.finalize()) })
}

/// Bytes read at once: as many as a core with SHA instructions hashes in less than a tenth of a millisecond.
const PIECE_BYTES: usize = 128 << 10;

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn read_error(file: &str, source: io::Error) -> ManifestError {
    ManifestError::Read { file: file.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::tensor::{DType, TensorSpec};

    fn published() -> (tempfile::TempDir, Manifest) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("features")).expect("made");
        fs::write(folder.path().join("model.onnx"), "weights").expect("written");
        fs::write(folder.path().join("features/schema.toml"), "schema").expect("written");
        let manifest = Manifest {
            model: "shop".parse().expect("a name"),
            version: VersionNumber::FIRST,
            kind: "wide_and_deep".into(),
            created: OffsetDateTime::UNIX_EPOCH,
            parent: None,
            signature: Signature {
                inputs: vec![TensorSpec { name: "ids".into(), dtype: DType::I32, width: 2 }],
                output: "probability".into(),
            },
            metrics: BTreeMap::from([("auc".into(), 0.9)]),
            lineage: Lineage::default(),
            files: Manifest::record_files(folder.path()).expect("recorded"),
        };
        manifest.write(folder.path()).expect("written");
        (folder, manifest)
    }

    fn reread(folder: &Path) -> Result<Manifest, ManifestError> {
        Manifest::read(folder, &"shop".parse().expect("a name"), VersionNumber::FIRST)
    }

    #[test]
    fn what_is_written_is_read_and_verified() {
        let (folder, manifest) = published();
        assert_eq!(reread(folder.path()).expect("read"), manifest);
        assert_eq!(manifest.files.keys().collect::<Vec<_>>(), ["features/schema.toml", "model.onnx"]);
        manifest.verify(folder.path()).expect("unchanged");
    }

    #[test]
    fn a_changed_or_missing_file_is_named() {
        let (folder, manifest) = published();
        fs::write(folder.path().join("model.onnx"), "weightz").expect("written");
        let error = manifest.verify(folder.path()).expect_err("changed").to_string();
        assert_eq!(error, "model.onnx: its SHA-256 is not the manifest's");
        fs::write(folder.path().join("model.onnx"), "w").expect("written");
        let error = manifest.verify(folder.path()).expect_err("cut").to_string();
        assert_eq!(error, "model.onnx: its size is not the manifest's");
        fs::remove_file(folder.path().join("model.onnx")).expect("removed");
        assert!(matches!(manifest.verify(folder.path()), Err(ManifestError::Read { .. })));
    }

    #[test]
    fn a_file_that_the_manifest_does_not_list_is_named() {
        let (folder, manifest) = published();
        fs::write(folder.path().join("features/item_id.vocabulary"), "1").expect("written");
        let error = manifest.verify(folder.path()).expect_err("one too many").to_string();
        assert_eq!(error, "features/item_id.vocabulary: is not in the manifest");
    }

    #[test]
    fn a_file_outside_the_folder_or_behind_a_link_is_refused() {
        let (folder, mut manifest) = published();
        let model = folder.path().join("model.onnx");
        fs::rename(&model, folder.path().join("elsewhere")).expect("moved");
        symlink(folder.path().join("elsewhere"), &model).expect("linked");
        assert!(matches!(manifest.verify(folder.path()), Err(ManifestError::Outside(_))));
        for path in ["../escape", "/etc/hostname", "features/../../escape"] {
            let record = FileRecord { bytes: 0, sha256: String::new() };
            manifest.files = BTreeMap::from([(path.to_owned(), record)]);
            assert!(matches!(manifest.verify(folder.path()), Err(ManifestError::Outside(_))), "{path}");
        }
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let (folder, manifest) = published();
        let model = folder.path().join("model.onnx");
        fs::remove_file(&model).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(&model).status();
        assert!(made.expect("mkfifo is there").success());
        assert!(matches!(manifest.verify(folder.path()), Err(ManifestError::Outside(_))));
    }

    #[test]
    fn a_manifest_in_the_wrong_folder_is_refused() {
        let (folder, _) = published();
        let version = VersionNumber::FIRST.next();
        let error = Manifest::read(folder.path(), &"shop".parse().expect("a name"), version);
        assert_eq!(error.expect_err("misplaced").to_string(), "manifest.toml is of shop version 1");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let (folder, _) = published();
        let path = folder.path().join(Manifest::FILE);
        let text = fs::read_to_string(&path).expect("there");
        fs::write(&path, format!("surprise = 1\n{text}")).expect("written");
        assert!(reread(folder.path()).expect_err("refused").to_string().contains("surprise"));
    }
}
