//! The parts of a model that knows its users and its items apart: what makes the vector and the bias of each side from a
//! row, and what makes the logit of a user with many items from those. The trainer writes them beside the model.
//!
//! So what is to be known of an item is computed once, when a version is loaded, and what is to be known of a user once a
//! request; docs/export.md has the formulas.

use std::{ops::Range, path::Path};

use ort::{
    session::{Session, SessionInputValue},
    value::{Outlet, TensorElementType, TensorRef},
};

use super::{
    EngineError, OnnxRuntime,
    onnx::{Provider, input, is_input, is_tensor},
};
use crate::tensor::{Rows, Signature};

/// Which side of a pair a row is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The user's.
    User,
    /// The item's.
    Item,
}

impl Side {
    /// The file of its tower in a version's folder.
    pub const fn file(self) -> &'static str {
        match self {
            Self::User => "user_tower.onnx",
            Self::Item => "item_tower.onnx",
        }
    }

    /// The names of a tower's outputs: the vector, F32 `[rows, width]`, and the bias, F32 `[rows, 1]`.
    pub const fn outputs(self) -> [&'static str; 2] {
        match self {
            Self::User => ["user_vector", "user_bias"],
            Self::Item => ["item_vector", "item_bias"],
        }
    }
}

/// The vectors of some rows, one after the other, and their biases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    /// Row after row, all of one width.
    pub vectors: Vec<f32>,
    /// One a row.
    pub biases: Vec<f32>,
}

impl Vectors {
    /// The vectors and the biases of the rows `range`.
    pub fn slice(&self, range: Range<usize>) -> (&[f32], &[f32]) {
        let width = self.width();
        (&self.vectors[range.start * width..range.end * width], &self.biases[range])
    }

    /// Replaces all rows by those of `from` that `rows` says.
    pub fn choose(&mut self, from: &Self, rows: &[u32]) {
        self.clear();
        for row in rows.iter().map(|&row| row as usize) {
            let (vector, bias) = from.slice(row..row + 1);
            self.vectors.extend_from_slice(vector);
            self.biases.extend_from_slice(bias);
        }
    }

    /// Drops every row and keeps the memory.
    pub fn clear(&mut self) {
        self.vectors.clear();
        self.biases.clear();
    }

    fn width(&self) -> usize {
        self.vectors.len() / self.biases.len().max(1)
    }
}

/// The tower of one side.
pub struct TowerEngine {
    session: Session,
    side: Side,
    /// The columns of rows that it looks at.
    columns: Vec<usize>,
    width: usize,
}

impl TowerEngine {
    /// Opens the tower of `side` in a version's folder, which must take rows of `signature`.
    pub fn open(
        runtime: &OnnxRuntime,
        folder: &Path,
        side: Side,
        signature: &Signature,
    ) -> Result<Self, EngineError> {
        let session = runtime.open(&folder.join(side.file()), Provider::Cpu)?;
        let columns = session.inputs().iter().map(|outlet| column(outlet, signature));
        let columns = columns.collect::<Result<_, _>>()?;
        let width = width(session.outputs(), side)?;
        Ok(Self { session, side, columns, width })
    }

    /// Numbers in a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Appends what the tower makes of `rows` to `vectors`.
    pub fn run(&mut self, rows: &Rows, vectors: &mut Vectors) -> Result<(), EngineError> {
        let inputs = self.columns.iter().map(|&column| input(&rows.columns()[column], rows.len()));
        let inputs = inputs.collect::<Result<Vec<SessionInputValue<'_>>, _>>()?;
        let outputs = self.session.run(inputs.as_slice()).map_err(EngineError::Runtime)?;
        let [vector, bias] = self.side.outputs();
        let places = [(vector, self.width, &mut vectors.vectors), (bias, 1, &mut vectors.biases)];
        for (name, width, to) in places {
            let (_, numbers) = outputs[name].try_extract_tensor::<f32>().map_err(EngineError::Runtime)?;
            if numbers.len() != rows.len() * width {
                return Err(EngineError::Scores { scores: numbers.len() / width, rows: rows.len() });
            }
            to.extend_from_slice(numbers);
        }
        Ok(())
    }
}

