//! The table of all metrics: what `docs/metrics.md` prints and what the exporter describes.

/// What a family measures with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts samples into buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// All series of one name.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name, with its unit last.
    pub name: &'static str,
    /// What it measures with.
    pub kind: Kind,
    /// The labels of each series.
    pub labels: &'static [&'static str],
    /// Whether its series live as long as the server, and not as long as a version.
    pub server: bool,
    /// What it means.
    pub help: &'static str,
}

const fn server(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, labels, server: true, help }
}

const fn version(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, labels, server: false, help }
}

/// 50 microseconds to 10 seconds, each bound about 1.8 times the one before.
const SECONDS: Kind = Kind::Histogram(&[
    0.000_05, 0.000_1, 0.000_2, 0.000_35, 0.000_6, 0.001, 0.002, 0.003_5, 0.006, 0.01, 0.02, 0.035, 0.06,
    0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 5.0, 10.0,
]);

/// A millisecond to five minutes.
const LOAD_SECONDS: Kind =
    Kind::Histogram(&[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]);

/// A microsecond to a tenth of a second.
const SWAP_SECONDS: Kind = Kind::Histogram(&[0.000_001, 0.000_01, 0.000_1, 0.001, 0.01, 0.1]);

const ROWS: Kind = Kind::Histogram(&[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
]);

const VERSION: &[&str] = &["model", "version"];

