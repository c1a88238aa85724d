//! The loader: what a version must be before anybody sees it, and what it is then.

use std::{
    fs,
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use millrace::{
    batcher::{Lane, Priority, Terms},
    config::{ModelOptions, RawConfig},
    engine::{
        cuda::{Cuda, CudaOptions},
        tensorrt::TensorRt,
    },
    features::{RawValue, Value},
    metrics::Metrics,
    repository::{
        Because, Beside, EngineKind, EngineWish, Layout, LoadError, Loader, ModelName, Reaper, ReaperThread,
        Version, VersionNumber,
        golden::Golden,
        manifest::{Manifest, ManifestError},
    },
    tensor::Rows,
};

use crate::{
    artifact::{Artifact, Models, TABLE},
    runtime,
};

const BIAS: f32 = 0.25;

fn shop() -> ModelName {
    "shop".parse().expect("a name")
}

/// A repository with version 1 of the model, and its folder.
fn published() -> (Models, std::path::PathBuf) {
    let models = Models::new();
    let folder = models.publish("shop", 1, Artifact::with_bias(BIAS));
    (models, folder)
}

fn loader(models: &Models) -> (Loader, ReaperThread) {
    let (reaper, thread) = Reaper::new();
    let (layout, metrics) = (Layout::new(models.path()), Metrics::new("test"));
    let workers = NonZeroUsize::MIN;
    let cuda = Arc::new(Cuda::new(CudaOptions::default()));
    let tensorrt = Arc::new(TensorRt::new(None));
    (Loader { layout, runtime: runtime(), cuda, tensorrt, metrics, reaper, workers }, thread)
}

fn options() -> ModelOptions {
    RawConfig::default().parse().expect("the defaults").defaults
}

fn load(models: &Models) -> Result<Version, LoadError> {
    loader(models).0.load(&shop(), VersionNumber::FIRST, &options(), Beside::Nothing)
}

/// The error and what it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn score(version: &Version, user: &str, item: &str) -> f32 {
    let mut rows = Rows::new(version.encoder().signature());
    let row = [RawValue::Text(user), RawValue::Text(item)];
    version.encoder().encode(row.into_iter(), &mut rows).expect("two ids");
    let terms = Terms { deadline: Instant::now() + Duration::from_hours(1), priority: Priority::Normal };
    version.batcher().score(&rows, terms).await.expect("a score")[0]
}

#[test]
fn a_version_is_what_its_files_say() {
    let (models, folder) = published();
    let version = load(&models).expect("a fit version");
    assert_eq!(version.number(), VersionNumber::FIRST);
    assert_eq!(*version.manifest(), Manifest::read(&folder, &shop(), VersionNumber::FIRST).expect("there"));
    assert_eq!(version.encoder().width(), 2);
    assert_eq!(version.example(), [Value::Int(123), Value::Int(456)]);
    assert_eq!(version.request_timeout(), options().request_timeout);
}

#[test]
fn a_version_that_is_not_there_is_absent() {
    let error = load(&Models::new()).err().expect("there is none");
    assert!(matches!(error, LoadError::Absent), "{error}");
}

/// What is done to the files of a version.
type Damage = fn(&Path);

/// Damage that the manifest's hashes tell.
#[test]
fn a_version_whose_files_are_not_those_that_were_published_is_refused() {
    let cases: [(Damage, &str); 4] = [
        (
            |folder| fs::remove_file(folder.join(Manifest::FILE)).expect("removed"),
            "manifest.toml: cannot be read",
        ),
        (
            |folder| fs::remove_file(folder.join(Golden::FILE)).expect("removed"),
            "golden.json: cannot be read",
        ),
        (|folder| fs::write(folder.join(Manifest::MODEL), "half").expect("written"), "model.onnx: its size"),
        (swap_two_users, "features/user_id.vocabulary: its SHA-256"),
    ];
    for (damage, expected) in cases {
        let (models, folder) = published();
        damage(&folder);
        let error = chain(&load(&models).err().expect(expected));
        assert!(error.starts_with(expected), "{error}");
    }
}

