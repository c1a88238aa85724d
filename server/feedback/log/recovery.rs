//! Opening a log: what a crash or a bad disk has left, and what is made of it.
//!
//! Of sealed segments the header and the footer are looked at; reading them whole is for
//! [`verify`](super::verify) and readers. The last segment is read whole. What a crash cut short is cut off there;
//! whatever else is wrong puts a segment into quarantine, and is reported.

use std::io;

use super::{
    Flaw, LogError, Options, Sealed,
    segment::{self, FOOTER_BYTES, Footer, HEADER_BYTES, Header, Position, Records, Tail},
    store::{self, File, Store},
    writer::{Active, State},
};

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes of a write that a crash cut short, which are gone. They were never acknowledged.
    pub torn_bytes: u64,
    /// Whether a crash cut short the creation of a segment, which is gone.
    pub torn_creation: bool,
    /// Segments that are not what was written, oldest first. Their records are read no more.
    pub quarantined: Vec<Quarantined>,
}

/// A segment that was moved into `quarantine/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The file's name.
    pub file: String,
    /// Where the first bytes are that cannot be made sense of.
    pub offset: u64,
    /// What is wrong with them.
    pub flaw: Flaw,
}

/// A log that can be written to.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) report: Report,
    pub(super) state: State,
}

/// Repairs the log in `store`, which must be locked.
pub(super) fn recover(store: &dyn Store, options: &Options) -> Result<Recovered, LogError> {
    // What is seen may be on disk or not: a process may have been killed before it synced a name.
    store.sync().map_err(LogError::io("syncing", "the folder"))?;
    let names = store.list().map_err(LogError::io("listing", "the folder"))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment::first_seq(name)).collect();
    firsts.sort_unstable();
    let last = firsts.pop();
    let state = State { sealed: Vec::new(), active: None, next_seq: 1 };
    let mut recovery = Recovery { store, options, recovered: Recovered { report: Report::default(), state } };
    for first_seq in firsts {
        recovery.sealed(first_seq)?;
    }
    if let Some(first_seq) = last {
        recovery.last(first_seq)?;
    }
    recovery.markers(&names)?;
    Ok(recovery.recovered)
}

struct Recovery<'a> {
    store: &'a dyn Store,
    options: &'a Options,
    recovered: Recovered,
}

