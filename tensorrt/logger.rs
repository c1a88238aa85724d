//! Where TensorRT's messages go: to `tracing`, or to a function. The last errors are kept besides, since a call of
//! TensorRT's says only in the log why it failed.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::{self, NonNull},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
};

use crate::{
    Error, Library,
    sys::{self, Failure, call},
};

/// Takes TensorRT's messages. Clones are the same logger; objects made with it keep it.
#[derive(Clone)]
pub struct Logger(Arc<Shared>);

/// How bad a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LoggerSeverity {
    /// TensorRT itself is broken.
    InternalError = 0,
    /// Something failed.
    Error = 1,
    /// Something was put right.
    Warning = 2,
    /// What happens.
    Info = 3,
    /// All the rest.
    Verbose = 4,
}

impl Logger {
    /// A logger that forwards to `tracing`, from warnings on.
    pub fn new(library: &Library) -> Result<Self, Error> {
        Self::with(library, forward)
    }

    /// A logger that calls `write`, from warnings on. TensorRT calls it from threads of its own as well; a panic in it
    /// is caught and loses the message.
    pub fn with(
        library: &Library,
        write: impl Fn(LoggerSeverity, &str) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let sink = Box::new(Sink {
            threshold: AtomicI32::new(LoggerSeverity::Warning as i32),
            write: Box::new(write),
            errors: Mutex::new(Vec::new()),
        });
        let context = ptr::from_ref::<Sink>(&sink).cast_mut().cast::<c_void>();
        let mut raw = ptr::null_mut();
        let shim = library.shim();
        // SAFETY: `receive` is callable from any thread with this context, which `Shared` keeps until the logger is
        // destroyed; `raw` is this frame's.
        let status = unsafe { call!(shim, logger_create(Some(receive), context, &raw mut raw)) };
        let refused = |failure| match failure {
            Failure::Refused(reason) => Error::Refused { what: "make a logger", reason },
            Failure::Absent => Error::Absent { what: "a logger", flavour: library.flavour() },
        };
        sys::outcome(shim, status).map_err(refused)?;
        let raw = NonNull::new(raw).expect("what was made is somewhere");
        Ok(Self(Arc::new(Shared { raw, sink, library: library.clone() })))
    }

    /// From now on takes messages that are at least this bad.
    #[must_use]
    pub fn severity(self, severity: LoggerSeverity) -> Self {
        self.0.sink.threshold.store(severity as i32, Ordering::Relaxed);
        self
    }

    /// The library whose messages it takes.
    pub fn library(&self) -> &Library {
        &self.0.library
    }

    pub(crate) fn shim(&self) -> &'static sys::trt_shim {
        self.0.library.shim()
    }

    pub(crate) fn raw(&self) -> *mut sys::trt_logger {
        self.0.raw.as_ptr()
    }

    /// The outcome of a call that has just returned `status` on this thread. The reason of a refusal is what was
    /// logged since the one before; where several threads share a logger, it may be another thread's.
    pub(crate) fn outcome(&self, status: sys::trt_status, what: &'static str) -> Result<(), Error> {
        let reason = match sys::outcome(self.shim(), status) {
            Ok(()) => return Ok(()),
            Err(Failure::Absent) => {
                return Err(Error::Absent { what, flavour: self.library().flavour() });
            }
            Err(Failure::Refused(reason)) => reason,
        };
        let mut reasons = self.0.sink.take_errors();
        reasons.extend((!reason.is_empty()).then_some(reason));
        if reasons.is_empty() {
            reasons.push("it does not say why".to_owned());
        }
        Err(Error::Refused { what, reason: reasons.join("; ") })
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a logger of {:?}", self.library())
    }
}

struct Shared {
    raw: NonNull<sys::trt_logger>,
    /// Boxed, since the shim's logger knows its address.
    sink: Box<Sink>,
    library: Library,
}

// SAFETY: TensorRT calls loggers from any thread, so the shim's is made for that: it only calls `receive`, whose sink
// is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: As above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: It was made by this shim, is destroyed here alone, and every object that was made with it has gone,
        // since each holds a clone of the logger.
        unsafe { call!(self.library.shim(), logger_destroy(self.raw.as_ptr())) }
    }
}

struct Sink {
    threshold: AtomicI32,
    write: Box<Write>,
    /// The last errors that no failed call has taken yet.
    errors: Mutex<Vec<String>>,
}

type Write = dyn Fn(LoggerSeverity, &str) + Send + Sync;

impl Sink {
    fn receive(&self, severity: LoggerSeverity, message: &str) {
        if severity <= LoggerSeverity::Error {
            let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            if errors.len() == ERRORS {
                errors.remove(0);
            }
            errors.push(message.to_owned());
        }
        if severity as i32 <= self.threshold.load(Ordering::Relaxed) {
            (self.write)(severity, message);
        }
    }

    fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Errors that a logger keeps.
const ERRORS: usize = 8;

/// What the shim's logger calls.
unsafe extern "C" fn receive(context: *mut c_void, severity: c_int, message: *const c_char) {
    // SAFETY: The context is the sink that the logger was made with, which outlives it; no one has it mutably.
    let sink = unsafe { &*context.cast::<Sink>() };
    // SAFETY: TensorRT's messages end with a NUL and live through the call.
    let message = unsafe { CStr::from_ptr(message) };
    let severity = match severity {
        0 => LoggerSeverity::InternalError,
        1 => LoggerSeverity::Error,
        2 => LoggerSeverity::Warning,
        3 => LoggerSeverity::Info,
        _ => LoggerSeverity::Verbose,
    };
    // A panic must not unwind into C++. The panic's own message has been printed.
    let _ = catch_unwind(AssertUnwindSafe(|| sink.receive(severity, &message.to_string_lossy())));
}

fn forward(severity: LoggerSeverity, message: &str) {
    match severity {
        LoggerSeverity::InternalError | LoggerSeverity::Error => {
            tracing::error!(target: "tensorrt", "{message}");
        }
        LoggerSeverity::Warning => tracing::warn!(target: "tensorrt", "{message}"),
        LoggerSeverity::Info => tracing::info!(target: "tensorrt", "{message}"),
        LoggerSeverity::Verbose => tracing::debug!(target: "tensorrt", "{message}"),
    }
}
