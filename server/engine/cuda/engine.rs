//! A slot: one stream of a GPU, with memory and graphs of its own, as an [`Engine`].
//!
//! A batch is written to pinned memory, the graph of its bucket is replayed, and its scores are read: one copy in, the
//! gather, the layers, the head, one copy out, all in the graph. Small batches are not copied: the first and the last of
//! these kernels reach into the pinned memory. Every graph has run once before the engine is handed out.
//!
//! An id outside of its table is read nowhere: the kernels take it for a row of zeros and say so, and the batch is answered with
//! an error. The encoder makes no such ids.
//!
//! A device that failed may have failed for good, and whatever it answers afterwards is worth nothing: from then on the
//! engine answers every batch with the error.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    device::{Address, Argument, DeviceError, Graph, Launch, Product, Stream, WARP, signed},
    memory::{Memory, Pinned},
    plan::{Bucket, LayerPlan, Part, SlotLayout},
    resident::Resident,
};
use crate::{
    engine::{Engine, EngineError, network::LayerKind},
    tensor::{Rows, Signature},
};

/// One slot of a version on a GPU.
pub struct CudaEngine {
    signature: Signature,
    /// Declared first, so that it is dropped, and has waited, before the memory that its work touches.
    pub(super) slot: Slot,
    failed: Option<DeviceError>,
}

/// What of an engine the device works with.
pub(super) struct Slot {
    pub(super) stream: Box<dyn Stream>,
    /// One for each bucket.
    graphs: Vec<Graph>,
    pinned: Pinned,
    memory: Memory,
    pub(super) resident: Arc<Resident>,
}

impl CudaEngine {
    /// A slot for the rows of `signature`, whose graphs have all run once.
    pub(super) fn open(resident: Arc<Resident>, signature: &Signature) -> Result<Self, DeviceError> {
        let device = Arc::clone(&resident.device);
        let SlotLayout { exchange, bytes, .. } = resident.plan.slot;
        let memory = Memory::new(&device, bytes)?;
        let pinned = Pinned::new(&device, exchange.bytes)?;
        let stream = device.open_stream()?;
        let mut slot = Slot { stream, graphs: Vec::new(), pinned, memory, resident };
        slot.capture()?;
        Ok(Self { signature: signature.clone(), slot, failed: None })
    }

    /// The error of a device that failed, and may have failed for good.
    pub(super) fn usable(&self) -> Result<(), EngineError> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(EngineError::Device(error.clone())))
    }

    /// Remembers that the device failed.
    pub(super) fn fail(&mut self, error: DeviceError) -> EngineError {
        self.failed = Some(error.clone());
        EngineError::Device(error)
    }

    /// A graph of these batches one after the other, to be measured. Each has pinned memory of its own, so that no batch finds
    /// in a cache what it has left there itself. What was captured stays until the engine is dropped.
    pub fn record(&mut self, batches: &[Rows]) -> Result<Replays<'_>, EngineError> {
        let mut recorded = Vec::with_capacity(batches.len());
        for rows in batches {
            recorded.push(self.slot.prepare(rows)?);
        }
        let graph = self.slot.capture_all(&mut recorded)?;
        Ok(Replays { slot: &mut self.slot, graph, recorded })
    }
}

/// Batches whose graph is replayed.
pub struct Replays<'e> {
    slot: &'e mut Slot,
    graph: Graph,
    /// Numbers of buckets, and what is exchanged.
    recorded: Vec<(usize, Pinned)>,
}

impl Replays<'_> {
    /// What a batch takes on the device, with nothing of the host's in between: the mean over at least so many of them.
    pub fn time(&mut self, batches: u32) -> Result<Duration, EngineError> {
        let recorded = u32::try_from(self.recorded.len()).unwrap_or(u32::MAX).max(1);
        let replays = batches.div_ceil(recorded).max(1);
        let start = Instant::now();
        let replayed = (0..replays).try_for_each(|_| {
            // SAFETY: The stream captured it, with memory of the slot, which is borrowed, and pinned memory of this; the work
            // is waited for below, before anybody may let go of either.
            unsafe { self.slot.stream.replay(self.graph) }
        });
        let waited = self.slot.stream.wait();
        replayed.and(waited)?;
        Ok(start.elapsed() / replays / recorded)
    }
}

