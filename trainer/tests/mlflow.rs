//! What a tracking server hears of a run, and what becomes of the run where it does not hear.

use std::{collections::BTreeMap, fs, net::TcpListener, process::Output};

use serde_json::{Value, json};

use crate::{
    site::{Site, kill, runs_until},
    tracking_server::{Call, TrackingServer},
};

/// Runs a command to its end.
fn run(site: &Site, server: &str, command: &str, more: &[&str]) -> Output {
    let mut program = site.program(command, "artifact");
    program.env("MLFLOW_TRACKING_URI", server).args(more).output().expect("the trainer runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn by_key(entries: &[Value]) -> BTreeMap<&str, &Value> {
    entries.iter().map(|entry| (entry["key"].as_str().expect("a key"), &entry["value"])).collect()
}

fn refusal(code: &str) -> Value {
    json!({ "error_code": code, "message": "as it was told" })
}

#[test]
fn a_run_is_told_from_its_parameters_to_its_registered_version() {
    let (site, server) = (Site::new(), TrackingServer::start());
    let mut program = site.program("pipeline", "artifact");
    program.env("MLFLOW_TRACKING_URI", &server.uri).env("MLFLOW_TRACKING_TOKEN", "secret");
    let output = program.output().expect("the trainer runs");
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("MLflow: run abc at http://127.0.0.1"), "{}", said(&output));
    assert!(server.calls().iter().all(|call| call.authorization.as_deref() == Some("Bearer secret")));

    let begun = server.named("POST runs/create");
    assert_eq!(begun[0].json()["experiment_id"], "4");
    let parameters = server.logged("params");
    let parameters = by_key(&parameters);
    assert_eq!(parameters["model.embedding_dimension"], "8");
    assert_eq!(parameters["seed"], "7");
    assert_eq!(*parameters["publish.repository"], site.path("models").display().to_string());

    let metrics = server.logged("metrics");
    let steps = |key: &str| -> Vec<u64> {
        let of_key = metrics.iter().filter(|metric| metric["key"] == key);
        of_key.map(|metric| metric["step"].as_u64().expect("a step")).collect()
    };
    let summary: Value =
        serde_json::from_slice(&fs::read(site.path("artifact/summary.json")).expect("there")).expect("JSON");
    let epochs = summary["epochs"].as_u64().expect("a number");
    assert_eq!(steps("epoch_loss"), (1..=epochs).collect::<Vec<_>>());
    assert!(steps("validation_loss").len() as u64 >= epochs);
    assert_eq!(steps("choosing_epoch_loss"), steps("validation_loss"));
    assert_eq!(steps("auc"), [epochs]);
    assert_eq!(*by_key(&metrics)["auc"], summary["metrics"]["auc"]);

    let tags = server.logged("tags");
    let tags = by_key(&tags);
    assert_eq!(*tags["millrace.source_sha256"], summary["lineage"]["source_sha256"]);
    assert!(tags["millrace.gate.auc"].as_str().expect("a text").starts_with("passed: "));
    assert_eq!(tags["millrace.version"], "1");

    let prefix = "PUT mlflow-artifacts/artifacts/4/abc/artifacts/";
    let mut sent: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for Call { name, body, .. } in server.calls() {
        if let Some(path) = name.strip_prefix(prefix) {
            sent.insert(path.to_owned(), body);
        }
    }
    let expected = [
        "report.html",
        "report.json",
        "summary.json",
        "version/features/item_id.vocabulary",
        "version/features/schema.toml",
        "version/features/user_id.vocabulary",
        "version/golden.json",
        "version/manifest.toml",
        "version/model.onnx",
        "version/reference.json",
    ];
    assert_eq!(sent.keys().collect::<Vec<_>>(), expected);
    for (path, body) in &sent {
        let file = match path.as_str() {
            "version/manifest.toml" => site.path("models/shop/1/manifest.toml"),
            path => site.path("artifact").join(path),
        };
        assert!(*body == fs::read(file).expect("there"), "{path} arrived as something else");
    }

    let registered = server.named("POST model-versions/create");
    assert_eq!(registered.len(), 1);
    let registered = registered[0].json();
    assert_eq!((&registered["name"], &registered["run_id"]), (&json!("shop"), &json!("abc")));
    assert_eq!(registered["source"], "mlflow-artifacts:/4/abc/artifacts/version");
    assert_eq!(server.statuses(), ["FINISHED"]);
}

