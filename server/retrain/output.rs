//! What a retraining says, in a file: its beginning and its end, however much it is. A file is named for the milliseconds since
//! 1970 of its start, and of each model the last few are kept.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The file that is being written.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// Bytes of the beginning that are still to come.
    room: usize,
    /// The last bytes after the beginning.
    tail: VecDeque<u8>,
    left_out: u64,
    /// The first thing that went wrong. It is no reason to stop what is being said.
    fault: Option<io::Error>,
}

impl Output {
    /// The file of what is started at `started_ms`, in `folder`, where it makes room for it.
    pub(super) fn create(folder: &Path, started_ms: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut before: Vec<u64> =
            fs::read_dir(folder)?.filter_map(|entry| number(&entry.ok()?.path())).collect();
        before.sort_unstable();
        for old in &before[..before.len().saturating_sub(KEPT - 1)] {
            fs::remove_file(file(folder, *old))?;
        }
        let path = file(folder, started_ms);
        let file = File::create(&path)?;
        Ok(Self { path, file, room: HEAD_BYTES, tail: VecDeque::new(), left_out: 0, fault: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes what was said.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let (head, tail) = bytes.split_at(bytes.len().min(self.room));
        self.room -= head.len();
        self.write(head);
        self.tail.extend(tail);
        let over = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    /// Writes the end of it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.left_out > 0 {
            self.write(format!("\n[{} bytes are left out here]\n", self.left_out).as_bytes());
        }
        let tail = std::mem::take(&mut self.tail);
        self.write(&Vec::from(tail));
        self.fault.map_or(Ok(()), Err)
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.fault.is_none() {
            self.fault = self.file.write_all(bytes).err();
        }
    }
}

fn file(folder: &Path, started_ms: u64) -> PathBuf {
    folder.join(format!("{started_ms}.log"))
}

/// The start that a file is named for.
fn number(path: &Path) -> Option<u64> {
    let is_ours = path.extension().is_some_and(|extension| extension == "log");
    path.file_stem()?.to_str()?.parse().ok().filter(|_| is_ours)
}

/// Bytes of the beginning and of the end that are kept.
const HEAD_BYTES: usize = 512 << 10;
const TAIL_BYTES: usize = 512 << 10;

/// Files of a model.
const KEPT: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut output = Output::create(folder.path(), 7).expect("a file");
        let path = output.path().to_owned();
        assert_eq!(path, folder.path().join("7.log"));
        let line = |number: usize| format!("{number:09}\n");
        let lines = (HEAD_BYTES + TAIL_BYTES) / 10 + 50;
        for number in 0..lines {
            output.take(line(number).as_bytes());
        }
        output.finish().expect("written");
        let text = fs::read_to_string(path).expect("a file");
        assert!(text.starts_with(&line(0)) && text.ends_with(&line(lines - 1)), "{}", text.len());
        let left_out = lines * 10 - HEAD_BYTES - TAIL_BYTES;
        assert!(text.contains(&format!("\n[{left_out} bytes are left out here]\n")));
        assert!(text.len() < HEAD_BYTES + TAIL_BYTES + 100);
    }

    #[test]
    fn what_is_short_is_kept_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut output = Output::create(folder.path(), 7).expect("a file");
        output.take(b"some");
        output.take(b"thing");
        output.finish().expect("written");
        assert_eq!(fs::read(folder.path().join("7.log")).expect("a file"), b"something");
    }

    #[test]
    fn the_last_files_stay_and_what_is_not_ours_does_too() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("notes.txt"), "mine").expect("written");
        for start in 95..110 {
            Output::create(folder.path(), start).expect("a file").finish().expect("written");
        }
        let files = fs::read_dir(folder.path()).expect("a folder");
        let name = |file: io::Result<fs::DirEntry>| file.expect("a file").file_name().into_string();
        let mut names: Vec<_> = files.map(|file| name(file).expect("UTF-8")).collect();
        names.sort();
        let mut expected: Vec<_> = (100..110).map(|start| format!("{start}.log")).collect();
        expected.push("notes.txt".to_owned());
        assert_eq!(names, expected);
    }
}
