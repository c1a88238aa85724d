//! The metrics of one version of a model, registered once so that the request path only touches atomics.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use metrics::{Counter, Gauge, Histogram, Label};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{counter, gauge, histogram};

/// How a request ended. Every request that named a model ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Scores were answered.
    Ok,
    /// The request was at fault.
    ClientError,
    /// There was no room for it.
    Shed,
    /// Its deadline passed.
    Timeout,
    /// The client went away.
    Cancelled,
    /// The server was at fault.
    Error,
}

impl Outcome {
    const ALL: [(Self, &str); 6] = [
        (Self::Ok, "ok"),
        (Self::ClientError, "client_error"),
        (Self::Shed, "shed"),
        (Self::Timeout, "timeout"),
        (Self::Cancelled, "cancelled"),
        (Self::Error, "error"),
    ];
}

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The scores of rows.
    Predict,
    /// The best items for a user.
    Recommend,
}

/// Why a batch closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// An engine was waiting for work.
    EngineIdle,
    /// An engine had finished the batch before.
    EngineFreed,
    /// It held as many rows as a batch may.
    Full,
    /// Another member would have cost one its deadline.
    Deadline,
}

impl CloseReason {
    const ALL: [(Self, &str); 4] = [
        (Self::EngineIdle, "engine_idle"),
        (Self::EngineFreed, "engine_freed"),
        (Self::Full, "full"),
        (Self::Deadline, "deadline"),
    ];
}

/// Why a queued request was never computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The client went away.
    Cancelled,
    /// Its deadline passed.
    Expired,
    /// It had waited for too long in a queue that does not get shorter.
    Overloaded,
}

impl Dropped {
    const ALL: [(Self, &str); 3] =
        [(Self::Cancelled, "cancelled"), (Self::Expired, "expired"), (Self::Overloaded, "overloaded")];
}

/// What is known of a version before it serves, exported as gauges.
#[derive(Clone, Debug, Default)]
pub struct VersionFacts {
    /// Measures from the manifest, by name.
    pub quality: BTreeMap<String, f64>,
    /// What batches cost during warm-up, by rows.
    pub batch_costs: Vec<(usize, Duration)>,
    /// Where its batches run.
    pub lane: &'static str,
    /// The items of its catalogue and how they are searched, where they are.
    pub catalogue: Option<(usize, &'static str)>,
    /// What computes them.
    pub engine: &'static str,
    /// Why that does.
    pub because: &'static str,
    /// Engine instances.
    pub engines: usize,
    /// What it takes of a GPU's memory, where it is on one.
    pub gpu_bytes: Option<usize>,
}

/// The metrics of one version for as long as it is loaded.
///
/// The exporter forgets series that stay idle, which is how those of retired versions end. A version that is loaded
/// but idle must not lose its series: [`VersionMetrics::keep_alive`] registers them anew.
pub struct VersionMetrics {
    labels: [Label; 2],
    facts: VersionFacts,
    series: ArcSwap<VersionSeries>,
}

impl VersionMetrics {
    pub(super) fn new(recorder: &PrometheusRecorder, model: &str, version: u64, facts: VersionFacts) -> Self {
        let labels = [Label::new("model", model.to_owned()), Label::new("version", version.to_string())];
        let series = ArcSwap::from_pointee(VersionSeries::register(recorder, &labels, &facts));
        Self { labels, facts, series }
    }

    pub(super) fn keep_alive(&self, recorder: &PrometheusRecorder) {
        self.series.store(Arc::new(VersionSeries::register(recorder, &self.labels, &self.facts)));
    }

    /// The series to record into. The guard is short-lived: it must not be kept over an `await`.
    pub fn series(&self) -> Guard<Arc<VersionSeries>> {
        self.series.load()
    }
}

/// The series of one version.
pub struct VersionSeries {
    predict: RequestSeries,
    /// Of a version that recommends.
    recommend: Option<RecommendSeries>,
    queue_duration: Histogram,
    compute_duration: Histogram,
    batch_rows: Histogram,
    batches: [Counter; 4],
    queue_rows: Gauge,
    dropped: [Counter; 3],
    retried: Counter,
}

/// The series of the requests in one dialect.
struct RequestSeries {
    requests: [Counter; 6],
    duration: Histogram,
}

/// The series of recommendations.
struct RecommendSeries {
    requests: RequestSeries,
    queue_duration: Histogram,
    search_duration: Histogram,
}

impl VersionSeries {
    /// Counts a request that ended, `duration` after its headers were read.
    pub fn request(&self, dialect: Dialect, outcome: Outcome, duration: Duration) {
        let series = match dialect {
            Dialect::Predict => Some(&self.predict),
            Dialect::Recommend => self.recommend.as_ref().map(|recommend| &recommend.requests),
        };
        let Some(series) = series else { return };
        series.requests[outcome as usize].increment(1);
        if outcome == Outcome::Ok {
            series.duration.record(duration);
        }
    }

