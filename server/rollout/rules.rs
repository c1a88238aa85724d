//! When a version that is tried is promoted or rolled back: a pure function of the [`Evidence`].
//!
//! A candidate that fails or is slow goes at once; one that answers worse goes, and one that does not stays for good, once
//! enough labels say so. Every interval holds at all looks together, so looking every second misleads nobody, and what cannot
//! be told in time is no reason to exchange a version that is known for one that is not.

use std::{fmt, time::Duration};

use super::Evidence;
use crate::{
    quality::{Estimate, Measure},
    repository::{Share, TrialStage},
};

/// How new versions of a model are rolled out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutOptions {
    /// How a new version enters.
    pub stage: TrialStage,
    /// With which share of requests.
    pub share: Share,
    /// What decides.
    pub rules: Rules,
}

/// When a candidate is promoted or rolled back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// What labels are compared by.
    pub measure: Measure,
    /// How much worse a candidate may be by that and still be promoted.
    pub margin: f64,
    /// Labelled rows of each side before they decide anything; with 0 they decide nothing.
    pub min_labels: u64,
    /// Requests that each side must have answered before a candidate is promoted.
    pub min_requests: u64,
    /// How many times as long answers of the candidate may take.
    pub max_latency_ratio: f64,
    /// How long it may take to decide.
    pub max_age: Duration,
}

/// What to do with a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again.
    Wait(Waiting),
    /// A shadow has done well enough to answer.
    Advance,
    /// It becomes the stable version.
    Promote,
    /// It answers no more.
    RollBack(Fault),
}

/// What a decision waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// More requests.
    Requests,
    /// It fails more often, and that may be chance.
    Faults,
    /// It is slower than it may be, and that may be chance.
    Latency,
    /// More labels.
    Labels,
    /// Labels do not tell the versions apart yet.
    Difference,
}

/// Why a candidate is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails more often.
    Faults,
    /// It is too slow.
    Latency,
    /// Its answers are worse.
    Quality,
    /// Nothing was decided in time.
    Undecided,
}

impl Rules {
    /// What the evidence says.
    pub fn judge(&self, evidence: &Evidence) -> Verdict {
        let Evidence { stable, candidate, .. } = evidence;
        let faults = candidate.fault_share().map(|share| match stable.fault_share() {
            Some(usual) => share.above(&usual),
            // Nobody knows what is usual; to answer is.
            None => share,
        });
        let surely_above = |share: &Estimate, bound: f64| share.value - share.radius(EARLY) > bound;
        if candidate.faults >= MIN_FAULTS && faults.is_some_and(|more| surely_above(&more, 0.0)) {
            return Verdict::RollBack(Fault::Faults);
        }
        let slow = Estimate::share(evidence.slow, candidate.answered);
        let slow = slow.filter(|_| stable.answered >= self.min_requests);
        if slow.is_some_and(|slow| surely_above(&slow, SLOW)) {
            return Verdict::RollBack(Fault::Latency);
        }
        if Duration::from_millis(evidence.age_ms) > self.max_age {
            return Verdict::RollBack(Fault::Undecided);
        }
        if stable.answered.min(candidate.answered) < self.min_requests {
            return Verdict::Wait(Waiting::Requests);
        }
        if faults.is_some_and(|more| more.value > MORE_FAULTS) {
            return Verdict::Wait(Waiting::Faults);
        }
        if slow.is_some_and(|slow| slow.value > SLOW) {
            return Verdict::Wait(Waiting::Latency);
        }
        if evidence.stage == TrialStage::Shadow {
            return Verdict::Advance;
        }
        self.judge_quality(evidence)
    }

    fn judge_quality(&self, evidence: &Evidence) -> Verdict {
        if self.min_labels == 0 {
            return Verdict::Promote;
        }
        let labels = evidence.stable.labels.min(evidence.candidate.labels);
        match evidence.gain.filter(|_| labels >= self.min_labels) {
            None => Verdict::Wait(Waiting::Labels),
            Some([low, _]) if low >= -self.margin => Verdict::Promote,
            Some([_, high]) if high < -self.margin => Verdict::RollBack(Fault::Quality),
            Some(_) => Verdict::Wait(Waiting::Difference),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "waits for more requests",
            Self::Faults => "fails more often, which may be chance",
            Self::Latency => "is slower, which may be chance",
            Self::Labels => "waits for labels",
            Self::Difference => "labels do not tell the versions apart yet",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faults => "fails more often",
            Self::Latency => "is too slow",
            Self::Quality => "answers worse",
            Self::Undecided => "was not decided in time",
        })
    }
}

/// Requests for which the intervals of faults and latency are narrowest: what is bad is seen early.
const EARLY: u64 = 100;

/// Faults below which nobody is rolled back for them.
const MIN_FAULTS: u64 = 5;

/// How much larger the share of a candidate's faults may be when it is promoted.
const MORE_FAULTS: f64 = 0.001;

