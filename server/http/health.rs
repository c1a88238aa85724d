//! What probes ask. `livez` says that the process answers at all; `readyz` that it should get requests: the
//! repository was looked at, a model serves, and the server is not stopping.
//!
//! A version that cannot be loaded makes no server unready: what was live before it still is.

use std::sync::atomic::{AtomicBool, Ordering};

use super::error::HttpError;
use crate::repository::Repository;

/// Whether a server is about to stop. Set once, `shutdown_delay` before its serving port closes, so that whoever
/// balances the load has that time to look elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Stopping(AtomicBool);

impl Stopping {
    /// From now on the server is not ready.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether the server should get requests, or else why not.
pub(super) fn ready(repository: &Repository, stopping: &Stopping) -> Result<(), HttpError> {
    if stopping.is_set() {
        return Err(HttpError::NotReady("the server is stopping"));
    }
    let models = repository.status().ok_or(HttpError::NotReady("the models are being loaded"))?;
    if models.iter().any(|model| model.current.is_some()) {
        Ok(())
    } else {
        Err(HttpError::NotReady("no model serves"))
    }
}
