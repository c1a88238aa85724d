//! A request for scores, whatever its dialect: the one path from a body to the scores of its rows.
//!
//! A dialect brings what it alone knows, how rows stand in a body and how scores are written; what every request to a
//! model has in common is here: the version that answers it, its deadline, its bounds, and its place in the metrics.

use std::{
    error::Error,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap,
    body::Incoming,
    header::{HeaderName, HeaderValue},
};

use super::{Serving, body, error::HttpError, format::Format, router::Target, shadow};
use crate::{
    batcher::{Priority, ScoreError, Scores, Terms},
    features::Encoder,
    metrics::{Dialect, Metrics, Outcome, Shed},
    recommend::RecommendError,
    repository::{Live, Trial, TrialStage, Version, manifest::Manifest},
    tensor::Rows,
};

/// The header by which a request asks for less time than its model gives it, in milliseconds.
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// The header by which a request asks to go before or after others.
const REQUEST_PRIORITY: HeaderName = HeaderName::from_static("x-request-priority");

/// The header that says who a request is about.
const STICKY_KEY: HeaderName = HeaderName::from_static("x-sticky-key");

/// A request to a model from the moment that it named its version. Dropping it counts how it ended; one that is
/// dropped on the way was cancelled.
pub(super) struct Call {
    version: Arc<Version>,
    /// Whether the request says that it means this version.
    names_version: bool,
    /// Where a version is being tried, and the request is part of that.
    part: Option<Part>,
    dialect: Dialect,
    started: Instant,
    outcome: Outcome,
}

/// Appends the rows of a body in this format, at most so many, to a buffer.
pub(super) type Decode = fn(Format, &[u8], &Encoder, &mut Rows, usize) -> Result<(), HttpError>;

/// A request's part in the trial of a version.
struct Part {
    trial: Arc<Trial>,
    /// The version that does not answer it.
    other: Arc<Version>,
    /// Whether the version that does is at fault for what it was refused with.
    is_fault: AtomicBool,
}

impl Call {
    /// Begins with the version that answers: the one that the target names, else the current one, or the one that is being
    /// tried beside it.
    pub(super) fn begin(
        serving: &Serving,
        target: Target<'_>,
        headers: &HeaderMap,
        dialect: Dialect,
        started: Instant,
    ) -> Result<Self, HttpError> {
        let (live, mut version) = find(serving, target)?;
        let names_version = target.version.is_some();
        let trial = live.trial.clone().filter(|_| !names_version);
        let part = trial.map(|trial| {
            let mut other = Arc::clone(&trial.version);
            let is_canary = trial.candidate.stage == TrialStage::Canary;
            if is_canary && trial.takes(sticky_key(headers)) {
                mem::swap(&mut version, &mut other);
            }
            Part { trial, other, is_fault: AtomicBool::new(false) }
        });
        Ok(Self { version, names_version, part, dialect, started, outcome: Outcome::Cancelled })
    }

    /// The version that answers.
    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// The scores of the rows in `body`, in their order, once `admit` has seen its format, its bytes and how many they are.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the request, unless its batch has closed already.
    pub(super) async fn score(
        &self,
        serving: &Serving,
        headers: &HeaderMap,
        body: &mut Incoming,
        decode: Decode,
        admit: impl FnOnce(Format, &[u8], usize) -> Result<(), HttpError>,
    ) -> Result<Scores, HttpError> {
        let format = self.format(headers)?;
        let terms = Terms { deadline: self.deadline(headers)?, priority: priority(headers)? };
        self.version.batcher().admits(terms)?;
        let read = body::read(body, &serving.limits, &serving.room).await?;
        // Only a trial asks how long it took from here, and a clock is not free.
        let begun = self.part.as_ref().map(|_| Instant::now());
        let version = &*self.version;
        let limit = version.batcher().batching().max_batch_rows.get();
        let mut rows = version.take_buffer();
        let scores = match decode(format, &read.bytes, version.encoder(), &mut rows, limit) {
            Ok(()) => match admit(format, &read.bytes, rows.len()) {
                Ok(()) => version.batcher().score(&rows, terms).await.map_err(HttpError::from),
                Err(error) => Err(error),
            },
            Err(error) => {
                if let Some(part) = &self.part {
                    part.refused(|rows, encoder| decode(format, &read.bytes, encoder, rows, limit));
                }
                Err(error)
            }
        };
        version.return_buffer(rows);
        if let (Some(part), Some(begun), Ok(scores), Format::Json) = (&self.part, begun, &scores, format) {
            shadow::copy(&part.trial, sticky_key(headers), &read.bytes, scores, begun.elapsed());
        }
        scores
    }

    /// Counts how the request ended.
    pub(super) fn end<T>(&mut self, result: &Result<T, HttpError>, headers: &HeaderMap, metrics: &Metrics) {
        match result {
            Ok(_) => self.outcome = Outcome::Ok,
            Err(error) => {
                if let Some(part) = self.part.as_ref().filter(|_| is_fault(error, headers)) {
                    part.is_fault.store(true, Ordering::Relaxed);
                }
                self.note(error, metrics);
            }
        }
    }

