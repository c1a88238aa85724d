//! A small synthetic shop and the pipelines that learn it: one from labels, one from the clicks alone.

use std::path::{Path, PathBuf};

use millrace_trainer::{
    checkpoint::CheckpointOptions,
    config::{GatesConfig, Pipeline},
    pipeline::{PipelineError, Run},
    publish::Publication,
    synth::{SynthLog, SynthOptions},
};
use tempfile::TempDir;
use time::OffsetDateTime;

/// A folder with a log and, once something is published, a repository.
pub(crate) struct Shop {
    folder: TempDir,
}

impl Shop {
    pub(crate) fn open() -> Self {
        let shop = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let options = SynthOptions { users: 200, items: 500, events: 24_000, ..SynthOptions::default() };
        SynthLog::draw(&options).write(&shop.log()).expect("written");
        shop
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log.parquet")
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    pub(crate) fn artifact(&self) -> PathBuf {
        self.folder.path().join("artifact")
    }

    /// Learns from labels, with gates that this little data can pass.
    pub(crate) fn labelled(&self) -> Pipeline {
        self.pipeline("label = \"clicked\"")
    }

    /// Learns next to nothing from labels.
    pub(crate) fn poor(&self) -> Pipeline {
        let mut pipeline = self.labelled();
        pipeline.gates.accuracy = 0.0;
        pipeline.model.epochs = 1;
        pipeline.model.mlp_rate = 1e-4;
        pipeline.model.wide_rate = 1e-4;
        pipeline.model.embedding_rate = 1e-4;
        pipeline
    }

    /// Takes each click for a purchase and draws negatives beside it.
    pub(crate) fn purchases(&self) -> Pipeline {
        self.pipeline("keep = [{ column = \"clicked\", above = 0 }]")
    }

    /// The same with what follows from the past of ids, learnt from two windows of five days.
    pub(crate) fn remembering(&self) -> Pipeline {
        let windows = "[examples]\nwindows = { days = 5, count = 2 }\n[features]";
        let text = TEXT.replace("[features]", &format!("{windows}\n{HISTORY}"));
        self.parse(&text.replace("# data", "keep = [{ column = \"clicked\", above = 0 }]"))
    }

    fn pipeline(&self, data: &str) -> Pipeline {
        self.parse(&TEXT.replace("# data", data))
    }

    fn parse(&self, text: &str) -> Pipeline {
        let mut pipeline = Pipeline::parse(text).expect("a pipeline");
        pipeline.publish.repository = self.repository();
        pipeline.gates = GatesConfig { accuracy: 0.7, max_latency_ms: 60_000.0, ..pipeline.gates };
        pipeline
    }
}

/// Trains and publishes; also what was said.
pub(crate) fn run(shop: &Shop, pipeline: &Pipeline) -> (Result<Publication, PipelineError>, Vec<String>) {
    let mut said = Vec::new();
    let result = with_run(shop, pipeline, &mut said, |run| {
        let artifact = run.train(&shop.artifact())?;
        run.publish(&artifact, OffsetDateTime::UNIX_EPOCH)
    });
    (result, said)
}

/// Does `work` with a run of `pipeline`.
pub(crate) fn with_run<T>(
    shop: &Shop,
    pipeline: &Pipeline,
    said: &mut Vec<String>,
    work: impl FnOnce(&mut Run<'_>) -> T,
) -> T {
    let (log, runtime) = (shop.log(), crate::runtime());
    let mut say = |line: &str| said.push(line.to_owned());
    let checkpoints = CheckpointOptions::default();
    work(&mut Run { pipeline, log: &log, runtime: &runtime, checkpoints, progress: &mut say })
}

/// Every file below `folder` with its contents, so that a test can say that nothing changed.
pub(crate) fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.push((path.clone(), Vec::new()));
            files.extend(contents(&path));
        } else {
            files.push((path.clone(), std::fs::read(&path).expect("readable")));
        }
    }
    files.sort();
    files
}

const HISTORY: &str = r#"
    history = [
      { name = "item_buyers", of = ["item_id"], measure = { buyers = { window_days = 10 } } },
      { name = "item_trend", of = ["item_id"], measure = { trend = { window_days = 5, base_days = 10 } } },
      { name = "pair_recency", of = ["user_id", "item_id"], measure = "recency" },
      { name = "alike", of = ["user_id", "item_id"], measure = { affinity = { neighbours = 20 } } },
    ]
"#;

/// The pipeline, without what is said of the data.
pub(crate) const TEXT: &str = r#"
    seed = 7

    [data]
    path = "log.parquet"
    user = "user_id"
    item = "item_id"
    time = "event_time"
    # data

    [split]
    test_fraction = 0.2

    [features]
    columns = [
      { name = "user_id", column = "user_id", encoding = { vocabulary = { minimum_count = 1 } } },
      { name = "item_id", column = "item_id", encoding = { vocabulary = { minimum_count = 1 } }, of = "item" },
    ]

    [model]
    embedding_dimension = 8
    hidden_units = [16]
    batch_rows = 512
    epochs = 12
    mlp_rate = 0.01

    [publish]
    repository = "replaced"
    model = "shop"
"#;
