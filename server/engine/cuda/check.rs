//! Our kernels and the products of cuBLASLt on a device, beside plain computations in double precision: what shows on a
//! machine with a GPU what the emulator and the fake show without one. The tests run it on the fake, which shows that it asks
//! for the right things.
//!
//! Outputs hold a pattern before each run, and what is not to be written must still hold it afterwards.

use std::sync::Arc;

use half::f16;
use serde::Serialize;

use super::{
    device::{Address, Argument, Device, DeviceError, Launch, Precision, Product, Stream},
    memory::{Memory, Pinned},
    plan::WORKSPACE_BYTES,
};

/// What came of one kernel, or of the product, in one precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// Launches.
    pub cases: usize,
    /// The largest distance of a number from what it should be.
    pub largest_error: f64,
    /// What that may be.
    pub tolerance: f64,
    /// What was written where nothing should be, or not said of an id that is none; empty where all is well.
    pub faults: Vec<String>,
}

impl Checked {
    fn new(name: &str, tolerance: f64) -> Self {
        Self { name: name.to_owned(), cases: 0, largest_error: 0.0, tolerance, faults: Vec::new() }
    }

    /// Whether all is well.
    pub fn passed(&self) -> bool {
        self.cases > 0 && self.largest_error <= self.tolerance && self.faults.is_empty()
    }

    /// Compares numbers with what they should be.
    fn compare(&mut self, found: &[f64], expected: &[f64]) {
        self.expect(found.len() == expected.len(), "another number of numbers");
        for (found, expected) in found.iter().zip(expected) {
            let error = (found - expected).abs();
            // A NaN is as far off as can be.
            self.largest_error = self.largest_error.max(if error.is_nan() { f64::INFINITY } else { error });
        }
    }

    fn expect(&mut self, holds: bool, fault: &str) {
        if !holds {
            self.faults.push(format!("case {}: {fault}", self.cases));
        }
    }
}

/// Checks everything that an engine runs, by launches for up to `max_rows`.
pub(super) fn check(device: &Arc<dyn Device>, max_rows: usize) -> Result<Vec<Checked>, DeviceError> {
    let batches = BATCHES.into_iter().filter(|&(_, bucket)| bucket <= max_rows).collect();
    let stream = Arc::clone(device).open_stream()?;
    let mut bench = Bench { stream, device: Arc::clone(device), batches };
    let mut all = Vec::new();
    for precision in [Precision::Single, Precision::Half] {
        all.push(bench.check_gather(precision)?);
        all.push(bench.check_cross(precision)?);
        all.push(bench.check_head(precision)?);
        all.push(bench.check_product(precision)?);
    }
    all.push(bench.check_top_k(max_rows)?);
    Ok(all)
}

/// A device, and what is done on it one after the other.
struct Bench {
    /// Declared first, so that it has waited before memory is given back.
    stream: Box<dyn Stream>,
    device: Arc<dyn Device>,
    batches: Vec<(usize, usize)>,
}

/// Rows that there are, of how many the launch is made for.
const BATCHES: [(usize, usize); 7] = [(0, 5), (1, 1), (4, 5), (5, 5), (7, 64), (63, 64), (257, 300)];

impl Bench {
    fn check_gather(&mut self, precision: Precision) -> Result<Checked, DeviceError> {
        let mut checked = Checked::new(&format!("gather_{}", suffix(precision)), 8.0 * step(precision));
        for (dimension, dense_columns) in [(1, 0), (4, 3), (5, 1), (16, 0), (33, 9)] {
            for (rows, bucket) in self.batches.clone() {
                let case = Gather::new(precision, (dimension, dense_columns), (rows, bucket));
                self.gather(&case, &mut checked)?;
            }
        }
        Ok(checked)
    }

