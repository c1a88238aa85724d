//! A slot: a context of an engine, with a stream and memory of its own, as an [`Engine`].
//!
//! A batch is written to pinned memory, copied, computed in one run and its scores are copied back. It is computed as one of a
//! few sizes that batches are rounded up to: the library chooses and compiles kernels by the shapes that it meets, which
//! for every number of rows would go on for as long as the server does. The rows that fill a batch up are what an earlier one
//! has left, zeros to begin with, and so rows of the model; nobody reads their scores.
//!
//! Runs are enqueued and not captured in a graph: TensorRT forbids to change a context, its shapes among it, that a graph was
//! captured of, so that every size would take a context with all its memory.
//!
//! As with our own engine, a device that failed may have failed for good: from then on every batch is answered with the error.

use std::{
    ffi::{CStr, CString},
    sync::Arc,
};

use super::{Resident, c_name, runtime::Execution};
use crate::{
    engine::{
        Engine, EngineError,
        cuda::{
            bucket_rows,
            device::{DeviceError, Stream},
            memory::{Memory, Pinned},
        },
    },
    tensor::{DType, Rows, Signature, Values},
};

/// Where a batch lies, in pinned memory as on the device: each input for the largest batch, then the scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    inputs: Vec<Place>,
    output: CString,
    scores: usize,
    bytes: usize,
    /// Rows that batches are computed as, in ascending order.
    buckets: Vec<usize>,
}

/// Where an input lies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: CString,
    dtype: DType,
    width: usize,
    offset: usize,
}

impl Layout {
    /// The layout of batches of up to `max_rows` rows of `signature`.
    pub(super) fn new(signature: &Signature, max_rows: usize) -> Result<Self, EngineError> {
        let too_large = || EngineError::Signature(format!("{max_rows} rows are more than can be counted"));
        let mut bytes = 0_usize;
        let mut place = |width: usize| {
            let offset = bytes;
            let part = max_rows.checked_mul(width).and_then(|numbers| numbers.checked_mul(NUMBER_BYTES));
            let end = offset.checked_add(part.ok_or_else(too_large)?).ok_or_else(too_large)?;
            bytes = end.checked_next_multiple_of(ALIGNMENT).ok_or_else(too_large)?;
            Ok::<_, EngineError>(offset)
        };
        let inputs = signature.inputs.iter().map(|input| {
            let (name, offset) = (c_name(&input.name)?, place(input.width)?);
            Ok(Place { name, dtype: input.dtype, width: input.width, offset })
        });
        let inputs = inputs.collect::<Result<_, EngineError>>()?;
        let scores = place(1)?;
        let output = c_name(&signature.output)?;
        Ok(Self { inputs, output, scores, bytes, buckets: bucket_rows(max_rows) })
    }

    /// The names of the inputs.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &CStr> {
        self.inputs.iter().map(|place| &*place.name)
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows that a batch of `rows` is computed as.
    fn bucket(&self, rows: usize) -> Result<usize, EngineError> {
        let limit = self.buckets.last().copied().unwrap_or(0);
        let bucket = self.buckets.iter().find(|bucket| **bucket >= rows);
        bucket.copied().ok_or(EngineError::TooManyRows { rows, limit })
    }
}

/// One slot of an engine on a GPU.
pub struct TensorRtEngine {
    signature: Signature,
    slot: Slot,
    failed: Option<DeviceError>,
}

/// What of a slot the device works with, in the order in which it is given back once the work is done.
struct Slot {
    execution: Box<dyn Execution>,
    stream: Box<dyn Stream>,
    pinned: Pinned,
    memory: Memory,
    layout: Arc<Layout>,
    /// Rows of the inputs as the context was told last.
    rows: usize,
    resident: Arc<Resident>,
}

impl TensorRtEngine {
    /// A slot for the rows of `signature`, which has computed a batch of each size.
    pub(super) fn open(
        resident: Arc<Resident>,
        layout: Arc<Layout>,
        signature: &Signature,
    ) -> Result<Self, EngineError> {
        let device = &resident.device;
        device.enter()?;
        let mut memory = Memory::new(device, layout.bytes)?;
        // Ids of every table, wherever a batch does not reach.
        memory.upload(0, &vec![0; layout.bytes])?;
        let pinned = Pinned::new(device, layout.bytes)?;
        let stream = Arc::clone(device).open_stream()?;
        let execution = resident.deserialized.open_context()?;
        let mut slot = Slot { execution, stream, pinned, memory, layout, rows: 0, resident };
        slot.place()?;
        // The largest first, as that is what takes memory.
        for bucket in slot.layout.buckets.clone().into_iter().rev() {
            slot.compute(bucket, bucket)?;
        }
        Ok(Self { signature: signature.clone(), slot, failed: None })
    }
}

