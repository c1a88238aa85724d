//! Feedback over HTTP: what is taken is in the log once, and what is not good is refused as a whole.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use millrace::feedback::{Event, Label, Record, Scalar, log::Reader};
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    artifact::Models,
    client::Answer,
    server::{MODEL, PREDICT, Server, first},
};

const FEEDBACK: &str = "/api/feedback";

/// A folder with keys and a log, which outlives the servers over it.
pub(crate) struct Kept(pub(crate) TempDir);

impl Kept {
    pub(crate) fn new() -> Self {
        let kept = Self(tempfile::tempdir().expect("a temporary folder"));
        kept.key('5');
        kept
    }

    fn key(&self, digit: char) {
        fs::write(self.0.path().join("receipt.keys"), digit.to_string().repeat(64)).expect("written");
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("feedback")
    }

    pub(crate) fn server(&self, config: &str) -> Server {
        let models = Models::new();
        models.publish(MODEL, 1, first());
        let (keys, log) = (self.0.path().join("receipt.keys"), self.log());
        let keep = format!("receipt_keys = '{}'\nfeedback_dir = '{}'\n", keys.display(), log.display());
        Server::over(models, &format!("{keep}{config}"))
    }

    /// What is in the log.
    fn events(&self) -> Vec<Event> {
        let entries = Reader::open(&self.log(), 0).expect("a log");
        let event = |payload: &[u8]| serde_json::from_slice(payload).expect("an event");
        entries.map(|entry| event(&entry.expect("readable").payload)).collect()
    }
}

fn receipt(server: &Server) -> String {
    let body = r#"{"input": [[123, 456], ["17850", "85123A"]]}"#;
    let headers = ["x-receipt: true", "content-type: application/json"];
    let answer = server.client().request("POST", PREDICT, &headers, body);
    answer.header("x-receipt").expect("a receipt").to_owned()
}

pub(crate) fn tell(server: &Server, events: &Value) -> Answer {
    server.client().post(FEEDBACK, &json!({ "events": events }).to_string())
}

pub(crate) fn taken(answer: &Answer) -> (u64, u64) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let number = |key: &str| answer.json()[key].as_u64().expect("a number");
    (number("accepted"), number("duplicates"))
}

fn refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(reason), "{}", answer.text());
}

