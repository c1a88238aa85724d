//! Engines of a trained version. What needs TensorRT's library is skipped aloud where it is not there, unless
//! `MILLRACE_TENSORRT_REQUIRED` is set, as `make tensorrt-check` does.

use std::fs;

use millrace_trainer::engines::{self, EngineOptions, EnginesError};

fn quiet() -> impl FnMut(&str) {
    |_line: &str| {}
}

#[cfg(not(feature = "tensorrt"))]
#[test]
fn without_the_feature_one_sentence_says_how_to_have_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error =
        engines::build(folder.path(), &EngineOptions::default(), &mut quiet()).expect_err("not built in");
    assert!(matches!(error, EnginesError::Feature));
    assert!(
        error.to_string().contains("cargo build --release -p millrace-trainer --features tensorrt"),
        "{error}"
    );
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[cfg(feature = "tensorrt")]
mod with_tensorrt {
    use std::{
        collections::BTreeMap,
        env,
        path::{Path, PathBuf},
    };

    use millrace::repository::manifest::Manifest;
    use millrace_trainer::{
        config::ModelConfig,
        engines::{Engines, ShapeRange, TensorRecord},
        model::{ModelShape, WideDeep},
        onnx, onnx_file,
        random::{Purpose, random},
    };
    use time::OffsetDateTime;

    use super::*;
    use crate::shop::{Shop, with_run};

    /// Options with the library, where it is there.
    fn options() -> Option<EngineOptions> {
        let fetched = || crate::workspace().join("target/wheels/onnxruntime-ep-nv-tensorrt-rtx-cu13/0.5.0");
        let libraries = env::var_os("MILLRACE_TENSORRT").map_or_else(fetched, PathBuf::from);
        if libraries.exists() {
            return Some(EngineOptions {
                libraries: Some(libraries),
                max_batch_rows: 1024,
                ..EngineOptions::default()
            });
        }
        let missing = format!("no TensorRT in {}: run `make tensorrt`", libraries.display());
        assert!(env::var_os("MILLRACE_TENSORRT_REQUIRED").is_none(), "{missing}");
        eprintln!("SKIPPED: {missing}");
        None
    }

    fn range(widths: i64) -> ShapeRange {
        ShapeRange { min: vec![1, widths], opt: vec![256, widths], max: vec![1024, widths] }
    }

    fn tensor(name: &str, dtype: &str, width: i64) -> TensorRecord {
        TensorRecord { name: name.into(), dtype: dtype.into(), shape: vec![-1, width] }
    }

    #[test]
    fn a_trained_version_gets_an_engine_with_its_record_and_is_published_with_both() {
        let Some(options) = options() else { return };
        let shop = Shop::open();
        let pipeline = shop.labelled();
        let (record, published) = with_run(&shop, &pipeline, &mut Vec::new(), |run| {
            let artifact = run.train(&shop.artifact()).expect("trained");
            let built = engines::build(&artifact.version(), &options, &mut quiet()).expect("built");
            let publication = run.publish(&artifact, OffsetDateTime::UNIX_EPOCH).expect("published");
            (built.engines, publication.published.expect("the gates let it").1)
        });
        assert_eq!(Engines::read(&published).expect("a record"), record);
        let [engine] = record.engines.as_slice() else { panic!("{record:?}") };
        assert_eq!(engine.file, "model.engine");
        assert_eq!(engine.inputs, [tensor("ids", "i32", 2)]);
        assert_eq!(engine.outputs, [tensor("probability", "f32", 1)]);
        assert_eq!(engine.profiles, [BTreeMap::from([("ids".to_owned(), range(2))])]);
        // What the record says of files is what the manifest says of them.
        let files = Manifest::record_files(&published).expect("recorded");
        assert_eq!(engine.record, files["model.engine"]);
        assert_eq!(engine.sources, BTreeMap::from([("model.onnx".to_owned(), files["model.onnx"].clone())]));
        assert!(files.contains_key(Engines::FILE), "{files:?}");
        let error = engines::build(&published, &options, &mut quiet()).expect_err("published");
        assert!(matches!(error, EnginesError::Published(_)), "{error}");
    }