impl Engine for TensorRtEngine {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
        if let Some(error) = &self.failed {
            return Err(EngineError::Device(error.clone()));
        }
        scores.clear();
        if rows.is_empty() {
            return Ok(());
        }
        let bucket = self.slot.layout.bucket(rows.len())?;
        self.slot.write(rows)?;
        if let Err(error) = self.slot.compute(rows.len(), bucket) {
            self.failed = Some(error.clone());
            return Err(EngineError::Device(error));
        }
        scores.resize(rows.len(), 0.0);
        self.slot.pinned.read(self.slot.layout.scores, bytemuck::cast_slice_mut(scores));
        Ok(())
    }
}

impl Slot {
    /// Says where everything lies, which stays so.
    fn place(&mut self) -> Result<(), DeviceError> {
        let layout = &self.layout;
        let inputs = layout.inputs.iter().map(|place| (&place.name, place.offset));
        for (name, offset) in inputs.chain([(&layout.output, layout.scores)]) {
            // SAFETY: The memory is the slot's alone and is kept behind the context; the layout has room there for the
            // largest batch, and what the engine takes was held against the same signature.
            unsafe { self.execution.place(name, self.memory.at(offset)) }?;
        }
        Ok(())
    }

    /// Writes a batch to where it is copied from.
    fn write(&mut self, rows: &Rows) -> Result<(), EngineError> {
        let other = || EngineError::Signature("the rows are of another one".to_owned());
        if rows.columns().len() != self.layout.inputs.len() {
            return Err(other());
        }
        for (column, place) in rows.columns().iter().zip(&self.layout.inputs) {
            let bytes: &[u8] = match (column.values(), place.dtype) {
                (Values::F32(values), DType::F32) => bytemuck::cast_slice(values),
                (Values::I32(values), DType::I32) => bytemuck::cast_slice(values),
                _ => return Err(other()),
            };
            if bytes.len() != place.bytes(rows.len()) {
                return Err(other());
            }
            self.pinned.write(place.offset, bytes);
        }
        Ok(())
    }

    /// Computes the first `rows` rows that were written, as a batch of `bucket`, and waits for them.
    fn compute(&mut self, rows: usize, bucket: usize) -> Result<(), DeviceError> {
        self.resident.device.enter()?;
        if self.rows != bucket {
            for place in &self.layout.inputs {
                self.execution.resize(&place.name, [bucket, place.width])?;
            }
            self.rows = bucket;
        }
        for place in &self.layout.inputs {
            let (to, from) = (self.memory.at(place.offset), self.pinned.at(place.offset));
            // SAFETY: Both are the slot's own and are as large as the layout says; it waits for the work before it touches them
            // again, here or, where that fails, when it is dropped.
            unsafe { self.stream.copy_in(to, from, place.bytes(rows)) }?;
        }
        // SAFETY: As above; the stream is of the device of the engine, every tensor has its place, and all are for the same
        // number of rows.
        unsafe { self.execution.enqueue(&mut *self.stream) }?;
        let scores = self.layout.scores;
        let (to, from) = (self.pinned.at(scores), self.memory.at(scores));
        // SAFETY: As above.
        unsafe { self.stream.copy_out(to, from, rows * NUMBER_BYTES) }?;
        self.stream.wait()
    }
}

impl Place {
    /// Bytes of so many rows.
    fn bytes(&self, rows: usize) -> usize {
        rows * self.width * NUMBER_BYTES
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // What fails here has failed before. The context is given back on the thread that drops the slot, and with nothing
        // under way.
        drop(self.resident.device.enter());
        drop(self.stream.wait());
    }
}

/// Of every element that goes in or comes out.
const NUMBER_BYTES: usize = 4;

/// What a tensor starts at a multiple of, as TensorRT asks for.
const ALIGNMENT: usize = 256;
