//! The models on disk.

pub mod golden;
mod layout;
pub mod manifest;

pub use self::layout::{Layout, ModelName, NameError, VersionNumber};
