//! Recommendations over HTTP: what is answered, what is refused, and what is counted and said of them. That an answer is the
//! best of all pairs, the trainer's tests show on models that it trains.

use millrace::engine::Side;
use serde_json::json;

use crate::{
    artifact::{Artifact, Models},
    client::Answer,
    server::{MODEL, PREDICT, Server, first, second},
};

const RECOMMEND: &str = "/api/recommend/shop";

fn over(artifact: Artifact, config: &str) -> Server {
    let models = Models::new();
    models.publish(MODEL, 1, artifact);
    Server::over(models, config)
}

fn server() -> Server {
    over(first().with_catalogue(), "")
}

/// The items and scores of an answer.
fn items(answer: &Answer) -> Vec<(String, f64)> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let output = answer.json()["output"].as_array().expect("items").clone();
    let item =
        |scored: &serde_json::Value| (scored["item"].to_string(), scored["score"].as_f64().expect("a score"));
    output.iter().map(item).collect()
}

fn names(answer: &Answer) -> Vec<String> {
    items(answer).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_best_items_come_first_with_the_scores_that_predict_gives_them() {
    let server = server();
    let answer = server.client().post(RECOMMEND, r#"{"user": 123, "k": 3}"#);
    let expected = [("789", "789"), ("\"85123A\"", "85123A"), ("22423", "22423")];
    assert_eq!(items(&answer).len(), expected.len());
    for ((found, score), (name, item)) in items(&answer).into_iter().zip(expected) {
        assert_eq!(found, name);
        assert!((score - f64::from(first().score("123", item))).abs() < 1e-5, "{name}: {score}");
    }
    assert_eq!(answer.header("x-model-version"), Some("1"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let all = server.client().post(RECOMMEND, r#"{"user": {"user_id": "17850"}}"#);
    assert_eq!(names(&all).len(), 4, "where there are fewer than ten, all of them");
}

#[test]
fn towers_and_whole_rows_answer_the_same() {
    let (rows, towers) = (server(), over(first().with_catalogue().with_towers(), ""));
    let said = towers.client().get(PREDICT).json();
    assert_eq!(said["catalogue"]["method"], "towers");
    for body in [r#"{"user": 123}"#, r#"{"user": "nobody", "k": 2}"#, r#"{"user": 17850, "exclude": [789]}"#]
    {
        let [rows, towers] = [&rows, &towers].map(|server| items(&server.client().post(RECOMMEND, body)));
        assert_eq!(rows.len(), towers.len());
        for ((one, score), (other, found)) in rows.iter().zip(&towers) {
            assert_eq!(one, other, "{body}");
            assert!((score - found).abs() < 1e-6, "{body}: {score} {found}");
        }
    }
}

#[test]
fn a_version_whose_towers_are_of_another_never_answers() {
    let server = over(first().with_catalogue().with_towers(), "");
    // Towers of the second version beside the model of the first.
    let elsewhere = Models::new();
    let second = elsewhere.publish(MODEL, 2, second().with_catalogue().with_towers());
    let tower = std::fs::read(second.join(Side::User.file())).expect("a tower");
    server.models.publish_with(MODEL, 2, first().with_catalogue().with_towers(), (Side::User.file(), &tower));
    let answer = server.order("load", "");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.error().contains("the towers score it"), "{}", answer.error());
    assert_eq!(server.client().post(RECOMMEND, r#"{"user": 123}"#).header("x-model-version"), Some("1"));
}

#[test]
fn items_can_be_excluded_and_chosen() {
    let server = server();
    let mut client = server.client();
    let mut best = |body: &str| names(&client.post(RECOMMEND, body));
    assert_eq!(best(r#"{"user": 123, "k": 2, "exclude": ["789", "unheard of"]}"#), ["\"85123A\"", "22423"]);
    assert_eq!(best(r#"{"user": 123, "candidates": [456, "85123A", 456]}"#), ["\"85123A\"", "456"]);
    assert_eq!(best(r#"{"user": 123, "candidates": [456, 789], "exclude": [789]}"#), ["456"]);
    assert_eq!(best(r#"{"user": 123, "candidates": []}"#), [""; 0]);
}

#[test]
fn what_cannot_be_answered_is_refused_with_its_reason() {
    let server = server();
    let mut client = server.client();
    for (body, status, reason) in [
        (r#"{"user": 123, "k": 0}"#, 400, "`k`"),
        (r#"{"user": 123, "candidates": [1]}"#, 400, "place 0"),
        (r#"{"user": [1]}"#, 400, "feature `user_id`"),
        (r#"{"user": {"item_id": 456}}"#, 400, "no feature of a user; those are user_id"),
        (r#"{"input": [[123, 456]]}"#, 400, "an object of `user`"),
        ("{", 400, "not JSON"),
    ] {
        let answer = client.post(RECOMMEND, body);
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.error().contains(reason), "{body}: {}", answer.error());
    }
    assert_eq!(client.post("/api/recommend/nothing", r#"{"user": 123}"#).status, 404);
    assert_eq!(client.post("/api/recommend/shop/versions/2", r#"{"user": 123}"#).status, 404);
    assert_eq!(client.post("/api/recommend/shop/versions/1", r#"{"user": 123}"#).status, 200);
    assert_eq!(client.get(RECOMMEND).status, 405);
    let binary = client.request("POST", RECOMMEND, &["content-type: application/octet-stream"], "1234");
    assert_eq!((binary.status, binary.error().contains("application/json")), (415, true));
}

#[test]
fn a_version_without_a_catalogue_or_a_model_without_threads_for_it_recommends_nothing() {
    for server in [Server::start(), over(first().with_catalogue(), "defaults.recommend_threads = 0")] {
        let answer = server.client().post(RECOMMEND, r#"{"user": 123}"#);
        assert_eq!((answer.status, answer.error().contains("no catalogue")), (404, true));
        assert!(server.client().get(PREDICT).json().get("catalogue").is_none());
        assert!(!server.metrics().contains("dialect=\"recommend\""));
    }
}

#[test]
fn a_model_says_what_it_recommends_and_counts_it() {
    let server = server();
    let mut client = server.client();
    let said = client.get(PREDICT).json();
    assert_eq!(said["catalogue"], json!({ "items": 4, "id": "item_id", "method": "rows" }));
    client.post(RECOMMEND, r#"{"user": 123}"#);
    client.post(RECOMMEND, r#"{"user": 0.5}"#);
    let metrics = server.metrics();
    let labels = r#"model="shop",version="1""#;
    for line in [
        format!(r#"millrace_requests_total{{{labels},dialect="recommend",outcome="ok"}} 1"#),
        format!(r#"millrace_requests_total{{{labels},dialect="recommend",outcome="client_error"}} 1"#),
        format!(r#"millrace_requests_total{{{labels},dialect="predict",outcome="ok"}} 0"#),
        format!("millrace_recommend_duration_seconds_count{{{labels}}} 1"),
        format!(r#"millrace_catalogue_items{{{labels},method="rows"}} 4"#),
    ] {
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[test]
fn a_swap_brings_the_scores_of_the_new_version() {
    let server = server();
    let mut client = server.client();
    let mut score = || items(&client.post(RECOMMEND, r#"{"user": 123, "k": 1}"#))[0].1;
    assert!((score() - f64::from(first().score("123", "789"))).abs() < 1e-5);
    server.models.publish(MODEL, 2, second().with_catalogue());
    assert_eq!(server.order("load", "").status, 200);
    assert!((score() - f64::from(second().score("123", "789"))).abs() < 1e-5);
}
