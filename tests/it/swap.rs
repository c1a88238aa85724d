//! Versions that are exchanged while they answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{
    artifact::Models,
    server::{BODY, Finished, MODEL, PREDICT, Server, first, second},
};

#[test]
fn every_answer_under_fifty_swaps_is_one_versions_alone() {
    let models = Models::new();
    models.publish(MODEL, 1, first());
    models.publish(MODEL, 2, second());
    let server = Server::over(models, "");
    let done = AtomicBool::new(false);
    let answered = [AtomicUsize::new(0), AtomicUsize::new(0)];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.client();
                while !done.load(Ordering::Relaxed) {
                    let answer = client.post(PREDICT, r#"{"input": [[123, 456], [456, 789], [123, 456]]}"#);
                    let scores = answer.scores();
                    let version = answer.header("x-model-version").expect("a version");
                    let (position, artifact) = if version == "1" { (0, first()) } else { (1, second()) };
                    let expected = [("123", "456"), ("456", "789"), ("123", "456")];
                    let close =
                        |(found, (user, item)): (&f32, _)| (found - artifact.score(user, item)).abs() < 1e-5;
                    assert!(scores.iter().zip(expected).all(close), "version {version}: {scores:?}");
                    answered[position].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _finished = Finished(&done);
        for swap in 0..50 {
            // One version alone is wanted, the newest that is there: each of these loads one and drops the other.
            if swap % 2 == 0 {
                server.models.withdraw(MODEL, 2);
            } else {
                server.models.restore(MODEL, 2);
            }
            let status = server.order("load", "");
            assert_eq!(status.status, 200, "{}", status.text());
        }
    });
    let [one, two] = answered.map(AtomicUsize::into_inner);
    assert!(one > 0 && two > 0, "both versions answered: {one} and {two}");
    // The start counts as one.
    let swaps = r#"millrace_model_swaps_total{model="shop"} 51"#;
    assert!(server.metrics().contains(swaps), "{}", server.metrics());
    assert!(server.stop());
}

#[test]
fn a_request_that_began_on_a_version_ends_on_it() {
    let models = Models::new();
    models.publish(MODEL, 1, first());
    models.publish(MODEL, 2, second());
    let server = Server::over(models, "");
    server.order("promote", r#"{"version": 1}"#);
    let mut client = server.client();
    let head = format!("content-length: {}\r\nexpect: 100-continue\r\n\r\n", BODY.len());
    client.send(format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\n{head}").as_bytes());
    assert_eq!(client.answer().expect("leave to send").status, 100);
    assert_eq!(server.order("promote", r#"{"version": 2}"#).status, 200);
    assert_eq!(server.client().post(PREDICT, BODY).header("x-model-version"), Some("2"));
    client.send(BODY.as_bytes());
    let answer = client.answer().expect("an answer");
    assert_eq!(answer.header("x-model-version"), Some("1"));
    assert!((answer.scores()[0] - first().score("123", "456")).abs() < 1e-5);
}
