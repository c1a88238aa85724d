//! The journal of a model's rollouts: a file with an entry a line, which is only ever added to. An entry is on disk before what
//! it says is done.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{Course, Entry};
use crate::repository::{ModelName, Standing, sync_folder};

/// Why there is no usable journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("{path}: cannot be read or written")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another server writes to the folder: each would decide for itself, and write over what the other has decided.
    #[error("{0}: another server has its journals there")]
    InUse(PathBuf),
    /// A line is no entry of the model. Whoever knows what was meant may put it right; to go on without it might bring back a
    /// version that was rolled back.
    #[error("{path}: line {line} is no entry of a journal of {model}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The model that the file is named for.
        model: ModelName,
        /// What is wrong.
        reason: String,
    },
}

/// A journal that is open to be added to.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    bytes: u64,
}

/// The journals of a server, a file for each model.
#[derive(Debug)]
pub struct Journals {
    folder: PathBuf,
    /// What keeps other servers out for as long as this is here.
    _lock: File,
    open: BTreeMap<ModelName, (Journal, Course)>,
}

impl Journals {
    /// Opens those that are in `folder`, which is made where it is not there.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let fault = |source| JournalError::Io { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(fault)?;
        let lock = File::create(folder.join("lock")).map_err(fault)?;
        lock.try_lock().map_err(|_| JournalError::InUse(folder.to_owned()))?;
        let names = std::fs::read_dir(folder).map_err(fault)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<io::Result<Vec<_>>>().map_err(fault)?;
        let models = names.iter().filter_map(|name| name.to_str()?.strip_suffix(SUFFIX)?.parse().ok());
        let open = models.map(|model| {
            let opened = Journal::open(folder, &model)?;
            Ok((model, opened))
        });
        Ok(Self { folder: folder.to_owned(), _lock: lock, open: open.collect::<Result<_, _>>()? })
    }

    /// What the rollouts of each model have come to.
    pub fn standings(&self) -> BTreeMap<ModelName, Standing> {
        self.open.iter().map(|(model, (_, course))| (model.clone(), course.standing.clone())).collect()
    }

    /// The models that have one that was not taken yet.
    pub fn models(&self) -> Vec<ModelName> {
        self.open.keys().cloned().collect()
    }

    /// The journal of `model`, which begins now where there is none, and where it has come to. Each is taken once.
    pub fn take(&mut self, model: &ModelName) -> Result<(Journal, Course), JournalError> {
        self.open.remove(model).map_or_else(|| Journal::open(&self.folder, model), Ok)
    }
}

impl Journal {
    /// Opens the journal of `model` in `folder`, or begins it, and says where it has come to. A last line that was never
    /// finished is cut off: nothing of what it says has happened.
    pub fn open(folder: &Path, model: &ModelName) -> Result<(Self, Course), JournalError> {
        let path = folder.join(format!("{model}{SUFFIX}"));
        let (file, text) =
            read(folder, &path).map_err(|source| JournalError::Io { path: path.clone(), source })?;
        let mut course = Course::default();
        for (line, entry) in (1..).zip(text.lines()) {
            let entry = serde_json::from_str::<Entry>(entry).map_err(|error| error.to_string());
            let entry = entry.and_then(|entry| {
                let is_of_model = entry.model == *model;
                if is_of_model { Ok(entry) } else { Err(format!("it is of {}", entry.model)) }
            });
            course.follow(&entry.map_err(|reason| JournalError::Line {
                path: path.clone(),
                line,
                model: model.clone(),
                reason,
            })?);
        }
        Ok((Self { file, path, bytes: text.len() as u64 }, course))
    }

    /// Adds an entry, which survives a crash once this returns. Where it fails the journal is as it was.
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let mut line = serde_json::to_string(entry).expect("names, numbers and texts are JSON");
        line.push('\n');
        let written = self.write(line.as_bytes());
        match written {
            Ok(()) => {
                self.bytes += line.len() as u64;
                Ok(())
            }
            Err(source) => Err(JournalError::Io { path: self.path.clone(), source }),
        }
    }

    /// Writes after what is known to be whole, over whatever an attempt that failed has left there.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(line)?;
        self.file.sync_data()
    }
}

/// The whole lines of a journal, and the file without what comes after them.
fn read(folder: &Path, path: &Path) -> io::Result<(File, String)> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if is_new {
        sync_folder(folder)?;
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        tracing::warn!(path = %path.display(), bytes = text.len() - whole, "a journal's last entry was never finished");
        text.truncate(whole);
    }
    Ok((file, text))
}

const SUFFIX: &str = ".jsonl";

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::{
        super::{By, Event},
        *,
    };

    fn model() -> ModelName {
        "shop".parse().expect("a name")
    }

    fn entry(event: Event, version: u64) -> Entry {
        Entry {
            time: OffsetDateTime::UNIX_EPOCH,
            model: model(),
            event,
            version: version.try_into().expect("from 1"),
            stable: None,
            by: By::Millrace,
            reason: "fails \"more\" often".into(),
            stage: None,
            share: None,
            evidence: None,
        }
    }

    fn written(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("shop.jsonl")).expect("a journal")
    }

    #[test]
    fn what_was_appended_is_what_a_later_one_goes_on_from() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = &folder.path().join("journals");
        let mut journals = Journals::open(folder).expect("a folder");
        assert!(journals.standings().is_empty());
        let other = Journals::open(folder).expect_err("in use");
        assert!(other.to_string().ends_with("another server has its journals there"), "{other}");
        let (mut journal, course) = journals.take(&model()).expect("a journal");
        assert_eq!(course, Course::default());
        journal.append(&entry(Event::Stable, 1)).expect("room");
        journal.append(&entry(Event::RolledBack, 2)).expect("room");
        drop((journal, journals));
        let mut journals = Journals::open(folder).expect("a folder");
        let standing = journals.standings().remove(&model()).expect("one model");
        assert_eq!(standing.stable, Some(1.try_into().expect("1")));
        assert_eq!(standing.refused, [2.try_into().expect("2")].into());
        assert_eq!(journals.take(&model()).expect("a journal").1.standing, standing);
    }

    #[test]
    fn an_entry_that_is_torn_anywhere_has_not_happened() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut journal, _) = Journal::open(folder.path(), &model()).expect("a journal");
        journal.append(&entry(Event::Stable, 1)).expect("room");
        let first = written(folder.path());
        journal.append(&entry(Event::Promoted, 2)).expect("room");
        let both = written(folder.path());
        for end in first.len()..both.len() {
            std::fs::write(folder.path().join("shop.jsonl"), &both[..end]).expect("written");
            let (mut journal, course) = Journal::open(folder.path(), &model()).expect("a journal");
            assert_eq!(course.standing.stable, Some(1.try_into().expect("1")), "cut at {end}");
            journal.append(&entry(Event::Promoted, 2)).expect("room");
            assert_eq!(written(folder.path()), both, "cut at {end}");
        }
    }

    #[test]
    fn a_line_that_is_no_entry_is_named_and_nothing_is_guessed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut journal, _) = Journal::open(folder.path(), &model()).expect("a journal");
        journal.append(&entry(Event::Stable, 1)).expect("room");
        let text = written(folder.path());
        for (second, reason) in
            [("{}\n", "missing field"), (&*text.replace("shop", "other"), "it is of other")]
        {
            std::fs::write(folder.path().join("shop.jsonl"), format!("{text}{second}")).expect("written");
            let error = Journal::open(folder.path(), &model()).expect_err("no entry").to_string();
            assert!(error.contains("line 2 is no entry") && error.contains(reason), "{error}");
        }
    }
}
