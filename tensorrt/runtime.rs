//! What reads engines: their headers anywhere, the engines themselves where there is a GPU that they are for.

use std::{
    ffi::c_void,
    fmt,
    ptr::{self, NonNull},
    sync::Arc,
};

use crate::{
    Engine, Error, Logger,
    sys::{self, call},
};

/// Reads engines. Clones are the same runtime.
#[derive(Clone, Debug)]
pub struct Runtime(Arc<Shared>);

/// What an engine's header says of it, as far as this machine lets the library judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The verdict.
    pub verdict: Verdict,
    /// The reasons, as TensorRT-RTX's bits.
    diagnostics: u64,
}

/// Whether an engine can run on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can.
    Valid,
    /// It can, but not as well as one that is built anew.
    Suboptimal,
    /// It cannot, for the [reasons](Validity::reasons).
    Invalid,
    /// It begins as an engine does, and that is all: without a GPU that works, TensorRT-RTX 1.7 refuses every engine
    /// without a reason, before it has compared so much as the version.
    Unjudged,
}

impl Validity {
    /// `verdict` and `diagnostics` as the library writes them.
    fn new(verdict: i32, diagnostics: u64) -> Self {
        let verdict = match (verdict, diagnostics) {
            (0, _) => Verdict::Valid,
            (1, _) => Verdict::Suboptimal,
            (_, 0 | CUDA) => Verdict::Unjudged,
            _ => Verdict::Invalid,
        };
        Self { verdict, diagnostics }
    }

    /// What is no engine, whatever the machine.
    fn malformed() -> Self {
        Self { verdict: Verdict::Invalid, diagnostics: MALFORMED }
    }

    /// Whether only this machine is against it: its GPU, its memory or its driver, and nothing in the engine.
    pub fn is_for_other_gpus(self) -> bool {
        self.verdict == Verdict::Invalid && self.diagnostics & (VERSION | MALFORMED) == 0
    }

    /// The reasons against it, in words.
    pub fn reasons(self) -> impl Iterator<Item = &'static str> {
        REASONS.iter().filter(move |(bit, _)| self.diagnostics & bit != 0).map(|(_, words)| *words)
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            Verdict::Valid => f.write_str("valid"),
            Verdict::Suboptimal => f.write_str("valid, but better built anew"),
            Verdict::Unjudged => f.write_str("an engine that cannot be judged without a GPU"),
            Verdict::Invalid => write!(f, "invalid: {}", self.reasons().collect::<Vec<_>>().join(", ")),
        }
    }
}

const VERSION: u64 = 1;
const MALFORMED: u64 = 1 << 5;
const CUDA: u64 = 1 << 6;
/// TensorRT-RTX's `EngineInvalidityDiagnostics`.
const REASONS: &[(u64, &str)] = &[
    (VERSION, "it was built by another version"),
    (1 << 1, "it was not built for this GPU's compute capability"),
    (1 << 2, "the CUDA driver is too old"),
    (1 << 3, "the CUDA runtime is too old"),
    (1 << 4, "the GPU has too little memory for it"),
    (MALFORMED, "it is no engine"),
    (CUDA, "there is no GPU, or its driver does not work"),
];

impl Runtime {
    /// A runtime. With TensorRT-RTX it needs no GPU.
    pub fn new(logger: &Logger) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        let factory = Some(logger.library().runtime_factory());
        // SAFETY: The factory is the library's, whose version fits this shim; the logger is this shim's, and the
        // runtime holds it; `raw` is this frame's.
        let status = unsafe { call!(logger.shim(), runtime_create(factory, logger.raw(), &raw mut raw)) };
        logger.outcome(status, "make a runtime")?;
        let raw = NonNull::new(raw).expect("what was made is somewhere");
        Ok(Self(Arc::new(Shared { raw, logger: logger.clone() })))
    }

    /// Bytes at the start of an engine that [`Runtime::engine_validity`] needs. For TensorRT-RTX alone.
    pub fn engine_header_bytes(&self) -> Result<usize, Error> {
        let mut bytes = 0;
        // SAFETY: The runtime is alive; `bytes` is this frame's.
        let status = unsafe { call!(self.shim(), header_bytes(self.raw(), &raw mut bytes)) };
        self.logger().outcome(status, "know an engine by its header")?;
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// What the start of an engine says of it. For TensorRT-RTX alone.
    pub fn engine_validity(&self, engine: &[u8]) -> Result<Validity, Error> {
        let needed = self.engine_header_bytes()?;
        if engine.len() < needed {
            return Ok(Validity::malformed());
        }
        let (mut verdict, mut diagnostics) = (0, 0);
        // SAFETY: The runtime is alive, there are as many bytes as it reads, and the results are this frame's.
        let status = unsafe {
            call!(
                self.shim(),
                validity(
                    self.raw(),
                    engine.as_ptr().cast::<c_void>(),
                    engine.len() as u64,
                    &raw mut verdict,
                    &raw mut diagnostics,
                )
            )
        };
        self.logger().outcome(status, "judge an engine by its header")?;
        Ok(Validity::new(verdict, diagnostics))
    }

    /// The engine that was serialised as `engine`. Needs a GPU that it was built for.
    ///
    /// TensorRT trusts the bytes: they must be an engine from a source that may run code here.
    pub fn deserialize(&self, engine: &[u8]) -> Result<Engine, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: The runtime is alive, and may be called by several threads; the bytes are only read, and copied;
        // `raw` is this frame's.
        let status = unsafe {
            call!(
                self.shim(),
                deserialize(self.raw(), engine.as_ptr().cast::<c_void>(), engine.len() as u64, &raw mut raw)
            )
        };
        self.logger().outcome(status, "read the engine, which needs a GPU that it was built for")?;
        // SAFETY: It was made just now and is nobody else's.
        Ok(unsafe { Engine::from_raw(raw, self.clone()) })
    }

    pub(crate) fn logger(&self) -> &Logger {
        &self.0.logger
    }

    pub(crate) fn shim(&self) -> &'static sys::trt_shim {
        self.0.logger.shim()
    }

    fn raw(&self) -> *mut sys::trt_runtime {
        self.0.raw.as_ptr()
    }
}

#[derive(Debug)]
struct Shared {
    raw: NonNull<sys::trt_runtime>,
    logger: Logger,
}

// SAFETY: TensorRT lets several threads use one runtime.
unsafe impl Send for Shared {}
// SAFETY: As above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: It was made by this shim and is destroyed here alone; its engines have gone, since each holds a
        // clone of the runtime.
        unsafe { call!(self.logger.shim(), runtime_destroy(self.raw.as_ptr())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_reason_is_no_judgement() {
        for (verdict, diagnostics, expected) in [
            (0, 0, Verdict::Valid),
            (1, 0, Verdict::Suboptimal),
            (2, 0, Verdict::Unjudged),
            (2, CUDA, Verdict::Unjudged),
            (2, CUDA | 1, Verdict::Invalid),
            (2, MALFORMED, Verdict::Invalid),
        ] {
            assert_eq!(Validity::new(verdict, diagnostics).verdict, expected, "{verdict} {diagnostics}");
        }
        assert!(Validity::new(2, 1 << 1).is_for_other_gpus());
        assert!(!Validity::new(2, MALFORMED).is_for_other_gpus());
        let both = Validity::new(2, 1 | 1 << 1);
        assert!(!both.is_for_other_gpus());
        let expected =
            "invalid: it was built by another version, it was not built for this GPU's compute capability";
        assert_eq!(both.to_string(), expected);
    }
}
