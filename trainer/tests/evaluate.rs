//! Reports on versions: what they say of one that was trained, how they tell a worse one, and what they refuse.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use millrace::{
    features::Encoder,
    quality::Bins,
    repository::{manifest::Manifest, reference},
};
use millrace_trainer::{
    artifact::{Artifact, REPORT_HTML, REPORT_JSON},
    config::Pipeline,
    evaluate::{
        EvaluateError, EvaluateOptions,
        bootstrap::{Difference, Unit},
        evaluate,
        page::{SECTIONS, page},
        report::Report,
    },
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::shop::{Shop, contents, run, with_run};

fn train(shop: &Shop, pipeline: &Pipeline, folder: &Path) -> Artifact {
    let mut said = Vec::new();
    with_run(shop, pipeline, &mut said, |run| run.train(folder)).expect("trained")
}

fn report(artifact: &Artifact, against: Option<&Path>) -> Result<Report, EvaluateError> {
    evaluate(artifact, against, &EvaluateOptions::new(OffsetDateTime::UNIX_EPOCH), &crate::runtime())
}

fn refused(artifact: &Artifact, against: Option<&Path>) -> String {
    report(artifact, against).expect_err("refused").to_string()
}

fn json(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join(REPORT_JSON)).expect("a report")).expect("JSON")
}

fn number(json: &Value, pointer: &str) -> f64 {
    json.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} of {json:#}"))
}

