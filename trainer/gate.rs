//! What a version must reach to be published, judged on the same rows as the version that is live. Pure: figures in,
//! verdicts out, each with its reason in words.

use std::fmt;

use millrace::repository::VersionNumber;

use crate::{config::GatesConfig, evaluate::RowFigures};

/// How good the live version is.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// The version.
    pub version: VersionNumber,
    /// Its AUC.
    pub auc: LiveAuc,
}

/// The live version's AUC and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveAuc {
    /// It scored the same rows.
    SameRows(f64),
    /// It could not be run, and its manifest says so, of rows of its own.
    Manifest {
        /// What the manifest says.
        auc: f64,
        /// Why it could not be run.
        why: String,
    },
    /// It can neither be run nor says anything of itself.
    Unknown {
        /// Why it could not be run.
        why: String,
    },
}

/// What a candidate showed when its files were run as a server runs them.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// How good its scores of the held-out rows are.
    pub figures: RowFigures,
    /// The number of golden rows that it answers, or why it does not.
    pub golden: Result<usize, String>,
    /// What the slowest in a hundred batches of [`LATENCY_ROWS`] takes, in milliseconds.
    pub latency_ms: f64,
    /// What its files hold.
    pub bytes: u64,
}

/// What one gate says.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The gate.
    pub gate: &'static str,
    /// Whether the version may pass.
    pub passed: bool,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gate, passed, reason } = self;
        write!(f, "{gate} {}: {reason}", if *passed { "passed" } else { "refused" })
    }
}

/// Rows of the batches whose latency is judged.
pub const LATENCY_ROWS: usize = 64;

/// The verdict of each gate.
pub fn judge(gates: &GatesConfig, candidate: &Candidate, live: Option<&Live>) -> Vec<Verdict> {
    let Candidate { figures, golden, latency_ms, bytes } = candidate;
    vec![
        judge_golden(golden),
        judge_accuracy(gates, figures),
        judge_auc(gates, figures, live),
        at_most(
            "calibration",
            "expected calibration error",
            figures.calibration_error,
            gates.max_calibration_error,
        ),
        at_most("latency", "p99 of 64 rows in milliseconds", *latency_ms, gates.max_latency_ms),
        judge_size(gates, *bytes),
    ]
}

fn judge_golden(golden: &Result<usize, String>) -> Verdict {
    let (passed, reason) = match golden {
        Ok(rows) => (true, format!("{rows} rows answered as the trainer computed them")),
        Err(why) => (false, why.clone()),
    };
    Verdict { gate: "golden", passed, reason }
}

fn judge_accuracy(gates: &GatesConfig, figures: &RowFigures) -> Verdict {
    let (accuracy, needed, majority) = (figures.accuracy, gates.accuracy, figures.majority);
    let reason = format!("{accuracy:.4}, needed {needed:.4} (always answering the majority: {majority:.4})");
    Verdict { gate: "accuracy", passed: accuracy >= needed, reason }
}

/// Passes what is no more than `most`; a figure that is no number is more than anything.
fn at_most(gate: &'static str, what: &str, found: f64, most: f64) -> Verdict {
    Verdict { gate, passed: found <= most, reason: format!("{what} {found:.4}, at most {most:.4}") }
}

fn judge_size(gates: &GatesConfig, bytes: u64) -> Verdict {
    let most = gates.max_bytes;
    Verdict { gate: "size", passed: bytes <= most, reason: format!("{bytes} bytes, at most {most}") }
}

