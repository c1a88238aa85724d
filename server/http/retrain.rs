//! Who asks for a retraining over the management port: an operator, by `POST /models/{model}/retrain`, and an Alertmanager, by
//! `POST /alertmanager`, which has to show a token.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response,
    body::Incoming,
    header::{AUTHORIZATION, ORIGIN},
};
use serde::Serialize;

use super::{
    body::{self, BodyRoom},
    error::HttpError,
    json_response,
};
use crate::{
    codec::alertmanager::{self, Notified},
    config::HttpLimits,
    retrain::{Asker, Retrain, RetrainError},
};

/// Answers an operator with what was started.
pub(super) async fn order(
    retrain: Option<&Retrain>,
    model: &str,
    headers: &HeaderMap,
) -> Result<Response<Full<Bytes>>, HttpError> {
    refuse_pages(headers)?;
    let retrain = retrain.ok_or(HttpError::NoRetrain)?;
    let started = retrain.ask(model.parse()?, Asker::Operator).await?;
    Ok(json(&started))
}

/// Answers an Alertmanager with what became of each alert. What it should send again is an error.
pub(super) async fn notified(
    retrain: Option<&Retrain>,
    headers: &HeaderMap,
    body: &mut Incoming,
    limits: &HttpLimits,
    room: &BodyRoom,
) -> Result<Response<Full<Bytes>>, HttpError> {
    refuse_pages(headers)?;
    let retrain = retrain.ok_or(HttpError::NoRetrain)?;
    let token = retrain.token().ok_or(HttpError::NoToken)?;
    let shown = headers.get(AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    if !token.is_shown_by(shown) {
        return Err(HttpError::Unauthorized);
    }
    let alerts = alertmanager::decode(&body::read(body, limits, room).await?.bytes)?;
    let mut answers = Vec::with_capacity(alerts.len());
    for alert in alerts {
        let (result, reason) = heed(retrain, &alert).await?;
        let Notified { fingerprint, model, .. } = alert;
        answers.push(Answer { fingerprint, model, result, reason });
    }
    Ok(json(&Answers { alerts: answers }))
}

/// What became of an alert, and why, where that is not plain.
async fn heed(retrain: &Retrain, alert: &Notified) -> Result<(&'static str, Option<String>), HttpError> {
    let Notified { fingerprint, starts_at, firing, model } = alert;
    if !firing {
        return Ok(("resolved", None));
    }
    let Some(model) = model else { return Ok(("no_model", Some("it has no label `model`".to_owned()))) };
    let model = match model.parse() {
        Ok(model) => model,
        Err(error) => return Ok(("no_model", Some(format!("{error}")))),
    };
    match retrain.notified(model, (fingerprint, starts_at)).await {
        Ok(Some(_)) => Ok(("started", None)),
        Ok(None) => Ok(("known", Some("it has led to a retraining before".to_owned()))),
        Err(error @ RetrainError::NoModel) => Ok(("no_model", Some(error.to_string()))),
        Err(error @ (RetrainError::NotConfigured | RetrainError::Refused(_))) => {
            Ok(("refused", Some(error.to_string())))
        }
        Err(error) => Err(error.into()),
    }
}

/// See `admin`: a web page must not reach the management port of the machine that it is looked at on.
fn refuse_pages(headers: &HeaderMap) -> Result<(), HttpError> {
    if headers.contains_key(ORIGIN) { Err(HttpError::Origin) } else { Ok(()) }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    json_response(serde_json::to_vec(value).expect("names, numbers and texts are JSON"))
}

#[derive(Serialize)]
struct Answers {
    alerts: Vec<Answer>,
}

#[derive(Serialize)]
struct Answer {
    fingerprint: String,
    model: Option<String>,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}
