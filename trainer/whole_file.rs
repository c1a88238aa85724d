//! A file that is whole or not there: it is written beside its place, synced, and renamed. Where that fails, what was at the
//! place stays and nothing lies beside it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Writes the file at `path` with what `content` puts into it.
pub fn write(path: &Path, content: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    // A link stays one, and what it leads to is replaced.
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if fs::metadata(&place).is_ok_and(|found| !found.is_file()) {
        // A pipe or a terminal has no place for another one.
        return content(&File::options().write(true).open(place)?);
    }
    let mut beside = place.clone().into_os_string();
    beside.push(".new");
    let write = || {
        let file = File::create(&beside)?;
        content(&file)?;
        file.sync_all()?;
        fs::rename(&beside, &place)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Whether two paths lead to one file, which need not be there yet.
pub fn is_same(one: &Path, other: &Path) -> bool {
    place(one) == place(other)
}

fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let below = |folder: PathBuf| folder.join(path.file_name().unwrap_or_default());
    fs::canonicalize(path)
        .or_else(|_| fs::canonicalize(folder).map(below))
        .unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("report.json");
        let half = |mut file: &File| {
            file.write_all(b"half")?;
            Err(io::Error::other("no space is left"))
        };
        write(&path, half).expect_err("no space");
        assert!(names(folder.path()).is_empty());
        write(&path, |mut file| file.write_all(b"whole")).expect("written");
        write(&path, half).expect_err("no space");
        assert_eq!(names(folder.path()), ["report.json"]);
        assert_eq!(fs::read(&path).expect("a file"), b"whole");
    }

    #[test]
    #[cfg(unix)]
    fn a_link_stays_and_what_is_no_file_is_written_to_as_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&path, "before").expect("written");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        write(&link, |mut file| file.write_all(b"after")).expect("written");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert_eq!(fs::read(&path).expect("a file"), b"after");
        write(Path::new("/dev/null"), |mut file| file.write_all(b"x")).expect("written");
        write(folder.path(), |_| Ok(())).expect_err("a folder");
    }

    #[test]
    fn one_file_is_the_same_by_any_of_its_paths() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "").expect("written");
        fs::create_dir(path("deep")).expect("made");
        assert!(is_same(&path("a"), &path("deep/../a")) && is_same(&path("new"), &path("deep/../new")));
        assert!(!is_same(&path("a"), &path("new")) && !is_same(&path("new"), &path("deep/new")));
        assert!(is_same(Path::new("new"), Path::new("./new")));
    }
}
