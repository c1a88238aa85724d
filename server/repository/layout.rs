//! Where models lie on disk: `<root>/<model>/<version>/`, and how a version gets there whole or not at all.
//!
//! Names come from callers and become paths, so both are parsed into types that cannot leave the root. A folder
//! whose name is not a version (the temporary ones of a publisher among them) is no version and is left alone.

use std::{
    fmt, fs,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a model's name.
    #[error(
        "a model's name is 1 to 128 of a-z, A-Z, 0-9, _, - and ., and starts with a letter, a digit or _"
    )]
    Model,
    /// Not a version's number.
    #[error("a version is a decimal number from 1, without sign or leading zeros")]
    Version,
}

/// The name of a model: safe as one path component, a URL segment and a metric label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(String);

impl ModelName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let bytes = name.as_bytes();
        let first = bytes.first().is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_');
        let rest = bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if first && rest && bytes.len() <= 128 { Ok(Self(name.to_owned())) } else { Err(NameError::Model) }
    }
}

impl TryFrom<String> for ModelName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0
    }
}

/// So that maps keyed by the name can be asked with a borrowed text.
impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a version, from 1; higher is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct VersionNumber(u64);

impl VersionNumber {
    /// The first version of a model.
    pub const FIRST: Self = Self(1);

    /// The number that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl TryFrom<u64> for VersionNumber {
    type Error = NameError;

    fn try_from(number: u64) -> Result<Self, NameError> {
        // Numbers stay in the range of a signed 64-bit integer, which is what other systems keep versions in.
        if (1..i64::MAX as u64).contains(&number) { Ok(Self(number)) } else { Err(NameError::Version) }
    }
}

impl From<VersionNumber> for u64 {
    fn from(version: VersionNumber) -> Self {
        version.0
    }
}

impl FromStr for VersionNumber {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !text.bytes().all(|b| b.is_ascii_digit()) || text.starts_with('0') {
            return Err(NameError::Version);
        }
        text.parse::<u64>().map_err(|_| NameError::Version)?.try_into()
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The folder that holds all models.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The repository at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that holds all models.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one version, whether or not it is there.
    pub fn version(&self, model: &ModelName, version: VersionNumber) -> PathBuf {
        self.root.join(model.as_str()).join(version.to_string())
    }

    /// The models that have a folder, by name.
    pub fn models(&self) -> io::Result<Vec<ModelName>> {
        folders(&self.root)
    }

    /// The versions of `model` that have a folder, oldest first; none where the model has no folder.
    pub fn versions(&self, model: &ModelName) -> io::Result<Vec<VersionNumber>> {
        match folders(&self.root.join(model.as_str())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            versions => versions,
        }
    }

    /// A new, empty folder beside the versions of `model`, for a publisher to fill. It is no version until
    /// [`Layout::publish`] makes it one. There is one at a time: while it is held, others fail with `ResourceBusy`. What
    /// a publisher that was killed has left is cleared away.
    pub fn stage(&self, model: &ModelName) -> io::Result<Stage> {
        let parent = self.root.join(model.as_str());
        fs::create_dir_all(&parent)?;
        let lock = File::options().create(true).append(true).open(parent.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let folder = parent.join(STAGE);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&folder)?,
        }
        Ok(Stage { folder, _lock: lock })
    }

    /// Makes the filled `stage` version `version` of `model`: everything in it reaches the disk before the
    /// rename makes it visible, and the rename itself before this returns. Fails where the version is there already.
    pub fn publish(&self, model: &ModelName, version: VersionNumber, stage: Stage) -> io::Result<PathBuf> {
        sync(stage.path())?;
        let target = self.version(model, version);
        if target.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(stage.path(), &target)?;
        sync_folder(&self.root.join(model.as_str()))?;
        // The model's own folder may be new.
        sync_folder(&self.root)?;
        drop(stage);
        Ok(target)
    }
}

