//! What a tracking server hears of a run, and what becomes of the run where it does not hear.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    process::{Child, Command, Output},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

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
    assert!(parameters.keys().all(|key| !key.starts_with("publish.") && !key.starts_with("gates.")));

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

    let sent = sent(&server);
    let expected = [
        "report.html",
        "report.json",
        "summary.json",
        "version-1/catalogue.json",
        "version-1/features/item_id.vocabulary",
        "version-1/features/schema.toml",
        "version-1/features/user_id.vocabulary",
        "version-1/golden.json",
        "version-1/item_tower.onnx",
        "version-1/manifest.toml",
        "version-1/model.onnx",
        "version-1/pairs.onnx",
        "version-1/reference.json",
        "version-1/user_tower.onnx",
    ];
    assert_eq!(sent.keys().collect::<Vec<_>>(), expected);
    assert_whole(&site, &sent);

    let registered = server.named("POST model-versions/create");
    assert_eq!(registered.len(), 1);
    let registered = registered[0].json();
    assert_eq!((&registered["name"], &registered["run_id"]), (&json!("shop"), &json!("abc")));
    assert_eq!(registered["source"], "mlflow-artifacts:/4/abc/artifacts/version-1");
    assert_eq!(server.statuses(), ["FINISHED"]);
}

#[test]
fn what_is_registered_is_what_was_published_each_time() {
    let (site, server) = (Site::new(), TrackingServer::start());
    assert!(run(&site, &server.uri, "train", &[]).status.success());
    let mut export = site.program("export", "artifact");
    let output = export.arg("--fp16").output().expect("the trainer runs");
    assert!(output.status.success(), "{}", said(&output));
    for _ in 0..2 {
        assert!(run(&site, &server.uri, "publish", &[]).status.success());
    }
    let sent = sent(&server);
    for version in ["1", "2"] {
        assert!(sent.contains_key(&format!("version-{version}/model.fp16.onnx")), "{:?}", sent.keys());
    }
    assert_whole(&site, &sent);
    let registered = server.named("POST model-versions/create").into_iter().map(|call| call.json());
    let sources: Vec<Value> = registered.map(|version| version["source"].clone()).collect();
    let expected =
        ["version-1", "version-2"].map(|place| format!("mlflow-artifacts:/4/abc/artifacts/{place}"));
    assert_eq!(sources, expected);
}

/// The artifacts that the server has, by their paths.
fn sent(server: &TrackingServer) -> BTreeMap<String, Vec<u8>> {
    let path =
        |name: &str| name.strip_prefix("PUT mlflow-artifacts/artifacts/4/abc/artifacts/").map(str::to_owned);
    let calls = server.calls().into_iter();
    calls.filter_map(|Call { name, body, .. }| Some((path(&name)?, body))).collect()
}

/// The server has what lies in the artifact's folder and in the repository, byte by byte.
fn assert_whole(site: &Site, sent: &BTreeMap<String, Vec<u8>>) {
    for (path, body) in sent {
        let file = match path.strip_prefix("version-") {
            Some(published) => site.path("models/shop").join(published),
            None => site.path("artifact").join(path),
        };
        assert!(*body == fs::read(file).expect("there"), "{path} arrived as something else");
    }
}

#[test]
fn a_training_that_was_killed_and_its_publication_belong_to_one_run() {
    let (site, (server, release)) = (Site::new(), holding(3));
    let mut program = site.program("train", "artifact");
    let child = program.env("MLFLOW_TRACKING_URI", &server.uri).spawn().expect("the trainer starts");
    // The third epoch is being told, so the first ones have left a checkpoint.
    wait_for_batches(&server, 4);
    kill(child);
    drop(release);
    for (command, status) in [("train", 0), ("publish", 0)] {
        let output = run(&site, &server.uri, command, &[]);
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
    }
    assert_eq!(server.named("POST runs/create").len(), 1);
    assert_eq!(server.statuses(), ["RUNNING", "FINISHED", "RUNNING", "FINISHED"]);
    assert_eq!(server.named("POST model-versions/create").len(), 1);
    let told = server.logged("metrics").into_iter().filter(|metric| metric["key"] == "auc").count();
    assert_eq!(told, 1, "what the server knows is not told again");
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
    let told = server.logged("metrics").into_iter().filter(|metric| metric["key"] == "auc").count();
    assert_eq!(told, 2, "the new run has the figures too");
}

