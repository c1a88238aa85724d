//! A device in plain Rust that minds everything: whatever is read or written must lie in memory that is allocated then,
//! work is done when it is waited for and no sooner, a capture holds no allocation, and what is not given back is counted.
//! Kernels compute what their files say, so that an engine's scores on this device are those of its network.

use std::{
    collections::BTreeMap,
    ffi::c_void,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use half::f16;

use super::device::{
    Address, Argument, CHUNK_BYTES, Description, Device, DeviceError, Graph, HostAddress, Launch, Precision,
    Product, Stream,
};

/// The device. Whoever holds it looks on.
pub(in crate::engine) struct Fake {
    description: Description,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: Memory,
    free_bytes: usize,
    /// Calls that can fail, so far.
    calls: usize,
    /// Which of them does.
    fails_at: Option<usize>,
    capturing: bool,
    /// Work that was put into a stream and not waited for.
    pending: BTreeMap<usize, Vec<Work>>,
    streams: usize,
    open_streams: usize,
    replays: Vec<Graph>,
}

/// What a stream does.
#[derive(Clone, Debug)]
enum Work {
    CopyIn { to: Address, from: HostAddress, bytes: usize },
    CopyOut { to: HostAddress, from: Address, bytes: usize },
    Launch { kernel: &'static str, grid: u32, arguments: Vec<Argument> },
    Multiply(Product),
}

/// Allocations by their addresses, with gaps between them: the device's, and far behind them the pinned ones, which have
/// the same address for the host and for kernels.
#[derive(Default)]
struct Memory {
    allocations: BTreeMap<u64, Vec<u8>>,
    end: u64,
    pinned_end: u64,
}

impl Memory {
    fn allocate(&mut self, bytes: usize) -> u64 {
        assert!(bytes > 0, "something was asked for");
        let start = self.end + GAP;
        self.end = (start + bytes as u64).next_multiple_of(GAP);
        self.insert(start, bytes)
    }

    fn allocate_pinned(&mut self, bytes: usize) -> u64 {
        assert!(bytes > 0, "something was asked for");
        let start = PINNED + self.pinned_end + GAP;
        self.pinned_end = (start + bytes as u64).next_multiple_of(GAP) - PINNED;
        self.insert(start, bytes)
    }

    fn insert(&mut self, start: u64, bytes: usize) -> u64 {
        // No number that anybody computes with: as a half, a single or an id.
        self.allocations.insert(start, vec![0xff; bytes]);
        start
    }

    fn free(&mut self, start: u64) {
        assert!(self.allocations.remove(&start).is_some(), "freed once, and what was allocated");
    }

    fn at(&mut self, address: u64, bytes: usize) -> &mut [u8] {
        let found = self.allocations.range_mut(..=address).next_back();
        let (start, memory) = found.unwrap_or_else(|| panic!("nothing is allocated at {address:#x}"));
        let offset = usize::try_from(address - start).expect("64 bits");
        let length = memory.len();
        memory
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..bytes))
            .unwrap_or_else(|| panic!("{bytes} bytes at {offset} of {length}"))
    }

    fn word(&mut self, at: Address, index: usize) -> u32 {
        let bytes = self.at(at.at(index * 4).0, 4);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn set_word(&mut self, at: Address, index: usize, word: u32) {
        self.at(at.at(index * 4).0, 4).copy_from_slice(&word.to_le_bytes());
    }

    fn number(&mut self, precision: Precision, at: Address, index: usize) -> f32 {
        match precision {
            Precision::Single => f32::from_bits(self.word(at, index)),
            Precision::Half => {
                let bytes = self.at(at.at(index * 2).0, 2);
                f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
            }
        }
    }

    fn set_number(&mut self, precision: Precision, at: Address, index: usize, number: f32) {
        match precision {
            Precision::Single => self.set_word(at, index, number.to_bits()),
            Precision::Half => {
                self.at(at.at(index * 2).0, 2).copy_from_slice(&f16::from_f32(number).to_le_bytes());
            }
        }
    }
}

impl Fake {
    /// A device with so many free bytes.
    pub(in crate::engine) fn new(free_bytes: usize) -> Arc<Self> {
        let description = Description { name: "a fake".into(), capability: (9, 0) };
        Arc::new(Self { description, state: Mutex::new(State { free_bytes, ..State::default() }) })
    }

    /// From now on the call after so many others fails, and no other.
    pub(in crate::engine) fn fail_after(&self, calls: usize) {
        let mut state = self.state();
        state.fails_at = Some(state.calls + calls);
    }

    /// Calls that could have failed, so far.
    pub(in crate::engine) fn calls(&self) -> usize {
        self.state().calls
    }

    /// Allocations and streams that nobody has given back.
    pub(in crate::engine) fn held(&self) -> usize {
        let state = self.state();
        state.memory.allocations.len() + state.open_streams
    }

    /// Bytes that are allocated.
    pub(in crate::engine) fn allocated_bytes(&self) -> usize {
        self.state().memory.allocations.range(..PINNED).map(|(_, memory)| memory.len()).sum()
    }

    /// The graphs that were replayed, and forgets them.
    pub(in crate::engine) fn take_replays(&self) -> Vec<usize> {
        std::mem::take(&mut self.state().replays).into_iter().map(|graph| graph.0).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for a call that can fail.
    fn call(&self, call: &'static str) -> Result<MutexGuard<'_, State>, DeviceError> {
        let mut state = self.state();
        let fails = state.fails_at == Some(state.calls);
        state.calls += 1;
        if fails { Err(DeviceError { call, reason: "it was told to".into() }) } else { Ok(state) }
    }
}

impl State {
    fn assert_not_capturing(&self) {
        assert!(!self.capturing, "a capture holds work alone");
    }

    /// Memory of the device is given back when no work is pending that may touch it.
    fn assert_done(&self) {
        assert!(self.pending.values().all(Vec::is_empty), "the work was waited for");
    }

    /// Pinned memory is its owner's while no work is pending that touches it. What a kernel touches behind an address that it
    /// is given is not known, so it may be all that is there.
    fn assert_untouched(&self, start: usize, bytes: usize) {
        let touches = |work: &Work| match *work {
            Work::CopyIn { from: HostAddress(at), bytes: length, .. }
            | Work::CopyOut { to: HostAddress(at), bytes: length, .. } => {
                at < start + bytes && start < at + length
            }
            Work::Launch { ref arguments, .. } => arguments.iter().any(|argument| match *argument {
                Argument::Memory(Address(at)) => at >= PINNED && at < (start + bytes) as u64,
                _ => false,
            }),
            Work::Multiply(_) => false,
        };
        assert!(!self.pending.values().flatten().any(touches), "the work was waited for");
    }

    fn run(&mut self, work: &Work) {
        let memory = &mut self.memory;
        match work {
            &Work::CopyIn { to, from, bytes } => {
                let from = memory.at(from.0 as u64, bytes).to_vec();
                memory.at(to.0, bytes).copy_from_slice(&from);
            }
            &Work::CopyOut { to, from, bytes } => {
                let from = memory.at(from.0, bytes).to_vec();
                memory.at(to.0 as u64, bytes).copy_from_slice(&from);
            }
            Work::Launch { kernel: "topk_items", grid, arguments } => topk_items(memory, *grid, arguments),
            Work::Launch { kernel: "topk_keys", grid, arguments } => topk_keys(memory, *grid, arguments),
            Work::Launch { kernel: ROW_SUMS, arguments, .. } => row_sums(memory, arguments),
            Work::Launch { kernel, grid, arguments } => {
                let threads = *grid as usize * Launch::BLOCK as usize;
                match *kernel {
                    "gather_f32" => gather(memory, Precision::Single, threads, arguments),
                    "gather_f16" => gather(memory, Precision::Half, threads, arguments),
                    "cross_f32" => cross(memory, Precision::Single, threads, arguments),
                    "cross_f16" => cross(memory, Precision::Half, threads, arguments),
                    "dense_1_f32" => dense(memory, (1, Precision::Single), threads, arguments),
                    "dense_1_f16" => dense(memory, (1, Precision::Half), threads, arguments),
                    "dense_8_f32" => dense(memory, (8, Precision::Single), threads, arguments),
                    "dense_8_f16" => dense(memory, (8, Precision::Half), threads, arguments),
                    "head_f32" => head(memory, Precision::Single, threads, arguments),
                    "head_f16" => head(memory, Precision::Half, threads, arguments),
                    "pairs" => pairs(memory, threads, arguments),
                    other => panic!("no kernel {other}"),
                }
            }
            Work::Multiply(product) => multiply(memory, product),
        }
    }
}

impl Device for Fake {
    fn description(&self) -> &Description {
        &self.description
    }

    fn enter(&self) -> Result<(), DeviceError> {
        self.call("enter").map(drop)
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        let state = self.call("free_bytes")?;
        Ok(state.free_bytes)
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        let mut state = self.call("allocate")?;
        state.assert_not_capturing();
        Ok(Address(state.memory.allocate(bytes)))
    }

    unsafe fn free(&self, memory: Address) {
        let mut state = self.state();
        state.assert_not_capturing();
        state.assert_done();
        state.memory.free(memory.0);
    }

    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        let mut state = self.call("upload")?;
        state.assert_not_capturing();
        state.memory.at(to.0, bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<HostAddress, DeviceError> {
        let mut state = self.call("allocate_pinned")?;
        state.assert_not_capturing();
        let start = state.memory.allocate_pinned(bytes);
        Ok(HostAddress(usize::try_from(start).expect("64 bits")))
    }

    unsafe fn free_pinned(&self, memory: HostAddress) {
        let mut state = self.state();
        state.assert_not_capturing();
        let bytes = state.memory.allocations.get(&(memory.0 as u64)).map_or(0, Vec::len);
        state.assert_untouched(memory.0, bytes);
        state.memory.free(memory.0 as u64);
    }

    unsafe fn write_pinned(&self, to: HostAddress, bytes: &[u8]) {
        let mut state = self.state();
        state.assert_untouched(to.0, bytes.len());
        state.memory.at(to.0 as u64, bytes.len()).copy_from_slice(bytes);
    }

    unsafe fn read_pinned(&self, from: HostAddress, bytes: &mut [u8]) {
        let mut state = self.state();
        state.assert_untouched(from.0, bytes.len());
        bytes.copy_from_slice(state.memory.at(from.0 as u64, bytes.len()));
    }

    fn seen_from_device(&self, memory: HostAddress) -> Result<Address, DeviceError> {
        drop(self.call("seen_from_device")?);
        Ok(Address(memory.0 as u64))
    }

    fn open_stream(self: Arc<Self>) -> Result<Box<dyn Stream>, DeviceError> {
        let mut state = self.call("open_stream")?;
        state.assert_not_capturing();
        state.streams += 1;
        state.open_streams += 1;
        let number = state.streams;
        drop(state);
        Ok(Box::new(FakeStream { number, captured: None, graphs: Vec::new(), fake: self }))
    }
}

struct FakeStream {
    number: usize,
    captured: Option<Vec<Work>>,
    graphs: Vec<Vec<Work>>,
    fake: Arc<Fake>,
}

impl FakeStream {
    fn put(&mut self, call: &'static str, work: Work) -> Result<(), DeviceError> {
        let mut state = self.fake.call(call)?;
        match &mut self.captured {
            Some(captured) => captured.push(work),
            None => state.pending.entry(self.number).or_default().push(work),
        }
        Ok(())
    }
}

impl Stream for FakeStream {
    unsafe fn copy_in(&mut self, to: Address, from: HostAddress, bytes: usize) -> Result<(), DeviceError> {
        self.put("copy_in", Work::CopyIn { to, from, bytes })
    }

    unsafe fn copy_out(&mut self, to: HostAddress, from: Address, bytes: usize) -> Result<(), DeviceError> {
        self.put("copy_out", Work::CopyOut { to, from, bytes })
    }

    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        let &Launch { kernel, grid, arguments } = launch;
        self.put("launch", Work::Launch { kernel, grid, arguments: arguments.to_vec() })
    }

    unsafe fn multiply(&mut self, product: &Product) -> Result<(), DeviceError> {
        self.put("multiply", Work::Multiply(*product))
    }

    fn begin_capture(&mut self) -> Result<(), DeviceError> {
        let mut state = self.fake.call("begin_capture")?;
        state.assert_not_capturing();
        assert!(
            state.pending.get(&self.number).is_none_or(Vec::is_empty),
            "a capture begins with nothing to do"
        );
        state.capturing = true;
        self.captured = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Graph, DeviceError> {
        // A capture ends even where it fails.
        let captured = self.captured.take().expect("a capture that was begun");
        self.fake.state().capturing = false;
        drop(self.fake.call("end_capture")?);
        self.graphs.push(captured);
        Ok(Graph(self.graphs.len() - 1))
    }

    unsafe fn replay(&mut self, graph: Graph) -> Result<(), DeviceError> {
        let mut state = self.fake.call("replay")?;
        state.assert_not_capturing();
        state.replays.push(graph);
        state.pending.entry(self.number).or_default().extend_from_slice(&self.graphs[graph.0]);
        Ok(())
    }

    fn handle(&self) -> *mut c_void {
        ptr::null_mut()
    }

    fn wait(&mut self) -> Result<(), DeviceError> {
        let waited = self.fake.call("wait");
        if waited.is_err() {
            // A device that failed does nothing any more.
            self.fake.state().pending.remove(&self.number);
        }
        let mut state = waited?;
        state.assert_not_capturing();
        for work in state.pending.remove(&self.number).unwrap_or_default() {
            state.run(&work);
        }
        Ok(())
    }
}

impl Drop for FakeStream {
    fn drop(&mut self) {
        let mut state = self.fake.state();
        for work in state.pending.remove(&self.number).unwrap_or_default() {
            state.run(&work);
        }
        state.open_streams -= 1;
    }
}

/// `gather.cu`.
fn gather(memory: &mut Memory, precision: Precision, threads: usize, arguments: &[Argument]) {
    use Argument::{Memory as At, Signed, Unsigned};
    let &[
        At(rows),
        At(ids),
        Signed(id_columns),
        At(dense),
        Signed(dense_columns),
        At(fields),
        Signed(field_count),
        At(table),
        Unsigned(table_rows),
        Signed(chunks),
        Signed(pitch),
        At(input),
        At(fault),
    ] = arguments
    else {
        panic!("other arguments: {arguments:?}");
    };
    let [id_columns, dense_columns, field_count, chunks, pitch] =
        [id_columns, dense_columns, field_count, chunks, pitch].map(size);
    let per_chunk = precision.per_chunk();
    let (dimension, pitch_numbers) = (chunks * per_chunk, pitch * per_chunk);
    assert_aligned(&[table, input]);
    let rows = memory.word(rows, 0) as usize;
    assert!(threads >= rows * pitch, "a thread a chunk");
    for row in 0..rows {
        let mut numbers = Vec::with_capacity(pitch_numbers);
        for field in 0..field_count {
            let [first, columns, padding, mean] =
                [0, 1, 2, 3].map(|word| memory.word(fields, field * 4 + word).cast_signed());
            let mut sums = vec![0.0; dimension];
            let mut counted = 0;
            for column in 0..size(columns) {
                let id = memory.word(ids, row * id_columns + size(first) + column);
                if id >= table_rows {
                    memory.set_word(fault, 0, 1);
                    continue;
                }
                counted += u16::from(id.cast_signed() > padding);
                for (place, sum) in sums.iter_mut().enumerate() {
                    *sum += memory.number(precision, table, id as usize * dimension + place);
                }
            }
            let share = if mean == 1 && columns > 1 { f32::from(counted.max(1)) } else { 1.0 };
            numbers.extend(sums.into_iter().map(|sum| sum / share));
        }
        for column in 0..dense_columns {
            numbers.push(memory.number(Precision::Single, dense, row * dense_columns + column));
        }
        assert!(numbers.len() <= pitch_numbers, "a row's numbers fit into its pitch");
        numbers.resize(pitch_numbers, 0.0);
        for (place, number) in numbers.into_iter().enumerate() {
            memory.set_number(precision, input, row * pitch_numbers + place, number);
        }
    }
}

/// `cross.cu`.
fn cross(memory: &mut Memory, precision: Precision, threads: usize, arguments: &[Argument]) {
    use Argument::{Memory as At, Signed};
    let &[At(rows), At(first), At(input), Signed(pitch), At(sum)] = arguments else {
        panic!("other arguments: {arguments:?}");
    };
    assert_aligned(&[first, input, sum]);
    let rows = memory.word(rows, 0) as usize;
    assert!(threads >= rows * size(pitch), "a thread a chunk");
    for index in 0..rows * size(pitch) * precision.per_chunk() {
        let [first, input, number] = [first, input, sum].map(|at| memory.number(precision, at, index));
        memory.set_number(precision, sum, index, first * number + input);
    }
}

/// `dense.cu`, for so many rows at most.
fn dense(memory: &mut Memory, (most, precision): (usize, Precision), threads: usize, arguments: &[Argument]) {
    use Argument::{Memory as At, Signed};
    let &[
        At(input),
        Signed(rows),
        Signed(pitch),
        At(weights),
        At(bias),
        Signed(outputs),
        Signed(relu),
        At(output),
    ] = arguments
    else {
        panic!("other arguments: {arguments:?}");
    };
    assert_aligned(&[input, weights]);
    let (rows, inputs, outputs) = (size(rows), size(pitch) * precision.per_chunk(), size(outputs));
    assert!(rows <= most && threads >= outputs * 32, "few rows, and a warp an output");
    multiply_plainly(memory, precision, [rows, inputs, outputs], [input, weights, bias, output], relu == 1);
}

/// `head.cu`.
fn head(memory: &mut Memory, precision: Precision, threads: usize, arguments: &[Argument]) {
    use Argument::{Float, Memory as At, Signed, Unsigned};
    let &[
        At(rows),
        At(hidden),
        At(weights),
        Signed(pitch),
        At(ids),
        Signed(id_columns),
        At(wide),
        Unsigned(wide_rows),
        Float(bias),
        At(probability),
        At(fault),
    ] = arguments
    else {
        panic!("other arguments: {arguments:?}");
    };
    assert_aligned(&[hidden, weights]);
    let (pitch, id_columns) = (size(pitch) * precision.per_chunk(), size(id_columns));
    let rows = memory.word(rows, 0) as usize;
    assert!(threads >= rows * 32, "a warp a row");
    for row in 0..rows {
        let mut sum = bias;
        for column in 0..id_columns {
            match memory.word(ids, row * id_columns + column) {
                id if id < wide_rows => sum += memory.number(Precision::Single, wide, id as usize),
                _ => memory.set_word(fault, 0, 1),
            }
        }
        for place in 0..pitch {
            let unit = memory.number(precision, hidden, row * pitch + place);
            sum += unit * memory.number(precision, weights, place);
        }
        memory.set_number(Precision::Single, probability, row, 1.0 / (1.0 + (-sum).exp()));
    }
}

/// No kernel of ours: it stands for the work that another library puts into a stream. A row's score is the sum of its
/// columns, of as many inputs as there are after the first two arguments, each by its address, its width, and 1 where it
/// holds ids, which must be ids.
fn row_sums(memory: &mut Memory, arguments: &[Argument]) {
    use Argument::{Memory as At, Signed, Unsigned};
    let [Signed(rows), At(scores), inputs @ ..] = arguments else { panic!("other arguments: {arguments:?}") };
    for row in 0..size(*rows) {
        let mut sum = 0.0;
        for input in inputs.chunks_exact(3) {
            let &[At(at), Signed(width), Unsigned(is_ids)] = input else {
                panic!("other arguments: {input:?}");
            };
            for place in row * size(width)..(row + 1) * size(width) {
                sum += if is_ids == 1 {
                    let id = i16::try_from(memory.word(at, place)).expect("an id of some table");
                    f32::from(id)
                } else {
                    memory.number(Precision::Single, at, place)
                };
            }
        }
        memory.set_number(Precision::Single, *scores, row, sum);
    }
}

/// `pairs.cu`.
fn pairs(memory: &mut Memory, threads: usize, arguments: &[Argument]) {
    use Argument::{Memory as At, Signed, Unsigned};
    let &[
        At(user),
        At(items),
        Signed(item_columns),
        At(sources),
        Signed(columns),
        Signed(id_columns),
        Unsigned(first),
        Unsigned(rows),
        At(ids),
        At(dense),
    ] = arguments
    else {
        panic!("other arguments: {arguments:?}");
    };
    let [item_columns, columns, id_columns] = [item_columns, columns, id_columns].map(size);
    let (first, rows) = (first as usize, rows as usize);
    assert!(threads >= rows * columns, "a thread a word");
    for row in 0..rows {
        for column in 0..columns {
            let word = match usize::try_from(memory.word(sources, column).cast_signed()) {
                Ok(source) => memory.word(items, (first + row) * item_columns + source),
                Err(_) => memory.word(user, column),
            };
            if column < id_columns {
                memory.set_word(ids, row * id_columns + column, word);
            } else {
                memory.set_word(dense, row * (columns - id_columns) + column - id_columns, word);
            }
        }
    }
}

/// `topk_items` of `topk.cu`.
fn topk_items(memory: &mut Memory, grid: u32, arguments: &[Argument]) {
    use Argument::{Memory as At, Signed};
    let &[At(count), At(scores), At(excluded), Signed(excluded_count), Signed(k), At(best), At(fault)] =
        arguments
    else {
        panic!("other arguments: {arguments:?}");
    };
    let count = memory.word(count, 0);
    let excluded: Vec<u32> = (0..size(excluded_count)).map(|place| memory.word(excluded, place)).collect();
    let key = |memory: &mut Memory, item: u32| {
        let bits = if item < count { memory.word(scores, item as usize) } else { 0 };
        if !f32::from_bits(bits).is_finite() {
            memory.set_word(fault, 0, 1);
        }
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        let is_item = item < count && !f32::from_bits(bits).is_nan() && !excluded.contains(&item);
        if is_item { u64::from(ordered) << 32 | u64::from(!item) } else { 0 }
    };
    for tile in 0..grid {
        let keys = (tile * TILE..(tile + 1) * TILE).map(|item| key(memory, item)).collect();
        leave_best(memory, keys, (tile, k), best);
    }
}

/// `topk_keys` of `topk.cu`.
fn topk_keys(memory: &mut Memory, grid: u32, arguments: &[Argument]) {
    use Argument::{Memory as At, Signed, Unsigned};
    let &[At(keys), Unsigned(key_count), Signed(k), At(best)] = arguments else {
        panic!("other arguments: {arguments:?}");
    };
    for tile in 0..grid {
        let numbers = tile * TILE..((tile + 1) * TILE).min(key_count);
        let key = |number: u32| {
            let [low, high] = [0, 1].map(|word| memory.word(keys, number as usize * 2 + word));
            u64::from(high) << 32 | u64::from(low)
        };
        let found = numbers.map(key).collect();
        leave_best(memory, found, (tile, k), best);
    }
}

fn leave_best(memory: &mut Memory, mut keys: Vec<u64>, (tile, k): (u32, i32), best: Address) {
    keys.sort_unstable_by(|one, other| other.cmp(one));
    keys.resize(size(k), 0);
    let at = best.at(tile as usize * size(k) * 8);
    let bytes: Vec<u8> = keys.into_iter().flat_map(u64::to_le_bytes).collect();
    memory.at(at.0, bytes.len()).copy_from_slice(&bytes);
}

/// What cuBLASLt does: sums in single precision, rounded once at the end. All rows, be they there or not.
fn multiply(memory: &mut Memory, product: &Product) {
    let &Product { precision, rows, inputs, outputs, input, weights, bias, output, relu, workspace } =
        product;
    assert_aligned(&[input, weights, bias, output, workspace]);
    assert_eq!((inputs % precision.per_chunk(), outputs % precision.per_chunk()), (0, 0), "whole chunks");
    memory.at(workspace.0, super::plan::WORKSPACE_BYTES);
    multiply_plainly(memory, precision, [rows, inputs, outputs], [input, weights, bias, output], relu);
}

fn multiply_plainly(
    memory: &mut Memory,
    precision: Precision,
    [rows, inputs, outputs]: [usize; 3],
    [input, weights, bias, output]: [Address; 4],
    relu: bool,
) {
    for row in 0..rows {
        for unit in 0..outputs {
            let mut sum = memory.number(precision, bias, unit);
            for place in 0..inputs {
                sum += memory.number(precision, input, row * inputs + place)
                    * memory.number(precision, weights, unit * inputs + place);
            }
            let sum = if relu { sum.max(0.0) } else { sum };
            memory.set_number(precision, output, row * outputs + unit, sum);
        }
    }
}

fn assert_aligned(addresses: &[Address]) {
    let is_aligned = |address: &Address| address.0.is_multiple_of(CHUNK_BYTES as u64);
    assert!(addresses.iter().all(is_aligned), "chunks are moved at once: {addresses:?}");
}

fn size(number: i32) -> usize {
    usize::try_from(number).expect("no size is below zero")
}

/// The work that stands for another library's.
pub(in crate::engine) const ROW_SUMS: &str = "row_sums";

/// Items or keys of a block of top-k.
const TILE: u32 = 2048;

/// What lies between two allocations at least, and what each starts at a multiple of.
const GAP: u64 = 4096;

/// Where pinned memory begins.
const PINNED: u64 = 1 << 40;
