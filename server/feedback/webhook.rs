//! Tells somebody that an alert has changed: a thread that sends what waits for it, in the form that Alertmanager has for
//! its webhooks, so that whoever listens to one can listen to this as well.
//!
//! Nobody waits for it. What cannot be delivered after a few tries is counted and said in the log, and so is what finds the
//! queue full.

use std::{sync::Arc, time::Duration};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use ureq::{
    Agent,
    tls::{RootCerts, TlsConfig},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{AlertOptions, Change, Reading};
use crate::metrics::{Metrics, WebhookResult};

/// An alert that has changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notice {
    pub(super) model: String,
    pub(super) change: Change,
    pub(super) reading: Reading,
    pub(super) options: AlertOptions,
    /// When it began to fire, and when it changed, since 1970.
    pub(super) since: Duration,
    pub(super) now: Duration,
}

/// Where notices go. Dropping it ends the thread, with what still waits untold.
pub struct Webhook {
    notices: Sender<Notice>,
    /// Only its end is ever heard of.
    _stop: Sender<()>,
    metrics: Arc<Metrics>,
}

/// The thread behind a [`Webhook`].
pub struct WebhookThread {
    notices: Receiver<Notice>,
    stopped: Receiver<()>,
    metrics: Arc<Metrics>,
}

impl Webhook {
    /// A webhook, and what somebody has to run on a thread of its own.
    pub fn new(metrics: Arc<Metrics>) -> (Self, WebhookThread) {
        let (sender, notices) = channel::bounded(QUEUE);
        let (stop, stopped) = channel::bounded(0);
        let thread = WebhookThread { notices, stopped, metrics: Arc::clone(&metrics) };
        (Self { notices: sender, _stop: stop, metrics }, thread)
    }

    /// Has it sent, where there is room and somebody to send it to.
    pub(super) fn tell(&self, notice: Notice) {
        if notice.options.webhook.is_some() && self.notices.try_send(notice).is_err() {
            self.metrics.webhook(WebhookResult::Dropped);
            tracing::error!("too many notices wait for their webhooks; one was dropped");
        }
    }
}

impl WebhookThread {
    /// Sends what comes until the [`Webhook`] is dropped.
    pub fn run(self) {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent: Agent =
            Agent::config_builder().timeout_global(Some(TIMEOUT)).tls_config(tls).build().into();
        while let Ok(notice) = self.notices.recv() {
            let Some(address) = notice.options.webhook.as_deref() else { continue };
            let body = body(&notice);
            match self.deliver(|| agent.post(address).send_json(&body).map(drop)) {
                Some(Ok(())) => self.metrics.webhook(WebhookResult::Delivered),
                Some(Err(error)) => {
                    self.metrics.webhook(WebhookResult::Failed);
                    tracing::error!(model = notice.model, %error, "a webhook cannot be told of an alert");
                }
                None => return,
            }
        }
    }

    /// What the last try came to; `None` where it was to end before that.
    fn deliver<E>(&self, send: impl Fn() -> Result<(), E>) -> Option<Result<(), E>> {
        for pause in PAUSES {
            if send().is_ok() {
                return Some(Ok(()));
            }
            if self.stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return None;
            }
        }
        Some(send())
    }
}

/// The body of version 4 of Alertmanager's webhooks, with one alert.
///
/// Source: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.
fn body(notice: &Notice) -> Value {
    let Notice { model, change, reading, options, since, now } = notice;
    let measure = options.measure.name();
    let value = reading.value.unwrap_or(f64::NAN);
    let (status, ends) = match change {
        Change::Firing => ("firing", NEVER.to_owned()),
        Change::Resolved => ("resolved", moment(*now)),
    };
    let summary = match change {
        Change::Firing => {
            format!(
                "version {} of {model} has {measure} {value:.4}, under {}",
                reading.version, options.below
            )
        }
        Change::Resolved => {
            format!("version {} of {model} has {measure} {value:.4} again", reading.version)
        }
    };
    let labels = json!({ "alertname": NAME, "model": model, "measure": measure, "severity": "page" });
    let annotations = json!({
        "summary": summary,
        "version": reading.version.to_string(),
        "value": value.to_string(),
        "labels": reading.labels.to_string(),
    });
    let group = json!({ "alertname": NAME, "model": model });
    let alert = json!({
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": moment(*since),
        "endsAt": ends,
        "generatorURL": "",
        // The same for as long as it is the same alert.
        "fingerprint": format!("{:016x}", xxh3_64(format!("{NAME}/{measure}/{model}").as_bytes())),
    });
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{alertname=\"{NAME}\", model=\"{model}\"}}"),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "millrace",
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    })
}