/// The folder of a version that is being made, and the right to make one. Dropped, it is gone.
#[derive(Debug)]
pub struct Stage {
    folder: PathBuf,
    _lock: File,
}

impl Stage {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Published, it has another name. What cannot be removed is no version, and the next stage takes its place.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Every file and folder below `path`, and `path` itself, to the disk.
pub fn sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// The names in the folder `path`, but not what they name, to the disk.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The names in a folder that parse as `T` and are folders themselves, sorted.
fn folders<T: FromStr + Ord>(path: &Path) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(name) = name
            && entry.file_type()?.is_dir()
        {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What a publisher holds while it has a stage. It is never removed: two could then hold two of them.
const LOCK: &str = ".publish.lock";
const STAGE: &str = ".stage";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_root_are_refused() {
        let long = "x".repeat(129);
        let bad = [
            "", ".", "..", "../x", "a/b", "a\\b", " a", "a ", "a\0", ".hidden", "-flag", "%2e%2e", "é", &long,
        ];
        for name in bad {
            assert_eq!(name.parse::<ModelName>(), Err(NameError::Model), "{name:?}");
        }
        for name in ["a", "_a", "0", "model..1", "a.b-c_D", &"x".repeat(128)] {
            assert!(name.parse::<ModelName>().is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_version_has_one_spelling() {
        for text in
            ["", "0", "01", "+1", "-1", "1.0", " 1", "1e3", "9223372036854775807", "99999999999999999999"]
        {
            assert_eq!(text.parse::<VersionNumber>(), Err(NameError::Version), "{text:?}");
        }
        assert_eq!(
            "9223372036854775806".parse::<VersionNumber>().map(u64::from),
            Ok(9_223_372_036_854_775_806)
        );
    }

    #[test]
    fn only_whole_versions_are_listed_in_numeric_order() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::new(root.path());
        let model: ModelName = "m".parse().expect("a name");
        for name in ["m/2", "m/10", "m/1", "m/.stage-7", "m/tmp", "m/03"] {
            fs::create_dir_all(root.path().join(name)).expect("made");
        }
        fs::write(root.path().join("m/4"), "a file, not a folder").expect("written");
        let versions: Vec<u64> =
            layout.versions(&model).expect("listed").into_iter().map(u64::from).collect();
        assert_eq!(versions, [1, 2, 10]);
        assert_eq!(layout.models().expect("listed"), [model]);
    }

    #[test]
    fn a_model_without_a_folder_has_no_versions() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let model = "absent".parse().expect("a name");
        assert_eq!(Layout::new(root.path()).versions(&model).expect("listed"), []);
    }

    #[test]
    fn a_stage_becomes_a_version_once() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::new(root.path());
        let model: ModelName = "m".parse().expect("a name");
        let publish = || {
            let stage = layout.stage(&model).expect("staged");
            fs::write(stage.path().join("file"), "content").expect("written");
            layout.publish(&model, VersionNumber::FIRST, stage)
        };
        let path = publish().expect("published");
        assert_eq!(fs::read_to_string(path.join("file")).expect("there"), "content");
        assert_eq!(publish().expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(layout.versions(&model).expect("listed"), [VersionNumber::FIRST]);
    }

    #[test]
    fn there_is_one_stage_at_a_time_and_it_starts_empty() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::new(root.path());
        let model: ModelName = "m".parse().expect("a name");
        let left_behind = root.path().join("m").join(STAGE);
        fs::create_dir_all(&left_behind).expect("made");
        fs::write(left_behind.join("half"), "a model").expect("written");
        let stage = layout.stage(&model).expect("staged");
        assert_eq!(fs::read_dir(stage.path()).expect("a folder").count(), 0);
        assert_eq!(layout.stage(&model).expect_err("held").kind(), io::ErrorKind::ResourceBusy);
        drop(stage);
        assert!(!left_behind.exists());
        layout.stage(&model).expect("let go");
    }
}
