//! A GPU by CUDA's driver: the calls themselves, and nothing that remembers more than what was opened.
//!
//! The driver, NVRTC and cuBLASLt are opened when a device is. Memory is plain, streams do not wait for others, and nothing
//! here records events, which a capture must not hold. A layer is a product by cuBLASLt with bias and `ReLU` as its
//! epilogue or, where the rows are few, a kernel of our own. Which of all these does it is measured when a product of that
//! shape is first asked for, before it is captured, and kept for later slots.

use std::{
    collections::HashMap,
    ffi::{CString, c_void},
    ptr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cudarc::{
    cublaslt::{result as cublaslt, sys as cublaslt_sys},
    driver::{
        CudaContext,
        result::{self, DriverError},
        sys,
    },
};

use super::{
    CudaOptions,
    blas::{self, Algorithm, Descriptors},
    compiler::Compiler,
    device::{
        Address, Argument, Description, Device, DeviceError, Graph, HostAddress, Launch, MeasuredProduct,
        Product, ProductShape, Stream, WARP, signed,
    },
};
use crate::engine::EngineError;

/// Whether every library can be opened that is needed in any case.
pub(super) fn check_libraries() -> Result<(), EngineError> {
    check_driver()?;
    // SAFETY: NVIDIA's libraries ask nothing of who opens them.
    is_there(unsafe { cublaslt_sys::is_culib_present() }, "libcublasLt")
}

/// Whether the GPU's driver can be opened, which is all that a bare device takes.
pub(super) fn check_driver() -> Result<(), EngineError> {
    // SAFETY: As above.
    is_there(unsafe { sys::is_culib_present() }, "libcuda, the GPU's driver,")
}

fn is_there(is_there: bool, library: &str) -> Result<(), EngineError> {
    if is_there { Ok(()) } else { Err(EngineError::Cuda(format!("{library} cannot be opened"))) }
}

/// A device, with our kernels in it or bare.
pub(super) struct Driver {
    description: Description,
    functions: HashMap<&'static str, sys::CUfunction>,
    modules: Vec<sys::CUmodule>,
    /// None of a bare one.
    blas: Option<cublaslt_sys::cublasLtHandle_t>,
    /// How products are computed whose ways were measured.
    ways: Mutex<HashMap<ProductShape, (Way, MeasuredProduct)>>,
    context: Arc<CudaContext>,
}

// SAFETY: CUDA's handles belong to the process, and its calls may come from any thread that the context is bound to, which
// every function here sees to; cuBLASLt's handle may be used from several threads at once.
unsafe impl Send for Driver {}
// SAFETY: As above.
unsafe impl Sync for Driver {}

impl Driver {
    /// Opens the device of `options`, with our kernels in it. [`check_libraries`] must have found them.
    pub(super) fn open(options: &CudaOptions) -> Result<Self, EngineError> {
        Self::try_open(options).map_err(|error| EngineError::Cuda(error.to_string()))
    }

    /// Opens the same without kernels and without what multiplies. [`check_driver`] must have found it.
    pub(super) fn open_bare(options: &CudaOptions) -> Result<Self, EngineError> {
        Self::try_open_bare(options).map_err(|error| EngineError::Cuda(error.to_string()))
    }

    fn try_open(options: &CudaOptions) -> Result<Self, DeviceError> {
        let mut driver = Self::try_open_bare(options)?;
        driver.blas = Some(cublaslt::create_handle().map_err(blas::failed("cublasLtCreate"))?);
        let (major, minor) = driver.description.capability;
        let compiler =
            Compiler { architecture: format!("sm_{major}{minor}"), cache: options.cache.as_deref() };
        for source in kernels::ALL {
            driver.load(&compiler.code(source)?, source.kernels)?;
        }
        Ok(driver)
    }

    fn try_open_bare(options: &CudaOptions) -> Result<Self, DeviceError> {
        let context = CudaContext::new(options.device).map_err(failed("cuInit, cuDevicePrimaryCtxRetain"))?;
        let name = context.name().map_err(failed("cuDeviceGetName"))?;
        let capability = context.compute_capability().map_err(failed("cuDeviceGetAttribute"))?;
        let description = Description { name, capability };
        let (functions, modules) = (HashMap::new(), Vec::new());
        Ok(Self { description, functions, modules, blas: None, ways: Mutex::default(), context })
    }

    /// What multiplies.
    fn blas(&self) -> cublaslt_sys::cublasLtHandle_t {
        self.blas.expect("nobody multiplies on a bare device")
    }

    fn load(&mut self, code: &[u8], kernels: &[&'static str]) -> Result<(), DeviceError> {
        // SAFETY: The code is a whole file of NVRTC's, which says itself how long it is.
        let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
        let module = module.map_err(failed("cuModuleLoadData"))?;
        self.modules.push(module);
        for &kernel in kernels {
            let name = CString::new(kernel).expect("a name is text");
            // SAFETY: The module was just loaded.
            let function = unsafe { result::module::get_function(module, name) };
            self.functions.insert(kernel, function.map_err(failed("cuModuleGetFunction"))?);
        }
        Ok(())
    }

    /// Makes the device the one that this thread's calls are for.
    fn bind(&self) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // What cannot be given back any more is the device's own loss.
        drop(self.bind());
        if let Some(blas) = self.blas {
            // SAFETY: It was made for this device alone.
            let _ = unsafe { cublaslt::destroy_handle(blas) };
        }
        for &module in &self.modules {
            // SAFETY: It was loaded once, and no stream is left that runs its kernels: each holds the device.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}

impl Device for Driver {
    fn description(&self) -> &Description {
        &self.description
    }

    fn enter(&self) -> Result<(), DeviceError> {
        self.bind()
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.bind()?;
        result::mem_get_info().map(|(free, _)| free).map_err(failed("cuMemGetInfo"))
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        self.bind()?;
        // SAFETY: Nobody takes what is in it for anything.
        let memory = unsafe { result::malloc_sync(bytes) };
        memory.map(Address).map_err(failed("cuMemAlloc"))
    }

    unsafe fn free(&self, memory: Address) {
        drop(self.bind());
        // SAFETY: The caller has seen to it.
        let _ = unsafe { result::free_sync(memory.0) };
    }

    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: The caller has seen to the memory, and the call returns when the bytes are read.
        unsafe { result::memcpy_htod_sync(to.0, bytes) }.map_err(failed("cuMemcpyHtoD"))?;
        // They may be read but not there yet, and our streams do not wait for the one that brings them.
        // SAFETY: That stream is always open.
        unsafe { result::stream::synchronize(result::stream::null()) }.map_err(failed("cuStreamSynchronize"))
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<HostAddress, DeviceError> {
        self.bind()?;
        // SAFETY: Nobody takes what is in it for anything.
        let memory = unsafe { result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_PORTABLE) };
        memory.map(|memory| HostAddress(memory.expose_provenance())).map_err(failed("cuMemHostAlloc"))
    }

    unsafe fn free_pinned(&self, memory: HostAddress) {
        drop(self.bind());
        // SAFETY: The caller has seen to it.
        let _ = unsafe { result::free_host(pointer(memory)) };
    }

    unsafe fn write_pinned(&self, to: HostAddress, bytes: &[u8]) {
        // SAFETY: The caller has seen to the memory, which no slice of Rust's can be in.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(to).cast(), bytes.len()) };
    }

    unsafe fn read_pinned(&self, from: HostAddress, bytes: &mut [u8]) {
        // SAFETY: As above.
        unsafe { ptr::copy_nonoverlapping(pointer(from).cast(), bytes.as_mut_ptr(), bytes.len()) };
    }

    fn seen_from_device(&self, memory: HostAddress) -> Result<Address, DeviceError> {
        self.bind()?;
        let mut seen = 0;
        // SAFETY: The call writes to where it is told, and refuses what is no such memory.
        let found = unsafe { sys::cuMemHostGetDevicePointer_v2(&raw mut seen, pointer(memory), 0) };
        found.result().map_err(failed("cuMemHostGetDevicePointer"))?;
        Ok(Address(seen))
    }

    fn open_stream(self: Arc<Self>) -> Result<Box<dyn Stream>, DeviceError> {
        self.bind()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        let stream = stream.map_err(failed("cuStreamCreate"))?;
        Ok(Box::new(DriverStream { stream, graphs: Vec::new(), is_capturing: false, driver: self }))
    }

    fn measured_products(&self) -> Vec<MeasuredProduct> {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let mut measured: Vec<_> = ways.values().map(|(_, measured)| *measured).collect();
        measured.sort_unstable_by_key(|measured| measured.shape);
        measured
    }
}

fn pointer(address: HostAddress) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address.0)
}

/// A stream and the graphs that it captured.
struct DriverStream {
    stream: sys::CUstream,
    graphs: Vec<sys::CUgraphExec>,
    is_capturing: bool,
    driver: Arc<Driver>,
}

// SAFETY: As for the driver; a stream is used by one thread at a time.
unsafe impl Send for DriverStream {}

impl DriverStream {
    /// How to compute `product`: as was measured before or, where this is the first of its shape, as is measured now. Within
    /// a capture nothing can be measured, and the library's first choice does.
    ///
    /// # Safety
    /// As for [`Stream::multiply`]; the output is written.
    unsafe fn way(&mut self, product: &Product, descriptors: &Descriptors) -> Result<Way, DeviceError> {
        let shape = product.shape();
        let ways = self.driver.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ways.get(&shape).map(|(way, _)| *way);
        drop(ways);
        if let Some(way) = known {
            return Ok(way);
        }
        let algorithms = descriptors.candidates(self.driver.blas())?;
        let mut candidates: Vec<_> = algorithms.into_iter().map(Way::Library).collect();
        if self.is_capturing {
            return Ok(candidates[0]);
        }
        candidates.extend(own_kernel(shape).map(Way::Own));
        // SAFETY: As the caller says.
        let (way, measured) = unsafe { self.fastest(product, descriptors, &candidates) }?;
        self.driver.ways.lock().unwrap_or_else(PoisonError::into_inner).insert(shape, (way, measured));
        Ok(way)
    }

    /// The fastest of at least one candidate, of those that run.
    ///
    /// # Safety
    /// As for [`Stream::multiply`]; the output is written.
    unsafe fn fastest(
        &mut self,
        product: &Product,
        descriptors: &Descriptors,
        candidates: &[Way],
    ) -> Result<(Way, MeasuredProduct), DeviceError> {
        let mut times = Vec::with_capacity(candidates.len());
        for way in candidates {
            // SAFETY: As the caller says.
            times.push(unsafe { self.measure(product, descriptors, way) });
        }
        let first = times[0].as_ref().ok().copied();
        let ran = times.iter().enumerate().filter_map(|(place, time)| Some((place, *time.as_ref().ok()?)));
        let Some((chosen, time)) = ran.min_by_key(|&(_, time)| time) else {
            return Err(times.swap_remove(0).expect_err("none ran"));
        };
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        let measured = MeasuredProduct {
            shape: product.shape(),
            candidates: candidates.len(),
            chosen,
            microseconds: microseconds(time),
            first_microseconds: first.map(microseconds),
            own: matches!(candidates[chosen], Way::Own(_)),
            workspace_bytes: match candidates[chosen] {
                Way::Library(algorithm) => algorithm.workspace_bytes,
                Way::Own(_) => 0,
            },
        };
        Ok((candidates[chosen], measured))
    }

    /// What `product` takes that `way`, within a graph, as it is going to run.
    ///
    /// # Safety
    /// As for [`Stream::multiply`]; the output is written.
    unsafe fn measure(
        &mut self,
        product: &Product,
        descriptors: &Descriptors,
        way: &Way,
    ) -> Result<Duration, DeviceError> {
        // SAFETY: As the caller says. The first run loads what is loaded late.
        unsafe { self.run(product, descriptors, way) }?;
        self.wait()?;
        let start = Instant::now();
        // SAFETY: As the caller says.
        unsafe { self.run(product, descriptors, way) }?;
        self.wait()?;
        let alone = start.elapsed();
        if alone > LONG_RUN {
            return Ok(alone);
        }
        self.begin_capture()?;
        // SAFETY: As the caller says; the graph is gone when this returns.
        let mut run = |_| unsafe { self.run(product, descriptors, way) };
        let ran = (0..MEASURED_RUNS).try_for_each(&mut run);
        let graph = self.end_capture();
        let fastest = match (ran, &graph) {
            // SAFETY: It was just captured, and its memory is there as the caller says.
            (Ok(()), &Ok(graph)) => unsafe { self.fastest_replay(graph) },
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => Err(error.clone()),
        };
        if graph.is_ok() {
            self.forget_last_graph();
        }
        Ok(fastest? / MEASURED_RUNS)
    }

    /// # Safety
    /// As for [`Stream::multiply`].
    unsafe fn run(
        &mut self,
        product: &Product,
        descriptors: &Descriptors,
        way: &Way,
    ) -> Result<(), DeviceError> {
        match way {
            // SAFETY: As the caller says.
            Way::Library(way) => unsafe { descriptors.run(product, way, (self.driver.blas(), self.stream)) },
            Way::Own(kernel) => {
                let arguments = [
                    Argument::Memory(product.input),
                    signed(product.rows),
                    signed(product.inputs / product.precision.per_chunk()),
                    Argument::Memory(product.weights),
                    Argument::Memory(product.bias),
                    signed(product.outputs),
                    Argument::Signed(i32::from(product.relu)),
                    Argument::Memory(product.output),
                ];
                let grid = (product.outputs * WARP).div_ceil(Launch::BLOCK as usize);
                let grid = u32::try_from(grid).expect("the plan counts outputs in 31 bits");
                // SAFETY: As the caller says; these are the arguments that the kernel's file names.
                unsafe { self.launch(&Launch { kernel, grid, arguments: &arguments }) }
            }
        }
    }

    /// The fastest of a few replays, or a single one where that takes long.
    ///
    /// # Safety
    /// As for [`Stream::replay`].
    unsafe fn fastest_replay(&mut self, graph: Graph) -> Result<Duration, DeviceError> {
        let mut fastest = Duration::MAX;
        for _ in 0..MEASURED_REPLAYS {
            let start = Instant::now();
            // SAFETY: As the caller says.
            unsafe { self.replay(graph) }?;
            self.wait()?;
            fastest = fastest.min(start.elapsed());
            if fastest > LONG_RUN {
                break;
            }
        }
        Ok(fastest)
    }

    fn forget_last_graph(&mut self) {
        // What fails now has failed before.
        drop(self.wait());
        if let Some(graph) = self.graphs.pop() {
            // SAFETY: It is this stream's, and does not run any more.
            let _ = unsafe { result::graph::exec_destroy(graph) };
        }
    }
}

impl Stream for DriverStream {
    unsafe fn copy_in(&mut self, to: Address, from: HostAddress, bytes: usize) -> Result<(), DeviceError> {
        self.driver.bind()?;
        // SAFETY: The caller has seen to the memory.
        let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(to.0, pointer(from), bytes, self.stream) };
        copied.result().map_err(failed("cuMemcpyHtoDAsync"))
    }

    unsafe fn copy_out(&mut self, to: HostAddress, from: Address, bytes: usize) -> Result<(), DeviceError> {
        self.driver.bind()?;
        // SAFETY: The caller has seen to the memory.
        let copied = unsafe { sys::cuMemcpyDtoHAsync_v2(pointer(to), from.0, bytes, self.stream) };
        copied.result().map_err(failed("cuMemcpyDtoHAsync"))
    }

    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        self.driver.bind()?;
        let function = self.driver.functions.get(launch.kernel);
        let function = *function.unwrap_or_else(|| panic!("no kernel {}", launch.kernel));
        let mut arguments: Vec<*mut c_void> = launch.arguments.iter().map(value_of).collect();
        let mut attributes = [may_start_early()];
        // What the kernels do to wait for what is before them is nothing on older devices.
        let count = u32::from(self.driver.description.capability.0 >= 9);
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: Launch::BLOCK,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: self.stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: count,
        };
        let (config, arguments) = (&raw const config, arguments.as_mut_ptr());
        // SAFETY: The caller has seen to the arguments, whose values the call copies, as it does with the attributes.
        let launched = unsafe { sys::cuLaunchKernelEx(config, function, arguments, ptr::null_mut()) };
        launched.result().map_err(failed("cuLaunchKernelEx"))
    }

    unsafe fn multiply(&mut self, product: &Product) -> Result<(), DeviceError> {
        self.driver.bind()?;
        let of_shape = |error: DeviceError| {
            let reason = format!("{} of a product of {}", error.reason, product.shape());
            DeviceError { reason, ..error }
        };
        let descriptors = Descriptors::new(product).map_err(of_shape)?;
        // SAFETY: The caller has seen to the memory.
        let way = unsafe { self.way(product, &descriptors) }.map_err(of_shape)?;
        // SAFETY: As above.
        unsafe { self.run(product, &descriptors, &way) }.map_err(of_shape)
    }

    fn begin_capture(&mut self) -> Result<(), DeviceError> {
        self.driver.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: It is this stream, which is open.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(failed("cuStreamBeginCapture"))?;
        self.is_capturing = true;
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Graph, DeviceError> {
        self.is_capturing = false;
        self.driver.bind()?;
        // SAFETY: It is this stream, which is open.
        let graph = unsafe { result::stream::end_capture(self.stream) };
        let graph = graph.map_err(failed("cuStreamEndCapture"))?;
        // SAFETY: It was just captured.
        let ready = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) };
        // SAFETY: What was made of it does not need it.
        let _ = unsafe { result::graph::destroy(graph) };
        let ready = ready.map_err(failed("cuGraphInstantiate"))?;
        // SAFETY: Both are open.
        let uploaded = unsafe { result::graph::upload(ready, self.stream) };
        self.graphs.push(ready);
        if let Err(error) = uploaded {
            self.forget_last_graph();
            return Err(failed("cuGraphUpload")(error));
        }
        Ok(Graph(self.graphs.len() - 1))
    }

    unsafe fn replay(&mut self, graph: Graph) -> Result<(), DeviceError> {
        self.driver.bind()?;
        // SAFETY: Both are open, and the caller has seen to the memory that the graph names.
        unsafe { result::graph::launch(self.graphs[graph.0], self.stream) }.map_err(failed("cuGraphLaunch"))
    }

    fn handle(&self) -> *mut c_void {
        self.stream.cast()
    }

    fn wait(&mut self) -> Result<(), DeviceError> {
        self.driver.bind()?;
        // SAFETY: It is this stream, which is open.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("cuStreamSynchronize"))
    }
}

