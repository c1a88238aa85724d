//! The project's own dialect: `POST /api/predict/{model}` with `{"input": [[user, item], ...]}` is answered with
//! `{"output": [p, ...]}`, one probability a row, and `GET` of the same path says what the model takes.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Response,
    body::Incoming,
    header::{HeaderName, HeaderValue},
    http::request::Parts,
};
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    Serving,
    error::HttpError,
    json_response,
    router::Target,
    scoring::{self, Call},
};
use crate::{
    codec::json,
    features::Value,
    repository::{ModelName, Version, VersionNumber},
};

/// The header that says which version answered.
const MODEL_VERSION: HeaderName = HeaderName::from_static("x-model-version");

/// Answers a request to the model that `target` names.
pub(super) async fn answer(
    serving: &Serving,
    target: Target<'_>,
    request: &Parts,
    body: &mut Incoming,
    started: Instant,
) -> Result<Response<Full<Bytes>>, HttpError> {
    match request.method {
        Method::POST => predict(serving, target, &request.headers, body, started).await,
        Method::GET => describe(serving, target),
        _ => Err(HttpError::Method("GET, POST")),
    }
}

async fn predict(
    serving: &Serving,
    target: Target<'_>,
    headers: &HeaderMap,
    body: &mut Incoming,
    started: Instant,
) -> Result<Response<Full<Bytes>>, HttpError> {
    let mut call = Call::begin(serving, target, started)?;
    let mut response = match call.score(serving, headers, body, json::decode).await {
        Ok(scores) => {
            let mut text = Vec::new();
            json::encode(&scores, &mut text);
            json_response(text)
        }
        Err(error) => error.response(),
    };
    response.headers_mut().insert(MODEL_VERSION, version_header(call.version()));
    Ok(response)
}

/// What callers need to know of a model, and what its operators like to see.
#[derive(Serialize)]
struct Description<'a> {
    model: &'a ModelName,
    version: VersionNumber,
    /// Every version that can be asked for, oldest first.
    versions: Vec<VersionNumber>,
    kind: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    /// In the order of a positional row.
    features: Vec<&'a str>,
    max_rows: usize,
    /// Measures before it was published.
    metrics: &'a BTreeMap<String, f64>,
    /// A body that the model is known to score.
    example: Example<'a>,
}

#[derive(Serialize)]
struct Example<'a> {
    input: [&'a [Value]; 1],
}

fn describe(serving: &Serving, target: Target<'_>) -> Result<Response<Full<Bytes>>, HttpError> {
    let (live, version) = scoring::find(serving, target)?;
    let manifest = version.manifest();
    let description = Description {
        model: &manifest.model,
        version: manifest.version,
        versions: live.loaded.iter().map(|version| version.number()).collect(),
        kind: &manifest.kind,
        created: manifest.created,
        features: version.encoder().sent().map(|feature| &*feature.name).collect(),
        max_rows: version.batcher().batching().max_batch_rows.get(),
        metrics: &manifest.metrics,
        example: Example { input: [version.example()] },
    };
    let text = serde_json::to_vec(&description).expect("names, numbers and texts are JSON");
    let mut response = json_response(text);
    response.headers_mut().insert(MODEL_VERSION, version_header(&version));
    Ok(response)
}

fn version_header(version: &Version) -> HeaderValue {
    HeaderValue::from(u64::from(version.number()))
}
