//! An ONNX model as files: the model, and beside it a file for the tables that are too large to lie within, for
//! protobuf ends at 2 GiB. Tables go there and come from there as streams, so that none is in memory twice.
//!
//! Each starts at a page boundary, which lets a runtime map them: several instances and versions then share one copy in
//! memory.
//!
//! Source: onnx.proto, `TensorProto.external_data`; <https://onnx.ai/onnx/repo-docs/ExternalData.html>.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Component, Path, PathBuf},
};

use onnx_rs::ast::{DataLocation, DataType, Graph, Model, StringStringEntry, TensorProto};

/// Why a model cannot be written to files or read from them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A file cannot be read.
    #[error("{path}: cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{path}: cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is no ONNX model.
    #[error("{path}: is no ONNX model")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: onnx_rs::Error,
    },
    /// A tensor says of itself what cannot be.
    #[error("the tensor `{tensor}` {what}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The model is too large for protobuf even without its tables.
    #[error("{path}: would be of {bytes} bytes, over protobuf's 2 GiB; let smaller tables lie beside it")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: usize,
    },
}

/// Tables of more bytes than this lie beside the model unless the pipeline says otherwise. It is far below what
/// protobuf can hold, because only what lies beside is mapped and shared.
pub const MAX_INLINE_BYTES: u64 = 1 << 20;

/// Where the tables of the model at `path` lie: in the file of the same name and `.data`.
pub fn tables_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".data");
    name.into()
}

/// Writes `model` to `path`, and those of its initialisers that are of more than `max_inline_bytes` beside it.
/// `contents` writes the bytes of an initialiser, by its index; it is asked for those that go beside, and for those
/// that do not but whose bytes are not in `model` either. What lay there from before is replaced.
pub fn write<E: From<FileError>>(
    model: &Model<'_>,
    path: &Path,
    max_inline_bytes: u64,
    contents: impl FnMut(usize, &mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let tensors = model.graph.as_ref().map_or(&[][..], |graph| &graph.initializer);
    let tables = Tables { path: tables_path(path), file: None };
    let (places, tables) = tables.place_all(tensors, max_inline_bytes, contents)?;
    let location = tables.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    tables.finish()?;
    let initializer =
        tensors.iter().zip(&places).map(|(tensor, place)| place.tensor(tensor, &location)).collect();
    let graph = model.graph.as_ref().map(|graph| Graph { initializer, ..graph.clone() });
    let bytes = onnx_rs::encode(&Model { graph, ..model.clone() });
    if i32::try_from(bytes.len()).is_err() {
        return Err(FileError::TooLarge { path: path.to_path_buf(), bytes: bytes.len() }.into());
    }
    let written = fs::write(path, bytes);
    Ok(written.map_err(|source| FileError::Write { path: path.to_path_buf(), source })?)
}

/// A model file that was read, and where its tables are.
pub struct OnnxFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl OnnxFile {
    /// Reads the model file, without the tables beside it.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = fs::read(path).map_err(|source| FileError::Read { path: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), bytes })
    }

    /// What the file says. Tables beside it have no bytes in it; [`OnnxFile::open`] has them.
    pub fn model(&self) -> Result<Model<'_>, FileError> {
        let syntax = |source| FileError::Syntax { path: self.path.clone(), source };
        onnx_rs::parse(&self.bytes).map_err(syntax)
    }

    /// The bytes of `tensor`, which lies beside this file.
    pub fn open(&self, tensor: &TensorProto<'_>) -> Result<impl Read + use<>, FileError> {
        let wrong = |what| FileError::Tensor { tensor: tensor.name().to_owned(), what };
        let entry = |key| tensor.external_data().iter().find(|entry| entry.key == key);
        let location = entry("location").ok_or_else(|| wrong("does not say in which file it lies"))?.value;
        let mut parts = Path::new(location).components();
        let (Some(Component::Normal(name)), None) = (parts.next(), parts.next()) else {
            return Err(wrong("lies outside of the model's folder"));
        };
        let number = |key| entry(key).map(|entry| entry.value.parse::<u64>()).transpose();
        let offset = number("offset").map_err(|_| wrong("has an offset that is no number"))?.unwrap_or(0);
        let path = self.path.with_file_name(name);
        let length = byte_length(tensor)?;
        let opened = File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            Ok(file.take(length))
        });
        opened.map_err(|source| FileError::Read { path, source })
    }
}