impl Engine for CudaEngine {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
        self.usable()?;
        scores.clear();
        if rows.is_empty() {
            return Ok(());
        }
        let plan = &self.slot.resident.plan;
        let too_many = || EngineError::TooManyRows { rows: rows.len(), limit: plan.max_rows() };
        let number = plan.bucket(rows.len()).ok_or_else(too_many)?;
        self.slot.write(number, rows)?;
        if let Err(error) = self.slot.replay(number) {
            return Err(self.fail(error));
        }
        scores.resize(rows.len(), 0.0);
        self.slot.read(number, scores)
    }
}

impl Slot {
    fn bucket(&self, number: usize) -> Bucket {
        self.resident.plan.buckets[number]
    }

    /// Captures the graph of each bucket. The work of each is done once before, which loads what is loaded late, and the
    /// graph runs once after, so that no request pays for either.
    fn capture(&mut self) -> Result<(), DeviceError> {
        for number in 0..self.resident.plan.buckets.len() {
            self.write_sample(number);
            self.enqueue(number)?;
            self.stream.wait()?;
            let graph = self.capture_bucket(number)?;
            self.graphs.push(graph);
            self.replay(number)?;
        }
        Ok(())
    }

    fn capture_bucket(&mut self, number: usize) -> Result<Graph, DeviceError> {
        self.capture_work(|slot| slot.enqueue(number))
    }

