//! `millrace serve`: a server from its flags to its end by a signal.

use std::process;

use anyhow::Context;
use millrace::{
    app::{App, StartError},
    config::RawConfig,
    engine::EngineError,
};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{flags::Serve, log};

/// Serves until the process is told to stop; an error if it could not start, or had to leave requests unanswered.
pub(super) fn run(flags: &Serve) -> anyhow::Result<()> {
    log::start(flags.log_format, &flags.log)?;
    let file = flags.config.as_deref().map_or_else(|| Ok(RawConfig::default()), RawConfig::read)?;
    let config = flags.over(file).parse()?;
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("a runtime for signals")?;
    // Caught from before the start on, so that no early signal ends the process without a drain.
    let (mut interrupt, mut terminate) = runtime.block_on(async { signals() }).context("signals")?;
    let app = App::start(&config).map_err(advise)?;
    runtime.block_on(either(&mut interrupt, &mut terminate));
    tracing::info!(timeout = ?config.drain_timeout, "stopping; a second signal stops at once");
    std::thread::spawn(move || {
        runtime.block_on(either(&mut interrupt, &mut terminate));
        process::exit(IMPATIENT);
    });
    if app.stop() { Ok(()) } else { anyhow::bail!("requests were left unanswered after the drain timeout") }
}

fn signals() -> std::io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
}

/// Adds the command that mends what a first start lacks most often.
fn advise(error: StartError) -> anyhow::Error {
    let advice = match &error {
        StartError::Engine(EngineError::Library { .. }) => {
            "name the library with --onnxruntime, MILLRACE_ONNXRUNTIME or ORT_DYLIB_PATH; deploy/onnxruntime.sh \
             fetches one and prints its path"
        }
        StartError::Models { .. } => "name the folder with --models-dir or MILLRACE_MODELS_DIR",
        _ => return error.into(),
    };
    anyhow::anyhow!("{:#}; {advice}", anyhow::Error::new(error))
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// The exit status after a second signal.
const IMPATIENT: i32 = 130;
