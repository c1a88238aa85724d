//! Whether every byte of a log is as it was written, without changing any.

use std::path::Path;

use super::{
    Flaw, LogError,
    reader::first_seqs,
    segment::{self, FOOTER_BYTES, Records, Tail},
    store::{self, Disk, Store},
};

/// What there is of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The file's name.
    pub file: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Sequence number of its first record.
    pub first_seq: u64,
    /// Records that check out, from the first on.
    pub records: u64,
    /// What it is.
    pub state: State,
    /// Sequence numbers between the segment before and this one that are in neither.
    pub missing: u64,
}

/// What a segment was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Complete, with a footer that is true.
    Sealed,
    /// The last one, which is written to.
    Open,
    /// Not what was written.
    Bad {
        /// Where the first bytes are that cannot be made sense of.
        offset: u64,
        /// What is wrong with them.
        flaw: Flaw,
    },
}

impl Checked {
    /// Whether nothing is wrong with it or missing before it.
    pub fn is_good(&self) -> bool {
        self.missing == 0 && !matches!(self.state, State::Bad { .. })
    }
}

/// Reads every segment of the log in `folder`, oldest first. Of a log that is written to meanwhile, the last may seem
/// torn.
pub fn verify(folder: &Path) -> Result<Vec<Checked>, LogError> {
    let disk = Disk::open(folder).map_err(LogError::io("opening", &folder.display().to_string()))?;
    over(&disk)
}

pub(super) fn over(store: &dyn Store) -> Result<Vec<Checked>, LogError> {
    let firsts = first_seqs(store)?;
    let last = firsts.last().copied();
    let mut checked: Vec<Checked> = Vec::with_capacity(firsts.len());
    for first_seq in firsts {
        let mut found = check(store, first_seq, Some(first_seq) == last)?;
        if let Some(before) = checked.last() {
            found.missing = first_seq.saturating_sub(before.first_seq + before.records);
        }
        checked.push(found);
    }
    Ok(checked)
}

fn check(store: &dyn Store, first_seq: u64, is_last: bool) -> Result<Checked, LogError> {
    let file = segment::name(first_seq);
    let opened = store.open(&file).map_err(LogError::io("opening", &file))?;
    let bytes = store::read_all(&*opened).map_err(LogError::io("reading", &file))?;
    let (records, state) = match Records::new(&bytes, first_seq) {
        Ok(mut records) => {
            let counted = records.by_ref().count() as u64;
            (counted, state(&records, bytes.len(), is_last))
        }
        Err(flaw) => (0, State::Bad { offset: 0, flaw }),
    };
    Ok(Checked { file, bytes: bytes.len() as u64, first_seq, records, state, missing: 0 })
}

/// What a segment of `bytes` is whose records were all read.
fn state(records: &Records<'_>, bytes: usize, is_last: bool) -> State {
    let bad = |at: usize, flaw| State::Bad { offset: at as u64, flaw };
    let at = records.position().at;
    let end = at + FOOTER_BYTES;
    match records.tail() {
        Tail::Sealed if bytes == end => State::Sealed,
        Tail::Sealed => bad(end, Flaw::AfterFooter),
        Tail::Open if is_last => State::Open,
        Tail::Open => bad(at, Flaw::Footer),
        Tail::Torn if is_last => bad(at, Flaw::Torn),
        Tail::Torn => bad(at, Flaw::Record),
        Tail::Corrupt(flaw) => bad(at, flaw),
    }
}
