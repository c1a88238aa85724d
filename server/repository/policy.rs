//! Which versions of a model should be loaded and which one should answer: a pure function of what is there, which
//! gives the same plan again until something changes.
//!
//! Two rules come before what the policy wants: a version is unloaded only once a wanted one answers in its stead,
//! and a version that failed to load, or that a rollout has refused, is treated as if it were not there.
//!
//! Where new versions are tried first, the stable one answers and the newest above it is the candidate, or the one that a
//! rollout is about until something newer than both is there.

use std::num::NonZeroUsize;

use super::{Standing, VersionNumber};

/// Which versions of a model are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The newest so many.
    Latest(NonZeroUsize),
    /// Every one.
    All,
    /// These and no others.
    Specific(Vec<VersionNumber>),
}

/// What is known of a model's versions. Every list is sorted, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Versions in the repository.
    pub on_disk: &'a [VersionNumber],
    /// Versions that are loaded.
    pub loaded: &'a [VersionNumber],
    /// Versions that failed to load and have not changed since.
    pub failed: &'a [VersionNumber],
    /// The version that an operator wants to answer, whatever is newer.
    pub pinned: Option<VersionNumber>,
    /// What rollouts have come to, where new versions are tried before they answer.
    pub standing: Option<&'a Standing>,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The version that should answer, among those that are loaded.
    pub current: Option<VersionNumber>,
    /// The version that should be tried beside it, among those that are loaded.
    pub candidate: Option<VersionNumber>,
    /// Versions to load, the most urgent first.
    pub load: Vec<VersionNumber>,
    /// Versions to unload now.
    pub unload: Vec<VersionNumber>,
}

impl Policy {
    /// Plans the next steps for a model.
    pub fn plan(&self, observed: Observed<'_>) -> Plan {
        let wanted = self.wanted(&observed);
        let loaded = |version: &VersionNumber| observed.loaded.contains(version);
        // A pinned version that is loaded holds although its files are gone: whoever pinned it did so for a reason.
        let is_there = |version: &VersionNumber| wanted.contains(version) || loaded(version);
        let stable = observed.standing.and_then(|standing| standing.stable);
        let before = observed.standing.and_then(|standing| standing.before);
        // What was good once stands in for a stable version that cannot be had, before what nobody has tried.
        let preferred = [observed.pinned, stable, before].into_iter().flatten().find(is_there);
        let wanted_and_loaded = wanted.iter().copied().filter(loaded).max();
        let current = preferred.filter(loaded).or(wanted_and_loaded).or(observed.loaded.last().copied());
        let mut load: Vec<_> = wanted.iter().copied().filter(|version| !loaded(version)).collect();
        load.sort_unstable_by_key(|&version| (Some(version) != preferred, std::cmp::Reverse(version)));
        let unload = if wanted_and_loaded.is_some() {
            let unwanted = observed.loaded.iter().filter(|version| !wanted.contains(version));
            unwanted.copied().filter(|&version| Some(version) != current).collect()
        } else {
            Vec::new()
        };
        let candidate = observed.candidate().filter(|tried| current == stable && wanted.contains(tried));
        Plan { current, candidate, load, unload }
    }

    fn wanted(&self, observed: &Observed<'_>) -> Vec<VersionNumber> {
        let there: Vec<_> = observed.on_disk.iter().copied().filter(|&v| observed.is_usable(v)).collect();
        let mut wanted = match self {
            Self::Latest(count) => there[there.len().saturating_sub(count.get())..].to_vec(),
            Self::All => there.clone(),
            Self::Specific(versions) => {
                there.iter().copied().filter(|version| versions.contains(version)).collect()
            }
        };
        // An operator's choice holds although the policy would leave it out.
        let standing = observed.standing;
        let stable = standing.and_then(|standing| standing.stable);
        let tried = standing.and_then(|standing| standing.candidate).map(|candidate| candidate.version);
        let is_there = |version| there.contains(&version) || observed.loaded.contains(&version);
        let before = standing.and_then(|standing| standing.before).filter(|_| !stable.is_none_or(is_there));
        for chosen in [observed.pinned, stable, before, tried].into_iter().flatten() {
            if there.contains(&chosen) && !wanted.contains(&chosen) {
                wanted.push(chosen);
            }
        }
        wanted
    }
}