/// Damage that was done before publishing, so that every hash fits.
#[test]
fn a_version_that_was_published_broken_is_refused() {
    let cases: [(Damage, &str); 5] = [
        (
            |folder| fs::remove_file(folder.join(Golden::FILE)).expect("removed"),
            "golden.json: cannot be read",
        ),
        (|folder| fs::write(folder.join(Manifest::MODEL), "half").expect("written"), "ONNX Runtime: "),
        (swap_two_users, "golden row 0: scored"),
        (
            |folder| fs::remove_file(folder.join("features/item_id.vocabulary")).expect("removed"),
            "features/: item_id.vocabulary: cannot be read",
        ),
        (
            |folder| {
                let schema =
                    r#"feature = [{ name = "item_id", kind = "categorical", source = "vocabulary" }]"#;
                fs::write(folder.join("features/schema.toml"), schema).expect("written");
            },
            "the features do not make the inputs",
        ),
    ];
    for (damage, expected) in cases {
        let (models, folder) = published();
        damage(&folder);
        let mut manifest = Manifest::read(&folder, &shop(), VersionNumber::FIRST).expect("there");
        manifest.files = Manifest::record_files(&folder).expect("recorded");
        manifest.write(&folder).expect("written");
        let error = chain(&load(&models).err().expect(expected));
        assert!(error.starts_with(expected), "{error}");
    }
}

fn swap_two_users(folder: &Path) {
    let path = folder.join("features/user_id.vocabulary");
    let ids = fs::read_to_string(&path).expect("there");
    fs::write(&path, ids.replacen("123\n456\n", "456\n123\n", 1)).expect("written");
}

#[tokio::test]
async fn a_table_beside_the_model_is_read_and_a_file_for_other_engines_let_be() {
    let models = Models::new();
    let artifact = Artifact::with_bias(BIAS).with_table_beside();
    let folder = models.publish("shop", 1, artifact);
    let version = load(&models).expect("a fit version");
    assert!(version.manifest().files.contains_key(TABLE));
    let (found, expected) = (score(&version, "123", "456").await, artifact.score("123", "456"));
    assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    drop(version);
    let table = folder.join(TABLE);
    let mut bytes = fs::read(&table).expect("there");
    *bytes.last_mut().expect("weights") ^= 1;
    fs::write(&table, bytes).expect("written");
    let error = chain(&load(&models).err().expect("changed"));
    assert_eq!(error, "model.onnx.data: its SHA-256 is not the manifest's");
}

#[test]
fn a_manifest_that_promises_another_model_than_there_is_is_refused() {
    let (models, folder) = published();
    let mut manifest = Manifest::read(&folder, &shop(), VersionNumber::FIRST).expect("there");
    manifest.model = "other".parse().expect("a name");
    manifest.write(&folder).expect("written");
    let error = load(&models).err().expect("misplaced");
    assert!(matches!(error, LoadError::Manifest(ManifestError::Misplaced { .. })), "{error}");
}

