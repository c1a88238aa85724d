//! The body of a request, read whole within its bounds.
//!
//! Three bounds meet here: the size of one body, the time that it may take, and the bytes of all bodies together. A
//! body that is refused is still read to its end, as far as that is reasonable, after the answer has gone out: a
//! client that writes before it reads would otherwise see a broken connection in place of the answer.

use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::error::HttpError;
use crate::config::HttpLimits;

/// Bytes of bodies that are in memory, and how many may be.
#[derive(Debug)]
pub(super) struct BodyRoom {
    used: AtomicUsize,
    limit: usize,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    room: &'a BodyRoom,
    bytes: usize,
}

impl BodyRoom {
    pub(super) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    /// No room yet, to be added to as a body comes in.
    pub(super) fn enter(&self) -> Taken<'_> {
        Taken { room: self, bytes: 0 }
    }
}

impl Taken<'_> {
    /// Takes room for `bytes` more, or says that there is not that much left.
    fn add(&mut self, bytes: usize) -> Result<(), HttpError> {
        let before = self.room.used.fetch_add(bytes, Ordering::Relaxed);
        // Given back by the drop, whether or not they fit.
        self.bytes += bytes;
        if before.saturating_add(bytes) <= self.room.limit { Ok(()) } else { Err(HttpError::NoRoomForBody) }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body and the room that it takes.
#[derive(Debug)]
pub(super) struct ReadBody<'a> {
    pub(super) bytes: Bytes,
    _room: Taken<'a>,
}

/// Reads the whole of `body`. It takes room for what has come in, not for what was announced: a client that promises
/// much and sends nothing takes none.
///
/// # Cancel safety
/// Dropping the future gives the room back; the body is then half read.
pub(super) async fn read<'a>(
    body: &mut Incoming,
    limits: &HttpLimits,
    room: &'a BodyRoom,
) -> Result<ReadBody<'a>, HttpError> {
    let limit = limits.max_body_bytes.get();
    let announced = body.size_hint().exact().map(usize::try_from);
    if announced.is_some_and(|length| length.map_or(true, |length| length > limit)) {
        return Err(HttpError::BodyTooLarge { limit });
    }
    let mut room = room.enter();
    let timeout = limits.body_read_timeout;
    let bytes = tokio::time::timeout(timeout, collect(body, limit, &mut room));
    let bytes = bytes.await.map_err(|_| HttpError::BodyTimeout(timeout))??;
    Ok(ReadBody { bytes, _room: room })
}

/// The frames of `body` in one piece, which costs no copy where they come as one.
async fn collect(body: &mut Incoming, limit: usize, room: &mut Taken<'_>) -> Result<Bytes, HttpError> {
    let Some(first) = next(body).await? else { return Ok(Bytes::new()) };
    let mut admit = |before: usize, bytes: &Bytes| {
        if before.saturating_add(bytes.len()) > limit {
            return Err(HttpError::BodyTooLarge { limit });
        }
        room.add(bytes.len())
    };
    admit(0, &first)?;
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    while let Some(bytes) = next(body).await? {
        admit(whole.len(), &bytes)?;
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}

/// The next piece of `body`; trailers are passed over.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, HttpError> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(HttpError::BodyBroken),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Reads what is left of a refused body and forgets it, so that the client gets to read the answer. After
/// [`LINGER_BYTES`] or `timeout` it gives up, and the connection is closed.
pub(super) async fn linger(mut body: Incoming, timeout: Duration) {
    let forget = async {
        let mut left = LINGER_BYTES;
        while let Ok(Some(bytes)) = next(&mut body).await {
            let Some(rest) = left.checked_sub(bytes.len()) else { return };
            left = rest;
        }
    };
    // How it ended makes no difference: the answer has gone out.
    let _ = tokio::time::timeout(timeout, forget).await;
}

/// Whether nothing is left to be read of `body`.
pub(super) fn is_at_end(body: &Incoming) -> bool {
    Pin::new(body).is_end_stream()
}

/// What is read of a body that was refused. Beyond it, a client that never looks at answers is cut off.
const LINGER_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let room = BodyRoom::new(10);
        let mut first = room.enter();
        first.add(2).expect("there is room");
        first.add(4).expect("there is room");
        room.enter().add(5).expect_err("there is not that much");
        let mut second = room.enter();
        second.add(4).expect("what did not fit took nothing");
        second.add(1).expect_err("there is none");
        drop((first, second));
        room.enter().add(10).expect("all came back");
    }

    #[test]
    fn room_for_more_than_there_can_be_is_refused() {
        let room = BodyRoom::new(10);
        let mut held = room.enter();
        held.add(5).expect("there is room");
        room.enter().add(usize::MAX / 2).expect_err("there is not that much");
        room.enter().add(5).expect("there is as much as before");
    }
}