    fn gather(&mut self, case: &Gather, checked: &mut Checked) -> Result<(), DeviceError> {
        let Gather { precision, dense_columns, rows, bucket, .. } = *case;
        let (chunks, pitch) = (case.chunks(), case.pitch());
        let [count, ids, dense] = [
            self.put(&words(&[rows]))?,
            self.put(&id_bytes(&case.ids))?,
            self.put(&encode(Precision::Single, &case.dense))?,
        ];
        let fields =
            FIELDS.iter().flat_map(|field| [field.first_column, field.columns, field.padding, field.mean]);
        let fields = self.put(&fields.flat_map(i32::to_le_bytes).collect::<Vec<_>>())?;
        let table = self.put(&encode(precision, &pad(&case.table, case.dimension, precision)))?;
        let bytes = bucket * pitch * 16;
        let [input, fault] = [self.put(&vec![POISON; bytes])?, self.put(&[0; 4])?];
        let arguments = [
            Argument::Memory(count.at(0)),
            Argument::Memory(ids.at(0)),
            signed(ID_COLUMNS),
            Argument::Memory(dense.at(0)),
            signed(dense_columns),
            Argument::Memory(fields.at(0)),
            signed(FIELDS.len()),
            Argument::Memory(table.at(0)),
            Argument::Unsigned(TABLE_ROWS),
            signed(chunks),
            signed(pitch),
            Argument::Memory(input.at(0)),
            Argument::Memory(fault.at(0)),
        ];
        self.launch(kernels::GATHER.kernels[precision as usize], bucket * pitch, &arguments)?;
        let found = self.fetch(input.at(0), bytes)?;
        checked.cases += 1;
        let (there, rest) = found.split_at(rows * pitch * 16);
        checked.expect(rest.iter().all(|&byte| byte == POISON), NOT_THERE);
        let (expected, outside) = case.expected();
        checked.compare(&decode(precision, there), &expected);
        let fault = self.fetch(fault.at(0), 4)?;
        checked.expect((fault != [0; 4]) == outside, NOT_TOLD);
        Ok(())
    }

    fn check_cross(&mut self, precision: Precision) -> Result<Checked, DeviceError> {
        let mut checked = Checked::new(&format!("cross_{}", suffix(precision)), 8.0 * step(precision));
        for width in [8, 40, 264] {
            for (rows, bucket) in self.batches.clone() {
                let mut numbers = Numbers(3);
                let mut matrix = || encode(precision, &numbers.take(bucket * width, 2.0));
                let [first, input, sums] = [matrix(), matrix(), matrix()];
                let [first_at, input_at, sums_at] = [self.put(&first)?, self.put(&input)?, self.put(&sums)?];
                let count = self.put(&words(&[rows]))?;
                let pitch = width / precision.per_chunk();
                let arguments = [
                    Argument::Memory(count.at(0)),
                    Argument::Memory(first_at.at(0)),
                    Argument::Memory(input_at.at(0)),
                    signed(pitch),
                    Argument::Memory(sums_at.at(0)),
                ];
                self.launch(kernels::CROSS.kernels[precision as usize], bucket * pitch, &arguments)?;
                let found = self.fetch(sums_at.at(0), sums.len())?;
                checked.cases += 1;
                let there = rows * width * precision.bytes();
                checked.expect(found[there..] == sums[there..], NOT_THERE);
                let [first, input, sums] =
                    [first, input, sums].map(|bytes| decode(precision, &bytes[..there]));
                let expected =
                    first.iter().zip(&sums).zip(&input).map(|((first, sum), input)| first * sum + input);
                checked.compare(&decode(precision, &found[..there]), &expected.collect::<Vec<_>>());
            }
        }
        Ok(checked)
    }

    fn check_head(&mut self, precision: Precision) -> Result<Checked, DeviceError> {
        let mut checked = Checked::new(&format!("head_{}", suffix(precision)), 1e-5);
        for (units, bias) in [(8, 0.5), (24, -0.25), (264, 0.0), (8, -200.0), (8, 200.0)] {
            for (rows, bucket) in self.batches.clone() {
                let case = Head::new(precision, (units, bias), (rows, bucket));
                self.head(&case, &mut checked)?;
            }
        }
        Ok(checked)
    }

    fn head(&mut self, case: &Head, checked: &mut Checked) -> Result<(), DeviceError> {
        let Head { precision, rows, bucket, .. } = *case;
        let [hidden, weights] = [self.put(&case.hidden)?, self.put(&case.weights)?];
        let [count, ids] = [self.put(&words(&[rows]))?, self.put(&id_bytes(&case.ids))?];
        let wide = self.put(&encode(Precision::Single, &case.wide))?;
        let [scores, fault] = [self.put(&vec![POISON; bucket * 4])?, self.put(&[0; 4])?];
        let arguments = [
            Argument::Memory(count.at(0)),
            Argument::Memory(hidden.at(0)),
            Argument::Memory(weights.at(0)),
            signed(case.units / precision.per_chunk()),
            Argument::Memory(ids.at(0)),
            signed(ID_COLUMNS),
            Argument::Memory(wide.at(0)),
            Argument::Unsigned(TABLE_ROWS),
            Argument::Float(case.bias),
            Argument::Memory(scores.at(0)),
            Argument::Memory(fault.at(0)),
        ];
        self.launch(kernels::HEAD.kernels[precision as usize], bucket * 32, &arguments)?;
        let found = self.fetch(scores.at(0), bucket * 4)?;
        checked.cases += 1;
        let (there, rest) = found.split_at(rows * 4);
        checked.expect(rest.iter().all(|&byte| byte == POISON), NOT_THERE);
        let (expected, outside) = case.expected();
        checked.compare(&decode(Precision::Single, there), &expected);
        let fault = self.fetch(fault.at(0), 4)?;
        checked.expect((fault != [0; 4]) == outside, NOT_TOLD);
        Ok(())
    }

