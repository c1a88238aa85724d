//! The receipt of an answer: a header of it, where the request or the model's configuration asks for one.

use std::time::SystemTime;

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::{Serving, error::HttpError};
use crate::{feedback::Issuer, repository::Version};

/// The header by which a request asks for a receipt, or for none, and in which an answer has it.
pub(super) const RECEIPT: HeaderName = HeaderName::from_static("x-receipt");

/// Who makes the receipt of the answer to a request with these headers, from `version`; nobody where none is wanted. Says so
/// before anything is computed where there cannot be one.
pub(super) fn issuer<'a>(
    serving: &'a Serving,
    version: &Version,
    headers: &HeaderMap,
) -> Result<Option<&'a Issuer>, HttpError> {
    let wanted = match headers.get(RECEIPT).map(HeaderValue::as_bytes) {
        None => version.receipts(),
        Some(b"true") => true,
        Some(b"false") => false,
        Some(_) => return Err(HttpError::Flag("x-receipt")),
    };
    if !wanted {
        return Ok(None);
    }
    serving.issuer.as_ref().map(Some).ok_or(HttpError::NoReceipts)
}

/// The receipt of an answer of `version` that is given now.
pub(super) fn receipt(
    issuer: &Issuer,
    version: &Version,
    scores: impl ExactSizeIterator<Item = f32>,
) -> Result<HeaderValue, HttpError> {
    let manifest = version.manifest();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let of = (manifest.model.as_str(), u64::from(manifest.version));
    let text = issuer.issue(of, now, scores)?;
    Ok(HeaderValue::try_from(text).expect("a receipt is of letters, digits, - and _"))
}
