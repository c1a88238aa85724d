//! What `explore` makes of whole files: the figures of a log that is known, the page that shows them, and what the
//! command says to whoever calls it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use arrow_array::{ArrayRef, ListArray, RecordBatch, types::Int64Type};
use millrace_trainer::{
    config::{Pipeline, TestStart},
    explore::{
        ExploreError, ExploreOptions, explore,
        page::{SECTIONS, page},
        report::Report,
        roles::{Role, Source},
        warning::WarningKind,
    },
    synth::{SynthLog, SynthOptions},
};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// Twenty years on, so that no event is in the future.
fn later() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(70 * 365)
}

/// A file in a folder of its own.
struct File {
    folder: TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("log.csv");
    fs::write(&path, text).expect("written");
    File { folder, path }
}

fn report(path: &Path, options: &ExploreOptions) -> Report {
    let mut said = Vec::new();
    let report = explore(path, options, &mut |line: &str| said.push(line.to_owned())).expect("a report");
    assert!(said.iter().any(|line| line.contains("rows of")), "{said:?}");
    report
}

fn events() -> File {
    file(
        "event_time,user_id,product_id,title,category,event_type,price\n\
         2026-01-05 10:00:00,1,a,<script>alert('a')</script>,pens,view,1.5\n\
         2026-01-05 10:30:00,1,a,<script>alert('a')</script>,pens,purchase,1.5\n\
         2026-01-06 11:00:00,2,b,Ink,inks,view,3\n\
         2026-01-08 11:00:00,2,a,<script>alert('a')</script>,pens,view,1.5\n\
         2026-01-10 09:00:00,1,a,<script>alert('a')</script>,pens,view,1.5\n\
         2026-01-10 09:00:00,3,b,Ink,inks,view,3\n",
    )
}

#[test]
fn the_json_of_a_small_log_is_what_a_person_counts() {
    let log = events();
    let report = report(&log.path, &ExploreOptions::new(later()));
    let json = serde_json::to_value(&report).expect("JSON");
    let found = |pointer: &str| json.pointer(pointer).unwrap_or(&Value::Null).clone();
    let expected = [
        ("/file", json!("log.csv")),
        ("/rows", json!(6)),
        ("/users", json!(3)),
        ("/items", json!(2)),
        ("/pairs", json!(4)),
        ("/duplicates", json!(0)),
        ("/roles/0", json!({"role": "user", "column": "user_id", "source": "guessed"})),
        ("/roles/6", Value::Null),
        ("/columns/6/kind", json!("number")),
        ("/columns/6/range", json!({"least": 1.5, "greatest": 3.0})),
        ("/columns/0/range", json!({"first": "2026-01-05 10:00:00", "last": "2026-01-10 09:00:00"})),
        ("/columns/4/commonest/0", json!({"value": "pens", "rows": 4, "share": 0.666_667})),
        ("/timeline/unit", json!("day")),
        ("/timeline/buckets/0", json!({"start": "2026-01-05", "events": 2})),
        ("/timeline/gaps/0/seconds", json!(172_800)),
        ("/timeline/weekdays", json!([2, 1, 0, 1, 0, 2, 0])),
        (
            "/top_items/0",
            json!({"item": "a", "title": "<script>alert('a')</script>", "rows": 4, "share": 0.666_667}),
        ),
        ("/event_types/0/rows", json!(5)),
        ("/conversion/goal", json!("purchase")),
        ("/conversion/overall", json!({"base": 5, "goals": 1, "rate": 0.2})),
        ("/conversion/groups/0", json!({"name": "pens", "base": 3, "goals": 1, "rate": 0.333_333})),
        ("/user_activity/histogram/0", json!({"from": 1, "to": 1, "owners": 1, "events": 1})),
        ("/cut_source", json!("guessed")),
        ("/overlap/test_from", json!("2026-01-10 09:00:00")),
        ("/overlap/test_events", json!(2)),
        ("/overlap/users/test_events_known", json!({"events": 1, "share": 0.5})),
        ("/overlap/test_events_with_known_pair", json!({"events": 1, "share": 0.5})),
    ];
    for (pointer, expected) in expected {
        assert_eq!(found(pointer), expected, "{pointer}: {json:#}");
    }
    let kinds: Vec<WarningKind> = report.warnings.iter().map(|warning| warning.kind).collect();
    assert_eq!(kinds, [WarningKind::OneEventUsers], "{:#?}", report.warnings);
}

