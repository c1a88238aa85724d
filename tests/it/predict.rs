//! Good requests, and what every answer carries.

use crate::{
    artifact::Models,
    server::{BODY, MODEL, PREDICT, Server, first, second},
};

#[test]
fn positional_and_named_rows_get_one_probability_each_in_their_order() {
    let server = Server::start();
    let body = r#"{"input": [[123, 456], {"item_id": "85123A", "user_id": "17850"}, ["123", "456"]]}"#;
    let scores = server.client().post(PREDICT, body).scores();
    let expected = [("123", "456"), ("17850", "85123A"), ("123", "456")];
    assert_eq!(scores.len(), expected.len());
    for (score, (user, item)) in scores.iter().zip(expected) {
        assert!((score - first().score(user, item)).abs() < 1e-5, "{user} {item}: {score}");
    }
}

#[test]
fn ids_that_the_model_has_never_seen_are_scored_like_any_stranger() {
    let server = Server::start();
    let stranger = first().score("nobody", "nothing");
    for row in
        ["[999, -999]", r#"["nobody", ""]"#, r#"["\u0000", "\ud83d\ude00"]"#, "[9223372036854775807, 0]"]
    {
        let scores = server.client().post(PREDICT, &format!("{{\"input\": [{row}]}}")).scores();
        assert!((scores[0] - stranger).abs() < 1e-5, "{row}: {scores:?}");
    }
}

#[test]
fn a_list_may_be_an_array_or_one_id_or_nothing() {
    let models = Models::new();
    let artifact = first().with_tags();
    models.publish(MODEL, 1, artifact);
    let server = Server::over(models, "");
    let rows: [(&str, &[&str]); 7] = [
        (r#"[123, 456, ["new", "sale"]]"#, &["new", "sale"]),
        (r#"[123, 456, ["sale", "sale", 7]]"#, &["sale", "sale", "7"]),
        (r#"{"tags": ["sale", "unheard of"], "item_id": 456, "user_id": 123}"#, &["sale", "unheard of"]),
        ("[123, 456, 7]", &["7"]),
        (r#"[123, 456, "new"]"#, &["new"]),
        ("[123, 456, []]", &[]),
        ("[123, 456, null]", &[]),
    ];
    let body = rows.map(|(row, _)| row).join(", ");
    let scores = server.client().post(PREDICT, &format!("{{\"input\": [{body}]}}")).scores();
    assert_eq!(scores.len(), rows.len());
    for (score, (row, tags)) in scores.iter().zip(rows) {
        assert!((score - artifact.score_tagged("123", "456", tags)).abs() < 1e-5, "{row}: {score}");
    }
    let refused = [
        (r#"[123, 456, ["new", "sale", 7, 8]]"#, "tags"),
        (r#"[123, 456, ["new", null]]"#, "tags"),
        (r#"[123, 456, [["new"]]]"#, "tags"),
        ("[[123], 456, []]", "user_id"),
    ];
    for (row, feature) in refused {
        let answer = server.client().post(PREDICT, &format!("{{\"input\": [{row}]}}"));
        assert!(answer.status == 400 && answer.text().contains(feature), "{row}: {}", answer.text());
    }
    let example = server.client().get(PREDICT).json()["example"].to_string();
    assert_eq!(server.client().post(PREDICT, &example).scores().len(), 1, "{example}");
}

#[test]
fn an_answer_names_its_version_and_its_request() {
    let server = Server::start();
    let mut client = server.client();
    let made = client.post(PREDICT, BODY);
    assert_eq!(made.header("x-model-version"), Some("1"));
    assert_eq!(made.header("content-type"), Some("application/json"));
    let made = made.header("x-request-id").expect("an id").to_owned();
    assert_ne!(client.post(PREDICT, BODY).header("x-request-id"), Some(made.as_str()));
    let given = client.request("POST", PREDICT, &["x-request-id: abc-1"], BODY);
    assert_eq!(given.header("x-request-id"), Some("abc-1"));
    // An error is answered with both as well.
    let refused = client.request("POST", PREDICT, &["x-request-id: abc-2"], "{}");
    assert_eq!((refused.status, refused.header("x-request-id")), (400, Some("abc-2")));
    assert_eq!(refused.header("x-model-version"), Some("1"));
}

#[test]
fn a_version_can_be_asked_for_while_it_is_live() {
    let models = Models::new();
    models.publish(MODEL, 1, first());
    models.publish(MODEL, 2, second());
    let server = Server::over(models, "defaults = { versions = \"all\" }");
    for (path, version, artifact) in [
        (PREDICT.to_owned(), "2", second()),
        (format!("{PREDICT}/versions/1"), "1", first()),
        (format!("{PREDICT}/versions/2"), "2", second()),
    ] {
        let answer = server.client().post(&path, BODY);
        assert_eq!(answer.header("x-model-version"), Some(version), "{path}");
        assert!((answer.scores()[0] - artifact.score("123", "456")).abs() < 1e-5, "{path}");
    }
    assert_eq!(server.client().post(&format!("{PREDICT}/versions/3"), BODY).status, 404);
}

#[test]
fn the_description_of_a_model_has_an_example_that_it_answers() {
    let server = Server::start();
    let answer = server.client().get(PREDICT);
    assert_eq!((answer.status, answer.header("x-model-version")), (200, Some("1")));
    let description = answer.json();
    assert_eq!(description["features"], serde_json::json!(["user_id", "item_id"]));
    assert_eq!(description["metrics"]["auc"], 0.75);
    let engine = serde_json::json!({
        "name": "onnx-cpu", "because": "configured", "reason": "the configuration asks for it",
    });
    assert_eq!(description["engine"], engine);
    let scores = server.client().post(PREDICT, &description["example"].to_string()).scores();
    assert_eq!(scores.len(), 1);
}

#[test]
fn a_connection_serves_one_request_after_the_other_also_when_they_arrive_together() {
    let server = Server::start();
    let mut client = server.client();
    let one =
        format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    client.send(one.repeat(5).as_bytes());
    for _ in 0..5 {
        assert_eq!(client.answer().expect("an answer").scores().len(), 1);
    }
}

#[test]
fn a_body_may_come_in_chunks() {
    let server = Server::start();
    let mut client = server.client();
    client.send(
        format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes(),
    );
    for chunk in [&BODY[..7], &BODY[7..], ""] {
        client.send(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
    }
    assert_eq!(client.answer().expect("an answer").scores().len(), 1);
}

#[test]
fn a_heavy_model_is_answered_by_threads_of_its_own() {
    let server = Server::with("defaults = { lane = \"threaded\", instances = 2 }");
    server.assert_healthy("the start");
    assert!(server.metrics().contains(r#"millrace_lane_info{model="shop",version="1",lane="threaded"} 1"#));
    assert!(server.stop());
}

#[test]
fn many_clients_at_once_each_get_their_own_rows_scores() {
    let server = Server::start();
    std::thread::scope(|scope| {
        for (user, item) in [("123", "456"), ("456", "22423"), ("789", "85123A"), ("17850", "789")] {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                let body = format!(r#"{{"input": [["{user}", "{item}"], ["nobody", "{item}"]]}}"#);
                for _ in 0..300 {
                    let scores = client.post(PREDICT, &body).scores();
                    let expected = [first().score(user, item), first().score("nobody", item)];
                    let close =
                        scores.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-5);
                    assert!(close && scores.len() == 2, "{scores:?} {expected:?}");
                }
            });
        }
    });
}

#[test]
fn two_servers_in_one_process_know_nothing_of_each_other() {
    let (one, other) = (Server::start(), Server::start());
    one.assert_healthy("the start");
    let answered = r#"millrace_requests_total{model="shop",version="1",dialect="predict",outcome="ok"} "#;
    assert!(one.metrics().contains(&format!("{answered}1")));
    assert!(other.metrics().contains(&format!("{answered}0")));
    assert!(one.stop());
    other.assert_healthy("the other one's end");
}

#[test]
fn what_goes_behind_a_request_takes_no_room_from_it() {
    let config = "worker_threads = 1
        defaults = { max_batch_rows = 2, max_queue_rows = 2, max_queue_delay_us = 60_000_000 }";
    let server = Server::with(config);
    let low = ["x-request-priority: low"];
    let mut waits = server.client();
    let body = r#"{"input": [[1, 2]]}"#;
    let head = format!("x-request-priority: low\r\ncontent-length: {}", body.len());
    waits.send(format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\n{head}\r\n\r\n{body}").as_bytes());
    let queued = r#"millrace_queue_rows{model="shop",version="1"} 1"#;
    while !server.metrics().contains(queued) {
        std::thread::yield_now();
    }
    let two = r#"{"input": [[1, 2], [3, 4]]}"#;
    let refused = server.client().request("POST", PREDICT, &low, two);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(server.metrics().contains(r#"millrace_shed_total{reason="queue"} 1"#));
    // Two rows are enough for a batch.
    let urgent = server.client().request("POST", PREDICT, &["x-request-priority: high"], two);
    assert_eq!(urgent.scores().len(), 2);
    // And so is one more beside the one that still waits.
    assert_eq!(server.client().post(PREDICT, body).scores().len(), 1);
    assert_eq!(waits.answer().expect("an answer").scores().len(), 1);
}
