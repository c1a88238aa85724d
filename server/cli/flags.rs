//! What may stand on the command line. Flags come before `MILLRACE_...` variables, these before the configuration
//! file, and the file before the defaults.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use millrace::{
    config::RawConfig,
    repository::{ModelName, VersionNumber},
};

/// An inference server for ranking and recommendation models.
#[derive(Parser)]
#[command(version)]
pub(super) struct Flags {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Serve the models of a repository.
    Serve(Serve),
    /// Ask a running server about its models, or change which of their versions answer.
    Repo(Repo),
    /// Look at how new versions of a model are tried, or take part in that.
    Rollout(Rollout),
    /// Have a running server retrain a model now, as its configuration says.
    Retrain(Retrain),
    /// Look at a feedback log.
    Log(Log),
}

#[derive(Args)]
pub(super) struct Serve {
    /// The configuration file; docs/configuration.md lists its keys.
    #[arg(long, env = "MILLRACE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The address of the serving port [default: 127.0.0.1:8000].
    #[arg(long, env = "MILLRACE_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The address of the port for health, metrics and management [default: 127.0.0.1:8001].
    #[arg(long, env = "MILLRACE_MANAGEMENT_LISTEN", value_name = "ADDRESS")]
    management_listen: Option<SocketAddr>,
    /// The folder of the model repository [default: models].
    #[arg(long, env = "MILLRACE_MODELS_DIR", value_name = "FOLDER")]
    models_dir: Option<PathBuf>,
    /// The ONNX Runtime library; else `ORT_DYLIB_PATH`. deploy/onnxruntime.sh prints one.
    #[arg(long, env = "MILLRACE_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// The folder of TensorRT's libraries, for models with `engine = "tensorrt"`; `make tensorrt` prints one.
    #[arg(long, env = "MILLRACE_TENSORRT", value_name = "FOLDER")]
    tensorrt: Option<PathBuf>,
    /// The file with the keys of receipts; without one there are no receipts.
    #[arg(long, env = "MILLRACE_RECEIPT_KEYS", value_name = "FILE")]
    receipt_keys: Option<PathBuf>,
    /// The folder of the log of feedback; without one no feedback is taken.
    #[arg(long, env = "MILLRACE_FEEDBACK_DIR", value_name = "FOLDER")]
    feedback_dir: Option<PathBuf>,
    /// Threads that serve requests [default: one a core].
    #[arg(long, env = "MILLRACE_WORKER_THREADS", value_name = "N")]
    worker_threads: Option<usize>,
    /// How log lines look.
    #[arg(long, env = "MILLRACE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
    /// Which log lines are written: a level, or `target=level` pairs.
    #[arg(long, env = "MILLRACE_LOG", value_name = "FILTER", default_value = "info")]
    pub(super) log: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Which running server is meant.
#[derive(Args)]
pub(super) struct Management {
    /// The server's management port.
    #[arg(
        long,
        env = "MILLRACE_MANAGEMENT_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8001",
        global = true
    )]
    pub(super) management: SocketAddr,
}

#[derive(Args)]
pub(super) struct Repo {
    #[command(flatten)]
    pub(super) server: Management,
    #[command(subcommand)]
    pub(super) order: Order,
}

#[derive(Subcommand)]
pub(super) enum Order {
    /// List every model and version and its state.
    List,
    /// Look at the repository now, and try versions that failed again.
    Load {
        /// The model.
        model: ModelName,
    },
    /// Stop serving a model until it is loaded again.
    Unload {
        /// The model.
        model: ModelName,
    },
    /// Answer with the newest version that is older than the current one.
    Rollback {
        /// The model.
        model: ModelName,
    },
    /// Answer with a version from now on, or follow the repository's newest again.
    Promote {
        /// The model.
        model: ModelName,
        /// The version; without one, the policy of the configuration is followed again.
        version: Option<VersionNumber>,
    },
}

#[derive(Args)]
pub(super) struct Rollout {
    #[command(flatten)]
    pub(super) server: Management,
    #[command(subcommand)]
    pub(super) wish: Wish,
}

