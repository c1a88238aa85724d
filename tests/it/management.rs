//! What operators and probes do on the management port.

use std::fs;

use crate::{
    artifact::Models,
    server::{BODY, MODEL, PREDICT, Server, first, second},
};

/// The version that answers.
fn answering(server: &Server) -> Option<String> {
    server.client().post(PREDICT, BODY).header("x-model-version").map(str::to_owned)
}

fn two_versions() -> Server {
    let models = Models::new();
    models.publish(MODEL, 1, first());
    models.publish(MODEL, 2, second());
    Server::over(models, "")
}

#[test]
fn a_published_version_answers_once_the_repository_is_looked_at() {
    let server = Server::start();
    server.models.publish(MODEL, 2, second());
    assert_eq!(answering(&server).as_deref(), Some("1"));
    let status = server.order("load", "");
    assert_eq!((status.status, &status.json()["current"]), (200, &2.into()));
    assert_eq!(answering(&server).as_deref(), Some("2"));
}

#[test]
fn the_watcher_finds_a_published_version_by_itself() {
    let server = Server::with("poll_interval_ms = 5");
    server.models.publish(MODEL, 2, second());
    while answering(&server).as_deref() != Some("2") {
        std::thread::yield_now();
    }
}

#[test]
fn a_version_can_be_rolled_back_promoted_and_left_to_the_policy_again() {
    let server = two_versions();
    assert_eq!(answering(&server).as_deref(), Some("2"));
    let status = server.order("rollback", "");
    assert_eq!((&status.json()["current"], &status.json()["pinned"]), (&1.into(), &1.into()));
    assert_eq!(answering(&server).as_deref(), Some("1"));
    assert_eq!(server.order("rollback", "").status, 409, "there is nothing older");
    assert_eq!(server.order("promote", r#"{"version": 2}"#).json()["pinned"], 2);
    assert_eq!(answering(&server).as_deref(), Some("2"));
    server.order("rollback", "");
    assert_eq!(server.order("promote", "").json()["pinned"], serde_json::Value::Null);
    assert_eq!(answering(&server).as_deref(), Some("2"));
    assert_eq!(server.order("promote", r#"{"version": 7}"#).status, 404);
}

#[test]
fn a_version_that_cannot_serve_changes_nothing_and_says_why() {
    let server = Server::start();
    server.models.publish(MODEL, 2, second().unfit());
    let refused = server.order("load", "");
    assert_eq!(refused.status, 409);
    assert!(refused.error().starts_with("version 2 cannot serve: golden row 0"), "{}", refused.error());
    assert_eq!(answering(&server).as_deref(), Some("1"));
    let listed = server.management().get("/models/shop").json();
    assert_eq!((&listed["current"], &listed["versions"][1]["state"]), (&1.into(), &"failed".into()));
    let metrics = server.metrics();
    // The look that follows the order before may have found the version first; the order tries it again then.
    let counted = |times: u32| {
        metrics.contains(&format!(r#"millrace_model_loads_total{{model="shop",result="failed"}} {times}"#))
    };
    assert!(counted(1) || counted(2), "{metrics}");
    assert_eq!(server.management().get("/readyz").status, 200);
}

#[test]
fn a_version_with_a_changed_file_is_refused_by_its_hash() {
    let server = Server::start();
    let folder = server.models.publish(MODEL, 2, second());
    fs::write(folder.join("model.onnx"), "something else").expect("written");
    let refused = server.order("load", "");
    assert_eq!(refused.status, 409);
    assert!(refused.error().contains("model.onnx"), "{}", refused.error());
    assert_eq!(answering(&server).as_deref(), Some("1"));
}

#[test]
fn an_unloaded_model_is_gone_until_it_is_loaded() {
    let server = Server::start();
    assert_eq!(server.order("unload", "").json()["unloaded"], true);
    assert_eq!(server.client().post(PREDICT, BODY).status, 404);
    assert_eq!(server.management().get("/readyz").status, 503);
    assert_eq!(server.order("load", "").json()["current"], 1);
    server.assert_healthy("the model is back");
}

#[test]
fn probes_say_what_is_so() {
    let server = Server::over(Models::new(), "");
    let mut management = server.management();
    assert_eq!(management.get("/livez").status, 200);
    let unready = management.get("/readyz");
    assert_eq!((unready.status, unready.error().as_str()), (503, "not ready: no model serves"));
    assert!(unready.header("retry-after").is_some());
    server.models.publish(MODEL, 1, first());
    assert_eq!(server.order("load", "").status, 200);
    assert_eq!(server.management().get("/readyz").status, 200);
}

#[test]
fn what_is_no_order_is_refused() {
    let server = Server::start();
    let cases = [
        ("POST", "/models/nothing/load", "", 404),
        ("POST", "/models/..%2fshop/load", "", 400),
        ("POST", "/models/../unload", "", 400),
        ("POST", "/models/shop/explode", "", 404),
        ("GET", "/models/shop/unload", "", 405),
        ("POST", "/models", "", 405),
        ("POST", "/metrics", "", 405),
        ("GET", "/models/nothing", "", 404),
        ("GET", "/", "", 404),
        ("POST", "/models/shop/unload", "{\"version\": 1}", 400),
        ("POST", "/models/shop/promote", "{\"version\": -1}", 400),
        ("POST", "/models/shop/promote", "[[[[", 400),
    ];
    for (method, path, body, expected) in cases {
        let answer = server.management().request(method, path, &[], body);
        assert_eq!(answer.status, expected, "{method} {path} {body}: {}", answer.text());
        assert!(!answer.error().is_empty());
    }
    let page = server.management().request("POST", "/models/shop/unload", &["origin: http://a.test"], "");
    assert_eq!(page.status, 403);
    server.assert_healthy("all of that");
}

#[test]
fn management_is_not_on_the_serving_port() {
    let server = Server::start();
    for path in ["/models", "/metrics", "/readyz", "/livez", "/models/shop/unload"] {
        assert_eq!(server.client().post(path, "").status, 404, "{path}");
    }
}
