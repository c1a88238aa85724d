//! Compiles what stands for a GPU's libraries, for the kernels' tests and for those of the engine that launches them.

use std::{env, path::Path, process::Command};

use libloading::Library;

/// The shared library `name` of the C++ file `source` in `folder`, which is this one's, opened.
pub(crate) fn compiled(folder: &Path, source: &str, name: &str) -> Library {
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let compiler = cc::Build::new()
        .cpp(true)
        .cargo_metadata(false)
        .host(&triple)
        .target(&triple)
        .opt_level(1)
        .get_compiler();
    let into = tempfile::tempdir().expect("a temporary folder");
    let path = into.path().join(name);
    let output = Command::new(compiler.path())
        .current_dir(folder)
        .args([
            "-std=c++20",
            "-O1",
            "-g",
            "-Wall",
            "-Werror",
            "-Wno-unused-function",
            "-fPIC",
            "-shared",
            "-pthread",
        ])
        .args([source, &format!("-Wl,-soname,{name}"), "-o"])
        .arg(&path)
        .output()
        .expect("a C++ compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: The library's initialisers ask nothing of who opens it.
    unsafe { Library::new(&path) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}
