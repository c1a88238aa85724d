//! A segment: its name, its header and footer, and what is in its bytes, pure.
//!
//! A header of 32 bytes: magic, format version, random id, first sequence number, CRC-32C of these. Then records, then
//! zeros up to the reserved length; or, once sealed, a footer with the number of records and the CRC-32C of all before
//! it, and the end of the file.

use super::{
    Flaw,
    frame::{FRAME_HEADER_BYTES, Frame, Kind},
};

/// Bytes of a segment before its first record.
pub(super) const HEADER_BYTES: usize = 32;

/// Bytes of the last frame of a sealed segment.
pub(super) const FOOTER_BYTES: usize = FRAME_HEADER_BYTES + 12;

/// The file name of the segment whose first record is `first_seq`.
pub(super) fn name(first_seq: u64) -> String {
    format!("{first_seq:020}.log")
}

/// The name of the marker that says that a segment's records have gone where they are wanted.
pub(super) fn marker(first_seq: u64) -> String {
    format!("{first_seq:020}.exported")
}

/// The first sequence number of the segment that has this file name.
pub(super) fn first_seq(file: &str) -> Option<u64> {
    numbered(file, ".log")
}

/// The first sequence number of the segment that this is the marker of.
pub(super) fn marks(file: &str) -> Option<u64> {
    numbered(file, ".exported")
}

fn numbered(file: &str, ending: &str) -> Option<u64> {
    let digits = file.strip_suffix(ending)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// How a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Random, so that no frame of another segment checks out in this one.
    pub(super) id: u64,
    pub(super) first_seq: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.id.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.first_seq.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header that the segment named for `first_seq` begins with.
    pub(super) fn read(bytes: &[u8], first_seq: u64) -> Result<Self, Flaw> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Flaw::Header)?;
        let at = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("within the header"));
        let found = Self { id: at(12), first_seq: at(20) };
        if header[8..12] != FORMAT.to_le_bytes()
            && crc32c::crc32c(&header[..28]).to_le_bytes() == header[28..]
        {
            return Err(Flaw::Format);
        }
        if found.encode() != *header {
            return Err(Flaw::Header);
        }
        if found.first_seq == first_seq { Ok(found) } else { Err(Flaw::Name) }
    }
}

/// What a footer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Sequence number after the last record's.
    pub(super) next_seq: u64,
    pub(super) records: u64,
    /// CRC-32C of all bytes before it.
    pub(super) sum: u32,
}

impl Footer {
    pub(super) fn encode(self, id: u64) -> Vec<u8> {
        let payload = [&self.records.to_le_bytes()[..], &self.sum.to_le_bytes()].concat();
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        Frame { kind: Kind::Footer, seq: self.next_seq, nth: 0, payload: &payload }.put(id, &mut bytes);
        bytes
    }

    /// The footer of the segment with this header that `bytes` start with.
    pub(super) fn read(bytes: &[u8], header: Header) -> Result<Self, Flaw> {
        let frame = Frame::read(header.id, bytes).filter(|frame| frame.kind == Kind::Footer);
        let footer = frame.and_then(|frame| Self::of(&frame)).ok_or(Flaw::Footer)?;
        let counted = header.first_seq.checked_add(footer.records);
        if counted == Some(footer.next_seq) { Ok(footer) } else { Err(Flaw::Footer) }
    }

    fn of(frame: &Frame<'_>) -> Option<Self> {
        let (records, rest) = frame.payload.split_first_chunk()?;
        let sum = rest.try_into().ok()?;
        Some(Self {
            next_seq: frame.seq,
            records: u64::from_le_bytes(*records),
            sum: u32::from_le_bytes(sum),
        })
    }
}

/// A record where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) seq: u64,
    pub(super) payload: &'a [u8],
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// With nothing: zeros, or the end of the file.
    Open,
    /// With a footer that is true of them.
    Sealed,
    /// With the remains of a write that was never acknowledged.
    Torn,
    /// Where a record should be that was on disk once.
    Corrupt(Flaw),
}

/// How far somebody has read a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) header: Header,
    /// Bytes up to the next record.
    pub(super) at: usize,
    /// The sequence number of the next record.
    pub(super) next_seq: u64,
}

/// Goes over the records of a segment; [`Records::tail`] says how they end.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    position: Position,
}

impl<'a> Records<'a> {
    /// Those of the segment named for `first_seq`, whose bytes these are.
    pub(super) fn new(bytes: &'a [u8], first_seq: u64) -> Result<Self, Flaw> {
        let header = Header::read(bytes, first_seq)?;
        Ok(Self::from(bytes, Position { header, at: HEADER_BYTES, next_seq: first_seq }))
    }

    /// Goes on where somebody has come to in the same bytes.
    pub(super) fn from(bytes: &'a [u8], position: Position) -> Self {
        Self { bytes, position }
    }

    /// Where they go on.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// How they end, once [`Iterator::next`] has found no more.
    pub(super) fn tail(&self) -> Tail {
        let rest = &self.bytes[self.position.at..];
        if is_zero(rest) {
            return Tail::Open;
        }
        match Frame::read(self.position.header.id, rest) {
            Some(frame) if frame.kind == Kind::Footer => self.sealed(&frame),
            Some(_) => Tail::Corrupt(Flaw::Sequence),
            None => self.torn(&rest[1..]),
        }
    }