#[test]
fn the_page_stands_alone_names_every_section_and_runs_nothing_that_a_file_says() {
    let log = events();
    let html = page(&report(&log.path, &ExploreOptions::new(later())));
    for (id, title) in SECTIONS {
        assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
        assert!(html.contains(&format!("<h2 id=\"{id}-title\">{title}</h2>")), "{title}");
        assert!(html.contains(&format!("<a href=\"#{id}\">")), "{id}");
    }
    for fetched in ["http:", "https:", "<script", "<link", "<img", "<iframe", " src=", "url(", "@import"] {
        assert!(!html.contains(fetched), "{fetched}");
    }
    assert!(html.contains("&lt;script&gt;alert(&#39;a&#39;)"), "the item's name is shown as it is");
    assert_eq!(html.matches("<svg").count(), html.matches("aria-label=\"").count() - 1, "and the nav's");
    assert_eq!(html.matches("<section").count(), html.matches("</section>").count());
    assert_eq!(html.matches("<figure>").count(), html.matches("<details>").count(), "each with its figures");
}

#[test]
fn a_table_that_is_no_log_still_has_a_report() {
    let table = file("age,work,Salary\n39,a,<=50K\n50,?,<=50K\n28,b,>50K\n28,b,>50K\n");
    let plain = report(&table.path, &ExploreOptions::new(later()));
    assert_eq!((plain.users, plain.timeline.is_none(), plain.overlap.is_none()), (None, true, true));
    assert!(
        plain.notes.iter().any(|note| note.contains("`Salary`") && note.contains("--label")),
        "{:?}",
        plain.notes
    );
    let html = page(&plain);
    assert!(html.contains("No column was taken for the time"), "{html}");
    let mut options = ExploreOptions::new(later());
    options.roles.set(Role::Label, "Salary", Source::Given);
    options.roles.set(Role::Category, "work", Source::Given);
    let labelled = report(&table.path, &options);
    assert_eq!(labelled.label.map(|label| (label.positive, label.positives)), Some((">50K".into(), 2)));
    assert_eq!(labelled.conversion.and_then(|conversion| conversion.by).as_deref(), Some("work"));
}

#[test]
fn a_synthetic_shop_is_explored_as_its_pipeline_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("log.parquet");
    SynthLog::draw(&SynthOptions { users: 100, items: 80, events: 5000, ..SynthOptions::default() })
        .write(&path)
        .expect("written");
    let text =
        fs::read_to_string(crate::workspace().join("trainer/pipelines/demo.toml")).expect("the pipeline");
    let pipeline = Pipeline::parse(&text).expect("a pipeline");
    let report = report(&path, &ExploreOptions::of_pipeline(&pipeline, later()));
    assert_eq!((report.rows, report.users, report.items), (5000, Some(100), Some(80)));
    assert!(report.roles.iter().all(|found| found.source == Source::Pipeline), "{:?}", report.roles);
    assert_eq!(report.overlap.as_ref().map(|overlap| overlap.test_events), Some(1000));
    assert_eq!(report.overlap.and_then(|overlap| overlap.users).map(|users| users.both), Some(100));
    let activity = report.user_activity.expect("users");
    assert_eq!(activity.histogram.iter().map(|bucket| bucket.owners).sum::<usize>(), 100);
    let conversion = report.conversion.expect("a label");
    assert_eq!((conversion.by.as_deref(), conversion.overall.base), (Some("item_id"), 5000));
    assert!((0.2..0.45).contains(&conversion.overall.rate), "{:?}", conversion.overall);
    assert_eq!(report.timeline.map(|timeline| timeline.buckets.len()), Some(90));
}

