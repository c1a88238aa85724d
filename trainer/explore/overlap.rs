//! How much of the test period a model could know: which of its events have a user, an item and a pair that the
//! training period has.

use serde::Serialize;

use super::{share::share, values::Values};
use crate::calendar;

/// Training and test, cut in time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// Where the test period starts.
    pub test_from: String,
    /// Events before it.
    pub train_events: usize,
    /// Events from it on.
    pub test_events: usize,
    /// Users, where there are any.
    pub users: Option<Known>,
    /// Items, where there are any.
    pub items: Option<Known>,
    /// Events of the test period with a user and an item that are known both.
    pub test_events_with_both_known: Option<KnownEvents>,
    /// Events of the test period whose user had the same item in the training period.
    pub test_events_with_known_pair: Option<KnownEvents>,
}

/// Users, or items, on both sides of the cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Known {
    /// In the training period.
    pub train: usize,
    /// In the test period.
    pub test: usize,
    /// In both.
    pub both: usize,
    /// Events of the test period that name none at all.
    pub test_events_without: usize,
    /// Events of the test period that name one of the training period.
    pub test_events_known: KnownEvents,
}

/// A part of the events of the test period.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KnownEvents {
    /// Events.
    pub events: usize,
    /// The same over all events of the test period.
    pub share: f64,
}

/// The columns of a log that a cut concerns; rows without a time are on no side.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    /// The time of each row, in seconds since 1970.
    pub times: &'a [Option<i64>],
    /// The user of each row.
    pub users: Option<&'a Values>,
    /// The item of each row.
    pub items: Option<&'a Values>,
    /// Where the test period starts, in seconds since 1970.
    pub test_from: i64,
}

impl Overlap {
    /// What the two sides of `cut` have in common.
    pub fn of(cut: &Cut<'_>) -> Self {
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for (row, time) in cut.times.iter().enumerate() {
            match time {
                Some(time) if *time < cut.test_from => train.push(row),
                Some(_) => test.push(row),
                None => {}
            }
        }
        let users = cut.users.map(|values| Sides::of(values, &train));
        let items = cut.items.map(|values| Sides::of(values, &train));
        let events = |events: usize| KnownEvents { events, share: share(events, test.len()) };
        let known = |sides: &Sides<'_>| sides.known(&test);
        let both = users.as_ref().zip(items.as_ref()).map(|(users, items)| {
            let both = test.iter().filter(|&&row| users.knows(row) && items.knows(row)).count();
            (events(both), events(known_pairs(users.values, items.values, &train, &test)))
        });
        Self {
            test_from: calendar::format(cut.test_from),
            train_events: train.len(),
            test_events: test.len(),
            users: users.as_ref().map(known),
            items: items.as_ref().map(known),
            test_events_with_both_known: both.map(|(both, _)| both),
            test_events_with_known_pair: both.map(|(_, pairs)| pairs),
        }
    }
}

/// The number of distinct pairs of a user and an item.
pub fn distinct_pairs(users: &Values, items: &Values) -> usize {
    let rows: Vec<usize> = (0..users.codes().len()).collect();
    pairs(users, items, &rows).len()
}

/// A column and which of its values the training period has.
struct Sides<'a> {
    values: &'a Values,
    in_train: Vec<bool>,
}

impl<'a> Sides<'a> {
    fn of(values: &'a Values, train: &[usize]) -> Self {
        Self { values, in_train: present(values, train) }
    }

    fn knows(&self, row: usize) -> bool {
        self.values.code(row).is_some_and(|code| self.in_train[code as usize])
    }

    fn known(&self, test: &[usize]) -> Known {
        let in_test = present(self.values, test);
        let count = |flags: &[bool]| flags.iter().filter(|&&flag| flag).count();
        let events = test.iter().filter(|&&row| self.knows(row)).count();
        Known {
            train: count(&self.in_train),
            test: count(&in_test),
            both: self.in_train.iter().zip(&in_test).filter(|(train, test)| **train && **test).count(),
            test_events_without: test.iter().filter(|&&row| self.values.code(row).is_none()).count(),
            test_events_known: KnownEvents { events, share: share(events, test.len()) },
        }
    }
}

