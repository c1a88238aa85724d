//! The values of a column, each distinct one stored once, and how often each occurs.

use std::collections::HashMap;

use serde::Serialize;

use super::share::share;

/// A code a row, and the text of each code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    codes: Vec<u32>,
    texts: Vec<String>,
}

/// A value and the rows that have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueCount {
    /// The value, as the file spells it.
    pub value: String,
    /// Rows.
    pub rows: usize,
    /// Rows over the rows that have any value.
    pub share: f64,
}

impl Values {
    /// The column that holds `texts`; `None` is missing.
    pub fn of<'a>(texts: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut dictionary = Dictionary::new(usize::MAX);
        for text in texts {
            dictionary.push(text);
        }
        dictionary.finish().expect("nothing is over the bound")
    }

    /// The code of each row, from 0 in the order in which the file first names the values, or [`MISSING`].
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// The code of `row`, unless its value is missing.
    pub fn code(&self, row: usize) -> Option<u32> {
        Some(self.codes[row]).filter(|&code| code != MISSING)
    }

    /// The text of each code.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The number of distinct values.
    pub fn distinct(&self) -> usize {
        self.texts.len()
    }

    /// The rows of each code.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.distinct()];
        for &code in self.codes.iter().filter(|&&code| code != MISSING) {
            counts[code as usize] += 1;
        }
        counts
    }

    /// The `most` commonest values, the first seen before others as common.
    pub fn commonest(&self, most: usize) -> Vec<ValueCount> {
        let counts = self.counts();
        let all = counts.iter().sum();
        let value = |code: usize| ValueCount {
            value: self.texts[code].clone(),
            rows: counts[code],
            share: share(counts[code], all),
        };
        ranked(&counts, most).into_iter().map(value).collect()
    }
}

/// The positions of the `most` largest of `counts`, largest first, equals in their order.
pub fn ranked(counts: &[usize], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&position| std::cmp::Reverse(counts[position]));
    order.truncate(most);
    order
}

/// Collects a column, unless it has more than `bound` distinct values: then it forgets them all.
#[derive(Debug)]
pub struct Dictionary {
    bound: usize,
    codes_by_text: HashMap<Box<str>, u32>,
    codes: Vec<u32>,
    is_full: bool,
}

impl Dictionary {
    /// An empty column.
    pub fn new(bound: usize) -> Self {
        Self { bound, codes_by_text: HashMap::new(), codes: Vec::new(), is_full: false }
    }

    /// Adds the value of the next row; whether it may be one that was not there before.
    pub fn push(&mut self, text: Option<&str>) -> bool {
        let Some(text) = text else {
            self.codes.extend((!self.is_full).then_some(MISSING));
            return false;
        };
        if self.is_full {
            return true;
        }
        if let Some(&code) = self.codes_by_text.get(text) {
            self.codes.push(code);
            return false;
        }
        if self.codes_by_text.len() == self.bound {
            (self.codes_by_text, self.codes, self.is_full) = (HashMap::new(), Vec::new(), true);
            return true;
        }
        let code = u32::try_from(self.codes_by_text.len()).expect("fewer than four billion values");
        assert_ne!(code, MISSING, "fewer than four billion values");
        self.codes_by_text.insert(text.into(), code);
        self.codes.push(code);
        true
    }

    /// The column; `None` where it had more distinct values than the bound.
    pub fn finish(self) -> Option<Values> {
        let mut texts = vec![String::new(); self.codes_by_text.len()];
        for (text, code) in self.codes_by_text {
            texts[code as usize] = text.into();
        }
        (!self.is_full).then_some(Values { codes: self.codes, texts })
    }
}

/// The code of a row without a value.
pub const MISSING: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_values_share_a_code_and_missing_ones_have_none() {
        let values = Values::of([Some("b"), None, Some("a"), Some("b")]);
        assert_eq!(values.codes(), [0, MISSING, 1, 0]);
        assert_eq!((values.texts(), values.counts()), (&["b".to_owned(), "a".to_owned()][..], vec![2, 1]));
        assert_eq!((values.code(1), values.code(2)), (None, Some(1)));
    }

    #[test]
    fn the_commonest_come_first_and_equals_as_the_file_has_them() {
        let values = Values::of(["a", "b", "c", "b", "c", "d"].map(Some));
        let names: Vec<_> = values.commonest(3).into_iter().map(|found| (found.value, found.rows)).collect();
        assert_eq!(names, [("b".into(), 2), ("c".into(), 2), ("a".into(), 1)]);
    }

    #[test]
    fn a_column_over_its_bound_is_forgotten_and_one_at_its_bound_is_not() {
        let collect = |texts: &[&str]| {
            let mut dictionary = Dictionary::new(2);
            let news: Vec<bool> = texts.iter().map(|text| dictionary.push(Some(text))).collect();
            (dictionary.finish().map(|values| values.distinct()), news)
        };
        assert_eq!(collect(&["a", "b", "a"]), (Some(2), vec![true, true, false]));
        assert_eq!(collect(&["a", "b", "c", "a"]), (None, vec![true; 4]));
    }

    proptest! {
        #[test]
        fn every_row_is_counted_once_or_missing(texts in prop::collection::vec(prop::option::of("[a-d]{1,2}"), 0..60)) {
            let values = Values::of(texts.iter().map(Option::as_deref));
            let missing = texts.iter().filter(|text| text.is_none()).count();
            prop_assert_eq!(values.counts().iter().sum::<usize>() + missing, texts.len());
            for (row, text) in texts.iter().enumerate() {
                prop_assert_eq!(values.code(row).map(|code| &values.texts()[code as usize]), text.as_ref());
            }
        }
    }
}
