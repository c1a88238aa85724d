//! The durable log: payloads that survive a crash once their append is acknowledged, in segment files in one folder.
//! What is in a payload is for others to know.
//!
//! | file | what it holds |
//! |---|---|
//! | `frame`, `segment` | the format, pure: a record, and a file of them |
//! | `store` | the file system as the log needs it |
//! | `recovery` | what a crash or a bad disk has left, and what is made of it |
//! | `writer` | the thread that writes, and one sync for all that waits |
//! | `retention` | which segments may go |
//! | `reader`, `verification` | records for replay and export, and whether all is as it was written |
//!
//! An append is acknowledged when `fdatasync` has returned for it, and not otherwise. What was not acknowledged may be
//! there all the same, whole, after a crash. Nothing that serves predictions waits for the log: [`Log::try_append`]
//! refuses where there is no room.

mod frame;
mod reader;
mod recovery;
mod retention;
mod segment;
mod store;
mod verification;
mod writer;

#[cfg(test)]
mod disk;

use std::{
    fmt, io,
    num::NonZeroUsize,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use crossbeam::channel::{self, Sender};
use tokio::sync::{Semaphore, TryAcquireError, oneshot};

use self::{
    frame::FRAME_HEADER_BYTES,
    recovery::Recovered,
    segment::{FOOTER_BYTES, HEADER_BYTES},
    store::{Disk, Store},
    writer::{Request, Writer},
};
pub use self::{
    frame::MAX_PAYLOAD_BYTES,
    reader::{Entry, Reader},
    recovery::{Quarantined, Report},
    verification::{Checked, State, verify},
};

/// Sizes and bounds of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes that a segment reserves on disk when it is created.
    pub segment_bytes: u64,
    /// Bytes of records that one write and one sync take, and so the most of one append.
    pub write_bytes: NonZeroUsize,
    /// Appends that may wait for the writer.
    pub queue_appends: NonZeroUsize,
    /// Bytes of records that may wait for the writer.
    pub queue_bytes: NonZeroUsize,
    /// Bytes of all segments, beyond which appends are refused.
    pub max_bytes: u64,
    /// Bytes of all segments, beyond which those that were exported are deleted.
    pub keep_bytes: u64,
    /// How long after its last write a segment that was exported is kept.
    pub keep_age: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            write_bytes: NonZeroUsize::new(1 << 20).expect("not zero"),
            queue_appends: NonZeroUsize::new(1024).expect("not zero"),
            queue_bytes: NonZeroUsize::new(8 << 20).expect("not zero"),
            max_bytes: 8 << 30,
            keep_bytes: 1 << 30,
            keep_age: Duration::from_hours(24 * 7),
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), LogError> {
        let least = (HEADER_BYTES + FOOTER_BYTES) as u64 + self.write_bytes.get() as u64;
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let wrong = if self.segment_bytes < least {
            "a segment must hold its header, its footer and one write"
        } else if self.segment_bytes > MOST_SEGMENT_BYTES {
            "a segment is read as a whole, and may have at most 1 GiB"
        } else if self.queue_bytes < self.write_bytes {
            "the queue must hold one write"
        } else if self.queue_bytes.get() > most || self.queue_appends.get() > most {
            "the queue may have at most 4 GiB"
        } else if self.keep_bytes.saturating_add(self.segment_bytes) > self.max_bytes {
            "a log that is full must be able to delete: keep_bytes and a segment are over max_bytes"
        } else {
            return Ok(());
        };
        Err(LogError::Options(wrong))
    }
}

/// An open log, to which this process alone may append.
///
/// Dropping it writes and syncs what was accepted, and waits for that.
#[derive(Debug)]
pub struct Log {
    /// `None` once dropped. Its capacity is never reached: every message carries permits.
    sender: Option<Sender<Request>>,
    appends: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    options: Options,
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    report: Report,
    thread: Option<JoinHandle<()>>,
    // Let go after the thread has ended.
    _lock: Lock,
}

