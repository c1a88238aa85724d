//! Tells an MLflow tracking server of a run: what it was asked for, how each epoch went, what came of it, and the
//! version that was published, as a version of a registered model. Only where `MLFLOW_TRACKING_URI` names a server.
//!
//! ```text
//! run ─▶ tracker (hears of the run, as the terminal does) ─▶ client (REST) ─▶ server
//!           └─ parameters (pure): the pipeline's keys and values
//! ```

mod client;
mod parameters;
mod settings;
mod tracker;

pub use self::{
    client::ClientError,
    settings::{Settings, SettingsError},
    tracker::{End, TrackError, Tracker},
};
