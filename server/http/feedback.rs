//! `POST /api/feedback` with `{"events": [{"receipt": "...", "row": 0, "label": 1}, ...]}`: what became of answers. It is
//! answered once every event survives a crash.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response, body::Incoming, http::request::Parts};

use super::{Serving, body, error::HttpError, format::Format, json_response};
use crate::{
    codec::feedback,
    feedback::{FeedbackError, Intake, ReceiptError, Taken, log::LogError},
    metrics::Refused,
};

/// Answers a request.
pub(super) async fn answer(
    serving: &Serving,
    request: &Parts,
    body: &mut Incoming,
) -> Result<Response<Full<Bytes>>, HttpError> {
    let intake = serving.intake.as_ref().ok_or(HttpError::NoFeedback)?;
    if request.method != Method::POST {
        return Err(HttpError::Method("POST"));
    }
    let metrics = &serving.metrics.feedback;
    Ok(match take(serving, intake, request, body).await {
        Ok(taken) => {
            metrics.taken(taken.accepted, taken.duplicates);
            json_response(serde_json::to_vec(&taken).expect("numbers are JSON"))
        }
        Err(error) => {
            metrics.refused(reason(&error));
            error.response()
        }
    })
}

async fn take(
    serving: &Serving,
    intake: &Arc<Intake>,
    request: &Parts,
    body: &mut Incoming,
) -> Result<Taken, HttpError> {
    if Format::of_body(&request.headers)? != Format::Json {
        return Err(HttpError::NotJson);
    }
    let told = {
        // What waits for the disk takes none of the room for bodies.
        let read = body::read(body, &serving.limits, &serving.room).await?;
        feedback::decode(&read.bytes)?
    };
    Ok(intake.take(told, SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()).await?)
}

fn reason(error: &HttpError) -> Refused {
    match error {
        HttpError::Feedback(FeedbackError::Receipt { reason, .. }) => match reason {
            ReceiptError::Foreign => Refused::Foreign,
            ReceiptError::Tampered => Refused::Tampered,
            ReceiptError::Expired => Refused::Expired,
            _ => Refused::Malformed,
        },
        HttpError::Feedback(FeedbackError::Log(error)) => match error {
            LogError::Busy => Refused::Busy,
            LogError::Full => Refused::Full,
            LogError::TooLarge { .. } => Refused::Malformed,
            _ => Refused::Failed,
        },
        HttpError::Feedback(FeedbackError::Pending { .. }) | HttpError::NoRoomForBody => Refused::Busy,
        _ => Refused::Malformed,
    }
}
