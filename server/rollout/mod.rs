//! How a new version becomes the one that answers: it is tried beside the stable one, as a shadow that is sent copies or as a
//! canary that answers some users, and is promoted or rolled back by what is seen of both meanwhile.
//!
//! ```text
//!  a trial's tallies (repository) ─┐
//!  labels of both (feedback) ──────┴─▶ evidence ─▶ rules (pure): wait, advance, promote, roll back
//!                                                    │
//!      standing (repository) ◀─ course (pure) ◀─ entry, in the journal first
//! ```
//!
//! The journal is the memory: what is stable and what was refused is what its entries come to, so a restart changes neither.

mod conductor;
mod course;
mod entry;
mod evidence;
mod journal;
mod matured;
mod rollouts;
mod rules;

pub use self::{
    conductor::Conductor,
    course::Course,
    entry::{By, Entry, Event},
    evidence::{Copied, Evidence, Side},
    journal::{Journal, JournalError, Journals},
    rollouts::{OrderError, RolloutStatus, Rollouts, Tried, Wish},
    rules::{Fault, RolloutOptions, Rules, Verdict, Waiting},
};
