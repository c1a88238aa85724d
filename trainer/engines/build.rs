//! The part that calls TensorRT.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use millrace::repository::manifest::{FileRecord, Manifest};
use tensorrt::{
    Builder, BuilderConfig, ComputeCapability, Dims, Flavour, HostMemory, Library, Logger, Network,
    OnnxParser, Profile, Range, Runtime, Tensor, Verdict,
};

use super::{Built, EngineOptions, EngineRecord, Engines, EnginesError, ShapeRange, TensorRecord};

/// See [`super::build`].
pub(super) fn build(
    folder: &Path,
    options: &EngineOptions,
    say: &mut dyn FnMut(&str),
) -> Result<Built, EnginesError> {
    if folder.join(Manifest::FILE).exists() {
        return Err(EnginesError::Published(folder.to_path_buf()));
    }
    let libraries = options.libraries.as_deref().ok_or(EnginesError::NoFolder)?;
    let library = Library::open(libraries)?;
    say(&format!("{} {} at {}", library.flavour(), library.version(), library.path().display()));
    let logger = Logger::new(&library)?;
    let capabilities = capabilities(&library, &options.compute_capabilities)?;
    let mut work = Work {
        folder,
        builder: Builder::new(&logger)?,
        runtime: Runtime::new(&logger)?,
        config: BuilderConfig { compute_capabilities: capabilities, ..BuilderConfig::default() },
        max_rows: options.max_batch_rows.into(),
        say,
    };
    if let Some(model) = &options.fp16_onnx {
        work.take_fp16(model)?;
    }
    work.build(&library)
}

/// One build of a version's engines.
struct Work<'a> {
    folder: &'a Path,
    builder: Builder,
    runtime: Runtime,
    config: BuilderConfig,
    max_rows: i64,
    say: &'a mut dyn FnMut(&str),
}

/// An engine that was written, and what is known of it without its file.
struct Written {
    source: &'static str,
    file: &'static str,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    profile: Profile,
    verdict: String,
    seconds: f64,
}

