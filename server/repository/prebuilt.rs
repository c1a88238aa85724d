//! Engines of TensorRT's that were built ahead of time, `engines.toml` in a version's folder, and which of them is for a
//! machine. The trainer writes the record with the engines:
//!
//! ```text
//! <version>/model.engine         of model.onnx
//! <version>/model.fp16.engine    of model.fp16.onnx, where there is one
//! <version>/engines.toml         what built them, for which GPUs, batches and tensors, and from which files
//! ```
//!
//! The record is a file of its own and not part of the manifest: an engine is derived from what the manifest vouches
//! for, a server without a GPU need not know of it, and the manifest lists it like every other file.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::manifest::FileRecord;
use crate::{
    engine::{
        EngineError,
        cuda::Precision,
        tensorrt::{Machine, check_rows, check_tensors},
    },
    tensor::Signature,
};

pub use crate::engine::tensorrt::{ShapeRange, TensorRecord};

/// Why no engine of a version can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrebuiltError {
    /// There are none.
    #[error(
        "the version has no engines.toml; `millrace-trainer export --tensorrt` builds engines into an artifact before it \
         is published"
    )]
    Absent,
    /// A file is unreadable.
    #[error("{}: cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The record is not what this version of the program reads.
    #[error("engines.toml: {0}")]
    Syntax(#[source] Box<toml::de::Error>),
    /// No engine was built from the model in the precision that is asked for.
    #[error("engines.toml has no engine of {0}")]
    Source(&'static str),
    /// A file is not the one that was recorded with the engine.
    #[error("engines.toml: {0} is another file than the engine's record says")]
    Changed(String),
    /// The engine does not take what the model takes.
    #[error("{file}")]
    Engine {
        /// The engine's file.
        file: String,
        /// What is wrong.
        #[source]
        source: EngineError,
    },
    /// The engines are for another library.
    #[error("the engines are for {built}, which has to run them too, and here is {here}")]
    Library {
        /// Flavour and version of what built them.
        built: String,
        /// Flavour and version of what is here.
        here: String,
    },
    /// The engines are for other GPUs.
    #[error("the engines are for GPUs of compute capability {built}, and this one is of {here}")]
    Gpu {
        /// What they were built for.
        built: String,
        /// What is here.
        here: String,
    },
}

/// The contents of `engines.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engines {
    /// `TensorRT-RTX` or `TensorRT`.
    pub flavour: String,
    /// The version of the library that built them, which has to run them too.
    pub version: String,
    /// The GPUs that they are for; empty where they are for the one that they were built on.
    pub compute_capabilities: Vec<String>,
    /// The engines.
    #[serde(rename = "engine")]
    pub engines: Vec<EngineRecord>,
}

/// What an engine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRecord {
    /// Its file in the version's folder.
    pub file: String,
    /// What the file must be.
    pub record: FileRecord,
    /// The ONNX file that it was built from, and what that keeps in other files.
    pub sources: BTreeMap<String, FileRecord>,
    /// Inputs, in the order of the ONNX graph.
    pub inputs: Vec<TensorRecord>,
    /// Outputs, in the order of the ONNX graph.
    pub outputs: Vec<TensorRecord>,
    /// For each profile the shapes that each input can have.
    pub profiles: Vec<BTreeMap<String, ShapeRange>>,
}

/// What an engine is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What it computes in: half precision is that of the FP16 model.
    pub precision: Precision,
    /// The version's inputs and output.
    pub signature: &'a Signature,
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// The version's files, as its manifest has them, which has been held against them.
    pub files: &'a BTreeMap<String, FileRecord>,
}

impl Engines {
    /// The record's file name.
    pub const FILE: &str = "engines.toml";
    /// ONNX files, and the engines that are built from them: the model's own, and that in half precision.
    pub const SOURCES: [(&str, &str); 2] =
        [("model.onnx", "model.engine"), ("model.fp16.onnx", "model.fp16.engine")];

