//! How a record lies in a segment: bytes to a frame and back, pure.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic, which is not zero, so that zeros are no frame |
//! | 4 | bytes of the payload |
//! | 4 | CRC-32C of the segment's id and of all that follows, the length among it |
//! | 8 | sequence number |
//! | 4 | how many records of the same write stand before this one |
//! | | payload |
//!
//! All little-endian. The segment's id is random and in no payload, so nobody can send one that reads as a frame.
//! A write follows only on the sync of the one before: a frame that checks out says that all before its write was
//! on disk.

/// Bytes of a frame before its payload.
pub(super) const FRAME_HEADER_BYTES: usize = 24;

/// Bytes that the payload of one record may have.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What somebody appended.
    Record,
    /// The last of a sealed segment.
    Footer,
}

impl Kind {
    fn magic(self) -> u32 {
        match self {
            Self::Record => 0x5243_524d,
            Self::Footer => 0x444e_454d,
        }
    }

    fn of(magic: u32) -> Option<Self> {
        [Self::Record, Self::Footer].into_iter().find(|kind| kind.magic() == magic)
    }
}

/// A frame that checks out, or is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    /// Of a footer: that of the next record.
    pub(super) seq: u64,
    /// Records of the same write before this one.
    pub(super) nth: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload.len()
    }

    /// The sequence number of the first record of its write: all before that was synced before this was written.
    pub(super) fn write(&self) -> u64 {
        self.seq.saturating_sub(self.nth.into())
    }

    /// Appends it to `out`, as a frame of the segment `id`.
    ///
    /// # Panics
    /// When the payload is over [`MAX_PAYLOAD_BYTES`].
    pub(super) fn put(&self, id: u64, out: &mut Vec<u8>) {
        assert!(self.payload.len() <= MAX_PAYLOAD_BYTES, "callers refuse larger payloads");
        let length = u32::try_from(self.payload.len()).expect("at most 64 KiB").to_le_bytes();
        let numbers = [&self.seq.to_le_bytes()[..], &self.nth.to_le_bytes()].concat();
        out.extend(self.kind.magic().to_le_bytes());
        out.extend(length);
        out.extend(checksum(id, &length, &[&numbers, self.payload]).to_le_bytes());
        out.extend(numbers);
        out.extend(self.payload);
    }

    /// The frame of the segment `id` that `bytes` start with; `None` where there is none that checks out.
    pub(super) fn read(id: u64, bytes: &'a [u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let kind = Kind::of(u32::from_le_bytes(*magic))?;
        let payload = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if payload > MAX_PAYLOAD_BYTES {
            return None;
        }
        let summed = rest.get(..FRAME_HEADER_BYTES - 12 + payload)?;
        if checksum(id, length, &[summed]) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (seq, rest) = summed.split_first_chunk()?;
        let (nth, payload) = rest.split_first_chunk()?;
        Some(Self { kind, seq: u64::from_le_bytes(*seq), nth: u32::from_le_bytes(*nth), payload })
    }

    /// The first frame of the segment `id` anywhere in `bytes`, for which `wanted` holds.
    pub(super) fn find(id: u64, bytes: &'a [u8], wanted: impl Fn(&Self) -> bool) -> Option<Self> {
        let starts = (0..bytes.len()).filter(|&at| bytes[at] != 0);
        starts.filter_map(|at| Self::read(id, &bytes[at..])).find(wanted)
    }
}

fn checksum(id: u64, length: &[u8], parts: &[&[u8]]) -> u32 {
    let start = crc32c::crc32c_append(crc32c::crc32c(&id.to_le_bytes()), length);
    parts.iter().fold(start, |sum, part| crc32c::crc32c_append(sum, part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(id: u64, frame: Frame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.put(id, &mut out);
        out
    }

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_written(
            id: u64, seq: u64, nth: u32, payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let frame = Frame { kind: Kind::Record, seq, nth, payload: &payload };
            let bytes = framed(id, frame);
            prop_assert_eq!(bytes.len(), frame.bytes());
            prop_assert_eq!(Frame::read(id, &bytes), Some(frame));
            prop_assert_eq!(Frame::read(id, &bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_read(id: u64, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Frame::find(id, &bytes, |_| true), None);
        }
    }

    #[test]
    fn a_frame_of_another_segment_is_none() {
        let frame = Frame { kind: Kind::Record, seq: 7, nth: 2, payload: b"paid" };
        let inner = framed(1, frame);
        let outer = framed(2, Frame { payload: &inner, ..frame });
        assert_eq!(Frame::find(2, &outer[1..], |_| true), None, "a payload cannot pass for a frame");
        assert_eq!(Frame::find(1, &outer[1..], |_| true), Some(frame));
        assert_eq!(frame.write(), 5);
    }
}