/// The bytes that a tensor takes, by its shape and its type.
fn byte_length(tensor: &TensorProto<'_>) -> Result<u64, FileError> {
    let wrong = |what| FileError::Tensor { tensor: tensor.name().to_owned(), what };
    let element = match tensor.data_type() {
        DataType::Float16 => 2,
        DataType::Float | DataType::Int32 => 4,
        DataType::Int64 => 8,
        _ => return Err(wrong("is of a type that the trainer does not write")),
    };
    let product = |length: u64, &dim: &i64| length.checked_mul(u64::try_from(dim).ok()?);
    tensor.dims().iter().try_fold(element, product).ok_or_else(|| wrong("has a shape that cannot be"))
}

/// The file of tables, which is made when the first is written.
struct Tables {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

/// Where the bytes of an initialiser are put.
enum Place {
    /// Where they are: in the model.
    Kept,
    /// Into the model.
    Inline(Vec<u8>),
    /// Beside it, as the format wants it said.
    Beside { offset: String, length: String },
}

impl Tables {
    fn place_all<E: From<FileError>>(
        mut self,
        tensors: &[TensorProto<'_>],
        max_inline_bytes: u64,
        mut contents: impl FnMut(usize, &mut dyn Write) -> Result<(), E>,
    ) -> Result<(Vec<Place>, Self), E> {
        let mut places = Vec::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            let length = byte_length(tensor)?;
            let mut contents = |to: &mut dyn Write| {
                let mut counted = Counted { to, written: 0 };
                contents(index, &mut counted)?;
                let what = "has more or fewer numbers than its shape says";
                let wrong = || FileError::Tensor { tensor: tensor.name().to_owned(), what };
                if counted.written == length { Ok(()) } else { Err(E::from(wrong())) }
            };
            places.push(if length > max_inline_bytes {
                let offset = self.next_page()?;
                contents(self.file()?)?;
                Place::Beside { offset: offset.to_string(), length: length.to_string() }
            } else if tensor.data_location() == DataLocation::External {
                let mut bytes = Vec::new();
                contents(&mut bytes)?;
                Place::Inline(bytes)
            } else {
                Place::Kept
            });
        }
        Ok((places, self))
    }

    fn file(&mut self) -> Result<&mut BufWriter<File>, FileError> {
        let Self { path, file } = self;
        match file {
            Some(file) => Ok(file),
            None => match File::create(&*path) {
                Ok(made) => Ok(file.insert(BufWriter::new(made))),
                Err(source) => Err(FileError::Write { path: path.clone(), source }),
            },
        }
    }

    /// Goes on to the next page boundary, and says where that is.
    fn next_page(&mut self) -> Result<u64, FileError> {
        let path = self.path.clone();
        let file = self.file()?;
        let moved =
            file.stream_position().and_then(|at| file.seek(SeekFrom::Start(at.next_multiple_of(PAGE_BYTES))));
        moved.map_err(|source| FileError::Write { path, source })
    }

    /// Makes the file safe where there is one, and sees to it that there is none from before where there is not.
    fn finish(self) -> Result<(), FileError> {
        let done = match self.file {
            Some(file) => {
                file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all())
            }
            None => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        done.map_err(|source| FileError::Write { path: self.path, source })
    }
}

impl Place {
    fn tensor<'a>(&'a self, tensor: &TensorProto<'a>, location: &'a str) -> TensorProto<'a> {
        let bare = |bytes| {
            TensorProto::from_raw(tensor.name(), tensor.dims().to_vec(), tensor.data_type(), bytes)
                .with_doc_string(tensor.doc_string())
        };
        let entry = |key, value| StringStringEntry { key, value };
        match self {
            Self::Kept => tensor.clone(),
            Self::Inline(bytes) => bare(bytes),
            Self::Beside { offset, length } => {
                bare(&[]).with_data_location(DataLocation::External).with_external_data(vec![
                    entry("location", location),
                    entry("offset", offset),
                    entry("length", length),
                ])
            }
        }
    }
}