impl Work<'_> {
    /// Takes an FP16 model into the version, unless it is there already.
    fn take_fp16(&self, model: &Path) -> Result<(), EnginesError> {
        let [_, (source, _)] = Engines::SOURCES;
        let to = self.folder.join(source);
        let same = fs::canonicalize(model).ok() == fs::canonicalize(&to).ok();
        if !same || !to.exists() {
            fs::copy(model, &to).map_err(file_error(model))?;
        }
        Ok(())
    }

    fn build(&mut self, library: &Library) -> Result<Built, EnginesError> {
        let [(model, _), _] = Engines::SOURCES;
        if !self.folder.join(model).is_file() {
            return Err(EnginesError::NoModel(self.folder.to_path_buf()));
        }
        // A build that fails half way leaves no record that is of other files.
        remove(&self.folder.join(Engines::FILE))?;
        let mut written = Vec::new();
        for (source, file) in Engines::SOURCES {
            if self.folder.join(source).is_file() {
                written.push(self.engine(source, file)?);
            } else {
                // Of a model that is no longer there: nothing would say what it is.
                remove(&self.folder.join(file))?;
            }
        }
        let seconds = written.iter().map(|engine| engine.seconds).collect();
        let verdicts = written.iter().map(|engine| engine.verdict.clone()).collect();
        let files = Manifest::record_files(self.folder)?;
        let engines = Engines {
            flavour: library.flavour().to_string(),
            version: library.version().to_string(),
            compute_capabilities: self.config.compute_capabilities.iter().map(ToString::to_string).collect(),
            engines: written.into_iter().map(|engine| engine.record(&files)).collect(),
        };
        engines.write(self.folder).map_err(file_error(&self.folder.join(Engines::FILE)))?;
        let again = Engines::read(self.folder)?;
        if again != engines {
            let why = "does not read as it was written".to_owned();
            return Err(EnginesError::Engine { file: Engines::FILE.to_owned(), why });
        }
        Ok(Built { engines: again, seconds, verdicts })
    }

    /// Builds one engine, writes it, and reads it back.
    fn engine(&mut self, source: &'static str, file: &'static str) -> Result<Written, EnginesError> {
        let start = Instant::now();
        let network = OnnxParser::new(&self.builder).parse_file(&self.folder.join(source))?;
        let (inputs, outputs) = (network.inputs()?, network.outputs()?);
        let profile = profile(source, &inputs, self.max_rows)?;
        let engine = self.serialize(&network, &profile)?;
        let seconds = start.elapsed().as_secs_f64();
        let path = self.folder.join(file);
        fs::write(&path, &*engine).map_err(file_error(&path))?;
        let mut written = Written { source, file, inputs, outputs, profile, verdict: String::new(), seconds };
        written.verdict = self.prove(&path, &written, &engine)?;
        (self.say)(&format!(
            "{file}: {} bytes in {seconds:.2} s, for batches of up to {} rows; {}",
            engine.len(),
            self.max_rows,
            written.verdict
        ));
        Ok(written)
    }

    fn serialize(&self, network: &Network, profile: &Profile) -> Result<HostMemory, EnginesError> {
        let config = BuilderConfig { profiles: vec![profile.clone()], ..self.config.clone() };
        Ok(self.builder.build_serialized_network(network, &config)?)
    }

    /// Holds the file against what was built, and, where the engine can run on this machine, against what it was built
    /// from. Says what the header said of it.
    fn prove(&self, path: &Path, written: &Written, built: &[u8]) -> Result<String, EnginesError> {
        let engine = fs::read(path).map_err(file_error(path))?;
        let wrong = |why| EnginesError::Engine { file: written.file.to_owned(), why };
        if engine != built {
            return Err(wrong("does not read as it was written".to_owned()));
        }
        if self.builder.library().flavour() == Flavour::Rtx {
            let validity = self.runtime.engine_validity(&engine)?;
            match validity.verdict {
                Verdict::Valid | Verdict::Suboptimal => {}
                Verdict::Unjudged => return Ok(validity.to_string()),
                // An engine for other GPUs is as good as any.
                Verdict::Invalid if validity.is_for_other_gpus() => return Ok(validity.to_string()),
                Verdict::Invalid => return Err(wrong(validity.to_string())),
            }
        }
        let engine = self.runtime.deserialize(&engine)?;
        let mut found = engine.tensors()?;
        let mut expected: Vec<_> = written.inputs.iter().chain(&written.outputs).cloned().collect();
        for tensors in [&mut found, &mut expected] {
            tensors.sort_by(|left, right| left.name.cmp(&right.name));
        }
        if found != expected {
            return Err(wrong(format!("its tensors are {found:?} and not {expected:?}")));
        }
        for (input, range) in written.profile.ranges() {
            let name = std::ffi::CString::new(input).map_err(|_| tensorrt::Error::Name(input.to_owned()))?;
            let found = engine.profile_range(&name, 0)?;
            if found != *range {
                return Err(wrong(format!("its profile of {input} is {found:?} and not {range:?}")));
            }
        }
        Ok("runs on this machine's GPU".to_owned())
    }
}

impl Written {
    /// The record of it; `files` are those of the version.
    fn record(self, files: &BTreeMap<String, FileRecord>) -> EngineRecord {
        let file = |name: &str| files.get(name).cloned().expect("it is in the folder");
        // Exporters keep large tables in a file of this name.
        let external = format!("{}.data", self.source);
        let names = [self.source, external.as_str()];
        let sources = names.iter().filter(|name| files.contains_key(**name));
        let range = |range: &Range| ShapeRange {
            min: range.min.as_slice().to_vec(),
            opt: range.opt.as_slice().to_vec(),
            max: range.max.as_slice().to_vec(),
        };
        let profile = self.profile.ranges().map(|(input, found)| (input.to_owned(), range(found)));
        EngineRecord {
            file: self.file.to_owned(),
            record: file(self.file),
            sources: sources.map(|name| ((*name).to_owned(), file(name))).collect(),
            inputs: self.inputs.iter().map(tensor_record).collect(),
            outputs: self.outputs.iter().map(tensor_record).collect(),
            profiles: vec![profile.collect()],
        }
    }
}

