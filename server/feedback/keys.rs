//! The secret that makes a receipt ours, from a file that all replicas share.
//!
//! The file has a key a line, one or two of them, each 64 hexadecimal digits. The first signs and every one is taken, so a
//! key is exchanged without a receipt being refused: every server gets the new key as its second line, then as its first,
//! and once the receipts of the old one have expired it goes.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Why there are no usable keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file is missing or unreadable.
    #[error("{path}: cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be. Nothing of it is quoted: it is secret.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// One or two keys, the first of which signs.
pub struct Keys {
    signing: Key,
    other: Option<Key>,
}

/// A key and its number, which is no secret.
pub(super) struct Key {
    number: u32,
    secret: [u8; blake3::KEY_LEN],
}

impl Keys {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text =
            fs::read_to_string(path).map_err(|source| KeysError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| KeysError::Syntax { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut keys = lines.map(Key::parse).collect::<Option<Vec<_>>>();
        let keys = keys.as_mut().ok_or("a key is a line of 64 hexadecimal digits")?;
        let other = if keys.len() == 2 { keys.pop() } else { None };
        match (keys.pop(), keys.is_empty()) {
            (Some(signing), true) if other.as_ref().is_some_and(|other| other.number == signing.number) => {
                Err("both keys are the same")
            }
            (Some(signing), true) => Ok(Self { signing, other }),
            _ => Err("there must be one key, or two of which the first signs"),
        }
    }

    pub(super) fn signing(&self) -> &Key {
        &self.signing
    }

    pub(super) fn find(&self, number: u32) -> Option<&Key> {
        [Some(&self.signing), self.other.as_ref()].into_iter().flatten().find(|key| key.number == number)
    }
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let secret = *blake3::Hash::from_hex(line).ok()?.as_bytes();
        // Derived in a context of its own, so that the number gives nothing of the key away.
        let number = blake3::derive_key("Millrace 2026-11-27 the number of a receipt key", &secret);
        let number = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
        Some(Self { number, secret })
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// What only who has the key can make of `bytes`.
    pub(super) fn seal(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.secret, bytes)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = self.other.as_ref().map(Key::number);
        f.debug_struct("Keys").field("signing", &self.signing.number).field("other", &other).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn keys(digits: &[char]) -> Keys {
        let lines: Vec<String> = digits.iter().map(|digit| digit.to_string().repeat(64)).collect();
        Keys::parse(&lines.join("\n")).expect("keys")
    }

    #[test]
    fn a_file_has_one_key_or_two_and_the_first_signs() {
        let text = format!("# of November\n{}\n\n  {}\n", "a".repeat(64), "0B".repeat(32));
        let keys = Keys::parse(&text).expect("two keys");
        assert_eq!(keys.signing.secret, [0xaa; 32]);
        let other = keys.other.as_ref().expect("a second key");
        assert_eq!(other.secret, [0x0b; 32]);
        assert!(keys.find(other.number).is_some() && keys.find(keys.signing.number).is_some());
        assert!(keys.find(other.number ^ 1).is_none());
    }

    #[test]
    fn what_is_wrong_is_said_and_the_secret_is_not() {
        let key = "c".repeat(64);
        for (text, reason) in [
            (String::new(), "one key"),
            (format!("{key}\n{}\n{}", "d".repeat(64), "e".repeat(64)), "one key"),
            (format!("{key}\n{key}"), "the same"),
            (key[1..].to_owned(), "64 hexadecimal"),
            (format!("{key}c"), "64 hexadecimal"),
            ("g".repeat(64), "64 hexadecimal"),
        ] {
            let error = Keys::parse(&text).expect_err(&text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        let debug = format!("{:?}", keys(&['c', 'd']));
        assert!(!debug.contains("cccc") && !debug.contains("204"), "{debug}");
        assert!(Keys::read(Path::new("nowhere")).expect_err("no file").to_string().contains("nowhere"));
    }
}
