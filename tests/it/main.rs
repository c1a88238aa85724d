//! The server as a whole, with ONNX Runtime behind it.
//!
//! | module | shows |
//! |---|---|
//! | `artifact` | versions of a model, made in a millisecond |
//! | `client`, `server` | a server in this process, and a client that sends what it is told to |
//! | `loader`, `repository` | versions on disk, and which of them are live |
//! | `predict` | good requests |
//! | `binary` | rows and scores as bytes |
//! | `recommend` | the best items of a catalogue |
//! | `receipts` | what an answer leaves with its caller |
//! | `feedback` | what comes back |
//! | `recomputation` | live quality, beside what the log comes to |
//! | `rollout` | new versions that are tried before they answer |
//! | `drift` | how far rows have moved |
//! | `retrain` | alerts, and the child that trains a model anew |
//! | `bad_input` | all others |
//! | `management` | operators and probes |
//! | `metrics` | what Prometheus scrapes |
//! | `swap` | versions exchanged under load |
//! | `process` | the program: its command line, its signals, its memory |
//! | `feedback_log` | the durable log, killed while it writes |
//! | `tidy` | the source tree: which module imports which, and what no file has |

mod artifact;
mod client;
mod server;

mod bad_input;
mod binary;
mod drift;
mod feedback;
mod feedback_log;
mod loader;
mod management;
mod metrics;
mod predict;
mod process;
mod receipts;
mod recommend;
mod recomputation;
mod repository;
mod retrain;
mod rollout;
mod swap;
mod tidy;

use std::{env, path::PathBuf};

use millrace::engine::OnnxRuntime;

/// The ONNX Runtime that the environment names, or else the one that `deploy/onnxruntime.sh` has fetched.
fn library() -> PathBuf {
    let named = ["MILLRACE_ONNXRUNTIME", "ORT_DYLIB_PATH"].into_iter().find_map(env::var_os);
    let fetched = || workspace().join("target/wheels/onnxruntime/1.32.0/libonnxruntime.so.1.32.0");
    let path = named.map_or_else(fetched, PathBuf::from);
    assert!(path.exists(), "there is no ONNX Runtime at {}: run deploy/onnxruntime.sh", path.display());
    path
}

fn runtime() -> OnnxRuntime {
    OnnxRuntime::load(&library()).expect("a usable ONNX Runtime")
}

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
