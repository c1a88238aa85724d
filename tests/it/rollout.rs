//! New versions that are tried before they answer: promoted by labels, rolled back by labels, by faults and for good, as an
//! operator wishes, and as shadows.

use std::{collections::BTreeSet, fs, path::PathBuf, thread, time::Duration};

use millrace::rollout::{Entry, Event, RolloutOptions, Rules, Verdict};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    artifact::{Artifact, ITEMS, Models, USERS},
    client::Client,
    server::{BODY, MODEL, PREDICT, Server, first, second},
};

/// A folder with keys, a log of feedback and journals, which outlives the servers over it.
struct Kept(TempDir);

const RULES: &str = r#"
    enter = "canary", share = 0.5, measure = "accuracy", margin = 0.0, min_labels = 40, min_requests = 20,
    max_latency_ratio = 1000.0
"#;

impl Kept {
    fn new() -> Self {
        let kept = Self(tempfile::tempdir().expect("a temporary folder"));
        fs::write(kept.path("receipt.keys"), "5".repeat(64)).expect("written");
        kept
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A server over these versions, whose new ones are tried by `rules`.
    fn server(&self, versions: &[(u64, Artifact)], rules: &str) -> Server {
        let models = Models::new();
        for (version, artifact) in versions {
            models.publish(MODEL, *version, *artifact);
        }
        let config = format!(
            r"
            receipt_keys = '{}'
            feedback_dir = '{}'
            rollout_dir = '{}'
            [models.{MODEL}]
            receipts = true
            quality_step_ms = 100
            quality_window_ms = 60000
            quality_maturity_ms = 0
            rollout = {{ {} }}
            ",
            self.path("receipt.keys").display(),
            self.path("feedback").display(),
            self.path("journals").display(),
            rules.replace('\n', " "),
        );
        Server::over(models, &config)
    }

    /// A server whose version 1 is stable and whose version 2 is being tried.
    fn trying(&self, rules: &str) -> Server {
        let server = self.server(&[(1, first())], rules);
        until("the first version", || (), || status(&server)["stable"] == 1);
        server.models.publish(MODEL, 2, second());
        server.order("load", "");
        until("the candidate", || (), || status(&server)["candidate"]["version"] == 2);
        server
    }

    fn journal(&self) -> Vec<Entry> {
        let text = fs::read_to_string(self.path("journals").join(format!("{MODEL}.jsonl")));
        let text = text.unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect()
    }

    fn events(&self) -> Vec<(Event, u64)> {
        self.journal().iter().map(|entry| (entry.event, entry.version.into())).collect()
    }
}

/// What is to be known of the rollout.
fn status(server: &Server) -> Value {
    server.management().get(&format!("/models/{MODEL}/rollout")).json()
}

/// Does `work` again and again until `is_done`, for a minute at most.
fn until(what: &str, mut work: impl FnMut(), is_done: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_done() {
            return;
        }
        work();
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{what} never came");
}

/// Asks for every pair of a user and an item, and tells what became of it: what `truth` says.
fn play(server: &Server, truth: &Artifact) {
    let mut client = server.client();
    for (turn, user) in USERS.iter().enumerate() {
        for item in ITEMS {
            let body = json!({ "input": [[user, item]] }).to_string();
            let key = format!("x-sticky-key: {turn} {item}");
            let answer = client.request("POST", PREDICT, &["content-type: application/json", &key], &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let receipt = answer.header("x-receipt").expect("a receipt").to_owned();
            let label = truth_of(truth, user, item);
            let event = json!({ "events": [{ "receipt": receipt, "label": label }] }).to_string();
            assert_eq!(client.post("/api/feedback", &event).status, 200);
        }
    }
}

fn truth_of(truth: &Artifact, user: &str, item: &str) -> bool {
    truth.score(user, item) >= 0.5
}

fn answering(client: &mut Client, key: &str) -> u64 {
    let headers = ["content-type: application/json", &format!("x-sticky-key: {key}")];
    let answer = client.request("POST", PREDICT, &headers, BODY);
    answer.header("x-model-version").expect("a version").parse().expect("a number")
}

fn order(server: &Server, wish: &str, body: &str) -> (u16, Value) {
    let answer = server.management().post(&format!("/models/{MODEL}/rollout/{wish}"), body);
    (answer.status, answer.json())
}

#[test]
fn a_version_whose_answers_are_better_is_promoted_and_each_user_had_one_version_meanwhile() {
    let kept = Kept::new();
    let server = kept.trying(RULES);
    let mut client = server.client();
    let users: Vec<String> = (0..200).map(|user| user.to_string()).collect();
    let versions: Vec<u64> = users.iter().map(|user| answering(&mut client, user)).collect();
    let tried = versions.iter().filter(|version| **version == 2).count();
    assert!((60..140).contains(&tried), "{tried} of 200 users, with a share of a half");
    for (user, version) in users.iter().zip(&versions) {
        assert_eq!(answering(&mut client, user), *version, "user {user} comes again");
    }
    let named = client.post(&format!("{PREDICT}/versions/1"), BODY);
    assert_eq!(named.header("x-model-version"), Some("1"), "who names a version gets it");
    until("promotion", || play(&server, &second()), || status(&server)["stable"] == 2);
    assert!(users.iter().all(|user| answering(&mut client, user) == 2));
    assert_eq!(kept.events(), [(Event::Stable, 1), (Event::Entered, 2), (Event::Promoted, 2)]);
    // Whoever reads the journal comes to the same decision.
    let promoted = kept.journal().pop().expect("three entries");
    let evidence = promoted.evidence.expect("numbers");
    assert_eq!(rules().judge(&evidence), Verdict::Promote, "{evidence:?}");
    let (candidate, stable) = (evidence.candidate.quality, evidence.stable.quality);
    assert!(candidate > stable && candidate == Some(1.0), "{candidate:?} {stable:?}");
    let metrics = server.metrics();
    for line in ["candidate{model=\"shop\"} 0", "events_total{model=\"shop\",event=\"promoted\"} 1"] {
        assert!(metrics.contains(&format!("millrace_rollout_{line}")), "{line}: {metrics}");
    }
}

fn rules() -> Rules {
    let raw: millrace::config::RawRollout =
        toml::from_str(&RULES.replace(", ", "\n").replace(',', "\n")).expect("rules");
    let RolloutOptions { rules, .. } = raw.parse().expect("rules").expect("a rollout");
    rules
}

#[test]
fn a_version_whose_answers_are_worse_is_rolled_back_and_a_restart_does_not_bring_it_back() {
    let kept = Kept::new();
    let server = kept.server(&[(1, first())], RULES);
    until("the first version", || (), || status(&server)["stable"] == 1);
    server.models.publish(MODEL, 2, second());
    server.order("load", "");
    until("the roll-back", || play(&server, &first()), || status(&server)["refused"] == json!([2]));
    assert_eq!(kept.events(), [(Event::Stable, 1), (Event::Entered, 2), (Event::RolledBack, 2)]);
    let entry = kept.journal().pop().expect("three entries");
    assert_eq!(entry.reason, "it answers worse");
    until("the end of the version", || (), || server.metrics().contains("millrace_versions_in_memory 1\n"));
    assert_eq!(answering(&mut server.client(), "1"), 1);
    let listed = server.order("load", "").json();
    assert_eq!((&listed["versions"][1]["state"], &listed["current"]), (&"rolled_back".into(), &1.into()));
    drop(server);
    let server = kept.server(&[(1, first()), (2, second())], RULES);
    server.assert_healthy("a restart");
    assert_eq!(
        (status(&server)["stable"].clone(), status(&server)["candidate"].clone()),
        (1.into(), Value::Null)
    );
    // A later version is tried again, beside the last good one.
    server.models.publish(MODEL, 3, second());
    server.order("load", "");
    until("the next candidate", || (), || status(&server)["candidate"]["version"] == 3);
    let mut client = server.client();
    let versions: BTreeSet<u64> = (0..50).map(|user| answering(&mut client, &user.to_string())).collect();
    assert_eq!(versions, [1, 3].into());
}

#[test]
fn a_version_that_refuses_what_the_other_takes_goes_before_any_label() {
    let kept = Kept::new();
    let server = kept.server(&[(1, first())], RULES);
    until("the first version", || (), || status(&server)["stable"] == 1);
    server.models.publish(MODEL, 2, first().with_tags());
    server.order("load", "");
    let mut client = server.client();
    let ask = || (0..20).for_each(|_| drop(client.post(PREDICT, BODY)));
    until("the roll-back", ask, || status(&server)["refused"] == json!([2]));
    assert_eq!(kept.journal().pop().expect("three entries").reason, "it fails more often");
    server.assert_healthy("the roll-back");
}

#[test]
fn a_client_whose_requests_are_nonsense_takes_no_version_down() {
    let kept = Kept::new();
    let server = kept.trying(RULES);
    let mut client = server.client();
    let key = (0..1_000).map(|user| user.to_string()).find(|user| answering(&mut client, user) == 2);
    let key = format!("x-sticky-key: {}", key.expect("half of all users"));
    for (header, body) in [
        (&*key, "nonsense"),
        ("x-request-timeout-ms: none", BODY),
        ("x-receipt: perhaps", BODY),
        (&key, r#"{"input": [[1]]}"#),
    ] {
        for _ in 0..30 {
            let answer =
                client.request("POST", PREDICT, &["content-type: application/json", &key, header], body);
            assert_eq!(answer.status, 400, "{header} {body}");
        }
    }
    until("promotion", || play(&server, &second()), || status(&server)["stable"] == 2);
    let promoted = kept.journal().pop().and_then(|entry| entry.evidence).expect("numbers");
    assert_eq!((promoted.candidate.faults, promoted.stable.faults), (0, 0));
}

#[test]
fn a_trial_goes_on_after_a_restart() {
    let kept = Kept::new();
    let server = kept.trying(RULES);
    let since = status(&server)["candidate"]["since"].clone();
    drop(server);
    let server = kept.server(&[(1, first()), (2, second())], RULES);
    assert_eq!(status(&server)["candidate"]["since"], since);
    let mut client = server.client();
    let versions: BTreeSet<u64> = (0..50).map(|user| answering(&mut client, &user.to_string())).collect();
    assert_eq!(versions, [1, 2].into());
    until("promotion", || play(&server, &second()), || status(&server)["stable"] == 2);
    assert_eq!(kept.events(), [(Event::Stable, 1), (Event::Entered, 2), (Event::Promoted, 2)]);
}

#[test]
fn the_version_before_stands_in_for_a_stable_one_that_cannot_be_loaded() {
    let kept = Kept::new();
    let server = kept.trying(RULES);
    assert_eq!(order(&server, "promote", "").1["stable"], 2);
    drop(server);
    // A newer one that nobody has tried is there as well.
    let server = kept.server(&[(1, first()), (2, second().unfit()), (3, second())], RULES);
    let mut client = server.client();
    assert!((0..50).all(|user| answering(&mut client, &user.to_string()) == 1));
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!((&status(&server)["stable"], &status(&server)["candidate"]), (&2.into(), &Value::Null));
    drop(server);
    // Nothing was decided meanwhile, so it is stable again once it can be loaded.
    let server = kept.server(&[(1, first()), (2, second())], RULES);
    assert!((0..50).all(|user| answering(&mut server.client(), &user.to_string()) == 2));
}

#[test]
fn operators_start_promote_and_abort_and_are_told_what_cannot_be() {
    let kept = Kept::new();
    let server = kept.server(&[(1, first()), (2, second())], RULES);
    until("the first version", || (), || status(&server)["stable"] == 2);
    let refused = |wish: &str, body: &str, status: u16, reason: &str| {
        let (found, answer) = order(&server, wish, body);
        assert_eq!(found, status, "{answer}");
        assert!(answer["error"].as_str().expect("a reason").contains(reason), "{answer}");
    };
    refused("promote", "", 409, "no version is being tried");
    refused("abort", "", 409, "no version is being tried");
    refused("start", "{}", 400, "the body must be");
    refused("start", r#"{"version": 1, "share": 2}"#, 400, "share");
    refused("start", r#"{"version": 1, "share": 0.6}"#, 400, "at most 0.5");
    refused("start", r#"{"version": 2}"#, 409, "version 2 is stable already");
    refused("start", r#"{"version": 9}"#, 404, "no version 9");
    // An older one may be tried too, and a share may be its own.
    let (found, answer) = order(&server, "start", r#"{"version": 1, "share": 0.25}"#);
    assert_eq!(
        (found, &answer["candidate"]["version"], &answer["candidate"]["share"]),
        (200, &1.into(), &0.25.into())
    );
    let mut client = server.client();
    let tried = (0..400).filter(|user| answering(&mut client, &user.to_string()) == 1).count();
    assert!((60..140).contains(&tried), "{tried} of 400 users, with a share of a quarter");
    server.models.publish(MODEL, 3, first());
    refused("start", r#"{"version": 3}"#, 409, "version 1 is being tried");
    refused("abort", r#"{"version": 3}"#, 409, "version 1 is being tried");
    assert_eq!(order(&server, "abort", r#"{"version": 1}"#).0, 200);
    // The newest is tried by itself once the repository is looked at, and promoted whatever is known of it.
    server.order("load", "");
    until("the candidate", || (), || status(&server)["candidate"]["version"] == 3);
    let (found, answer) = order(&server, "promote", "");
    assert_eq!((found, &answer["stable"], &answer["refused"]), (200, &3.into(), &json!([1])));
    assert!((0..50).all(|user| answering(&mut client, &user.to_string()) == 3));
    // A version that cannot be loaded cannot be tried.
    server.models.publish(MODEL, 4, second().unfit());
    server.order("load", "");
    refused("start", r#"{"version": 4}"#, 409, "version 4 cannot be tried: it cannot be loaded");
    // What was refused is nothing to go back to in a hurry.
    assert_eq!(server.order("rollback", "").json()["current"], 2);
    server.order("promote", "");
    server.assert_healthy("all of this");
    assert_eq!(server.management().get("/models/nobody/rollout").status, 404);
}

#[test]
fn nothing_is_tried_while_an_operator_has_pinned_a_version() {
    let kept = Kept::new();
    let server = kept.server(&[(1, first()), (2, second())], RULES);
    until("the first version", || (), || status(&server)["stable"] == 2);
    server.models.publish(MODEL, 3, second());
    server.order("load", "");
    until("the candidate", || (), || status(&server)["candidate"]["version"] == 3);
    server.order("promote", r#"{"version": 1}"#);
    until("the withdrawal", || (), || status(&server)["candidate"] == Value::Null);
    server.assert_healthy("the pin");
    assert_eq!(order(&server, "start", r#"{"version": 3}"#).0, 409);
    server.order("promote", "");
    until("the candidate", || (), || status(&server)["candidate"]["version"] == 3);
    let withdrawn = kept.events();
    assert_eq!(withdrawn[1..3], [(Event::Entered, 3), (Event::Withdrawn, 3)], "{withdrawn:?}");
    assert_eq!(status(&server)["stable"], 2, "what was stable is again");
}

#[test]
fn a_shadow_is_sent_copies_answers_nobody_and_becomes_a_canary() {
    let kept = Kept::new();
    let rules = RULES.replace("canary", "shadow").replace("share = 0.5", "share = 1.0");
    let server = kept.server(&[(1, first())], &rules);
    until("the first version", || (), || status(&server)["stable"] == 1);
    server.models.publish(MODEL, 2, second());
    server.order("load", "");
    until("the candidate", || (), || status(&server)["candidate"]["stage"] == "shadow");
    let mut client = server.client();
    assert!((0..15).all(|user| answering(&mut client, &user.to_string()) == 1));
    let copied = || status(&server)["candidate"]["evidence"]["copied"].clone();
    until("the copies", || (), || copied()["rows"] == 15);
    let expected = f64::from((first().score("123", "456") - second().score("123", "456")).abs());
    let distance = copied()["distance"].as_f64().expect("a distance");
    assert!((distance - expected).abs() < 1e-4, "{distance} {expected}");
    assert!((15..25).all(|user| answering(&mut client, &user.to_string()) == 1));
    until("the canary", || (), || status(&server)["candidate"]["stage"] == "canary");
    let versions: BTreeSet<u64> = (0..50).map(|user| answering(&mut client, &user.to_string())).collect();
    assert_eq!(versions, [1, 2].into(), "a canary has half of the requests at most");
    assert_eq!(kept.events(), [(Event::Stable, 1), (Event::Entered, 2), (Event::Advanced, 2)]);
}

#[test]
fn a_server_whose_versions_enter_at_once_has_no_rollouts() {
    let server = Server::start();
    assert_eq!(server.management().get(&format!("/models/{MODEL}/rollout")).status, 404);
    let (status, answer) = order(&server, "promote", "");
    assert_eq!(status, 404, "{answer}");
}
