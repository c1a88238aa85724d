//! The tensors of a model file, inside it or in the file of tables beside it, which is read in pieces so that a large
//! table is never in memory as a whole.
//!
//! Source: onnx.proto, `TensorProto.external_data`; <https://onnx.ai/onnx/repo-docs/ExternalData.html>.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Component, Path},
};

use onnx_rs::ast::{DataLocation, DataType, Graph, TensorProto};

use super::NetworkError;

/// Rows of numbers in single precision. Reading them does not need them in memory.
#[derive(Debug)]
pub struct Table {
    rows: usize,
    dimension: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<f32>),
    File { file: File, offset: u64 },
}

impl Table {
    /// A table in memory.
    ///
    /// # Panics
    /// When these are no whole rows.
    pub fn new(dimension: usize, numbers: Vec<f32>) -> Self {
        assert!(numbers.len().is_multiple_of(dimension), "whole rows");
        Self { rows: numbers.len() / dimension, dimension, place: Place::Memory(numbers) }
    }

    /// Rows that there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Replaces the contents of `to` by the rows from `first` on, `count` of them.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn read(&self, first: usize, count: usize, to: &mut Vec<f32>) -> io::Result<()> {
        assert!(first <= self.rows && count <= self.rows - first, "rows that are there");
        let (start, length) = (first * self.dimension, count * self.dimension);
        match &self.place {
            Place::Memory(numbers) => {
                to.clear();
                to.extend_from_slice(&numbers[start..start + length]);
                Ok(())
            }
            Place::File { file, offset } => {
                const {
                    assert!(
                        cfg!(target_endian = "little"),
                        "ONNX keeps numbers in the order of this machine"
                    );
                };
                to.resize(length, 0.0);
                file.read_exact_at(bytemuck::cast_slice_mut(to), offset + start as u64 * 4)
            }
        }
    }
}

/// The initialisers of a graph by their names.
pub(super) struct Tensors<'m> {
    /// The model's file.
    path: &'m Path,
    by_name: HashMap<&'m str, &'m TensorProto<'m>>,
}

impl<'m> Tensors<'m> {
    pub(super) fn new(graph: &'m Graph<'m>, path: &'m Path) -> Self {
        let by_name = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        Self { path, by_name }
    }

    /// The numbers of `name`, a matrix or, in one column, a vector.
    pub(super) fn table(&self, name: &str) -> Result<Table, NetworkError> {
        let tensor = self.tensor(name, DataType::Float)?;
        let (rows, dimension) = match *shape(tensor)?.as_slice() {
            [rows] => (rows, 1),
            [rows, dimension] => (rows, dimension),
            _ => return Err(wrong(name, "is neither a vector nor a matrix")),
        };
        let elements = rows.checked_mul(dimension).filter(|&elements| elements > 0);
        let elements = elements.ok_or_else(|| wrong(name, "has a shape that cannot be"))?;
        Ok(Table { rows, dimension, place: self.place(tensor, elements)? })
    }

    /// All numbers of `name`, and its rows and columns.
    pub(super) fn floats(&self, name: &str) -> Result<(Vec<f32>, [usize; 2]), NetworkError> {
        let table = self.table(name)?;
        let shape = [table.rows, table.dimension];
        let mut numbers = Vec::new();
        let read = table.read(0, table.rows, &mut numbers);
        read.map_err(|source| NetworkError::Read { path: self.path.to_path_buf(), source })?;
        Ok((numbers, shape))
    }

    /// The integers of `name`, which are few and lie in the model.
    pub(super) fn integers(&self, name: &str) -> Result<Vec<i64>, NetworkError> {
        let tensor = self.tensor(name, DataType::Int64)?;
        let numbers = tensor.as_i64().map(Cow::into_owned);
        let [length] = *shape(tensor)?.as_slice() else { return Err(wrong(name, "is no vector")) };
        numbers.filter(|numbers| numbers.len() == length).ok_or_else(|| wrong(name, NOT_ITS_SHAPE))
    }

    /// The one number of `name`.
    pub(super) fn integer(&self, name: &str) -> Result<i64, NetworkError> {
        match *self.integers(name)?.as_slice() {
            [number] => Ok(number),
            _ => Err(wrong(name, "is not one number")),
        }
    }

    /// The one id of `name`.
    pub(super) fn id(&self, name: &str) -> Result<i32, NetworkError> {
        let tensor = self.tensor(name, DataType::Int32)?;
        match tensor.as_i32().as_deref() {
            Some(&[id]) => Ok(id),
            _ => Err(wrong(name, "is not one id")),
        }
    }

    fn tensor(&self, name: &str, kind: DataType) -> Result<&'m TensorProto<'m>, NetworkError> {
        let tensor = *self.by_name.get(name).ok_or_else(|| wrong(name, "is not in the model"))?;
        if tensor.data_type() != kind {
            let what = format!("is of type {:?} in place of {kind:?}", tensor.data_type());
            return Err(wrong(name, what));
        }
        Ok(tensor)
    }

    fn place(&self, tensor: &TensorProto<'_>, elements: usize) -> Result<Place, NetworkError> {
        if tensor.data_location() == DataLocation::External {
            return self.beside(tensor, elements);
        }
        let numbers = tensor.as_f32().map(Cow::into_owned);
        let numbers = numbers.filter(|numbers| numbers.len() == elements);
        numbers.map(Place::Memory).ok_or_else(|| wrong(tensor.name(), NOT_ITS_SHAPE))
    }

