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

/// What one gate says.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the version may pass.
    pub passed: bool,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.passed { "passed" } else { "refused" }, self.reason)
    }
}

/// The verdict of each gate.
pub fn judge(gates: &GatesConfig, figures: &RowFigures, live: Option<&Live>) -> Vec<Verdict> {
    vec![judge_accuracy(gates, figures), judge_auc(gates, figures, live)]
}

fn judge_accuracy(gates: &GatesConfig, figures: &RowFigures) -> Verdict {
    let (accuracy, needed, majority) = (figures.accuracy, gates.accuracy, figures.majority);
    let reason =
        format!("accuracy {accuracy:.4}, needed {needed:.4} (always answering the majority: {majority:.4})");
    Verdict { passed: accuracy >= needed, reason }
}

fn judge_auc(gates: &GatesConfig, figures: &RowFigures, live: Option<&Live>) -> Verdict {
    let auc = figures.auc;
    let Some(Live { version, auc: live }) = live else {
        return Verdict { passed: true, reason: format!("AUC {auc:.4}, no live version") };
    };
    let (live, source) = match live {
        LiveAuc::SameRows(live) => (live, "on the same rows".to_owned()),
        LiveAuc::Manifest { auc, why } => {
            (auc, format!("by its manifest, on other rows, for it cannot be run: {why}"))
        }
        LiveAuc::Unknown { why } => {
            let reason = format!("AUC {auc:.4}, live version {version} cannot be compared with: {why}");
            return Verdict { passed: true, reason };
        }
    };
    let needed = live - gates.max_auc_drop;
    let reason = format!("AUC {auc:.4}, needed {needed:.4}: live version {version} has {live:.4} {source}");
    Verdict { passed: auc >= needed, reason }
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

    fn live(auc: LiveAuc) -> Live {
        Live { version: VersionNumber::FIRST, auc }
    }

    fn passed(gates: &GatesConfig, live: Option<&Live>) -> Vec<bool> {
        judge(gates, &FIGURES, live).iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn each_gate_refuses_on_its_own() {
        let gates = GatesConfig::default();
        assert_eq!(passed(&gates, None), [true, true]);
        assert_eq!(passed(&GatesConfig { accuracy: 0.83, ..gates }, None), [false, true]);
        assert_eq!(passed(&gates, Some(&live(LiveAuc::SameRows(0.885)))), [true, true]);
        assert_eq!(passed(&gates, Some(&live(LiveAuc::SameRows(0.895)))), [true, false]);
    }

    #[test]
    fn a_figure_that_is_no_number_never_passes() {
        let figures = RowFigures { accuracy: f64::NAN, auc: f64::NAN, ..FIGURES };
        let live = live(LiveAuc::SameRows(0.5));
        assert!(judge(&GatesConfig::default(), &figures, Some(&live)).iter().all(|verdict| !verdict.passed));
    }

    #[test]
    fn the_reason_says_what_was_compared() {
        let live = live(LiveAuc::Manifest { auc: 0.9, why: "its features differ".into() });
        let verdicts = judge(&GatesConfig::default(), &FIGURES, Some(&live));
        assert!(
            verdicts[0].to_string().contains("passed: accuracy 0.8200, needed 0.8000"),
            "{}",
            verdicts[0]
        );
        assert!(verdicts[1].to_string().contains("its features differ"), "{}", verdicts[1]);
        assert!(verdicts[1].to_string().starts_with("refused: AUC 0.8800, needed 0.8900"), "{}", verdicts[1]);
    }

    #[test]
    fn a_live_version_that_nothing_is_known_of_is_said_to_be_so() {
        let live = live(LiveAuc::Unknown { why: "no model.onnx".into() });
        let verdicts = judge(&GatesConfig::default(), &FIGURES, Some(&live));
        assert!(verdicts[1].passed && verdicts[1].reason.ends_with("no model.onnx"), "{}", verdicts[1]);
    }
}
