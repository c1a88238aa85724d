//! Which segments may go, pure: the oldest, where they were exported and are beyond what is kept.

use std::time::Duration;

use super::{Options, Sealed};

/// How many of the `sealed` segments, oldest first, are to be deleted: `ages` gives for each how long ago it was written to,
/// and `bytes` is what all segments have, the one that is written to among them.
///
/// A segment that was not exported stops it, so that what is left has no holes.
pub(super) fn expired(sealed: &[Sealed], ages: &[Duration], mut bytes: u64, options: &Options) -> usize {
    let is_expired = |(sealed, age): &(&Sealed, &Duration)| {
        let beyond = bytes > options.keep_bytes || **age > options.keep_age;
        bytes = bytes.saturating_sub(sealed.bytes);
        sealed.exported && beyond
    };
    sealed.iter().zip(ages).take_while(is_expired).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn segments(exported: &[bool]) -> Vec<Sealed> {
        let sealed = |(index, exported): (usize, &bool)| {
            let first_seq = 1 + 10 * index as u64;
            Sealed { id: first_seq, first_seq, next_seq: first_seq + 10, bytes: 100, exported: *exported }
        };
        exported.iter().enumerate().map(sealed).collect()
    }

    #[test]
    fn what_was_exported_goes_by_size_or_by_age_and_nothing_else_does() {
        let options = Options { keep_bytes: 250, keep_age: DAY, ..Options::default() };
        let young = [Duration::ZERO; 4];
        let old = [2 * DAY, 2 * DAY, DAY, DAY];
        assert_eq!(expired(&segments(&[true; 4]), &young, 400, &options), 2, "by size");
        assert_eq!(expired(&segments(&[true; 2]), &young, 200, &options), 0, "within both");
        assert_eq!(expired(&segments(&[true; 2]), &old, 200, &options), 2, "by age");
        assert_eq!(expired(&segments(&[true, false, true, true]), &old, 900, &options), 1, "no hole is made");
        assert_eq!(expired(&segments(&[false; 4]), &old, 900, &options), 0, "nothing was exported");
    }
}
