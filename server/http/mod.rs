//! Two ports: the serving port, where requests for scores come in, and the management port for everything that
//! people, probes and Prometheus ask. The second has a listener and a thread of its own, so that a flood of requests
//! never starves a probe, and what changes the server is never on the port that the public reaches.
//!
//! ```text
//! listener ─▶ router ─▶ predict (a dialect) ─▶ scoring ─▶ format, body ─▶ codec, features ─▶ batcher
//!          ├▶ recommend ─▶ a version's catalogue             what is asked to be told later ─▶ receipts
//!          ├▶ feedback ─▶ the log                            a version that is only tried ─▶ shadow
//!          └▶ admin, health, retrain (the management port)   any failure ─▶ error
//! ```

mod admin;
mod body;
mod error;
mod feedback;
mod format;
mod health;
mod listener;
mod predict;
mod receipts;
mod recommend;
mod request_id;
mod retrain;
mod router;
mod scoring;
mod shadow;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Request, Response, body::Incoming, header::EXPECT};

pub(crate) use self::health::Stopping;
pub use self::{
    admin::{Management, Models},
    listener::{ConnectionLimits, Connections},
};
use self::{
    body::BodyRoom,
    error::HttpError,
    format::Format,
    request_id::{REQUEST_ID, RequestIds},
    router::Route,
};
use crate::{
    config::HttpLimits,
    drift::Sampler,
    feedback::{Intake, Issuer, Live},
    metrics::Metrics,
    repository::Repository,
    workers,
};

/// What the serving port answers from.
pub struct Serving {
    repository: Arc<Repository>,
    metrics: Arc<Metrics>,
    /// Of receipts, where there are any.
    issuer: Option<Issuer>,
    /// Of feedback, where it is taken.
    intake: Option<Arc<Intake>>,
    /// How good answers are.
    live: Arc<Live>,
    /// How far rows have moved.
    sampler: Sampler,
    limits: HttpLimits,
    room: BodyRoom,
    ids: RequestIds,
}

impl Serving {
    /// The serving port of a server with this repository, whose answers may have receipts of `issuer`, and
    /// whose feedback goes to `intake`; `live` hears of each receipt, and `sampler` of rows.
    pub fn new(
        repository: Arc<Repository>,
        metrics: Arc<Metrics>,
        issuer: Option<Issuer>,
        intake: Option<Arc<Intake>>,
        live: Arc<Live>,
        sampler: Sampler,
        limits: HttpLimits,
    ) -> Self {
        let room = BodyRoom::new(limits.max_inflight_bytes.get());
        Self { repository, metrics, issuer, intake, live, sampler, limits, room, ids: RequestIds::new() }
    }

    /// Answers one request, whatever it is.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let started = Instant::now();
        workers::stir();
        let (request, mut body) = request.into_parts();
        let id = self.ids.of(&request.headers);
        let result = match self.check(&request.headers) {
            Err(error) => Err(error),
            Ok(()) => match Route::of(request.uri.path()) {
                Some(Route::Predict(target)) => {
                    predict::answer(self, target, &request, &mut body, started).await
                }
                Some(Route::Recommend(target)) => {
                    recommend::answer(self, target, &request, &mut body, started).await
                }
                Some(Route::Feedback) => feedback::answer(self, &request, &mut body).await,
                None => Err(HttpError::NoRoute),
            },
        };
        let mut response = result.unwrap_or_else(|error| {
            self.metrics.unrouted.increment(1);
            error.response()
        });
        response.headers_mut().insert(REQUEST_ID, id);
        // A client that waits for leave to send its body does not send what was refused.
        if !body::is_at_end(&body) && !request.headers.contains_key(EXPECT) {
            tokio::spawn(body::linger(body, self.limits.body_read_timeout));
        }
        response
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        let limit = self.limits.max_header_bytes.get();
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes <= limit { Ok(()) } else { Err(HttpError::HeadersTooLarge { limit }) }
    }
}

fn json_response(body: Vec<u8>) -> Response<Full<Bytes>> {
    Format::Json.response(body)
}
