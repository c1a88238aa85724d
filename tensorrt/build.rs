//! Compiles the shim in kernels/tensorrt once for each flavour of TensorRT, and makes Rust's view of its header.
//!
//! The headers of TensorRT come from `TENSORRT_INCLUDE_DIR`, or from `include` in `TENSORRT_SDK_DIR`, where one is set;
//! those are of one flavour, and so is the library that comes out. Else both flavours' are taken from the sources of
//! the package `trtx-sys`, which cargo fetches. No library of NVIDIA's is needed to build, and none is linked.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Where the headers of a flavour are.
struct Headers {
    /// `rtx` or `enterprise`: part of the shim's symbol.
    flavour: &'static str,
    /// Of `NvInfer.h`, and of `cuda_runtime_api.h`.
    folders: Vec<PathBuf>,
}

fn main() {
    let shim = Path::new("../kernels/tensorrt");
    println!("cargo::rerun-if-changed={}", shim.display());
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["TENSORRT_INCLUDE_DIR", "TENSORRT_SDK_DIR", SANITIZE] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rustc-check-cfg=cfg(tensorrt_rtx, tensorrt_enterprise)");
    for headers in named().map_or_else(fetched, |folder| vec![folder]) {
        compile(shim, &headers);
    }
    bind(&shim.join("shim.h"));
}

/// The headers that the environment names.
fn named() -> Option<Headers> {
    let folder = env::var_os("TENSORRT_INCLUDE_DIR").map(PathBuf::from);
    let folder =
        folder.or_else(|| env::var_os("TENSORRT_SDK_DIR").map(|sdk| Path::new(&sdk).join("include")))?;
    let version = folder.join("NvInferVersion.h");
    let text = std::fs::read_to_string(&version);
    let text = text.unwrap_or_else(|error| panic!("no TensorRT headers: {}: {error}", version.display()));
    let flavour = if text.contains("TRT_MAJOR_RTX") { "rtx" } else { "enterprise" };
    // The stub of CUDA's header does where the toolkit is not installed beside TensorRT.
    let cuda = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("include"));
    Some(Headers { flavour, folders: vec![folder, cuda.unwrap_or_else(packaged)] })
}

/// The headers of both flavours, from the package.
fn fetched() -> Vec<Headers> {
    let root = packaged();
    [("rtx", "TRT-RTX-1.7"), ("enterprise", "TRT-Enterprise-11.4")]
        .map(|(flavour, folder)| Headers { flavour, folders: vec![root.join(folder), root.clone()] })
        .into()
}

/// The folder of headers in the sources of `trtx-sys`. Cargo fetches them to answer, and compiles nothing.
fn packaged() -> PathBuf {
    let target = env::var("TARGET").expect("cargo names the target");
    let output = Command::new(env::var_os("CARGO").expect("cargo names itself"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform", &target])
        // What makes the package a dependency, for this answer alone.
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg\u{1f}tensorrt_headers")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .output()
        .expect("cargo can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo cannot fetch the headers: {said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo answers with JSON");
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == "trtx-sys")
        .find_map(|package| package["manifest_path"].as_str())
        .expect("the package is in Cargo.lock");
    Path::new(manifest).with_file_name("TensorRT-Headers")
}

fn compile(shim: &Path, headers: &Headers) {
    println!("cargo::rustc-cfg=tensorrt_{}", headers.flavour);
    let folder = headers.folders[0].display();
    // The tests compile their fake of the library against the same ones.
    println!("cargo::rustc-env=TENSORRT_HEADERS_{}={folder}", headers.flavour.to_uppercase());
    println!("cargo::rustc-env=TENSORRT_HEADERS_CUDA={}", headers.folders[1].display());
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file(shim.join("shim.cpp")).define("TRT_FLAVOUR", headers.flavour);
    for folder in &headers.folders {
        build.flag("-isystem").flag(folder);
    }
    if env::var_os(SANITIZE).is_some() {
        build.flag("-fsanitize=address").flag("-fno-omit-frame-pointer");
        // Not `-fsanitize=address`, which adds nothing where the default libraries are left out, as rustc does.
        println!("cargo::rustc-link-arg-tests=-lasan");
    }
    build.compile(&format!("millrace_tensorrt_{}", headers.flavour));
}

fn bind(header: &Path) {
    let bindings = bindgen::Builder::default()
        .header(header.to_str().expect("a path of the workspace"))
        .allowlist_item("trt_.*|TRT_.*|millrace_.*")
        .prepend_enum_name(false)
        .generate_comments(false)
        .generate()
        .expect("the shim's header is plain C");
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names it")).join("shim.rs");
    bindings.write_to_file(output).expect("cargo made the folder");
}

/// Where this is set, the shim is compiled for `AddressSanitizer`, whose library the tests are then linked with.
const SANITIZE: &str = "MILLRACE_TENSORRT_SANITIZE";
