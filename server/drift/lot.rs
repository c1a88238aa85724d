//! Which rows are looked at: one of so many, at random, and about so many a second.
//!
//! Rows are numbered as they are answered, and cut into stretches of equal length; one row of each stretch is drawn. So
//! every row is as likely to be drawn as the next one, whoever sends it, alone or with a thousand others, and in
//! whatever rhythm requests come. Stretches are powers of two, so that it costs a request no division.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use xxhash_rust::xxh3::xxh3_64;

/// Draws rows of one version.
#[derive(Debug)]
pub(super) struct Lot {
    /// Rows a second that are wanted.
    wanted: NonZeroU32,
    /// Rows that were answered.
    answered: AtomicU64,
    /// The logarithm of a stretch's length.
    bits: AtomicU32,
}

/// What is known at the end of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// Rows that were answered by then.
    answered: u64,
    /// Rows a second, as they are expected.
    rate: f64,
}

impl Lot {
    /// Until its first turn it takes rows to come at [`FIRST_RATE`].
    pub(super) fn new(wanted: NonZeroU32) -> Self {
        let bits = AtomicU32::new(bits(FIRST_RATE, wanted));
        Self { wanted, answered: AtomicU64::new(0), bits }
    }

    /// Which of the next `rows` rows are drawn, ascending from 0.
    pub(super) fn draw(&self, rows: usize) -> Vec<usize> {
        let first = self.answered.fetch_add(rows as u64, Relaxed);
        drawn(first, rows, self.bits.load(Relaxed)).collect()
    }

    /// Sees to it that no more rows are drawn from now on than are wanted, and more than half as many where there are, by
    /// what was answered in the `time` since the `last` turn. A lull makes it forget a rate only slowly: rows that come in bursts must not all be drawn.
    pub(super) fn turn(&self, last: Turn, time: Duration) -> Turn {
        let answered = self.answered.load(Relaxed);
        let found = answered.saturating_sub(last.answered) as f64 / time.as_secs_f64().max(1e-3);
        let rate = found.max(last.rate * KEPT.powf(time.as_secs_f64()));
        self.bits.store(bits(rate, self.wanted), Relaxed);
        Turn { answered, rate }
    }
}

/// The logarithm of how long stretches must be for one row of each to be no more a second than are wanted.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 on, and far below 64")]
fn bits(rate: f64, wanted: NonZeroU32) -> u32 {
    (rate / f64::from(wanted.get())).max(1.0).log2().ceil() as u32
}

/// The rows that are drawn of `rows` from number `first` on, of stretches with a length of two to the power of `bits`.
fn drawn(first: u64, rows: usize, bits: u32) -> impl Iterator<Item = usize> {
    let (end, rest) = (first + rows as u64, (1 << bits) - 1);
    let numbers = (first >> bits..(end + rest) >> bits).map(move |number| {
        // Where in its stretch it is follows from the stretch, so whoever has another part of it draws no other.
        (number << bits) + (xxh3_64(&number.to_le_bytes()) & rest)
    });
    let own = numbers.filter(move |number| (first..end).contains(number));
    own.filter_map(move |number| usize::try_from(number - first).ok())
}

/// What is left of a rate after a second without rows.
const KEPT: f64 = 0.95;
/// Rows a second that a version is taken to answer before anybody knows. Too many, and it takes a while until the first rows
/// of a quiet one are looked at; too few, and those of a busy one come all at once.
const FIRST_RATE: f64 = 10_000.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lot(wanted: u32) -> Lot {
        Lot::new(NonZeroU32::new(wanted).expect("some"))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn all_rows_are_drawn_while_they_are_few_and_then_as_many_as_are_wanted() {
        let lot = lot(50);
        assert_eq!(lot.draw(1_024).len(), 4);
        let mut turn = (0..120).fold(Turn::default(), |turn, _| lot.turn(turn, SECOND));
        assert_eq!(lot.draw(3), [0, 1, 2], "3 a second are fewer than 50");
        for (a_second, expected) in [(10_000, 35..=43), (100, 0..=2)] {
            lot.draw(a_second);
            turn = lot.turn(turn, SECOND);
            let drawn: usize = (0..a_second).map(|_| lot.draw(1).len()).sum();
            assert!(expected.contains(&drawn), "{drawn} of {a_second}");
            turn = lot.turn(turn, SECOND);
        }
        // Two minutes later the ten thousand are forgotten.
        for _ in 0..120 {
            lot.draw(100);
            turn = lot.turn(turn, SECOND);
        }
        assert_eq!(lot.draw(100).len(), 50);
    }

    #[test]
    fn requests_in_any_rhythm_are_drawn_alike() {
        // Four rows come one after the other again and again, so every 256th would always be of the same place.
        let lot = lot(1);
        lot.draw(256);
        lot.turn(Turn::default(), SECOND);
        let mut places = [0; 4];
        for row in 0..256_000 {
            places[row % 4] += lot.draw(1).len();
        }
        assert!(places.iter().all(|&drawn| (200..=300).contains(&drawn)), "{places:?}");
    }

    proptest! {
        #[test]
        fn one_row_of_each_stretch_is_drawn_however_requests_cut_it(
            sizes in prop::collection::vec(1usize..400, 1..40), bits in 0u32..10,
        ) {
            let mut first = 0;
            let mut found = Vec::new();
            for rows in sizes {
                found.extend(drawn(first, rows, bits).map(|row| first + row as u64));
                first += rows as u64;
            }
            let whole = first >> bits;
            let stretches: Vec<u64> = found.iter().map(|number| number >> bits).collect();
            prop_assert_eq!(&stretches[..usize::try_from(whole).expect("few")], (0..whole).collect::<Vec<_>>());
            prop_assert!(stretches.len() as u64 <= whole + 1);
        }
    }
}
