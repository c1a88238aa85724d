//! Millrace, an inference server for ranking and recommendation models.
//!
//! The modules in the order in which a request meets them: [`app`] starts everything, [`workers`] serve; [`http`] listens and routes;
//! [`codec`] and [`features`] turn a body into a model's inputs; the version that answers comes from the
//! [`repository`], where a new one may be tried by a [`rollout`]; its [`batcher`] joins requests and its [`engine`] computes them;
//! [`recommend`] searches a whole catalogue for the best items. [`drift`] says how far rows have moved away from those of the
//! training, [`feedback`] is how labels come back to answers, and [`retrain`] what happens where
//! they say that a model is not good enough. [`metrics`] count what happens,
//! [`quality`] measures how good scores are, for the trainer too. [`pace`] keeps work that can wait to a share of the machine.

pub mod app;
pub mod config;
pub mod pace;
pub mod workers;

pub mod http;

pub mod codec;
pub mod features;

pub mod rollout;

pub mod repository;

pub mod batcher;
pub mod recommend;

pub mod engine;
pub mod tensor;

pub mod drift;
pub mod feedback;
pub mod retrain;

pub mod metrics;
pub mod quality;

/// The git revision that this build was made from; `unknown` outside a checkout.
pub const REVISION: &str = env!("MILLRACE_REVISION");