#[test]
fn what_happened_to_a_version_is_counted() {
    let (models, folder) = published();
    let (loader, _thread) = loader(&models);
    loader.load(&shop(), VersionNumber::FIRST, &options(), Beside::Nothing).map(drop).expect("fit");
    fs::remove_file(folder.join(Manifest::MODEL)).expect("removed");
    loader.load(&shop(), VersionNumber::FIRST, &options(), Beside::Nothing).map(drop).expect_err("unfit");
    let text = loader.metrics.render();
    for line in [
        r#"millrace_model_loads_total{model="shop",result="ok"} 1"#,
        r#"millrace_model_loads_total{model="shop",result="failed"} 1"#,
        r#"millrace_version_quality{model="shop",version="1",measure="auc"} 0.75"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn every_batch_size_of_the_ladder_is_warmed_up_and_its_cost_published() {
    let (models, _) = published();
    let (loader, _thread) = loader(&models);
    let mut options = options();
    options.batching.max_batch_rows = 100.try_into().expect("above zero");
    let _version =
        loader.load(&shop(), VersionNumber::FIRST, &options, Beside::Nothing).map(Arc::new).expect("fit");
    let text = loader.metrics.render();
    for rows in [1, 4, 16, 64, 100] {
        let start = format!("millrace_batch_cost_seconds{{model=\"shop\",version=\"1\",rows=\"{rows}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start)).expect("a cost for each size");
        assert!(line.parse::<f64>().expect("a number") > 0.0, "{rows}: {line}");
    }
}

#[tokio::test]
async fn the_lane_follows_from_the_cost_unless_it_is_set_and_both_answer() {
    let (models, _) = published();
    let cases = [
        (None, Duration::MAX, "inline"),
        (None, Duration::ZERO, "threaded"),
        (Some(Lane::Inline), Duration::ZERO, "inline"),
        (Some(Lane::Threaded), Duration::MAX, "threaded"),
    ];
    for (lane, inline_budget, expected) in cases {
        let (loader, _thread) = loader(&models);
        let options = ModelOptions { lane, inline_budget, ..options() };
        let version = loader.load(&shop(), VersionNumber::FIRST, &options, Beside::Nothing).expect("fit");
        let line = format!("millrace_lane_info{{model=\"shop\",version=\"1\",lane=\"{expected}\"}} 1");
        assert!(loader.metrics.render().contains(&line), "{line}");
        let found = score(&version, "789", "85123A").await;
        let distance = (found - Artifact::with_bias(BIAS).score("789", "85123A")).abs();
        assert!(distance < 1e-6, "{found}");
    }
}

/// Where there is no GPU, and the model of these tests is none that our own engine computes.
#[test]
fn an_engine_that_cannot_be_had_is_a_failure_where_it_is_asked_for_and_a_reason_where_it_is_not() {
    let (models, _) = published();
    let load = |engine| {
        let (loader, thread) = loader(&models);
        let options = ModelOptions { engine, ..options() };
        let version = loader.load(&shop(), VersionNumber::FIRST, &options, Beside::Nothing);
        drop(thread);
        (version, loader.metrics.render())
    };
    let error = load(EngineWish::Cuda).0.err().expect("nothing falls back");
    assert!(error.to_string().starts_with("CUDA cannot "), "{error}");
    // This library of ONNX Runtime is one without CUDA.
    let error = load(EngineWish::OnnxCuda).0.err().expect("nothing falls back");
    assert!(error.to_string().contains("CUDA execution provider"), "{error}");

    let choices = [(EngineWish::Auto, Because::Only), (EngineWish::OnnxCpu, Because::Configured)];
    for (wish, because) in choices {
        let (version, metrics) = load(wish);
        let choice = version.expect("fit").choice().clone();
        assert_eq!((choice.engine, choice.because), (EngineKind::OnnxCpu, because));
        let says_why = choice.reason.contains("cuda cannot serve it (CUDA cannot ");
        assert_eq!(says_why, wish == EngineWish::Auto, "{}", choice.reason);
        let says_both = choice.reason.contains("onnx-cuda cannot serve it (");
        assert_eq!(says_both, wish == EngineWish::Auto, "{}", choice.reason);
        let line = format!("engine=\"onnx-cpu\",because=\"{}\"}} 1", because.name());
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_dropped_version_leaves_everything_to_the_reaper_and_its_threads_end() {
    let (models, _) = published();
    let (loader, reaper) = loader(&models);
    let instances = NonZeroUsize::new(2);
    let options = ModelOptions { lane: Some(Lane::Threaded), instances, ..options() };
    let version = loader.load(&shop(), VersionNumber::FIRST, &options, Beside::Nothing).expect("fit");
    score(&version, "123", "456").await;
    drop((version, loader));
    // Ends only with the last of what it has to drop: the features and each thread's engine.
    reaper.run();
}
