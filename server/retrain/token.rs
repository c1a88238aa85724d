//! What an Alertmanager shows to be heard: a secret in a file. Only its hash is in memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why there is no usable token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
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
    #[error("{0}: a token is one line of {MIN_BYTES} to {MAX_BYTES} visible ASCII characters")]
    Syntax(PathBuf),
}

/// The token.
#[derive(Clone, Copy)]
pub struct Token(blake3::Hash);

impl Token {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let text =
            fs::read_to_string(path).map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).ok_or_else(|| TokenError::Syntax(path.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let token = text.trim_ascii().as_bytes();
        let is_token =
            (MIN_BYTES..=MAX_BYTES).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        is_token.then(|| Self(blake3::hash(token)))
    }

    /// Whether the header `authorization` with this value shows it, in constant time.
    ///
    /// Source: RFC 6750, section 2.1.
    pub fn is_shown_by(&self, authorization: &[u8]) -> bool {
        let (scheme, token) = authorization.split_at(authorization.len().min(SCHEME.len()));
        // Hashes of `blake3` are compared in constant time.
        scheme.eq_ignore_ascii_case(SCHEME) && blake3::hash(token) == self.0
    }
}

const SCHEME: &[u8] = b"Bearer ";

/// Less can be guessed, and more is no token.
const MIN_BYTES: usize = 16;
const MAX_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_as_a_bearer_has_it_and_not_otherwise() {
        let token = Token::parse("  0123456789abcdef\n").expect("a token");
        assert!(
            token.is_shown_by(b"Bearer 0123456789abcdef") && token.is_shown_by(b"bearer 0123456789abcdef")
        );
        for other in [
            &b""[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer 0123456789abcdeF",
            b"Bearer 0123456789abcdef ",
            b"Bearer 0123456789abcde",
            b"Basic 0123456789abcdef",
            b"0123456789abcdef",
        ] {
            assert!(!token.is_shown_by(other), "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdef\n0123456789abcdef"] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
        assert!(Token::read(Path::new("nowhere")).err().expect("no file").to_string().contains("nowhere"));
    }
}