    /// Where `tensor` lies in a file beside the model, which must hold all of it.
    fn beside(&self, tensor: &TensorProto<'_>, elements: usize) -> Result<Place, NetworkError> {
        let wrong = |what: &str| wrong(tensor.name(), what);
        let entry = |key| tensor.external_data().iter().find(|entry| entry.key == key);
        let location = entry("location").ok_or_else(|| wrong("does not say in which file it lies"))?.value;
        let mut parts = Path::new(location).components();
        let (Some(Component::Normal(name)), None) = (parts.next(), parts.next()) else {
            return Err(wrong("lies outside of the model's folder"));
        };
        let offset = entry("offset").map_or(Ok(0), |entry| entry.value.parse::<u64>());
        let offset = offset.map_err(|_| wrong("has an offset that is no number"))?;
        let path = self.path.with_file_name(name);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(|source| NetworkError::Read { path, source })?;
        let end = (elements as u64).checked_mul(4).and_then(|bytes| bytes.checked_add(offset));
        match end {
            Some(end) if end <= length => Ok(Place::File { file, offset }),
            _ => Err(wrong("goes beyond the end of the file that it lies in")),
        }
    }
}

/// An error about the tensor `name`.
pub(super) fn wrong(name: &str, what: impl Into<String>) -> NetworkError {
    NetworkError::Tensor { tensor: name.to_owned(), what: what.into() }
}

fn shape(tensor: &TensorProto<'_>) -> Result<Vec<usize>, NetworkError> {
    let lengths = tensor.dims().iter().map(|&length| usize::try_from(length));
    let lengths: Result<Vec<_>, _> = lengths.collect();
    lengths.map_err(|_| wrong(tensor.name(), "has a shape that cannot be"))
}

const NOT_ITS_SHAPE: &str = "has more or fewer numbers than its shape says";

#[cfg(test)]
mod tests {
    use std::fs;

    use onnx_rs::ast::StringStringEntry;

    use super::*;

    /// What a tensor of `dims` is, of which the file says that it lies at `offset` in `location`.
    fn beside(dims: Vec<i64>, location: &'static str, offset: &'static str) -> Result<Table, NetworkError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let numbers: Vec<u8> = (0..8_u8).flat_map(|number| f32::from(number).to_le_bytes()).collect();
        fs::write(folder.path().join("m.data"), numbers).expect("written");
        let entry = |key, value| StringStringEntry { key, value };
        let tensor = TensorProto::from_raw("table", dims, DataType::Float, &[])
            .with_data_location(DataLocation::External)
            .with_external_data(vec![entry("location", location), entry("offset", offset)]);
        let graph = Graph { initializer: vec![tensor], ..Graph::default() };
        Tensors::new(&graph, &folder.path().join("m.onnx")).table("table")
    }

    #[test]
    fn rows_are_read_wherever_they_lie() {
        let tables = [
            Table::new(2, (2..8_u8).map(f32::from).collect()),
            beside(vec![3, 2], "m.data", "8").expect("within the file"),
        ];
        for table in tables {
            assert_eq!((table.rows(), table.dimension()), (3, 2));
            let mut rows = vec![9.0];
            table.read(1, 2, &mut rows).expect("there");
            assert_eq!(rows, [4.0, 5.0, 6.0, 7.0]);
            table.read(3, 0, &mut rows).expect("none");
            assert!(rows.is_empty());
        }
    }

    #[test]
    fn a_table_that_cannot_be_there_is_refused_before_it_is_read() {
        let cases = [
            (vec![4, 2], "m.data", "4", "beyond the end"),
            (vec![i64::MAX, 4], "m.data", "0", "a shape that cannot be"),
            (vec![1 << 40, 1 << 20], "m.data", "0", "beyond the end"),
            (vec![-1, 2], "m.data", "0", "a shape that cannot be"),
            (vec![0, 2], "m.data", "0", "a shape that cannot be"),
            (vec![1, 1, 1], "m.data", "0", "neither a vector nor a matrix"),
            (vec![2, 2], "m.data", "18446744073709551615", "beyond the end"),
            (vec![2, 2], "m.data", "-4", "an offset that is no number"),
            (vec![2, 2], "../m.data", "0", "outside of the model's folder"),
            (vec![2, 2], "other", "0", "cannot be read"),
        ];
        for (dims, location, offset, expected) in cases {
            let error = beside(dims, location, offset).map(drop).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_tensor_within_the_model_must_have_the_numbers_of_its_shape() {
        let tensors = [
            TensorProto::from_f32("short", vec![2, 2], vec![1.0; 3]),
            TensorProto::from_raw("half", vec![1, 1], DataType::Float16, &[0, 0]),
            TensorProto::from_i64("two", vec![2], vec![1, 2]),
            TensorProto::from_i64("long", vec![3], vec![1, 2]),
            TensorProto::from_i32("ids", vec![2], vec![1, 2]),
        ];
        let graph = Graph { initializer: tensors.to_vec(), ..Graph::default() };
        let tensors = Tensors::new(&graph, Path::new("m.onnx"));
        let said = |result: Result<(), NetworkError>| result.expect_err("refused").to_string();
        assert_eq!(said(tensors.table("short").map(drop)), format!("the tensor `short` {NOT_ITS_SHAPE}"));
        assert_eq!(
            said(tensors.table("half").map(drop)),
            "the tensor `half` is of type Float16 in place of Float"
        );
        assert_eq!(said(tensors.integer("two").map(drop)), "the tensor `two` is not one number");
        assert_eq!(said(tensors.integers("long").map(drop)), format!("the tensor `long` {NOT_ITS_SHAPE}"));
        assert_eq!(said(tensors.id("ids").map(drop)), "the tensor `ids` is not one id");
        assert_eq!(said(tensors.table("none").map(drop)), "the tensor `none` is not in the model");
    }
}
