//! Compiles `emulator.cpp` with the kernels in it, once a process, and launches them.

use std::{
    ffi::{CString, c_int, c_void},
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
};

use libloading::Library;

use crate::compiled::compiled;

type Emulate = unsafe extern "C" fn(*const i8, u32, u32, *mut *mut c_void) -> c_int;

/// Pointers to values, as a launch takes them.
macro_rules! arguments {
    ($($value:expr),+ $(,)?) => { [$(std::ptr::from_ref(&$value).cast_mut().cast::<std::ffi::c_void>()),+] };
}
pub(crate) use arguments;

/// Runs `kernel` on so many blocks of so many threads.
///
/// # Safety
///
/// The arguments must be those that its file names, each a pointer to its value, and what those point to must be as large as
/// the file says.
pub(crate) unsafe fn launch(kernel: &str, grid: u32, block: u32, arguments: &mut [*mut c_void]) {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    // The blocks of a launch have the processor to themselves, as the emulator keeps them in statics.
    static LAUNCH: Mutex<()> = Mutex::new(());
    let library = LIBRARY.get_or_init(compile);
    let name = CString::new(kernel).expect("no zero");
    // SAFETY: The emulator has it with this type.
    let emulate = unsafe { library.get::<Emulate>(b"emulate") }.expect("there");
    let _alone = LAUNCH.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: The caller has seen to the arguments.
    let result = unsafe { emulate(name.as_ptr(), grid, block, arguments.as_mut_ptr()) };
    assert_eq!(result, 0, "no kernel {kernel}");
}

fn compile() -> Library {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    compiled(&folder, "emulator.cpp", "emulator.so")
}
