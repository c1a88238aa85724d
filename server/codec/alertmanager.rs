//! What an Alertmanager tells a webhook: which alerts fire, and which do not any more. Of all that it says, what tells alerts
//! apart and the label `model` are of use.
//!
//! Source: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.

use serde::Deserialize;

/// The most alerts that a body may have.
pub const MAX_ALERTS: usize = 1_000;

/// The longest fingerprint, start or model, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// Why a body is no notification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AlertmanagerDecodeError {
    /// It is not JSON, or of another shape.
    #[error(
        "line {line}, column {column}: expected the body of an Alertmanager's webhook, {{\"version\": \"4\", \"alerts\": [{{\"status\": .., \"labels\": {{..}}, \"startsAt\": .., \"fingerprint\": ..}}]}}"
    )]
    Shape {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It is of another version.
    #[error("`version` must be \"4\"")]
    Version,
    /// It has too many alerts.
    #[error("`alerts` must have at most {MAX_ALERTS} alerts")]
    TooMany,
    /// A text of an alert is too long.
    #[error("alert {alert}: a text of more than {MAX_TEXT_BYTES} bytes")]
    TooLong {
        /// The alert, from 0.
        alert: usize,
    },
}

/// An alert as an Alertmanager knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notified {
    /// What it is told apart by.
    pub fingerprint: String,
    /// When it began to fire, as it is written.
    pub starts_at: String,
    /// Whether it fires still.
    pub firing: bool,
    /// The model that it is about, where it says so.
    pub model: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    version: String,
    alerts: Vec<RawAlert>,
}

#[derive(Deserialize)]
struct RawAlert {
    status: Status,
    labels: Labels,
    #[serde(rename = "startsAt")]
    starts_at: String,
    fingerprint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

#[derive(Deserialize)]
struct Labels {
    model: Option<String>,
}

/// The alerts of a body.
pub fn decode(body: &[u8]) -> Result<Vec<Notified>, AlertmanagerDecodeError> {
    let parsed = serde_json::from_slice::<Body>(body);
    let Body { version, alerts } = parsed
        .map_err(|error| AlertmanagerDecodeError::Shape { line: error.line(), column: error.column() })?;
    if version != "4" {
        return Err(AlertmanagerDecodeError::Version);
    }
    if alerts.len() > MAX_ALERTS {
        return Err(AlertmanagerDecodeError::TooMany);
    }
    alerts.into_iter().enumerate().map(|(alert, raw)| notified(alert, raw)).collect()
}

fn notified(alert: usize, raw: RawAlert) -> Result<Notified, AlertmanagerDecodeError> {
    let RawAlert { status, labels: Labels { model }, starts_at, fingerprint } = raw;
    let texts = [Some(&starts_at), Some(&fingerprint), model.as_ref()];
    if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT_BYTES) {
        return Err(AlertmanagerDecodeError::TooLong { alert });
    }
    Ok(Notified { fingerprint, starts_at, firing: matches!(status, Status::Firing), model })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(version: &str, alerts: &Value) -> Vec<u8> {
        let body = json!({
            "receiver": "millrace",
            "status": "firing",
            "alerts": alerts,
            "groupLabels": { "alertname": "MillraceAccuracyLow" },
            "commonLabels": { "alertname": "MillraceAccuracyLow", "severity": "page" },
            "commonAnnotations": {},
            "externalURL": "http://prometheus.example.org:9093",
            "version": version,
            "groupKey": "{}:{alertname=\"MillraceAccuracyLow\"}",
            "truncatedAlerts": 0,
        });
        body.to_string().into_bytes()
    }

    fn alert(status: &str, labels: &Value) -> Value {
        json!({
            "status": status,
            "labels": labels,
            "annotations": { "summary": "version 3 of shop is right for 65% of the rows only" },
            "startsAt": "2026-11-27T08:00:00.123Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus.example.org:9090/graph?g0.expr=x",
            "fingerprint": "1a30ba71cca2921f",
        })
    }

    #[test]
    fn what_an_alertmanager_sends_is_understood() {
        let alerts = json!([
            alert("firing", &json!({ "model": "shop", "version": "3", "severity": "page" })),
            alert("resolved", &json!({ "instance": "a" })),
        ]);
        let notified = |firing, model: Option<&str>| Notified {
            fingerprint: "1a30ba71cca2921f".to_owned(),
            starts_at: "2026-11-27T08:00:00.123Z".to_owned(),
            firing,
            model: model.map(str::to_owned),
        };
        let decoded = decode(&body("4", &alerts)).expect("a notification");
        assert_eq!(decoded, [notified(true, Some("shop")), notified(false, None)]);
        assert_eq!(decode(&body("4", &json!([]))).expect("a notification"), []);
    }

    #[test]
    fn what_is_none_is_refused() {
        let good = alert("firing", &json!({ "model": "shop" }));
        let without = |key: &str| {
            let mut alert = good.clone();
            alert.as_object_mut().expect("an object").remove(key);
            body("4", &json!([alert]))
        };
        let long = "x".repeat(300);
        for (body, expected) in [
            (b"{".to_vec(), "line 1, column 1: expected the body of an Alertmanager's webhook"),
            (b"[]".to_vec(), "expected the body"),
            (body("3", &json!([good])), "`version` must be \"4\""),
            (body("4", &json!({})), "expected the body"),
            (body("4", &json!([alert("pending", &json!({}))])), "expected the body"),
            (body("4", &json!([alert("firing", &json!({ "model": 3 }))])), "expected the body"),
            (without("fingerprint"), "expected the body"),
            (without("startsAt"), "expected the body"),
            (without("labels"), "expected the body"),
            (body("4", &json!(vec![good.clone(); 1_001])), "at most 1000 alerts"),
            (
                body("4", &json!([good, alert("firing", &json!({ "model": long }))])),
                "alert 1: a text of more",
            ),
        ] {
            let error = decode(&body).expect_err("no notification").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
