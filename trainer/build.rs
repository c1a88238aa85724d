//! Records the versions of the libraries that decide the numbers of a model, for its lineage.

use std::{env, fs, path::Path};

/// What multiplies, draws, rounds and reads.
const LIBRARIES: [&str; 5] = ["arrow-csv", "half", "ndarray", "parquet", "rand_xoshiro"];

fn main() {
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    let lock = Path::new(&folder).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let lock = fs::read_to_string(lock).expect("a workspace that is built has a Cargo.lock");
    let versions: Vec<String> = LIBRARIES.iter().flat_map(|name| versions(&lock, name)).collect();
    println!("cargo::rustc-env=MILLRACE_LIBRARIES={}", versions.join(" "));
}

/// `name=version` for each version of the package in the lock file: a program may hold more than one.
fn versions(lock: &str, name: &str) -> Vec<String> {
    let entry = format!("name = \"{name}\"\nversion = \"");
    let versions = lock.split(entry.as_str()).skip(1).filter_map(|rest| rest.split('"').next());
    versions.map(|version| format!("{name}={version}")).collect()
}
