//! Opens the engines of a version: those that the configuration asks for, each checked against the golden rows and warmed
//! up for every batch size, and of several the one to serve with.

use std::{fmt, num::NonZeroUsize, path::PathBuf};

use super::{
    LoadError, Reaper,
    choice::{Choice, EngineKind, Tried, choose},
    golden::Golden,
    manifest::Manifest,
};
use crate::{
    batcher::Lane,
    config::ModelOptions,
    engine::{
        BatchCost, Engine, OnnxEngine, OnnxRuntime,
        cuda::{Cuda, CudaModel, CudaModelOptions},
        ladder, warm_up,
    },
    tensor::Rows,
};

/// A version whose engines are to be opened.
pub(super) struct Opening<'a> {
    pub(super) runtime: &'a OnnxRuntime,
    pub(super) cuda: &'a Cuda,
    pub(super) reaper: &'a Reaper,
    /// The model's file.
    pub(super) model: PathBuf,
    pub(super) manifest: &'a Manifest,
    pub(super) golden: &'a Golden,
    /// The golden rows in the model's input layout.
    pub(super) rows: &'a Rows,
    pub(super) options: &'a ModelOptions,
}

/// The engine to serve with, and what it takes to open more of them.
pub(super) struct Opened {
    pub(super) engine: Box<dyn Engine>,
    /// What its batches cost.
    pub(super) costs: Vec<BatchCost>,
    pub(super) choice: Choice,
    source: Source,
}

/// What engines are opened of.
enum Source {
    OnnxCpu,
    Cuda(CudaModel),
}

/// An engine that was tried and can serve.
struct Candidate {
    engine: Box<dyn Engine>,
    costs: Vec<BatchCost>,
    source: Source,
}

impl Opening<'_> {
    /// Tries the engines that the configuration asks for, and keeps the one to serve with. Where none can, the error is that
    /// of the first.
    pub(super) fn open(&self) -> Result<Opened, LoadError> {
        let wish = self.options.engine;
        let candidates = wish.candidates().iter().map(|&kind| (kind, self.try_out(kind)));
        let mut candidates: Vec<_> = candidates.collect();
        let tried: Vec<_> = candidates.iter().map(tried).collect();
        let choice = choose(wish, &tried);
        let is_chosen =
            |(kind, _): &(EngineKind, _)| choice.as_ref().is_none_or(|choice| choice.engine == *kind);
        let place = candidates.iter().position(is_chosen).expect("at least one was tried");
        let Candidate { engine, costs, source } = candidates.swap_remove(place).1?;
        Ok(Opened { engine, costs, choice: choice.unwrap_or_default(), source })
    }

    /// Another engine of the kind that serves.
    pub(super) fn another(&self, opened: &Opened) -> Result<Box<dyn Engine>, LoadError> {
        self.ready(&opened.source).map(|(engine, _)| engine)
    }

    fn try_out(&self, kind: EngineKind) -> Result<Candidate, LoadError> {
        let source = match kind {
            EngineKind::OnnxCpu => Source::OnnxCpu,
            EngineKind::Cuda => Source::Cuda(self.load_to_gpu()?),
        };
        let (engine, costs) = self.ready(&source)?;
        Ok(Candidate { engine, costs, source })
    }

    fn load_to_gpu(&self) -> Result<CudaModel, LoadError> {
        let options = CudaModelOptions {
            precision: self.options.cuda_precision,
            max_rows: self.options.batching.max_batch_rows,
            slots: self.options.instances.unwrap_or(CUDA_SLOTS),
        };
        Ok(self.cuda.load(&self.model, &self.manifest.signature, options)?)
    }

    /// An engine that has answered the golden rows and is warm. Whoever lets go of it leaves it to the reaper.
    fn ready(&self, source: &Source) -> Result<(Box<dyn Engine>, Vec<BatchCost>), LoadError> {
        let mut engine: Box<dyn Engine> = match source {
            Source::OnnxCpu => {
                Box::new(OnnxEngine::open(self.runtime, &self.model, &self.manifest.signature)?)
            }
            Source::Cuda(model) => Box::new(model.open()?),
        };
        self.golden.check(&mut *engine, self.rows)?;
        let ladder = ladder(self.options.batching.max_batch_rows.get());
        let costs = warm_up(&mut *engine, self.rows, &ladder)?;
        Ok((Box::new(self.reaper.wrap(engine)), costs))
    }
}

impl Opened {
    /// The lane and the number of engines, where the configuration leaves them open and the engine decides them: a GPU has
    /// threads that wait for it, so that no thread which serves does.
    pub(super) fn defaults(&self) -> Option<(Lane, NonZeroUsize)> {
        match self.source {
            Source::OnnxCpu => None,
            Source::Cuda(_) => Some((Lane::Threaded, CUDA_SLOTS)),
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.choice.engine.name())?;
        match &self.source {
            Source::OnnxCpu => Ok(()),
            Source::Cuda(model) => {
                write!(f, " ({}, {} precision)", model.description(), model.precision().name())
            }
        }
    }
}

fn tried((kind, candidate): &(EngineKind, Result<Candidate, LoadError>)) -> Tried {
    let cost = match candidate {
        Ok(candidate) => Ok(candidate.costs.last().map(|cost| cost.duration).unwrap_or_default()),
        Err(error) => Err(in_words(error)),
    };
    (*kind, cost)
}

/// An error and what it comes from, in one line.
fn in_words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Slots of a version on a GPU, unless somebody says otherwise: one computes while the other's batch comes and goes.
const CUDA_SLOTS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");