impl Observed<'_> {
    /// Whether a version that is there may be loaded.
    fn is_usable(&self, version: VersionNumber) -> bool {
        let is_chosen = |standing: &Standing| {
            [self.pinned, standing.stable, standing.before].contains(&Some(version))
                || !standing.refused.contains(&version)
        };
        !self.failed.contains(&version) && self.standing.is_none_or(is_chosen)
    }

    /// The loaded version to try: the newest above the stable one and above the one that is being tried, or else that. None
    /// beside a version that an operator wants to answer all.
    fn candidate(&self) -> Option<VersionNumber> {
        let standing = self.standing.filter(|_| self.pinned.is_none())?;
        let stable = standing.stable?;
        let tried = standing.candidate.map(|candidate| candidate.version).filter(|tried| *tried != stable);
        let newest = self.loaded.iter().copied().filter(|&version| self.is_usable(version)).max();
        let is_new = |newest: &VersionNumber| {
            *newest > stable && Some(*newest) > tried && !standing.refused.contains(newest)
        };
        let newest = newest.filter(is_new);
        newest.or_else(|| tried.filter(|tried| self.loaded.contains(tried) && self.is_usable(*tried)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Candidate, TrialStage},
        *,
    };

    fn versions(numbers: &[u64]) -> Vec<VersionNumber> {
        numbers.iter().map(|&number| number.try_into().expect("from 1")).collect()
    }

    fn latest(count: usize) -> Policy {
        Policy::Latest(NonZeroUsize::new(count).expect("above zero"))
    }

    fn standing(stable: u64, tried: Option<u64>, refused: &[u64]) -> Standing {
        let number = |number: u64| number.try_into().expect("from 1");
        let share = 0.1.try_into().expect("a share");
        Standing {
            stable: Some(number(stable)),
            before: None,
            candidate: tried.map(|tried| Candidate {
                version: number(tried),
                stage: TrialStage::Canary,
                share,
            }),
            refused: versions(refused).into_iter().collect(),
        }
    }

    /// Current, candidate, and what is to be loaded and unloaded.
    fn tried(standing: &Standing, on_disk: &[u64], loaded: &[u64], pinned: Option<u64>) -> [Vec<u64>; 4] {
        let observed = Observed {
            on_disk: &versions(on_disk),
            loaded: &versions(loaded),
            failed: &[],
            pinned: pinned.map(|number| number.try_into().expect("from 1")),
            standing: Some(standing),
        };
        let Plan { current, candidate, load, unload } = latest(1).plan(observed);
        let numbers = |versions: Vec<VersionNumber>| versions.into_iter().map(u64::from).collect();
        [current.into_iter().collect(), candidate.into_iter().collect(), load, unload].map(numbers)
    }

    #[test]
    fn a_new_version_is_tried_beside_the_stable_one() {
        let none: Vec<u64> = Vec::new();
        let at_once = Standing::default();
        assert_eq!(tried(&at_once, &[1], &[1], None), [vec![1], none.clone(), none.clone(), none.clone()]);
        let stable = standing(1, None, &[]);
        assert_eq!(tried(&stable, &[1, 2], &[1], None), [vec![1], none.clone(), vec![2], none.clone()]);
        assert_eq!(tried(&stable, &[1, 2], &[1, 2], None), [vec![1], vec![2], none.clone(), none.clone()]);
        assert_eq!(tried(&stable, &[1, 2], &[], None)[2], [1, 2], "the stable one first");
        let promoted = standing(2, None, &[]);
        assert_eq!(tried(&promoted, &[1, 2], &[1, 2], None), [vec![2], none.clone(), none.clone(), vec![1]]);
        let refused = standing(1, None, &[2]);
        assert_eq!(tried(&refused, &[1, 2], &[1, 2], None), [vec![1], none.clone(), none.clone(), vec![2]]);
        let newer = standing(1, Some(2), &[]);
        assert_eq!(tried(&newer, &[1, 2, 3], &[1, 2], None), [vec![1], vec![2], vec![3], none.clone()]);
        assert_eq!(tried(&newer, &[1, 2, 3], &[1, 2, 3], None)[1], [3]);
    }

    #[test]
    fn nothing_is_tried_beside_what_an_operator_pins_or_what_stands_in_for_the_stable_version() {
        let stable = standing(2, Some(3), &[]);
        let [current, candidate, ..] = tried(&stable, &[1, 2, 3], &[1, 2, 3], Some(1));
        assert_eq!((current, candidate), (vec![1], vec![]));
        let [current, candidate, ..] = tried(&stable, &[3], &[3], None);
        assert_eq!((current, candidate), (vec![3], vec![]));
        // What an operator has started may be older than what is stable.
        let [current, candidate, _, unload] = tried(&standing(2, Some(1), &[]), &[1, 2], &[1, 2], None);
        assert_eq!((current, candidate, unload), (vec![2], vec![1], vec![]));
        // Where the stable version cannot be had, the one before it answers and not what nobody has tried.
        let pruned = Standing { before: versions(&[1]).pop(), ..standing(2, Some(3), &[]) };
        let [current, candidate, load, _] = tried(&pruned, &[1, 3], &[3], None);
        assert_eq!((current, candidate, load), (vec![3], vec![], vec![1]));
        let [current, candidate, ..] = tried(&pruned, &[1, 3], &[1, 3], None);
        assert_eq!((current, candidate), (vec![1], vec![]));
        // Whose files are gone is tried no longer.
        assert_eq!(tried(&stable, &[2], &[2, 3], None)[1], Vec::<u64>::new());
    }

    fn plan(policy: &Policy, on_disk: &[u64], loaded: &[u64], failed: &[u64], pinned: Option<u64>) -> Plan {
        policy.plan(Observed {
            on_disk: &versions(on_disk),
            loaded: &versions(loaded),
            failed: &versions(failed),
            pinned: pinned.map(|number| number.try_into().expect("from 1")),
            standing: None,
        })
    }

    /// Policy, on disk, loaded, failed, pinned; then current (0 for none), load, unload.
    type Case<'a> = (Policy, &'a [u64], &'a [u64], &'a [u64], Option<u64>, (u64, &'a [u64], &'a [u64]));

    #[test]
    fn the_table_of_cases() {
        let specific = |numbers| Policy::Specific(versions(numbers));
        let cases: &[Case<'_>] = &[
            (latest(1), &[], &[], &[], None, (0, &[], &[])),
            (latest(1), &[1], &[], &[], None, (0, &[1], &[])),
            (latest(1), &[1], &[1], &[], None, (1, &[], &[])),
            // The old version answers until the new one is loaded, and goes only then.
            (latest(1), &[1, 2], &[1], &[], None, (1, &[2], &[])),
            (latest(1), &[1, 2], &[1, 2], &[], None, (2, &[], &[1])),
            // A failed version changes nothing.
            (latest(1), &[1, 2], &[1], &[2], None, (1, &[], &[])),
            (latest(1), &[1, 2, 3], &[1], &[3], None, (1, &[2], &[])),
            // The only good version stays although its files are gone.
            (latest(1), &[], &[1], &[], None, (1, &[], &[])),
            (latest(1), &[2], &[1], &[2], None, (1, &[], &[])),
            // A newer version was taken away: back to the older one, which must be loaded first.
            (latest(1), &[1], &[2], &[], None, (2, &[1], &[])),
            (latest(1), &[1], &[1, 2], &[], None, (1, &[], &[2])),
            (latest(2), &[1, 2, 3], &[], &[], None, (0, &[3, 2], &[])),
            (latest(2), &[1, 2, 3], &[1, 3], &[], None, (3, &[2], &[1])),
            (Policy::All, &[1, 5, 9], &[5], &[], None, (5, &[9, 1], &[])),
            (specific(&[2]), &[1, 2, 3], &[], &[], None, (0, &[2], &[])),
            (specific(&[2]), &[1, 3], &[1], &[], None, (1, &[], &[])),
            (specific(&[1, 3]), &[1, 2, 3], &[1, 2, 3], &[], None, (3, &[], &[2])),
            // A pin holds against newer versions and is the first to be loaded.
            (latest(1), &[1, 2], &[1, 2], &[], Some(1), (1, &[], &[])),
            (latest(1), &[1, 2], &[2], &[], Some(1), (2, &[1], &[])),
            (latest(2), &[1, 2, 3], &[], &[], Some(1), (0, &[1, 3, 2], &[])),
            // A pinned version that is loaded goes on answering when its files are taken away.
            (latest(1), &[2], &[1], &[], Some(1), (1, &[2], &[])),
            (latest(2), &[], &[1, 2], &[], Some(1), (1, &[], &[])),
            // A pin on what cannot be had is no pin.
            (latest(1), &[1, 2], &[2], &[1], Some(1), (2, &[], &[])),
            (latest(1), &[2], &[2], &[], Some(7), (2, &[], &[])),
        ];
        for (policy, on_disk, loaded, failed, pinned, (current, load, unload)) in cases {
            let expected = Plan {
                current: (*current > 0).then(|| (*current).try_into().expect("from 1")),
                candidate: None,
                load: versions(load),
                unload: versions(unload),
            };
            let found = plan(policy, on_disk, loaded, failed, *pinned);
            assert_eq!(found, expected, "{policy:?} {on_disk:?} {loaded:?} {failed:?} {pinned:?}");
        }
    }

    fn subset() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::btree_set(1u64..8, 0..8).prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_stable_version_answers_and_what_was_refused_does_not_come_back(
            on_disk in subset(), start in subset(), refused in subset(),
            stable in 1u64..8, candidate in prop::option::of(1u64..8),
        ) {
            let standing = standing(stable, candidate, &refused);
            let (mut loaded, on_disk) = (versions(&start), versions(&on_disk));
            let is_refused = |version: &VersionNumber| {
                standing.refused.contains(version) && Some(*version) != standing.stable
            };
            for _ in 0..20 {
                let (loaded_now, standing) = (&loaded[..], Some(&standing));
                let observed = Observed { on_disk: &on_disk, loaded: loaded_now, failed: &[], pinned: None, standing };
                let plan = latest(1).plan(observed);
                let stable = standing.and_then(|standing| standing.stable).filter(|stable| loaded.contains(stable));
                prop_assert!(stable.is_none() || plan.current == stable);
                prop_assert!(!plan.load.iter().any(is_refused));
                prop_assert!(!plan.candidate.as_ref().is_some_and(is_refused));
                prop_assert!(plan.candidate.is_none() || (plan.candidate != plan.current && plan.current == stable));
                if plan.load.is_empty() && plan.unload.is_empty() {
                    // Nothing is unloaded while nothing that is wanted answers.
                    let refused = loaded.iter().filter(|version| is_refused(version)).count();
                    prop_assert!(refused == 0 || on_disk.iter().all(|version| !loaded.contains(version) || is_refused(version)));
                    return Ok(());
                }
                loaded.retain(|version| !plan.unload.contains(version));
                loaded.extend(plan.load.first());
                loaded.sort_unstable();
            }
            prop_assert!(false, "the plan never comes to rest");
        }

        #[test]
        fn something_always_answers_and_following_the_plan_comes_to_rest(
            on_disk in subset(), start in subset(), failed in subset(),
            pinned in prop::option::of(1u64..8), count in 1usize..4, all in any::<bool>(),
        ) {
            let policy = if all { Policy::All } else { latest(count) };
            let mut loaded = versions(&start);
            for _ in 0..20 {
                let numbers: Vec<u64> = loaded.iter().copied().map(u64::from).collect();
                let plan = plan(&policy, &on_disk, &numbers, &failed, pinned);
                prop_assert_eq!(plan.current.is_some(), !loaded.is_empty());
                prop_assert!(plan.current.is_none_or(|current| loaded.contains(&current)));
                prop_assert!(plan.unload.iter().all(|version| loaded.contains(version)));
                prop_assert!(!plan.unload.iter().any(|version| Some(*version) == plan.current));
                if plan.load.is_empty() && plan.unload.is_empty() {
                    return Ok(());
                }
                loaded.retain(|version| !plan.unload.contains(version));
                loaded.extend(plan.load.first());
                loaded.sort_unstable();
            }
            prop_assert!(false, "never at rest");
        }
    }
}
