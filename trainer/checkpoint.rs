//! How far a training has come, in a file that survives the process, so that a training which was killed goes on where
//! it was and ends with the very model of an undisturbed one.
//!
//! An epoch draws its examples from the seed and its own number, so a position and the model's state are all there is to
//! keep. The file is whole or not there.
//!
//! Little-endian: the 8 bytes `MRCKPT01`; the SHA-256 of what the training is of; the position: chosen epochs, epoch,
//! examples done as U64, the loss summed over them, the lowest validation loss as F64, its epoch as U64; the model's
//! numbers as F32 and counts as I32, in the order of [`WideDeep::visit`]; the SHA-256 of everything before.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::{
    model::{Visitor, WideDeep},
    whole_file,
};

/// Why a checkpoint cannot be used or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("{file}: cannot be read or written")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{0}: is damaged; --restart trains from the start")]
    Damaged(PathBuf),
    /// Another training is at work in the folder.
    #[error("{0}: another training is at work here")]
    Busy(PathBuf),
    /// The file belongs to another training.
    #[error("{0}: is of another pipeline, log or revision of the trainer; --restart trains from the start")]
    Foreign(PathBuf),
}

/// How far a training has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// The epochs that the final model is trained for; `None` while they are being chosen.
    pub chosen: Option<usize>,
    /// The epoch that is under way, from 1.
    pub epoch: usize,
    /// How many of its examples are done.
    pub done: usize,
    /// The weighted loss summed over them, in nats.
    pub loss: f64,
    /// The lowest validation loss so far, and its epoch.
    pub best: (f64, usize),
}

/// How checkpoints are kept.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointOptions<'a> {
    /// Whether there are any: the folder must outlive the process for them to be of use.
    pub keep: bool,
    /// The longest that an epoch goes on without one.
    pub every: Duration,
    /// Whether an earlier one is thrown away.
    pub restart: bool,
    /// Becomes true where the training is to end.
    pub stop: &'a AtomicBool,
}

impl Default for CheckpointOptions<'_> {
    fn default() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self { keep: true, every: Duration::from_mins(1), restart: false, stop: &NEVER }
    }
}

/// Where checkpoints are kept, and when.
#[derive(Debug)]
pub struct Checkpoints<'a> {
    place: Option<Place>,
    every: Duration,
    last: Instant,
    stop: &'a AtomicBool,
}

#[derive(Debug)]
struct Place {
    file: PathBuf,
    /// Held as long as there are trainings here.
    _lock: File,
    /// What the training is of.
    training: [u8; 32],
}

/// A checkpoint that was found.
#[derive(Debug)]
pub struct Found {
    /// How far it is.
    pub position: Position,
    reader: Hashing<BufReader<File>>,
    file: PathBuf,
}

impl Checkpoints<'_> {
    /// Keeps none.
    pub fn none() -> Self {
        let CheckpointOptions { every, stop, .. } = CheckpointOptions::default();
        Self { place: None, every, last: Instant::now(), stop }
    }
}

impl<'a> Checkpoints<'a> {
    /// Keeps the checkpoint of `training`, which is the same for the same command on the same log, in `folder`: after
    /// each epoch, now and then within one, and once more where the training is to end.
    pub fn new(
        folder: &Path,
        training: [u8; 32],
        options: CheckpointOptions<'a>,
    ) -> Result<Self, CheckpointError> {
        let file = folder.join(FILE);
        let CheckpointOptions { keep, every, restart, stop } = options;
        if !keep {
            return Ok(Self { place: None, every, last: Instant::now(), stop });
        }
        fs::create_dir_all(folder).map_err(failed(&file))?;
        let lock =
            File::options().create(true).append(true).open(folder.join(LOCK)).map_err(failed(&file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CheckpointError::Busy(folder.to_path_buf())),
            Err(TryLockError::Error(source)) => return Err(failed(&file)(source)),
        }
        discard(&file.with_extension("new"))?;
        if restart {
            discard(&file)?;
        }
        Ok(Self { place: Some(Place { file, _lock: lock, training }), every, last: Instant::now(), stop })
    }

    /// The checkpoint that an earlier process left.
    pub fn find(&self) -> Result<Option<Found>, CheckpointError> {
        let Some(Place { file, training, .. }) = &self.place else { return Ok(None) };
        let opened = match File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed(file))?,
        };
        let mut reader = Hashing::new(BufReader::new(opened));
        let found = (|| {
            if reader.array::<8>()? != *MAGIC {
                return Ok(Err(CheckpointError::Damaged(file.clone())));
            }
            if reader.array::<32>()? != *training {
                return Ok(Err(CheckpointError::Foreign(file.clone())));
            }
            Ok(Ok(Position::read(&mut reader)?))
        })();
        let position = found.map_err(short(file))??;
        Ok(Some(Found { position, reader, file: file.clone() }))
    }

    /// Whether somebody asked for an end of the training.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint is due within an epoch.
    pub fn is_due(&self) -> bool {
        self.is_stopped() || (self.place.is_some() && self.last.elapsed() >= self.every)
    }

    /// Writes down how far the training has come.
    pub fn keep(&mut self, position: &Position, model: &mut WideDeep) -> Result<(), CheckpointError> {
        if let Some(Place { file, training, .. }) = &self.place {
            write(file, training, position, model).map_err(failed(file))?;
            self.last = Instant::now();
        }
        Ok(())
    }

    /// Removes the checkpoint of a training that has become an artifact.
    pub fn finish(&self) -> Result<(), CheckpointError> {
        self.place.as_ref().map_or(Ok(()), |place| discard(&place.file))
    }
}

