//! Trains, judges and publishes the models that Millrace serves. The trainer meets the server in files only: it reads
//! logs, and it writes versions into the model repository.
//!
//! The modules in the order in which a run meets them:

pub mod config;

pub mod calendar;
pub mod progress;
pub mod random;
pub mod whole_file;

pub mod synth;

pub mod log;
pub mod split;

mod page;

pub mod explore;

pub mod purchases;

pub mod windows;

pub mod examples;

pub mod history;

mod quantiles;

pub mod fit;

pub mod model;

pub mod checkpoint;
pub mod train;

pub mod reference;

pub mod evaluate;
pub mod popularity;
pub mod ranking;

pub mod artifact;
pub mod check;
pub mod onnx;
pub mod onnx_file;
mod tower_files;

pub mod element_types;
pub mod half_precision;
pub mod precision;

pub mod engines;

pub mod gate;
pub mod publish;

pub mod pipeline;

pub mod mlflow;
pub mod report;
