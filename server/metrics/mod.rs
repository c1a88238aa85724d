//! Every metric of the server, each a field of a documented struct; the names and their meaning are in
//! [`families`](self::families) and in `docs/metrics.md`.
//!
//! There is no process global: each server owns its recorders, so two servers in one process do not mix. Series with
//! a version label are kept apart: they end some time after their version does, where those of the server never end.

mod drift;
mod families;
mod feedback;
mod gpus;
mod live;
mod retrain;
mod version;

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use metrics_process::Collector;
use metrics_util::MetricKindMask;

pub use self::{
    drift::{DriftFacts, FeatureDrift, Psi},
    families::{FAMILIES, Family, Kind},
    feedback::{FeedbackMetrics, Refused},
    live::LiveFacts,
    retrain::WebhookResult,
    version::{CloseReason, Dialect, Dropped, Outcome, VersionFacts, VersionMetrics, VersionSeries},
};

use self::gpus::Gpus;

/// Why a request was refused before it reached a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The model's queue held as many rows as it may.
    Queue,
    /// The bodies being read held as many bytes as they may.
    Bytes,
    /// Its scores would have come after its deadline.
    Deadline,
    /// The model's queue had been too long for too long.
    Overload,
}

impl Shed {
    const ALL: [(Self, &str); 4] = [
        (Self::Queue, "queue"),
        (Self::Bytes, "bytes"),
        (Self::Deadline, "deadline"),
        (Self::Overload, "overload"),
    ];
}

/// The metrics of one server.
pub struct Metrics {
    /// Connections that are open now.
    pub connections_open: Gauge,
    /// Connections accepted since the start.
    pub connections: Counter,
    /// Times that accepting failed, for want of file descriptors say.
    pub accept_errors: Counter,
    /// Requests that reached no model.
    pub unrouted: Counter,
    /// What comes back to answers.
    pub feedback: FeedbackMetrics,
    shed: [Counter; 4],
    drift_dropped: Counter,
    webhooks: [Counter; 3],
    /// Versions that take memory, loaded or not dropped yet.
    pub versions_in_memory: Gauge,
    server: PrometheusRecorder,
    versions: PrometheusRecorder,
    process: Collector,
    gpus: Gpus,
    live: Mutex<Vec<Weak<VersionMetrics>>>,
}

impl Metrics {
    /// Registers every metric of the server. `revision` is the source that it was built from.
    pub fn new(revision: &str) -> Arc<Self> {
        let server = buckets(PrometheusBuilder::new()).build_recorder();
        let versions = buckets(PrometheusBuilder::new())
            .idle_timeout(MetricKindMask::ALL, Some(RETIRED_SERIES_LIFETIME))
            .build_recorder();
        let process = Collector::default();
        describe(&server, &versions, &process);
        let build =
            [Label::new("version", env!("CARGO_PKG_VERSION")), Label::new("revision", revision.to_owned())];
        gauge(&server, "millrace_build_info", &build).set(1.0);
        Arc::new(Self {
            connections_open: gauge(&server, "millrace_connections_open", &[]),
            connections: counter(&server, "millrace_connections_total", &[]),
            accept_errors: counter(&server, "millrace_accept_errors_total", &[]),
            unrouted: counter(&server, "millrace_unrouted_requests_total", &[]),
            feedback: FeedbackMetrics::new(&server),
            shed: Shed::ALL
                .map(|(_, reason)| counter(&server, "millrace_shed_total", &[Label::new("reason", reason)])),
            drift_dropped: counter(&server, "millrace_drift_dropped_rows_total", &[]),
            webhooks: WebhookResult::ALL.map(|(_, result)| {
                counter(&server, "millrace_alert_webhooks_total", &[Label::new("result", result)])
            }),
            versions_in_memory: gauge(&server, "millrace_versions_in_memory", &[]),
            server,
            versions,
            process,
            gpus: Gpus::find(),
            live: Mutex::default(),
        })
    }