    fn check_product(&mut self, precision: Precision) -> Result<Checked, DeviceError> {
        // Sums of up to 264 products below 0.5, rounded once.
        let tolerance = if precision == Precision::Single { 1e-4 } else { 2e-2 };
        let mut checked = Checked::new(&format!("product_{}", suffix(precision)), tolerance);
        for (inputs, outputs) in [(8, 8), (8, 264), (264, 8), (64, 128)] {
            for rows in [1, 8, 33, 128] {
                for relu in [true, false] {
                    self.product(precision, [rows, inputs, outputs], relu, &mut checked)?;
                }
            }
        }
        Ok(checked)
    }

    fn product(
        &mut self,
        precision: Precision,
        [rows, inputs, outputs]: [usize; 3],
        relu: bool,
        checked: &mut Checked,
    ) -> Result<(), DeviceError> {
        let mut numbers = Numbers(11);
        let input = encode(precision, &numbers.take(rows * inputs, 1.0));
        let weights = encode(precision, &numbers.take(outputs * inputs, 0.5));
        let bias = encode(precision, &numbers.take(outputs, 1.0));
        let bytes = rows * outputs * precision.bytes();
        let [input_at, weights_at, bias_at] = [self.put(&input)?, self.put(&weights)?, self.put(&bias)?];
        // Something stands behind the output as well.
        let output = self.put(&vec![POISON; bytes + 64])?;
        let workspace = Memory::new(&self.device, WORKSPACE_BYTES)?;
        let product = Product {
            precision,
            rows,
            inputs,
            outputs,
            input: input_at.at(0),
            weights: weights_at.at(0),
            bias: bias_at.at(0),
            output: output.at(0),
            relu,
            workspace: workspace.at(0),
        };
        // SAFETY: Each is as large as its shape asks for, and is kept until the work was waited for in `fetch`.
        unsafe { self.stream.multiply(&product) }?;
        let found = self.fetch(output.at(0), bytes + 64)?;
        checked.cases += 1;
        checked.expect(
            found[bytes..].iter().all(|&byte| byte == POISON),
            "something was written behind the output",
        );
        let [input, weights, bias] = [input, weights, bias].map(|bytes| decode(precision, &bytes));
        let mut expected = products(&input, &weights, &bias);
        if relu {
            for number in &mut expected {
                *number = number.max(0.0);
            }
        }
        checked.compare(&decode(precision, &found[..bytes]), &expected);
        Ok(())
    }

    fn check_top_k(&mut self, max_rows: usize) -> Result<Checked, DeviceError> {
        // Keys are integers, which are right or are not.
        let mut checked = Checked::new("topk", 0.0);
        for (count, bucket) in ITEMS.into_iter().filter(|&(_, bucket)| bucket <= max_rows.max(1024)) {
            for k in [1, 10, 512] {
                let case = TopK::new(count, bucket, k);
                let found = self.top_k(&case)?;
                checked.cases += 1;
                checked.expect(found == case.expected(), "other items, or in another order");
            }
        }
        Ok(checked)
    }

