//! Our kernels as machine code for one architecture, by NVRTC, and kept in a folder, since compiling them takes seconds.
//!
//! A file of the folder is named for everything that its code depends on: the source, the architecture, the compiler's
//! version. So what is there is right, and what is outdated is never asked for. It is written under another name and then
//! renamed, so a file is whole or not there.

use std::{
    ffi::{CStr, CString, c_char},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process,
};

use cudarc::nvrtc::{
    result::{self, NvrtcError},
    sys,
};
use kernels::Source;
use sha2::{Digest, Sha256};

use super::device::DeviceError;

/// NVRTC, for one architecture.
pub(super) struct Compiler<'a> {
    /// As `sm_90`.
    pub(super) architecture: String,
    /// Where code is kept.
    pub(super) cache: Option<&'a Path>,
}

impl Compiler<'_> {
    /// The machine code of a file of kernels.
    pub(super) fn code(&self, source: Source) -> Result<Vec<u8>, DeviceError> {
        let Some(folder) = self.cache else { return self.compile(source) };
        let path = folder.join(file_name(source.text, &self.architecture, version()?));
        if let Ok(code) = fs::read(&path)
            && code.starts_with(ELF)
        {
            return Ok(code);
        }
        let code = self.compile(source)?;
        if let Err(error) = keep(&path, &code) {
            // The next start compiles again.
            tracing::warn!(path = %path.display(), %error, "compiled kernels cannot be kept");
        }
        Ok(code)
    }

    fn compile(&self, source: Source) -> Result<Vec<u8>, DeviceError> {
        let program = Program::new(source)?;
        let options = [format!("--gpu-architecture={}", self.architecture), "--std=c++17".to_owned()];
        // SAFETY: The program was just made, and is not destroyed while it is borrowed.
        let compiled = unsafe { result::compile_program(program.0, &options) };
        compiled.map_err(|error| DeviceError {
            call: "nvrtcCompileProgram",
            reason: format!("{} for {}: {error:?}: {}", source.name, self.architecture, program.log()),
        })?;
        program.code()
    }
}

/// A program of NVRTC's.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new(source: Source) -> Result<Self, DeviceError> {
        let text = CString::new(source.text).expect("a source is text");
        let name = CString::new(source.name).expect("a name is text");
        result::create_program(&text, Some(&name)).map(Self).map_err(failed("nvrtcCreateProgram"))
    }

    /// What the compiler has to say.
    fn log(&self) -> String {
        // SAFETY: The program is not destroyed while it is borrowed.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        text_of(&log)
    }

    fn code(&self) -> Result<Vec<u8>, DeviceError> {
        let mut bytes = 0;
        // SAFETY: The program is not destroyed while it is borrowed, and the number is this function's.
        let size = unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut bytes) };
        size.result().map_err(failed("nvrtcGetCUBINSize"))?;
        let mut code = vec![0_u8; bytes];
        // SAFETY: As above, and the buffer is as large as was just said.
        let got = unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()) };
        got.result().map_err(failed("nvrtcGetCUBIN"))?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: It was made by NVRTC and nobody else has it. Nothing is lost with it but memory.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// The compiler's version.
fn version() -> Result<(i32, i32), DeviceError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: Both numbers are this function's.
    let result = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    result.result().map_err(failed("nvrtcVersion"))?;
    Ok((major, minor))
}

/// Where the code of `text` is kept, within the folder.
fn file_name(text: &str, architecture: &str, (major, minor): (i32, i32)) -> String {
    let mut name = String::new();
    for byte in Sha256::digest(text) {
        write!(name, "{byte:02x}").expect("a string takes everything");
    }
    format!("{name}-{architecture}-nvrtc-{major}.{minor}.cubin")
}

fn keep(path: &Path, code: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut other = PathBuf::from(path);
    other.set_extension(format!("{}.new", process::id()));
    fs::write(&other, code)?;
    fs::rename(other, path)
}

fn failed(call: &'static str) -> impl FnOnce(NvrtcError) -> DeviceError {
    move |error| DeviceError { call, reason: format!("{error:?}") }
}

/// The text of what ends in a zero.
fn text_of(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|byte| byte.to_ne_bytes()[0]).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy);
    text.map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// What machine code begins with.
const ELF: &[u8] = b"\x7fELF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_kept_by_everything_that_it_depends_on() {
        let name = file_name("text", "sm_90", (13, 0));
        assert_eq!(name, file_name("text", "sm_90", (13, 0)));
        assert!(name.ends_with("-sm_90-nvrtc-13.0.cubin"), "{name}");
        let others = [
            file_name("texts", "sm_90", (13, 0)),
            file_name("text", "sm_80", (13, 0)),
            file_name("text", "sm_90", (13, 1)),
        ];
        assert!(!others.contains(&name), "{others:?}");
    }

    #[test]
    fn code_is_kept_in_a_folder_that_is_made_for_it_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("millrace").join("x.cubin");
        for code in [b"\x7fELF1", b"\x7fELF2"] {
            keep(&path, code).expect("kept");
            assert_eq!(fs::read(&path).expect("there"), code);
        }
        let files = fs::read_dir(folder.path().join("millrace")).expect("a folder").count();
        assert_eq!(files, 1);
    }
}
