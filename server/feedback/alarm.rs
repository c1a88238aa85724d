//! The alerts of all models: holds each against what its windows say, and tells whoever is to know of a change.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Alert, AlertOptions, Change, Live, Reading,
    webhook::{Notice, Webhook},
};
use crate::metrics::Metrics;

/// An alert for each model that has one.
pub struct Alarm {
    /// Of models without options of their own.
    defaults: Option<AlertOptions>,
    options: BTreeMap<String, Option<AlertOptions>>,
    models: BTreeMap<String, Watched>,
    webhook: Option<Webhook>,
}

struct Watched {
    alert: Alert,
    /// When better was last asked for.
    asked: Option<Duration>,
}

impl Alarm {
    /// All is quiet. Models that are in `options` have those, and all others `defaults`.
    pub fn new(
        defaults: Option<AlertOptions>,
        options: BTreeMap<String, Option<AlertOptions>>,
        webhook: Option<Webhook>,
    ) -> Self {
        Self { defaults, options, models: BTreeMap::new(), webhook }
    }

    /// Holds every model against its mature window at `now`, by the version that answers, where one does. Returns the models
    /// that ask for something better: when their alert begins to fire, and again every [`ASK_AGAIN`] for as long as what
    /// answers is itself not good enough.
    ///
    /// To be called once a second or so.
    pub fn look(
        &mut self,
        models: &[(&str, Option<u64>)],
        live: &Live,
        metrics: &Metrics,
        now: Duration,
    ) -> Vec<String> {
        self.forget(models, metrics);
        let mut asking = Vec::new();
        for &(model, version) in models {
            let Some(options) = self.options.get(model).unwrap_or(&self.defaults) else { continue };
            let watched = self.models.entry(model.to_owned());
            let watched =
                watched.or_insert_with(|| Watched { alert: Alert::new(options.clone()), asked: None });
            let mature = version.and_then(|version| Some((version, live.mature(model, version, now)?)));
            if let Some((version, judged)) = mature {
                let reading = Reading::of(version, &judged, options.measure);
                let since = watched.alert.firing().unwrap_or(now);
                if let Some(change) = watched.alert.next(&reading, now) {
                    said(model, change, &reading);
                    metrics.alert_changed(model, change == Change::Firing);
                    let (model, options) = (model.to_owned(), options.clone());
                    let notice = Notice { model, change, reading, options, since, now };
                    self.webhook.iter().for_each(|webhook| webhook.tell(notice.clone()));
                }
                if watched.asks(now) {
                    asking.push(model.to_owned());
                }
            }
            metrics.alert(model, watched.alert.firing().is_some());
        }
        asking
    }

    /// Forgets models that are gone.
    fn forget(&mut self, models: &[(&str, Option<u64>)], metrics: &Metrics) {
        self.models.retain(|known, _| {
            let is_there = models.iter().any(|(model, _)| model == known);
            if !is_there {
                metrics.alert(known, false);
            }
            is_there
        });
    }
}

impl Watched {
    /// Whether better is asked for now.
    fn asks(&mut self, now: Duration) -> bool {
        if !self.alert.wants_better() {
            // Whatever was asked for was for another version, or another time.
            self.asked = None;
            return false;
        }
        let asks = self.asked.is_none_or(|asked| now.saturating_sub(asked) >= ASK_AGAIN);
        if asks {
            self.asked = Some(now);
        }
        asks
    }
}

fn said(model: &str, change: Change, reading: &Reading) {
    let Reading { version, labels, value } = *reading;
    match change {
        Change::Firing => tracing::error!(model, version, labels, value, "the model is not good enough"),
        Change::Resolved => tracing::info!(model, version, labels, value, "the model is good again"),
    }
}

/// How soon better is asked for again: it may have been refused for now, or have come to nothing.
const ASK_AGAIN: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::{AlertMeasure, Label, window::WindowOptions};

    const NOW: Duration = Duration::from_hours(500_000);
    const MINUTE: Duration = Duration::from_mins(1);

    fn options() -> AlertOptions {
        AlertOptions {
            measure: AlertMeasure::Accuracy,
            below: 0.7,
            clear: 0.72,
            min_labels: 10,
            hold: Duration::ZERO,
            webhook: None,
        }
    }

    fn live() -> Live {
        let window =
            WindowOptions { step: MINUTE, window: 10 * MINUTE, maturity: Duration::ZERO, threshold: 0.5 };
        Live::new(window, BTreeMap::new(), NOW).expect("windows")
    }

    fn label(live: &Live, version: u64, at: Duration, good: bool) {
        let at_ms = u64::try_from(at.as_millis()).expect("in range");
        live.labelled(&Label {
            receipt: 1,
            row: 0,
            received_ms: at_ms,
            answered_ms: at_ms,
            model: "shop".to_owned(),
            version,
            score: 0.9,
            label: good,
            record: None,
        });
    }

    #[test]
    fn it_asks_at_once_and_again_while_what_answers_is_not_good_enough() {
        let (live, metrics) = (live(), Metrics::new("test"));
        let mut alarm = Alarm::new(Some(options()), BTreeMap::from([("quiet".to_owned(), None)]), None);
        for _ in 0..10 {
            label(&live, 1, NOW, false);
        }
        let mut look = |version, at| {
            let models = [("quiet", Some(1)), ("shop", version), ("empty", None)];
            alarm.look(&models, &live, &metrics, at)
        };
        let shop = vec!["shop".to_owned()];
        assert_eq!(look(Some(1), NOW), [""; 0], "the step of these rows is not over");
        assert_eq!(look(Some(1), NOW + MINUTE), shop);
        assert_eq!(look(Some(1), NOW + MINUTE + Duration::from_secs(59)), [""; 0]);
        assert_eq!(look(Some(1), NOW + 2 * MINUTE), shop);
        // Another version takes over, is given time, and turns out to be no better.
        assert_eq!(look(Some(2), NOW + 4 * MINUTE), [""; 0]);
        assert_eq!(look(None, NOW + 4 * MINUTE), [""; 0]);
        let text = metrics.render();
        for line in [
            "millrace_alert_firing{model=\"shop\"} 1\n",
            "millrace_alert_firing{model=\"empty\"} 0\n",
            "millrace_alert_changes_total{model=\"shop\",to=\"firing\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("model=\"quiet\""), "it has no alert: {text}");
        for _ in 0..10 {
            label(&live, 2, NOW + 4 * MINUTE, true);
        }
        assert_eq!(look(Some(2), NOW + 5 * MINUTE), [""; 0]);
        let text = metrics.render();
        assert!(text.contains("millrace_alert_firing{model=\"shop\"} 0\n"), "{text}");
        assert!(text.contains("millrace_alert_changes_total{model=\"shop\",to=\"quiet\"} 1\n"), "{text}");
    }

    #[test]
    fn a_model_that_is_gone_fires_no_more() {
        let (live, metrics) = (live(), Metrics::new("test"));
        let mut alarm = Alarm::new(Some(options()), BTreeMap::new(), None);
        for _ in 0..10 {
            label(&live, 1, NOW, false);
        }
        assert_eq!(alarm.look(&[("shop", Some(1))], &live, &metrics, NOW + MINUTE).len(), 1);
        assert_eq!(alarm.look(&[], &live, &metrics, NOW + MINUTE), [""; 0]);
        assert!(metrics.render().contains("millrace_alert_firing{model=\"shop\"} 0\n"));
        assert!(alarm.models.is_empty());
    }
}
