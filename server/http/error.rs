//! Why a request is not answered with what it asked for, and the one place that picks a status code for it.
//!
//! Every error is a JSON object `{"error": "..."}` of at most [`MAX_MESSAGE_BYTES`] of message, which names what was
//! wrong and never quotes the request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::format::Format;
use crate::{
    batcher::ScoreError,
    codec::{alertmanager::AlertmanagerDecodeError, binary, feedback::FeedbackDecodeError, json, recommend},
    feedback::{FeedbackError, IssueError, log::LogError},
    metrics::Outcome,
    recommend::RecommendError,
    repository::{NameError, RequestError},
    retrain::RetrainError,
    rollout::OrderError,
};

/// The longest message of an error; what is longer is cut.
const MAX_MESSAGE_BYTES: usize = 256;

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum HttpError {
    #[error("there is nothing at this path")]
    NoRoute,
    #[error("no such model is served")]
    NoModel,
    #[error("the model has no such version that is served")]
    NoVersion,
    #[error("the version has no catalogue of items to recommend")]
    NoCatalogue,
    #[error("the method must be {0}")]
    Method(&'static str),
    #[error("the content type must be application/json or application/octet-stream")]
    ContentType,
    #[error("the content type must be application/json")]
    NotJson,
    #[error("the content encoding must be identity")]
    ContentEncoding,
    #[error("the headers are larger than {limit} bytes")]
    HeadersTooLarge { limit: usize },
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the body did not arrive within {} ms", .0.as_millis())]
    BodyTimeout(Duration),
    #[error("the body ended early or was malformed")]
    BodyBroken,
    #[error("the bodies of other requests take all the room there is")]
    NoRoomForBody,
    #[error("the header `{0}` must be a number of milliseconds from 1")]
    Timeout(&'static str),
    #[error("the header `{0}` must be `high`, `normal` or `low`")]
    Priority(&'static str),
    #[error("the header `{0}` must be `true` or `false`")]
    Flag(&'static str),
    #[error("this server takes no feedback: it has no `feedback_dir`")]
    NoFeedback,
    #[error(transparent)]
    FeedbackBody(#[from] FeedbackDecodeError),
    #[error(transparent)]
    Feedback(#[from] FeedbackError),
    #[error("this server has no keys to make receipts with")]
    NoReceipts,
    #[error(transparent)]
    Receipt(#[from] IssueError),
    #[error("a request from a web page may not change anything")]
    Origin,
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("the body must be {expected}")]
    Order { expected: &'static str },
    #[error(transparent)]
    Json(#[from] json::DecodeError),
    #[error(transparent)]
    Binary(#[from] binary::DecodeError),
    #[error(
        "every version of this model has indices of its own: with binary rows the path must name one, /versions/{{version}}"
    )]
    AnyVersion,
    #[error(transparent)]
    Score(#[from] ScoreError),
    #[error(transparent)]
    Query(#[from] recommend::QueryError),
    #[error(transparent)]
    Recommend(#[from] RecommendError),
    #[error(transparent)]
    Repository(#[from] RequestError),
    #[error(transparent)]
    Rollout(#[from] OrderError),
    #[error("no model has `retrain` in the configuration")]
    NoRetrain,
    #[error("this server hears no Alertmanager: it has no `retrain_token`")]
    NoToken,
    #[error("the header `authorization` must be `Bearer` with the token of `retrain_token`")]
    Unauthorized,
    #[error(transparent)]
    Alertmanager(#[from] AlertmanagerDecodeError),
    #[error(transparent)]
    Retrain(#[from] RetrainError),
    #[error("not ready: {0}")]
    NotReady(&'static str),
}

impl HttpError {
    /// The status that says whose fault it was.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute
            | Self::NoModel
            | Self::NoVersion
            | Self::NoCatalogue
            | Self::NoFeedback
            | Self::NoRetrain
            | Self::NoToken => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType | Self::NotJson | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::BodyBroken
            | Self::Timeout(_)
            | Self::Priority(_)
            | Self::Flag(_)
            | Self::NoReceipts
            | Self::Receipt(_)
            | Self::FeedbackBody(_)
            | Self::Name(_)
            | Self::Order { .. }
            | Self::Json(_)
            | Self::Query(_)
            | Self::Binary(_)
            | Self::Alertmanager(_)
            | Self::AnyVersion => StatusCode::BAD_REQUEST,
            Self::NoRoomForBody | Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Feedback(error) => match error {
                FeedbackError::Log(LogError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
                FeedbackError::Pending { .. } | FeedbackError::Log(_) => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            },
            Self::Score(error) => match error {
                ScoreError::TooManyRows { .. } => StatusCode::BAD_REQUEST,
                ScoreError::QueueFull | ScoreError::NoTime | ScoreError::Overloaded => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                ScoreError::Expired => StatusCode::GATEWAY_TIMEOUT,
                ScoreError::Engine(_) | ScoreError::NotFinite { .. } | ScoreError::Lost => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            },
            Self::Recommend(error) => match error {
                RecommendError::QueueFull | RecommendError::NoTime => StatusCode::SERVICE_UNAVAILABLE,
                RecommendError::Expired => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::Retrain(error) => match error {
                RetrainError::NoModel | RetrainError::NotConfigured => StatusCode::NOT_FOUND,
                RetrainError::Refused(_) => StatusCode::CONFLICT,
                RetrainError::Busy | RetrainError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
                RetrainError::Folder(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::Repository(error) | Self::Rollout(OrderError::Repository(error)) => match error {
                RequestError::NoModel | RequestError::NoVersion(_) => StatusCode::NOT_FOUND,
                RequestError::NothingOlder | RequestError::Load { .. } => StatusCode::CONFLICT,
                RequestError::Busy | RequestError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Rollout(error) => match error {
                OrderError::NoRollout | OrderError::NoVersion(_) => StatusCode::NOT_FOUND,
                OrderError::Busy | OrderError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
                OrderError::CanaryShare => StatusCode::BAD_REQUEST,
                OrderError::Journal(_) => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::CONFLICT,
            },
        }
    }

    /// How the metrics count a request to a model that ended so.
    pub(super) fn outcome(&self) -> Outcome {
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => Outcome::Shed,
            StatusCode::GATEWAY_TIMEOUT => Outcome::Timeout,
            status if status.is_server_error() => Outcome::Error,
            _ => Outcome::ClientError,
        }
    }

    /// The answer.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let mut message = self.to_string();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        let body = serde_json::json!({ "error": message }).to_string();
        let mut response = Format::Json.response(body.into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if let Self::Method(allowed) = self {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// A queue empties within milliseconds; a second is the least that the header can say.
const RETRY_AFTER_SECONDS: &str = "1";

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body(error: &HttpError) -> String {
        let body = error.response().into_body().collect().await.expect("a full body");
        String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8")
    }

    #[tokio::test]
    async fn a_long_message_is_cut_between_characters() {
        let reason = "é".repeat(300);
        let error = HttpError::Repository(RequestError::Load { version: 1.try_into().expect("1"), reason });
        let parsed: serde_json::Value = serde_json::from_str(&body(&error).await).expect("JSON");
        let message = parsed["error"].as_str().expect("a text");
        assert!((250..=MAX_MESSAGE_BYTES).contains(&message.len()), "{}", message.len());
    }

    #[tokio::test]
    async fn a_message_is_json_whatever_is_in_it() {
        let reason = "a \"quote\"\nand a line".to_owned();
        let error = HttpError::Repository(RequestError::Load { version: 1.try_into().expect("1"), reason });
        assert!(body(&error).await.contains(r#"a \"quote\"\nand a line"#));
    }

    #[test]
    fn only_a_503_says_when_to_come_back() {
        let full = HttpError::Score(ScoreError::QueueFull).response();
        assert_eq!(
            (full.status(), full.headers().contains_key(RETRY_AFTER)),
            (503.try_into().expect("503"), true)
        );
        assert!(!HttpError::NoRoute.response().headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn a_method_that_is_not_allowed_is_answered_with_those_that_are() {
        let response = HttpError::Method("GET, POST").response();
        assert_eq!(response.headers()[ALLOW], "GET, POST");
    }
}
