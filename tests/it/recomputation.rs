//! Live accuracy and AUC held against the log: what the metrics say of both windows, beside the same recomputed by sorting the
//! events that were kept. Among the labels are some that came late, twice, out of order and with forged receipts.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use millrace::feedback::{Event, Issuer, Keys, Label, log::Reader};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    artifact::{Artifact, ITEMS, Models, TAGS, USERS},
    client::Client,
    server::{MODEL, PREDICT, Server, first},
};

/// Windows of an hour, the mature one of which ends half an hour ago.
const WINDOWS: &str =
    "defaults = { quality_window_ms = 3600000, quality_step_ms = 60000, quality_maturity_ms = 1800000 }";
/// How many minutes ago the answers of each window were given.
const EARLY: std::ops::Range<u64> = 0..60;
const MATURE: std::ops::Range<u64> = 30..90;
/// Answers over HTTP, and those that a replica gave so many minutes ago: in both windows, in the mature one alone, in none.
/// They are a quarter of an hour from either end of a window, which is more than the test takes.
const ANSWERED: [(u64, usize); 4] = [(0, 15), (45, 15), (75, 15), (180, 5)];
/// Rows of an answer.
const ROWS: usize = 100;
const MINUTE_MS: u64 = 60_000;
/// How far a live measure may be from the recomputed one: the live AUC is of bins.
const TOLERANCE: f64 = 0.002;

#[test]
fn live_accuracy_and_auc_are_those_that_the_log_comes_to() {
    let folder = Folder::new();
    let server = folder.server();
    let mut dice = Dice(7);
    let answers: Vec<Answer> = folder.answers(&server, &mut dice);
    let mut labels: Vec<Value> = Vec::new();
    for answer in &answers {
        for (row, score) in answer.scores.iter().enumerate() {
            let label = dice.below(f64::from(*score));
            if dice.below(0.9) {
                labels.push(json!({ "receipt": answer.receipt, "row": row, "label": label }));
            }
            // The first that comes stands, and nobody knows here which.
            if dice.below(0.1) {
                labels.push(json!({ "receipt": answer.receipt, "row": row, "label": !label }));
            }
        }
    }
    dice.shuffle(&mut labels);
    let mut client = server.client();
    let mut refused = 0;
    for events in labels.chunks(250) {
        let forged = forged(events, &mut dice);
        refused += usize::from(tell(&mut client, &forged) == 400);
        assert_eq!(tell(&mut client, events), 200);
    }
    assert_eq!(
        refused,
        labels.len().div_ceil(250),
        "a forged receipt takes all that is told beside it along"
    );

    let kept = folder.labels();
    assert!(kept.len() > 4_000, "{} labels are in the log", kept.len());
    let late = kept.iter().filter(|label| minutes_ago(label) >= MATURE.end).count();
    assert!(late > 400, "{late} labels are late");
    wait_for(&server, "millrace_feedback_late_labels_total", late);
    let both = [("early", EARLY), ("mature", MATURE)].map(|(window, minutes)| {
        let rows: Vec<&Label> = kept.iter().filter(|label| minutes.contains(&minutes_ago(label))).collect();
        assert!((2_000..3_500).contains(&rows.len()), "{} of the {window} window", rows.len());
        (window, rows)
    });
    hold(&server, &both);
    drop((client, server));
    // A server that starts reads the labels again.
    hold(&folder.server(), &both);
}

/// Holds what `server` says of each window against the rows that are in it.
fn hold(server: &Server, windows: &[(&str, Vec<&Label>)]) {
    for (window, rows) in windows {
        let of = |name: &str, what: &str| {
            format!("{name}{{model=\"{MODEL}\",version=\"1\",window=\"{window}\",{what}}}")
        };
        wait_for(server, &of("millrace_live_rows", "of=\"labelled\""), rows.len());
        for (measure, expected) in [("accuracy", accuracy(rows)), ("auc", auc(rows))] {
            let series = of("millrace_live_quality", &format!("measure=\"{measure}\""));
            let found = metric(server, &series).expect("a measure");
            assert!((0.55..0.85).contains(&expected), "{measure} of scores that tell something: {expected}");
            assert!(
                (found - expected).abs() <= TOLERANCE,
                "{window} {measure}: {found}, by the log {expected}"
            );
        }
    }
}

