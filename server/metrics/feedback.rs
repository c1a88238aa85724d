//! The metrics of feedback.

use metrics::{Counter, Label};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::counter;

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

    /// Counts a request that was refused.
    pub fn refused(&self, reason: Refused) {
        self.refused[reason as usize].increment(1);
    }
}