fn moment(since_1970: Duration) -> String {
    let moment = time::Duration::try_from(since_1970)
        .ok()
        .and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since))
        .and_then(|moment| moment.format(&Rfc3339).ok());
    moment.unwrap_or_else(|| NEVER.to_owned())
}

const NAME: &str = "MillraceQualityLow";

/// What Alertmanager writes for the end of what has none.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Notices that wait: each is a change of a model's alert, and those are minutes apart.
const QUEUE: usize = 64;

/// The longest that one try takes.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between one try and the next.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

#[cfg(test)]
mod tests {
    use std::{cell::Cell, thread, time::Instant};

    use super::*;
    use crate::feedback::AlertMeasure;

    fn notice(change: Change) -> Notice {
        let options = AlertOptions {
            measure: AlertMeasure::Accuracy,
            below: 0.7,
            clear: 0.72,
            min_labels: 1,
            hold: Duration::ZERO,
            webhook: Some("http://127.0.0.1:9/".to_owned()),
        };
        Notice {
            model: "shop".to_owned(),
            change,
            reading: Reading { version: 3, labels: 600, value: Some(0.65) },
            options,
            since: Duration::from_secs(1),
            now: Duration::from_millis(61_500),
        }
    }

    #[test]
    fn who_listens_to_an_alertmanager_understands_it() {
        let firing = body(&notice(Change::Firing));
        let alert = &firing["alerts"][0];
        assert_eq!((&firing["version"], &firing["status"]), (&json!("4"), &json!("firing")));
        assert_eq!(alert["labels"]["model"], "shop");
        assert_eq!(alert["annotations"]["summary"], "version 3 of shop has accuracy 0.6500, under 0.7");
        assert_eq!(
            (&alert["startsAt"], &alert["endsAt"]),
            (&json!("1970-01-01T00:00:01Z"), &json!("0001-01-01T00:00:00Z"))
        );
        let resolved = body(&notice(Change::Resolved));
        assert_eq!(resolved["alerts"][0]["endsAt"], "1970-01-01T00:01:01.5Z");
        assert_eq!(resolved["alerts"][0]["fingerprint"], alert["fingerprint"]);
        assert_eq!(resolved["groupKey"], firing["groupKey"]);
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_nobody_waits() {
        let metrics = Metrics::new("test");
        let (webhook, thread) = Webhook::new(Arc::clone(&metrics));
        for _ in 0..=QUEUE {
            webhook.tell(notice(Change::Firing));
        }
        assert_eq!(thread.notices.len(), QUEUE);
        assert!(metrics.render().contains("millrace_alert_webhooks_total{result=\"dropped\"} 1\n"));
    }

    #[test]
    fn it_tries_again_and_stops_trying_when_it_is_to_end() {
        let (webhook, thread) = Webhook::new(Metrics::new("test"));
        let tries = Cell::new(0);
        let send = || {
            tries.set(tries.get() + 1);
            if tries.get() < 2 { Err("no") } else { Ok(()) }
        };
        assert_eq!(thread.deliver(send), Some(Ok(())));
        assert_eq!(tries.get(), 2);
        let began = Instant::now();
        let stopper = thread::spawn(move || drop(webhook));
        assert_eq!(thread.deliver(|| Err::<(), _>("no")), None);
        assert!(began.elapsed() < PAUSES[1], "it did not wait");
        stopper.join().expect("it only drops");
    }
}