#[test]
fn a_pipelines_conditions_leave_rows_out_of_every_figure() {
    let log = file("user,item,time,quantity\n1,a,2026-01-01,1\n1,a,2026-01-02,-1\n2,b,2026-01-03,2\n");
    let text =
        fs::read_to_string(crate::workspace().join("trainer/pipelines/retail.toml")).expect("the pipeline");
    let text =
        text.replace("Customer ID", "user").replace("StockCode", "item").replace("InvoiceDate", "time");
    let text =
        text.replace("\"Quantity\"", "\"quantity\"").replace(", { column = \"Price\", above = 0 }", "");
    let text = text.replace("2010-11-01", "2026-01-03");
    let report = report(
        &log.path,
        &ExploreOptions::of_pipeline(&Pipeline::parse(&text).expect("a pipeline"), later()),
    );
    assert_eq!((report.rows, report.left_out), (2, 1));
    assert!(
        report.warnings.iter().all(|warning| warning.kind != WarningKind::Negative),
        "{:?}",
        report.warnings
    );
}

#[test]
fn what_was_asked_for_and_cannot_be_done_is_an_error() {
    let log = file("user,item,time,kind\n1,a,2026-01-01,x\n2,b,2026-01-02,y\n3,c,2026-01-03,z\n");
    let refused = |change: &dyn Fn(&mut ExploreOptions)| {
        let mut options = ExploreOptions::new(later());
        change(&mut options);
        explore(&log.path, &options, &mut |_: &str| {}).expect_err("refused").to_string()
    };
    let label = refused(&|options| options.roles.set(Role::Label, "kind", Source::Given));
    assert_eq!(label, "column `kind` has 3 distinct values, but a label has two");
    assert!(refused(&|options| options.roles.set(Role::User, "who", Source::Given)).contains("`who`"));
    assert!(refused(&|options| options.roles.set(Role::Time, "kind", Source::Given)).contains("no time"));
    assert!(refused(&|options| options.test = Some((TestStart::At(0), Source::Given))).contains("training"));
    let timeless = file("user,item\n1,a\n");
    let mut options = ExploreOptions::new(later());
    options.test = Some((TestStart::At(0), Source::Given));
    assert!(matches!(explore(&timeless.path, &options, &mut |_: &str| {}), Err(ExploreError::NoTime)));
}

#[test]
fn lists_of_ids_are_in_the_table_of_columns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("log.parquet");
    let genres = [Some(vec![Some(7), Some(8)]), Some(vec![Some(7)]), None, Some(vec![])];
    let genres: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(genres));
    let batch = RecordBatch::try_from_iter([("genres", genres)]).expect("a batch");
    let file = fs::File::create(&path).expect("made");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let report = report(&path, &ExploreOptions::new(later()));
    let column = serde_json::to_value(&report.columns[0]).expect("JSON");
    assert_eq!(
        (&column["kind"], &column["missing"], &column["distinct"]),
        (&json!("list"), &json!(2), &json!(2))
    );
    assert_eq!(column["range"], json!({"shortest": 1, "mean": 1.5, "longest": 2}));
    assert_eq!(column["commonest"][0], json!({"value": "7", "rows": 2, "share": 1.0}));
    let html = page(&report);
    assert!(html.contains("1 to 2 ids, 1.5 on the mean") && html.contains("7 (100"), "{html}");
}

#[test]
fn the_command_writes_both_reports_and_ends_with_a_line_of_json() {
    let log = events();
    let (html, json) = (log.folder.path().join("r.html"), log.folder.path().join("r.json"));
    let output = command(&[log.path.as_path(), Path::new("--out"), &html, Path::new("--json"), &json]);
    assert!(output.status.success(), "{output:?}");
    let line = String::from_utf8(output.stdout).expect("text");
    let line: Value = serde_json::from_str(line.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&line["rows"], &line["users"], &line["items"]), (&json!(6), &json!(3), &json!(2)));
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("written")).expect("JSON");
    assert_eq!(
        report["warnings"].as_array().map(Vec::len),
        line["warnings"].as_u64().and_then(|n| n.try_into().ok())
    );
    assert!(fs::read_to_string(&html).expect("written").starts_with("<!DOCTYPE html>"));
}