fn discard(file: &Path) -> Result<(), CheckpointError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(file)(error)),
        _ => Ok(()),
    }
}

impl Found {
    /// Puts the state back into `model`, which was made for the same training.
    pub fn restore(self, model: &mut WideDeep) -> Result<(), CheckpointError> {
        let Self { mut reader, file, .. } = self;
        let hash = (|| {
            model.visit(&mut Reading(&mut reader))?;
            let expected = reader.finish();
            let Hashing { mut inner, .. } = reader;
            let (mut hash, mut rest) = ([0; 32], [0; 1]);
            inner.read_exact(&mut hash)?;
            Ok(hash == expected && inner.read(&mut rest)? == 0)
        })();
        if hash.map_err(short(&file))? { Ok(()) } else { Err(CheckpointError::Damaged(file)) }
    }
}

impl Position {
    /// The start of a training for `chosen` epochs, or of one that chooses them, up to `most`.
    pub fn start(chosen: Option<usize>, most: usize) -> Self {
        Self { chosen, epoch: 1, done: 0, loss: 0.0, best: (f64::INFINITY, most) }
    }

    /// The start of the next epoch.
    #[must_use]
    pub fn next_epoch(self) -> Self {
        Self { epoch: self.epoch + 1, done: 0, loss: 0.0, ..self }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { chosen, epoch, done, loss, best } = *self;
        for count in [chosen.unwrap_or(0), epoch, done] {
            out.write_all(&(count as u64).to_le_bytes())?;
        }
        out.write_all(&loss.to_le_bytes())?;
        out.write_all(&best.0.to_le_bytes())?;
        out.write_all(&(best.1 as u64).to_le_bytes())
    }

    fn read(from: &mut Hashing<impl Read>) -> io::Result<Self> {
        let chosen = from.size()?;
        Ok(Self {
            chosen: (chosen > 0).then_some(chosen),
            epoch: from.size()?,
            done: from.size()?,
            loss: f64::from_le_bytes(from.array()?),
            best: (f64::from_le_bytes(from.array()?), from.size()?),
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = if self.chosen.is_some() { "training" } else { "choosing epochs" };
        write!(f, "{purpose}: epoch {}, {} examples of it done", self.epoch, self.done)
    }
}

fn write(file: &Path, training: &[u8; 32], position: &Position, model: &mut WideDeep) -> io::Result<()> {
    whole_file::write(file, |beside| {
        let mut out = Hashing::new(BufWriter::new(beside));
        out.write_all(MAGIC)?;
        out.write_all(training)?;
        position.write(&mut out)?;
        model.visit(&mut Writing(&mut out))?;
        let hash = out.finish();
        let Hashing { mut inner, .. } = out;
        inner.write_all(&hash)?;
        inner.flush()
    })?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Passes bytes on and hashes them.
#[derive(Debug)]
struct Hashing<T> {
    inner: T,
    hasher: Sha256,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// The hash of what has passed.
    fn finish(&mut self) -> [u8; 32] {
        self.hasher.finalize_reset().into()
    }
}

impl<R: Read> Hashing<R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn size(&mut self) -> io::Result<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(io::Error::other)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes down what it is shown.
struct Writing<'a, W>(&'a mut W);

impl<W: Write> Visitor for Writing<'_, W> {
    fn numbers(&mut self, numbers: &mut [f32]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(CHUNK * size_of::<f32>());
        numbers.chunks(CHUNK).try_for_each(|chunk| {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|number| number.to_le_bytes()));
            self.0.write_all(&bytes)
        })
    }

    fn count(&mut self, count: &mut i32) -> io::Result<()> {
        self.0.write_all(&count.to_le_bytes())
    }
}

/// Replaces what it is shown by what was written down.
struct Reading<'a, R>(&'a mut R);

impl<R: Read> Visitor for Reading<'_, R> {
    fn numbers(&mut self, numbers: &mut [f32]) -> io::Result<()> {
        let mut bytes = vec![0; CHUNK * size_of::<f32>()];
        numbers.chunks_mut(CHUNK).try_for_each(|chunk| {
            let bytes = &mut bytes[..size_of_val(chunk)];
            self.0.read_exact(bytes)?;
            for (number, bytes) in chunk.iter_mut().zip(bytes.as_chunks().0) {
                *number = f32::from_le_bytes(*bytes);
            }
            Ok(())
        })
    }

    fn count(&mut self, count: &mut i32) -> io::Result<()> {
        let mut bytes = [0; 4];
        self.0.read_exact(&mut bytes)?;
        *count = i32::from_le_bytes(bytes);
        Ok(())
    }
}

fn failed(file: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    |source| CheckpointError::Io { file: file.to_path_buf(), source }
}

/// A file that ends too early is damaged.
fn short(file: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    |source| match source.kind() {
        io::ErrorKind::UnexpectedEof => CheckpointError::Damaged(file.to_path_buf()),
        _ => failed(file)(source),
    }
}

/// Its name in the artifact's folder.
pub(crate) const FILE: &str = "checkpoint";
const LOCK: &str = ".train.lock";
const MAGIC: &[u8; 8] = b"MRCKPT01";
/// Numbers that are turned into bytes at a time.
const CHUNK: usize = 16_384;
