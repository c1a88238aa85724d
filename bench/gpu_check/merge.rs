//! One report of those of the steps, and what of it a terminal shows: a short table, and one line for programs.

use std::{ffi::OsStr, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::say;

/// Makes one report of the steps in `parts`, writes it to `out` and says the most of it. Whether all of them passed.
pub(crate) fn merge(parts: &Path, out: &Path) -> anyhow::Result<bool> {
    let report = merged(parts)?;
    let other = out.with_extension("new");
    fs::write(&other, serde_json::to_vec_pretty(&report)?)?;
    fs::rename(other, out)?;
    for line in table(&report) {
        say(&line)?;
    }
    say(&json!({
        "passed": report["passed"],
        "failed": report["failed"],
        "device": report["device"],
        "figures": figures(&report),
    })
    .to_string())?;
    Ok(report["passed"] == true)
}

/// Every step that has left an exit status, in the order of their names.
fn merged(parts: &Path) -> anyhow::Result<Value> {
    let mut names = Vec::new();
    for entry in fs::read_dir(parts)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("status")) {
            names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    names.sort_unstable();
    let steps = names.iter().map(|name| step(parts, name)).collect::<Vec<_>>();
    let passed = |step: &&Value| step["status"] == "0" && step["report"]["passed"] == true;
    let failed =
        steps.iter().filter(|step| !passed(step)).map(|step| step["name"].clone()).collect::<Vec<_>>();
    let device = steps.iter().map(|step| &step["report"]["device"]).find(|device| device.is_string());
    Ok(json!({
        "passed": !steps.is_empty() && failed.is_empty(),
        "failed": failed,
        "device": device,
        "steps": steps,
    }))
}

/// A step, whose report is missing where it did not begin.
fn step(parts: &Path, name: &str) -> Value {
    let status = fs::read_to_string(parts.join(format!("{name}.status"))).unwrap_or_default();
    let report = fs::read(parts.join(format!("{name}.json"))).ok();
    let report = report.and_then(|report| serde_json::from_slice(&report).ok()).unwrap_or(Value::Null);
    json!({ "name": name, "status": status.trim(), "report": report })
}

fn table(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for step in list(&report["steps"]) {
        let (name, found) = (text(&step["name"]), &step["report"]);
        let word = if found["passed"] == true { "passed" } else { "FAILED" };
        lines.push(format!("{word} {name} (status {})", text(&step["status"])));
        for kernel in list(&found["kernels"]) {
            let faults = list(&kernel["faults"]).iter().take(2).map(text).collect::<Vec<_>>().join("; ");
            let (name, bad) = (text(&kernel["name"]), text(&kernel["first_bad"]));
            lines.push(format!(
                "  {name} off by {} of {} {bad} {faults}",
                kernel["largest_error"], kernel["tolerance"]
            ));
        }
        lines.extend(times(&found["model"]));
        lines.extend(rates(&found["model"]));
        lines.extend(search(&found["model"]));
        // What a step that is no part of this program says of itself.
        lines.extend(list(&found["table"]).iter().map(|line| format!("  {}", text(line))));
        for error in list(&found["errors"]).iter().take(3) {
            let [name, shape, error] = ["name", "shape", "error"].map(|name| text(&error[name]));
            lines.push(format!("  {name} ({shape}): {error}"));
        }
    }
    lines
}

/// What some batches take.
fn times(model: &Value) -> impl Iterator<Item = String> {
    let times = list(&model["times"]).iter();
    times.filter(|times| SHOWN_ROWS.iter().any(|&rows| times["rows"] == rows)).map(|times| {
        let [device, p50, p99] =
            ["device_us", "engine_p50_us", "engine_p99_us"].map(|name| number(&times[name]));
        format!("  {:>6} rows: device {device:.1} us, p50 {p50:.1}, p99 {p99:.1}", times["rows"])
    })
}

/// Rows a second of all numbers of slots, a line for each size of batches.
fn rates(model: &Value) -> impl Iterator<Item = String> {
    let rates = list(&model["throughput"]);
    rates.chunk_by(|one, other| one["rows"] == other["rows"]).map(|rates| {
        let figures = rates.iter().map(|rate| {
            let [device, engine] =
                ["device_rows_per_s", "engine_rows_per_s"].map(|name| number(&rate[name]) / 1e6);
            format!("{} slots {device:.1} (engine {engine:.1})", rate["slots"])
        });
        let figures = figures.collect::<Vec<_>>().join(", ");
        format!("  {:>6} rows, M rows/s: {figures}", rates[0]["rows"])
    })
}

/// What it takes to find the best items of a catalogue, where that was tried.
fn search(model: &Value) -> Option<String> {
    let search = model["search"].as_object()?;
    let [p50, rate] = [number(&search["p50_us"]), number(&search["items_per_s"]) / 1e6];
    let (k, items) = (&search["k"], &search["items"]);
    Some(format!("  the best {k} of {items} items: p50 {p50:.1} us, {rate:.1} M items/s"))
}

/// A few figures of each model: small batches, and the most rows a second. Those of a step that names its own are these.
fn figures(report: &Value) -> Value {
    let mut figures = Map::new();
    for step in list(&report["steps"]) {
        let model = &step["report"]["model"];
        let device_us = |rows: u64| {
            let times = list(&model["times"]).iter().find(|times| times["rows"] == rows);
            times.map(|times| rounded(&times["device_us"]))
        };
        let most = |name: &str| {
            let rates = list(&model["throughput"]).iter().map(|rate| number(&rate[name]) / 1e6);
            rates.reduce(f64::max).map(|rate| rounded(&rate.into()))
        };
        let own = &step["report"]["figures"];
        if own.is_object() {
            figures.insert(text(&step["name"]).to_owned(), own.clone());
        } else if model.is_object() {
            figures.insert(
                text(&step["name"]).to_owned(),
                json!({
                    "us_1": device_us(1),
                    "us_256": device_us(256),
                    "us_4096": device_us(4096),
                    "device_mrows_per_s": most("device_rows_per_s"),
                    "engine_mrows_per_s": most("engine_rows_per_s"),
                    "search_mitems_per_s": rounded(&(number(&model["search"]["items_per_s"]) / 1e6).into()),
                }),
            );
        }
    }
    figures.into()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn rounded(value: &Value) -> f64 {
    (number(value) * 10.0).round() / 10.0
}

/// The batches that the table has; the report has all.
const SHOWN_ROWS: [u64; 6] = [1, 32, 256, 1024, 4096, 16384];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_killed_or_never_began_fails_and_leaves_the_others_as_they_are() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        put("1-kernels.status", "0\n");
        put("1-kernels.json", r#"{"passed": true, "device": "a GPU"}"#);
        put("2-half.status", "124\n");
        let half = r#"{"passed": false, "model": {"times": [{"rows": 256, "device_us": 12.34}]}}"#;
        put("2-half.json", half);
        put("3-single.status", "134\n");
        put("4-http.status", "0\n");
        put("4-http.json", r#"{"passed": true, "table": ["so many"], "figures": {"p50_us": 90}}"#);
        let report = merged(folder.path()).expect("merged");
        assert_eq!(report["failed"], json!(["2-half", "3-single"]));
        assert_eq!((&report["passed"], &report["device"]), (&json!(false), &json!("a GPU")));
        assert_eq!(figures(&report)["2-half"]["us_256"], 12.3);
        assert_eq!(figures(&report)["4-http"]["p50_us"], 90);
        assert_eq!(table(&report).last().map(String::as_str), Some("  so many"));
        let out = folder.path().join("all.json");
        assert!(!merge(folder.path(), &out).expect("written"));
        for name in ["2-half", "3-single"] {
            fs::remove_file(folder.path().join(format!("{name}.status"))).expect("there");
        }
        assert!(merge(folder.path(), &out).expect("written"));
        assert!(fs::read_to_string(out).expect("there").contains("a GPU"));
    }
}
