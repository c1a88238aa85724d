//! What an answer leaves with the caller, so that a label can be put to it later, by any replica: the version, the time and
//! the scores, sealed.
//!
//! A receipt is text without anything that a header, a URL or JSON would escape: the URL-safe alphabet of Base64 without
//! padding. What it says can be read by whoever looks; it cannot be changed, or made, without a key. Its bytes,
//! little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 1 | format, [`FORMAT`] |
//! | 4 | number of the key |
//! | 8 | time of the answer, in milliseconds since 1970 |
//! | 8 | serial: no two receipts of a key have the same but by a chance of one in 2^64 |
//! | 8 | version |
//! | 1 + n | model, its length first |
//! | 2 × rows | each score, in units of 1 / 65535 |
//! | 16 | the first half of BLAKE3 of all of this under the key |

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Keys;

/// The most rows that a receipt is of. It takes less than 3 KB then, which proxies still pass on in a header.
pub const MAX_ROWS: usize = 1_000;

const FORMAT: u8 = 1;
const SEAL_BYTES: usize = 16;
/// All but model, scores and seal.
const FIXED_BYTES: usize = 1 + 4 + 8 + 8 + 8 + 1;
const MAX_NAME_BYTES: usize = 255;
/// The longest text that can be a receipt.
const MAX_CHARS: usize = (FIXED_BYTES + MAX_NAME_BYTES + 2 * MAX_ROWS + SEAL_BYTES).div_ceil(3) * 4;
/// One score of 1.
const UNIT: f32 = 65_535.0;

/// Why an answer has no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// There are more rows than a receipt is of.
    #[error("a receipt is of {MAX_ROWS} rows at most")]
    TooManyRows,
    /// The model's scores are of another kind.
    #[error("row {row}: the score is no probability, which a receipt is of")]
    NotProbability {
        /// The row, from 0.
        row: usize,
    },
}

/// Why something is no receipt of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It is no receipt at all, or of a format that this server does not know.
    #[error("the receipt is malformed")]
    Malformed,
    /// It was sealed with a key that this server does not have.
    #[error("the receipt is of another server, or of a key that is no longer taken")]
    Foreign,
    /// It was changed, or made without the key.
    #[error("the receipt was tampered with")]
    Tampered,
    /// It is older than receipts are taken.
    #[error("the receipt has expired")]
    Expired,
}

/// What an answer was.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// When it was given, since 1970, in whole milliseconds.
    pub time: Duration,
    /// Tells it from every other.
    pub serial: u64,
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// The score of each row, within 1 / 131070 of what was answered.
    pub scores: Vec<f32>,
}

/// Makes receipts.
#[derive(Debug)]
pub struct Issuer {
    keys: Arc<Keys>,
    /// Begins anywhere, so that replicas and restarts do not meet.
    serial: AtomicU64,
}

impl Issuer {
    /// Signs with the first of `keys`.
    pub fn new(keys: Arc<Keys>) -> Self {
        Self { keys, serial: AtomicU64::new(RandomState::new().hash_one(FORMAT)) }
    }

