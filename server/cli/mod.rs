//! The command line: `millrace serve`; `millrace repo`, `millrace rollout` and `millrace retrain` for operators of a running server;
//! and `millrace log` for the feedback that one has kept.
//! `millrace log` for the feedback that one has kept.

mod feedback_log;
mod flags;
mod log;
mod management;
mod repo;
mod retrain;
mod rollout;
mod serve;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;

use self::flags::{Command, Flags};

/// Does what the command line says; 0 where that succeeded, 1 where it failed, 2 where it made no sense.
pub(crate) fn run() -> ExitCode {
    let done = match Flags::parse().command {
        Command::Serve(flags) => serve::run(&flags),
        Command::Repo(flags) => repo::run(&flags),
        Command::Rollout(flags) => rollout::run(&flags),
        Command::Retrain(flags) => retrain::run(&flags),
        Command::Log(flags) => feedback_log::run(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The alternate form puts the causes on the same line.
            let _ = writeln!(io::stderr(), "millrace: {error:#}");
            ExitCode::FAILURE
        }
    }
}