    fn sealed(&self, frame: &Frame<'_>) -> Tail {
        let rest = &self.bytes[self.position.at..];
        match Footer::read(rest, self.position.header) {
            Ok(footer) if footer.next_seq != self.position.next_seq => Tail::Corrupt(Flaw::Sequence),
            Ok(footer) if footer.sum != crc32c::crc32c(&self.bytes[..self.position.at]) => {
                Tail::Corrupt(Flaw::Sum)
            }
            // Zeros are left where a crash came between the footer and the cut.
            Ok(_) if is_zero(&rest[frame.bytes()..]) => Tail::Sealed,
            Ok(_) => Tail::Corrupt(Flaw::AfterFooter),
            Err(flaw) => Tail::Corrupt(flaw),
        }
    }

    /// Whether what is missing was on disk once: so says any frame of a later write. Those of the same write may be
    /// there without it, because a disk may write in any order up to a sync.
    fn torn(&self, after: &[u8]) -> Tail {
        match Frame::find(self.position.header.id, after, |frame| frame.write() > self.position.next_seq) {
            Some(_) => Tail::Corrupt(Flaw::Record),
            None => Tail::Torn,
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let frame = Frame::read(self.position.header.id, &self.bytes[self.position.at..])?;
        if frame.kind != Kind::Record || frame.seq != self.position.next_seq {
            return None;
        }
        self.position.at += frame.bytes();
        self.position.next_seq += 1;
        Some(Record { seq: frame.seq, payload: frame.payload })
    }
}

/// Whether a segment with a bad header was never finished, and so never had a record: nothing follows the header.
pub(super) fn is_unborn(bytes: &[u8]) -> bool {
    bytes.get(HEADER_BYTES..).is_none_or(is_zero)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

const MAGIC: &[u8; 8] = b"MILLRLOG";
const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of writes of so many records each, without a footer.
    pub(super) fn segment(writes: &[u32]) -> Vec<u8> {
        let header = Header { id: 99, first_seq: 5 };
        let mut bytes = header.encode().to_vec();
        let mut seq = 5;
        for records in writes {
            for nth in 0..*records {
                let payload = vec![b'p'; usize::try_from(seq).expect("small")];
                Frame { kind: Kind::Record, seq, nth, payload: &payload }.put(99, &mut bytes);
                seq += 1;
            }
        }
        bytes
    }

    fn sealed(writes: &[u32]) -> Vec<u8> {
        let mut bytes = segment(writes);
        let records = u64::from(writes.iter().sum::<u32>());
        let footer = Footer { next_seq: 5 + records, records, sum: crc32c::crc32c(&bytes) };
        bytes.extend(footer.encode(99));
        bytes
    }

    fn scanned(bytes: &[u8]) -> (usize, Tail) {
        let mut records = Records::new(bytes, 5).expect("a header");
        (records.by_ref().count(), records.tail())
    }

    #[test]
    fn what_was_written_is_read() {
        let open = segment(&[2, 3]);
        assert_eq!(scanned(&open), (5, Tail::Open));
        assert_eq!(scanned(&[open.clone(), vec![0; 900]].concat()), (5, Tail::Open));
        assert_eq!(scanned(&sealed(&[2, 3])), (5, Tail::Sealed));
        assert_eq!(scanned(&[sealed(&[2, 3]), vec![0; 900]].concat()), (5, Tail::Sealed));
        assert_eq!(scanned(&[sealed(&[2]), vec![1]].concat()), (2, Tail::Corrupt(Flaw::AfterFooter)));
    }

    #[test]
    fn a_tail_of_any_length_is_torn_and_all_before_it_is_read() {
        let (whole, synced) = (segment(&[2, 3]), segment(&[2]).len());
        let ends: Vec<usize> = (1..=3).map(|last| segment(&[2, last]).len()).collect();
        for length in synced..whole.len() {
            let mut bytes = whole[..length].to_vec();
            let records = 2 + ends.iter().filter(|end| **end <= length).count();
            let is_whole = length == synced || ends.contains(&length);
            let expected = if is_whole { Tail::Open } else { Tail::Torn };
            assert_eq!(scanned(&bytes), (records, expected), "{length}");
            bytes.resize(4096, 0);
            assert_eq!(scanned(&bytes).0, records, "{length}, with zeros after it");
            assert!(matches!(scanned(&bytes).1, Tail::Open | Tail::Torn), "{length}, with zeros after it");
        }
    }

    #[test]
    fn a_hole_is_a_tear_in_the_last_write_and_corruption_in_any_before() {
        let at = segment(&[2]).len() + 3;
        let mut last = segment(&[2, 3]);
        last[at] ^= 1;
        assert_eq!(scanned(&last), (2, Tail::Torn));
        let mut before = segment(&[2, 1, 2]);
        before[at] ^= 1;
        assert_eq!(scanned(&before), (2, Tail::Corrupt(Flaw::Record)));
    }

    #[test]
    fn any_changed_byte_of_a_sealed_segment_is_found() {
        let good = sealed(&[2, 1]);
        for at in 0..good.len() {
            for flip in [0xff, 0x01] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let tail = Records::new(&bad, 5).map(|mut records| {
                    records.by_ref().for_each(drop);
                    records.tail()
                });
                assert_ne!(tail, Ok(Tail::Sealed), "byte {at} by {flip}");
            }
        }
    }

    #[test]
    fn a_segment_is_named_for_its_first_record() {
        assert_eq!(first_seq(&name(17)), Some(17));
        assert_eq!(marks(&marker(u64::MAX)), Some(u64::MAX));
        for other in ["17.log", "0000000000000000001x.log", "+0000000000000000017.log", "lock"] {
            assert_eq!(first_seq(other), None, "{other}");
        }
        assert_eq!(Header::read(&segment(&[]), 6), Err(Flaw::Name));
    }
}