fn tensor_record(tensor: &Tensor) -> TensorRecord {
    TensorRecord {
        name: tensor.name.clone(),
        dtype: tensor.data_type.name().to_owned(),
        shape: tensor.dims.as_slice().to_vec(),
    }
}

/// The profile of a model whose inputs are `[rows, ...]`.
fn profile(model: &str, inputs: &[Tensor], max_rows: i64) -> Result<Profile, EnginesError> {
    let mut profile = Profile::new();
    for input in inputs {
        let [-1, sizes @ ..] = input.dims.as_slice() else {
            return Err(shape_error(model, input));
        };
        if sizes.iter().any(|&size| size < 1) {
            return Err(shape_error(model, input));
        }
        let dims = |rows| Dims::new(&[&[rows], sizes].concat());
        let range = Range { min: dims(1)?, opt: dims(OPT_ROWS.min(max_rows))?, max: dims(max_rows)? };
        profile = profile.with(input.name.clone(), range);
    }
    Ok(profile)
}

fn shape_error(model: &str, input: &Tensor) -> EnginesError {
    EnginesError::Shape { model: model.to_owned(), input: input.name.clone(), shape: input.dims.to_string() }
}

/// The GPUs to build for: those that were asked for, or else [`DEFAULT_CAPABILITIES`].
fn capabilities(library: &Library, asked: &[String]) -> Result<Vec<ComputeCapability>, EnginesError> {
    if asked.is_empty() && library.flavour() == Flavour::Rtx {
        return Ok(DEFAULT_CAPABILITIES.to_vec());
    }
    let known = || ComputeCapability::ALL.map(|capability| capability.to_string()).join(", ");
    let find = |found: &String| {
        let capability = ComputeCapability::ALL.into_iter().find(|known| known.to_string() == *found);
        capability.ok_or_else(|| EnginesError::ComputeCapability { found: found.clone(), known: known() })
    };
    asked.iter().map(find).collect()
}

fn remove(file: &Path) -> Result<(), EnginesError> {
    match fs::remove_file(file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(file_error(file)(source)),
        _ => Ok(()),
    }
}

fn file_error(file: &Path) -> impl FnOnce(io::Error) -> EnginesError + use<> {
    let file = PathBuf::from(file);
    move |source| EnginesError::File { file, source }
}

/// The batch that kernels are chosen for: up to here a GPU takes as long for fewer rows.
const OPT_ROWS: i64 = 256;
/// Turing, 7.5, is not among them: for it TensorRT-RTX 1.7 refuses products of F32, which every model here has.
const DEFAULT_CAPABILITIES: [ComputeCapability; 4] =
    [ComputeCapability::Sm80, ComputeCapability::Sm86, ComputeCapability::Sm89, ComputeCapability::Sm120];

#[cfg(test)]
mod tests {
    use tensorrt::DataType;

    use super::*;

    fn input(sizes: &[i64]) -> Tensor {
        let dims = Dims::new(sizes).expect("few dimensions");
        Tensor { name: "ids".into(), data_type: DataType::I32, dims, is_input: true }
    }

    #[test]
    fn a_profile_covers_every_batch_and_is_tuned_for_one_that_is_not_larger() {
        for (max, opt) in [(4096, 256), (64, 64), (1, 1)] {
            let profile = profile("model.onnx", &[input(&[-1, 2])], max).expect("a profile");
            let (name, range) = profile.ranges().next().expect("an input");
            assert_eq!(name, "ids");
            let sizes = [range.min, range.opt, range.max];
            assert_eq!(sizes.map(|dims| dims.as_slice().to_vec()), [vec![1, 2], vec![opt, 2], vec![max, 2]]);
        }
    }

    #[test]
    fn an_input_may_only_differ_in_its_rows() {
        for sizes in [[-1, -1].as_slice(), &[8, 2], &[]] {
            let error = profile("model.onnx", &[input(sizes)], 64).expect_err("refused").to_string();
            let shape = format!("{sizes:?}");
            assert_eq!(
                error,
                format!(
                    "model.onnx: the input ids is {shape}, and only its rows may differ from batch to batch"
                )
            );
        }
    }
}