    fn note(&mut self, error: &HttpError, metrics: &Metrics) {
        self.outcome = error.outcome();
        match error {
            HttpError::NoRoomForBody => metrics.shed(Shed::Bytes),
            HttpError::Score(ScoreError::QueueFull) | HttpError::Recommend(RecommendError::QueueFull) => {
                metrics.shed(Shed::Queue);
            }
            HttpError::Score(ScoreError::NoTime) | HttpError::Recommend(RecommendError::NoTime) => {
                metrics.shed(Shed::Deadline);
            }
            HttpError::Score(ScoreError::Overloaded) => metrics.shed(Shed::Overload),
            error if self.outcome == Outcome::Error => {
                let Manifest { model, version, .. } = self.version.manifest();
                tracing::error!(%model, %version, error = error as &dyn Error, "a request failed");
            }
            _ => {}
        }
    }

    /// How the rows stand in the body. Rows that some version has encoded are only taken for that one, which a request
    /// that was on its way while versions were swapped could not tell.
    fn format(&self, headers: &HeaderMap) -> Result<Format, HttpError> {
        let format = Format::of_body(headers)?;
        if format == Format::Binary && !self.names_version && self.version.encoder().is_fitted() {
            return Err(HttpError::AnyVersion);
        }
        Ok(format)
    }

    /// When the answer is too late: the model's time after the request came in, or less if the request says so.
    pub(super) fn deadline(&self, headers: &HeaderMap) -> Result<Instant, HttpError> {
        let longest = self.version.request_timeout();
        let Some(asked) = headers.get(REQUEST_TIMEOUT) else { return Ok(self.started + longest) };
        let asked = asked.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|&ms| ms > 0);
        let asked = asked.ok_or(HttpError::Timeout("x-request-timeout-ms"))?;
        Ok(self.started + longest.min(Duration::from_millis(asked)))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.version.metrics().series().request(self.dialect, self.outcome, duration);
        if let Some(part) = &self.part {
            part.count(&self.version, self.outcome, duration);
        }
    }
}

impl Part {
    /// The version has refused a body. One that is nonsense says nothing of it; one that the other version takes does.
    fn refused(&self, decode: impl FnOnce(&mut Rows, &Encoder) -> Result<(), HttpError>) {
        let mut rows = self.other.take_buffer();
        let taken = decode(&mut rows, self.other.encoder());
        self.is_fault.store(taken.is_ok(), Ordering::Relaxed);
        self.other.return_buffer(rows);
    }

    fn count(&self, version: &Arc<Version>, outcome: Outcome, duration: Duration) {
        let trial = &*self.trial;
        if trial.candidate.stage == TrialStage::Shadow {
            // What is compared with a shadow is counted where it is copied.
            return;
        }
        let tally = if Arc::ptr_eq(&trial.version, version) { &trial.tried } else { &trial.stable };
        match outcome {
            // Whoever went away had waited for so long at least.
            Outcome::Ok | Outcome::Cancelled => tally.answered(duration),
            _ if self.is_fault.load(Ordering::Relaxed) => tally.failed(),
            _ => {}
        }
    }
}

/// Whether it was the version that failed, and not the request: one that leaves it less time than the model's fails sooner with any.
fn is_fault(error: &HttpError, headers: &HeaderMap) -> bool {
    let is_hurried = headers.contains_key(REQUEST_TIMEOUT);
    match error {
        HttpError::Score(ScoreError::TooManyRows { .. }) => false,
        HttpError::Score(ScoreError::NoTime | ScoreError::Expired)
        | HttpError::Recommend(RecommendError::NoTime | RecommendError::Expired) => !is_hurried,
        HttpError::Score(_) | HttpError::Recommend(_) | HttpError::NoCatalogue => true,
        _ => false,
    }
}

/// Who the request is about, so that a user who comes again gets the same version again.
fn sticky_key(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(STICKY_KEY).map(HeaderValue::as_bytes)
}

/// What is live of the model that `target` names, and the version that it means.
pub(super) fn find(serving: &Serving, target: Target<'_>) -> Result<(Arc<Live>, Arc<Version>), HttpError> {
    let live = serving.repository.live(target.model).ok_or(HttpError::NoModel)?;
    let version = match target.version {
        None => &live.current,
        Some(version) => {
            let number = version.parse().map_err(|_| HttpError::NoVersion)?;
            live.version(number).ok_or(HttpError::NoVersion)?
        }
    };
    let version = Arc::clone(version);
    Ok((live, version))
}

fn priority(headers: &HeaderMap) -> Result<Priority, HttpError> {
    match headers.get(REQUEST_PRIORITY).map(HeaderValue::as_bytes) {
        None => Ok(Priority::default()),
        Some(b"high") => Ok(Priority::High),
        Some(b"normal") => Ok(Priority::Normal),
        Some(b"low") => Ok(Priority::Low),
        Some(_) => Err(HttpError::Priority("x-request-priority")),
    }
}
