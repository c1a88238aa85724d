//! The training log in memory: a row an event, in the order of time, ids interned.
//!
//! It holds what the log says and nothing that was derived: which rows are training and which are test is
//! [`crate::split`]'s, what becomes an example is [`crate::examples`]'s.

mod ids;
mod read;

pub(crate) use self::read::{Collect, collect, kept, times};
pub use self::{
    ids::{Ids, Interner},
    read::{LogError, LogFile, read},
};

/// Events in the order of their time; rows of one time keep the file's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Who.
    pub users: Ids,
    /// What.
    pub items: Ids,
    /// When, in seconds since 1970, ascending.
    pub times: Vec<i64>,
    /// Whether it happened; `None` where every row is a purchase.
    pub labels: Option<Vec<bool>>,
    /// The values of each feature, in the order of the pipeline's features.
    pub features: Vec<FeatureColumn>,
}

/// The values of one feature.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureColumn {
    /// Ids.
    Ids(Ids),
    /// Finite numbers.
    Numbers(Vec<f64>),
}

impl Log {
    /// The number of events.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Puts the rows into the order of their time.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&row| self.times[row]);
        self.users.reorder(&order);
        self.items.reorder(&order);
        self.times = order.iter().map(|&row| self.times[row]).collect();
        if let Some(labels) = &mut self.labels {
            *labels = order.iter().map(|&row| labels[row]).collect();
        }
        for column in &mut self.features {
            match column {
                FeatureColumn::Ids(ids) => ids.reorder(&order),
                FeatureColumn::Numbers(numbers) => {
                    *numbers = order.iter().map(|&row| numbers[row]).collect();
                }
            }
        }
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
            features: vec![FeatureColumn::Ids(ids()), FeatureColumn::Numbers(vec![3.0, 1.0, 2.0, 1.5])],
        };
        log.sort();
        assert_eq!(log.users.codes(), [1, 3, 2, 0]);
        assert_eq!(log.times, [1, 1, 2, 3]);
        assert_eq!(log.labels, Some(vec![false, true, false, true]));
        assert_eq!(log.features[1], FeatureColumn::Numbers(vec![1.0, 1.5, 2.0, 3.0]));
    }
}
