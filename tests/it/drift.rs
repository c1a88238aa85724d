//! How far the rows that are asked have moved from those of the training, as Prometheus sees it.

use std::time::{Duration, Instant};

use millrace::quality::{Bins, Distribution, FeatureReference, Reference, Seen};

use crate::{
    artifact::{ITEMS, Models, USERS},
    server::{MODEL, PREDICT, Server, first},
};

/// All rows are drawn, and ten requests are enough.
const CONFIG: &str = "defaults = { drift_rows_per_second = 1000000, drift_min_requests = 10 }";
/// Requests that a test sends.
const REQUESTS: usize = 20;

/// Rows of every user with every item that the model knows.
fn pairs() -> Vec<(&'static str, &'static str)> {
    USERS.iter().flat_map(|&user| ITEMS.iter().map(move |&item| (user, item))).collect()
}

/// What a training on [`pairs`] would have left.
fn reference() -> Reference {
    let feature = |name: &str,
                   ids: [&'static str; 4],
                   of: fn(&(&'static str, &'static str)) -> &'static str| {
        let bins = Bins::Ids(ids.map(String::from).into());
        let pairs = pairs();
        let seen = pairs.iter().map(|pair| Seen::Id { id: of(pair), is_known: true });
        FeatureReference { name: name.into(), distribution: Distribution::of(bins, seen.cycle().take(1_600)) }
    };
    let mut scores: Vec<f64> =
        pairs().iter().map(|(user, item)| f64::from(first().score(user, item))).collect();
    scores.sort_unstable_by(f64::total_cmp);
    // Between two scores, so that an engine's rounding carries none over a boundary.
    let boundaries = [4, 8, 12].map(|at| f64::midpoint(scores[at - 1], scores[at]));
    let seen = scores.iter().map(|&score| Seen::Number(score)).cycle().take(1_600);
    Reference {
        rows: 1_600,
        score: Distribution::of(Bins::Boundaries(boundaries.into()), seen),
        features: vec![feature("user_id", USERS, |pair| pair.0), feature("item_id", ITEMS, |pair| pair.1)],
    }
}

fn server(config: &str) -> Server {
    let models = Models::new();
    let reference = serde_json::to_vec(&reference()).expect("JSON");
    models.publish_with(MODEL, 1, first(), ("reference.json", &reference));
    Server::over(models, config)
}

