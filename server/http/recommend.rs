//! `POST /api/recommend/{model}` with `{"user": 123, "k": 10}` is answered with the best items of the version's catalogue,
//! `{"output": [{"item": 456, "score": 0.85}, ...]}`, best first.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Method, Response, body::Incoming, http::request::Parts};

use super::{
    Serving, body,
    error::HttpError,
    format::Format,
    json_response,
    predict::{MODEL_VERSION, version_header},
    receipts::{self, RECEIPT},
    router::Target,
    scoring::Call,
};
use crate::{codec::recommend, metrics::Dialect};

/// Answers a request to the model that `target` names.
pub(super) async fn answer(
    serving: &Serving,
    target: Target<'_>,
    request: &Parts,
    body: &mut Incoming,
    started: Instant,
) -> Result<Response<Full<Bytes>>, HttpError> {
    if request.method != Method::POST {
        return Err(HttpError::Method("POST"));
    }
    let mut call = Call::begin(serving, target, &request.headers, Dialect::Recommend, started)?;
    let result = best(&call, serving, &request.headers, body).await;
    call.end(&result, &request.headers, &serving.metrics);
    let mut response = result.unwrap_or_else(|error| error.response());
    response.headers_mut().insert(MODEL_VERSION, version_header(call.version()));
    Ok(response)
}

async fn best(
    call: &Call,
    serving: &Serving,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Response<Full<Bytes>>, HttpError> {
    let version = call.version();
    let recommender = version.recommender().ok_or(HttpError::NoCatalogue)?;
    if Format::of_body(headers)? != Format::Json {
        return Err(HttpError::NotJson);
    }
    let sealing = receipts::sealing(serving, version, headers)?;
    let deadline = call.deadline(headers)?;
    recommender.admits()?;
    let query = {
        // What waits for a search takes none of the room for bodies.
        let read = body::read(body, &serving.limits, &serving.room).await?;
        recommend::decode(&read.bytes, version.encoder(), recommender.catalogue())?
    };
    let best = recommender.ask(query, deadline).await?;
    let mut answer = Vec::new();
    recommend::encode(&best, recommender.catalogue(), &mut answer);
    let mut response = json_response(answer);
    let receipt =
        sealing.map(|sealing| sealing.receipt(version, best.iter().map(|item| item.score))).transpose()?;
    if let Some(receipt) = receipt.flatten() {
        response.headers_mut().insert(RECEIPT, receipt);
    }
    Ok(response)
}
