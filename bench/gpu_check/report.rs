//! What a step finds, and the file that it is written to whenever more of it is known.

use std::{fs, io, path::PathBuf};

use millrace::engine::cuda::{Checked, MeasuredProduct};
use serde::Serialize;

use crate::floor::Floor;

/// What a step has found so far.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) step: String,
    pub(crate) device: Option<String>,
    /// Whether the step came to its end; where it is not, it was killed or crashed.
    pub(crate) finished: bool,
    pub(crate) passed: bool,
    pub(crate) kernels: Vec<Checked>,
    pub(crate) model: Option<ModelReport>,
    /// The products that the engine chose a way for.
    pub(crate) products: Vec<MeasuredProduct>,
    /// What could not be done, and why.
    pub(crate) errors: Vec<Failure>,
    #[serde(skip)]
    out: PathBuf,
}

/// Something that could not be done.
#[derive(Serialize)]
pub(crate) struct Failure {
    pub(crate) name: String,
    pub(crate) shape: String,
    pub(crate) error: String,
}

/// A network in one precision.
#[derive(Serialize)]
pub(crate) struct ModelReport {
    pub(crate) shape: String,
    /// Bytes of the GPU for one slot.
    pub(crate) bytes: usize,
    pub(crate) load_ms: f64,
    pub(crate) open_ms: f64,
    pub(crate) tolerance: f64,
    pub(crate) scores: Vec<ScoresReport>,
    /// Whether an id outside of its table is an error, and the batch after it is none.
    pub(crate) ids_are_checked: Option<bool>,
    pub(crate) times: Vec<TimesReport>,
    pub(crate) onnx_cpu: Vec<OnnxReport>,
    pub(crate) floor: Option<Floor>,
    pub(crate) throughput: Vec<ThroughputReport>,
    pub(crate) search: Option<SearchReport>,
}

/// The scores of a batch beside those in double precision.
#[derive(Serialize)]
pub(crate) struct ScoresReport {
    pub(crate) rows: usize,
    pub(crate) from_reference: Distance,
}

/// How far numbers are from those that they should be.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Distance {
    /// The largest, of those that are numbers.
    pub(crate) largest: f64,
    /// Numbers that are infinite or none.
    pub(crate) not_finite: usize,
    /// The place of the first that is off, from 0.
    pub(crate) first_bad: Option<usize>,
}

/// What a batch takes, in microseconds.
#[derive(Serialize)]
pub(crate) struct TimesReport {
    pub(crate) rows: usize,
    /// The graph alone.
    pub(crate) device_us: f64,
    /// From the rows to the scores.
    pub engine_p50_us: f64,
    pub engine_p99_us: f64,
}

/// ONNX Runtime on one core.
#[derive(Serialize)]
pub(crate) struct OnnxReport {
    pub(crate) rows: usize,
    pub(crate) from_reference: Distance,
    /// The fastest run, in microseconds.
    pub(crate) us: f64,
}

/// Slots at work at the same time, in rows a second of all of them.
#[derive(Serialize)]
pub(crate) struct ThroughputReport {
    pub(crate) slots: usize,
    pub(crate) rows: usize,
    /// The graphs alone.
    pub(crate) device_rows_per_s: f64,
    /// From the rows to the scores.
    pub(crate) engine_rows_per_s: f64,
    /// The share of the floor's rows a second that the graphs alone come to.
    pub(crate) device_share_of_floor: Option<f64>,
}

/// Searches of a catalogue for the best items.
#[derive(Serialize)]
pub(crate) struct SearchReport {
    pub(crate) items: usize,
    pub(crate) k: usize,
    /// Bytes of the GPU for the items and one search.
    pub(crate) bytes: usize,
    /// The scores of the best beside the best scores that batches of all rows come to.
    pub(crate) from_rows: Distance,
    /// From the user to the items.
    pub(crate) p50_us: f64,
    pub(crate) items_per_s: f64,
}

