//! The metrics as Prometheus sees them and as the documentation lists them.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use millrace::metrics::{FAMILIES, Kind};

use crate::{
    server::{BODY, PREDICT, Server},
    workspace,
};

#[test]
fn every_outcome_is_counted_once() {
    let server = Server::with("max_body_bytes = 1000");
    let mut client = server.client();
    client.post(PREDICT, BODY);
    client.post(PREDICT, "{}");
    client.post(PREDICT, &" ".repeat(1001));
    server.client().post("/api/predict/nobody", BODY);
    server.client().get("/nowhere");
    let metrics = server.metrics();
    for (series, expected) in [
        (r#"requests_total{model="shop",version="1",dialect="predict",outcome="ok"}"#, 1),
        (r#"requests_total{model="shop",version="1",dialect="predict",outcome="client_error"}"#, 2),
        ("unrouted_requests_total", 2),
        (r#"batches_total{model="shop",version="1",reason="engine_idle"}"#, 1),
        (r#"request_duration_seconds_count{model="shop",version="1"}"#, 1),
        (r#"queue_duration_seconds_count{model="shop",version="1"}"#, 1),
        (r#"compute_duration_seconds_count{model="shop",version="1"}"#, 1),
        (r#"batch_rows_sum{model="shop",version="1"}"#, 1),
        (r#"model_loads_total{model="shop",result="ok"}"#, 1),
        (r#"model_current_version{model="shop"}"#, 1),
        ("connections_total", 3),
    ] {
        let line = format!("millrace_{series} {expected}\n");
        assert!(metrics.contains(&line), "no line {line}in\n{metrics}");
    }
    assert!(metrics.contains(r#"millrace_version_quality{model="shop",version="1",measure="auc"} 0.75"#));
    assert!(metrics.contains("process_resident_memory_bytes "));
}

#[test]
fn promtool_finds_nothing_wrong() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("skipped: there is no promtool; the Debian package prometheus has it");
        return;
    };
    let server = Server::start();
    server.assert_healthy("the start");
    promtool.stdin.take().expect("piped").write_all(server.metrics().as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn prometheus_rules_fire_when_they_should_and_not_otherwise() {
    let folder = workspace().join("deploy/prometheus");
    let promtool =
        Command::new("promtool").args(["test", "rules", "millrace.test.yml"]).current_dir(folder).output();
    let Ok(output) = promtool else {
        eprintln!("skipped: there is no promtool; the Debian package prometheus has it");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

#[test]
fn prometheus_rules_are_about_metrics_that_there_are() {
    let rules =
        fs::read_to_string(workspace().join("deploy/prometheus/millrace.rules.yml")).expect("the rules");
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("millrace_")).collect();
    assert!(named.len() > 8, "{named:?}");
    let families: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    for name in named {
        let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        assert!(families.contains(histogram.unwrap_or(name)), "there is no {name}");
    }
}

#[test]
fn the_documentation_lists_every_metric_as_it_is() {
    let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for family in FAMILIES {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels = family.labels.join(", ");
        writeln!(table, "| `{}` | {kind} | {labels} | {} |", family.name, family.help).expect("memory");
    }
    let text = fs::read_to_string(workspace().join("docs/metrics.md")).expect("docs/metrics.md");
    assert!(text.contains(&table), "docs/metrics.md must hold this table:\n\n{table}");
}
