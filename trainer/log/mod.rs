//! The training log in memory: a row an event, in the order of time, ids interned. A table of labelled rows is a log
//! without times: its training rows come first, in a random order, and its test rows follow.
//!
//! It holds what the log says and nothing that was derived: which rows are training and which are test is
//! [`crate::split`]'s, what becomes an example is [`crate::examples`]'s.

mod column;
mod feedback;
mod ids;
mod lists;
mod read;

use std::collections::BTreeMap;

use millrace::features::RawValue;
use rand::seq::SliceRandom;

pub(crate) use self::{
    column::StoredColumn,
    lists::stored_lists,
    read::{Collect, collect, kept},
};
pub use self::{
    feedback::Feedback,
    ids::{Ids, Interner},
    read::{LogError, LogFile, read, read_table, read_with},
};
use crate::random::Random;

/// Events in the order of their time; rows of one time keep the file's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Who; empty where a table does not say.
    pub users: Ids,
    /// What; empty where a table does not say.
    pub items: Ids,
    /// When, in seconds since 1970, ascending; empty in a table.
    pub times: Vec<i64>,
    /// Whether it happened; `None` where every row is a purchase.
    pub labels: Option<Vec<bool>>,
    /// The values of each feature that has a column of its own, in the order of the pipeline's features.
    pub features: Vec<FeatureColumn>,
    /// The columns that history features look at and nobody sends, by name; ids are texts.
    pub measured: BTreeMap<String, FeatureColumn>,
}

/// The values of one feature.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureColumn {
    /// Ids.
    Ids(Ids),
    /// Lists of ids. A list is a value as an id is one: a log holds few different ones, each of them often.
    Lists(Ids),
    /// Finite numbers, and NaN where one is missing.
    Numbers(Vec<f64>),
    /// Seconds since 1970, where there are any.
    Moments(Vec<Option<i64>>),
}

impl Log {
    /// The number of events.
    pub fn len(&self) -> usize {
        self.labels.as_ref().map_or(self.times.len(), Vec::len)
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts the rows into the order of their time.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&row| self.times[row]);
        self.reorder(&order);
    }

    /// Puts the first `rows` rows into a random order.
    fn shuffle(&mut self, rows: usize, random: &mut Random) {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order[..rows].shuffle(random);
        self.reorder(&order);
    }

    /// Makes row `i` what row `order[i]` was.
    fn reorder(&mut self, order: &[usize]) {
        self.users.reorder(order);
        self.items.reorder(order);
        reorder(&mut self.times, order);
        if let Some(labels) = &mut self.labels {
            reorder(labels, order);
        }
        for column in self.features.iter_mut().chain(self.measured.values_mut()) {
            match column {
                FeatureColumn::Ids(ids) | FeatureColumn::Lists(ids) => ids.reorder(order),
                FeatureColumn::Numbers(numbers) => reorder(numbers, order),
                FeatureColumn::Moments(moments) => reorder(moments, order),
            }
        }
    }
}

impl FeatureColumn {
    /// The value of `row`, as a request would carry it.
    pub fn raw(&self, row: usize) -> RawValue<'_> {
        match self {
            Self::Ids(ids) | Self::Lists(ids) => ids.value(row).raw(),
            Self::Numbers(numbers) if numbers[row].is_nan() => RawValue::Missing,
            Self::Numbers(numbers) => RawValue::Float(numbers[row]),
            Self::Moments(moments) => moments[row].map_or(RawValue::Missing, RawValue::Int),
        }
    }
}

/// A column that says nothing has no rows to move.
fn reorder<T: Copy>(values: &mut Vec<T>, order: &[usize]) {
    if !values.is_empty() {
        *values = order.iter().map(|&row| values[row]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_moves_whole_rows_and_keeps_the_order_of_equals() {
        let ids = || Ids::of(["a", "b", "c", "d"]);
        let mut log = Log {
            users: ids(),
            items: ids(),
            times: vec![3, 1, 2, 1],
            labels: Some(vec![true, false, false, true]),
            features: vec![
                FeatureColumn::Ids(ids()),
                FeatureColumn::Numbers(vec![3.0, 1.0, 2.0, 1.5]),
                FeatureColumn::Moments(vec![Some(3), None, Some(2), Some(1)]),
            ],
            measured: BTreeMap::from([("price".into(), FeatureColumn::Numbers(vec![3.0, 1.0, 2.0, 1.5]))]),
        };
        log.sort();
        assert_eq!(log.users.codes(), [1, 3, 2, 0]);
        assert_eq!(log.times, [1, 1, 2, 3]);
        assert_eq!(log.labels, Some(vec![false, true, false, true]));
        assert_eq!(log.features[1], FeatureColumn::Numbers(vec![1.0, 1.5, 2.0, 3.0]));
        assert_eq!(log.measured["price"], log.features[1]);
        assert_eq!(log.features[2], FeatureColumn::Moments(vec![None, Some(1), Some(2), Some(3)]));
        assert_eq!((log.features[2].raw(0), log.features[2].raw(1)), (RawValue::Missing, RawValue::Int(1)));
    }

    #[test]
    fn shuffling_moves_whole_rows_and_leaves_the_later_ones() {
        let numbers = |log: &Log| match &log.features[0] {
            FeatureColumn::Numbers(numbers) => numbers.clone(),
            other => panic!("{other:?}"),
        };
        let log = Log {
            labels: Some((0..100).map(|row| row % 3 == 0).collect()),
            features: vec![FeatureColumn::Numbers((0..100).map(f64::from).collect())],
            ..Log::default()
        };
        let mut shuffled = log.clone();
        shuffled.shuffle(80, &mut crate::random::random(7, crate::random::Purpose::Table, 0));
        let (before, after) = (numbers(&log), numbers(&shuffled));
        assert_ne!(before[..80], after[..80]);
        assert_eq!(before[80..], after[80..]);
        let labels = shuffled.labels.expect("labelled");
        assert!(after.iter().zip(&labels).all(|(number, &label)| (number % 3.0 == 0.0) == label));
    }
}