    /// The keys of the best items, of each tile first and then of what that leaves.
    fn top_k(&mut self, case: &TopK) -> Result<Vec<u64>, DeviceError> {
        let [count, scores] =
            [self.put(&words(&[case.count]))?, self.put(&encode(Precision::Single, &case.scores))?];
        let excluded: Vec<u8> = case.excluded.iter().flat_map(|item| item.to_le_bytes()).collect();
        let excluded = self.put(&excluded)?;
        let mut blocks = case.scores.len().div_ceil(TILE);
        let mut best = self.put(&vec![POISON; blocks * case.k * 8])?;
        let arguments = [
            Argument::Memory(count.at(0)),
            Argument::Memory(scores.at(0)),
            Argument::Memory(excluded.at(0)),
            signed(case.excluded.len()),
            signed(case.k),
            Argument::Memory(best.at(0)),
        ];
        self.launch("topk_items", blocks * Launch::BLOCK as usize, &arguments)?;
        while blocks > 1 {
            let keys = blocks * case.k;
            blocks = keys.div_ceil(TILE);
            let fewer = self.put(&vec![POISON; blocks * case.k * 8])?;
            let arguments = [
                Argument::Memory(best.at(0)),
                Argument::Unsigned(u32::try_from(keys).expect("a few")),
                signed(case.k),
                Argument::Memory(fewer.at(0)),
            ];
            self.launch("topk_keys", blocks * Launch::BLOCK as usize, &arguments)?;
            // What it reads is given back with the next turn.
            self.stream.wait()?;
            best = fewer;
        }
        let found = self.fetch(best.at(0), case.k * 8)?;
        Ok(found.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect())
    }

    /// Memory that holds `bytes`.
    fn put(&self, bytes: &[u8]) -> Result<Memory, DeviceError> {
        let mut memory = Memory::new(&self.device, bytes.len())?;
        memory.upload(0, bytes)?;
        Ok(memory)
    }

    /// What is at `from` after everything that was put into the stream.
    fn fetch(&mut self, from: Address, bytes: usize) -> Result<Vec<u8>, DeviceError> {
        let pinned = Pinned::new(&self.device, bytes)?;
        // SAFETY: Both are as large, and kept until the work was waited for in the next line.
        unsafe { self.stream.copy_out(pinned.at(0), from, bytes) }?;
        self.stream.wait()?;
        let mut found = vec![0; bytes];
        pinned.read(0, &mut found);
        Ok(found)
    }

    fn launch(
        &mut self,
        kernel: &'static str,
        threads: usize,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let grid = u32::try_from(threads.div_ceil(Launch::BLOCK as usize)).expect("a few");
        // SAFETY: The arguments are those that the kernel's file names, and kept until the work was waited for in `fetch`.
        unsafe { self.stream.launch(&Launch { kernel, grid, arguments }) }
    }
}

/// An id, a mean of three and a sum of two.
const FIELDS: [kernels::Field; 3] = [
    kernels::Field { first_column: 0, columns: 1, padding: 0, mean: 0 },
    kernels::Field { first_column: 1, columns: 3, padding: 4, mean: 1 },
    kernels::Field { first_column: 4, columns: 2, padding: 0, mean: 0 },
];
const ID_COLUMNS: usize = 6;
const TABLE_ROWS: u32 = 50;
const NOT_THERE: &str = "rows that are not there were written";
const NOT_TOLD: &str = "an id outside of the table was not told of, or one within was";
/// As a number, NaN in single precision and in half.
const POISON: u8 = 0xff;

/// A batch for the gather.
struct Gather {
    precision: Precision,
    dimension: usize,
    dense_columns: usize,
    rows: usize,
    bucket: usize,
    table: Vec<f32>,
    ids: Vec<i32>,
    dense: Vec<f32>,
}

impl Gather {
    fn new(
        precision: Precision,
        (dimension, dense_columns): (usize, usize),
        (rows, bucket): (usize, usize),
    ) -> Self {
        let mut numbers = Numbers(5);
        let table = numbers.take(TABLE_ROWS as usize * dimension, 2.0);
        let ids = numbers.ids(bucket * ID_COLUMNS, rows > 3);
        let dense = numbers.take(bucket * dense_columns, 2.0);
        Self { precision, dimension, dense_columns, rows, bucket, table, ids, dense }
    }

    fn chunks(&self) -> usize {
        self.dimension.div_ceil(self.precision.per_chunk())
    }

    fn pitch(&self) -> usize {
        FIELDS.len() * self.chunks() + self.dense_columns.div_ceil(self.precision.per_chunk())
    }