    /// Counts a refusal.
    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].increment(1);
    }

    /// The metrics of one version; dropping the last reference ends their series after a while.
    pub fn version(&self, model: &str, version: u64, facts: VersionFacts) -> Arc<VersionMetrics> {
        let metrics = Arc::new(VersionMetrics::new(&self.versions, model, version, facts));
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|known| known.strong_count() > 0);
        live.push(Arc::downgrade(&metrics));
        metrics
    }

    /// How good the answers of a version are, in the `early` or the `mature` window.
    pub fn live(&self, model: &str, version: u64, window: &'static str, facts: &LiveFacts) {
        let [model, version] = [("model", model.to_owned()), ("version", version.to_string())]
            .map(|(key, value)| Label::new(key, value));
        facts.record(&self.versions, &[model, version, Label::new("window", window)]);
    }

    /// How far the rows of a version have moved.
    pub fn drift(&self, model: &str, version: u64, facts: &DriftFacts<'_>) {
        let labels = [("model", model.to_owned()), ("version", version.to_string())];
        facts.record(&self.versions, &labels.map(|(key, value)| Label::new(key, value)));
    }

    /// Counts rows that were to be looked at for drift and were not, for want of room.
    pub fn drift_dropped(&self, rows: usize) {
        self.drift_dropped.increment(rows as u64);
    }

    /// Counts one attempt to load a version of `model`, and how long it took.
    pub fn loaded(&self, model: &str, result: LoadResult, duration: Duration) {
        let model = Label::new("model", model.to_owned());
        let result = Label::new("result", result.label());
        counter(&self.server, "millrace_model_loads_total", &[model.clone(), result]).increment(1);
        histogram(&self.server, "millrace_model_load_duration_seconds", &[model]).record(duration);
    }

    /// Counts one change of the versions that `model` serves, and how long the exchange itself took.
    pub fn swapped(&self, model: &str, duration: Duration) {
        let model = [Label::new("model", model.to_owned())];
        counter(&self.server, "millrace_model_swaps_total", &model).increment(1);
        histogram(&self.server, "millrace_model_swap_duration_seconds", &model).record(duration);
    }

    /// The version of `model` that answers requests; 0 when none does.
    pub fn current_version(&self, model: &str, version: u64) {
        let model = [Label::new("model", model.to_owned())];
        gauge(&self.server, "millrace_model_current_version", &model).set(version as f64);
    }

    /// The version of `model` that is being tried, 0 where none is, and with which share of requests.
    pub fn rollout(&self, model: &str, candidate: u64, share: f64) {
        let model = [Label::new("model", model.to_owned())];
        gauge(&self.server, "millrace_rollout_candidate", &model).set(candidate as f64);
        gauge(&self.server, "millrace_rollout_share", &model).set(share);
    }

    /// A model has rollouts: what becomes of its versions is counted from 0 on, so that a first time is seen as one.
    pub fn rollouts(&self, model: &str, events: impl IntoIterator<Item = &'static str>) {
        for event in events {
            let labels = [Label::new("model", model.to_owned()), Label::new("event", event)];
            counter(&self.server, "millrace_rollout_events_total", &labels).increment(0);
        }
    }

    /// Counts what has become of a version of `model`.
    pub fn rollout_event(&self, model: &str, event: &'static str) {
        let labels = [Label::new("model", model.to_owned()), Label::new("event", event)];
        counter(&self.server, "millrace_rollout_events_total", &labels).increment(1);
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&self.server, || self.process.collect());
        self.gpus.read().iter().for_each(|gpu| gpu.record(&self.server));
        let mut text = self.server.handle().render();
        text.push_str(&self.versions.handle().render());
        text
    }

    /// Moves recorded samples into their buckets, which bounds the memory that they take, and keeps the series of
    /// versions that are still loaded alive. To be called every few seconds.
    pub fn upkeep(&self) {
        let live: Vec<Arc<VersionMetrics>> = {
            let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.iter().filter_map(Weak::upgrade).collect()
        };
        for version in live {
            version.keep_alive(&self.versions);
        }
        self.server.handle().run_upkeep();
        self.versions.handle().run_upkeep();
    }
}

/// How an attempt to load a version ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadResult {
    /// The version is ready to serve.
    Ok,
    /// The version was refused, and nothing changed.
    Failed,
}