    /// The receipt of an answer of `version` of `model`, given at `time` since 1970.
    ///
    /// # Panics
    /// When the model's name is longer than 255 bytes.
    pub fn issue(
        &self,
        (model, version): (&str, u64),
        time: Duration,
        scores: impl ExactSizeIterator<Item = f32>,
    ) -> Result<String, IssueError> {
        if scores.len() > MAX_ROWS {
            return Err(IssueError::TooManyRows);
        }
        let key = self.keys.signing();
        let name = u8::try_from(model.len()).expect("a model's name has 128 bytes at most");
        let mut bytes = Vec::with_capacity(FIXED_BYTES + model.len() + 2 * scores.len() + SEAL_BYTES);
        bytes.push(FORMAT);
        bytes.extend(key.number().to_le_bytes());
        bytes.extend(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend(self.serial.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        bytes.extend(version.to_le_bytes());
        bytes.push(name);
        bytes.extend(model.as_bytes());
        for (row, score) in scores.enumerate() {
            bytes.extend(quantised(score).ok_or(IssueError::NotProbability { row })?.to_le_bytes());
        }
        let seal = key.seal(&bytes);
        bytes.extend(&seal.as_bytes()[..SEAL_BYTES]);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl Receipt {
    /// What `text` says, if it was sealed with one of `keys` and, at `now` since 1970, no longer ago than `max_age`.
    pub fn open(text: &str, keys: &Keys, now: Duration, max_age: Duration) -> Result<Self, ReceiptError> {
        // Nobody gets a megabyte decoded to hear that it is none.
        if text.len() > MAX_CHARS {
            return Err(ReceiptError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ReceiptError::Malformed)?;
        let (sealed, seal) = bytes.split_last_chunk::<SEAL_BYTES>().ok_or(ReceiptError::Malformed)?;
        let (number, _) = key_number(sealed).ok_or(ReceiptError::Malformed)?;
        let key = keys.find(number).ok_or(ReceiptError::Foreign)?;
        let expected = key.seal(sealed);
        let expected = expected.as_bytes().first_chunk::<SEAL_BYTES>().expect("a hash is longer");
        // In constant time, or the seal could be guessed byte by byte.
        if !constant_time_eq::constant_time_eq_16(expected, seal) {
            return Err(ReceiptError::Tampered);
        }
        let receipt = Self::parse(sealed).ok_or(ReceiptError::Malformed)?;
        if now.saturating_sub(receipt.time) > max_age {
            return Err(ReceiptError::Expired);
        }
        Ok(receipt)
    }

    fn parse(sealed: &[u8]) -> Option<Self> {
        let (_, rest) = key_number(sealed)?;
        let (time, rest) = rest.split_first_chunk()?;
        let (serial, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (&length, rest) = rest.split_first()?;
        let (model, scores) = rest.split_at_checked(usize::from(length))?;
        let (scores, odd) = scores.as_chunks();
        odd.is_empty().then_some(Self {
            time: Duration::from_millis(u64::from_le_bytes(*time)),
            serial: u64::from_le_bytes(*serial),
            model: str::from_utf8(model).ok()?.to_owned(),
            version: u64::from_le_bytes(*version),
            scores: scores.iter().map(|&score| f32::from(u16::from_le_bytes(score)) / UNIT).collect(),
        })
    }
}

/// The number of the key in a receipt of the format that we know, and what follows.
fn key_number(sealed: &[u8]) -> Option<(u32, &[u8])> {
    let (&format, rest) = sealed.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    (format == FORMAT).then(|| (u32::from_le_bytes(*number), rest))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 65535")]
fn quantised(score: f32) -> Option<u16> {
    (0.0..=1.0).contains(&score).then(|| (score * UNIT).round() as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::keys::tests::keys, *};

    const NOW: Duration = Duration::from_millis(1_795_000_000_123);
    const DAY: Duration = Duration::from_hours(24);

    fn issuer() -> Issuer {
        Issuer::new(Arc::new(keys(&['a'])))
    }

    fn issue(issuer: &Issuer, scores: &[f32]) -> String {
        issuer.issue(("shop", 3), NOW, scores.iter().copied()).expect("probabilities")
    }

    fn open(text: &str) -> Result<Receipt, ReceiptError> {
        Receipt::open(text, &keys(&['a']), NOW, DAY)
    }

    #[test]
    fn a_receipt_says_what_was_answered_and_no_two_are_the_same() {
        let issuer = issuer();
        let (one, other) = (issue(&issuer, &[0.85, 0.0, 1.0]), issue(&issuer, &[0.85, 0.0, 1.0]));
        let receipt = open(&one).expect("ours");
        assert_eq!((&*receipt.model, receipt.version, receipt.time), ("shop", 3, NOW));
        assert_eq!((receipt.scores[1], receipt.scores[2]), (0.0, 1.0));
        assert!((receipt.scores[0] - 0.85).abs() <= 0.5 / UNIT);
        assert_ne!(receipt.serial, open(&other).expect("ours").serial);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{one}");
    }

    #[test]
    fn every_bit_of_it_is_sealed() {
        let text = issue(&issuer(), &[0.5, 0.25]);
        let bytes = URL_SAFE_NO_PAD.decode(&text).expect("base64");
        for bit in 0..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => ReceiptError::Malformed,
                1..5 => ReceiptError::Foreign,
                _ => ReceiptError::Tampered,
            };
            assert_eq!(open(&URL_SAFE_NO_PAD.encode(changed)), Err(expected), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(open(&URL_SAFE_NO_PAD.encode(&bytes[..length])).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn two_keys_live_side_by_side_and_a_third_is_foreign() {
        let text = issue(&issuer(), &[0.5]);
        let open = |digits: &[char]| Receipt::open(&text, &keys(digits), NOW, DAY);
        for taken in [&['a'][..], &['a', 'b'], &['b', 'a']] {
            assert!(open(taken).is_ok(), "{taken:?}");
        }
        assert_eq!(open(&['b', 'c']), Err(ReceiptError::Foreign));
    }

    #[test]
    fn it_expires_and_one_of_a_clock_that_is_ahead_does_not() {
        let text = issue(&issuer(), &[0.5]);
        let open = |now| Receipt::open(&text, &keys(&['a']), now, DAY).map(|_| ());
        assert_eq!(open(NOW + DAY), Ok(()));
        assert_eq!(open(NOW + DAY + Duration::from_millis(1)), Err(ReceiptError::Expired));
        assert_eq!(open(NOW.saturating_sub(DAY)), Ok(()));
    }

    #[test]
    fn only_probabilities_have_one_and_not_too_many() {
        let issuer = issuer();
        let issue = |scores: &[f32]| issuer.issue(("shop", 3), NOW, scores.iter().copied());
        assert_eq!(issue(&[0.5, 1.001]), Err(IssueError::NotProbability { row: 1 }));
        assert_eq!(issue(&[-0.1]), Err(IssueError::NotProbability { row: 0 }));
        assert_eq!(issue(&[f32::NAN]), Err(IssueError::NotProbability { row: 0 }));
        assert_eq!(issue(&[0.5; MAX_ROWS + 1]), Err(IssueError::TooManyRows));
        let longest = issuer.issue((&"m".repeat(255), 3), NOW, [0.5; MAX_ROWS].into_iter());
        let longest = longest.expect("as large as they come");
        assert!(longest.len() <= MAX_CHARS && open(&longest).is_ok(), "{}", longest.len());
    }

    proptest! {
        #[test]
        fn a_score_comes_back_within_half_a_unit(score in 0.0f32..=1.0) {
            let found = open(&issue(&issuer(), &[score])).expect("ours").scores[0];
            prop_assert!((found - score).abs() <= 0.501 / UNIT);
        }

        #[test]
        fn nothing_makes_it_panic_and_nothing_else_is_one(text in "[A-Za-z0-9_=+/-]{0,120}") {
            prop_assert!(open(&text).is_err());
        }
    }
}