#[test]
fn training_leaves_a_report_that_agrees_with_its_summary() {
    let shop = Shop::open();
    let artifact = train(&shop, &shop.labelled(), &shop.artifact());
    let json = json(&shop.artifact());
    for (figure, pointer) in [
        ("auc", "/version/figures/auc"),
        ("accuracy", "/version/figures/accuracy"),
        ("log_loss", "/version/figures/log_loss"),
        ("majority", "/version/figures/majority"),
    ] {
        let (found, expected) = (number(&json, pointer), artifact.summary.metrics[figure]);
        assert!((found - expected).abs() < 1e-4, "{figure}: {found} is not {expected}");
    }
    assert_eq!(json["rows"], 4800);
    let counts = ["true_positives", "false_positives", "true_negatives", "false_negatives"];
    let counted = counts.iter().filter_map(|name| json["version"]["confusion"][name].as_u64());
    assert_eq!(counted.sum::<u64>(), 4800);
    for bins in ["equal_width", "equal_count"] {
        let bins = json["version"]["reliability"][bins].as_array().expect("bins");
        assert_eq!(bins.iter().filter_map(|bin| bin["rows"].as_u64()).sum::<u64>(), 4800);
    }
    let sizes = json["version"]["latency"]["batches"].as_array().expect("batches");
    assert_eq!(sizes.iter().map(|batch| &batch["rows"]).collect::<Vec<_>>(), [1, 64, 1024]);
    assert!(sizes.iter().all(|batch| number(batch, "/p50_us") <= number(batch, "/p99_us")), "{sizes:?}");
    assert_eq!((&json["against"], &json["comparison"]), (&Value::Null, &Value::Null));
    let files = json["version"]["files"].as_array().expect("files");
    assert!(files.iter().any(|file| file["file"] == "features/user_id.vocabulary"), "{files:?}");
    assert_eq!(json["version"]["lineage"]["seed"], 7);
    let html = fs::read_to_string(shop.artifact().join(REPORT_HTML)).expect("a page");
    for (anchor, title) in SECTIONS {
        assert!(html.contains(&format!("<section id=\"{anchor}\"")) && html.contains(title), "{title}");
    }
    for foreign in ["http:", "https:", "<script", "src=", "@import", "url("] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_ranking_stands_beside_its_baselines() {
    let shop = Shop::open();
    let artifact = train(&shop, &shop.purchases(), &shop.artifact());
    let json = json(&shop.artifact());
    let rankings = json["version"]["ranking"].as_array().expect("rankings");
    assert_eq!(rankings.len(), 6);
    assert_eq!((&rankings[1]["by"], &rankings[1]["pairs"]), (&"popularity".into(), &"new".into()));
    let found = number(&rankings[1], "/ndcg_at_10");
    assert!((found - artifact.summary.metrics["popularity_new_ndcg_at_10"]).abs() < 1e-12);
    let html = fs::read_to_string(shop.artifact().join(REPORT_HTML)).expect("a page");
    assert!(html.contains("New pairs by popularity"), "a row of the table");
}

#[test]
fn the_reference_is_of_the_training_rows_and_travels_with_the_version() {
    let shop = Shop::open();
    let (publication, said) = run(&shop, &shop.labelled());
    let (_, folder) = publication.expect("a run").published.unwrap_or_else(|| panic!("{said:#?}"));
    let encoder = Encoder::read(&folder.join(Manifest::FEATURES)).expect("features");
    let reference = reference::read(&folder, &encoder).expect("usable").expect("there");
    // The log has 24,000 rows, and a fifth of them is held out.
    assert_eq!((reference.rows, reference.score.counts.total()), (19_200, 19_200));
    let [users, items] = &reference.features[..] else { panic!("two features") };
    assert_eq!((users.name.as_str(), items.name.as_str()), ("user_id", "item_id"));
    let Bins::Ids(ids) = &users.distribution.bins else { panic!("ids") };
    assert_eq!((ids.len(), users.distribution.counts.total()), (20, 19_200));
    let json = json(&shop.artifact());
    // Held-out rows of the same shop: neither what is asked for nor the scores have moved much.
    for pointer in
        ["/version/drift/score/psi", "/version/drift/features/0/psi", "/version/drift/features/1/psi"]
    {
        assert!((0.0..0.1).contains(&number(&json, pointer)), "{pointer}: {}", json["version"]["drift"]);
    }
}

#[test]
fn a_version_differs_from_a_worse_one_and_not_from_itself() {
    let shop = Shop::open();
    let artifact = train(&shop, &shop.labelled(), &shop.artifact());
    let worse = shop.artifact().with_file_name("worse");
    train(&shop, &shop.poor(), &worse);
    let beside = report(&artifact, Some(&worse)).expect("a report");
    let comparison = beside.comparison.expect("compared");
    // Rows of a user are alike, so whole users are drawn.
    assert_eq!((comparison.unit, Some(comparison.units)), (Unit::Users, beside.users));
    assert!(comparison.auc.value > 0.0 && comparison.auc.is_clear(), "{comparison:?}");
    assert!(comparison.log_loss.value < 0.0 && comparison.log_loss.is_clear(), "{comparison:?}");
    let against = beside.against.as_ref().expect("beside the other");
    let expected = beside.version.figures.auc - against.figures.auc;
    assert!((comparison.auc.value - expected).abs() < 1e-12);
    let html = page(&beside);
    assert!(html.contains("artifact artifact beside artifact worse") && html.contains("95&nbsp;% interval"));
    let backwards = report(&Artifact::read(&worse).expect("an artifact"), Some(&shop.artifact()));
    let backwards = backwards.expect("a report").comparison.expect("compared");
    assert!(backwards.auc.value < 0.0 && backwards.auc.is_clear(), "{backwards:?}");
    let alone = report(&artifact, Some(&shop.artifact())).expect("a report").comparison.expect("compared");
    let nothing = Difference { value: 0.0, interval: [0.0, 0.0], resamples: 1000 };
    assert_eq!([alone.auc, alone.accuracy, alone.log_loss, alone.brier], [nothing; 4]);
}

#[test]
fn a_published_version_is_compared_with_by_its_folder() {
    let shop = Shop::open();
    let mut pipeline = shop.poor();
    pipeline.split.test = millrace_trainer::config::TestStart::Fraction(0.1);
    let (publication, said) = run(&shop, &pipeline);
    let (_, published) = publication.expect("a run").published.unwrap_or_else(|| panic!("{said:#?}"));
    fs::remove_file(published.join(reference::FILE)).expect("as versions were before there were any");
    let before = contents(&published);
    let artifact = train(&shop, &shop.labelled(), &shop.artifact());
    let beside = report(&artifact, Some(&published)).expect("a report");
    let against = beside.against.expect("beside the published one");
    assert_eq!((against.name.as_str(), against.drift), ("shop version 1", None));
    assert!(against.lineage.expect("a lineage").rows > artifact.summary.lineage.rows);
    let said = |part: &str| beside.notes.iter().any(|note| note.contains(part));
    assert!(
        said("may have seen some of the held-out rows") && said("has no reference.json"),
        "{:?}",
        beside.notes
    );
    assert!(contents(&published) == before, "the repository is only read");
}

#[test]
fn what_cannot_be_compared_is_said_in_a_sentence() {
    let shop = Shop::open();
    let artifact = train(&shop, &shop.labelled(), &shop.artifact());
    let empty = shop.artifact().with_file_name("empty");
    fs::create_dir(&empty).expect("made");
    assert!(refused(&artifact, Some(&empty)).contains("neither an artifact nor a version"));
    let other = shop.artifact().with_file_name("other");
    let mut pipeline = shop.labelled();
    pipeline.features[1].name = "product".into();
    train(&shop, &pipeline, &other);
    assert_eq!(
        refused(&artifact, Some(&other)),
        "artifact other takes the features user_id, product; the held-out rows of artifact artifact are of user_id, \
         item_id, and cannot be scored by both"
    );
    let mut one = artifact.clone();
    one.holdout.label.fill(true);
    assert!(refused(&one, None).contains("of one label"));
    let mut short = artifact;
    short.holdout.label.pop();
    assert_eq!(refused(&short, None), "holdout.json: 4800 rows have 4799 labels and 4800 users");
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace-trainer"))
        .args(["evaluate", "--onnxruntime"])
        .arg(crate::runtime_file())
        .args(arguments)
        .output()
        .expect("the trainer runs")
}

#[test]
fn the_command_writes_where_it_is_told_and_ends_with_one_line() {
    let shop = Shop::open();
    train(&shop, &shop.labelled(), &shop.artifact());
    let artifact = shop.artifact();
    let folder = artifact.to_str().expect("UTF-8");
    let elsewhere = artifact.with_file_name("elsewhere.html");
    let before = fs::read(artifact.join(REPORT_HTML)).expect("a page");
    let given = ["--artifact", folder, "--against", folder, "--threshold", "0.3", "--resamples", "20"];
    let output = command(&[&given[..], &["--out", elsewhere.to_str().expect("UTF-8")]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let line: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!((&line["rows"], &line["auc_difference"]), (&4800.into(), &0.0.into()));
    assert!(fs::read_to_string(&elsewhere).expect("a page").contains("a score of 0.3 on"));
    assert_eq!(fs::read(artifact.join(REPORT_HTML)).expect("a page"), before);
    assert_eq!(json(&artifact)["comparison"]["resamples"], 20);
}

#[test]
fn the_command_says_what_is_wrong() {
    let output = command(&["--artifact", "nowhere"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(said.contains("nowhere/summary.json"), "{said}");
    for wrong in [["--threshold", "2"], ["--resamples", "0"]] {
        let output = command(&[&["--artifact", "nowhere"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
