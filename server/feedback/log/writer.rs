//! The one thread that writes: it takes what waits, writes it at once, syncs once, and answers all of it.

use std::{
    io,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use crossbeam::channel::Receiver;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    LogError, Options, Sealed, Shared,
    frame::{Frame, Kind},
    recovery::is_full,
    retention,
    segment::{self, FOOTER_BYTES, Footer, HEADER_BYTES, Header},
    store::{self, File, Store},
};

/// A batch that waits to be written, and the room that it takes in the queue.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: Vec<Bytes>,
    /// Whether the segment ends with it.
    pub(super) seals: bool,
    /// Bytes that it takes on disk.
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Result<Range<u64>, LogError>>,
    pub(super) _permits: [OwnedSemaphorePermit; 2],
}

/// Where a log goes on.
#[derive(Debug)]
pub(super) struct State {
    /// Oldest first.
    pub(super) sealed: Vec<Sealed>,
    /// `None` before the first record, and while there is no room for a segment.
    pub(super) active: Option<Active>,
    pub(super) next_seq: u64,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Box<dyn File>,
    pub(super) header: Header,
    /// Bytes up to the end of its last record.
    pub(super) end: u64,
    /// Bytes that it has on disk.
    pub(super) reserved: u64,
    /// CRC-32C of its bytes up to `end`.
    pub(super) sum: u32,
}

impl Active {
    /// A new segment, on disk with its name. Where that fails for want of room, nothing of it is left.
    pub(super) fn create(store: &dyn Store, first_seq: u64, bytes: u64) -> io::Result<Self> {
        let name = segment::name(first_seq);
        let file = store.create(&name)?;
        if let Err(error) = file.reserve(bytes) {
            store.remove(&name)?;
            return Err(error);
        }
        let header = Header { id: random()?, first_seq };
        let first = header.encode();
        store::write(&*file, &first, 0)?;
        file.sync_all()?;
        store.sync()?;
        let sum = crc32c::crc32c(&first);
        Ok(Self { file, header, end: HEADER_BYTES as u64, reserved: bytes, sum })
    }

    /// Whether `bytes` of records fit in, and the footer after them.
    fn has_room(&self, bytes: usize) -> bool {
        self.end + (bytes + FOOTER_BYTES) as u64 <= self.reserved
    }

    /// Writes `bytes`, and returns when they are on disk, with what the sync took.
    fn write(&mut self, bytes: &[u8]) -> io::Result<Duration> {
        store::write(&*self.file, bytes, self.end)?;
        let start = Instant::now();
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        Ok(start.elapsed())
    }

    fn reserve_footer(&self) -> io::Result<()> {
        self.file.reserve(self.end + FOOTER_BYTES as u64)
    }

    /// Ends it, on disk, with the footer.
    fn seal(&self, next_seq: u64) -> io::Result<Sealed> {
        let Header { id, first_seq } = self.header;
        let footer = Footer { next_seq, records: next_seq - first_seq, sum: self.sum }.encode(id);
        let bytes = self.end + footer.len() as u64;
        store::write(&*self.file, &footer, self.end)?;
        self.file.truncate(bytes)?;
        self.file.sync_all()?;
        Ok(Sealed { id, first_seq, next_seq, bytes, exported: false })
    }
}

/// Writes a log. Tests call [`Writer::commit`] by hand.
#[derive(Debug)]
pub(super) struct Writer {
    store: Arc<dyn Store>,
    options: Options,
    active: Option<Active>,
    next_seq: u64,
    shared: Arc<Shared>,
    /// Room for one write.
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(store: Arc<dyn Store>, options: Options, state: State, shared: Arc<Shared>) -> Self {
        let State { sealed, active, next_seq } = state;
        shared.lock().sealed = sealed;
        let writer = Self { store, options, active, next_seq, shared, buffer: Vec::new() };
        writer.publish(None);
        writer
    }