impl Log {
    /// Opens the log in `folder`, which is made where there is none, and repairs what a crash has left of it.
    ///
    /// Takes as long as reading one segment. Fails with [`LogError::Locked`] where another process has it open.
    pub fn open(folder: &Path, options: Options) -> Result<Self, LogError> {
        let disk = Disk::create(folder).map_err(LogError::io("opening", &folder.display().to_string()))?;
        Self::over(Arc::new(disk), options)
    }

    fn over(store: Arc<dyn Store>, options: Options) -> Result<Self, LogError> {
        options.check()?;
        let lock = store.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => LogError::Locked,
            _ => LogError::io("locking", "lock")(error),
        })?;
        let Recovered { report, state } = recovery::recover(&*store, &options)?;
        let shared = Arc::new(Shared::default());
        let writer = Writer::new(Arc::clone(&store), options, state, Arc::clone(&shared));
        let (sender, requests) = channel::bounded(options.queue_appends.get());
        let thread = thread::Builder::new().name("feedback log".to_owned());
        let thread =
            thread.spawn(move || writer.run(&requests)).map_err(LogError::io("starting", "writer"))?;
        Ok(Self {
            sender: Some(sender),
            appends: Arc::new(Semaphore::new(options.queue_appends.get())),
            bytes: Arc::new(Semaphore::new(options.queue_bytes.get())),
            options,
            shared,
            store,
            report,
            thread: Some(thread),
            _lock: Lock { _held: lock },
        })
    }

    /// What was found when it was opened.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Accepts `batch`, whose records get consecutive sequence numbers, where there is room for it in the queue.
    ///
    /// Fails with [`LogError::Busy`] where there is none, [`LogError::TooLarge`] where there never will be, and
    /// [`LogError::Failed`] where the log has failed.
    pub fn try_append(&self, batch: Vec<Bytes>) -> Result<Append, LogError> {
        let bytes = self.admit(&batch)?;
        let refused = |_: TryAcquireError| LogError::Busy;
        let append = Arc::clone(&self.appends).try_acquire_owned().map_err(refused)?;
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).map_err(refused)?;
        self.send((batch, false), bytes, [append, permit])
    }

    /// Ends the segment that is written to, where it has records; returns once it is sealed.
    ///
    /// Fails as an append does.
    ///
    /// # Panics
    /// In a runtime's thread.
    pub fn seal(&self) -> Result<(), LogError> {
        self.shared.check()?;
        let refused = |_: TryAcquireError| LogError::Busy;
        let append = Arc::clone(&self.appends).try_acquire_owned().map_err(refused)?;
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(0).map_err(refused)?;
        self.send((Vec::new(), true), 0, [append, permit])?.wait().map(drop)
    }

    /// Accepts `batch` as [`Log::try_append`] does, once there is room for it.
    ///
    /// Cancel safety: nothing was accepted where this is dropped before it is ready. Its [`Append`] may be dropped at
    /// any time, and the batch is written all the same.
    pub async fn append(&self, batch: Vec<Bytes>) -> Result<Append, LogError> {
        let bytes = self.admit(&batch)?;
        let open = "nobody closes the semaphores";
        let append = Arc::clone(&self.appends).acquire_owned().await.expect(open);
        let permit = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.expect(open);
        self.send((batch, false), bytes, [append, permit])
    }

    /// The records from the sequence number `from` on that are on disk by now.
    pub fn read(&self, from: u64) -> Result<Reader, LogError> {
        let end = self.shared.lock().next_seq;
        Reader::over(Arc::clone(&self.store), from, Some(end))
    }

    /// The segments that are sealed, oldest first.
    pub fn sealed(&self) -> Vec<Sealed> {
        self.shared.lock().sealed.clone()
    }

    /// Notes, durably, that the records of the sealed segment whose first is `first_seq` have gone where they are
    /// wanted, so that it may be deleted. Fails with [`LogError::NotSealed`] where there is no such segment.
    pub fn mark_exported(&self, first_seq: u64) -> Result<(), LogError> {
        let sealed = self.sealed().into_iter().find(|sealed| sealed.first_seq == first_seq);
        if sealed.ok_or(LogError::NotSealed(first_seq))?.exported {
            return Ok(());
        }
        let marker = segment::marker(first_seq);
        match self.store.create(&marker) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(LogError::io("creating", &marker)(error));
            }
            _ => self.store.sync().map_err(LogError::io("syncing", "the folder"))?,
        }
        // Nobody deletes it before this.
        let mut known = self.shared.lock();
        let it = known.sealed.iter_mut().filter(|sealed| sealed.first_seq == first_seq);
        it.for_each(|sealed| sealed.exported = true);
        Ok(())
    }

    /// How the log is now.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Bytes that `batch` takes on disk, where it may be appended at all.
    fn admit(&self, batch: &[Bytes]) -> Result<u32, LogError> {
        self.shared.check()?;
        let largest = batch.iter().map(Bytes::len).max().unwrap_or(0);
        if largest > MAX_PAYLOAD_BYTES {
            return Err(LogError::TooLarge { bytes: largest, most: MAX_PAYLOAD_BYTES });
        }
        let most = self.options.write_bytes.get();
        let bytes = batch.iter().map(|payload| FRAME_HEADER_BYTES + payload.len()).sum();
        u32::try_from(bytes).ok().filter(|_| bytes <= most).ok_or(LogError::TooLarge { bytes, most })
    }

    fn send(
        &self,
        (batch, seals): (Vec<Bytes>, bool),
        bytes: u32,
        permits: [tokio::sync::OwnedSemaphorePermit; 2],
    ) -> Result<Append, LogError> {
        let (reply, append) = oneshot::channel();
        let sender = self.sender.as_ref().expect("there until it is dropped");
        let request = Request { batch, seals, bytes: bytes as usize, reply, _permits: permits };
        sender.try_send(request).map_err(|_| gone())?;
        Ok(Append { append })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.sender.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of the feedback log panicked");
        }
    }
}

