//! What the entries of a journal come to: pure.

use time::OffsetDateTime;

use super::{Entry, Event};
use crate::repository::Standing;

/// Where the rollouts of a model have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// What is stable, tried and refused.
    pub standing: Standing,
    /// When the version that is tried entered its stage.
    pub since: Option<OffsetDateTime>,
}

/// Refused versions that are remembered, the newest.
const MAX_REFUSED: usize = 1_000;

impl Course {
    /// Goes on by an entry.
    pub fn follow(&mut self, entry: &Entry) {
        let Standing { stable, before, candidate, refused } = &mut self.standing;
        *candidate = None;
        self.since = None;
        match entry.event {
            Event::Stable | Event::Promoted => {
                // One that an older version takes the place of would enter again at once, as the newest.
                let displaced =
                    stable.filter(|stable| entry.event == Event::Promoted && *stable > entry.version);
                refused.extend(displaced);
                *before = stable.filter(|stable| *stable != entry.version).or(*before);
                *stable = Some(entry.version);
                refused.remove(&entry.version);
            }
            Event::Entered | Event::Advanced => {
                *candidate = entry.candidate();
                self.since = Some(entry.time);
                refused.remove(&entry.version);
            }
            Event::RolledBack | Event::Aborted => {
                refused.insert(entry.version);
                if refused.len() > MAX_REFUSED {
                    refused.pop_first();
                }
            }
            Event::Withdrawn => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::By, *};
    use crate::repository::{Candidate, TrialStage, VersionNumber};

    fn number(version: u64) -> VersionNumber {
        version.try_into().expect("from 1")
    }

    fn course(events: &[(Event, u64)]) -> Course {
        let mut course = Course::default();
        for (at, &(event, version)) in (0..).zip(events) {
            let enters = matches!(event, Event::Entered | Event::Advanced);
            course.follow(&Entry {
                time: OffsetDateTime::from_unix_timestamp(at).expect("a time"),
                model: "shop".parse().expect("a name"),
                event,
                version: number(version),
                stable: None,
                by: By::Millrace,
                reason: String::new(),
                stage: enters.then_some(if event == Event::Entered {
                    TrialStage::Shadow
                } else {
                    TrialStage::Canary
                }),
                share: enters.then(|| 0.5.try_into().expect("a share")),
                evidence: None,
            });
        }
        course
    }

    #[test]
    fn the_last_good_version_is_stable_whatever_was_tried_since() {
        let tried = [(Event::Stable, 1), (Event::Entered, 2), (Event::Promoted, 2), (Event::Entered, 3)];
        let found = course(&tried);
        let share = 0.5.try_into().expect("a share");
        let candidate = Candidate { version: number(3), stage: TrialStage::Shadow, share };
        assert_eq!((found.standing.stable, found.standing.candidate), (Some(number(2)), Some(candidate)));
        assert_eq!(found.since.map(OffsetDateTime::unix_timestamp), Some(3));
        assert_eq!(found.standing.before, Some(number(1)));
        for end in [Event::RolledBack, Event::Aborted] {
            let found = course(&[&tried[..], &[(end, 3)]].concat());
            assert_eq!(
                (found.standing.stable, found.standing.candidate, found.since),
                (Some(number(2)), None, None)
            );
            assert_eq!(found.standing.refused, [number(3)].into());
        }
        let found = course(&[&tried[..], &[(Event::Withdrawn, 3)]].concat());
        assert!(found.standing.candidate.is_none() && found.standing.refused.is_empty());
    }

    #[test]
    fn what_an_older_version_takes_the_place_of_does_not_come_back_by_itself() {
        let found = course(&[(Event::Stable, 3), (Event::Entered, 1), (Event::Promoted, 1)]).standing;
        assert_eq!((found.stable, found.before), (Some(number(1)), Some(number(3))));
        assert_eq!(found.refused, [number(3)].into());
    }

    #[test]
    fn who_enters_again_is_refused_no_longer_and_a_stage_has_a_clock_of_its_own() {
        let found =
            course(&[(Event::Stable, 1), (Event::RolledBack, 2), (Event::Entered, 2), (Event::Advanced, 2)]);
        assert!(found.standing.refused.is_empty());
        assert_eq!(found.standing.candidate.map(|candidate| candidate.stage), Some(TrialStage::Canary));
        assert_eq!(found.since.map(OffsetDateTime::unix_timestamp), Some(3));
    }
}
