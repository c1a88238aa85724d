//! Our kernels and the products of cuBLASLt on a device, beside plain computations in double precision: what shows on a
//! machine with a GPU what the emulator and the fake show without one. The tests run it on the fake, which shows that it asks
//! for the right things.
//!
//! Outputs hold a pattern before each run, and what is not to be written must still hold it afterwards. Each family of
//! kernels is a file, like the kernels themselves.

mod cross;
mod gather;
mod head;
mod numbers;
mod product;
mod top_k;

use std::sync::Arc;

use serde::Serialize;

use super::{
    device::{Address, Argument, Device, DeviceError, Launch, Precision, Stream},
    memory::{Memory, Pinned},
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
