//! The folder of a log, as the few operations that it needs of a file system: the seam at which tests have disks fail.

use std::{
    fmt,
    fs::{self, File as OsFile, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// A folder. What changes its entries is on disk only after [`Store::sync`].
pub(super) trait Store: fmt::Debug + Send + Sync {
    /// Keeps other processes from writing for as long as the guard lives. [`io::ErrorKind::WouldBlock`] where one writes.
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>>;
    /// The names in the folder, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty file, which must not be there.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// A file to read and write.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Moves a file into `quarantine/`, over none that is there.
    fn quarantine(&self, name: &str) -> io::Result<()>;
    /// Returns when the folder's entries are on disk.
    fn sync(&self) -> io::Result<()>;
    /// When a file was written to last.
    fn modified(&self, name: &str) -> io::Result<SystemTime>;
}

/// An open file.
pub(super) trait File: fmt::Debug + Send {
    /// Its length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Reads up to `out.len()` bytes from `offset` on; 0 at the end.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `bytes`, and says how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes it `bytes` long, with zeros where it was shorter, and takes the room for them now.
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    /// Cuts it off.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Returns when its contents are on disk.
    fn sync_data(&self) -> io::Result<()>;
    /// Returns when its contents, its length and all else are on disk.
    fn sync_all(&self) -> io::Result<()>;
}

/// Reads a file from `offset` for `bytes`, or up to its end.
pub(super) fn read(file: &dyn File, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut out[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.truncate(filled);
    Ok(out)
}

/// Reads the whole file.
pub(super) fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let bytes = usize::try_from(file.bytes()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    read(file, 0, bytes)
}

/// Writes all of `bytes`, in as many writes as the system wants.
pub(super) fn write(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A folder of the operating system's.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// The folder, which is made where there is none, and its entry in its parent synced.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder.join(QUARANTINE))?;
        let disk = Self::open(folder)?;
        if let Some(parent) = disk.folder.parent() {
            OsFile::open(parent)?.sync_all()?;
        }
        Ok(disk)
    }

    /// The folder, which must be there.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { folder: folder.canonicalize()? })
    }
}

impl Store for Disk {
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let path = self.folder.join(LOCK);
        let lock = OsFile::options().create(true).truncate(false).write(true).open(path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Box::new(lock)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = OsFile::options().create_new(true).read(true).write(true).open(self.folder.join(name))?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let path = self.folder.join(name);
        // Whoever only verifies a log need not be allowed to write to it.
        let file = OsFile::options().read(true).write(true).open(&path).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OsFile::open(&path),
            _ => Err(error),
        });
        Ok(Box::new(file?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn quarantine(&self, name: &str) -> io::Result<()> {
        let to = self.folder.join(QUARANTINE);
        let names = std::iter::once(name.to_owned()).chain((1..).map(|n: u64| format!("{name}.{n}")));
        let free = names.map(|name| to.join(name)).find(|path| !path.exists()).expect("names without end");
        fs::rename(self.folder.join(name), free)?;
        OsFile::open(&to)?.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        OsFile::open(&self.folder)?.sync_all()
    }

    fn modified(&self, name: &str) -> io::Result<SystemTime> {
        fs::metadata(self.folder.join(name))?.modified()
    }
}

impl File for OsFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        match fallocate(self, FallocateFlags::empty(), 0, bytes) {
            // Such a file system cannot promise room; the log then learns of a full disk from a write that fails.
            Err(Errno::OPNOTSUPP) => self.set_len(bytes),
            done => Ok(done?),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }
}

const LOCK: &str = "lock";
const QUARANTINE: &str = "quarantine";
