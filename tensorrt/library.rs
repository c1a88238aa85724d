//! TensorRT's libraries, opened at run time from a folder, and their version, which is asked for before anything else:
//! what a C++ call means depends on it.

use std::{
    ffi::{c_int, c_void},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use libloading::os::unix;

use crate::{Error, sys};

/// TensorRT's libraries of one flavour. Clones are the same libraries.
#[derive(Clone)]
pub struct Library(Arc<Opened>);

struct Opened {
    path: PathBuf,
    version: Version,
    build: &'static Build,
    builder: Factory,
    runtime: Factory,
    parser: Option<ParserFactory>,
    /// Whose the factories are; they are not called after it is gone.
    _libraries: Vec<unix::Library>,
}

/// The libraries' `createInferBuilder_INTERNAL` and `createInferRuntime_INTERNAL`.
pub(crate) type Factory = unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void;
/// The parser's `createNvOnnxParser_INTERNAL`.
pub(crate) type ParserFactory = unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> *mut c_void;

/// The two kinds of TensorRT that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// TensorRT-RTX, version 1: builds without a GPU and finishes the kernels where the engine runs.
    Rtx,
    /// TensorRT, version 11: builds on the kind of GPU that the engine is for.
    Enterprise,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rtx => "TensorRT-RTX",
            Self::Enterprise => "TensorRT",
        })
    }
}

/// A version of a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: i32,
    /// The second number.
    pub minor: i32,
    /// The third number.
    pub patch: i32,
}

impl Version {
    /// From one number, as `getInferLibVersion` counts.
    pub(crate) fn from_number(number: i32) -> Self {
        Self { major: number / 10_000, minor: number / 100 % 100, patch: number % 100 }
    }

    /// Whether what was compiled against headers of `self` can call a library of version `other`: within a major
    /// version a later one only adds at the ends of its tables.
    fn can_call(self, other: Self) -> bool {
        self.major == other.major && other.minor >= self.minor
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Library {
    /// Opens the libraries in `folder`. Whether there is a GPU does not matter.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let there = |build: &&Build| folder.join(build.library).exists();
        let Some(found) = KNOWN.iter().find(there) else {
            return Err(Error::Missing { folder: folder.to_path_buf() });
        };
        let path = folder.join(found.library);
        let library = open(&path)?;
        let version = version(&library, &path)?;
        // The version decides, and not the file's name.
        let build = BUILDS.iter().find(|build| build.version().can_call(version));
        let build = build.ok_or_else(|| Error::Version { path: path.clone(), version, expected: known() })?;
        // SAFETY: TensorRT exports a function of this type under this name, in every version that was let through.
        let builder = unsafe { symbol::<Factory>(&library, &path, "createInferBuilder_INTERNAL") }?;
        // SAFETY: As above.
        let runtime = unsafe { symbol::<Factory>(&library, &path, "createInferRuntime_INTERNAL") }?;
        let mut libraries = vec![library];
        let path_of_parser = folder.join(found.parser);
        let parser = if path_of_parser.exists() {
            let library = open(&path_of_parser)?;
            // SAFETY: As above, of the parser's library.
            let factory =
                unsafe { symbol::<ParserFactory>(&library, &path_of_parser, "createNvOnnxParser_INTERNAL") }?;
            libraries.push(library);
            Some(factory)
        } else {
            None
        };
        Ok(Self(Arc::new(Opened { path, version, build, builder, runtime, parser, _libraries: libraries })))
    }

    /// Where the library is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The library's version.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// The library's flavour.
    pub fn flavour(&self) -> Flavour {
        self.0.build.flavour
    }

    /// The shim for this library.
    pub(crate) fn shim(&self) -> &'static sys::trt_shim {
        self.0.build.shim()
    }

    pub(crate) fn builder_factory(&self) -> Factory {
        self.0.builder
    }

    pub(crate) fn runtime_factory(&self) -> Factory {
        self.0.runtime
    }

    pub(crate) fn parser_factory(&self) -> Result<ParserFactory, Error> {
        self.0.parser.ok_or(Error::NoParser { name: self.0.build.parser })
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.flavour(), self.version(), self.path().display())
    }
}