    /// The numbers of the rows that there are, and whether an id of theirs lies outside of the table.
    fn expected(&self) -> (Vec<f64>, bool) {
        let rounded = |numbers: &[f32]| decode(self.precision, &encode(self.precision, numbers));
        let (table, dense) = (rounded(&self.table), rounded(&self.dense));
        let (mut expected, mut outside) = (Vec::new(), false);
        let per_chunk = self.precision.per_chunk();
        for row in 0..self.rows {
            let ids = &self.ids[row * ID_COLUMNS..][..ID_COLUMNS];
            for field in FIELDS {
                let ids = &ids[size(field.first_column)..][..size(field.columns)];
                let (mut sums, mut counted) = (vec![0.0; self.dimension], 0_u8);
                for &id in ids {
                    let Some(id) = usize::try_from(id).ok().filter(|&id| id < TABLE_ROWS as usize) else {
                        outside = true;
                        continue;
                    };
                    counted += u8::from(id > size(field.padding));
                    let embedding = &table[id * self.dimension..][..self.dimension];
                    sums.iter_mut().zip(embedding).for_each(|(sum, number)| *sum += number);
                }
                let share = if field.mean == 1 { f64::from(counted.max(1)) } else { 1.0 };
                expected.extend(sums.into_iter().map(|sum| sum / share));
                expected.resize(expected.len().next_multiple_of(per_chunk), 0.0);
            }
            expected.extend_from_slice(&dense[row * self.dense_columns..][..self.dense_columns]);
            expected.resize(expected.len().next_multiple_of(per_chunk), 0.0);
        }
        (expected, outside)
    }
}

/// Items that there are, of how many the launch is made for: around a tile's, and more than one turn leaves over.
const ITEMS: [(usize, usize); 7] =
    [(0, 10), (1, 1), (9, 10), (1023, 1024), (1024, 1024), (1025, 2048), (5000, 5000)];
/// What a block takes of them.
const TILE: usize = 1024;

/// Items of which the best are asked for.
struct TopK {
    count: usize,
    k: usize,
    scores: Vec<f32>,
    /// In ascending order.
    excluded: Vec<u32>,
}

impl TopK {
    fn new(count: usize, bucket: usize, k: usize) -> Self {
        let mut numbers = Numbers(13);
        // Few scores, so that many items have the same, and some that are no number.
        let mut score = || match numbers.below(12) {
            0 => f32::NAN,
            number => (number as f32 - 6.0) / 4.0,
        };
        let scores = (0..bucket).map(|_| score()).collect();
        let excluded = (0..u32::try_from(bucket).expect("a few")).filter(|item| item % 7 == 3).collect();
        Self { count, k, scores, excluded }
    }

    /// The keys of the best items, and zeros where there are no more.
    fn expected(&self) -> Vec<u64> {
        let items = (0_u32..).zip(&self.scores[..self.count]);
        let items = items.filter(|(item, score)| !score.is_nan() && !self.excluded.contains(item));
        let mut items: Vec<(u32, f32)> = items.map(|(item, &score)| (item, score)).collect();
        items.sort_by(|(left, a), (right, b)| b.total_cmp(a).then(left.cmp(right)));
        let key = |(item, score): (u32, f32)| {
            let bits = score.to_bits();
            let ordered = if score.is_sign_negative() { !bits } else { bits | 1 << 31 };
            u64::from(ordered) << 32 | u64::from(!item)
        };
        let mut keys: Vec<u64> = items.into_iter().take(self.k).map(key).collect();
        keys.resize(self.k, 0);
        keys
    }
}

/// A batch for the head.
struct Head {
    precision: Precision,
    units: usize,
    bias: f32,
    rows: usize,
    bucket: usize,
    hidden: Vec<u8>,
    weights: Vec<u8>,
    wide: Vec<f32>,
    ids: Vec<i32>,
}

impl Head {
    fn new(precision: Precision, (units, bias): (usize, f32), (rows, bucket): (usize, usize)) -> Self {
        let mut numbers = Numbers(7);
        let hidden = encode(precision, &numbers.take(bucket * units, 1.0));
        let weights = encode(precision, &numbers.take(units, 0.5));
        let wide = numbers.take(TABLE_ROWS as usize, 1.0);
        let ids = numbers.ids(bucket * ID_COLUMNS, rows > 3);
        Self { precision, units, bias, rows, bucket, hidden, weights, wide, ids }
    }

    /// The scores of the rows that there are, and whether an id of theirs lies outside of the table.
    fn expected(&self) -> (Vec<f64>, bool) {
        let (hidden, weights) = (decode(self.precision, &self.hidden), decode(self.precision, &self.weights));
        let mut outside = false;
        let score = |row: usize| {
            let hidden = &hidden[row * self.units..][..self.units];
            let products = hidden.iter().zip(&weights).map(|(unit, weight)| unit * weight);
            let mut logit = f64::from(self.bias) + products.sum::<f64>();
            for &id in &self.ids[row * ID_COLUMNS..][..ID_COLUMNS] {
                match usize::try_from(id).ok().and_then(|id| self.wide.get(id)) {
                    Some(&weight) => logit += f64::from(weight),
                    None => outside = true,
                }
            }
            1.0 / (1.0 + (-logit).exp())
        };
        ((0..self.rows).map(score).collect(), outside)
    }
}

