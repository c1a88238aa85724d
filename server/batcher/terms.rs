//! What a request wants besides its scores.

use std::time::Instant;

/// What a request wants besides its scores.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// When the scores would come too late.
    pub deadline: Instant,
    /// What goes before it, and what after.
    pub priority: Priority,
}

/// Which requests go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Before all others.
    High,
    /// Unless somebody says otherwise.
    #[default]
    Normal,
    /// When nothing else is to be done.
    Low,
}
