//! A folder with no library, or with one that does not fit.

use std::fs;

use tensorrt::{Error, Flavour, Library};

use crate::fake::{Fake, names, run_compiler};

#[test]
fn each_flavour_is_known_by_its_version() {
    let found: Vec<_> = Fake::all()
        .map(|fake| fake.open())
        .map(|library| (library.flavour(), library.version().major))
        .collect();
    assert_eq!(found, [(Flavour::Rtx, 1), (Flavour::Enterprise, 11)]);
}

#[test]
fn a_missing_library_is_one_sentence_with_the_command_that_brings_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = Library::open(folder.path()).expect_err("nothing there");
    let expected = format!(
        "there is no TensorRT library in {}: `make tensorrt` brings TensorRT-RTX and prints its folder, which \
         MILLRACE_TENSORRT then names",
        folder.path().display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_file_that_is_no_library_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(names(Flavour::Rtx)[0]);
    fs::write(&path, "text").expect("written");
    let error = Library::open(folder.path()).expect_err("no library");
    assert!(matches!(error, Error::Open { .. }));
    assert_eq!(
        error.to_string(),
        format!("{} cannot be opened; `make tensorrt` brings one that can", path.display())
    );
}

#[test]
fn a_version_that_fits_no_flavour_is_refused_before_anything_is_called() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("version.cpp");
    // It has no factories, so that a test that passes has called none.
    fs::write(&source, "extern \"C\" int getInferLibVersion() { return 10300; }").expect("written");
    let path = folder.path().join(names(Flavour::Rtx)[0]);
    run_compiler(&source, &[], &path);
    let error = Library::open(folder.path()).expect_err("too old").to_string();
    let expected = format!(
        "{} is version 1.3.0 of TensorRT, and TensorRT-RTX 1 from 1.7 on or TensorRT 11 from 11.4 on is needed; `make \
         tensorrt` brings a version that fits",
        path.display()
    );
    assert_eq!(error, expected);
}