impl LoadResult {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

fn buckets(builder: PrometheusBuilder) -> PrometheusBuilder {
    FAMILIES.iter().fold(builder, |builder, family| match family.kind {
        Kind::Histogram(buckets) => builder
            .set_buckets_for_metric(Matcher::Full(family.name.to_owned()), buckets)
            .expect("every family has at least one bucket"),
        Kind::Counter | Kind::Gauge => builder,
    })
}

fn describe(server: &PrometheusRecorder, versions: &PrometheusRecorder, process: &Collector) {
    for family in FAMILIES {
        let recorder = if family.labels.contains(&"version") && !family.server { versions } else { server };
        let (name, help) = (family.name.into(), family.help.into());
        match family.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }
    metrics::with_local_recorder(server, || process.describe());
}

fn counter(recorder: &PrometheusRecorder, name: &'static str, labels: &[Label]) -> Counter {
    recorder.register_counter(&Key::from_parts(name, labels.to_vec()), &METADATA)
}

fn gauge(recorder: &PrometheusRecorder, name: &'static str, labels: &[Label]) -> Gauge {
    recorder.register_gauge(&Key::from_parts(name, labels.to_vec()), &METADATA)
}

fn histogram(recorder: &PrometheusRecorder, name: &'static str, labels: &[Label]) -> Histogram {
    recorder.register_histogram(&Key::from_parts(name, labels.to_vec()), &METADATA)
}

/// The exporter asks for it and does not look at it.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// How long the series of a version outlive it: long enough to be scraped a last time, short enough that a server
/// that swaps every few minutes for a year stays small.
const RETIRED_SERIES_LIFETIME: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests {
    use super::{gpus::Gpu, *};

    #[test]
    fn two_servers_in_one_process_count_apart() {
        let (one, other) = (Metrics::new("a"), Metrics::new("b"));
        one.unrouted.increment(3);
        assert!(one.render().contains("millrace_unrouted_requests_total 3"));
        assert!(other.render().contains("millrace_unrouted_requests_total 0"));
    }

    #[test]
    fn every_rendered_family_is_described_and_no_label_is_undocumented() {
        let metrics = Metrics::new("abc");
        let facts = VersionFacts {
            quality: [("auc".to_owned(), 0.9)].into(),
            batch_costs: vec![(1, Duration::from_micros(12))],
            lane: "inline",
            catalogue: Some((4, "towers")),
            engine: "onnx-cpu",
            because: "configured",
            engines: 2,
            gpu_bytes: Some(1 << 20),
        };
        let version = metrics.version("shop", 7, facts);
        let some = Some(0.5);
        let gpu = Gpu {
            number: 1,
            name: "a GPU".into(),
            driver: "580".into(),
            utilization: some,
            memory_used_bytes: some,
            memory_bytes: some,
            power_watts: some,
            clock_hertz: some,
            temperature_celsius: some,
        };
        gpu.record(&metrics.server);
        version.series().request(Dialect::Predict, Outcome::Ok, Duration::from_millis(1));
        version.series().batch(CloseReason::EngineIdle, 3, Duration::from_micros(20));
        version.series().queued(Duration::from_micros(20));
        version.series().request(Dialect::Recommend, Outcome::Ok, Duration::from_millis(1));
        version.series().searched(Duration::from_micros(20), Duration::from_millis(1));
        let live = LiveFacts {
            rows: vec![("labelled", 1)],
            measures: vec![("auc", some)],
            delays: vec![("0.5", None)],
        };
        metrics.live("shop", 7, "mature", &live);
        let (psi, shares) = (Psi { found: some, by_chance: None }, [("live", None), ("training", some)]);
        let user = FeatureDrift { feature: "user", psi, unknown: Some(shares), missing: shares };
        let drift =
            DriftFacts { sampled: [("score", 1, 2), ("feature", 1, 2)], score: psi, features: vec![user] };
        metrics.drift("shop", 7, &drift);
        metrics.loaded("shop", LoadResult::Ok, Duration::from_millis(5));
        metrics.swapped("shop", Duration::from_micros(1));
        metrics.current_version("shop", 7);
        metrics.rollout("shop", 8, 0.1);
        metrics.rollout_event("shop", "entered");
        metrics.alert("shop", true);
        metrics.alert_changed("shop", true);
        metrics.webhook(WebhookResult::Delivered);
        metrics.retrain_asked("shop", "alert", "started");
        metrics.retrain_running("shop", true);
        metrics.retrained("shop", "ok", 1);
        let text = metrics.render();
        for line in text.lines().filter(|line| line.starts_with("millrace_")) {
            let name = line.split(['{', ' ']).next().expect("a name");
            let family = FAMILIES.iter().find(|family| {
                let suffix = name.strip_prefix(family.name);
                suffix.is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
            });
            let family = family.unwrap_or_else(|| panic!("{name} is not in the table"));
            assert!(text.contains(&format!("# HELP {} {}", family.name, family.help)), "{name}");
            let labels = line.split_once('{').map_or("", |(_, rest)| rest);
            for label in labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name) {
                assert!(label == "le" || family.labels.contains(&label), "{name} has label {label}");
            }
        }
        for family in FAMILIES {
            assert!(text.contains(&format!("# TYPE {} ", family.name)), "{} was never rendered", family.name);
        }
    }

    #[test]
    fn upkeep_does_not_change_what_was_counted() {
        let metrics = Metrics::new("abc");
        let version = metrics.version("shop", 7, VersionFacts::default());
        version.series().request(Dialect::Predict, Outcome::Ok, Duration::from_millis(1));
        for _ in 0..3 {
            metrics.upkeep();
        }
        version.series().request(Dialect::Predict, Outcome::Ok, Duration::from_millis(1));
        let text = metrics.render();
        let expected =
            r#"millrace_requests_total{model="shop",version="7",dialect="predict",outcome="ok"} 2"#;
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains(r#"millrace_request_duration_seconds_count{model="shop",version="7"} 2"#),
            "{text}"
        );
    }
}
