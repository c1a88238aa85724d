//! The metrics of feedback.

use std::time::Duration;

use metrics::{Counter, Gauge, Label};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{counter, gauge};

/// Why feedback was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It made no sense, or its receipts are none.
    Malformed,
    /// A receipt is of a key that this server does not have.
    Foreign,
    /// A receipt was changed or made up.
    Tampered,
    /// A receipt is too old.
    Expired,
    /// There was no room for it just then.
    Busy,
    /// There is no room on the disk.
    Full,
    /// The disk has failed, or the server is at fault in another way.
    Failed,
}

impl Refused {
    const ALL: [(Self, &str); 7] = [
        (Self::Malformed, "malformed"),
        (Self::Foreign, "foreign"),
        (Self::Tampered, "tampered"),
        (Self::Expired, "expired"),
        (Self::Busy, "busy"),
        (Self::Full, "full"),
        (Self::Failed, "failed"),
    ];
}

/// What has been told, and what of it was taken.
pub struct FeedbackMetrics {
    accepted: Counter,
    duplicates: Counter,
    late: Counter,
    refused: [Counter; 7],
    log_bytes: Gauge,
    log_sync: Gauge,
    log_full: Gauge,
    log_failed: Gauge,
    export_failed: Gauge,
}

impl FeedbackMetrics {
    pub(super) fn new(recorder: &PrometheusRecorder) -> Self {
        let events =
            |result| counter(recorder, "millrace_feedback_events_total", &[Label::new("result", result)]);
        Self {
            accepted: events("accepted"),
            duplicates: events("duplicate"),
            late: counter(recorder, "millrace_feedback_late_labels_total", &[]),
            refused: Refused::ALL.map(|(_, reason)| {
                counter(recorder, "millrace_feedback_refused_total", &[Label::new("reason", reason)])
            }),
            log_bytes: gauge(recorder, "millrace_feedback_log_bytes", &[]),
            log_sync: gauge(recorder, "millrace_feedback_log_sync_seconds", &[]),
            log_full: gauge(recorder, "millrace_feedback_log_full", &[]),
            log_failed: gauge(recorder, "millrace_feedback_log_failed", &[]),
            export_failed: gauge(recorder, "millrace_feedback_export_failed", &[]),
        }
    }

    /// Counts events that were taken, and those that were there already.
    pub fn taken(&self, accepted: usize, duplicates: usize) {
        self.accepted.increment(accepted as u64);
        self.duplicates.increment(duplicates as u64);
    }

    /// So many labels have come too late to count, since the server started.
    pub fn late(&self, labels: u64) {
        self.late.absolute(labels);
    }

    /// Whether the last export of the log went well.
    pub fn exported(&self, well: bool) {
        self.export_failed.set(f64::from(u8::from(!well)));
    }

    /// How the log is: its bytes, its last sync, whether the disk is full and whether it has failed.
    pub fn log(&self, bytes: u64, sync: Option<Duration>, full: bool, failed: bool) {
        self.log_bytes.set(bytes as f64);
        self.log_sync.set(sync.unwrap_or_default().as_secs_f64());
        self.log_full.set(f64::from(u8::from(full)));
        self.log_failed.set(f64::from(u8::from(failed)));
    }

    /// Counts a request that was refused.
    pub fn refused(&self, reason: Refused) {
        self.refused[reason as usize].increment(1);
    }
}
