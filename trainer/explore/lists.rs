//! What a column of lists holds, as the trainer sees it where a feature has `values`: how long the lists are, and in how
//! many of them each id is.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    share::share,
    values::{ValueCount, ranked},
};

/// The lists of a column. One without an id is missing, and counts for nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Lists that hold an id.
    pub lists: usize,
    /// The ids of all of them, each as often as it is there.
    pub ids: usize,
    /// The ids of the shortest.
    pub shortest: usize,
    /// The ids of the longest.
    pub longest: usize,
    /// The lists that each id is in; `None` where there are more ids than the bound.
    rows_by_id: Option<BTreeMap<String, usize>>,
}

impl Lists {
    /// No lists yet.
    pub fn new() -> Self {
        Self { rows_by_id: Some(BTreeMap::new()), ..Self::default() }
    }

    /// Adds a list that holds an id. Once there are more than `bound` distinct ids, they are forgotten.
    pub fn push(&mut self, ids: &[String], bound: usize) {
        self.shortest = if self.lists == 0 { ids.len() } else { self.shortest.min(ids.len()) };
        self.longest = self.longest.max(ids.len());
        self.lists += 1;
        self.ids += ids.len();
        if let Some(rows) = &mut self.rows_by_id {
            for id in ids.iter().collect::<BTreeSet<_>>() {
                *rows.entry(id.clone()).or_default() += 1;
            }
        }
        self.rows_by_id.take_if(|rows| rows.len() > bound);
    }

    /// Ids of a list, on the mean.
    pub fn mean(&self) -> f64 {
        self.ids as f64 / self.lists.max(1) as f64
    }

    /// The number of distinct ids; `None` where there are more than the bound.
    pub fn distinct(&self) -> Option<usize> {
        self.rows_by_id.as_ref().map(BTreeMap::len)
    }

    /// The `most` ids that are in the most lists, equals by their text.
    pub fn commonest(&self, most: usize) -> Vec<ValueCount> {
        let found: Vec<(&String, usize)> =
            self.rows_by_id.iter().flatten().map(|(id, &rows)| (id, rows)).collect();
        let counts: Vec<usize> = found.iter().map(|(_, rows)| *rows).collect();
        let count = |position: usize| {
            let (id, rows) = found[position];
            ValueCount { value: id.clone(), rows, share: share(rows, self.lists) }
        };
        ranked(&counts, most).into_iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(of: &[&[&str]], bound: usize) -> Lists {
        let mut lists = Lists::new();
        for list in of {
            lists.push(&list.iter().map(|&id| id.to_owned()).collect::<Vec<_>>(), bound);
        }
        lists
    }

    #[test]
    fn lengths_count_every_id_and_rows_count_each_once() {
        let lists = lists(&[&["war", "drama"], &["war", "war", "war"], &["comedy"]], 3);
        assert_eq!((lists.shortest, lists.longest, lists.distinct()), (1, 3, Some(3)));
        assert!((lists.mean() - 2.0).abs() < f64::EPSILON);
        let found: Vec<_> = lists.commonest(2).into_iter().map(|found| (found.value, found.rows)).collect();
        assert_eq!(found, [("war".into(), 2), ("comedy".into(), 1)]);
    }

    #[test]
    fn more_ids_than_the_bound_are_forgotten_and_the_lengths_are_not() {
        let lists = lists(&[&["a", "b"], &["c"], &["a"]], 2);
        assert_eq!((lists.distinct(), lists.commonest(5), lists.ids), (None, vec![], 4));
    }
}