#[test]
fn a_label_is_in_the_log_once_with_what_the_receipt_says() {
    let kept = Kept::new();
    let server = kept.server("");
    let receipt = receipt(&server);
    let events = json!([
        { "receipt": receipt, "label": 1 },
        { "receipt": receipt, "row": 1, "label": false, "record": { "user_id": "17850" } },
    ]);
    assert_eq!(taken(&tell(&server, &events)), (2, 0));
    assert_eq!(taken(&tell(&server, &events)), (0, 2));
    let again = json!([{ "receipt": receipt, "row": 1, "label": 1 }, { "id": "e", "record": {} }]);
    assert_eq!(taken(&tell(&server, &again)), (1, 1), "the first label of a row stands");
    let metrics = server.metrics();
    assert!(metrics.contains(r#"millrace_feedback_events_total{result="accepted"} 3"#), "{metrics}");
    assert!(metrics.contains(r#"millrace_feedback_events_total{result="duplicate"} 3"#), "{metrics}");
    assert!(server.stop());

    let events = kept.events();
    let labels: Vec<&Label> = events
        .iter()
        .filter_map(|event| match event {
            Event::Label(label) => Some(label),
            Event::Behaviour { .. } => None,
        })
        .collect();
    assert_eq!((events.len(), labels.len()), (3, 2));
    for (label, row, score, happened) in [
        (labels[0], 0, first().score("123", "456"), true),
        (labels[1], 1, first().score("17850", "85123A"), false),
    ] {
        assert_eq!((&*label.model, label.version, label.row, label.label), (MODEL, 1, row, happened));
        assert!((label.score - score).abs() < 1e-4, "{} {score}", label.score);
        assert!((label.answered_ms..label.answered_ms + 60_000).contains(&label.received_ms));
    }
    assert_eq!(labels[0].receipt, labels[1].receipt);
    let record = Record::from([("user_id".to_owned(), Scalar::Text("17850".to_owned()))]);
    assert_eq!(labels[1].record, Some(record));
}

#[test]
fn an_event_is_known_again_after_a_restart_and_a_receipt_by_every_replica() {
    let (kept, other) = (Kept::new(), Kept::new());
    let server = kept.server("");
    let receipt = receipt(&server);
    let events = json!([{ "receipt": receipt, "label": 1 }, { "id": "e", "record": { "taken": true } }]);
    assert_eq!(taken(&tell(&server, &events)), (2, 0));
    assert!(server.stop());
    let server = kept.server("");
    assert_eq!(taken(&tell(&server, &events)), (0, 2));
    let replica = other.server("");
    assert_eq!(taken(&tell(&replica, &events)), (2, 0));
    drop((server, replica));
    assert_eq!((kept.events().len(), other.events().len()), (2, 2));
}

#[test]
fn one_bad_event_refuses_all_and_says_which() {
    let kept = Kept::new();
    let server = kept.server("");
    let receipt = receipt(&server);
    let good = json!({ "id": "good", "record": {} });
    // The last character may carry bits that nobody reads.
    let middle = receipt.len() / 2;
    let other = if receipt.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &receipt[..middle], &receipt[middle + 1..]);
    for (event, reason) in [
        (json!({ "receipt": forged, "label": 1 }), "event 1: the receipt was tampered with"),
        (json!({ "receipt": "nonsense", "label": 1 }), "event 1: the receipt is malformed"),
        (json!({ "receipt": receipt, "row": 2, "label": 1 }), "event 1: the receipt is of 2 rows"),
        (json!({ "receipt": receipt }), "event 1: expected"),
        (json!({ "id": "large", "record": { "text": "x".repeat(70_000) } }), "event 1: larger than"),
    ] {
        refused(&tell(&server, &json!([good, event])), 400, reason);
    }
    refused(&server.client().post(FEEDBACK, "{"), 400, "not JSON");
    let large = |id: u32| json!({ "id": id.to_string(), "record": { "text": "x".repeat(60_000) } });
    let large: Vec<Value> = (0..20).map(large).collect();
    refused(&tell(&server, &json!(large)), 413, "of at most 1048576");
    assert_eq!(server.client().get(FEEDBACK).status, 405);
    let metrics = server.metrics();
    assert!(metrics.contains(r#"millrace_feedback_refused_total{reason="tampered"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"millrace_feedback_refused_total{reason="malformed"} 6"#), "{metrics}");
    assert!(server.stop());
    assert_eq!(kept.events(), []);

    kept.key('6');
    let server = kept.server("receipt_max_age_ms = 1");
    refused(&tell(&server, &json!([{ "receipt": receipt, "label": 1 }])), 400, "of another server");
    kept.key('5');
    drop(server);
    let server = kept.server("receipt_max_age_ms = 1");
    refused(&tell(&server, &json!([{ "receipt": receipt, "label": 1 }])), 400, "has expired");
    let metrics = server.metrics();
    assert!(metrics.contains(r#"millrace_feedback_refused_total{reason="expired"} 1"#), "{metrics}");
}

#[test]
fn who_has_no_log_takes_nothing_and_who_has_no_keys_no_labels() {
    let server = Server::start();
    refused(&tell(&server, &json!([{ "id": "e", "record": {} }])), 404, "no `feedback_dir`");
    let kept = Kept::new();
    let server = Server::with(&format!("feedback_dir = '{}'", kept.log().display()));
    assert_eq!(taken(&tell(&server, &json!([{ "id": "e", "record": {} }]))), (1, 0));
    refused(&tell(&server, &json!([{ "receipt": "r", "label": 1 }])), 400, "no keys to open receipts");
}

#[test]
fn labels_become_measures_of_the_version_and_are_read_again_after_a_restart() {
    let kept = Kept::new();
    let server = kept.server("");
    let receipt = receipt(&server);
    let scores = [first().score("123", "456"), first().score("17850", "85123A")];
    let labels = [true, false];
    let events: Vec<Value> =
        (0..2).map(|row| json!({ "receipt": receipt, "row": row, "label": labels[row] })).collect();
    assert_eq!(taken(&tell(&server, &json!(events))), (2, 0));
    // The counts are exported once a second.
    let wait = |server: &Server, line: &str| {
        let seen = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            server.metrics().contains(line)
        });
        assert!(seen, "{line} is not in {}", server.metrics());
    };
    let of = |what: &str| format!(r#"model="{MODEL}",version="1",window="early",{what}}}"#);
    let accuracy = millrace::quality::accuracy(&scores, &labels, 0.5).expect("two rows");
    let quality = |measure: &str| format!("millrace_live_quality{{{}", of(&format!("measure=\"{measure}\"")));
    let rows = |which: &str| format!("millrace_live_rows{{{}", of(&format!("of=\"{which}\"")));
    wait(&server, &format!("{} 2\n", rows("labelled")));
    wait(&server, &format!("{} 2\n", rows("predicted")));
    wait(&server, &format!("{} {accuracy}\n", quality("accuracy")));
    wait(&server, &format!("{} 1\n", quality("coverage")));
    assert!(server.stop());
    let server = kept.server("");
    wait(&server, &format!("{} 2\n", rows("labelled")));
    wait(&server, &format!("{} {accuracy}\n", quality("accuracy")));
    wait(&server, &format!("{} NaN\n", quality("coverage")));
    // What was labelled before the start is no part of what was answered since.
    self::receipt(&server);
    wait(&server, &format!("{} 2\n", rows("predicted")));
    wait(&server, &format!("{} 0\n", quality("coverage")));
    assert!(server.metrics().contains("millrace_feedback_log_failed 0\n"));
}

#[test]
fn what_was_told_becomes_tables_with_the_columns_of_a_training_log() {
    let kept = Kept::new();
    let tables = kept.0.path().join("tables");
    let export = format!(
        "feedback_export = {{ dir = '{}', label_column = 'clicked', time_column = 'at', interval_ms = 10 }}\n",
        tables.display()
    );
    let server = kept.server(&export);
    let receipt = receipt(&server);
    let events = json!([
        {"receipt": receipt, "row": 1, "label": 1, "record": {"user_id": 17850, "item_id": "85123A"}},
        {"id": "order-1", "record": {"user_id": 7, "item_id": "22423", "clicked": 0, "at": "2026-11-27T08:00:00Z"}},
    ]);
    assert_eq!(taken(&tell(&server, &events)), (2, 0));
    let files = || {
        let files = fs::read_dir(&tables).into_iter().flatten().map(|file| file.expect("a file").path());
        files.filter(|file| file.extension().is_some_and(|end| end == "parquet")).collect::<Vec<_>>()
    };
    let appeared = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        !files().is_empty()
    });
    assert!(appeared, "no table in {}", tables.display());
    let by_hand = kept.0.path().join("all.parquet");
    let run = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["log", "export", "--label-column", "clicked", "--time-column", "at", "--to"])
        .args([&by_hand, &kept.log()])
        .output()
        .expect("run");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(String::from_utf8_lossy(&run.stdout), "rows 2\n");
    assert_eq!(files().len(), 1);
    let [exported, by_hand] = [&files()[0], &by_hand].map(|file| rows(file));
    assert_eq!(exported, by_hand);
    let [label, behaviour] = &*exported else { panic!("{exported:?}") };
    let text = |text: &str| Field::Str(text.to_owned());
    assert_eq!((&label["user_id"], &label["item_id"]), (&Field::Long(17850), &text("85123A")));
    assert_eq!((&label["clicked"], &label["millrace_version"]), (&Field::Long(1), &Field::Long(1)));
    assert!(matches!(&label["at"], Field::Str(time) if time.starts_with("20")), "{label:?}");
    assert_eq!((&behaviour["clicked"], &behaviour["millrace_event"]), (&Field::Long(0), &text("order-1")));
    assert_eq!(
        (&behaviour["at"], &behaviour["millrace_score"]),
        (&text("2026-11-27T08:00:00Z"), &Field::Null)
    );
    assert!(server.metrics().contains("millrace_feedback_export_failed 0\n"));
}

fn rows(file: &Path) -> Vec<BTreeMap<String, Field>> {
    let reader = SerializedFileReader::new(File::open(file).expect("a file")).expect("a table");
    let rows = reader.get_row_iter(None).expect("rows");
    rows.map(|row| row.expect("a row").into_columns().into_iter().collect()).collect()
}
