//! The receipt of an answer: a header of it, where the request or the model's configuration asks for one.

use std::time::SystemTime;

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::{Serving, error::HttpError};
use crate::{
    feedback::{IssueError, Issuer, Live, MAX_ROWS},
    repository::Version,
};

/// The header by which a request asks for a receipt, or for none, and in which an answer has it.
pub(super) const RECEIPT: HeaderName = HeaderName::from_static("x-receipt");

/// Makes the receipt of one answer.
#[derive(Clone, Copy)]
pub(super) struct Sealing<'a> {
    issuer: &'a Issuer,
    live: &'a Live,
    /// Whether the request asks for it, and not the configuration alone.
    is_asked: bool,
}

/// Who makes the receipt of the answer to a request with these headers, from `version`; nobody where none is wanted. Says so
/// before anything is computed where there cannot be one.
pub(super) fn sealing<'a>(
    serving: &'a Serving,
    version: &Version,
    headers: &HeaderMap,
) -> Result<Option<Sealing<'a>>, HttpError> {
    let asked = match headers.get(RECEIPT).map(HeaderValue::as_bytes) {
        None => None,
        Some(b"true") => Some(true),
        Some(b"false") => Some(false),
        Some(_) => return Err(HttpError::Flag("x-receipt")),
    };
    if !asked.unwrap_or(version.receipts()) {
        return Ok(None);
    }
    let issuer = serving.issuer.as_ref().ok_or(HttpError::NoReceipts)?;
    Ok(Some(Sealing { issuer, live: &serving.live, is_asked: asked.is_some() }))
}

impl Sealing<'_> {
    /// Fails where the request asks for a receipt of more rows than one is of.
    pub(super) fn admits(self, rows: usize) -> Result<(), HttpError> {
        if self.is_asked && rows > MAX_ROWS { Err(IssueError::TooManyRows.into()) } else { Ok(()) }
    }

    /// The receipt of an answer of `version` that is given now. Where only the configuration asks for one, an answer that cannot
    /// have one is good without.
    pub(super) fn receipt(
        self,
        version: &Version,
        scores: impl ExactSizeIterator<Item = f32>,
    ) -> Result<Option<HeaderValue>, HttpError> {
        let manifest = version.manifest();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let (model, version) = (manifest.model.as_str(), u64::from(manifest.version));
        let rows = scores.len() as u64;
        let text = match self.issuer.issue((model, version), now, scores) {
            Ok(text) => text,
            Err(error) if self.is_asked => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        self.live.predicted(model, version, rows, now);
        Ok(Some(HeaderValue::try_from(text).expect("a receipt is of letters, digits, - and _")))
    }
}
