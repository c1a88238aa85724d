//! The models on disk and the versions that are live.
//!
//! ```text
//! models/ ─▶ watcher ─▶ policy (pure): what to load, what to unload, which version answers
//!               │
//!               ├─▶ loader ─▶ manifest, features, engines, golden rows, warm-up ─▶ version
//!               │      (a model with rollouts goes by its standing: a new version is tried before it answers all)
//!               ├─▶ slots: swap; requests see the new version from here on
//!               └─▶ reaper: drops the old one after its last request
//! ```

mod choice;
mod engines;
pub mod golden;
mod layout;
mod loader;
pub mod manifest;
mod policy;
pub mod prebuilt;
mod reaper;
pub mod reference;
mod slots;
mod standing;
mod trial;
mod version;
mod watcher;

pub use self::{
    choice::{Because, Choice, EngineKind, EngineWish, Tried, choose},
    layout::{Layout, ModelName, NameError, Stage, VersionNumber, sync, sync_folder},
    loader::{Beside, LoadError, Loader},
    policy::{Observed, Plan, Policy},
    reaper::{Reaped, Reaper, ReaperThread},
    slots::{Live, Slots},
    standing::{Candidate, NoShare, Share, Standing, TrialStage},
    trial::{Copies, CopyRoom, Tallied, Tally, Trial},
    version::Version,
    watcher::{ModelStatus, Obeyed, Repository, Request, RequestError, VersionState, VersionStatus, Watcher},
};
