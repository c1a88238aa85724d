//! Receipts over HTTP: who gets one, what it says, and what is refused.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use millrace::feedback::{Keys, MAX_ROWS, Receipt};
use tempfile::TempDir;

use crate::{
    artifact::Models,
    client::Answer,
    server::{BODY, MODEL, PREDICT, Server, first},
};

/// A server that has keys, and the folder with their file.
fn server(config: &str) -> (Server, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("receipt.keys");
    fs::write(&path, "5".repeat(64)).expect("written");
    let models = Models::new();
    models.publish(MODEL, 1, first().with_catalogue());
    let server = Server::over(models, &format!("receipt_keys = '{}'\n{config}", path.display()));
    (server, folder)
}

fn open(answer: &Answer, folder: &TempDir) -> Receipt {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let keys = Keys::read(&folder.path().join("receipt.keys")).expect("keys");
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    let text = answer.header("x-receipt").expect("a receipt");
    Receipt::open(text, &keys, now, Duration::from_mins(1)).expect("ours, and of this minute")
}

/// A body of so many rows.
fn rows(number: usize) -> String {
    format!(r#"{{"input": [{}]}}"#, vec!["[123, 456]"; number].join(","))
}

fn ask(server: &Server, path: &str, wish: &str, body: &str) -> Answer {
    server.client().request(
        "POST",
        path,
        &[&format!("x-receipt: {wish}"), "content-type: application/json"],
        body,
    )
}

#[test]
fn a_receipt_is_of_the_version_and_the_scores_that_were_answered() {
    let (server, folder) = server("");
    let answer = ask(&server, PREDICT, "true", r#"{"input": [[123, 456], ["17850", "85123A"]]}"#);
    let receipt = open(&answer, &folder);
    assert_eq!((&*receipt.model, receipt.version), (MODEL, 1));
    assert_eq!(receipt.scores.len(), 2);
    for (sealed, answered) in receipt.scores.iter().zip(answer.scores()) {
        assert!((sealed - answered).abs() < 1e-5, "{sealed} {answered}");
    }
    assert_ne!(receipt.serial, open(&ask(&server, PREDICT, "true", BODY), &folder).serial);

    let answer = ask(&server, "/api/recommend/shop", "true", r#"{"user": 123, "k": 2}"#);
    let receipt = open(&answer, &folder);
    let scores: Vec<f64> = (0..2).filter_map(|i| answer.json()["output"][i]["score"].as_f64()).collect();
    assert_eq!((receipt.scores.len(), scores.len()), (2, 2));
    for (sealed, answered) in receipt.scores.iter().zip(scores) {
        assert!((f64::from(*sealed) - answered).abs() < 1e-5, "{sealed} {answered}");
    }
}

#[test]
fn the_request_decides_and_else_the_model() {
    let (server, folder) = server("[models.shop]\nreceipts = true");
    open(&server.client().post(PREDICT, BODY), &folder);
    assert_eq!(ask(&server, PREDICT, "false", BODY).header("x-receipt"), None);
    // Nobody asked for a receipt here, so nobody is refused one.
    let many = server.client().post(PREDICT, &rows(MAX_ROWS + 1));
    assert_eq!((many.status, many.header("x-receipt")), (200, None));
    assert_eq!(ask(&server, PREDICT, "true", &rows(MAX_ROWS + 1)).status, 400);
    open(&server.client().post(PREDICT, &rows(MAX_ROWS)), &folder);
    let (server, _folder) = self::server("");
    let answer = server.client().post(PREDICT, BODY);
    assert_eq!((answer.status, answer.header("x-receipt")), (200, None));
}

#[test]
fn what_cannot_be_sealed_is_refused_in_words() {
    let (server, _folder) = server("");
    for (wish, body, reason) in [
        ("yes", BODY.to_owned(), "`x-receipt` must be `true` or `false`"),
        ("true", rows(MAX_ROWS + 1), "of 1000 rows at most"),
    ] {
        let answer = ask(&server, PREDICT, wish, &body);
        assert_eq!(answer.status, 400, "{reason}");
        assert!(answer.text().contains(reason), "{}", answer.text());
    }
    server.assert_healthy("refusals");
    let without = Server::start();
    let answer = ask(&without, PREDICT, "true", BODY);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("no keys to make receipts with"), "{}", answer.text());
    assert_eq!(ask(&without, PREDICT, "false", BODY).status, 200);
}
