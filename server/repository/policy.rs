//! Which versions of a model should be loaded and which one should answer: a pure function of what is there, which
//! gives the same plan again until something changes.
//!
//! Two rules come before what the policy wants: a version is unloaded only once a wanted one answers in its stead,
//! and a version that failed to load is treated as if it were not there.

use std::num::NonZeroUsize;

use super::VersionNumber;

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
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The version that should answer, among those that are loaded.
    pub current: Option<VersionNumber>,
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
        let preferred = observed.pinned.filter(|pinned| wanted.contains(pinned) || loaded(pinned));
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
        Plan { current, load, unload }
    }

    fn wanted(&self, observed: &Observed<'_>) -> Vec<VersionNumber> {
        let usable = |version: &VersionNumber| !observed.failed.contains(version);
        let there: Vec<_> = observed.on_disk.iter().copied().filter(usable).collect();
        let mut wanted = match self {
            Self::Latest(count) => there[there.len().saturating_sub(count.get())..].to_vec(),
            Self::All => there.clone(),
            Self::Specific(versions) => {
                there.iter().copied().filter(|version| versions.contains(version)).collect()
            }
        };
        // An operator's choice holds although the policy would leave it out.
        if let Some(pinned) =
            observed.pinned.filter(|pinned| there.contains(pinned) && !wanted.contains(pinned))
        {
            wanted.push(pinned);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn versions(numbers: &[u64]) -> Vec<VersionNumber> {
        numbers.iter().map(|&number| number.try_into().expect("from 1")).collect()
    }

    fn latest(count: usize) -> Policy {
        Policy::Latest(NonZeroUsize::new(count).expect("above zero"))
    }

    fn plan(policy: &Policy, on_disk: &[u64], loaded: &[u64], failed: &[u64], pinned: Option<u64>) -> Plan {
        policy.plan(Observed {
            on_disk: &versions(on_disk),
            loaded: &versions(loaded),
            failed: &versions(failed),
            pinned: pinned.map(|number| number.try_into().expect("from 1")),
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