/// Counts what is written.
struct Counted<'a> {
    to: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Tables start at multiples of this, which every system's page size divides or equals.
const PAGE_BYTES: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of two tensors, of 16 and of 12 bytes.
    fn model() -> Model<'static> {
        let initializer = vec![
            TensorProto::from_raw("sixteen", vec![2, 2], DataType::Float, &[7; 16]),
            TensorProto::from_raw("twelve", vec![3], DataType::Int32, &[9; 12]),
        ];
        Model { ir_version: 8, graph: Some(Graph { initializer, ..Graph::default() }), ..Model::default() }
    }

    fn write_model(model: &Model<'_>, path: &Path, max_inline_bytes: u64) -> Result<(), FileError> {
        let raw =
            |index: usize| model.graph.as_ref().expect("a graph").initializer[index].as_raw().expect("bytes");
        write(model, path, max_inline_bytes, |index, to| {
            to.write_all(raw(index)).map_err(|source| FileError::Write { path: path.to_path_buf(), source })
        })
    }

    fn bytes_of(file: &OnnxFile, tensor: &TensorProto<'_>) -> Vec<u8> {
        if let Some(bytes) = tensor.as_raw() {
            return bytes.to_vec();
        }
        let mut bytes = Vec::new();
        file.open(tensor).expect("a table").read_to_end(&mut bytes).expect("read");
        bytes
    }

    #[test]
    fn what_is_written_is_read_wherever_the_bound_puts_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("m.onnx");
        for (bound, beside) in [(0, 2), (12, 1), (16, 0)] {
            write_model(&model(), &path, bound).expect("written");
            let file = OnnxFile::read(&path).expect("read");
            let tensors = file.model().expect("a model").graph.expect("a graph").initializer;
            let is_beside = |tensor: &&TensorProto<'_>| tensor.data_location() == DataLocation::External;
            assert_eq!(tensors.iter().filter(is_beside).count(), beside);
            assert_eq!(
                tables_path(&path).exists(),
                beside > 0,
                "and nothing is left of the file from before"
            );
            assert_eq!(bytes_of(&file, &tensors[0]), [7; 16]);
            assert_eq!(bytes_of(&file, &tensors[1]), [9; 12]);
        }
    }

    #[test]
    fn tables_start_at_page_boundaries() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("m.onnx");
        write_model(&model(), &path, 0).expect("written");
        assert_eq!(fs::metadata(tables_path(&path)).expect("there").len(), PAGE_BYTES + 12);
    }

    #[test]
    fn a_tensor_that_lies_elsewhere_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("m.onnx");
        write_model(&model(), &path, 16).expect("written");
        let file = OnnxFile::read(&path).expect("read");
        for location in ["../m.onnx", "/etc/hostname", "a/b", ""] {
            let tensor = TensorProto::from_raw("table", vec![1], DataType::Float, &[])
                .with_data_location(DataLocation::External)
                .with_external_data(vec![StringStringEntry { key: "location", value: location }]);
            let error = file.open(&tensor).map(drop).expect_err(location);
            assert!(error.to_string().contains("outside"), "{error}");
        }
    }

    #[test]
    fn contents_of_another_size_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("m.onnx");
        let short = |_, to: &mut dyn Write| {
            to.write_all(&[7; 8]).map_err(|source| FileError::Write { path: PathBuf::new(), source })
        };
        let error = write(&model(), &path, 0, short).expect_err("too short").to_string();
        assert_eq!(error, "the tensor `sixteen` has more or fewer numbers than its shape says");
    }
}
