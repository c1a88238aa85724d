//! The trainer as a whole, with ONNX Runtime behind it: what is exported, what is published, what a run comes to.

mod adult;
mod encoding;
mod engines;
mod evaluate;
mod explore;
mod export;
mod feedback;
mod graphs;
mod half;
mod kill;
mod lists;
mod mlflow;
mod networks;
mod pipeline;
mod publish;
mod recommend;
mod retail;
mod rules;
mod shop;
mod site;
mod towers;
mod tracking_server;
#[cfg(feature = "tract")]
mod tract;

use std::{env, path::PathBuf};

use millrace::{
    engine::OnnxRuntime,
    features::{Encoder, Schema, Vocabulary},
};

fn runtime() -> OnnxRuntime {
    OnnxRuntime::load(&runtime_file()).expect("a usable ONNX Runtime")
}

/// The ONNX Runtime that the environment names, or else the one that `deploy/onnxruntime.sh` has fetched.
fn runtime_file() -> PathBuf {
    let named = ["MILLRACE_ONNXRUNTIME", "ORT_DYLIB_PATH"].into_iter().find_map(env::var_os);
    let fetched = || workspace().join("target/wheels/onnxruntime/1.32.0/libonnxruntime.so.1.32.0");
    let path = named.map_or_else(fetched, PathBuf::from);
    assert!(path.exists(), "there is no ONNX Runtime at {}: run deploy/onnxruntime.sh", path.display());
    path
}

/// The encoder of a schema without vocabularies.
fn encoder(schema: &str) -> Encoder {
    let schema: Schema = toml::from_str(schema).expect("a schema");
    Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout")
}

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
