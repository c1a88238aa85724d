//! Where TensorRT's messages go: to `tracing`, or to a function.
//!
//! TensorRT has one logger a process. Whatever a builder or a runtime is made with, it goes on calling the first as
//! long as any of them is alive. So each library that is opened gets one of the shim's loggers, which is never freed,
//! and a [`Logger`] only listens to it.
//!
//! A call of TensorRT's says only in the log why it failed, so the errors that a thread logs are kept until its call
//! has returned.

use std::{
    cell::RefCell,
    ffi::{CStr, c_char, c_int, c_void},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::{self, NonNull},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicI32, Ordering},
    },
};

use crate::{
    Error, Library,
    sys::{self, Failure, call},
};

/// Listens to the messages of a library. Clones are the same logger; objects made with it keep it. Several loggers of
/// one library hear the same messages, since TensorRT does not say whose they are.
#[derive(Clone)]
pub struct Logger(Arc<Shared>);

struct Shared {
    listener: Arc<Listener>,
    source: &'static Source,
    library: Library,
}

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
        let source = Source::of(library)?;
        let threshold = AtomicI32::new(LoggerSeverity::Warning as i32);
        let listener = Arc::new(Listener { threshold, write: Box::new(write) });
        source.listeners.add(&listener);
        Ok(Self(Arc::new(Shared { listener, source, library: library.clone() })))
    }

    /// From now on takes messages that are at least this bad.
    #[must_use]
    pub fn severity(self, severity: LoggerSeverity) -> Self {
        self.0.listener.threshold.store(severity as i32, Ordering::Relaxed);
        self
    }

    /// The library whose messages it takes.
    pub fn library(&self) -> &Library {
        &self.0.library
    }

    pub(crate) fn shim(&self) -> &'static sys::trt_shim {
        self.0.library.shim()
    }

    /// The shim's logger, which is never freed.
    pub(crate) fn raw(&self) -> *mut sys::trt_logger {
        self.0.source.raw.as_ptr()
    }

    /// The outcome of a call that has just returned `status` on this thread. The reason of a refusal is what this
    /// thread has logged during the call; what TensorRT's own threads log goes to the listeners alone.
    pub(crate) fn outcome(&self, status: sys::trt_status, what: &'static str) -> Result<(), Error> {
        // Taken whatever came of the call, so that none is held against the next.
        let mut reasons = ERRORS.with_borrow_mut(std::mem::take);
        match sys::outcome(self.shim(), status) {
            Ok(()) => Ok(()),
            Err(Failure::Absent) => Err(Error::Absent { what, flavour: self.library().flavour() }),
            Err(Failure::Refused(reason)) => {
                reasons.extend((!reason.is_empty()).then_some(reason));
                reasons.dedup();
                if reasons.is_empty() {
                    reasons.push("it does not say why".to_owned());
                }
                Err(Error::Refused { what, reason: reasons.join("; ") })
            }
        }
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a logger of {:?}", self.library())
    }
}

/// Who takes messages, and which.
struct Listener {
    threshold: AtomicI32,
    write: Box<Write>,
}

type Write = dyn Fn(LoggerSeverity, &str) + Send + Sync;

impl Listener {
    fn hear(&self, severity: LoggerSeverity, message: &str) {
        if severity as i32 <= self.threshold.load(Ordering::Relaxed) {
            // A panic must not unwind into C++. The panic's own message has been printed.
            let _ = catch_unwind(AssertUnwindSafe(|| (self.write)(severity, message)));
        }
    }
}

/// The listeners of a library. Those that are gone are cleared away when one is added.
#[derive(Default)]
struct Listeners(Mutex<Vec<Weak<Listener>>>);

impl Listeners {
    fn add(&self, listener: &Arc<Listener>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|listener| listener.strong_count() > 0);
        all.push(Arc::downgrade(listener));
    }

    /// Those that are there, without the lock: a listener may make or drop loggers.
    fn there(&self) -> Vec<Arc<Listener>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Where a library's messages come from.
struct Source {
    raw: NonNull<sys::trt_logger>,
    listeners: &'static Listeners,
}

// SAFETY: TensorRT calls loggers from any thread, so the shim's is made for that: it only calls `receive`, whose
// listeners are `Sync`.
unsafe impl Send for Source {}
// SAFETY: As above.
unsafe impl Sync for Source {}

impl Source {
    /// The one of `library`, made the first time that it is asked for.
    ///
    /// A library stays mapped as long as the process lives, so that the address of its factory is its own for ever,
    /// and there are no more of these than libraries that were opened.
    fn of(library: &Library) -> Result<&'static Self, Error> {
        static ALL: Mutex<Vec<(usize, &Source)>> = Mutex::new(Vec::new());
        let address = library.builder_factory() as usize;
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, source)) = all.iter().find(|(found, _)| *found == address) {
            return Ok(source);
        }
        let source: &'static Self = Box::leak(Box::new(Self::new(library)?));
        all.push((address, source));
        Ok(source)
    }

    fn new(library: &Library) -> Result<Self, Error> {
        let listeners: &'static Listeners = Box::leak(Box::default());
        let context = ptr::from_ref(listeners).cast_mut().cast::<c_void>();
        let mut raw = ptr::null_mut();
        let shim = library.shim();
        // SAFETY: `receive` is callable from any thread with this context, which is there for ever; `raw` is this
        // frame's.
        let status = unsafe { call!(shim, logger_create(Some(receive), context, &raw mut raw)) };
        let what = "make a logger";
        sys::outcome(shim, status).map_err(|failure| match failure {
            Failure::Refused(reason) => Error::Refused { what, reason },
            Failure::Absent => Error::Absent { what, flavour: library.flavour() },
        })?;
        Ok(Self { raw: NonNull::new(raw).expect("what was made is somewhere"), listeners })
    }
}

thread_local! {
    /// The last errors of the call that this thread is in.
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Errors that are kept of a call.
const MAX_ERRORS: usize = 8;

/// What the shim's logger calls.
unsafe extern "C" fn receive(context: *mut c_void, severity: c_int, message: *const c_char) {
    // SAFETY: The context is the listeners that the logger was made with, which are there for ever and shared alone.
    let listeners = unsafe { &*context.cast::<Listeners>() };
    // SAFETY: TensorRT's messages end with a NUL and live through the call.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    let severity = match severity {
        0 => LoggerSeverity::InternalError,
        1 => LoggerSeverity::Error,
        2 => LoggerSeverity::Warning,
        3 => LoggerSeverity::Info,
        _ => LoggerSeverity::Verbose,
    };
    if severity <= LoggerSeverity::Error {
        // A thread that ends may log after its errors are gone.
        let _ = ERRORS.try_with(|errors| keep(&mut errors.borrow_mut(), &message));
    }
    for listener in listeners.there() {
        listener.hear(severity, &message);
    }
}

fn keep(errors: &mut Vec<String>, message: &str) {
    if errors.len() == MAX_ERRORS {
        errors.remove(0);
    }
    errors.push(message.to_owned());
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