    /// Records how long a question waited for its search, and how long that took.
    pub fn searched(&self, waited: Duration, took: Duration) {
        if let Some(recommend) = &self.recommend {
            recommend.queue_duration.record(waited);
            recommend.search_duration.record(took);
        }
    }

    /// Counts a batch that was computed in `compute`.
    pub fn batch(&self, reason: CloseReason, rows: usize, compute: Duration) {
        self.batches[reason as usize].increment(1);
        self.batch_rows.record(rows as f64);
        self.compute_duration.record(compute);
    }

    /// Records how long a request's rows waited for their batch to close.
    pub fn queued(&self, duration: Duration) {
        self.queue_duration.record(duration);
    }

    /// So many rows more wait for their batch to close.
    pub fn rows_joined(&self, rows: usize) {
        self.queue_rows.increment(rows as f64);
    }

    /// So many rows wait no longer.
    pub fn rows_left(&self, rows: usize) {
        self.queue_rows.decrement(rows as f64);
    }

    /// Counts a queued request that will not be computed.
    pub fn dropped(&self, reason: Dropped) {
        self.dropped[reason as usize].increment(1);
    }

    /// Counts a request that is computed again on its own.
    pub fn retried(&self) {
        self.retried.increment(1);
    }

    /// Registers the series, or finds those that are registered already. Touches each of them, which is what keeps
    /// the exporter from forgetting it.
    fn register(recorder: &PrometheusRecorder, labels: &[Label; 2], facts: &VersionFacts) -> Self {
        let with = |more: &[Label]| [labels.as_slice(), more].concat();
        let touched = |name, more: &[Label]| {
            let counter = counter(recorder, name, &with(more));
            counter.increment(0);
            counter
        };
        let histogram = |name| histogram(recorder, name, labels);
        for (measure, &value) in &facts.quality {
            let measure = Label::new("measure", measure.clone());
            gauge(recorder, "millrace_version_quality", &with(&[measure])).set(value);
        }
        for (rows, cost) in &facts.batch_costs {
            let rows = Label::new("rows", rows.to_string());
            gauge(recorder, "millrace_batch_cost_seconds", &with(&[rows])).set(cost.as_secs_f64());
        }
        let engine = [Label::new("engine", facts.engine), Label::new("because", facts.because)];
        gauge(recorder, "millrace_engine_info", &with(&engine)).set(1.0);
        gauge(recorder, "millrace_lane_info", &with(&[Label::new("lane", facts.lane)])).set(1.0);
        let queue_rows = gauge(recorder, "millrace_queue_rows", labels);
        queue_rows.increment(0.0);
        gauge(recorder, "millrace_engine_instances", labels).set(facts.engines as f64);
        if let Some(bytes) = facts.gpu_bytes {
            gauge(recorder, "millrace_version_gpu_memory_bytes", labels).set(bytes as f64);
        }
        if let Some((items, method)) = facts.catalogue {
            let method = Label::new("method", method);
            gauge(recorder, "millrace_catalogue_items", &with(&[method])).set(items as f64);
        }
        let requests = |dialect, duration| RequestSeries {
            requests: Outcome::ALL.map(|(_, outcome)| {
                let labels = [Label::new("dialect", dialect), Label::new("outcome", outcome)];
                touched("millrace_requests_total", &labels)
            }),
            duration: histogram(duration),
        };
        let recommend = || RecommendSeries {
            requests: requests("recommend", "millrace_recommend_duration_seconds"),
            queue_duration: histogram("millrace_recommend_queue_duration_seconds"),
            search_duration: histogram("millrace_search_duration_seconds"),
        };
        Self {
            predict: requests("predict", "millrace_request_duration_seconds"),
            recommend: facts.catalogue.map(|_| recommend()),
            queue_duration: histogram("millrace_queue_duration_seconds"),
            compute_duration: histogram("millrace_compute_duration_seconds"),
            batch_rows: histogram("millrace_batch_rows"),
            batches: CloseReason::ALL
                .map(|(_, reason)| touched("millrace_batches_total", &[Label::new("reason", reason)])),
            queue_rows,
            dropped: Dropped::ALL.map(|(_, reason)| {
                touched("millrace_dropped_requests_total", &[Label::new("reason", reason)])
            }),
            retried: touched("millrace_retried_requests_total", &[]),
        }
    }
}