#[test]
fn a_note_that_is_damaged_is_none() {
    let (site, server) = (Site::new(), TrackingServer::start());
    assert!(run(&site, &server.uri, "train", &[]).status.success());
    fs::write(site.path("artifact/mlflow.json"), "").expect("written");
    let output = run(&site, &server.uri, "publish", &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(server.named("POST runs/create").len(), 2);
}

/// A server that answers no metrics from the call on that is the `from`th of its name, until what comes back is dropped.
fn holding(from: usize) -> (TrackingServer, mpsc::Sender<()>) {
    let (release, held) = mpsc::channel();
    let held = Mutex::new(held);
    let server = TrackingServer::with(move |call, before| {
        if call.name == "POST runs/log-batch" && before >= from {
            // Nothing is ever sent: it waits for the sender's end.
            let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        None
    });
    (server, release)
}

/// Waits until so many batches were logged, the parameters first and then one for each epoch.
fn wait_for_batches(server: &TrackingServer, count: usize) {
    while server.named("POST runs/log-batch").len() < count {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_command_that_finds_the_folder_taken_leaves_the_run_alone() {
    let (site, (server, release)) = (Site::new(), holding(1));
    let mut program = site.program("train", "artifact");
    let first = program.env("MLFLOW_TRACKING_URI", &server.uri).spawn().expect("the trainer starts");
    wait_for_batches(&server, 2);
    let before = server.calls().len();
    let second = run(&site, &server.uri, "train", &[]);
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("another training is at work"), "{}", said(&second));
    assert_eq!(server.calls().len(), before, "the first one waits, and the second one says nothing");
    drop(release);
    let output = first.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(server.statuses(), ["FINISHED"]);
}

fn stop(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn nothing_is_begun_for_a_log_that_cannot_be_learnt_from() {
    let (site, server) = (Site::new(), TrackingServer::start());
    let pipeline = fs::read_to_string(site.path("pipeline.toml")).expect("there");
    let broken = [
        ("log.parquet", "absent.parquet", "absent.parquet: cannot be read"),
        ("label = \"clicked\"", "label = \"none\"", "no column `none`"),
        (
            "label = \"clicked\"",
            "label = \"clicked\"\nkeep = [{ column = \"clicked\", above = 0 }]",
            "all positive",
        ),
    ];
    for (from, to, expected) in broken {
        fs::write(site.path("pipeline.toml"), pipeline.replace(from, to)).expect("written");
        let output = run(&site, &server.uri, "train", &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(expected), "{}", said(&output));
        assert!(!said(&output).contains("epoch"), "{}", said(&output));
        assert!(server.calls().is_empty());
    }
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
fn a_dry_run_tells_what_the_gates_say_and_of_no_publication() {
    let (site, server) = (Site::new(), TrackingServer::start());
    assert!(run(&site, &server.uri, "pipeline", &["--dry-run"]).status.success());
    let tags = server.logged("tags");
    assert!(by_key(&tags)["millrace.gate.auc"].as_str().expect("a text").starts_with("passed: "));
    assert!(server.named("POST model-versions/create").is_empty());
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
        assert!(!said.contains("epoch"), "{said}");
        assert!(!site.path("artifact/version").exists());
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
        "POST model-versions/create" if before == 0 => Some((503, json!(null))),
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
    assert_eq!(server.named("POST model-versions/create").len(), 2);
    assert_eq!(server.statuses(), ["FINISHED"]);
}

#[test]
fn a_version_whose_registration_was_done_and_not_answered_is_registered_once() {
    let registered = AtomicBool::new(false);
    let special = move |call: &Call, _| match call.name.split('?').next() {
        Some("POST model-versions/create") => {
            registered.store(true, Ordering::Relaxed);
            Some((502, json!(null)))
        }
        Some("GET model-versions/search") if registered.load(Ordering::Relaxed) => {
            let source = "mlflow-artifacts:/4/abc/artifacts/version-1";
            Some((200, json!({ "model_versions": [{ "source": source }] })))
        }
        _ => None,
    };
    let (site, server) = (Site::new(), TrackingServer::with(special));
    let output = run(&site, &server.uri, "pipeline", &[]);
    assert!(output.status.success() && !said(&output).contains("not tracked"), "{}", said(&output));
    assert_eq!(server.named("POST model-versions/create").len(), 1);
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
    assert_eq!(server.statuses(), ["FINISHED"], "the end is tried all the same");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_a_killed_one() {
    let (site, server) = (Site::new(), TrackingServer::start());
    let checkpoint = site.path("artifact/checkpoint");
    let mut program = site.program("train", "artifact");
    let mut child = program.env("MLFLOW_TRACKING_URI", &server.uri).spawn().expect("the trainer starts");
    assert!(runs_until(&mut child, || checkpoint.exists()));
    stop(&child, "-INT");
    let output = child.wait_with_output().expect("it ends");
    // The signal may come when the last epoch is done.
    let expected = if output.status.code() == Some(130) { "KILLED" } else { "FINISHED" };
    assert_eq!(server.statuses(), [expected], "{}", said(&output));
}