/// The share of answers that may be slower than what 99 of 100 of the stable version's take, times the ratio.
const SLOW: f64 = 0.01;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Side, *};

    fn rules() -> Rules {
        Rules {
            measure: Measure::Accuracy,
            margin: 0.01,
            min_labels: 500,
            min_requests: 200,
            max_latency_ratio: 2.0,
            max_age: Duration::from_hours(1),
        }
    }

    fn side(labels: u64) -> Side {
        Side { answered: 1_000, labels, ..Side::default() }
    }

    fn evidence(gain: [f64; 2]) -> Evidence {
        Evidence {
            age_ms: 60_000,
            stage: TrialStage::Canary,
            measure: Measure::Accuracy,
            stable: side(2_000),
            candidate: side(600),
            slow: 0,
            gain: Some(gain),
            copied: None,
        }
    }

    fn of(change: impl FnOnce(&mut Evidence)) -> Verdict {
        let mut evidence = evidence([-0.005, 0.02]);
        change(&mut evidence);
        rules().judge(&evidence)
    }

    #[test]
    fn labels_decide_once_there_are_enough_and_the_interval_leaves_no_doubt() {
        for (gain, expected) in [
            ([0.1, 0.2], Verdict::Promote),
            ([-0.01, 0.2], Verdict::Promote),
            ([-0.011, 0.2], Verdict::Wait(Waiting::Difference)),
            ([-0.5, -0.009], Verdict::Wait(Waiting::Difference)),
            ([-0.5, -0.011], Verdict::RollBack(Fault::Quality)),
        ] {
            assert_eq!(of(|evidence| evidence.gain = Some(gain)), expected, "{gain:?}");
        }
        for few in [
            |evidence: &mut Evidence| evidence.candidate.labels = 499,
            |evidence: &mut Evidence| evidence.gain = None,
        ] {
            assert_eq!(of(few), Verdict::Wait(Waiting::Labels));
        }
        let none = Rules { min_labels: 0, ..rules() };
        assert_eq!(none.judge(&Evidence { gain: None, ..evidence([0.0; 2]) }), Verdict::Promote);
    }

    #[test]
    fn a_candidate_that_fails_goes_at_once_and_one_mishap_is_none() {
        let faults = |faults, answered| {
            of(|evidence| {
                evidence.candidate = Side { answered, faults, ..Side::default() };
                evidence.stable.answered = 100;
                evidence.gain = None;
            })
        };
        assert_eq!(faults(5, 0), Verdict::RollBack(Fault::Faults));
        assert_eq!(faults(4, 0), Verdict::Wait(Waiting::Requests));
        assert_eq!(
            faults(5, 1_000),
            Verdict::Wait(Waiting::Requests),
            "as the stable one may, for all that is known"
        );
        // Where both fail alike, the candidate is not to blame.
        let both = of(|evidence| {
            evidence.candidate.faults = 500;
            evidence.stable.faults = 500;
        });
        assert_eq!(both, Verdict::Promote);
        let more = of(|evidence| evidence.candidate.faults = 3);
        assert_eq!(more, Verdict::Wait(Waiting::Faults));
    }

    #[test]
    fn a_slow_candidate_goes_at_once_once_that_is_no_chance() {
        assert_eq!(
            of(|evidence| evidence.slow = 10),
            Verdict::Promote,
            "one in a hundred is what there is anyway"
        );
        assert_eq!(of(|evidence| evidence.slow = 20), Verdict::Wait(Waiting::Latency));
        assert_eq!(of(|evidence| evidence.slow = 100), Verdict::RollBack(Fault::Latency));
        let early = of(|evidence| {
            evidence.slow = 100;
            evidence.stable.answered = 100;
        });
        assert_eq!(early, Verdict::Wait(Waiting::Requests), "what is usual is not known yet");
    }

    #[test]
    fn a_candidate_that_fails_goes_although_the_stable_version_has_no_requests() {
        let alone = of(|evidence| {
            evidence.stable = Side::default();
            evidence.candidate = Side { answered: 0, faults: 20, ..Side::default() };
        });
        assert_eq!(alone, Verdict::RollBack(Fault::Faults));
    }

    #[test]
    fn a_shadow_advances_by_requests_alone_and_time_runs_out() {
        assert_eq!(
            of(|evidence| {
                evidence.stage = TrialStage::Shadow;
                evidence.gain = None;
            }),
            Verdict::Advance
        );
        let late = |gain| of(|evidence| (evidence.age_ms, evidence.gain) = (3_600_001, gain));
        assert_eq!(late(Some([-0.1, 0.1])), Verdict::RollBack(Fault::Undecided));
        assert_eq!(late(None), Verdict::RollBack(Fault::Undecided));
    }

    proptest! {
        #[test]
        fn what_is_promoted_was_answered_labelled_and_not_worse(
            answered in 0u64..2_000, faults in 0u64..50, slow in 0u64..50, labels in 0u64..2_000,
            low in -0.2f64..0.2, width in 0.0f64..0.3,
        ) {
            let verdict = of(|evidence| {
                evidence.candidate = Side { answered, faults, labels, ..Side::default() };
                evidence.slow = slow.min(answered);
                evidence.gain = Some([low, low + width]);
            });
            if verdict == Verdict::Promote {
                prop_assert!(answered >= 200 && labels >= 500 && low >= -0.01);
                prop_assert!(faults as f64 <= 0.001 * (answered + faults) as f64);
                prop_assert!(slow.min(answered) as f64 <= 0.01 * answered as f64);
            }
        }
    }
}