impl Report {
    pub(crate) fn new(step: String, out: PathBuf) -> Self {
        let (kernels, products, errors) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            step,
            device: None,
            finished: false,
            passed: false,
            kernels,
            model: None,
            products,
            errors,
            out,
        }
    }

    /// What came of `result`; an error is an entry of the report.
    pub(crate) fn attempt<T>(&mut self, name: &str, shape: &str, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.fail(name, shape, &error)).ok()
    }

    pub(crate) fn fail(&mut self, name: &str, shape: &str, error: &anyhow::Error) {
        let (name, shape, error) = (name.to_owned(), shape.to_owned(), format!("{error:#}"));
        self.errors.push(Failure { name, shape, error });
        self.save();
    }

    /// Writes everything that is known; says it where that fails, and goes on.
    pub(crate) fn save(&self) {
        if let Err(error) = self.write() {
            eprintln!("{}: {error}", self.out.display());
        }
    }

    /// To another file, which then takes the place of the one before, so that one of them is always whole.
    fn write(&self) -> io::Result<()> {
        let other = self.out.with_extension("new");
        fs::write(&other, serde_json::to_vec_pretty(self)?)?;
        fs::rename(other, &self.out)
    }

    /// The end of the step: whether all is well.
    pub(crate) fn finish(mut self) -> bool {
        let found = !self.kernels.is_empty() || self.model.is_some();
        let all = self.kernels.iter().all(Checked::passed) && self.model.iter().all(ModelReport::passed);
        (self.finished, self.passed) = (true, found && all && self.errors.is_empty());
        self.save();
        self.passed
    }
}

impl ModelReport {
    fn passed(&self) -> bool {
        let close = |distance: &Distance| distance.is_within(self.tolerance);
        !self.scores.is_empty()
            && self.scores.iter().all(|scores| close(&scores.from_reference))
            && self.onnx_cpu.iter().all(|onnx| close(&onnx.from_reference))
            && self.search.iter().all(|search| close(&search.from_rows))
            && self.ids_are_checked == Some(true)
    }
}

impl Distance {
    /// Of numbers of which there are as many as there should be.
    pub(crate) fn new(found: &[f32], expected: impl Iterator<Item = f64>, tolerance: f64) -> Self {
        let mut distance = Self { largest: 0.0, not_finite: 0, first_bad: None };
        for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
            let apart = (f64::from(found) - expected).abs();
            if apart.is_finite() {
                distance.largest = distance.largest.max(apart);
            } else {
                distance.not_finite += 1;
            }
            if !apart.is_finite() || apart > tolerance {
                distance.first_bad.get_or_insert(index);
            }
        }
        distance
    }

    fn is_within(&self, tolerance: f64) -> bool {
        self.not_finite == 0 && self.largest <= tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_what_is_no_number_and_names_the_first_that_is_off() {
        let found = [0.5, 0.5, f32::NAN, f32::INFINITY];
        let distance = Distance::new(&found, [0.5, 0.75, 0.5, 0.5].into_iter(), 0.1);
        assert_eq!(distance, Distance { largest: 0.25, not_finite: 2, first_bad: Some(1) });
        assert!(!distance.is_within(0.3) && !distance.is_within(0.1));
        assert!(Distance::new(&found[..1], [0.5].into_iter(), 0.1).is_within(0.1));
    }

    #[test]
    fn what_is_known_is_in_the_file_before_the_step_ends_and_an_error_fails_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("step.json");
        let read = || -> serde_json::Value {
            serde_json::from_slice(&fs::read(&out).expect("written")).expect("whole")
        };
        let mut report = Report::new("one".into(), out.clone());
        let failed = report.attempt::<()>("batch", "8 rows", Err(anyhow::anyhow!("refused")));
        assert_eq!(failed, None);
        assert_eq!(read()["errors"][0]["shape"], "8 rows");
        assert_eq!(read()["finished"], false);
        assert!(!report.finish());
        assert_eq!((&read()["finished"], &read()["passed"]), (&true.into(), &false.into()));
    }
}