impl Drop for DriverStream {
    fn drop(&mut self) {
        // What fails now has failed before, or frees nothing that anybody counts on.
        drop(self.wait());
        for &graph in &self.graphs {
            // SAFETY: It is this stream's, and does not run any more.
            let _ = unsafe { result::graph::exec_destroy(graph) };
        }
        // SAFETY: It is this stream, which nobody else has.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}

/// That a kernel may be brought to the multiprocessors while the one before it ends; ours wait by themselves.
fn may_start_early() -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    }
}

/// The kernel of ours that computes products of a shape, where there is one.
fn own_kernel(shape: ProductShape) -> Option<&'static str> {
    let first = match shape.rows {
        1 => 0,
        2..=kernels::DENSE_ROWS => 2,
        _ => return None,
    };
    Some(kernels::DENSE.kernels[first + shape.precision as usize])
}

/// One of the ways in which a product is computed.
#[derive(Clone, Copy)]
enum Way {
    /// cuBLASLt's.
    Library(Algorithm),
    /// A kernel of ours.
    Own(&'static str),
}

/// The address of an argument's value.
fn value_of(argument: &Argument) -> *mut c_void {
    match argument {
        Argument::Memory(address) => ptr::from_ref(&address.0).cast_mut().cast(),
        Argument::Signed(number) => ptr::from_ref(number).cast_mut().cast(),
        Argument::Unsigned(number) => ptr::from_ref(number).cast_mut().cast(),
        Argument::Float(number) => ptr::from_ref(number).cast_mut().cast(),
    }
}

fn failed(call: &'static str) -> impl FnOnce(DriverError) -> DeviceError {
    move |error| {
        let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
        DeviceError { call, reason: text.unwrap_or_else(|_| format!("{:?}", error.0)) }
    }
}

/// Products of a graph that is measured, so that what the graph itself costs is little beside them.
const MEASURED_RUNS: u32 = 10;
const MEASURED_REPLAYS: usize = 3;
/// What takes longer is not repeated.
const LONG_RUN: Duration = Duration::from_millis(5);
