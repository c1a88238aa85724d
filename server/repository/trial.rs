//! A version that is being tried beside the stable one: who gets it, and how both do meanwhile.
//!
//! A user who comes again gets the same version again, on every replica, as long as requests say who it is: a key is hashed
//! with the version that is tried, so that the next trial draws other users. Requests without a key are dealt out one by one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Candidate, Version};
use crate::quality::Durations;

/// A version that is being tried.
pub struct Trial {
    /// The version and how it is tried.
    pub candidate: Candidate,
    /// It as it is loaded.
    pub version: Arc<Version>,
    /// Of the stable version since this began.
    pub stable: Tally,
    /// Of the one that is tried.
    pub tried: Tally,
    /// Of copies, where it is a shadow.
    pub copies: Copies,
    /// When this began. A trial that goes on after a restart begins anew with it.
    pub began: Instant,
    is_halted: AtomicBool,
    /// Requests without a key.
    dealt: AtomicU64,
}

/// How requests ended, counted by many threads.
#[derive(Debug)]
pub struct Tally {
    answered: [AtomicU32; Durations::BINS],
    faults: AtomicU64,
}

/// A [`Tally`] at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not, whoever was at fault: a version that refuses what the other one takes is no better than one
    /// that breaks.
    pub faults: u64,
    /// How long answers took.
    pub durations: Durations,
}

/// Requests that are copied to a shadow.
#[derive(Debug, Default)]
pub struct Copies {
    open: AtomicUsize,
    dropped: AtomicU64,
    rows: AtomicU64,
    /// Sum of the distances between the scores of both versions, in millionths.
    distance: AtomicU64,
}

/// Room that a copy takes until this is dropped.
pub struct CopyRoom(Arc<Trial>);

impl Trial {
    /// A trial that begins now.
    pub(super) fn new(candidate: Candidate, version: Arc<Version>) -> Self {
        Self {
            candidate,
            version,
            stable: Tally::default(),
            tried: Tally::default(),
            copies: Copies::default(),
            began: Instant::now(),
            is_halted: AtomicBool::new(false),
            dealt: AtomicU64::new(0),
        }
    }

    /// Whether a request is one for the version that is tried: by its key, or else by its turn.
    pub fn takes(&self, key: Option<&[u8]>) -> bool {
        if self.is_halted.load(Ordering::Relaxed) {
            return false;
        }
        let place = match key {
            Some(key) => place(u64::from(self.candidate.version), key),
            // Steps of the golden ratio spread over all places, and any run of turns holds its share.
            None => self.dealt.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN) >> 32,
        };
        self.candidate.share.holds(place)
    }

    /// Sends no more requests to the version that is tried, at once. Whoever decides so says it to the repository as well, which
    /// may be loading something just then.
    pub fn halt(&self) {
        self.is_halted.store(true, Ordering::Relaxed);
    }

    /// Room to copy a request of so many bytes to a shadow; `None`, which is counted, where enough are under way or it is large.
    pub fn copy(self: &Arc<Self>, bytes: usize) -> Option<CopyRoom> {
        let room = CopyRoom(Arc::clone(self));
        if self.copies.open.fetch_add(1, Ordering::Relaxed) < MAX_COPIES && bytes <= MAX_COPY_BYTES {
            return Some(room);
        }
        self.copies.drop_one();
        None
    }
}

impl CopyRoom {
    /// The trial that it is of.
    pub fn trial(&self) -> &Trial {
        &self.0
    }
}

impl Drop for CopyRoom {
    fn drop(&mut self) {
        self.0.copies.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self { answered: [const { AtomicU32::new(0) }; Durations::BINS], faults: AtomicU64::new(0) }
    }
}

impl Tally {
    /// Counts a request that was answered.
    pub fn answered(&self, duration: Duration) {
        self.answered[Durations::bin(duration)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that was not.
    pub fn failed(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn read(&self) -> Tallied {
        let counts = self.answered.each_ref().map(|count| count.load(Ordering::Relaxed));
        let answered = counts.iter().copied().map(u64::from).sum();
        Tallied { answered, faults: self.faults.load(Ordering::Relaxed), durations: Durations::of(counts) }
    }
}

impl Copies {
    /// Counts the scores of rows that both versions have scored.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "probabilities lie within 0 and 1"
    )]
    pub fn compare(&self, stable: &[f32], tried: &[f32]) {
        let distance: f32 = stable.iter().zip(tried).map(|(one, other)| (one - other).abs()).sum();
        self.rows.fetch_add(tried.len() as u64, Ordering::Relaxed);
        self.distance.fetch_add((f64::from(distance) * 1e6) as u64, Ordering::Relaxed);
    }

    /// Counts a copy that nothing came of.
    pub fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were not copied, or whose copies the version had no room or time for: nobody waited for those.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Rows that both versions have scored.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// How far apart the scores of both are in the mean; `None` without rows.
    pub fn mean_distance(&self) -> Option<f64> {
        let rows = self.rows();
        (rows > 0).then(|| self.distance.load(Ordering::Relaxed) as f64 / 1e6 / rows as f64)
    }
}

/// Where a key stands among all, the same on every replica and in every build.
fn place(version: u64, key: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&version.to_le_bytes()).update(key);
    let hash = hasher.finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
}

/// 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Copies that may be under way. A shadow that is too slow for its share is compared on what it can take.
const MAX_COPIES: usize = 64;

/// The largest body that is copied, so that copies take 16 MiB at most.
const MAX_COPY_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_place_and_another_for_each_version() {
        assert_eq!(place(2, b"user 17"), place(2, b"user 17"));
        assert_ne!(place(2, b"user 17"), place(3, b"user 17"));
        // By another implementation of BLAKE3: replicas of every build agree on it.
        assert_eq!(place(2, b"user 17") % 1_000_000, 352_359);
        let share = super::super::Share::try_from(0.2).expect("a share");
        let held = (0..20_000u32).filter(|user| share.holds(place(5, &user.to_le_bytes()))).count();
        assert!((3_800..4_200).contains(&held), "{held} of 20,000 users for a share of 0.2");
        let both = (0..20_000u32)
            .filter(|user| [5, 6].iter().all(|&version| share.holds(place(version, &user.to_le_bytes()))));
        let both = both.count();
        assert!((650..950).contains(&both), "{both} of 20,000 users in two trials running");
    }

    #[test]
    fn a_tally_reads_what_it_counted() {
        let tally = Tally::default();
        tally.answered(Duration::from_millis(2));
        tally.answered(Duration::from_millis(50));
        tally.failed();
        let read = tally.read();
        assert_eq!((read.answered, read.faults, read.durations.longer(Duration::from_millis(10))), (2, 1, 1));
    }

    #[test]
    fn the_distance_of_scores_is_their_mean() {
        let copies = Copies::default();
        assert_eq!(copies.mean_distance(), None);
        copies.compare(&[0.5, 0.25], &[0.25, 0.75]);
        assert!((copies.mean_distance().expect("rows") - 0.375).abs() < 1e-6);
    }
}