/// What makes logits from the vectors of both sides.
pub struct PairEngine {
    session: Session,
    width: usize,
}

impl PairEngine {
    /// Its file in a version's folder.
    pub const FILE: &str = "pairs.onnx";
    /// Its inputs: one user and any number of items.
    pub const INPUTS: [&str; 4] = ["user_vector", "user_bias", "item_vector", "item_bias"];
    /// Its output, F32 `[items, 1]`.
    pub const OUTPUT: &str = "logit";

    /// Opens the file in a version's folder, for vectors of this width.
    pub fn open(runtime: &OnnxRuntime, folder: &Path, width: usize) -> Result<Self, EngineError> {
        let session = runtime.open(&folder.join(Self::FILE), Provider::Cpu)?;
        let wide = i64::try_from(width).unwrap_or(i64::MAX);
        let shapes = [[1, wide], [1, 1], [-1, wide], [-1, 1]];
        let expected = Self::INPUTS.iter().zip(&shapes);
        let fits = |(outlet, (name, shape)): (&Outlet, (&&str, &[i64; 2]))| {
            outlet.name() == *name && is_tensor(outlet, TensorElementType::Float32, shape)
        };
        if session.inputs().len() != shapes.len() || !session.inputs().iter().zip(expected).all(fits) {
            let text = format!("{}: other inputs than vectors of {width} and biases", Self::FILE);
            return Err(EngineError::Signature(text));
        }
        match session.outputs() {
            [logit] if logit.name() == Self::OUTPUT => Ok(Self { session, width }),
            _ => Err(EngineError::Signature(format!("{}: must answer `{}` alone", Self::FILE, Self::OUTPUT))),
        }
    }

    /// Replaces the contents of `logits` by one for each item of `vectors` and `biases` with the one user of `user`.
    pub fn run(
        &mut self,
        user: &Vectors,
        (vectors, biases): (&[f32], &[f32]),
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        let items = biases.len();
        let tensor = |rows, width, numbers| TensorRef::from_array_view(([rows, width], numbers));
        let inputs = [
            tensor(1, self.width, user.vectors.as_slice()),
            tensor(1, 1, user.biases.as_slice()),
            tensor(items, self.width, vectors),
            tensor(items, 1, biases),
        ];
        let [user_vector, user_bias, item_vector, item_bias] = inputs;
        let failed = EngineError::Runtime;
        let inputs: [SessionInputValue<'_>; 4] = [
            user_vector.map_err(failed)?.into(),
            user_bias.map_err(failed)?.into(),
            item_vector.map_err(failed)?.into(),
            item_bias.map_err(failed)?.into(),
        ];
        let outputs = self.session.run(inputs).map_err(failed)?;
        let (_, numbers) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        logits.clear();
        logits.extend_from_slice(numbers);
        if logits.len() == items {
            Ok(())
        } else {
            Err(EngineError::Scores { scores: logits.len(), rows: items })
        }
    }
}

/// The column of rows that an input of a tower is.
fn column(outlet: &Outlet, signature: &Signature) -> Result<usize, EngineError> {
    let column = signature.inputs.iter().position(|input| is_input(outlet, input));
    let text = || format!("input `{}` {} of a tower is none of the model's", outlet.name(), outlet.dtype());
    column.ok_or_else(|| EngineError::Signature(text()))
}

/// Numbers in the vector that a tower answers.
fn width(outputs: &[Outlet], side: Side) -> Result<usize, EngineError> {
    let [vector, bias] = side.outputs();
    let find = |name: &str| outputs.iter().find(|outlet| outlet.name() == name);
    let text = || format!("{}: must answer `{vector}` and `{bias}`", side.file());
    let refused = || EngineError::Signature(text());
    let (vector, bias) = find(vector).zip(find(bias)).ok_or_else(refused)?;
    let shape = vector.dtype().tensor_shape().map_or(&[][..], |shape| &shape[..]);
    match *shape {
        [-1, width]
            if width > 0
                && is_tensor(vector, TensorElementType::Float32, &[-1, width])
                && is_tensor(bias, TensorElementType::Float32, &[-1, 1]) =>
        {
            usize::try_from(width).map_err(|_| refused())
        }
        _ => Err(refused()),
    }
}