/// An append that was accepted, and is not yet on disk.
#[derive(Debug)]
pub struct Append {
    append: oneshot::Receiver<Result<Range<u64>, LogError>>,
}

impl Append {
    /// The sequence numbers of the batch, once all of it is on disk.
    ///
    /// Fails with [`LogError::Full`] where there is no room on disk, and with [`LogError::Failed`] where the disk has
    /// failed; the batch may then be there or not. Cancel safe: the batch is written whether anybody waits or not.
    pub async fn durable(self) -> Result<Range<u64>, LogError> {
        self.append.await.unwrap_or_else(|_| Err(gone()))
    }

    /// [`Append::durable`] for threads without a runtime.
    ///
    /// # Panics
    /// In a runtime's thread.
    pub fn wait(self) -> Result<Range<u64>, LogError> {
        self.append.blocking_recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> LogError {
    LogError::Failed { source: Arc::new(io::Error::other("the writer is gone")) }
}

/// A segment to which nothing is added any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// A number at random, which no segment of another log has.
    pub id: u64,
    /// Sequence number of its first record.
    pub first_seq: u64,
    /// Sequence number after its last record's.
    pub next_seq: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether [`Log::mark_exported`] was called for it.
    pub exported: bool,
}

/// How a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Segments on disk, without those in quarantine.
    pub segments: usize,
    /// Bytes of these, with what the last one has reserved.
    pub bytes: u64,
    /// Records in these.
    pub records: u64,
    /// Sequence number of the oldest record.
    pub oldest_seq: Option<u64>,
    /// Sequence number of the newest record.
    pub newest_seq: Option<u64>,
    /// What the last sync took; `None` before the first.
    pub last_sync: Option<Duration>,
    /// Whether the last append was refused for want of room on disk.
    pub full: bool,
    /// Whether the disk has failed, so that nothing is accepted until the log is opened anew.
    pub failed: bool,
}