fn judge_auc(gates: &GatesConfig, figures: &RowFigures, live: Option<&Live>) -> Verdict {
    let verdict = |passed, reason| Verdict { gate: "auc", passed, reason };
    let auc = figures.auc;
    let Some(Live { version, auc: live }) = live else {
        return verdict(true, format!("{auc:.4}, no live version"));
    };
    let (live, source) = match live {
        LiveAuc::SameRows(live) => (live, "on the same rows".to_owned()),
        LiveAuc::Manifest { auc, why } => {
            (auc, format!("by its manifest, on other rows, for it cannot be run: {why}"))
        }
        LiveAuc::Unknown { why } => {
            return verdict(true, format!("{auc:.4}, live version {version} cannot be compared with: {why}"));
        }
    };
    let needed = live - gates.max_auc_drop;
    verdict(
        auc >= needed,
        format!("{auc:.4}, needed {needed:.4}: live version {version} has {live:.4} {source}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: RowFigures = RowFigures {
        rows: 100,
        majority: 0.65,
        accuracy: 0.82,
        auc: 0.88,
        log_loss: 0.4,
        calibration_error: 0.01,
    };

    fn candidate() -> Candidate {
        Candidate { figures: FIGURES, golden: Ok(17), latency_ms: 0.4, bytes: 1000 }
    }

    fn live(auc: LiveAuc) -> Live {
        Live { version: VersionNumber::FIRST, auc }
    }

    /// The gates that refuse.
    fn refusals(gates: &GatesConfig, candidate: &Candidate, live: Option<&Live>) -> Vec<&'static str> {
        let verdicts = judge(gates, candidate, live).into_iter();
        verdicts.filter(|verdict| !verdict.passed).map(|verdict| verdict.gate).collect()
    }

    fn reason(gate: &str, live: Option<&Live>) -> String {
        let verdicts = judge(&GatesConfig::default(), &candidate(), live).into_iter();
        verdicts.filter(|verdict| verdict.gate == gate).map(|verdict| verdict.to_string()).collect()
    }

    #[test]
    fn each_gate_refuses_on_its_own() {
        let gates = GatesConfig::default();
        let good = live(LiveAuc::SameRows(0.885));
        assert_eq!(refusals(&gates, &candidate(), None), [""; 0]);
        assert_eq!(refusals(&gates, &candidate(), Some(&good)), [""; 0]);
        assert_eq!(refusals(&gates, &candidate(), Some(&live(LiveAuc::SameRows(0.895)))), ["auc"]);
        let unanswered = Candidate { golden: Err("golden row 3".into()), ..candidate() };
        assert_eq!(refusals(&gates, &unanswered, None), ["golden"]);
        for (gates, expected) in [
            (GatesConfig { accuracy: 0.83, ..gates }, "accuracy"),
            (GatesConfig { max_calibration_error: 0.009, ..gates }, "calibration"),
            (GatesConfig { max_latency_ms: 0.3, ..gates }, "latency"),
            (GatesConfig { max_bytes: 999, ..gates }, "size"),
        ] {
            assert_eq!(refusals(&gates, &candidate(), Some(&good)), [expected]);
        }
    }

    #[test]
    fn a_figure_that_is_no_number_never_passes() {
        let figures =
            RowFigures { accuracy: f64::NAN, auc: f64::NAN, calibration_error: f64::NAN, ..FIGURES };
        let candidate = Candidate { figures, latency_ms: f64::NAN, ..candidate() };
        let live = live(LiveAuc::SameRows(0.5));
        let refused = refusals(&GatesConfig::default(), &candidate, Some(&live));
        assert_eq!(refused, ["accuracy", "auc", "calibration", "latency"]);
    }

    #[test]
    fn the_reason_says_what_was_compared() {
        let live = live(LiveAuc::Manifest { auc: 0.9, why: "its features differ".into() });
        let accuracy = reason("accuracy", None);
        assert!(accuracy.starts_with("accuracy passed: 0.8200, needed 0.8000"), "{accuracy}");
        let auc = reason("auc", Some(&live));
        assert!(auc.starts_with("auc refused: 0.8800, needed 0.8900"), "{auc}");
        assert!(auc.contains("its features differ"), "{auc}");
        assert_eq!(
            reason("latency", None),
            "latency passed: p99 of 64 rows in milliseconds 0.4000, at most 50.0000"
        );
    }

    #[test]
    fn a_live_version_that_nothing_is_known_of_is_said_to_be_so() {
        let auc = reason("auc", Some(&live(LiveAuc::Unknown { why: "no model.onnx".into() })));
        assert!(auc.starts_with("auc passed") && auc.ends_with("no model.onnx"), "{auc}");
    }
}
