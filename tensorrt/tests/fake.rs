//! The fake library of `fake.cpp`: compiled once a flavour, then copied for each test, so that each has its own books.

use std::{
    env,
    ffi::c_int,
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;
use tensorrt::{Builder, BuilderConfig, Dims, Flavour, Library, Logger, OnnxParser, Profile, Range};

/// Both flavours, whose headers were there when the crate was compiled.
pub(crate) const FLAVOURS: &[(Flavour, Option<&str>)] = &[
    (Flavour::Rtx, option_env!("TENSORRT_HEADERS_RTX")),
    (Flavour::Enterprise, option_env!("TENSORRT_HEADERS_ENTERPRISE")),
];

/// A copy of the fake, and its books.
pub(crate) struct Fake {
    folder: TempDir,
    books: libloading::Library,
}

impl Fake {
    /// The fakes of all flavours.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let there = FLAVOURS.iter().filter_map(|(flavour, headers)| Some((*flavour, (*headers)?)));
        there.map(|(flavour, headers)| Self::new(flavour, headers))
    }

    pub(crate) fn rtx() -> Self {
        Self::all().next().expect("the crate was compiled with headers of TensorRT-RTX")
    }

    fn new(flavour: Flavour, headers: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [library, parser] = names(flavour).map(|name| folder.path().join(name));
        fs::write(&library, compiled(flavour, headers)).expect("written");
        symlink(&library, parser).expect("linked");
        // SAFETY: The fake's initialisers ask nothing of who opens it.
        let books = unsafe { libloading::Library::new(&library) }.expect("the fake can be opened");
        Self { folder, books }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn open(&self) -> Library {
        Library::open(self.folder()).expect("opened")
    }

    pub(crate) fn builder(&self) -> Builder {
        let logger = Logger::with(&self.open(), |_, _| {}).expect("a logger");
        Builder::new(&logger).expect("a builder")
    }

    /// An engine as bytes.
    pub(crate) fn engine(&self) -> Vec<u8> {
        let builder = self.builder();
        let network = OnnxParser::new(&builder).parse(b"model", None).expect("a network");
        builder.build_serialized_network(&network, &config()).expect("an engine").to_vec()
    }

    /// From now on there is a GPU.
    pub(crate) fn put_gpu(&self) {
        // SAFETY: The fake has it with this type.
        let put = unsafe { self.books.get::<unsafe extern "C" fn()>(b"fake_put_gpu") }.expect("there");
        // SAFETY: It only sets a number, before another thread looks.
        unsafe { put() };
    }

    /// How many objects are alive.
    pub(crate) fn alive(&self) -> c_int {
        self.ask(b"fake_alive")
    }

    /// Asserts that every object has gone, each once, and none before what was made from it.
    pub(crate) fn assert_clean(&self) {
        assert_eq!((self.alive(), self.ask(b"fake_violations")), (0, 0), "alive, and freed wrongly");
    }

    fn ask(&self, name: &[u8]) -> c_int {
        // SAFETY: The fake has it with this type.
        let ask = unsafe { self.books.get::<unsafe extern "C" fn() -> c_int>(name) }.expect("there");
        // SAFETY: It takes nothing and locks what it reads.
        unsafe { ask() }
    }
}

/// One profile for the fake's input, up to 64 rows.
pub(crate) fn config() -> BuilderConfig {
    let rows = |rows| Dims::new(&[rows, 2]).expect("two dimensions");
    let range = Range { min: rows(1), opt: rows(8), max: rows(64) };
    BuilderConfig { profiles: vec![Profile::new().with("ids", range)], ..BuilderConfig::default() }
}

/// The files of a flavour's libraries: TensorRT, and its parser.
pub(crate) fn names(flavour: Flavour) -> [&'static str; 2] {
    match flavour {
        Flavour::Rtx => ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"],
        Flavour::Enterprise => ["libnvinfer.so.11", "libnvonnxparser.so.11"],
    }
}

/// The fake's file, compiled the first time that it is asked for in a process.
fn compiled(flavour: Flavour, headers: &str) -> Vec<u8> {
    static COMPILED: Mutex<Vec<(Flavour, Vec<u8>)>> = Mutex::new(Vec::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, library)) = compiled.iter().find(|(found, _)| *found == flavour) {
        return library.clone();
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("fake.so");
    let mut arguments =
        vec!["-std=c++17", "-g", "-isystem", headers, "-isystem", env!("TENSORRT_HEADERS_CUDA")];
    if env::var_os("MILLRACE_TENSORRT_SANITIZE").is_some() {
        arguments.push("-fsanitize=address");
    }
    run_compiler(Path::new("tests/fake.cpp"), &arguments, &path);
    let library = fs::read(&path).expect("it was compiled");
    compiled.push((flavour, library.clone()));
    library
}

/// Compiles `source`, a path in this crate or an absolute one, into a shared library.
pub(crate) fn run_compiler(source: &Path, arguments: &[&str], library: &Path) {
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let compiler = cc::Build::new()
        .cpp(true)
        .cargo_metadata(false)
        .host(&triple)
        .target(&triple)
        .opt_level(0)
        .get_compiler();
    let output = std::process::Command::new(compiler.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // A sanitizer of this process is none of the compiler's.
        .env_remove("LD_PRELOAD")
        .args(["-shared", "-fPIC", "-pthread"])
        .args(arguments)
        .arg("-o")
        .arg(library)
        .arg(source)
        .output()
        .expect("there is a C++ compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