fn present(values: &Values, rows: &[usize]) -> Vec<bool> {
    let mut present = vec![false; values.distinct()];
    for code in rows.iter().filter_map(|&row| values.code(row)) {
        present[code as usize] = true;
    }
    present
}

fn known_pairs(users: &Values, items: &Values, train: &[usize], test: &[usize]) -> usize {
    let known = pairs(users, items, train);
    let is_known =
        |&&row: &&usize| pair(users, items, row).is_some_and(|pair| known.binary_search(&pair).is_ok());
    test.iter().filter(is_known).count()
}

/// The distinct pairs of `rows`, ascending.
fn pairs(users: &Values, items: &Values, rows: &[usize]) -> Vec<u64> {
    let mut pairs: Vec<u64> = rows.iter().filter_map(|&row| pair(users, items, row)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn pair(users: &Values, items: &Values, row: usize) -> Option<u64> {
    Some(u64::from(users.code(row)?) << 32 | u64::from(items.code(row)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_log_is_compared_by_hand() {
        let users = Values::of([Some("a"), Some("b"), Some("a"), Some("c"), None, Some("a"), Some("b")]);
        let items = Values::of(["x", "x", "y", "x", "x", "x", "z"].map(Some));
        let times = [Some(1), Some(2), Some(10), Some(11), Some(12), Some(13), None];
        let overlap =
            Overlap::of(&Cut { times: &times, users: Some(&users), items: Some(&items), test_from: 10 });
        assert_eq!((overlap.train_events, overlap.test_events), (2, 4));
        let known = overlap.users.expect("users");
        assert_eq!((known.train, known.test, known.both, known.test_events_without), (2, 2, 1, 1));
        assert_eq!(known.test_events_known, KnownEvents { events: 2, share: 0.5 });
        let known = overlap.items.expect("items");
        assert_eq!((known.train, known.test, known.both, known.test_events_known.events), (1, 2, 1, 3));
        assert_eq!(overlap.test_events_with_both_known.map(|known| known.events), Some(1));
        assert_eq!(overlap.test_events_with_known_pair.map(|known| known.events), Some(1));
        assert_eq!(distinct_pairs(&users, &items), 5);
    }

    #[test]
    fn a_log_without_items_is_compared_by_its_users_alone() {
        let users = Values::of([Some("a"), Some("a")]);
        let overlap =
            Overlap::of(&Cut { times: &[Some(1), Some(2)], users: Some(&users), items: None, test_from: 2 });
        assert_eq!(overlap.users.map(|known| known.test_events_known.events), Some(1));
        assert_eq!((overlap.items, overlap.test_events_with_known_pair), (None, None));
    }

    proptest! {
        #[test]
        fn a_known_pair_has_a_known_user_and_a_known_item(
            rows in prop::collection::vec((0u8..6, 0u8..6, 0i64..20), 1..60), test_from in 0i64..20,
        ) {
            let texts: Vec<(String, String)> = rows.iter().map(|row| (row.0.to_string(), row.1.to_string())).collect();
            let users = Values::of(texts.iter().map(|row| Some(row.0.as_str())));
            let items = Values::of(texts.iter().map(|row| Some(row.1.as_str())));
            let times: Vec<_> = rows.iter().map(|row| Some(row.2)).collect();
            let overlap = Overlap::of(&Cut { times: &times, users: Some(&users), items: Some(&items), test_from });
            let both = overlap.test_events_with_both_known.expect("both").events;
            prop_assert!(overlap.test_events_with_known_pair.expect("both").events <= both);
            prop_assert!(both <= overlap.users.expect("users").test_events_known.events);
            prop_assert!(both <= overlap.items.expect("items").test_events_known.events);
            prop_assert_eq!(overlap.train_events + overlap.test_events, rows.len());
        }
    }
}