    /// Reads the record in a version's folder.
    pub fn read(folder: &Path) -> Result<Self, PrebuiltError> {
        let file = folder.join(Self::FILE);
        let text = fs::read_to_string(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => PrebuiltError::Absent,
            _ => PrebuiltError::Read { file, source },
        })?;
        toml::from_str(&text).map_err(|error| PrebuiltError::Syntax(Box::new(error)))
    }

    /// Writes the record into a version's folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        fs::write(folder.join(Self::FILE), text)
    }

    /// The engine that is `wanted`, of the version's own model as it is; it may still be for other machines.
    pub fn find(&self, wanted: Wanted<'_>) -> Result<&EngineRecord, PrebuiltError> {
        let [single, half] = Self::SOURCES;
        let (source, _) = match wanted.precision {
            Precision::Single => single,
            Precision::Half => half,
        };
        let engine = self.engines.iter().find(|engine| engine.sources.contains_key(source));
        let engine = engine.ok_or(PrebuiltError::Source(source))?;
        for (file, record) in engine.sources.iter().chain([(&engine.file, &engine.record)]) {
            if wanted.files.get(file) != Some(record) {
                return Err(PrebuiltError::Changed(file.clone()));
            }
        }
        let unfit = |source| PrebuiltError::Engine { file: engine.file.clone(), source };
        check_tensors(&engine.inputs, &engine.outputs, wanted.signature).map_err(unfit)?;
        let none = BTreeMap::new();
        let ranges = engine.profiles.first().unwrap_or(&none);
        check_rows(ranges, wanted.signature, wanted.max_rows).map_err(unfit)?;
        Ok(engine)
    }

    /// Whether `machine` can run the engines.
    pub fn check(&self, machine: &Machine) -> Result<(), PrebuiltError> {
        let built = format!("{} {}", self.flavour, self.version);
        let here = format!("{} {}", machine.flavour, machine.version);
        if built != here {
            return Err(PrebuiltError::Library { built, here });
        }
        let (major, minor) = machine.capability;
        let here = format!("{major}.{minor}");
        // One that was built on a GPU does not say for which; the library knows.
        if self.compute_capabilities.is_empty() || self.compute_capabilities.contains(&here) {
            return Ok(());
        }
        Err(PrebuiltError::Gpu { built: self.compute_capabilities.join(", "), here })
    }
}

