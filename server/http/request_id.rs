//! The id that ties an answer to its request: the client's own where it gave one, else one that is made here.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

/// The header that carries it, in requests and in answers.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a client; the id of one that sends a longer one is made here.
const MAX_BYTES: usize = 128;

/// Makes ids: a random number of this server, and a count.
#[derive(Debug)]
pub(super) struct RequestIds {
    server: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        // The standard library's keys of a hash map are the one source of randomness that needs no crate.
        Self { server: RandomState::new().hash_one(()), next: AtomicU64::new(0) }
    }

    /// The id of a request with these headers.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(REQUEST_ID) {
            Some(id) if (1..=MAX_BYTES).contains(&id.len()) => id.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [b'-'; 33];
        hex(self.server, &mut id[..16]);
        hex(count, &mut id[17..]);
        HeaderValue::from_bytes(&id).expect("hexadecimal digits and a dash")
    }
}

/// Sixteen hexadecimal digits of `number`.
fn hex(number: u64, digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = number.to_be_bytes();
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_within_a_server_and_between_servers() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        let none = HeaderMap::new();
        let ids = [one.of(&none), one.of(&none), other.of(&none)];
        assert_eq!(ids[0].len(), 33);
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
        assert!(ids[1].to_str().expect("text").ends_with("-0000000000000001"), "{ids:?}");
    }

    #[test]
    fn a_clients_id_is_kept_unless_it_is_empty_or_too_long() {
        let ids = RequestIds::new();
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("abc"));
        assert_eq!(ids.of(&headers), "abc");
        for id in [String::new(), "x".repeat(MAX_BYTES + 1)] {
            headers.insert(REQUEST_ID, id.parse().expect("a header"));
            assert_eq!(ids.of(&headers).len(), 33);
        }
    }
}
