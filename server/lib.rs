//! Millrace.
pub mod batcher;
pub mod codec;
pub mod config;
pub mod engine;
pub mod features;
pub mod metrics;
pub mod quality;
pub mod repository;
pub mod tensor;

/// The git revision that this build was made from; `unknown` outside a checkout.
pub const REVISION: &str = env!("MILLRACE_REVISION");
