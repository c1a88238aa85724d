//! The receipt of an answer: a header of it, where the request or the model's configuration asks for one.

use std::time::SystemTime;

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::{Serving, error::HttpError};
use crate::{
    feedback::{Issuer, Live},
    repository::Version,
};

/// The header by which a request asks for a receipt, or for none, and in which an answer has it.
pub(super) const RECEIPT: HeaderName = HeaderName::from_static("x-receipt");

/// Makes the receipt of one answer.
#[derive(Clone, Copy)]
pub(super) struct Sealing<'a> {
    issuer: &'a Issuer,
    live: &'a Live,
}

/// Who makes the receipt of the answer to a request with these headers, from `version`; nobody where none is wanted. Says so
/// before anything is computed where there cannot be one.
pub(super) fn sealing<'a>(
    serving: &'a Serving,
    version: &Version,
    headers: &HeaderMap,
) -> Result<Option<Sealing<'a>>, HttpError> {
    let wanted = match headers.get(RECEIPT).map(HeaderValue::as_bytes) {
        None => version.receipts(),
        Some(b"true") => true,
        Some(b"false") => false,
        Some(_) => return Err(HttpError::Flag("x-receipt")),
    };
    if !wanted {
        return Ok(None);
    }
    let issuer = serving.issuer.as_ref().ok_or(HttpError::NoReceipts)?;
    Ok(Some(Sealing { issuer, live: &serving.live }))
}

impl Sealing<'_> {
    /// The receipt of an answer of `version` that is given now.
    pub(super) fn receipt(
        self,
        version: &Version,
        scores: impl ExactSizeIterator<Item = f32>,
    ) -> Result<HeaderValue, HttpError> {
        let manifest = version.manifest();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let (model, version) = (manifest.model.as_str(), u64::from(manifest.version));
        let rows = scores.len() as u64;
        let text = self.issuer.issue((model, version), now, scores)?;
        self.live.predicted(model, version, rows, now);
        Ok(HeaderValue::try_from(text).expect("a receipt is of letters, digits, - and _"))
    }
}
