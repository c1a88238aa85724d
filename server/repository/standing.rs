//! What rollouts have come to for a model: which version is stable, which one is being tried, and which were refused. Whoever
//! decides about rollouts says so; the policy and the watcher go by it.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::VersionNumber;

/// What is known of a model's versions from rollouts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The version that answers until another is promoted. Without one, the policy's newest answers and becomes it.
    pub stable: Option<VersionNumber>,
    /// The version that was stable before it, which stands in where it cannot be loaded.
    pub before: Option<VersionNumber>,
    /// The version that is being tried, and how.
    pub candidate: Option<Candidate>,
    /// Versions that were rolled back or aborted; they are treated as if they were not there.
    pub refused: BTreeSet<VersionNumber>,
}

/// A version that is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The version.
    pub version: VersionNumber,
    /// How it is tried.
    pub stage: TrialStage,
    /// With which share of requests.
    pub share: Share,
}

/// How a version is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialStage {
    /// It is sent copies of requests, and what it answers is compared and thrown away.
    Shadow,
    /// It answers.
    Canary,
}

/// A share of requests, above none and up to all of them, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(u32);

/// A share that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share must be above 0 and at most 1")]
pub struct NoShare;

impl Share {
    const PARTS: u32 = 1_000_000;

    /// All of them.
    pub const ALL: Self = Self(Self::PARTS);

    /// The largest share of a canary: the version that it is compared with needs requests too.
    pub const HALF: Self = Self(Self::PARTS / 2);

    /// This share, or the other where it is larger.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }

    /// Whether what has this place among all requests, uniformly drawn, is part of the share. What is part of one is part of
    /// every larger one.
    pub fn holds(self, place: u64) -> bool {
        place % u64::from(Self::PARTS) < u64::from(self.0)
    }
}

impl TryFrom<f64> for Share {
    type Error = NoShare;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and a million")]
    fn try_from(share: f64) -> Result<Self, NoShare> {
        let is_share = share > 0.0 && share <= 1.0;
        let parts = (share * f64::from(Self::PARTS)).round() as u32;
        is_share.then_some(Self(parts.max(1))).ok_or(NoShare)
    }
}

impl From<Share> for f64 {
    fn from(Share(parts): Share) -> Self {
        Self::from(parts) / Self::from(Share::PARTS)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f64::from(*self).fmt(f)
    }
}

impl fmt::Display for TrialStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shadow => "shadow",
            Self::Canary => "canary",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_holds_as_much_as_it_says_and_grows_by_addition() {
        let share = |share: f64| Share::try_from(share).expect("a share");
        let count = |share: Share| (0..1_000_000u64).filter(|&place| share.holds(place)).count();
        assert_eq!((count(share(0.25)), count(share(1.0)), count(share(1e-9))), (250_000, 1_000_000, 1));
        assert!((0..1_000_000).all(|place| !share(0.1).holds(place) || share(0.2).holds(place)));
        for none in [0.0, -0.1, 1.000_001, f64::NAN] {
            assert_eq!(Share::try_from(none), Err(NoShare), "{none}");
        }
        assert_eq!(serde_json::to_string(&share(0.3)).expect("a number"), "0.3");
    }
}
