//! The metrics of alerts and of what they lead to: few and slow, so that they are looked up each time.

use metrics::Label;

use super::{Metrics, counter, gauge};

/// What became of a notice to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookResult {
    /// Somebody has it.
    Delivered,
    /// Nobody took it, however often it was tried.
    Failed,
    /// There was no room for it.
    Dropped,
}

impl WebhookResult {
    pub(super) const ALL: [(Self, &str); 3] =
        [(Self::Delivered, "delivered"), (Self::Failed, "failed"), (Self::Dropped, "dropped")];
}

impl Metrics {
    /// Whether the alert of `model` fires.
    pub fn alert(&self, model: &str, firing: bool) {
        gauge(&self.server, "millrace_alert_firing", &[of(model)]).set(f64::from(u8::from(firing)));
    }

    /// Counts an alert that has begun to fire, or has become quiet.
    pub fn alert_changed(&self, model: &str, firing: bool) {
        let to = Label::new("to", if firing { "firing" } else { "quiet" });
        counter(&self.server, "millrace_alert_changes_total", &[of(model), to]).increment(1);
    }

    /// Counts a notice to a webhook.
    pub fn webhook(&self, result: WebhookResult) {
        self.webhooks[result as usize].increment(1);
    }

    /// Counts somebody who asks for a retraining, and what they got.
    pub fn retrain_asked(&self, model: &str, by: &'static str, result: &'static str) {
        let labels = [of(model), Label::new("by", by), Label::new("result", result)];
        counter(&self.server, "millrace_retrain_requests_total", &labels).increment(1);
    }

    /// Whether `model` is being retrained.
    pub fn retrain_running(&self, model: &str, running: bool) {
        gauge(&self.server, "millrace_retrain_running", &[of(model)]).set(f64::from(u8::from(running)));
    }

    /// Counts retrainings that have ended so; none, so that the first that does is seen to be one more.
    pub fn retrained(&self, model: &str, outcome: &'static str, times: u64) {
        let labels = [of(model), Label::new("outcome", outcome)];
        counter(&self.server, "millrace_retrain_total", &labels).increment(times);
    }
}

fn of(model: &str) -> Label {
    Label::new("model", model.to_owned())
}
