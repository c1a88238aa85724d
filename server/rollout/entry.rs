//! An entry of the journal: what became of a version, who said so, why, and by which numbers.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Evidence;
use crate::repository::{Candidate, ModelName, Share, TrialStage, VersionNumber};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// The model.
    pub model: ModelName,
    /// What happened.
    pub event: Event,
    /// To which version.
    pub version: VersionNumber,
    /// The version that was stable when it happened, where one was.
    pub stable: Option<VersionNumber>,
    /// Who decided.
    pub by: By,
    /// Why.
    pub reason: String,
    /// How the version is tried from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<TrialStage>,
    /// With which share of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// What was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What happened to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It answers without having been tried, as the first one does.
    Stable,
    /// It is tried.
    Entered,
    /// A shadow became a canary.
    Advanced,
    /// It became the stable version.
    Promoted,
    /// It answers no more, and is not tried again until an operator says so.
    RolledBack,
    /// The same, as an operator wished.
    Aborted,
    /// It is tried no longer, and nothing was decided: a newer one has come, or it cannot be loaded any more.
    Withdrawn,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The server, by its rules.
    Millrace,
    /// A person, over the management port.
    Operator,
}

impl Entry {
    /// The version and how it is tried from then on, where the entry says that.
    pub fn candidate(&self) -> Option<Candidate> {
        let (stage, share) = self.stage.zip(self.share)?;
        Some(Candidate { version: self.version, stage, share })
    }
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Stable,
        Self::Entered,
        Self::Advanced,
        Self::Promoted,
        Self::RolledBack,
        Self::Aborted,
        Self::Withdrawn,
    ];

    /// Its name, as the journal and the metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Entered => "entered",
            Self::Advanced => "advanced",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
            Self::Withdrawn => "withdrawn",
        }
    }
}