#[test]
fn a_training_that_was_killed_and_its_publication_belong_to_one_run() {
    let (site, server) = (Site::new(), TrackingServer::start());
    let checkpoint = site.path("artifact/checkpoint");
    let mut program = site.program("train", "artifact");
    program.env("MLFLOW_TRACKING_URI", &server.uri).args(["--checkpoint-seconds", "0"]);
    let mut child = program.spawn().expect("the trainer starts");
    assert!(runs_until(&mut child, || checkpoint.exists()));
    kill(child);
    for (command, status) in [("train", 0), ("publish", 0)] {
        let output = run(&site, &server.uri, command, &[]);
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
    }
    assert_eq!(server.named("POST runs/create").len(), 1);
    assert_eq!(server.statuses(), ["RUNNING", "FINISHED", "RUNNING", "FINISHED"]);
    assert_eq!(server.named("POST model-versions/create").len(), 1);
    let models = server.named("PUT mlflow-artifacts/artifacts/4/abc/artifacts/version/model.onnx");
    assert_eq!(models.len(), 1, "what the server has is not sent again");
    assert!(run(&site, &server.uri, "train", &[]).status.success());
    assert_eq!(server.named("POST runs/create").len(), 2, "another training is another run");
}

#[test]
fn a_run_that_somebody_deleted_is_begun_anew() {
    let deleted = |call: &Call, _| {
        let is_it = call.name == "POST runs/update" && call.json()["status"] == "RUNNING";
        is_it.then(|| (404, refusal("RESOURCE_DOES_NOT_EXIST")))
    };
    let (site, server) = (Site::new(), TrackingServer::with(deleted));
    for command in ["train", "publish"] {
        let output = run(&site, &server.uri, command, &[]);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(server.named("POST runs/create").len(), 2);
    let models = server.named("PUT mlflow-artifacts/artifacts/4/abc/artifacts/version/model.onnx");
    assert_eq!(models.len(), 2, "the new run has the model too");
}

#[test]
fn a_version_that_is_refused_is_told_and_not_registered() {
    let (site, server) = (Site::new(), TrackingServer::start());
    let pipeline = fs::read_to_string(site.path("pipeline.toml")).expect("there");
    fs::write(site.path("pipeline.toml"), pipeline.replace("accuracy = 0.0", "accuracy = 0.99"))
        .expect("written");
    let output = run(&site, &server.uri, "pipeline", &[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let tags = server.logged("tags");
    let reason = by_key(&tags)["millrace.gate.accuracy"].as_str().expect("a text").to_owned();
    assert!(reason.starts_with("refused: "), "{reason}");
    assert!(server.named("POST model-versions/create").is_empty());
    assert_eq!(server.statuses(), ["FINISHED"]);
}

#[test]
fn a_dry_run_tells_of_no_publication() {
    let (site, server) = (Site::new(), TrackingServer::start());
    assert!(run(&site, &server.uri, "train", &[]).status.success());
    let before = server.calls().len();
    let output = run(&site, &server.uri, "publish", &["--dry-run"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(server.calls().len(), before);
}

#[test]
fn a_server_that_is_not_there_ends_the_run_before_anything_is_done() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let site = Site::new();
    let servers = [
        (format!("http://{port}"), "experiments/get-by-name"),
        ("./mlruns".to_owned(), "expected http:// or https://"),
    ];
    for (server, expected) in servers {
        let output = run(&site, &server, "train", &[]);
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(said.contains(expected) && said.contains("MLFLOW_TRACKING_URI"), "{said}");
        assert!(!said.contains("read "), "{said}");
        assert!(!site.path("artifact").exists());
    }
}

#[test]
fn a_server_that_cannot_take_the_run_says_why() {
    let deleted = json!({ "experiment": { "experiment_id": "4", "lifecycle_stage": "deleted" } });
    let elsewhere = json!({ "run": { "info": { "run_id": "abc", "artifact_uri": "s3://bucket/4/abc" } } });
    let cases = [
        ("GET experiments/get-by-name?experiment_name=shop", 200, deleted, "`shop` is deleted"),
        ("POST runs/create", 200, elsewhere, "--serve-artifacts"),
        (
            "POST runs/create",
            403,
            refusal("PERMISSION_DENIED"),
            "status 403: PERMISSION_DENIED: as it was told",
        ),
        ("POST runs/create", 200, json!({ "hello": 1 }), "is this an MLflow server?"),
        ("POST runs/create", 302, json!(null), "status 302"),
    ];
    for (name, status, body, expected) in cases {
        let server = TrackingServer::with(move |call, _| (call.name == name).then(|| (status, body.clone())));
        let output = run(&Site::new(), &server.uri, "train", &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(expected), "{}", said(&output));
    }
}

#[test]
fn an_experiment_that_is_missing_is_made_and_a_failure_that_passes_is_outlived() {
    let special = |call: &Call, before| match call.name.as_str() {
        "GET experiments/get-by-name?experiment_name=a%20test" => {
            Some((404, refusal("RESOURCE_DOES_NOT_EXIST")))
        }
        "POST runs/log-batch" if before == 1 => Some((503, json!(null))),
        "POST registered-models/create" => Some((400, refusal("RESOURCE_ALREADY_EXISTS"))),
        _ => None,
    };
    let (site, server) = (Site::new(), TrackingServer::with(special));
    let mut program = site.program("pipeline", "artifact");
    program.env("MLFLOW_TRACKING_URI", &server.uri).env("MLFLOW_EXPERIMENT_NAME", "a test");
    let output = program.output().expect("the trainer runs");
    assert!(output.status.success() && !said(&output).contains("not tracked"), "{}", said(&output));
    assert_eq!(server.named("POST experiments/create")[0].json(), json!({ "name": "a test" }));
    assert_eq!(server.named("POST runs/create")[0].json()["experiment_id"], "5");
    let batches = server.named("POST runs/log-batch");
    assert_eq!(batches[1].body, batches[2].body, "the batch that failed is sent again");
    assert_eq!(server.named("POST model-versions/create").len(), 1);
    assert_eq!(server.statuses(), ["FINISHED"]);
}

#[test]
fn a_server_that_fails_on_the_way_does_not_take_the_run_with_it() {
    let special = |call: &Call, _| {
        let is_epoch = call.name == "POST runs/log-batch" && call.json().get("metrics").is_some();
        is_epoch.then(|| (403, refusal("PERMISSION_DENIED")))
    };
    let (site, server) = (Site::new(), TrackingServer::with(special));
    let output = run(&site, &server.uri, "pipeline", &[]);
    assert!(output.status.success(), "{}", said(&output));
    let said = said(&output);
    assert_eq!(said.matches("the rest of this run is not tracked").count(), 1, "{said}");
    assert!(site.path("models/shop/1/manifest.toml").exists());
    assert_eq!(server.named("POST runs/log-batch").len(), 2, "the parameters, and the epoch that failed");
    assert!(server.statuses().is_empty());
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_a_killed_one() {
    let (site, server) = (Site::new(), TrackingServer::start());
    let checkpoint = site.path("artifact/checkpoint");
    let mut program = site.program("train", "artifact");
    let mut child = program.env("MLFLOW_TRACKING_URI", &server.uri).spawn().expect("the trainer starts");
    assert!(runs_until(&mut child, || checkpoint.exists()));
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    // The signal may come when the last epoch is done.
    let expected = if output.status.code() == Some(130) { "KILLED" } else { "FINISHED" };
    assert_eq!(server.statuses(), [expected], "{}", said(&output));
}
