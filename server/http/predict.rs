//! The project's own dialect: `POST /api/predict/{model}` with `{"input": [[user, item], ...]}` is answered with
//! `{"output": [p, ...]}`, one probability a row, and `GET` of the same path says what the model takes. Both the rows
//! and the scores may be binary instead, as the headers say.

use std::{collections::BTreeMap, ops::Range, time::Instant};

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
    format::Format,
    json_response,
    receipts::{self, RECEIPT},
    router::Target,
    scoring::{self, Call},
};
use crate::{
    codec::{binary, json},
    features::{Columns, Encoder, Place, Value},
    metrics::Dialect,
    repository::{Choice, ModelName, Version, VersionNumber},
    tensor::{DType, Rows, TensorSpec},
};

/// The header that says which version answered.
pub(super) const MODEL_VERSION: HeaderName = HeaderName::from_static("x-model-version");

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
    let mut call = Call::begin(serving, target, headers, Dialect::Predict, started)?;
    let result = score(&call, serving, headers, body).await;
    call.end(&result, headers, &serving.metrics);
    let mut response = result.unwrap_or_else(|error| error.response());
    response.headers_mut().insert(MODEL_VERSION, version_header(call.version()));
    Ok(response)
}

async fn score(
    call: &Call,
    serving: &Serving,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Response<Full<Bytes>>, HttpError> {
    let sealing = receipts::sealing(serving, call.version(), headers)?;
    let mut drawn = None;
    let admit = |format, body: &[u8], rows| {
        let as_sent = (format == Format::Json).then_some(body);
        drawn = serving.sampler.draw(call.version().drift(), rows, as_sent);
        sealing.map_or(Ok(()), |sealing| sealing.admits(rows))
    };
    let scores = call.score(serving, headers, body, decode, admit).await?;
    serving.sampler.answered(drawn, &scores);
    let mut response = encode(Format::of_answer(headers), &scores);
    let receipt =
        sealing.map(|sealing| sealing.receipt(call.version(), scores.iter().copied())).transpose()?;
    if let Some(receipt) = receipt.flatten() {
        response.headers_mut().insert(RECEIPT, receipt);
    }
    Ok(response)
}

fn decode(
    format: Format,
    body: &[u8],
    encoder: &Encoder,
    rows: &mut Rows,
    limit: usize,
) -> Result<(), HttpError> {
    match format {
        Format::Json => json::decode(body, encoder, rows, limit)?,
        Format::Binary => binary::decode(body, encoder, rows, limit)?,
    }
    Ok(())
}

fn encode(format: Format, scores: &[f32]) -> Response<Full<Bytes>> {
    let mut body = Vec::new();
    match format {
        Format::Json => json::encode(scores, &mut body),
        Format::Binary => binary::encode(scores, &mut body),
    }
    format.response(body)
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
    /// In the order of a binary body.
    inputs: Vec<Input<'a>>,
    max_rows: usize,
    /// What computes it, and why.
    engine: &'a Choice,
    /// What it recommends, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    catalogue: Option<Catalogue<'a>>,
    /// Measures before it was published.
    metrics: &'a BTreeMap<String, f64>,
    /// A body that the model is known to score.
    example: Example<'a>,
}

/// The items that a version recommends.
#[derive(Serialize)]
struct Catalogue<'a> {
    items: usize,
    /// The feature of their ids.
    id: &'a str,
    /// How pairs are scored: on the `gpu`, by `towers`, or as whole `rows`.
    method: &'static str,
}

/// One input of the model, for callers that encode rows themselves.
#[derive(Serialize)]
struct Input<'a> {
    name: &'a str,
    dtype: DType,
    /// Elements in each row.
    width: usize,
    /// Side by side, as wide as the input together.
    columns: Vec<InputColumns<'a>>,
}

/// Columns of an input that follow from the same features.
#[derive(Serialize)]
struct InputColumns<'a> {
    of: &'a [String],
    width: usize,
    /// The first and the last index that they may hold, where they hold any.
    #[serde(skip_serializing_if = "Option::is_none")]
    indices: Option<[i32; 2]>,
}

