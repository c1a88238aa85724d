//! NVIDIA's own compiler takes every kernel for every architecture that is served, without a GPU: `MILLRACE_NVRTC` names the
//! folder that it lies in, as `deploy/nvrtc.sh` prints it.

use std::{
    env,
    ffi::{CStr, CString},
    path::PathBuf,
    sync::OnceLock,
};

use cudarc::nvrtc::{result, sys};
use kernels::{ALL, Source};
use libloading::Library;

const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_86", "sm_89", "sm_90"];

/// What the compiler makes of a file.
struct Compiled {
    /// What it has to say; of each kernel, what registers and memory it takes.
    log: String,
    ptx: String,
    cubin: Vec<u8>,
}

#[test]
fn every_kernel_compiles_for_every_architecture_and_keeps_its_numbers_in_registers() {
    if !is_there() {
        return;
    }
    for source in ALL {
        for architecture in ARCHITECTURES {
            let Compiled { log, ptx, cubin } = compile(source, architecture);
            let context = format!("{} for {architecture}: {log}", source.name);
            assert!(cubin.starts_with(b"\x7fELF"), "{context}");
            assert_eq!(
                ptx.matches(".entry ").count(),
                source.kernels.len(),
                "a kernel is not listed: {context}"
            );
            for kernel in source.kernels {
                assert!(ptx.contains(&format!(".entry {kernel}(")), "{kernel} in {context}");
            }
            let kept = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
            assert_eq!(log.matches(kept).count(), source.kernels.len(), "{context}");
            assert!(!log.contains("warning"), "{context}");
        }
    }
}

#[test]
fn tables_are_read_and_inputs_written_sixteen_bytes_at_once() {
    if !is_there() {
        return;
    }
    for source in [kernels::GATHER, kernels::CROSS, kernels::DENSE] {
        let ptx = compile(source, "sm_90").ptx;
        for kernel in ptx.split(".entry ").skip(1) {
            let name = kernel.split('(').next().unwrap_or_default();
            assert!(kernel.contains("ld.global.v4."), "{name}: {kernel}");
            let writes_numbers = name.contains("dense");
            assert!(writes_numbers || kernel.contains("st.global.v4."), "{name}: {kernel}");
        }
    }
}

#[test]
fn kernels_wait_for_what_was_launched_before_them() {
    if !is_there() {
        return;
    }
    for source in ALL {
        let ptx = compile(source, "sm_90").ptx;
        for kernel in ptx.split(".entry ").skip(1) {
            let name = kernel.split('(').next().unwrap_or_default();
            let (before, _) =
                kernel.split_once("griddepcontrol.wait").unwrap_or_else(|| panic!("{name} does not wait"));
            // Before that `dense` reads its weights, and nothing else is touched.
            let reads = before.matches("ld.global").count();
            assert!(reads == if name.contains("dense") { 8 } else { 0 }, "{name} reads {reads} times");
            assert!(!before.contains("st.global") && !before.contains("atom.global"), "{name}");
            // Such loads may be moved to before the wait.
            assert!(!kernel.contains("ld.global.nc"), "{name}");
        }
        assert!(!compile(source, "sm_80").ptx.contains("griddepcontrol"), "{}", source.name);
    }
}

/// Whether the compiler is there, which is said aloud where it is not. It is loaded by its path, and found by its name
/// then.
fn is_there() -> bool {
    static LIBRARIES: OnceLock<Option<[Library; 2]>> = OnceLock::new();
    let libraries = LIBRARIES.get_or_init(|| {
        let folder = PathBuf::from(env::var_os("MILLRACE_NVRTC").filter(|folder| !folder.is_empty())?);
        Some(["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"].map(|name| {
            // SAFETY: The library's initialisers ask nothing of who opens it.
            unsafe { Library::new(folder.join(name)) }.unwrap_or_else(|error| panic!("{name}: {error}"))
        }))
    });
    if libraries.is_none() {
        eprintln!("skipped: MILLRACE_NVRTC does not name the folder that deploy/nvrtc.sh prints");
    }
    libraries.is_some()
}

fn compile(source: Source, architecture: &str) -> Compiled {
    let text = CString::new(source.text).expect("no zero");
    let name = CString::new(source.name).expect("no zero");
    let program = result::create_program(&text, Some(&name)).expect("a program");
    let options = [&format!("--gpu-architecture={architecture}"), "--std=c++17", "--ptxas-options=-v"];
    // SAFETY: The program was just made.
    let compiled = unsafe { result::compile_program(program, &options) };
    // SAFETY: It is not destroyed yet.
    let log = unsafe { result::get_program_log(program) }.expect("a log");
    let log = text_of(&log);
    assert!(compiled.is_ok(), "{} for {architecture}: {log}", source.name);
    // SAFETY: It is compiled, and not destroyed yet.
    let ptx = unsafe { result::get_ptx(program) }.expect("PTX");
    let mut size = 0;
    // SAFETY: The same, and the size is written to where it may be.
    unsafe { sys::nvrtcGetCUBINSize(program, &raw mut size) }.result().expect("a size");
    let mut cubin = vec![0_u8; size];
    // SAFETY: The buffer is as large as it was said to have to be.
    unsafe { sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()) }.result().expect("a cubin");
    // SAFETY: Nobody uses it any more.
    unsafe { result::destroy_program(program) }.expect("destroyed");
    Compiled { log, ptx: text_of(&ptx), cubin }
}

/// The text of what ends in a zero.
fn text_of(bytes: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|byte| byte.to_ne_bytes()[0]).collect();
    CStr::from_bytes_until_nul(&bytes).map_or_else(
        |_| String::from_utf8_lossy(&bytes).into_owned(),
        |text| text.to_string_lossy().into_owned(),
    )
}