/// A flavour that the shim was compiled for.
struct Build {
    flavour: Flavour,
    library: &'static str,
    parser: &'static str,
    table: unsafe extern "C" fn() -> *const sys::trt_shim,
}

impl Build {
    fn shim(&self) -> &'static sys::trt_shim {
        // SAFETY: The function takes nothing and answers with the address of a constant.
        let table = unsafe { (self.table)() };
        // SAFETY: The constant is never written to, and is there as long as the program.
        unsafe { &*table }
    }

    /// The version of the headers.
    fn version(&self) -> Version {
        Version::from_number(self.shim().version)
    }
}

const RTX: Build = Build {
    flavour: Flavour::Rtx,
    library: "libtensorrt_rtx.so.1",
    parser: "libtensorrt_onnxparser_rtx.so.1",
    #[cfg(tensorrt_rtx)]
    table: sys::millrace_tensorrt_rtx,
    #[cfg(not(tensorrt_rtx))]
    table: sys::millrace_tensorrt_enterprise,
};

const ENTERPRISE: Build = Build {
    flavour: Flavour::Enterprise,
    library: "libnvinfer.so.11",
    parser: "libnvonnxparser.so.11",
    #[cfg(tensorrt_enterprise)]
    table: sys::millrace_tensorrt_enterprise,
    #[cfg(not(tensorrt_enterprise))]
    table: sys::millrace_tensorrt_rtx,
};

/// The file names to look for, TensorRT-RTX's first.
static KNOWN: &[Build] = &[RTX, ENTERPRISE];

/// The flavours whose headers were there when this was compiled.
static BUILDS: &[Build] = &[
    #[cfg(tensorrt_rtx)]
    RTX,
    #[cfg(tensorrt_enterprise)]
    ENTERPRISE,
];

/// The versions that fit, in words.
fn known() -> String {
    let one = |build: &Build| {
        let Version { major, minor, .. } = build.version();
        format!("{} {major} from {major}.{minor} on", build.flavour)
    };
    BUILDS.iter().map(one).collect::<Vec<_>>().join(" or ")
}

fn open(path: &Path) -> Result<unix::Library, Error> {
    // A library with threads and thread-local objects of its own must not be unmapped while the process lives.
    const NODELETE: c_int = 0x1000;
    let flags = unix::RTLD_NOW | unix::RTLD_LOCAL | NODELETE;
    // SAFETY: The initialisers of TensorRT's libraries ask nothing of who opens them. Which file that is is the
    // operator's choice, as for every library that is opened at run time.
    let library = unsafe { unix::Library::open(Some(path), flags) };
    library.map_err(|source| Error::Open { path: path.to_path_buf(), source })
}

fn version(library: &unix::Library, path: &Path) -> Result<Version, Error> {
    // SAFETY: Every version of both flavours exports this function with this type.
    let version = unsafe { symbol::<unsafe extern "C" fn() -> c_int>(library, path, "getInferLibVersion") }?;
    // SAFETY: It takes nothing and needs nothing to be set up.
    Ok(Version::from_number(unsafe { version() }))
}

/// The function `name` of `library`.
///
/// # Safety
/// It has the type `T`, and the caller keeps `library` as long as it calls it.
unsafe fn symbol<T: Copy>(library: &unix::Library, path: &Path, name: &str) -> Result<T, Error> {
    // SAFETY: The caller's.
    let symbol = unsafe { library.get::<T>(name.as_bytes()) };
    let symbol = symbol.map_err(|source| Error::Open { path: path.to_path_buf(), source })?;
    Ok(*symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_one_number() {
        assert_eq!(Version::from_number(10_701).to_string(), "1.7.1");
        assert_eq!(Version::from_number(110_400).to_string(), "11.4.0");
    }

    #[test]
    fn later_minor_versions_can_be_called_and_others_cannot() {
        let version = |major, minor| Version { major, minor, patch: 3 };
        assert!(version(1, 7).can_call(version(1, 7)));
        assert!(version(1, 7).can_call(version(1, 9)));
        for other in [version(1, 6), version(2, 0), version(11, 4), version(0, 0)] {
            assert!(!version(1, 7).can_call(other), "{other}");
        }
    }
}