impl<'a> Input<'a> {
    fn of(spec: &'a TensorSpec, columns: &[Columns<'a>], id_ranges: &[Range<i32>]) -> Self {
        let TensorSpec { name, dtype, width } = spec;
        let columns = columns.iter().filter_map(|columns| InputColumns::of(columns, *dtype, id_ranges));
        Self { name, dtype: *dtype, width: *width, columns: columns.collect() }
    }
}

impl<'a> InputColumns<'a> {
    /// `None` where `columns` are those of another input.
    fn of(columns: &Columns<'a>, input: DType, id_ranges: &[Range<i32>]) -> Option<Self> {
        match (&columns.place, input) {
            (Place::Ids(ids), DType::I32) => {
                let Range { start, end } = id_ranges[ids.start];
                Some(Self { of: columns.of, width: ids.len(), indices: Some([start, end - 1]) })
            }
            (Place::Dense(dense), DType::F32) => {
                Some(Self { of: columns.of, width: dense.len(), indices: None })
            }
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct Example<'a> {
    input: [&'a [Value]; 1],
}

fn describe(serving: &Serving, target: Target<'_>) -> Result<Response<Full<Bytes>>, HttpError> {
    let (live, version) = scoring::find(serving, target)?;
    let (manifest, encoder) = (version.manifest(), version.encoder());
    let (inputs, columns) = (&encoder.signature().inputs, encoder.columns());
    let description = Description {
        model: &manifest.model,
        version: manifest.version,
        versions: live.loaded.iter().map(|version| version.number()).collect(),
        kind: &manifest.kind,
        created: manifest.created,
        features: encoder.sent().map(|feature| &*feature.name).collect(),
        inputs: inputs.iter().map(|input| Input::of(input, &columns, encoder.id_ranges())).collect(),
        max_rows: version.batcher().batching().max_batch_rows.get(),
        engine: version.choice(),
        catalogue: version.recommender().map(|recommender| Catalogue {
            items: recommender.catalogue().len(),
            id: recommender.catalogue().id_feature(),
            method: recommender.method(),
        }),
        metrics: &manifest.metrics,
        example: Example { input: [version.example()] },
    };
    let text = serde_json::to_vec(&description).expect("names, numbers and texts are JSON");
    let mut response = json_response(text);
    response.headers_mut().insert(MODEL_VERSION, version_header(&version));
    Ok(response)
}

pub(super) fn version_header(version: &Version) -> HeaderValue {
    HeaderValue::from(u64::from(version.number()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Schema, Vocabulary};

    #[test]
    fn every_column_of_every_input_is_described_in_its_place() {
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
              { name = "user", kind = "categorical", source = "vocabulary" },
              { name = "tags", kind = "categorical", source = { hash = 9 }, values = { max = 2, pooling = "sum" } },
              { name = "log", from = "price", kind = "numeric", transform = "log", mean = 0.0, std = 1.0 },
            ]
            cross = [{ features = ["user", "user"], buckets = 5 }]
            affinity = [{ name = "alike", of = ["user", "user"], mean = 0.0, std = 1.0 }]
            "#,
        )
        .expect("a schema");
        let encoder =
            Encoder::new(schema, |_| Ok(Vocabulary::new(["17"]).expect("an id"))).expect("a layout");
        let inputs = encoder.signature().inputs.iter();
        let inputs: Vec<_> =
            inputs.map(|input| Input::of(input, &encoder.columns(), encoder.id_ranges())).collect();
        let expected = serde_json::json!([
            { "name": "ids", "dtype": "i32", "width": 4, "columns": [
                { "of": ["user"], "width": 1, "indices": [0, 1] },
                { "of": ["tags"], "width": 2, "indices": [2, 11] },
                { "of": ["user", "user"], "width": 1, "indices": [12, 16] },
            ] },
            { "name": "dense", "dtype": "f32", "width": 3, "columns": [
                { "of": ["price"], "width": 1 },
                { "of": ["log"], "width": 1 },
                { "of": ["user", "user"], "width": 1 },
            ] },
        ]);
        assert_eq!(serde_json::to_value(inputs).expect("JSON"), expected);
    }
}