/// A body of these rows.
fn body(rows: &[(&str, &str)]) -> String {
    let rows: Vec<String> = rows.iter().map(|(user, item)| format!(r#"["{user}", "{item}"]"#)).collect();
    format!(r#"{{"input": [{}]}}"#, rows.join(", "))
}

/// The value of the series of version 1 with this name and these labels.
fn value(metrics: &str, name: &str, labels: &str) -> Option<f64> {
    let series = format!(r#"millrace_drift_{name}{{model="shop",version="1",{labels}}} "#);
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.map(|value| value.parse().expect("a number"))
}

/// The metrics once so many scores have been looked at.
fn after(server: &Server, rows: usize) -> String {
    let start = Instant::now();
    loop {
        let metrics = server.metrics();
        if value(&metrics, "rows", r#"of="score""#) == Some(rows as f64) {
            return metrics;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{rows} rows have not come in\n{metrics}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The metrics after [`REQUESTS`] requests with these rows.
fn asked(rows: &[(&str, &str)]) -> String {
    let server = server(CONFIG);
    let mut client = server.client();
    for _ in 0..REQUESTS {
        client.post(PREDICT, &body(rows)).scores();
    }
    after(&server, REQUESTS * rows.len())
}

/// How far the values of a feature have moved beyond chance.
fn moved(metrics: &str, feature: &str) -> f64 {
    let labels = format!(r#"of="feature",feature="{feature}""#);
    let value = |name| value(metrics, name, &labels).expect("a series");
    value("psi") - value("psi_by_chance")
}

fn share(metrics: &str, name: &str, feature: &str, rows: &str) -> f64 {
    value(metrics, name, &format!(r#"feature="{feature}",rows="{rows}""#)).expect("a series")
}

fn assert_none(share: f64) {
    assert!(share.abs() < 1e-9, "{share}");
}

#[test]
fn rows_like_those_of_the_training_have_not_moved() {
    let metrics = asked(&pairs());
    for feature in ["user_id", "item_id"] {
        assert!(moved(&metrics, feature).abs() < 0.05, "{feature}\n{metrics}");
        for name in ["unknown_ratio", "missing_ratio"] {
            for rows in ["live", "training"] {
                assert_none(share(&metrics, name, feature, rows));
            }
        }
    }
    let score = value(&metrics, "psi", r#"of="score""#).expect("an index");
    assert!(score < 0.05, "{score}");
    let requests = value(&metrics, "requests", r#"of="feature""#);
    assert_eq!(requests, Some(REQUESTS as f64));
    assert!(metrics.contains("millrace_drift_dropped_rows_total 0\n"), "{metrics}");
}

#[test]
fn the_feature_that_moves_is_told_and_no_other() {
    // Every user as often as ever, and one item in place of four.
    let metrics = asked(&pairs().iter().map(|&(user, _)| (user, "789")).collect::<Vec<_>>());
    assert!(moved(&metrics, "item_id") > 1.0, "{metrics}");
    assert!(moved(&metrics, "user_id").abs() < 0.05, "{metrics}");
}

#[test]
fn unknown_ids_are_told_of_the_feature_that_has_them() {
    let strange: Vec<_> = pairs().into_iter().chain([("nobody", "456"); 4]).collect();
    let metrics = asked(&strange);
    let of = |feature, rows| share(&metrics, "unknown_ratio", feature, rows);
    assert!((of("user_id", "live") - 0.2).abs() < 1e-9, "{metrics}");
    assert_none(of("user_id", "training"));
    assert_none(of("item_id", "live"));
}

#[test]
fn of_rows_that_come_encoded_the_scores_are_seen() {
    let server = server(CONFIG);
    let binary = first().binary(&body(&pairs()));
    let mut client = server.client();
    for _ in 0..REQUESTS {
        let path = "/api/predict/shop/versions/1";
        client.request("POST", path, &["content-type: application/octet-stream"], &binary).scores();
    }
    let metrics = after(&server, REQUESTS * 16);
    assert!(value(&metrics, "psi", r#"of="score""#).expect("a series") < 0.05, "{metrics}");
    assert_eq!(value(&metrics, "rows", r#"of="feature""#), Some(0.0));
    assert!(moved(&metrics, "user_id").is_nan(), "{metrics}");
}

#[test]
fn too_few_requests_say_nothing() {
    let server = server("defaults = { drift_rows_per_second = 1000000 }");
    server.client().post(PREDICT, &body(&pairs())).scores();
    let metrics = after(&server, 16);
    assert!(value(&metrics, "psi", r#"of="score""#).expect("a series").is_nan());
    assert!(share(&metrics, "unknown_ratio", "user_id", "live").is_nan());
}

#[test]
fn nothing_is_drawn_where_nobody_wants_it_or_there_is_no_reference() {
    let models = Models::new();
    let reference = serde_json::to_vec(&reference()).expect("JSON");
    for model in [MODEL, "unwatched"] {
        models.publish_with(model, 1, first(), ("reference.json", &reference));
    }
    models.publish("unknown", 1, first());
    let server = Server::over(models, &format!("{CONFIG}\n[models.unwatched]\ndrift_rows_per_second = 0"));
    let mut client = server.client();
    for model in ["unwatched", "unknown", MODEL] {
        client.post(&format!("/api/predict/{model}"), &body(&pairs())).scores();
    }
    // What came first is told no later.
    let metrics = after(&server, 16);
    let told = metrics.lines().filter(|line| line.starts_with("millrace_drift_rows{"));
    assert!(
        told.clone().count() == 2 && told.clone().all(|line| line.contains(r#"model="shop""#)),
        "{metrics}"
    );
}

#[test]
fn a_reference_of_other_features_is_refused_with_its_version() {
    let models = Models::new();
    let mut reference = reference();
    reference.features.pop();
    let reference = serde_json::to_vec(&reference).expect("JSON");
    models.publish_with(MODEL, 1, first(), ("reference.json", &reference));
    let server = Server::over(models, "");
    let said = server.management().get("/models/shop").text();
    assert!(
        said.contains("reference.json: is of the features user_id, the version of user_id, item_id"),
        "{said}"
    );
}
