//! The calls of `driver` on CUDA's libraries as `kernels/tests/cuda.cpp` stands for them: its kernels run on the emulator and
//! its products are plain sums, so what shows here is that the driver asks for what it means. NVRTC is the real one, where
//! `MILLRACE_NVRTC` names the folder that `deploy/nvrtc.sh` prints.

use std::{
    env,
    ffi::c_int,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use libloading::Library;

#[path = "../../../kernels/tests/compiled.rs"]
mod compiled;

use self::compiled::compiled;
use super::{
    Cuda, CudaModel, CudaModelOptions, CudaOptions, Items, Precision, Search, Searched, check,
    device::{Address, Device, Product},
    driver::{self, Driver},
    memory::{Memory, Pinned},
    sample,
};
use crate::{engine::Engine, tensor::Rows};

/// The libraries, which are found by their names once they were opened by their paths.
struct Libraries {
    /// The driver and cuBLASLt.
    emulated: [Library; 2],
    _compiler: [Library; 2],
    /// What is counted in them is counted for one test at a time.
    alone: Mutex<()>,
}

impl Libraries {
    /// `None` where there is no compiler for kernels, which is said aloud.
    fn open() -> Option<(&'static Self, MutexGuard<'static, ()>)> {
        static LIBRARIES: OnceLock<Option<Libraries>> = OnceLock::new();
        let libraries = LIBRARIES.get_or_init(|| {
            let folder = PathBuf::from(env::var_os("MILLRACE_NVRTC").filter(|folder| !folder.is_empty())?);
            let compiler =
                ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"].map(|name| load(&folder.join(name)));
            let emulated = ["libcuda.so", "libcublasLt.so"].map(stand_in);
            Some(Libraries { emulated, _compiler: compiler, alone: Mutex::default() })
        });
        if libraries.is_none() {
            eprintln!("skipped: MILLRACE_NVRTC does not name the folder that deploy/nvrtc.sh prints");
        }
        let libraries = libraries.as_ref()?;
        Some((libraries, libraries.alone.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// What was made in them and not given back.
    fn held(&self) -> c_int {
        let held = self.emulated.iter().map(|library| {
            // SAFETY: It has this type.
            let count = unsafe { library.get::<unsafe extern "C" fn() -> c_int>(b"emulated_objects") };
            let count = count.expect("there");
            // SAFETY: It only looks.
            unsafe { count() }
        });
        held.sum()
    }
}

/// The library that stands for the one of this name.
fn stand_in(name: &str) -> Library {
    compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/tests"), "cuda.cpp", name)
}

fn load(path: &Path) -> Library {
    // SAFETY: The library's initialisers ask nothing of who opens it.
    unsafe { Library::new(path) }.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The device, with kernels from `cache`, or into it.
fn device(cache: &Path) -> Arc<dyn Device> {
    let options = CudaOptions { device: 0, cache: Some(cache.to_owned()) };
    driver::check_libraries().expect("all three");
    Arc::new(Driver::open(&options).expect("opened"))
}

#[test]
fn every_kernel_and_product_comes_to_what_it_should() {
    let Some((libraries, _alone)) = Libraries::open() else { return };
    let cache = tempfile::tempdir().expect("a temporary folder");
    let device = device(cache.path());
    assert_eq!(device.description().to_string(), "the emulator, compute capability 9.0");
    // More rows are more of the same, and the emulator is slow.
    let mut all = 0;
    let see = &mut |checked: check::Checked| {
        all += 1;
        assert!(checked.passed(), "{checked:?}");
    };
    check::check(&device, 5, see).expect("a stream");
    assert_eq!(all, 12);
    let products = device.measured_products();
    assert_eq!(products.len(), 64, "one for each shape");
    for product in products {
        // The first of the library's does not run. Which of the others is faster is not for a test to say.
        let candidates = if product.shape.rows <= kernels::DENSE_ROWS { 3 } else { 2 };
        assert_eq!(
            (product.candidates, product.chosen),
            (candidates, if product.own { 2 } else { 1 }),
            "{product:?}"
        );
        assert_eq!(product.workspace_bytes == 0, product.own || product.shape.rows == 1, "{product:?}");
        assert!(product.microseconds > 0.0 && product.first_microseconds.is_none());
    }
    assert!(libraries.held() > 0);
    drop(device);
    assert_eq!(libraries.held(), 0);
}

#[test]
fn networks_are_scored_by_replays_of_graphs_from_kernels_that_were_kept() {
    let Some((libraries, _alone)) = Libraries::open() else { return };
    let cache = tempfile::tempdir().expect("a temporary folder");
    for network in [sample::deep_and_cross(), sample::lists()] {
        let device = device(cache.path());
        assert_eq!(fs::read_dir(cache.path()).expect("a folder").count(), 6, "one for each file of kernels");
        let (max_rows, slots) = (NonZeroUsize::new(10).expect("not zero"), NonZeroUsize::MIN);
        for (precision, tolerance) in [(Precision::Single, 1e-5), (Precision::Half, 4e-3)] {
            let direct_bytes = 100;
            let options = CudaModelOptions { precision, max_rows, slots, direct_bytes };
            let model = CudaModel::load(Arc::clone(&device), &network, &sample::signature(&network), options);
            let mut engine = model.expect("loaded").open().expect("opened");
            for count in [1, 7, 10] {
                let rows = sample::rows(&network, count);
                let mut scores = Vec::new();
                engine.run(&rows, &mut scores).expect("scores");
                let expected = network.score(&rows).expect("tables in memory");
                for (found, expected) in scores.into_iter().zip(expected) {
                    assert!(
                        (f64::from(found) - expected).abs() <= tolerance,
                        "{found} in place of {expected}"
                    );
                }
            }
            let batches = [9, 10].map(|count| sample::rows(&network, count));
            engine.record(&batches).expect("captured").time(3).expect("replayed");
        }
    }
    assert_eq!(libraries.held(), 0);
}

#[test]
fn a_product_that_the_library_cannot_compute_is_computed_by_a_kernel_of_ours() {
    let Some((libraries, _alone)) = Libraries::open() else { return };
    let cache = tempfile::tempdir().expect("a temporary folder");
    let device = device(cache.path());
    for (precision, rows) in
        [Precision::Single, Precision::Half].into_iter().flat_map(|it| [(it, 1), (it, 5)])
    {
        let (inputs, outputs) = (16, 24);
        let number = |number: usize| (number % 7) as f32 - 3.0;
        let encoded = |count: usize| {
            let numbers = (0..count).map(number);
            numbers.flat_map(|number| match precision {
                Precision::Single => number.to_le_bytes().to_vec(),
                Precision::Half => half::f16::from_f32(number).to_le_bytes().to_vec(),
            })
        };
        let upload = |bytes: Vec<u8>| {
            let mut memory = Memory::new(&device, bytes.len()).expect("allocated");
            memory.upload(0, &bytes).expect("uploaded");
            memory
        };
        let [input, weights, bias, output] = [rows * inputs, outputs * inputs, outputs, rows * outputs]
            .map(|count| upload(encoded(count).collect()));
        let product = Product {
            precision,
            rows,
            inputs,
            outputs,
            input: input.at(0),
            weights: weights.at(0),
            bias: bias.at(0),
            output: output.at(0),
            relu: true,
            // Without which the library refuses every way.
            workspace: Address(0),
        };
        let mut stream = Arc::clone(&device).open_stream().expect("opened");
        // SAFETY: Each is as large as its shape asks for, and there until the work was waited for.
        unsafe { stream.multiply(&product) }.expect("computed");
        let bytes = rows * outputs * precision.bytes();
        let pinned = Pinned::new(&device, bytes).expect("allocated");
        // SAFETY: Both have so many bytes, and are there until the work was waited for.
        unsafe { stream.copy_out(pinned.at(0), output.at(0), bytes) }.expect("copied");
        stream.wait().expect("done");
        let mut found = vec![0; bytes];
        pinned.read(0, &mut found);
        let expected = (0..rows * outputs).map(|place| {
            let (row, unit) = (place / outputs, place % outputs);
            let products = (0..inputs).map(|at| number(row * inputs + at) * number(unit * inputs + at));
            (number(unit) + products.sum::<f32>()).max(0.0)
        });
        let found = found.chunks_exact(precision.bytes()).map(|bytes| match *bytes {
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            [a, b] => half::f16::from_le_bytes([a, b]).to_f32(),
            _ => panic!("a number"),
        });
        assert!(found.eq(expected), "{rows} rows, {precision:?}");
    }
    let products = device.measured_products();
    assert_eq!(products.len(), 4);
    assert!(products.iter().all(|product| product.own && product.chosen == 2), "{products:?}");
    drop(device);
    assert_eq!(libraries.held(), 0);
}

#[test]
fn the_best_items_of_a_catalogue_are_those_whose_rows_score_best() {
    let Some((libraries, _alone)) = Libraries::open() else { return };
    let cache = tempfile::tempdir().expect("a temporary folder");
    let network = sample::wide_and_deep();
    let (max_rows, slots) = (NonZeroUsize::new(10).expect("not zero"), NonZeroUsize::MIN);
    let options = CudaModelOptions { precision: Precision::Single, max_rows, slots, direct_bytes: 100 };
    let device = device(cache.path());
    let model = CudaModel::load(device, &network, &sample::signature(&network), options).expect("loaded");
    // Every column is the item's, so that its row is that of the pair; two blocks and a rest.
    let rows = sample::rows(&network, 23);
    let items = Items { count: 23, is_items: &[true; 6], searches: 1 };
    let fill = |range: std::ops::Range<u32>, block: &mut Rows| {
        block.extend_from(&rows, range.start as usize..range.end as usize);
        true
    };
    let items = model.hold_items(items, fill).expect("room").expect("all of them");
    let mut search = items.open().expect("opened");
    let user = sample::rows(&network, 1);
    let scores = network.score(&rows).expect("tables in memory");
    let mut expected: Vec<usize> = (0..23).collect();
    expected.sort_by(|&left, &right| scores[right].total_cmp(&scores[left]));
    let excluded = [u32::try_from(expected.remove(1)).expect("a few")];
    let found = search.best(Search { user: &user, k: 7, excluded: &excluded }, &mut || true);
    let Ok(Searched::Best(found)) = found else { panic!("{found:?}") };
    assert_eq!(found.iter().map(|(item, _)| *item as usize).collect::<Vec<_>>(), expected[..7]);
    for (item, score) in found {
        assert!((f64::from(score) - scores[item as usize]).abs() <= 1e-5, "{item}: {score}");
    }
    drop((search, items, model));
    assert_eq!(libraries.held(), 0);
}

#[test]
fn a_product_that_no_way_computes_is_told_of_with_its_shape() {
    let Some((libraries, _alone)) = Libraries::open() else { return };
    let cache = tempfile::tempdir().expect("a temporary folder");
    let device = device(cache.path());
    let memory = Memory::new(&device, 4096).expect("allocated");
    let mut stream = Arc::clone(&device).open_stream().expect("opened");
    let at = memory.at(0);
    let product = Product {
        precision: Precision::Half,
        // More than a kernel of ours computes.
        rows: 9,
        inputs: 8,
        outputs: 16,
        input: at,
        weights: at,
        bias: at,
        output: at,
        relu: true,
        // Without which every way is refused.
        workspace: Address(0),
    };
    // SAFETY: It is refused before anything is touched.
    let error = unsafe { stream.multiply(&product) }.expect_err("no workspace").to_string();
    assert!(error.ends_with(" of a product of m 16, n 9, k 8, half precision, relu true"), "{error}");
    assert_eq!(device.measured_products(), [], "and nothing is kept of it");
    drop(stream);
    drop((memory, device));
    assert_eq!(libraries.held(), 0);
}

#[test]
fn an_engine_works_on_whatever_thread_it_is_moved_to() {
    let Some((_, _alone)) = Libraries::open() else { return };
    let cache = tempfile::tempdir().expect("a temporary folder");
    let network = sample::without_layers();
    let (max_rows, slots) = (NonZeroUsize::MIN, NonZeroUsize::MIN);
    let options = CudaModelOptions { precision: Precision::Single, max_rows, slots, direct_bytes: 0 };
    let device = device(cache.path());
    let model = CudaModel::load(device, &network, &sample::signature(&network), options).expect("loaded");
    let mut engine = model.open().expect("opened");
    let rows = sample::rows(&network, 1);
    let scores = std::thread::spawn(move || {
        let mut scores = Vec::new();
        engine.run(&rows, &mut scores).map(|()| scores)
    });
    assert_eq!(scores.join().expect("no panic").expect("scores").len(), 1);
}

#[test]
fn a_bare_device_is_opened_once_and_has_memory_and_streams() {
    let Some((libraries, _alone)) = Libraries::open() else { return };
    let cuda = Cuda::new(CudaOptions::default());
    let device = cuda.bare().expect("opened");
    assert!(Arc::ptr_eq(&device, &cuda.bare().expect("open")));
    device.enter().expect("entered");
    let mut memory = Memory::new(&device, 8).expect("allocated");
    memory.upload(0, b"a device").expect("uploaded");
    let pinned = Pinned::new(&device, 8).expect("allocated");
    let mut stream = Arc::clone(&device).open_stream().expect("opened");
    assert!(!stream.handle().is_null());
    // SAFETY: Both are as large and are kept until the work is done.
    unsafe { stream.copy_out(pinned.at(0), memory.at(0), 8) }.expect("copied");
    stream.wait().expect("done");
    let mut found = [0; 8];
    pinned.read(0, &mut found);
    assert_eq!(&found, b"a device");
    drop(stream);
    drop((pinned, memory, device));
    assert_eq!(libraries.held(), 0);
}

#[test]
fn a_gpu_that_is_not_there_is_said() {
    let Some((libraries, _alone)) = Libraries::open() else { return };
    let cuda = Cuda::new(CudaOptions { device: 1, cache: None });
    let error = cuda.hold().map(drop).expect_err("there is one").to_string();
    assert!(error.starts_with("CUDA cannot be used: ") && error.ends_with(": refused"), "{error}");
    assert_eq!(libraries.held(), 0);
}