    fn capture_work(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), DeviceError>,
    ) -> Result<Graph, DeviceError> {
        self.stream.begin_capture()?;
        let captured = work(self);
        // A capture is ended whatever happened in it, and what happened first is the reason.
        let graph = self.stream.end_capture();
        captured?;
        graph
    }

    /// Pinned memory with `rows` in it, for the bucket of this number.
    fn prepare(&mut self, rows: &Rows) -> Result<(usize, Pinned), EngineError> {
        let (plan, count) = (&self.resident.plan, rows.len());
        let limit = plan.max_rows();
        let number = plan.bucket(count).ok_or(EngineError::TooManyRows { rows: count, limit })?;
        let mut pinned = Pinned::new(&self.resident.device, plan.buckets[number].end)?;
        std::mem::swap(&mut self.pinned, &mut pinned);
        let written = self.write(number, rows);
        std::mem::swap(&mut self.pinned, &mut pinned);
        written?;
        Ok((number, pinned))
    }

    /// A graph of batches that were prepared, which leaves their scores where they are.
    fn capture_all(&mut self, prepared: &mut [(usize, Pinned)]) -> Result<Graph, DeviceError> {
        self.capture_work(|slot| {
            for (number, pinned) in prepared {
                std::mem::swap(&mut slot.pinned, pinned);
                let enqueued = slot.enqueue(*number);
                std::mem::swap(&mut slot.pinned, pinned);
                enqueued?;
            }
            Ok(())
        })
    }

    /// Writes a full batch of zeros, which are ids of every table. Where a smaller bucket has left its scores a larger one
    /// reads how many rows there are, so nothing may run on what is there.
    fn write_sample(&mut self, number: usize) {
        let bucket = self.bucket(number);
        self.pinned.write(0, &vec![0; bucket.end]);
        self.write_header(bucket, bucket.rows);
    }

    fn write_header(&mut self, bucket: Bucket, rows: usize) {
        let mut header = [0; Bucket::HEADER_BYTES];
        let rows = u32::try_from(rows).expect("as few as its bucket's");
        header[..4].copy_from_slice(&rows.to_le_bytes());
        self.pinned.write(bucket.header, &header);
    }

    /// Writes a batch to where the graph of its bucket reads it.
    fn write(&mut self, number: usize, rows: &Rows) -> Result<(), EngineError> {
        let bucket = self.bucket(number);
        self.write_header(bucket, rows.len());
        if self.resident.plan.is_direct(&bucket) {
            // All rows are computed, and an earlier batch may have left ids there that are none.
            let ids = rows.len() * self.resident.plan.id_columns * size_of::<i32>();
            for at in (ids..bucket.dense).step_by(ZEROS.len()) {
                self.pinned.write(at, &ZEROS[..ZEROS.len().min(bucket.dense - at)]);
            }
        }
        let (ids, dense) = self.resident.numbers(rows)?;
        self.pinned.write(0, bytemuck::cast_slice(ids));
        self.pinned.write(bucket.dense, bytemuck::cast_slice(dense));
        Ok(())
    }

    /// Runs the graph of a bucket and waits for it.
    fn replay(&mut self, number: usize) -> Result<(), DeviceError> {
        // SAFETY: The stream captured it, with memory of this slot and its version, which live as long as the slot; the
        // slot waits for the work before it touches them again, here or, where that fails, when the stream is dropped.
        unsafe { self.stream.replay(self.graphs[number]) }?;
        self.stream.wait()
    }

    /// Reads the scores of a batch that was just computed.
    fn read(&self, number: usize, scores: &mut [f32]) -> Result<(), EngineError> {
        let bucket = self.bucket(number);
        let mut fault = [0; 4];
        self.pinned.read(bucket.header + Bucket::FAULT, &mut fault);
        if fault != [0; 4] {
            return Err(EngineError::Ids);
        }
        self.pinned.read(bucket.scores, bytemuck::cast_slice_mut(scores));
        Ok(())
    }

    /// Puts the work of a bucket into the stream.
    fn enqueue(&mut self, number: usize) -> Result<(), DeviceError> {
        let bucket = self.bucket(number);
        let Resident { plan, .. } = &*self.resident;
        if plan.is_direct(&bucket) {
            let rows = self.resident.at(plan.version.bucket_rows).at(number * size_of::<u32>());
            return self.compute(bucket, Exchange::new(bucket, self.pinned.seen_at(0), rows));
        }
        let start = self.part(plan.slot.exchange);
        let (from, bytes) = (self.pinned.at(0), bucket.scores);
        // SAFETY: Both are as large as the largest bucket asks for, belong to this slot, which outlives its stream, and are
        // left alone until the work is done. So it is for what is named below.
        unsafe { self.stream.copy_in(start, from, bytes) }?;
        self.compute(bucket, Exchange::new(bucket, start, start.at(bucket.header)))?;
        let (to, bytes) = (self.pinned.at(bucket.header), bucket.end - bucket.header);
        // SAFETY: As above.
        unsafe { self.stream.copy_out(to, start.at(bucket.header), bytes) }
    }

    /// Everything between what comes in and what goes out.
    pub(super) fn compute(&mut self, bucket: Bucket, exchange: Exchange) -> Result<(), DeviceError> {
        self.gather(bucket, exchange)?;
        let last = self.layers(bucket, exchange)?;
        self.head(bucket, exchange, last)
    }

    fn gather(&mut self, bucket: Bucket, exchange: Exchange) -> Result<(), DeviceError> {
        let Resident { plan, rows, .. } = &*self.resident;
        let Exchange { start, rows: count, fault, .. } = exchange;
        let pitch = plan.input.pitch / plan.precision.per_chunk();
        let arguments = [
            Argument::Memory(count),
            Argument::Memory(start),
            signed(plan.id_columns),
            Argument::Memory(start.at(bucket.dense)),
            signed(plan.dense_columns),
            Argument::Memory(self.resident.at(plan.version.fields)),
            signed(plan.version.fields.bytes / size_of::<kernels::Field>()),
            Argument::Memory(self.resident.at(plan.version.embeddings)),
            Argument::Unsigned(rows.embeddings),
            signed(plan.embedding_chunks()),
            signed(pitch),
            Argument::Memory(self.part(plan.slot.input)),
            Argument::Memory(fault),
        ];
        let kernel = kernels::GATHER.kernels[kernel_of(&self.resident)];
        self.launch(kernel, bucket.rows * pitch, &arguments)
    }

    /// The layers before the last one; says where what they come to lies.
    fn layers(&mut self, bucket: Bucket, exchange: Exchange) -> Result<Address, DeviceError> {
        let resident = Arc::clone(&self.resident);
        let slot = &resident.plan.slot;
        let (first, mut input) = (self.part(slot.input), self.part(slot.input));
        for (layer, place) in resident.plan.layers.iter().zip(slot.hidden.iter().cycle()) {
            let output = self.part(*place);
            self.multiply(bucket, layer, (input, output))?;
            if layer.kind == LayerKind::Cross {
                self.cross(bucket, layer, exchange.rows, [first, input, output])?;
            }
            input = output;
        }
        Ok(input)
    }

    fn multiply(
        &mut self,
        bucket: Bucket,
        layer: &LayerPlan,
        (input, output): (Address, Address),
    ) -> Result<(), DeviceError> {
        let product = Product {
            precision: self.resident.plan.precision,
            rows: bucket.rows,
            inputs: layer.inputs.pitch,
            outputs: layer.outputs.pitch,
            input,
            weights: self.resident.at(layer.weights),
            bias: self.resident.at(layer.bias),
            output,
            relu: layer.kind == LayerKind::Relu,
            workspace: self.part(self.resident.plan.slot.workspace),
        };
        // SAFETY: As in `enqueue`; the plan made each as large as its shape and the largest bucket ask for, and input and
        // output are two of them.
        unsafe { self.stream.multiply(&product) }
    }

    fn cross(
        &mut self,
        bucket: Bucket,
        layer: &LayerPlan,
        rows: Address,
        [first, input, sum]: [Address; 3],
    ) -> Result<(), DeviceError> {
        let plan = &self.resident.plan;
        let pitch = layer.outputs.pitch / plan.precision.per_chunk();
        let arguments = [
            Argument::Memory(rows),
            Argument::Memory(first),
            Argument::Memory(input),
            signed(pitch),
            Argument::Memory(sum),
        ];
        let kernel = kernels::CROSS.kernels[kernel_of(&self.resident)];
        self.launch(kernel, bucket.rows * pitch, &arguments)
    }

    fn head(&mut self, bucket: Bucket, exchange: Exchange, hidden: Address) -> Result<(), DeviceError> {
        let Resident { plan, rows, .. } = &*self.resident;
        let Exchange { start, rows: count, scores, fault } = exchange;
        let arguments = [
            Argument::Memory(count),
            Argument::Memory(hidden),
            Argument::Memory(self.resident.at(plan.version.last)),
            signed(plan.last_input.pitch / plan.precision.per_chunk()),
            Argument::Memory(start),
            signed(plan.id_columns),
            Argument::Memory(self.resident.at(plan.version.wide)),
            Argument::Unsigned(rows.wide),
            // The wide weights carry it.
            Argument::Float(0.0),
            Argument::Memory(scores),
            Argument::Memory(fault),
        ];
        let kernel = kernels::HEAD.kernels[kernel_of(&self.resident)];
        self.launch(kernel, bucket.rows * WARP, &arguments)
    }

    /// Launches `kernel` with at least so many threads.
    pub(super) fn launch(
        &mut self,
        kernel: &'static str,
        threads: usize,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let grid = threads.div_ceil(Launch::BLOCK as usize);
        let grid = u32::try_from(grid).expect("the plan has counted them");
        // SAFETY: As in `enqueue`; the arguments are those that the kernel's file names, and the plan made what they point
        // to as large as it says there.
        unsafe { self.stream.launch(&Launch { kernel, grid, arguments }) }
    }

    pub(super) fn part(&self, part: Part) -> Address {
        self.memory.at(part.offset)
    }
}

/// Where kernels find what comes in for a batch, and leave what goes out.
#[derive(Clone, Copy)]
pub(super) struct Exchange {
    /// The ids, and behind them the dense values: on the device or, where that is faster, the pinned memory itself.
    pub(super) start: Address,
    /// How many rows are to be computed.
    pub(super) rows: Address,
    pub(super) scores: Address,
    /// The word for an id that is none.
    pub(super) fault: Address,
}

impl Exchange {
    /// All of it as a bucket lays it out from `start` on, but for the number of rows.
    fn new(bucket: Bucket, start: Address, rows: Address) -> Self {
        let fault = start.at(bucket.header + Bucket::FAULT);
        Self { start, rows, scores: start.at(bucket.scores), fault }
    }
}

/// Which of a file's kernels: the one for single precision is the first.
fn kernel_of(resident: &Resident) -> usize {
    resident.plan.precision as usize
}

const ZEROS: [u8; 1024] = [0; 1024];
