//! What makes engines from networks. Needs no GPU where the library is TensorRT-RTX.

use std::{
    ffi::CString,
    fmt,
    marker::PhantomData,
    ptr::{self, NonNull},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Error, HostMemory, Library, Logger, Network, Profile, Range,
    sys::{self, call},
};

/// Makes networks and engines. Clones are the same builder; calls from several threads wait for one another.
#[derive(Clone, Debug)]
pub struct Builder(Arc<Shared>);

/// How an engine is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuilderConfig {
    /// The shapes that it is for. Needed where an input has a size that is known only when the engine runs.
    pub profiles: Vec<Profile>,
    /// The GPUs that it is for, with TensorRT-RTX; where there are none, the library's choice. TensorRT itself builds
    /// for the GPU of the machine, and refuses a choice.
    pub compute_capabilities: Vec<ComputeCapability>,
    /// Whether products of F32 may be computed with the 10-bit fractions of TF32.
    pub tf32: bool,
}

impl Default for BuilderConfig {
    /// No profile, the library's choice of GPUs, and TF32 off: scores are compared with those of other engines.
    fn default() -> Self {
        Self { profiles: Vec::new(), compute_capabilities: Vec::new(), tf32: false }
    }
}

/// A generation of GPUs that TensorRT-RTX makes engines for, as CUDA counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum ComputeCapability {
    /// 7.5, Turing.
    Sm75 = 75,
    /// 8.0, Ampere for data centres.
    Sm80 = 80,
    /// 8.6, Ampere.
    Sm86 = 86,
    /// 8.9, Ada.
    Sm89 = 89,
    /// 12.0, Blackwell.
    Sm120 = 120,
    /// 12.1, Blackwell.
    Sm121 = 121,
}

impl ComputeCapability {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Sm75, Self::Sm80, Self::Sm86, Self::Sm89, Self::Sm120, Self::Sm121];
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = *self as i32;
        write!(f, "{}.{}", number / 10, number % 10)
    }
}

impl Builder {
    /// A builder.
    pub fn new(logger: &Logger) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        let factory = Some(logger.library().builder_factory());
        // SAFETY: The factory is the library's, whose version fits this shim; the logger is this shim's, and the
        // builder holds it; `raw` is this frame's.
        let status = unsafe { call!(logger.shim(), builder_create(factory, logger.raw(), &raw mut raw)) };
        logger.outcome(status, "make a builder")?;
        let raw = NonNull::new(raw).expect("what was made is somewhere");
        Ok(Self(Arc::new(Shared { raw, turn: Mutex::new(()), logger: logger.clone() })))
    }

    /// A network without layers, for a parser to fill.
    pub(crate) fn create_network(&self) -> Result<NonNull<sys::trt_network>, Error> {
        let mut raw = ptr::null_mut();
        let _turn = self.turn();
        // SAFETY: The builder is alive and this thread's turn; `raw` is this frame's.
        let status = unsafe { call!(self.shim(), network_create(self.raw(), &raw mut raw)) };
        self.logger().outcome(status, "make a network")?;
        Ok(NonNull::new(raw).expect("what was made is somewhere"))
    }

    /// An engine, serialised. Takes from a fraction of a second up to minutes.
    pub fn build_serialized_network(
        &self,
        network: &Network,
        config: &BuilderConfig,
    ) -> Result<HostMemory, Error> {
        assert!(Arc::ptr_eq(&self.0, &network.builder().0), "the network is of another builder");
        let turn = self.turn();
        let settings = Settings::new(self, &turn, config)?;
        let mut raw = ptr::null_mut();
        // SAFETY: All three are alive, are of this builder, and it is this thread's turn; `raw` is this frame's.
        let status = unsafe {
            call!(self.shim(), build(self.raw(), network.raw(), settings.raw.as_ptr(), &raw mut raw))
        };
        self.logger().outcome(status, "build the engine")?;
        // SAFETY: It was made just now and is nobody else's.
        Ok(unsafe { HostMemory::from_raw(raw, self.logger().clone()) })
    }

    /// The library that it is of.
    pub fn library(&self) -> &Library {
        self.logger().library()
    }

    /// Waits until no other thread calls the builder or what was made by it: TensorRT lets one thread at a time.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn logger(&self) -> &Logger {
        &self.0.logger
    }

    pub(crate) fn shim(&self) -> &'static sys::trt_shim {
        self.0.logger.shim()
    }

    fn raw(&self) -> *mut sys::trt_builder {
        self.0.raw.as_ptr()
    }
}