/// Each row of `input` times each row of `weights`, and its bias.
fn products(input: &[f64], weights: &[f64], bias: &[f64]) -> Vec<f64> {
    let inputs = weights.len() / bias.len();
    let sum = |row: &[f64], weights: &[f64]| -> f64 {
        row.iter().zip(weights).map(|(number, weight)| number * weight).sum()
    };
    let mut sums = Vec::with_capacity(input.len() / inputs * bias.len());
    for row in input.chunks_exact(inputs) {
        sums.extend(weights.chunks_exact(inputs).zip(bias).map(|(weights, bias)| bias + sum(row, weights)));
    }
    sums
}

/// Rows of `width` numbers, each filled up with zeros to whole chunks.
fn pad(numbers: &[f32], width: usize, precision: Precision) -> Vec<f32> {
    let pitch = width.next_multiple_of(precision.per_chunk());
    let padded = |row: &[f32]| {
        let mut row = row.to_vec();
        row.resize(pitch, 0.0);
        row
    };
    numbers.chunks(width).flat_map(padded).collect()
}

fn encode(precision: Precision, numbers: &[f32]) -> Vec<u8> {
    match precision {
        Precision::Single => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Precision::Half => numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect(),
    }
}

fn decode(precision: Precision, bytes: &[u8]) -> Vec<f64> {
    match precision {
        Precision::Single => {
            bytes.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect()
        }
        Precision::Half => {
            bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f64()).collect()
        }
    }
}

fn id_bytes(ids: &[i32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn words(numbers: &[usize]) -> Vec<u8> {
    let word = |&number: &usize| u32::try_from(number).expect("a few").to_le_bytes();
    numbers.iter().flat_map(word).collect()
}

fn signed(number: usize) -> Argument {
    Argument::Signed(i32::try_from(number).expect("a few"))
}

fn size(number: i32) -> usize {
    usize::try_from(number).expect("no size is below zero")
}

/// How far two neighbours are apart, as a share of their size.
fn step(precision: Precision) -> f64 {
    match precision {
        Precision::Single => f64::from(f32::EPSILON),
        Precision::Half => 1.0 / 1024.0,
    }
}

fn suffix(precision: Precision) -> &'static str {
    match precision {
        Precision::Single => "f32",
        Precision::Half => "f16",
    }
}

/// Numbers that look like chance and are always the same.
struct Numbers(u64);

impl Numbers {
    /// Knuth's constants.
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).expect("31 bits") % end
    }

    /// Numbers within `size` of zero.
    fn take(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| (self.below(2001) as f32 / 1000.0 - 1.0) * size).collect()
    }

    /// Ids of the table, and where `outside` is set now and then one that is none.
    fn ids(&mut self, count: usize, outside: bool) -> Vec<i32> {
        let mut id = || match self.below(20) {
            0 if outside => [-1, i32::MIN, i32::MAX, TABLE_ROWS.cast_signed()][self.below(4) as usize],
            _ => self.below(TABLE_ROWS).cast_signed(),
        };
        (0..count).map(|_| id()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cuda::fake::Fake;

    #[test]
    fn a_device_that_computes_as_the_kernels_say_passes_and_gets_everything_back() {
        let fake = Fake::new(0);
        let device: Arc<dyn Device> = Arc::clone(&fake) as _;
        let all = check(&device, usize::MAX).expect("a device that does not fail");
        assert_eq!(all.len(), 9);
        for checked in all {
            assert!(checked.passed(), "{checked:?}");
        }
        assert_eq!(fake.held(), 0);
    }

    #[test]
    fn what_is_off_does_not_pass() {
        let mut checked = Checked::new("x", 0.1);
        assert!(!checked.passed(), "nothing was tried");
        checked.cases = 1;
        checked.compare(&[1.0], &[1.05]);
        assert!(checked.passed());
        checked.compare(&[f64::NAN], &[1.0]);
        assert!(!checked.passed());
        let mut short = Checked { cases: 1, ..Checked::new("x", 0.1) };
        short.compare(&[1.0], &[1.0, 2.0]);
        assert!(!short.passed());
    }
}