impl Recovery<'_> {
    /// Takes in a segment that is not the last, and so was sealed before the next one was created.
    fn sealed(&mut self, first_seq: u64) -> Result<(), LogError> {
        let name = segment::name(first_seq);
        let file = self.store.open(&name).map_err(LogError::io("opening", &name))?;
        match check(&*file, first_seq).map_err(LogError::io("reading", &name))? {
            Ok(sealed) => self.recovered.state.sealed.push(sealed),
            Err((offset, flaw)) => self.quarantine(Quarantined { file: name, offset, flaw })?,
        }
        Ok(())
    }

    /// Takes in the last segment, which was written to when a crash came, if one did.
    fn last(&mut self, first_seq: u64) -> Result<(), LogError> {
        let name = segment::name(first_seq);
        let file = self.store.open(&name).map_err(LogError::io("opening", &name))?;
        let bytes = store::read_all(&*file).map_err(LogError::io("reading", &name))?;
        self.recovered.state.next_seq = first_seq;
        let mut records = match Records::new(&bytes, first_seq) {
            Ok(records) => records,
            Err(_) if segment::is_unborn(&bytes) => return self.unborn(&name),
            // Others may know what to do with it.
            Err(flaw @ Flaw::Format) => return Err(LogError::Corrupt { file: name, offset: 0, flaw }),
            Err(flaw) => {
                return self.bad(Quarantined { file: name, offset: 0, flaw }, first_seq, bytes.len());
            }
        };
        records.by_ref().for_each(drop);
        let Position { header, at: end, next_seq } = records.position();
        match records.tail() {
            Tail::Corrupt(flaw) => {
                self.bad(Quarantined { file: name, offset: end as u64, flaw }, first_seq, bytes.len())
            }
            Tail::Sealed => {
                let length = (end + FOOTER_BYTES) as u64;
                let cut = file.truncate(length).and_then(|()| file.sync_all());
                cut.map_err(LogError::io("cutting", &name))?;
                self.recovered.state.sealed.push(Sealed {
                    id: records.position().header.id,
                    first_seq,
                    next_seq,
                    bytes: length,
                    exported: false,
                });
                self.recovered.state.next_seq = next_seq;
                Ok(())
            }
            tail @ (Tail::Open | Tail::Torn) => {
                self.recovered.report.torn_bytes = torn_bytes(tail, &bytes[end..]);
                self.recovered.state.next_seq = next_seq;
                let sum = crc32c::crc32c(&bytes[..end]);
                let active = Active { file, header, end: end as u64, reserved: 0, sum };
                self.go_on(&name, active)
            }
        }
    }

    /// Makes the last segment one to write to. Everything in it is on disk afterwards, and nothing else is in it.
    fn go_on(&mut self, name: &str, active: Active) -> Result<(), LogError> {
        let reserved = self.options.segment_bytes.max(active.end);
        active.file.truncate(active.end).map_err(LogError::io("cutting", name))?;
        let has_room = match active.file.reserve(reserved) {
            Err(error) if is_full(&error) => false,
            done => done.map(|()| true).map_err(LogError::io("reserving", name))?,
        };
        active.file.sync_all().map_err(LogError::io("syncing", name))?;
        // Without room it is as full as it will be: the next append seals it, or waits for room to.
        let reserved = if has_room { reserved } else { active.end };
        self.recovered.state.active = Some(Active { reserved, ..active });
        Ok(())
    }

    /// Deletes a segment that a crash came upon before it was finished. It had no records.
    fn unborn(&mut self, name: &str) -> Result<(), LogError> {
        self.recovered.report.torn_creation = true;
        self.store.remove(name).map_err(LogError::io("deleting", name))?;
        self.store.sync().map_err(LogError::io("syncing", "the folder"))
    }

    /// Goes on in a new segment, after any sequence number that one of so many bytes can have given.
    fn bad(&mut self, found: Quarantined, first_seq: u64, bytes: usize) -> Result<(), LogError> {
        let next_seq = first_seq + (bytes / super::FRAME_HEADER_BYTES) as u64 + 1;
        // First the new one: it is what says, if a crash comes now, which numbers were given.
        let created = Active::create(self.store, next_seq, self.options.segment_bytes);
        let active = match created {
            Err(error) if is_full(&error) => return Err(LogError::Full),
            created => created.map_err(LogError::io("creating", &segment::name(next_seq)))?,
        };
        self.recovered.state.next_seq = next_seq;
        self.recovered.state.active = Some(active);
        self.quarantine(found)
    }

    fn quarantine(&mut self, found: Quarantined) -> Result<(), LogError> {
        let Quarantined { file, offset, flaw } = &found;
        tracing::error!(file, offset, %flaw, "a segment of the feedback log is corrupt, and goes into quarantine");
        self.store.quarantine(file).map_err(LogError::io("moving", file))?;
        self.store.sync().map_err(LogError::io("syncing", "the folder"))?;
        self.recovered.report.quarantined.push(found);
        Ok(())
    }

    /// Notes which segments were exported, and deletes the markers of those that are gone.
    fn markers(&mut self, names: &[String]) -> Result<(), LogError> {
        for first_seq in names.iter().filter_map(|name| segment::marks(name)) {
            let mut sealed = self.recovered.state.sealed.iter_mut();
            if let Some(sealed) = sealed.find(|sealed| sealed.first_seq == first_seq) {
                sealed.exported = true;
            } else {
                let name = segment::marker(first_seq);
                self.store.remove(&name).map_err(LogError::io("deleting", &name))?;
            }
        }
        Ok(())
    }
}

/// What the header and the footer of a sealed segment say, or where they are wrong.
fn check(file: &dyn File, first_seq: u64) -> io::Result<Result<Sealed, (u64, Flaw)>> {
    let bytes = file.bytes()?;
    let header = match Header::read(&store::read(file, 0, HEADER_BYTES)?, first_seq) {
        Ok(header) => header,
        Err(flaw) => return Ok(Err((0, flaw))),
    };
    let at = bytes.saturating_sub(FOOTER_BYTES as u64);
    let footer = Footer::read(&store::read(file, at, FOOTER_BYTES)?, header);
    let sealed = footer.map(|footer| Sealed {
        id: header.id,
        first_seq,
        next_seq: footer.next_seq,
        bytes,
        exported: false,
    });
    Ok(sealed.map_err(|flaw| (at, flaw)))
}

/// Bytes of `rest` up to the zeros at its end.
fn torn_bytes(tail: Tail, rest: &[u8]) -> u64 {
    let last = rest.iter().rposition(|byte| *byte != 0);
    if tail == Tail::Torn { last.map_or(0, |last| last as u64 + 1) } else { 0 }
}

/// Whether there is no room, which is no reason to distrust the disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