#[test]
fn the_command_tells_wrong_arguments_from_wrong_files() {
    let log = events();
    let failed = |arguments: &[&Path], code: i32, said: &str| {
        let output = command(arguments);
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(said), "{error}");
    };
    failed(&[&log.path, Path::new("--test-from"), Path::new("soon")], 2, "expected a date");
    failed(&[], 2, "<LOG>");
    let conflict = ["--pipeline", "p.toml", "--user", "u"].map(Path::new);
    failed(&[&[log.path.as_path()][..], &conflict].concat(), 2, "cannot be used with");
    failed(&[Path::new("no.parquet")], 1, "no.parquet: cannot be read");
    failed(&[Path::new("log.txt")], 1, "a log is a .csv or a .parquet file");
    failed(&[&log.path, Path::new("--user"), Path::new("nobody")], 1, "no column `nobody`");
}

#[test]
fn the_command_overwrites_neither_the_log_nor_its_other_report() {
    let log = events();
    let before = fs::read(&log.path).expect("a log");
    let again = log.folder.path().join(".").join("log.csv");
    let (html, twin) = (log.folder.path().join("r.html"), log.folder.path().join("./r.html"));
    let [out, json] = ["--out", "--json"].map(Path::new);
    for (places, said) in [
        ([out, again.as_path(), json, twin.as_path()], "would be overwritten"),
        ([out, html.as_path(), json, again.as_path()], "would be overwritten"),
        ([out, html.as_path(), json, twin.as_path()], "--out and --json: both name"),
    ] {
        let output = command(&[&[log.path.as_path()][..], &places].concat());
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.code() == Some(1) && error.contains(said), "{error}");
    }
    assert_eq!(fs::read(&log.path).expect("a log"), before);
    assert!(!html.exists());
}

#[test]
fn a_plain_mistake_is_said_in_a_line_whatever_the_environment_asks_for() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_millrace-trainer"));
    let output = program.args(["explore", "no.csv"]).env("RUST_BACKTRACE", "1").output().expect("it runs");
    let error = String::from_utf8(output.stderr).expect("text");
    let last = error.lines().last().expect("a line");
    assert!(last.starts_with("Error: no.csv: cannot be read: "), "{error}");
}

/// The limit on the size of files stands for a disk that is full.
#[test]
#[cfg(unix)]
fn nothing_half_written_is_left_where_the_disk_is_full() {
    let log = events();
    let folder = log.folder.path();
    let program = env!("CARGO_BIN_EXE_millrace-trainer");
    for arguments in ["synth --out made.csv", "synth --out made.parquet", "explore log.csv --out r.html"] {
        let script = format!("trap '' XFSZ; ulimit -f 1; exec '{program}' {arguments}");
        let output = Command::new("sh").args(["-c", &script]).current_dir(folder).output().expect("it runs");
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.code() == Some(1) && error.contains("cannot be written"), "{error}");
        let left: Vec<_> =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one").file_name()).collect();
        assert_eq!(left, ["log.csv"], "{arguments}");
    }
}

fn command(arguments: &[&Path]) -> Output {
    let program = env!("CARGO_BIN_EXE_millrace-trainer");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let explore = [Path::new("explore")];
    let run = Command::new(program).args(explore.iter().chain(arguments)).current_dir(&folder).output();
    run.expect("the program runs")
}

#[test]
fn the_retail_log_shows_what_is_known_of_it() {
    let path = crate::workspace().join("../shared/data/online_retail_2009_2010.parquet");
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return;
    }
    let report = report(&path, &ExploreOptions::new(later()));
    assert_eq!((report.rows, report.columns.len()), (525_461, 8));
    let names: Vec<&str> = report.roles.iter().map(|found| found.column.as_str()).collect();
    assert_eq!(names, ["Customer ID", "StockCode", "Description", "InvoiceDate"]);
    let has = |kind, column: &str| {
        report.warnings.iter().any(|found| found.kind == kind && found.column.as_deref() == Some(column))
    };
    assert!(has(WarningKind::FloatIds, "Customer ID") && has(WarningKind::Negative, "Quantity"));
    assert!(has(WarningKind::NoOwner, "Customer ID"), "{:#?}", report.warnings);
    assert_eq!(report.top_items[0].item, "85123A");
    assert_eq!(report.top_items[0].title.as_deref(), Some("WHITE HANGING HEART T-LIGHT HOLDER"));
}
