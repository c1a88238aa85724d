//! A stand-in for TensorRT that minds the order of calls. Its engines are bytes that say `engine`, and its runs are work on
//! the fake of the device: a row's score is the sum of its ids and dense values.

use std::{collections::BTreeMap, ffi::CStr};

use super::{
    ShapeRange, TensorRecord, TensorRtError,
    runtime::{Deserialized, Execution, Runtime},
};
use crate::{
    engine::cuda::{
        device::{Address, Argument, DeviceError, Launch, Stream},
        fake::ROW_SUMS,
    },
    tensor::{DType, Rows, Signature, Values},
};

/// What an engine of the fake is.
pub(crate) const ENGINE: &[u8] = b"engine";

/// Bytes that a context is said to take.
pub(super) const CONTEXT_BYTES: usize = 1000;

/// A library whose engines are all of one signature.
pub(super) struct FakeRuntime {
    pub(super) inputs: Vec<TensorRecord>,
    pub(super) outputs: Vec<TensorRecord>,
    pub(super) max_rows: i64,
}

impl FakeRuntime {
    /// Engines for rows of `signature`, in batches of up to 4096.
    pub(super) fn new(signature: &Signature) -> Self {
        let input = |input: &crate::tensor::TensorSpec| {
            let dtype = if input.dtype == DType::I32 { "i32" } else { "f32" };
            let width = i64::try_from(input.width).expect("few columns");
            TensorRecord { name: input.name.clone(), dtype: dtype.into(), shape: vec![-1, width] }
        };
        let output = TensorRecord { name: signature.output.clone(), dtype: "f32".into(), shape: vec![-1, 1] };
        let inputs = signature.inputs.iter().map(input).collect();
        Self { inputs, outputs: vec![output], max_rows: 4096 }
    }
}

impl Runtime for FakeRuntime {
    fn flavour(&self) -> String {
        "TensorRT-RTX".into()
    }

    fn version(&self) -> String {
        "1.7.1".into()
    }

    fn deserialize(&self, engine: &[u8]) -> Result<Box<dyn Deserialized>, TensorRtError> {
        if engine != ENGINE {
            return Err(TensorRtError::Invalid("invalid: it is no engine".into()));
        }
        let (inputs, outputs) = (self.inputs.clone(), self.outputs.clone());
        Ok(Box::new(FakeEngine { inputs, outputs, max_rows: self.max_rows }))
    }
}

struct FakeEngine {
    inputs: Vec<TensorRecord>,
    outputs: Vec<TensorRecord>,
    max_rows: i64,
}

impl Deserialized for FakeEngine {
    fn sides(&self) -> Result<[Vec<TensorRecord>; 2], TensorRtError> {
        Ok([self.inputs.clone(), self.outputs.clone()])
    }

    fn range(&self, input: &CStr) -> Result<ShapeRange, TensorRtError> {
        let name = input.to_str().expect("a name");
        let input = self.inputs.iter().find(|input| input.name == name).expect("an input of the engine");
        let shape = |rows| vec![rows, input.shape[1]];
        Ok(ShapeRange { min: shape(1), opt: shape(1), max: shape(self.max_rows) })
    }

    fn context_bytes(&self) -> Result<usize, TensorRtError> {
        Ok(CONTEXT_BYTES)
    }

    fn open_context(&self) -> Result<Box<dyn Execution>, TensorRtError> {
        let inputs = self.inputs.iter().map(|input| (input.name.clone(), input.dtype == "i32"));
        let output = self.outputs[0].name.clone();
        Ok(Box::new(FakeContext {
            inputs: inputs.collect(),
            output,
            max_rows: self.max_rows,
            ..FakeContext::default()
        }))
    }
}

#[derive(Default)]
struct FakeContext {
    /// Names, and whether each holds ids.
    inputs: Vec<(String, bool)>,
    output: String,
    max_rows: i64,
    places: BTreeMap<String, Address>,
    shapes: BTreeMap<String, [usize; 2]>,
}

impl Execution for FakeContext {
    unsafe fn place(&mut self, tensor: &CStr, at: Address) -> Result<(), DeviceError> {
        self.places.insert(tensor.to_str().expect("a name").to_owned(), at);
        Ok(())
    }

    fn resize(&mut self, input: &CStr, shape: [usize; 2]) -> Result<(), DeviceError> {
        assert!(i64::try_from(shape[0]).is_ok_and(|rows| (1..=self.max_rows).contains(&rows)), "in range");
        self.shapes.insert(input.to_str().expect("a name").to_owned(), shape);
        Ok(())
    }

    unsafe fn enqueue(&mut self, stream: &mut dyn Stream) -> Result<(), DeviceError> {
        let signed = |number: usize| Argument::Signed(i32::try_from(number).expect("small"));
        let rows = self.shapes.values().map(|[rows, _]| *rows).collect::<Vec<_>>();
        assert!(rows.len() == self.inputs.len() && rows.windows(2).all(|two| two[0] == two[1]), "{rows:?}");
        let mut arguments = vec![signed(rows[0]), Argument::Memory(self.places[&self.output])];
        for (name, is_ids) in &self.inputs {
            let [_, width] = self.shapes[name];
            arguments.extend([
                Argument::Memory(self.places[name]),
                signed(width),
                Argument::Unsigned((*is_ids).into()),
            ]);
        }
        // SAFETY: As the caller says.
        unsafe { stream.launch(&Launch { kernel: ROW_SUMS, grid: 1, arguments: &arguments }) }
    }
}

/// What the fake's engines answer.
pub(crate) fn sums(rows: &Rows) -> Vec<f32> {
    let row = |row: usize| {
        let columns = rows.columns().iter().flat_map(|column| {
            let places = row * column.width()..(row + 1) * column.width();
            places.map(|place| match column.values() {
                Values::F32(values) => values[place],
                Values::I32(values) => f32::from(i16::try_from(values[place]).expect("a small id")),
            })
        });
        columns.fold(0.0, |sum, number| sum + number)
    };
    (0..rows.len()).map(row).collect()
}