    /// Writes what comes until nobody can send any more, and all that was sent is answered.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        let mut left = None;
        while let Some(first) = left.take().or_else(|| requests.recv().ok()) {
            let group;
            (group, left) = self.group(first, requests);
            self.answer(group);
        }
    }

    /// What is written with `first`: all that waits and fits into one write, up to one that seals; and the first that is not.
    fn group(&self, first: Request, requests: &Receiver<Request>) -> (Vec<Request>, Option<Request>) {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while group.last().is_some_and(|last| !last.seals)
            && let Ok(next) = requests.try_recv()
        {
            bytes += next.bytes;
            if bytes > self.options.write_bytes.get() {
                return (group, Some(next));
            }
            group.push(next);
        }
        (group, None)
    }

    fn answer(&mut self, group: Vec<Request>) {
        let batches: Vec<&[Bytes]> = group.iter().map(|request| &*request.batch).collect();
        let mut committed = self.commit(&batches);
        if group.last().is_some_and(|last| last.seals) {
            committed = committed.and_then(|first| self.seal().map(|()| first));
        }
        let mut seq = *committed.as_ref().unwrap_or(&0);
        for request in group {
            let first = seq;
            seq += request.batch.len() as u64;
            let answer = committed.clone().map(|_| first..seq);
            // Whoever has stopped waiting does not want to know.
            let _ = request.reply.send(answer);
        }
    }

    /// Puts the batches on disk with one write and one sync. The sequence number of the first record.
    pub(super) fn commit(&mut self, batches: &[&[Bytes]]) -> Result<u64, LogError> {
        self.shared.check()?;
        let records = batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        if records == 0 {
            return Ok(self.next_seq);
        }
        let done = self.write(batches);
        self.shared.lock().full = matches!(done, Err(LogError::Full));
        if let Err(LogError::Failed { source }) = &done {
            self.fail(source);
        }
        let sync = done?;
        let first = self.next_seq;
        self.next_seq += records;
        self.publish(Some(sync));
        Ok(first)
    }

    fn write(&mut self, batches: &[&[Bytes]]) -> Result<Duration, LogError> {
        let payloads = || batches.iter().flat_map(|batch| batch.iter());
        let bytes = payloads().map(|payload| super::FRAME_HEADER_BYTES + payload.len()).sum();
        let mut active = self.segment(bytes)?;
        self.buffer.clear();
        for ((seq, nth), payload) in (self.next_seq..).zip(0..).zip(payloads()) {
            Frame { kind: Kind::Record, seq, nth, payload }.put(active.header.id, &mut self.buffer);
        }
        let done = active.write(&self.buffer).map_err(failed);
        self.active = Some(active);
        done
    }

    /// Ends the segment that is written to, where it has records.
    fn seal(&mut self) -> Result<(), LogError> {
        self.shared.check()?;
        let is_empty = |active: &Active| active.header.first_seq == self.next_seq;
        if self.active.as_ref().is_none_or(is_empty) {
            return Ok(());
        }
        let done = self.end_segment().and_then(|()| self.retain(false));
        if let Err(LogError::Failed { source }) = &done {
            self.fail(source);
        }
        done
    }

    fn fail(&self, source: &Arc<io::Error>) {
        tracing::error!(error = %source, "the feedback log's disk has failed; nothing is accepted until it is opened anew");
        self.shared.failed.get_or_init(|| Arc::clone(source));
    }

    fn end_segment(&mut self) -> Result<(), LogError> {
        let Some(active) = self.active.take() else { return Ok(()) };
        // Opened on a full disk it has no room for its footer.
        if !active.has_room(0) && active.reserve_footer().is_err_and(|error| is_full(&error)) {
            self.active = Some(active);
            return Err(LogError::Full);
        }
        let sealed = active.seal(self.next_seq).map_err(failed)?;
        self.shared.lock().sealed.push(sealed);
        self.publish(None);
        Ok(())
    }

    /// The segment with room for `bytes`: the one there is, or a new one after it.
    fn segment(&mut self, bytes: usize) -> Result<Active, LogError> {
        match self.active.take() {
            Some(active) if active.has_room(bytes) => return Ok(active),
            active => self.active = active,
        }
        self.end_segment()?;
        self.retain(false)?;
        if self.shared.lock().bytes() + self.options.segment_bytes > self.options.max_bytes {
            return Err(LogError::Full);
        }
        let created = Active::create(&*self.store, self.next_seq, self.options.segment_bytes);
        let active = created.map_err(|error| if is_full(&error) { LogError::Full } else { failed(error) })?;
        self.retain(true)?;
        Ok(active)
    }

    /// Deletes what retention lets go. The newest sealed segment stays until there is one after it, for its footer says
    /// which sequence numbers were given.
    fn retain(&self, has_active: bool) -> Result<(), LogError> {
        let (sealed, bytes) = {
            let known = self.shared.lock();
            (known.sealed.clone(), known.bytes() + if has_active { self.options.segment_bytes } else { 0 })
        };
        let eligible = &sealed[..sealed.len().saturating_sub(usize::from(!has_active))];
        let now = SystemTime::now();
        let age = |sealed: &Sealed| {
            let modified = self.store.modified(&segment::name(sealed.first_seq))?;
            // A clock that was set back makes nothing old.
            Ok(now.duration_since(modified).unwrap_or_default())
        };
        let exported = eligible.iter().take_while(|sealed| sealed.exported);
        let ages: Vec<Duration> = exported.map(age).collect::<io::Result<_>>().map_err(failed)?;
        let expired = retention::expired(eligible, &ages, bytes, &self.options);
        eligible[..expired].iter().try_for_each(|sealed| self.delete(sealed.first_seq)).map_err(failed)
    }

    /// Deletes the oldest segment.
    fn delete(&self, first_seq: u64) -> io::Result<()> {
        self.shared.lock().sealed.retain(|sealed| sealed.first_seq != first_seq);
        self.store.remove(&segment::name(first_seq))?;
        self.store.sync()?;
        // The marker last: without it, a segment that is there would be exported twice.
        self.store.remove(&segment::marker(first_seq))
    }

    fn publish(&self, sync: Option<Duration>) {
        let mut known = self.shared.lock();
        known.active = self.active.as_ref().map(|active| (active.header.first_seq, active.reserved));
        known.next_seq = self.next_seq;
        known.last_sync = sync.or(known.last_sync);
    }
}

fn failed(error: io::Error) -> LogError {
    LogError::Failed { source: Arc::new(error) }
}

/// Eight bytes of the system's randomness.
fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // The system gives up to 256 bytes at once.
    if filled == bytes.len() {
        Ok(u64::from_le_bytes(bytes))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
