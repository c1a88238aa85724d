//! Retraining: a child process that trains a model anew, when its alert, the clock, an Alertmanager or an operator asks for it.

mod policy;

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

pub use self::policy::{Asker, Limits, Refusal, Situation};

/// What trains a model anew, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrainOptions {
    /// A program and its arguments, one at least.
    pub command: Vec<String>,
    /// The folder that it runs in.
    pub dir: PathBuf,
    /// Whether the model's alert starts it.
    pub on_alert: bool,
    /// How often.
    pub limits: Limits,
    /// How long it may take.
    pub timeout: Duration,
    /// The private memory that each of its processes may have.
    pub max_memory_bytes: Option<NonZeroU64>,
    /// How far it stands behind others where processors are short: 0 to 19.
    pub nice: u8,
    /// The file that forbids it while it is there.
    pub kill_switch: PathBuf,
}
