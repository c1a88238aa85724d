//! Our kernels and the products of cuBLASLt on a device, beside plain computations in double precision: what shows on a
//! machine with a GPU what the emulator and the fake show without one. The tests run it on the fake, which shows that it asks
//! for the right things.
//!
//! Outputs hold a pattern before each run, and what is not to be written must still hold it afterwards. Each family of
//! kernels is a file, like the kernels themselves.

mod cross;
mod dense;
mod gather;
mod head;
mod numbers;
mod pairs;
mod product;
mod top_k;

use std::sync::Arc;

use serde::Serialize;

use super::{
    device::{Address, Argument, Device, DeviceError, Launch, Precision, Stream},
    memory::{Memory, Pinned},
};

/// What came of one kernel, or of the product, in one precision.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// Shapes that were tried.
    pub cases: usize,
    /// The largest distance of a number from what it should be, of those that are numbers.
    pub largest_error: f64,
    /// What that may be.
    pub tolerance: f64,
    /// Numbers that are infinite or none.
    pub not_finite: usize,
    /// The first number that is off: in which case, and which of its numbers.
    pub first_bad: Option<String>,
    /// Cases in which a call failed, or something was written where nothing should be, or an id that is none was not told of,
    /// each with its shape; empty where all is well. Of many the first ones.
    pub faults: Vec<String>,
    /// The shape of the case that is tried.
    #[serde(skip)]
    shape: String,
}

impl Checked {
    fn new(name: &str, tolerance: f64) -> Self {
        Self { name: name.to_owned(), tolerance, ..Self::default() }
    }

    /// Whether all is well.
    pub fn passed(&self) -> bool {
        let close = self.largest_error <= self.tolerance && self.not_finite == 0;
        self.cases > 0 && close && self.faults.is_empty()
    }

    /// Begins with a case of this shape.
    fn begin(&mut self, shape: String) {
        self.cases += 1;
        self.shape = shape;
    }

    /// Ends with it; a call that failed is a fault of its case, and the next one is tried all the same.
    fn end(&mut self, result: Result<(), DeviceError>) {
        if let Err(error) = result {
            self.expect(false, &error.to_string());
        }
    }

    /// Compares numbers with what they should be.
    fn compare(&mut self, found: &[f64], expected: &[f64]) {
        self.expect(found.len() == expected.len(), "another number of numbers");
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (found - expected).abs();
            if error.is_finite() {
                self.largest_error = self.largest_error.max(error);
            } else {
                self.not_finite += 1;
            }
            if !error.is_finite() || error > self.tolerance {
                let shape = &self.shape;
                let bad = || format!("{shape}: number {index} is {found} in place of {expected}");
                self.first_bad.get_or_insert_with(bad);
            }
        }
    }

    fn expect(&mut self, holds: bool, fault: &str) {
        if !holds && self.faults.len() < FAULTS {
            self.faults.push(format!("{}: {fault}", self.shape));
        }
    }
}

/// Faults that are told of one kernel.
const FAULTS: usize = 20;

/// Checks everything that an engine runs, by launches for up to `max_rows`, and hands out what came of each kernel as soon
/// as it is known, whatever became of those before.
pub(super) fn check(
    device: &Arc<dyn Device>,
    max_rows: usize,
    done: &mut dyn FnMut(Checked),
) -> Result<(), DeviceError> {
    let batches = BATCHES.into_iter().filter(|&(_, bucket)| bucket <= max_rows).collect();
    let stream = Arc::clone(device).open_stream()?;
    let mut bench = Bench { stream, device: Arc::clone(device), batches };
    for precision in [Precision::Single, Precision::Half] {
        done(bench.check_gather(precision));
        done(bench.check_cross(precision));
        done(bench.check_dense(precision));
        done(bench.check_head(precision));
        done(bench.check_product(precision));
    }
    done(bench.check_pairs());
    done(bench.check_top_k(max_rows));
    Ok(())
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

    /// Launches `kernel` and waits for it, so that whoever fails afterwards may give its arguments back.
    fn launch(
        &mut self,
        kernel: &'static str,
        threads: usize,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let grid = u32::try_from(threads.div_ceil(Launch::BLOCK as usize)).expect("a few");
        // SAFETY: The arguments are those that the kernel's file names, and kept until the work was waited for in the next line.
        unsafe { self.stream.launch(&Launch { kernel, grid, arguments }) }?;
        self.stream.wait()
    }
}

/// Columns of ids, and the rows of the table that they name.
const ID_COLUMNS: usize = 6;
const TABLE_ROWS: u32 = 50;
const NOT_THERE: &str = "rows that are not there were written";
const NOT_TOLD: &str = "an id outside of the table was not told of, or one within was";
/// As a number, NaN in single precision and in half.
const POISON: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cuda::fake::Fake;

    fn check_all(fake: &Arc<Fake>) -> Vec<Checked> {
        let device: Arc<dyn Device> = Arc::clone(fake) as _;
        let mut all = Vec::new();
        check(&device, 5, &mut |checked| all.push(checked)).expect("a stream");
        all
    }

    #[test]
    fn a_device_that_computes_as_the_kernels_say_passes_and_gets_everything_back() {
        let fake = Fake::new(0);
        let device: Arc<dyn Device> = Arc::clone(&fake) as _;
        let mut all = Vec::new();
        check(&device, usize::MAX, &mut |checked| all.push(checked)).expect("a stream");
        assert_eq!(all.len(), 12);
        for checked in all {
            assert!(checked.passed(), "{checked:?}");
        }
        drop(device);
        assert_eq!(fake.held(), 0);
    }

    #[test]
    fn a_call_that_fails_is_a_fault_of_its_case_alone() {
        let fake = Fake::new(0);
        check_all(&fake);
        let calls = fake.calls();
        for call in (1..calls).step_by(calls / 6) {
            let fake = Fake::new(0);
            fake.fail_after(call);
            let all = check_all(&fake);
            let failed: Vec<_> = all.iter().filter(|checked| !checked.passed()).collect();
            assert_eq!((all.len(), failed.len()), (12, 1), "{failed:?}");
            let [fault] = failed[0].faults.as_slice() else { panic!("one fault: {failed:?}") };
            assert!(fault.contains(": it was told to") && fault.contains(" of ") || fault.contains("relu"));
            assert_eq!(fake.held(), 0, "after call {call}");
        }
    }

    #[test]
    fn what_is_off_does_not_pass_and_the_first_number_that_is_is_told() {
        let mut checked = Checked::new("x", 0.1);
        assert!(!checked.passed(), "nothing was tried");
        checked.begin("1 row".to_owned());
        checked.compare(&[1.0], &[1.05]);
        assert!(checked.passed());
        checked.compare(&[1.0, f64::NAN, 3.0, f64::INFINITY], &[1.0, 2.0, 2.0, 0.0]);
        assert!(!checked.passed());
        assert_eq!((checked.not_finite, checked.largest_error), (2, 1.0));
        assert_eq!(checked.first_bad.as_deref(), Some("1 row: number 1 is NaN in place of 2"));
        let mut short = Checked { cases: 1, ..Checked::new("x", 0.1) };
        short.compare(&[1.0], &[1.0, 2.0]);
        assert!(!short.passed());
    }
}