    const EXTERNAL_FILE: &str = "model.onnx.data";

    const SCHEMA: &str = r#"
        [[feature]]
        name = "user"
        kind = "categorical"
        source = { hash = 60000 }
        [[feature]]
        name = "item"
        kind = "categorical"
        source = { hash = 100 }
        [[feature]]
        name = "price"
        kind = "numeric"
        mean = 10.0
        std = 4.0
    "#;

    /// A model with embeddings too large for the ONNX file, and with a dense value.
    fn export(folder: &Path) {
        let encoder = crate::encoder(SCHEMA);
        let mut draws = random(7, Purpose::Weights, 0);
        let model = WideDeep::new(ModelShape::of(&encoder), &ModelConfig::default(), 0.4, &mut draws);
        onnx::export(&model, None, folder, onnx_file::MAX_INLINE_BYTES).expect("exported");
    }

    #[test]
    fn tables_beside_the_model_are_found_and_recorded() {
        let Some(options) = options() else { return };
        let folder = tempfile::tempdir().expect("a temporary folder");
        export(folder.path());
        let built = engines::build(folder.path(), &options, &mut quiet()).expect("built");
        let [engine] = built.engines.engines.as_slice() else { panic!("{built:?}") };
        assert_eq!(engine.sources.keys().collect::<Vec<_>>(), ["model.onnx", EXTERNAL_FILE]);
        assert_eq!(engine.inputs, [tensor("ids", "i32", 2), tensor("dense", "f32", 1)]);
        let tables = engine.sources[EXTERNAL_FILE].bytes;
        assert!(engine.record.bytes > tables, "{} bytes hold no tables of {tables}", engine.record.bytes);
    }

    #[test]
    fn a_second_model_gets_an_engine_too_and_loses_it_with_its_file() {
        let Some(options) = options() else { return };
        let folder = tempfile::tempdir().expect("a temporary folder");
        export(folder.path());
        let second = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::copy(folder.path().join("model.onnx"), second.path()).expect("copied");
        let taken = EngineOptions { fp16_onnx: Some(second.path().to_path_buf()), ..options.clone() };
        let built = engines::build(folder.path(), &taken, &mut quiet()).expect("built");
        let files: Vec<_> = built.engines.engines.iter().map(|engine| engine.file.as_str()).collect();
        assert_eq!(files, ["model.engine", "model.fp16.engine"]);
        fs::remove_file(folder.path().join("model.fp16.onnx")).expect("removed");
        let built = engines::build(folder.path(), &options, &mut quiet()).expect("built");
        assert_eq!(built.engines.engines.len(), 1);
        assert!(!folder.path().join("model.fp16.engine").exists());
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = engines::build(folder.path(), &EngineOptions::default(), &mut quiet());
        assert!(error.expect_err("no folder").to_string().contains("`make tensorrt`"));
        let elsewhere = EngineOptions { libraries: Some(folder.path().into()), ..EngineOptions::default() };
        let error =
            engines::build(folder.path(), &elsewhere, &mut quiet()).expect_err("no library").to_string();
        assert!(
            error.starts_with("there is no TensorRT library in ") && error.contains("`make tensorrt`"),
            "{error}"
        );
        let Some(options) = options() else { return };
        let error = engines::build(folder.path(), &options, &mut quiet()).expect_err("no model").to_string();
        assert!(error.ends_with("there is no model.onnx"), "{error}");
        // An H200's, which TensorRT-RTX builds nothing for.
        let hopper = EngineOptions { compute_capabilities: vec!["9.0".into()], ..options };
        let error = engines::build(folder.path(), &hopper, &mut quiet()).expect_err("unknown").to_string();
        let expected = "9.0 is no compute capability that TensorRT-RTX builds for; \
                        7.5, 8.0, 8.6, 8.9, 12.0, 12.1 are";
        assert_eq!(error, expected);
    }
}
