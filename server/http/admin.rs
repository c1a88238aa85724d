//! The management port: probes, metrics, and the orders of operators.
//!
//! | request | answer |
//! |---|---|
//! | `GET /livez`, `GET /readyz` | probes |
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /models`, `GET /models/{model}` | every model and version and its state |
//! | `POST /models/{model}/load` | look at the repository now; try failed versions again |
//! | `POST /models/{model}/unload` | stop serving the model |
//! | `POST /models/{model}/rollback` | answer with the newest version older than the current one |
//! | `POST /models/{model}/promote` | answer with version `{"version": n}`; without one, follow the policy again |
//! | `GET /models/{model}/rollout` | which version is stable, and which is being tried |
//! | `POST /models/{model}/rollout/start` | try version `{"version": n}`, perhaps with a `"stage"` and a `"share"` |
//! | `POST /models/{model}/rollout/promote`, `.../abort` | make the version that is tried the stable one, or try it no longer |
//! | `POST /models/{model}/retrain` | retrain the model |
//! | `POST /alertmanager` | what an Alertmanager tells its webhooks: retrain the models whose alerts fire |

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, ORIGIN},
    http::request::Parts,
};
use serde::{Deserialize, Serialize};

use super::{
    body::{self, BodyRoom},
    error::HttpError,
    health::{self, Stopping},
    json_response, retrain,
};
use crate::{
    config::HttpLimits,
    metrics::Metrics,
    repository::{self, ModelName, ModelStatus, Repository, Share, TrialStage, VersionNumber},
    retrain::Retrain,
    rollout::{OrderError, Rollouts, Wish},
};

/// What the management port answers from.
pub struct Management {
    repository: Arc<Repository>,
    /// Where new versions are tried first.
    rollouts: Option<Rollouts>,
    metrics: Arc<Metrics>,
    stopping: Arc<Stopping>,
    /// Where models are retrained, if any are.
    retrain: Option<Retrain>,
    limits: HttpLimits,
    room: BodyRoom,
}

/// The body of an order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    version: Option<VersionNumber>,
}

/// The answer to `GET /models`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Models {
    /// Every model that is in the repository or served, by name.
    pub models: Vec<ModelStatus>,
}

impl Management {
    /// The management port of a server with this repository.
    pub(crate) fn new(
        repository: Arc<Repository>,
        rollouts: Option<Rollouts>,
        metrics: Arc<Metrics>,
        stopping: Arc<Stopping>,
        retrain: Option<Retrain>,
        limits: HttpLimits,
    ) -> Self {
        let room = BodyRoom::new(limits.max_inflight_bytes.get());
        Self { repository, rollouts, metrics, stopping, retrain, limits, room }
    }

    /// Answers one request, whatever it is.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (request, mut body) = request.into_parts();
        self.route(&request, &mut body).await.unwrap_or_else(|error| error.response())
    }

    async fn route(&self, request: &Parts, body: &mut Incoming) -> Result<Response<Full<Bytes>>, HttpError> {
        let path: Vec<&str> = request.uri.path().split('/').skip(1).collect();
        match path[..] {
            ["livez"] => only_get(request).map(|()| text("ok\n")),
            ["readyz"] => {
                only_get(request)?;
                health::ready(&self.repository, &self.stopping).map(|()| text("ok\n"))
            }
            ["metrics"] => only_get(request).map(|()| text(self.metrics.render())),
            ["models"] => {
                only_get(request)?;
                let models = self.repository.status().unwrap_or_default();
                Ok(json(&Models { models }))
            }
            ["models", model] => {
                only_get(request)?;
                let models = self.repository.status().unwrap_or_default();
                let known = models.iter().find(|known| known.model.as_str() == model);
                known.map(json).ok_or(HttpError::NoModel)
            }
            ["models", model, "rollout"] => {
                only_get(request)?;
                self.rollouts()?.status(model).map(|status| json(&status)).ok_or(OrderError::NoRollout.into())
            }
            ["models", model, "rollout", wish @ ("start" | "promote" | "abort")] => {
                let (model, body) = self.order(model, request, body).await?;
                let status = self.rollouts()?.wish(model, wish_of(wish, &body)?).await?;
                Ok(json(&status))
            }
            ["models", model, order @ ("load" | "unload" | "rollback" | "promote")] => {
                self.obey(model, order, request, body).await
            }
            ["models", model, "retrain"] => {
                only_post(request)?;
                retrain::order(self.retrain.as_ref(), model, &request.headers).await
            }
            ["alertmanager"] => {
                only_post(request)?;
                let (retrain, headers) = (self.retrain.as_ref(), &request.headers);
                retrain::notified(retrain, headers, body, &self.limits, &self.room).await
            }
            _ => Err(HttpError::NoRoute),
        }
    }

    fn rollouts(&self) -> Result<&Rollouts, HttpError> {
        self.rollouts.as_ref().ok_or(HttpError::Rollout(OrderError::NoRollout))
    }

    async fn obey(
        &self,
        model: &str,
        order: &str,
        request: &Parts,
        body: &mut Incoming,
    ) -> Result<Response<Full<Bytes>>, HttpError> {
        let (model, body) = self.order(model, request, body).await?;
        let status = self.repository.request(model, parse(order, &body)?).await?;
        Ok(json(&status))
    }

    /// The model and the body of a request that is to change something, where it may.
    async fn order(
        &self,
        model: &str,
        request: &Parts,
        body: &mut Incoming,
    ) -> Result<(ModelName, Bytes), HttpError> {
        only_post(request)?;
        // Browsers send this header along, and no operator's tool does: a page that somebody happens to look at must
        // not reach the management port of the machine that it is looked at on.
        if request.headers.contains_key(ORIGIN) {
            return Err(HttpError::Origin);
        }
        let model: ModelName = model.parse()?;
        let body = body::read(body, &self.limits, &self.room).await?;
        Ok((model, body.bytes))
    }
}

/// What the body of `start` may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    version: VersionNumber,
    stage: Option<TrialStage>,
    share: Option<Share>,
}

/// The wish that a path and a body make.
fn wish_of(wish: &str, body: &[u8]) -> Result<Wish, HttpError> {
    const START: &str =
        r#"{"version": n}, perhaps with "stage": "canary" or "shadow" and "share": above 0 to 1"#;
    if wish == "start" {
        let start = serde_json::from_slice(body).map_err(|_| HttpError::Order { expected: START })?;
        let Start { version, stage, share } = start;
        return Ok(Wish::Start { version, stage, share });
    }
    let version = match parse("promote", body)? {
        repository::Request::Promote(version) => version,
        _ => None,
    };
    Ok(if wish == "promote" { Wish::Promote { version } } else { Wish::Abort { version } })
}

/// The order that a path and a body make.
fn parse(order: &str, body: &[u8]) -> Result<repository::Request, HttpError> {
    let promote = order == "promote";
    let expected = if promote { "empty or {\"version\": n}" } else { "empty or {}" };
    let parsed =
        if body.trim_ascii().is_empty() { Ok(Order::default()) } else { serde_json::from_slice(body) };
    let Order { version } = parsed.map_err(|_| HttpError::Order { expected })?;
    if version.is_some() && !promote {
        return Err(HttpError::Order { expected });
    }
    Ok(match order {
        "load" => repository::Request::Load,
        "unload" => repository::Request::Unload,
        "rollback" => repository::Request::Rollback,
        _ => repository::Request::Promote(version),
    })
}

fn only_get(request: &Parts) -> Result<(), HttpError> {
    if request.method == Method::GET { Ok(()) } else { Err(HttpError::Method("GET")) }
}

fn only_post(request: &Parts) -> Result<(), HttpError> {
    if request.method == Method::POST { Ok(()) } else { Err(HttpError::Method("POST")) }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    json_response(serde_json::to_vec(value).expect("names, numbers and texts are JSON"))
}

fn text(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_takes_a_version_only_where_it_means_something() {
        let promote = |body: &str| parse("promote", body.as_bytes());
        let third = repository::Request::Promote(Some(3.try_into().expect("3")));
        assert_eq!(promote(r#"{"version": 3}"#).expect("an order"), third);
        for none in ["", " \n", "{}", r#"{"version": null}"#] {
            assert_eq!(promote(none).expect("an order"), repository::Request::Promote(None), "{none}");
        }
        for bad in [r#"{"version": 0}"#, r#"{"version": "3"}"#, r#"{"versoin": 3}"#, "[]", "3", "{"] {
            assert!(matches!(promote(bad), Err(HttpError::Order { .. })), "{bad}");
        }
        assert_eq!(parse("unload", b"{}").expect("an order"), repository::Request::Unload);
        assert!(matches!(parse("unload", br#"{"version": 3}"#), Err(HttpError::Order { .. })));
    }
}