#[derive(Debug)]
struct Shared {
    raw: NonNull<sys::trt_builder>,
    turn: Mutex<()>,
    logger: Logger,
}

// SAFETY: A builder is tied to no thread, and is called by one at a time: whoever calls it holds `turn`.
unsafe impl Send for Shared {}
// SAFETY: As above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: It was made by this shim and is destroyed here alone; what was made by it has gone, since each of
        // those holds a clone of the builder.
        unsafe { call!(self.logger.shim(), builder_destroy(self.raw.as_ptr())) }
    }
}

/// TensorRT's own form of a [`BuilderConfig`], for the length of one build.
struct Settings<'a> {
    raw: NonNull<sys::trt_config>,
    builder: &'a Builder,
    _turn: PhantomData<&'a MutexGuard<'a, ()>>,
}

impl<'a> Settings<'a> {
    fn new(
        builder: &'a Builder,
        _turn: &'a MutexGuard<'a, ()>,
        config: &BuilderConfig,
    ) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: The builder is alive and this thread's turn; `raw` is this frame's.
        let status = unsafe { call!(builder.shim(), config_create(builder.raw(), &raw mut raw)) };
        builder.logger().outcome(status, "make a builder's configuration")?;
        let raw = NonNull::new(raw).expect("what was made is somewhere");
        let settings = Self { raw, builder, _turn: PhantomData };
        settings.set_tf32(config.tf32)?;
        if !config.compute_capabilities.is_empty() {
            settings.set_compute_capabilities(&config.compute_capabilities)?;
        }
        config.profiles.iter().try_for_each(|profile| settings.add(profile))?;
        Ok(settings)
    }

    fn set_tf32(&self, allowed: bool) -> Result<(), Error> {
        // SAFETY: The configuration is alive and this thread's turn.
        let status =
            unsafe { call!(self.builder.shim(), config_set_tf32(self.raw.as_ptr(), allowed.into())) };
        self.builder.logger().outcome(status, "choose the precision")
    }

    fn set_compute_capabilities(&self, capabilities: &[ComputeCapability]) -> Result<(), Error> {
        let numbers: Vec<i32> = capabilities.iter().map(|&capability| capability as i32).collect();
        let count = numbers.len().try_into().unwrap_or(i32::MAX);
        // SAFETY: The configuration is alive and this thread's turn; the numbers are `count` and are only read.
        let status = unsafe {
            call!(
                self.builder.shim(),
                config_set_compute_capabilities(self.raw.as_ptr(), numbers.as_ptr(), count)
            )
        };
        self.builder.logger().outcome(status, "choose GPUs to build for")
    }

    fn add(&self, profile: &Profile) -> Result<(), Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: The builder is alive and this thread's turn; `raw` is this frame's. The builder keeps the profile.
        let status = unsafe { call!(self.builder.shim(), profile_create(self.builder.raw(), &raw mut raw)) };
        self.builder.logger().outcome(status, "make a profile")?;
        for (input, range) in &profile.ranges {
            self.set(raw, input, *range)?;
        }
        // SAFETY: Both are alive, are of one builder, and it is this thread's turn.
        let status = unsafe { call!(self.builder.shim(), config_add_profile(self.raw.as_ptr(), raw)) };
        self.builder.logger().outcome(status, "use the profile")
    }

    fn set(&self, profile: *mut sys::trt_profile, input: &str, range: Range) -> Result<(), Error> {
        let input = CString::new(input).map_err(|_| Error::Name(input.to_owned()))?;
        let [min, opt, max] = [range.min, range.opt, range.max].map(crate::Dims::raw);
        // SAFETY: The profile is alive, its builder holding it, and it is this thread's turn; the rest is only read.
        let status = unsafe {
            call!(
                self.builder.shim(),
                profile_set(profile, input.as_ptr(), &raw const min, &raw const opt, &raw const max)
            )
        };
        self.builder.logger().outcome(status, "take the shapes of a profile")
    }
}

impl Drop for Settings<'_> {
    fn drop(&mut self) {
        // SAFETY: It was made by this shim, is destroyed here alone, and it is this thread's turn still.
        unsafe { call!(self.builder.shim(), config_destroy(self.raw.as_ptr())) }
    }
}
