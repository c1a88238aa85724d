//! What callers tell of how predictions turned out.

pub mod log;
