//! Features whose values are lists, from a log to an answered request.

use std::{error::Error, fmt::Write, fs};

use millrace::{
    codec::json,
    engine::Engine,
    features::Value,
    repository::{golden::Golden, manifest::Manifest},
    tensor::Rows,
};
use millrace_trainer::{
    artifact::Artifact,
    calendar,
    check::Opened,
    checkpoint::CheckpointOptions,
    config::Pipeline,
    pipeline::{PipelineError, Run},
    random::{Purpose, random},
};
use rand::{Rng, seq::IndexedRandom};
use tempfile::TempDir;
use time::OffsetDateTime;

const GENRES: [&str; 8] = ["drama", "war", "comedy", "crime", "opera", "7", "western", "silent"];

/// Users have a favourite genre, and like nine films in ten that are of it and one in ten that is not. No film is shown
/// twice, so its genres are all that can be known of it.
fn log() -> String {
    let mut draws = random(7, Purpose::Events, 0);
    let mut text = "user_id,item_id,at,genres,liked\n".to_owned();
    for event in 0..12_000 {
        let user = draws.random_range(0..40_usize);
        let count = draws.random_range(0..=4);
        let genres: Vec<&str> = GENRES.choose_multiple(&mut draws, count).copied().collect();
        let liked = genres.contains(&GENRES[user % 8]) == draws.random_bool(0.9);
        let (at, liked) = (calendar::format(event * 3600), u8::from(liked));
        writeln!(text, "{user},f{event},{at},{},{liked}", genres.join("|")).expect("memory takes it");
    }
    text
}

const PIPELINE: &str = r#"
    seed = 7
    data = { path = "log.csv", user = "user_id", item = "item_id", time = "at", label = "liked" }
    split = { test_fraction = 0.2 }
    gates = { accuracy = 0.8 }
    publish = { repository = "replaced", model = "films" }

    [features]
    columns = [
      { name = "user_id", column = "user_id", encoding = { vocabulary = { minimum_count = 1 } } },
      { name = "genres", column = "genres", encoding = { vocabulary = { minimum_count = 1 } }, of = "item",
        values = { max = 4, pooling = "mean", separator = "|" } },
      { name = "genres_summed", from = "genres", encoding = { hash = { buckets = 64 } } },
    ]

    [model]
    embedding_dimension = 8
    cross_layers = 1
    hidden_units = [32]
    batch_rows = 256
    epochs = 8
    mlp_rate = 0.01
    embedding_rate = 0.1

    [export]
    fp16 = true
"#;

struct Films {
    folder: TempDir,
    pipeline: Pipeline,
}

impl Films {
    fn open(pipeline: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("log.csv"), log()).expect("written");
        let mut pipeline = Pipeline::parse(pipeline).expect("a pipeline");
        pipeline.publish.repository = folder.path().join("models");
        Self { folder, pipeline }
    }

    fn run<T>(&self, work: impl FnOnce(&mut Run<'_>) -> T) -> T {
        let (log, runtime) = (self.folder.path().join("log.csv"), crate::runtime());
        let mut say = |_: &str| {};
        work(&mut Run {
            pipeline: &self.pipeline,
            log: &log,
            runtime: &runtime,
            checkpoints: CheckpointOptions::default(),
            progress: &mut say,
        })
    }

    fn train(&self) -> Result<Artifact, PipelineError> {
        self.run(|run| run.train(&self.folder.path().join("artifact")))
    }
}

#[test]
fn what_lists_say_is_learnt_published_and_answered_to_a_request() {
    let films = Films::open(PIPELINE);
    let artifact = films.train().expect("trained");
    let metrics = &artifact.summary.metrics;
    // Who knows the truth orders nine pairs in ten.
    assert!(metrics["auc"] > 0.85, "{metrics:#?}");
    assert!((metrics["fp16_auc"] - metrics["auc"]).abs() < 2e-3, "{metrics:#?}");
    let lists = artifact
        .holdout
        .input
        .iter()
        .filter(|row| matches!(&row[1], Value::List(genres) if genres.len() > 1));
    assert!(lists.count() > 1000);

    let publication = films.run(|run| run.publish(&artifact, OffsetDateTime::UNIX_EPOCH)).expect("a run");
    let (_, folder) = publication.published.expect("published");
    let schema = fs::read_to_string(folder.join(Manifest::FEATURES).join("schema.toml")).expect("a schema");
    assert!(schema.contains("max = 4") && schema.contains("pooling = \"mean\""), "{schema}");

    // The rows of the proof, sent as JSON.
    let golden = Golden::read(&folder).expect("golden rows");
    let mut opened = Opened::open(&crate::runtime(), &folder).expect("opened");
    let mut rows = Rows::new(opened.encoder.signature());
    let body = serde_json::json!({ "input": golden.input }).to_string();
    json::decode(body.as_bytes(), &opened.encoder, &mut rows, 100).expect("rows");
    golden.check(&mut opened.engine, &rows).expect("the same answers");
    let mut answer = |input: &str| {
        let mut rows = Rows::new(opened.encoder.signature());
        json::decode(input.as_bytes(), &opened.encoder, &mut rows, 100).expect("rows");
        let mut scores = Vec::new();
        opened.engine.run(&rows, &mut scores).expect("scores");
        scores
    };
    // User 5 likes genre 7, which is an id that looks like a number.
    let scores = answer(
        r#"{"input": [[5, [7, "war"]], {"user_id": "5", "genres": ["war", "7"]}, [5, 7], [5, "7"], [5, []], [5, null],
            [5, "war"]]}"#,
    );
    let near = |one: f32, other: f32| assert!((one - other).abs() < 1e-6, "{scores:?}");
    near(scores[0], scores[1]);
    near(scores[2], scores[3]);
    near(scores[4], scores[5]);
    assert!(scores[0] > 0.7 && scores[2] > 0.7 && scores[4] < 0.3 && scores[6] < 0.3, "{scores:?}");
}

#[test]
fn a_cross_or_a_history_of_a_list_is_refused_by_name() {
    let refusal = |addition: &str| {
        let text = PIPELINE.replace("    [model]", &format!("{addition}\n    [model]"));
        let error = Pipeline::parse(&text).expect_err(addition);
        error.source().map(ToString::to_string).unwrap_or_default()
    };
    assert_eq!(
        refusal("crosses = [{ features = [\"user_id\", \"genres\"], buckets = 64 }]"),
        "cross: `genres` is a list"
    );
    let history = "history = [{ name = \"age\", of = [\"genres\"], measure = \"age\" }]\n\
                   [examples]\nwindows = { days = 1, count = 2 }";
    assert_eq!(refusal(history), "history: `genres` is no feature with a vocabulary, or takes lists");
}
