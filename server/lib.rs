//! Millrace.
pub mod engine;
pub mod features;
pub mod quality;
pub mod repository;
pub mod tensor;