#[derive(Subcommand)]
pub(super) enum Wish {
    /// Show which version is stable, which one is tried, and what is known of both.
    Status {
        /// The model.
        model: ModelName,
    },
    /// Try a version, one that was refused before too.
    Start {
        /// The model.
        model: ModelName,
        /// The version.
        version: VersionNumber,
        /// How: `canary` answers some requests, `shadow` is only sent copies; without, as the configuration says.
        #[arg(long, value_parser = ["canary", "shadow"])]
        stage: Option<String>,
        /// The share of requests, up to 1; without, as the configuration says.
        #[arg(long)]
        share: Option<f64>,
    },
    /// Make the version that is tried the stable one, whatever is known of it.
    Promote {
        /// The model.
        model: ModelName,
        /// The version that is meant; refused where another is tried by now.
        version: Option<VersionNumber>,
    },
    /// Try the version no longer.
    Abort {
        /// The model.
        model: ModelName,
        /// The version that is meant; refused where another is tried by now.
        version: Option<VersionNumber>,
    },
}

#[derive(Args)]
pub(super) struct Retrain {
    #[command(flatten)]
    pub(super) server: Management,
    /// The model.
    pub(super) model: ModelName,
}

#[derive(Args)]
pub(super) struct Log {
    #[command(subcommand)]
    pub(super) look: Look,
}

#[derive(Subcommand)]
pub(super) enum Look {
    /// Read every segment, and say of each whether it is as it was written. Of a log that a server writes to, the last
    /// may seem torn.
    Verify {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// Count segments, bytes and records.
    Stats {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// Write all that is in it into a Parquet file, with the columns of a training log. A server that has the log open goes on,
    /// and what it is writing just then may be missing.
    Export {
        /// The folder of the log.
        dir: PathBuf,
        /// The file, which must not be there yet.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// The column that labels fill in with 1 or 0.
        #[arg(long, value_name = "COLUMN")]
        label_column: Option<String>,
        /// The column that the times of answers fill in where a record does not say when.
        #[arg(long, value_name = "COLUMN")]
        time_column: Option<String>,
    },
}

impl Serve {
    /// Puts what the flags say over what the file says.
    pub(super) fn over(&self, file: RawConfig) -> RawConfig {
        let from_ort = || std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
        RawConfig {
            listen: self.listen.or(file.listen),
            management_listen: self.management_listen.or(file.management_listen),
            models_dir: self.models_dir.clone().or(file.models_dir),
            onnxruntime: self.onnxruntime.clone().or(file.onnxruntime).or_else(from_ort),
            tensorrt: self.tensorrt.clone().or(file.tensorrt),
            receipt_keys: self.receipt_keys.clone().or(file.receipt_keys),
            feedback_dir: self.feedback_dir.clone().or(file.feedback_dir),
            feedback_export: file.feedback_export,
            worker_threads: self.worker_threads.or(file.worker_threads),
            cuda_cache_dir: file.cuda_cache_dir.or_else(cache_folder),
            ..file
        }
    }
}

/// Where the system keeps what can be made again.
///
/// Source: the XDG Base Directory Specification.
fn cache_folder() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    folder.map(|folder| folder.join("millrace"))
}

impl Wish {
    /// The method, path and body of the request that says it.
    pub(super) fn request(&self) -> (&'static str, String, String) {
        let path = |model: &ModelName, wish: &str| format!("/models/{model}/rollout{wish}");
        match self {
            Self::Status { model } => ("GET", path(model, ""), String::new()),
            Self::Start { model, version, stage, share } => {
                let body = serde_json::json!({ "version": version, "stage": stage, "share": share });
                ("POST", path(model, "/start"), body.to_string())
            }
            Self::Promote { model, version } => ("POST", path(model, "/promote"), meant(*version)),
            Self::Abort { model, version } => ("POST", path(model, "/abort"), meant(*version)),
        }
    }
}

/// The body that names a version, or none.
fn meant(version: Option<VersionNumber>) -> String {
    version.map_or_else(String::new, |version| format!("{{\"version\": {version}}}"))
}

impl Order {
    /// The method, path and body of the request that gives this order.
    pub(super) fn request(&self) -> (&'static str, String, String) {
        let post =
            |model: &ModelName, order: &str, body: String| ("POST", format!("/models/{model}/{order}"), body);
        match self {
            Self::List => ("GET", "/models".to_owned(), String::new()),
            Self::Load { model } => post(model, "load", String::new()),
            Self::Unload { model } => post(model, "unload", String::new()),
            Self::Rollback { model } => post(model, "rollback", String::new()),
            Self::Promote { model, version } => post(model, "promote", meant(*version)),
        }
    }
}
