//! Our kernels as machine code for one architecture, by NVRTC, and kept in a folder, since compiling them takes seconds.
//!
//! A file of the folder is named for what its code depends on: the source, the compiler's options and the architecture. So
//! what is outdated is never asked for. The compiler's version is not among it, so that NVRTC is only needed for what the
//! folder does not have. The code is followed by its length and its SHA-256, and is compiled anew where they are others. A
//! file is written under another name and then renamed, so it is whole or not there.

use std::{
    ffi::{CStr, CString, c_char},
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
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
        let path = folder.join(file_name(source.text, &self.architecture));
        if let Some(code) = fs::read(&path).ok().and_then(unsealed) {
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
        // SAFETY: NVIDIA's libraries ask nothing of who opens them.
        if !unsafe { sys::is_culib_present() } {
            let reason = format!(
                "cannot be opened, and there is no code of {} for {} that was kept",
                source.name, self.architecture
            );
            return Err(DeviceError { call: "libnvrtc", reason });
        }
        let program = Program::new(source)?;
        // SAFETY: The program was just made, and is not destroyed while it is borrowed.
        let compiled = unsafe { result::compile_program(program.0, &options(&self.architecture)) };
        compiled.map_err(|error| DeviceError {
            call: "nvrtcCompileProgram",
            reason: format!("{} for {}: {error:?}: {}", source.name, self.architecture, program.log()),
        })?;
        program.code()
    }
}

/// What the compiler is told.
fn options(architecture: &str) -> [String; 2] {
    [format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()]
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

/// Where the code of `text` is kept, within the folder.
fn file_name(text: &str, architecture: &str) -> String {
    let mut hash = Sha256::new();
    for part in [text, &options(architecture).join(" ")] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut name = String::new();
    for byte in hash.finalize() {
        write!(name, "{byte:02x}").expect("a string takes everything");
    }
    format!("{name}-{architecture}.cubin")
}

/// What stands behind `code` in its file.
fn seal(code: &[u8]) -> [u8; SEAL_BYTES] {
    let mut seal = [0; SEAL_BYTES];
    seal[..8].copy_from_slice(&(code.len() as u64).to_le_bytes());
    seal[8..].copy_from_slice(&Sha256::digest(code));
    seal
}

/// The code of a file, where it is whole and what was written.
fn unsealed(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let found = file.split_off(file.len().checked_sub(SEAL_BYTES)?);
    (file.starts_with(ELF) && found == seal(&file)).then_some(file)
}

fn keep(path: &Path, code: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut other = PathBuf::from(path);
    other.set_extension(format!("{}.new", process::id()));
    let mut file = File::create(&other)?;
    file.write_all(code)?;
    file.write_all(&seal(code))?;
    // Its contents are to be there before its name is.
    file.sync_all()?;
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

/// A length and a SHA-256.
const SEAL_BYTES: usize = 8 + 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_kept_by_everything_that_it_depends_on() {
        let name = file_name("text", "sm_90");
        assert_eq!(name, file_name("text", "sm_90"));
        assert!(name.ends_with("-sm_90.cubin"), "{name}");
        let others = [file_name("texts", "sm_90"), file_name("text", "sm_80")];
        assert!(!others.contains(&name), "{others:?}");
    }

    #[test]
    fn code_is_kept_in_a_folder_that_is_made_for_it_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("millrace").join("x.cubin");
        for code in [b"\x7fELF1", b"\x7fELF2"] {
            keep(&path, code).expect("kept");
            let file = fs::read(&path).expect("there");
            assert_eq!(unsealed(file).as_deref(), Some(code.as_slice()));
        }
        let files = fs::read_dir(folder.path().join("millrace")).expect("a folder").count();
        assert_eq!(files, 1);
    }

    #[test]
    fn code_that_is_cut_or_changed_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.cubin");
        keep(&path, b"\x7fELF and more").expect("kept");
        let file = fs::read(&path).expect("there");
        for length in 0..file.len() {
            assert_eq!(unsealed(file[..length].to_vec()), None, "{length} bytes");
        }
        for place in 0..file.len() {
            let mut changed = file.clone();
            changed[place] ^= 1;
            assert_eq!(unsealed(changed), None, "byte {place}");
        }
    }

    #[test]
    fn code_that_was_kept_needs_no_compiler() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = Source { text: "text that no compiler takes", ..kernels::GATHER };
        keep(&folder.path().join(file_name(source.text, "sm_90")), b"\x7fELF").expect("kept");
        let compiler = Compiler { architecture: "sm_90".into(), cache: Some(folder.path()) };
        assert_eq!(compiler.code(source), Ok(b"\x7fELF".to_vec()));
        compiler.code(Source { text: "none either", ..kernels::GATHER }).expect_err("it must be compiled");
    }
}
