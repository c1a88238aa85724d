//! Records in the order in which they were appended, for replay and export. Nothing is skipped without a word: what
//! cannot be read comes as an error in its place, after which the reader goes on.

use std::{collections::VecDeque, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    Flaw, LogError,
    segment::{self, Position, Records, Tail},
    store::{self, Disk, Store},
};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place among all records.
    pub seq: u64,
    /// What was appended.
    pub payload: Bytes,
}

/// Goes over the records of all segments. Holds one segment in memory.
#[derive(Debug)]
pub struct Reader {
    store: Arc<dyn Store>,
    /// First sequence numbers of the segments to come.
    segments: VecDeque<u64>,
    /// The segment at hand.
    open: Option<Open>,
    /// The sequence number that the next segment should begin with; `None` where an error has said so already.
    next_seq: Option<u64>,
    from: u64,
    /// The sequence number to stop at.
    end: Option<u64>,
}

#[derive(Debug)]
struct Open {
    file: String,
    bytes: Bytes,
    position: Position,
}

impl Reader {
    /// The records from the sequence number `from` on of the log in `folder`, whether a process writes to it or not. Of
    /// one that does it may see records that are not on disk yet, or only parts of them;
    /// [`Log::read`](super::Log::read) does not.
    ///
    /// Where the oldest record is a later one than `from`, the first item is [`LogError::Missing`].
    pub fn open(folder: &Path, from: u64) -> Result<Self, LogError> {
        let disk = Disk::open(folder).map_err(LogError::io("opening", &folder.display().to_string()))?;
        Self::over(Arc::new(disk), from, None)
    }

    pub(super) fn over(store: Arc<dyn Store>, from: u64, end: Option<u64>) -> Result<Self, LogError> {
        // The first record of all is 1.
        let from = from.max(1);
        let mut segments = first_seqs(&*store)?;
        let before = segments.partition_point(|first| *first <= from);
        segments.drain(..before.saturating_sub(1));
        let segments = segments.into();
        Ok(Self { store, segments, open: None, next_seq: Some(from), from, end })
    }

    /// The next record of the segment at hand, or what is wrong at its end.
    fn entry(&mut self) -> Option<Result<Entry, LogError>> {
        let open = self.open.as_mut()?;
        let mut records = Records::from(&open.bytes, open.position);
        let record = records.by_ref().find(|record| record.seq >= self.from);
        open.position = records.position();
        match record {
            Some(record) if self.end.is_none_or(|end| record.seq < end) => {
                return Some(Ok(Entry { seq: record.seq, payload: open.bytes.slice_ref(record.payload) }));
            }
            Some(_) => self.segments.clear(),
            None => {}
        }
        let next_seq = open.position.next_seq;
        // Past the end the writer may be at work.
        let is_over = self.end.is_some_and(|end| next_seq >= end);
        let flaw = match records.tail() {
            _ if is_over => None,
            Tail::Corrupt(flaw) => Some(flaw),
            // Where something follows it was whole once.
            Tail::Torn if !self.segments.is_empty() => Some(Flaw::Record),
            Tail::Torn | Tail::Open | Tail::Sealed => None,
        };
        let Open { file, position, .. } = self.open.take()?;
        // After a flaw nobody knows what should come next.
        self.next_seq = flaw.is_none().then_some(next_seq.max(self.from));
        flaw.map(|flaw| Err(LogError::Corrupt { file, offset: position.at as u64, flaw }))
    }

    /// Goes on to the next segment, or to the end; what is missing before either.
    fn advance(&mut self) -> Option<Result<(), LogError>> {
        let next = self.segments.front().copied().filter(|next| self.end.is_none_or(|end| *next < end));
        if let Some(from) = self.next_seq.take()
            && let Some(next) = next.or(self.end).filter(|next| from < *next)
        {
            return Some(Err(LogError::Missing { from, next }));
        }
        let first_seq = next?;
        self.segments.pop_front();
        Some(self.load(first_seq))
    }

    fn load(&mut self, first_seq: u64) -> Result<(), LogError> {
        let name = segment::name(first_seq);
        let file = self.store.open(&name).map_err(LogError::io("opening", &name))?;
        let bytes = Bytes::from(store::read_all(&*file).map_err(LogError::io("reading", &name))?);
        match Records::new(&bytes, first_seq).map(|records| records.position()) {
            Ok(position) => {
                self.open = Some(Open { file: name, bytes, position });
                Ok(())
            }
            Err(_) if self.segments.is_empty() && segment::is_unborn(&bytes) => Ok(()),
            Err(flaw) => Err(LogError::Corrupt { file: name, offset: 0, flaw }),
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entry() {
                return Some(entry);
            }
            if let Err(error) = self.advance()? {
                return Some(Err(error));
            }
        }
    }
}

/// The first sequence numbers of all segments, in order.
pub(super) fn first_seqs(store: &dyn Store) -> Result<Vec<u64>, LogError> {
    let names = store.list().map_err(LogError::io("listing", "the folder"))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment::first_seq(name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}