impl EngineRecord {
    /// The engine's bytes.
    pub fn read(&self, folder: &Path) -> Result<Vec<u8>, PrebuiltError> {
        let file = folder.join(&self.file);
        fs::read(&file).map_err(|source| PrebuiltError::Read { file, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, TensorSpec};

    fn file(name: &str) -> FileRecord {
        FileRecord { bytes: 4, sha256: format!("of {name}") }
    }

    fn engine(source: &str, engine: &str) -> EngineRecord {
        let shape = |rows| vec![rows, 2];
        let range = ShapeRange { min: shape(1), opt: shape(256), max: shape(4096) };
        let tensor = |name: &str, dtype: &str, shape: &[i64]| TensorRecord {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.into(),
        };
        EngineRecord {
            file: engine.into(),
            record: file(engine),
            sources: [(source.to_owned(), file(source))].into(),
            inputs: vec![tensor("ids", "i32", &[-1, 2])],
            outputs: vec![tensor("probability", "f32", &[-1, 1])],
            profiles: vec![[("ids".to_owned(), range)].into()],
        }
    }

    fn engines() -> Engines {
        let [single, half] = Engines::SOURCES;
        Engines {
            flavour: "TensorRT-RTX".into(),
            version: "1.7.1".into(),
            compute_capabilities: vec!["8.0".into(), "8.9".into()],
            engines: vec![engine(single.0, single.1), engine(half.0, half.1)],
        }
    }

    fn signature() -> Signature {
        let ids = TensorSpec { name: "ids".into(), dtype: DType::I32, width: 2 };
        Signature { inputs: vec![ids], output: "probability".into() }
    }

    fn files() -> BTreeMap<String, FileRecord> {
        let names = Engines::SOURCES.into_iter().flat_map(|(source, engine)| [source, engine]);
        names.map(|name| (name.to_owned(), file(name))).collect()
    }

    /// The error and what it comes from, in one line.
    fn said(error: &dyn std::error::Error) -> String {
        let causes = std::iter::successors(Some(error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Engines::read(folder.path()).expect_err("not there");
        assert!(matches!(error, PrebuiltError::Absent) && error.to_string().contains("export --tensorrt"));
        engines().write(folder.path()).expect("written");
        assert_eq!(Engines::read(folder.path()).expect("a record"), engines());
        fs::write(folder.path().join(Engines::FILE), "flavour = 1").expect("written");
        assert!(matches!(Engines::read(folder.path()), Err(PrebuiltError::Syntax(_))));
    }

    #[test]
    fn the_engine_of_the_precision_is_found_unless_it_is_not_the_version_s() {
        type Change = fn(&mut Engines, &mut BTreeMap<String, FileRecord>, &mut Signature);
        let find = |precision, max_rows, change: Change| {
            let (mut engines, mut files, mut signature) = (engines(), files(), signature());
            change(&mut engines, &mut files, &mut signature);
            let wanted = Wanted { precision, signature: &signature, max_rows, files: &files };
            engines.find(wanted).map(|engine| engine.file.clone()).map_err(|error| said(&error))
        };
        let (single, half) = (Precision::Single, Precision::Half);
        let cases: [(_, _, Change, Result<&str, &str>); 10] = [
            (single, 4096, |_, _, _| {}, Ok("model.engine")),
            (half, 1, |_, _, _| {}, Ok("model.fp16.engine")),
            (
                half,
                1,
                |it, _, _| drop(it.engines.pop()),
                Err("engines.toml has no engine of model.fp16.onnx"),
            ),
            (single, 1, |it, _, _| it.engines.clear(), Err("engines.toml has no engine of model.onnx")),
            (
                single,
                1,
                |_, files, _| files.get_mut("model.onnx").expect("there").bytes = 5,
                Err("engines.toml: model.onnx is another file than the engine's record says"),
            ),
            (
                single,
                1,
                |it, _, _| it.engines[0].record.sha256 = "of another".into(),
                Err("engines.toml: model.engine is another file than the engine's record says"),
            ),
            (
                single,
                1,
                |it, _, _| it.engines[0].file = "../model.engine".into(),
                Err("engines.toml: ../model.engine is another file than the engine's record says"),
            ),
            (
                single,
                1,
                |_, _, signature| signature.inputs[0].width = 3,
                Err(
                    "model.engine: the model does not fit its signature: inputs `ids` i32 [-1, 2]; declared `ids` \
                     i32 [-1, 3]",
                ),
            ),
            (
                single,
                4097,
                |_, _, _| {},
                Err(
                    "model.engine: the engine is for batches of 1 to 4096 rows, and the model's have up to 4097",
                ),
            ),
            (
                single,
                1,
                |it, _, _| it.engines[0].profiles.clear(),
                Err(
                    "model.engine: the model does not fit its signature: the engine has no range of batches for \
                     the input `ids`",
                ),
            ),
        ];
        for (precision, max_rows, change, expected) in cases {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(find(precision, max_rows, change), expected);
        }
    }

    #[test]
    fn engines_run_by_what_built_them_on_gpus_that_they_are_for() {
        let check = |flavour: &str, version: &str, capability, change: fn(&mut Engines)| {
            let mut engines = engines();
            change(&mut engines);
            let machine = Machine { flavour: flavour.into(), version: version.into(), capability };
            engines.check(&machine).map_err(|error| error.to_string())
        };
        let rtx = "TensorRT-RTX";
        assert_eq!(check(rtx, "1.7.1", (8, 9), |_| {}), Ok(()));
        assert_eq!(check(rtx, "1.7.1", (9, 0), |it| it.compute_capabilities.clear()), Ok(()));
        for (flavour, version, capability, expected) in [
            (
                rtx,
                "1.8.0",
                (8, 9),
                "the engines are for TensorRT-RTX 1.7.1, which has to run them too, and here is TensorRT-RTX 1.8.0",
            ),
            (
                "TensorRT",
                "1.7.1",
                (8, 9),
                "the engines are for TensorRT-RTX 1.7.1, which has to run them too, and here is TensorRT 1.7.1",
            ),
            (
                rtx,
                "1.7.1",
                (9, 0),
                "the engines are for GPUs of compute capability 8.0, 8.9, and this one is of 9.0",
            ),
        ] {
            assert_eq!(check(flavour, version, capability, |_| {}), Err(expected.to_owned()));
        }
    }
}