/// Why the log did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// So much waits to be written that this append may not wait too.
    #[error("the log has more to write than it may hold")]
    Busy,
    /// The disk is full, or the log as large as it may be. It recovers when there is room.
    #[error("the log has no room on disk")]
    Full,
    /// A write or a sync failed. What the disk holds is uncertain, so nothing is written until the log is opened anew.
    #[error("the log's disk has failed")]
    Failed {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The caller's payload, or batch of them with 24 bytes for each.
    #[error("{bytes} bytes at once, of at most {most}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// What it may have.
        most: usize,
    },
    /// Another process, or another [`Log`] of this one, has the log open.
    #[error("the log is open elsewhere")]
    Locked,
    /// A file is not what was written.
    #[error("{file}, byte {offset}: {flaw}")]
    Corrupt {
        /// The file's name in the log's folder.
        file: String,
        /// Where the first bytes are that cannot be made sense of.
        offset: u64,
        /// What is wrong with them.
        flaw: Flaw,
    },
    /// Records that were there are in no segment: their segment is in quarantine or gone.
    #[error("records {from} to {to} are in no segment", to = next - 1)]
    Missing {
        /// Sequence number of the first.
        from: u64,
        /// Sequence number after the last one's.
        next: u64,
    },
    /// The caller marks a segment that is not there or not sealed.
    #[error("no sealed segment begins with record {0}")]
    NotSealed(u64),
    /// The caller's options contradict themselves.
    #[error("{0}")]
    Options(&'static str),
    /// The file system did not do what was asked, outside of appends.
    #[error("{action} {file}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        file: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

impl LogError {
    fn io(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, file: file.to_owned(), source: Arc::new(source) }
    }
}

/// What is wrong with bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The first bytes are no header.
    #[error("the header does not check out")]
    Header,
    /// The header is of another version of the format.
    #[error("the header is of a format that this version does not know")]
    Format,
    /// The header is of another segment.
    #[error("the file has another segment's name")]
    Name,
    /// Bytes where a record was once.
    #[error("the record does not check out")]
    Record,
    /// A frame that belongs elsewhere.
    #[error("the record is not the next one")]
    Sequence,
    /// The last bytes of a sealed segment are no footer.
    #[error("the footer does not check out")]
    Footer,
    /// The footer is of other records.
    #[error("the footer has another sum than the segment")]
    Sum,
    /// A sealed segment goes on.
    #[error("bytes follow the footer")]
    AfterFooter,
    /// The remains of a write that a crash cut short, which opening the log removes.
    #[error("the last write is torn")]
    Torn,
}

/// What the writer tells everybody else.
#[derive(Debug, Default)]
struct Shared {
    /// Why nothing is written any more.
    failed: OnceLock<Arc<io::Error>>,
    /// Locked for as long as copying takes, and never while the disk is asked for something.
    state: Mutex<Known>,
}

impl Shared {
    /// Fails where the disk has.
    fn check(&self) -> Result<(), LogError> {
        let failed = self.failed.get().map(|source| LogError::Failed { source: Arc::clone(source) });
        failed.map_or(Ok(()), Err)
    }

    fn stats(&self) -> Stats {
        Stats { failed: self.failed.get().is_some(), ..self.lock().stats() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Known {
    sealed: Vec<Sealed>,
    /// First sequence number and bytes of the segment that is written to.
    active: Option<(u64, u64)>,
    /// Sequence number after that of the newest record on disk.
    next_seq: u64,
    last_sync: Option<Duration>,
    full: bool,
}

impl Known {
    /// All but whether the disk has failed.
    fn stats(&self) -> Stats {
        let active = self.active.map(|(first, _)| first..self.next_seq);
        let sealed = self.sealed.iter().map(|sealed| sealed.first_seq..sealed.next_seq);
        let ranges: Vec<_> = sealed.chain(active).collect();
        let filled = || ranges.iter().filter(|range| !range.is_empty());
        Stats {
            segments: ranges.len(),
            bytes: self.bytes(),
            records: ranges.iter().map(|range| range.end - range.start).sum(),
            oldest_seq: filled().next().map(|range| range.start),
            newest_seq: filled().next_back().map(|range| range.end - 1),
            last_sync: self.last_sync,
            full: self.full,
            failed: false,
        }
    }

    /// Bytes of all segments.
    fn bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.bytes).sum();
        sealed + self.active.map_or(0, |(_, bytes)| bytes)
    }
}

/// Says that this process writes, for as long as it lives.
struct Lock {
    _held: Box<dyn Send + Sync>,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

const MOST_SEGMENT_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests;