/// Waits until a metric is `count`: they are exported once a second.
fn wait_for(server: &Server, series: &str, count: usize) {
    let mut found = None;
    for _ in 0..200 {
        found = metric(server, series);
        if found == Some(count as f64) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{series} is {found:?} and should be {count}");
}

fn metric(server: &Server, series: &str) -> Option<f64> {
    let metrics = server.metrics();
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The share of rows on the right side of even.
fn accuracy(rows: &[&Label]) -> f64 {
    rows.iter().filter(|row| (row.score >= 0.5) == row.label).count() as f64 / rows.len() as f64
}

/// The share of pairs of a row that happened and one that did not whose scores are in this order, ties counting half.
fn auc(rows: &[&Label]) -> f64 {
    let scores = |happened| rows.iter().filter(move |row| row.label == happened).map(|row| row.score);
    let mut negatives: Vec<f32> = scores(false).collect();
    negatives.sort_unstable_by(f32::total_cmp);
    let below = scores(true).map(|score| {
        let under = negatives.partition_point(|negative| *negative < score);
        let up_to = negatives.partition_point(|negative| *negative <= score);
        f64::midpoint(under as f64, up_to as f64)
    });
    below.sum::<f64>() / negatives.len() as f64 / scores(true).count() as f64
}

fn minutes_ago(label: &Label) -> u64 {
    now_ms().saturating_sub(label.answered_ms) / MINUTE_MS
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the end of time")
}

fn tell(client: &mut Client, events: &[Value]) -> u16 {
    client.post("/api/feedback", &json!({ "events": events }).to_string()).status
}

/// The same events, one of which has a receipt that nobody gave.
fn forged(events: &[Value], dice: &mut Dice) -> Vec<Value> {
    let mut events = events.to_vec();
    let at = dice.index(events.len());
    let receipt = events[at]["receipt"].as_str().expect("a receipt");
    // The score of its first row, before the 16 bytes of the seal and the two of each other row's score.
    let place = receipt.len() - (16 + 2 * ROWS) * 4 / 3;
    let other = if receipt.as_bytes()[place] == b'A' { "B" } else { "A" };
    events[at]["receipt"] = json!(format!("{}{other}{}", &receipt[..place], &receipt[place + 1..]));
    events
}

/// What was answered, and with which receipt.
struct Answer {
    receipt: String,
    scores: Vec<f32>,
}

/// A folder with keys and a log, which outlives the servers over it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        fs::write(folder.keys(), "5".repeat(64)).expect("written");
        folder
    }

    fn keys(&self) -> PathBuf {
        self.0.path().join("receipt.keys")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("feedback")
    }

    fn server(&self) -> Server {
        let models = Models::new();
        models.publish(MODEL, 1, artifact());
        let (keys, log) = (self.keys(), self.log());
        let keep = format!("receipt_keys = '{}'\nfeedback_dir = '{}'\n", keys.display(), log.display());
        Server::over(models, &format!("{keep}{WINDOWS}"))
    }

    /// The labels in the log.
    fn labels(&self) -> Vec<Label> {
        let entries = Reader::open(&self.log(), 0).expect("a log");
        let labels = entries.map(|entry| {
            let entry = entry.expect("readable");
            match serde_json::from_slice(&entry.payload).expect("an event") {
                Event::Label(label) => label,
                Event::Behaviour { .. } => panic!("nobody told of anything else"),
            }
        });
        labels.collect()
    }

    /// All answers: those of `server`, and those of a replica, which has the same model and the same key.
    fn answers(&self, server: &Server, dice: &mut Dice) -> Vec<Answer> {
        let replica = Issuer::new(Arc::new(Keys::read(&self.keys()).expect("a key")));
        let mut client = server.client();
        let mut answers = Vec::new();
        for (minutes, count) in ANSWERED {
            for _ in 0..count {
                let rows: Vec<Row> = (0..ROWS).map(|_| Row::draw(dice)).collect();
                answers.push(if minutes == 0 {
                    answer(&mut client, &rows)
                } else {
                    let scores: Vec<f32> = rows.iter().map(Row::score).collect();
                    let time = Duration::from_millis(now_ms() - minutes * MINUTE_MS);
                    let receipt = replica.issue((MODEL, 1), time, scores.iter().copied());
                    Answer { receipt: receipt.expect("probabilities"), scores }
                });
            }
        }
        answers
    }
}

fn answer(client: &mut Client, rows: &[Row]) -> Answer {
    let input: Vec<_> = rows.iter().map(|row| json!([row.user, row.item, row.tags])).collect();
    let headers = ["x-receipt: true", "content-type: application/json"];
    let answer = client.request("POST", PREDICT, &headers, json!({ "input": input }).to_string());
    let receipt = answer.header("x-receipt").expect("a receipt").to_owned();
    Answer { receipt, scores: answer.scores() }
}

/// A model with tags has a thousand different scores.
fn artifact() -> Artifact {
    first().with_tags()
}

struct Row {
    user: &'static str,
    item: &'static str,
    tags: Vec<&'static str>,
}

impl Row {
    fn draw(dice: &mut Dice) -> Self {
        let tags = (0..dice.index(4)).map(|_| TAGS[dice.index(TAGS.len())]).collect();
        Self { user: USERS[dice.index(USERS.len())], item: ITEMS[dice.index(ITEMS.len())], tags }
    }

    fn score(&self) -> f32 {
        artifact().score_tagged(self.user, self.item, &self.tags)
    }
}

/// A linear congruential generator, which repeats.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, chance: f64) -> bool {
        self.next() < chance
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    fn index(&mut self, length: usize) -> usize {
        (self.next() * length as f64) as usize
    }

    fn shuffle(&mut self, values: &mut [Value]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.index(last + 1));
        }
    }
}