/// Every family that the server exports, besides the `process_` ones.
pub const FAMILIES: &[Family] = &[
    server(
        "millrace_build_info",
        Kind::Gauge,
        &["version", "revision"],
        "Always 1; the labels say which build runs.",
    ),
    server("millrace_connections_open", Kind::Gauge, &[], "Connections that are open on the serving port."),
    server("millrace_connections_total", Kind::Counter, &[], "Connections accepted on the serving port."),
    server(
        "millrace_accept_errors_total",
        Kind::Counter,
        &[],
        "Failures to accept a connection on the serving port.",
    ),
    server(
        "millrace_unrouted_requests_total",
        Kind::Counter,
        &[],
        "Requests that reached no model: no such path, method or model, or headers that are too large.",
    ),
    server(
        "millrace_shed_total",
        Kind::Counter,
        &["reason"],
        "Requests refused with 503: no room in a model's queue (queue) or for their bodies (bytes), scores that would come too late (deadline), a queue that does not get shorter (overload).",
    ),
    server(
        "millrace_drift_dropped_rows_total",
        Kind::Counter,
        &[],
        "Rows that were drawn to be held against training rows and were not, because those before them or their bodies took all the room.",
    ),
    server(
        "millrace_feedback_events_total",
        Kind::Counter,
        &["result"],
        "Events of feedback that are in the log: since this request (accepted), or before it (duplicate).",
    ),
    server(
        "millrace_feedback_late_labels_total",
        Kind::Counter,
        &[],
        "Labels that came when their answers were older than every window, or of a version that is judged no more; those that the server read from the log when it started among them.",
    ),
    server(
        "millrace_feedback_refused_total",
        Kind::Counter,
        &["reason"],
        "Requests with feedback of which nothing was taken: a receipt of another key (foreign), one that was changed (tampered), one that is too old (expired), nonsense (malformed), no room just then (busy) or on the disk (full), a disk that has failed (failed).",
    ),
    server(
        "millrace_feedback_log_bytes",
        Kind::Gauge,
        &[],
        "Bytes of the log of feedback on disk, with what its last segment has reserved.",
    ),
    server(
        "millrace_feedback_log_sync_seconds",
        Kind::Gauge,
        &[],
        "What the last sync of the log of feedback took.",
    ),
    server(
        "millrace_feedback_log_full",
        Kind::Gauge,
        &[],
        "1 where the last feedback was refused for want of room on disk, else 0.",
    ),
    server(
        "millrace_feedback_log_failed",
        Kind::Gauge,
        &[],
        "1 where the disk of the log has failed, so that no feedback is taken until the server is started anew, else 0.",
    ),
    server(
        "millrace_feedback_export_failed",
        Kind::Gauge,
        &[],
        "1 where the log of feedback could not be exported when that was last tried, so that it fills up, else 0.",
    ),
    server(
        "millrace_alert_firing",
        Kind::Gauge,
        &["model"],
        "1 where the model is not good enough by the mature window of the version that answers, else 0; of models with an alert.",
    ),
    server(
        "millrace_alert_changes_total",
        Kind::Counter,
        &["model", "to"],
        "Alerts that have begun to fire (firing) or have become quiet again (quiet).",
    ),
    server(
        "millrace_alert_webhooks_total",
        Kind::Counter,
        &["result"],
        "Changes of alerts that a webhook was to be told of: delivered, failed (however often it was tried), or dropped (too many waited).",
    ),
    server(
        "millrace_retrain_requests_total",
        Kind::Counter,
        &["model", "by", "result"],
        "Retrainings that were asked for by the model's alert, a schedule, a webhook or an operator: started, or refused because one was running, during the trial of a version, within the cooldown, because of the daily_maximum or the kill_switch, or because retrain_dir could not be used (failed).",
    ),
    server(
        "millrace_retrain_running",
        Kind::Gauge,
        &["model"],
        "1 while the model is being retrained, else 0.",
    ),
    server(
        "millrace_retrain_total",
        Kind::Counter,
        &["model", "outcome"],
        "Retrainings that have ended: ok, failed (another exit status than 0), timeout, kill_switch, stopped (with the server), not_exported (the log of feedback could not be), or not_started (no such program, say).",
    ),
    server(
        "millrace_model_loads_total",
        Kind::Counter,
        &["model", "result"],
        "Attempts to load a version, ok or failed.",
    ),
    server(
        "millrace_model_load_duration_seconds",
        LOAD_SECONDS,
        &["model"],
        "Time to read, verify, check and warm up a version, whether it was ready in the end or refused.",
    ),
    server(
        "millrace_model_swaps_total",
        Kind::Counter,
        &["model"],
        "Changes of the version that answers requests.",
    ),
    server(
        "millrace_model_swap_duration_seconds",
        SWAP_SECONDS,
        &["model"],
        "Time of the exchange itself, which requests never wait for.",
    ),
    server(
        "millrace_model_current_version",
        Kind::Gauge,
        &["model"],
        "The version that answers requests for the model; 0 when none does.",
    ),
    server(
        "millrace_rollout_candidate",
        Kind::Gauge,
        &["model"],
        "The version that is being tried beside the one that answers most requests; 0 when none is.",
    ),
    server(
        "millrace_rollout_share",
        Kind::Gauge,
        &["model"],
        "The share of requests that goes to the version that is being tried, as answers or as copies.",
    ),
    server(
        "millrace_rollout_events_total",
        Kind::Counter,
        &["model", "event"],
        "What has become of versions since the server started: stable (without having been tried), entered, advanced (from shadow to canary), promoted, rolled_back, aborted (by an operator) or withdrawn (with nothing decided).",
    ),
    server(
        "millrace_versions_in_memory",
        Kind::Gauge,
        &[],
        "Versions that take memory: those that are loaded, and retired ones that are not dropped yet.",
    ),
    server(
        "millrace_gpu_info",
        Kind::Gauge,
        &["gpu", "name", "driver"],
        "Always 1; the labels say which GPUs there are, by NVML.",
    ),
    server(
        "millrace_gpu_utilization_ratio",
        Kind::Gauge,
        &["gpu"],
        "The share of NVML's last sample period, of a second at most, in which a kernel ran.",
    ),
    server(
        "millrace_gpu_memory_used_bytes",
        Kind::Gauge,
        &["gpu"],
        "Memory of the GPU that is taken, whoever takes it.",
    ),
    server("millrace_gpu_memory_bytes", Kind::Gauge, &["gpu"], "Memory of the GPU."),
    server("millrace_gpu_power_watts", Kind::Gauge, &["gpu"], "What the GPU draws."),
    server("millrace_gpu_clock_hertz", Kind::Gauge, &["gpu"], "The clock of the GPU's multiprocessors."),
    server("millrace_gpu_temperature_celsius", Kind::Gauge, &["gpu"], "The temperature of the GPU."),
    version(
        "millrace_live_rows",
        Kind::Gauge,
        &["model", "version", "window", "of"],
        "Rows in a window of the times of their answers: answered with a receipt by this server since it started (predicted), labelled, answered since then and labelled (covered), labelled as having happened (positive), and scored on the side of the threshold where the label is (correct). The mature window ends where answers have had time to get their labels, the early one now.",
    ),
    version(
        "millrace_live_quality",
        Kind::Gauge,
        &["model", "version", "window", "measure"],
        "Measures of the labelled rows in a window; NaN where there are too few.",
    ),
    version(
        "millrace_live_label_delay_seconds",
        Kind::Gauge,
        &["model", "version", "window", "quantile"],
        "What a share of the labels in a window did not take longer than, a fifth too long at most.",
    ),
    version(
        "millrace_drift_requests",
        Kind::Gauge,
        &["model", "version", "of"],
        "Requests in the drift window of which rows were drawn: those whose scores count (score), and those whose values do, as they came in JSON (feature).",
    ),
    version("millrace_drift_rows", Kind::Gauge, &["model", "version", "of"], "Rows that were drawn of them."),
    version(
        "millrace_drift_psi",
        Kind::Gauge,
        &["model", "version", "of", "feature"],
        "The population stability index of the rows in the drift window beside the training rows: of the scores (score) or of a feature's values (feature). NaN where there are too few requests, or too little time for an hour or a weekday.",
    ),
    version(
        "millrace_drift_psi_by_chance",
        Kind::Gauge,
        &["model", "version", "of", "feature"],
        "What millrace_drift_psi would be on the mean if nothing had moved, which is to be subtracted from it.",
    ),
    version(
        "millrace_drift_unknown_ratio",
        Kind::Gauge,
        &["model", "version", "feature", "rows"],
        "The share of a feature's values that its vocabulary does not know, of the drift window (live) or of the training rows (training). NaN where there are too few requests.",
    ),
    version(
        "millrace_drift_missing_ratio",
        Kind::Gauge,
        &["model", "version", "feature", "rows"],
        "The same of its missing values.",
    ),
    version(
        "millrace_requests_total",
        Kind::Counter,
        &["model", "version", "dialect", "outcome"],
        "Requests by outcome: ok, client_error, shed, timeout, cancelled (the client went away) or error.",
    ),
    version(
        "millrace_request_duration_seconds",
        SECONDS,
        VERSION,
        "Time from the request's headers to its answer, for requests answered with scores.",
    ),
    version(
        "millrace_recommend_duration_seconds",
        SECONDS,
        VERSION,
        "Time from the request's headers to its answer, for requests answered with items.",
    ),
    version(
        "millrace_recommend_queue_duration_seconds",
        SECONDS,
        VERSION,
        "Time that a question for recommendations waited for its search.",
    ),
    version(
        "millrace_search_duration_seconds",
        SECONDS,
        VERSION,
        "Time of a search of the catalogue, or of the candidates.",
    ),
    version(
        "millrace_queue_duration_seconds",
        SECONDS,
        VERSION,
        "Time that a request's rows waited for their batch to close.",
    ),
    version("millrace_compute_duration_seconds", SECONDS, VERSION, "Time that the engine computed a batch."),
    version("millrace_batch_rows", ROWS, VERSION, "Rows in a batch."),
    version(
        "millrace_batches_total",
        Kind::Counter,
        &["model", "version", "reason"],
        "Batches by why they closed: engine_idle (an engine was waiting), engine_freed (one came free), full, or deadline (another member would have cost one its deadline).",
    ),
    version("millrace_queue_rows", Kind::Gauge, VERSION, "Rows that wait for their batch to close."),
    version(
        "millrace_dropped_requests_total",
        Kind::Counter,
        &["model", "version", "reason"],
        "Queued requests that were never computed: cancelled (the client went away), expired, or overloaded (too long in a queue that does not get shorter).",
    ),
    version(
        "millrace_retried_requests_total",
        Kind::Counter,
        VERSION,
        "Requests that were computed again on their own because their batch failed.",
    ),
    version(
        "millrace_version_quality",
        Kind::Gauge,
        &["model", "version", "measure"],
        "A version's measures before it was published, from its manifest: auc, accuracy, ...",
    ),
    version(
        "millrace_batch_cost_seconds",
        Kind::Gauge,
        &["model", "version", "rows"],
        "What a batch of this many rows cost while the version warmed up.",
    ),
    version(
        "millrace_catalogue_items",
        Kind::Gauge,
        &["model", "version", "method"],
        "Items that the version recommends; the label says whether its pairs are scored on the gpu, by towers or as whole rows.",
    ),
    version(
        "millrace_engine_instances",
        Kind::Gauge,
        VERSION,
        "Engines of the version, each of which computes a batch at a time: the rate of millrace_compute_duration_seconds_sum divided by this is how busy they are.",
    ),
    version(
        "millrace_engine_info",
        Kind::Gauge,
        &["model", "version", "engine", "because"],
        "Always 1; the labels say what computes batches, onnx-cpu, onnx-cuda, cuda or tensorrt, and why: configured, cheapest (of those that auto tried), or only (no other could serve the version).",
    ),
    version(
        "millrace_version_gpu_memory_bytes",
        Kind::Gauge,
        VERSION,
        "What a version on a GPU takes of its memory: tables, weights, items that are recommended there, and what each engine works in.",
    ),
    version(
        "millrace_lane_info",
        Kind::Gauge,
        &["model", "version", "lane"],
        "Always 1; the label says whether batches run inline on the threads that serve or on threads of their own.",
    ),
];
